"""The state of a search, computed from the events of its log and from nothing else.

`resume`, `explain`, the tables, the display and the comparisons read this state.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from s2s_search.errors import ConfigError
from s2s_search.runs.events import LASTING, Event
from s2s_search.runs.folder import no_trial, trial_name
from s2s_search.runs.log import Log, open_log
from s2s_search.statuses import KILLED, LOST

REPLICATES = "-replicates"  # how the names of replicates end
AUDIT = "-audit"  # how the name ends of a search that trains stopped trials to the end


class News(NamedTuple):
    """A report that was news, and the time until it came, in seconds of the search's work."""

    event: Event
    elapsed: float


@dataclass
class TrialHistory:
    """One trial of a search, as the log has it so far."""

    name: str
    config: dict[str, Any]
    settings: dict[str, Any]  # the searched hyperparameters, with labels for their values
    began: float  # in seconds of the search's work
    began_at: float  # in seconds since 1970
    seed: Any = None
    status: str = "running"
    message: str | None = None
    ended: float | None = None
    ended_at: float | None = None
    step: int = 0  # the step of the newest report
    reports: int = 0  # the number of reports since the newest exploit
    reported_status: str = "running"  # the trial's status by its newest report
    best: Event | None = None  # the report with the best value of the metric
    last: Event | None = None  # the newest report
    news: list[News] = field(default_factory=list)  # all reports that were news
    restarts: int = 0
    losses: int = 0  # the number of restarts because a worker was lost
    exploits: int = 0
    decisions: list[Event] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)  # restarts, exploits, notes

    @property
    def number(self) -> int:
        return int(self.name.removeprefix("trial-"))

    @property
    def reason(self) -> str | None:
        """The reason of the newest decision; None if it has none, or there is no decision."""
        return self.decisions[-1].get("reason") if self.decisions else None


class History:
    """The state of a search. Only this class says what the events of a log mean.

    - A report is news when its step is beyond the steps that the trial has reported. A trial that
      is resumed from a checkpoint sends some reports again, and these are no news. After an
      exploit, any step is news.
    - The best report has the best value of the metric, and is the earliest of equal ones. The
      report of a divergence is never best.
    - Seconds are seconds of the search's work: the time between a kill and `resume` is left out.
    - A trial has a worker from its start until it ends, pauses, or is lost.

    `search` is the first event, with the changes that each `resume` has made. `trials` holds the
    trials that began, by name, in the order in which they began.
    """

    def __init__(self, events: Sequence[Event]) -> None:
        self.events: list[Event] = [events[0]]
        self.search: dict[str, Any] = {"trials": 0, **events[0]}
        self.trials: dict[str, TrialHistory] = {}
        self.queued: list[str] = []  # trials in the order in which they got into brackets
        self.news: list[News] = []  # the reports of all trials that were news
        self.best: Event | None = None  # the best report of all trials
        self.status = "running"  # the status as the log has it
        self.is_killed = False  # True when the search runs by its log, but nobody drives it
        self.message: str | None = None
        self.driver: dict[str, float] = {}  # the costs of the driver; empty until the end
        self.workers = 1  # the largest number of trials that ran at once
        # Worker seconds without a trial, since the last start of a trial.
        self.tail = 0.0
        self._spans: list[tuple[str, float, float]] = []  # the spans that have ended
        # The time of the first event, moved by the times in which no driver was at work.
        self.began: float = self.search["time"]
        self.now: float = self.search["time"]  # the time of the newest event
        self._since: dict[str, float] = {}  # when each trial that has a worker got it
        self._counted = 0.0  # the second up to which `tail` is counted
        for event in events[1:]:
            self.add(event)

    @property
    def elapsed(self) -> float:
        """The time in which a driver was at work, in seconds."""
        return self.now - self.began

    @property
    def spans(self) -> list[tuple[str, float, float]]:
        """The times with a worker: trial, begin and end, in seconds of the search's work."""
        return self._spans + [(name, since, self.elapsed) for name, since in self._since.items()]

    @property
    def busy(self) -> float:
        """The worker seconds of all trials so far."""
        return sum(end - begin for _, begin, end in self.spans)

    @property
    def minimizes(self) -> bool:
        return bool(self.search["goal"] == "minimize")

    def beats(self, value: float, other: float) -> bool:
        """Returns whether a value of the metric is better than another."""
        return value < other if self.minimizes else value > other

    def add(self, event: Event) -> bool:
        """Adds an event that follows the others. Returns whether it is a report that is news."""
        self.events.append(event)
        kind, name = event["event"], event.get("trial", "")
        now = event.get("time", self.now)
        if kind == "resume" or now < self.now:  # nothing ran, or the clock was set back
            self.began += now - self.now
        self.now = now
        if name:
            self._count_tail()
        if kind == "trial" and name not in self.trials:
            self._begin(name, event)
        elif kind == "queued":
            self.queued.append(name)
        elif kind == "resume":
            self._resume(event)
        elif kind == "status" and not name:
            self.status, self.message = event["status"], event.get("message")
            self.driver = event.get("driver", {})
            self._leave(*self._since)
        elif name in self.trials:
            return self._follow(self.trials[name], event)
        return False

    def _count_tail(self) -> None:
        elapsed = round(self.elapsed, 3)
        self.tail += max(self.workers - len(self._since), 0) * (elapsed - self._counted)
        self._counted = elapsed

    def _begin(self, name: str, event: Event) -> None:
        self.trials[name] = TrialHistory(
            name,
            event["config"],
            event["settings"],
            began=round(self.elapsed, 3),
            began_at=self.now,
            seed=event["config"].get("train.seed"),
        )
        self._get_worker(name)

    def _resume(self, event: Event) -> None:
        self._leave(*self._since)
        self.status, self.message, self.driver = "running", None, {}
        for key, value in event.items():
            if key not in LASTING:
                self.search[key] = value

    def _follow(self, trial: TrialHistory, event: Event) -> bool:
        kind = event["event"]
        if kind == "report":
            return self._report(trial, event)
        if kind == "status":
            trial.status, trial.message = event["status"], event.get("message")
            trial.ended, trial.ended_at = round(self.elapsed, 3), self.now
            self._leave(trial.name)
        elif kind == "decision":
            trial.decisions.append(event)
        elif kind == "pause":
            self._leave(trial.name)
        elif kind == "start":
            self._get_worker(trial.name)
        elif kind in ("restart", "exploit", "note"):
            trial.events.append(event)
        if kind == "restart":
            trial.status, trial.message, trial.ended = "running", None, None
            trial.restarts += 1
            trial.losses += event["cause"] == LOST
            self._leave(trial.name)
        elif kind == "exploit":
            trial.config, trial.settings = event["config"], event["settings"]
            trial.step, trial.reports = 0, 0
            trial.exploits += 1
        return False

    def _get_worker(self, name: str) -> None:
        if name not in self._since:
            self._since[name] = self.elapsed
            self.workers = max(self.workers, len(self._since))
            self.tail = 0.0  # the tail begins when the last trial has started

    def _leave(self, *names: str) -> None:
        """Ends the spans of the named trials that have a worker."""
        for name in names:
            if name in self._since:
                self._spans.append((name, self._since.pop(name), self.elapsed))

    def is_news(self, trial: str, step: float) -> bool:
        """Returns whether a report of a trial at a step would be news."""
        past = self.trials.get(trial)
        return past is None or past.reports == 0 or step > past.step

    def _report(self, trial: TrialHistory, event: Event) -> bool:
        step, value = event.get("step") or 0, event.get(self.search["metric"])
        if not self.is_news(trial.name, step):
            return False
        reported = News(event, round(self.elapsed, 3))
        self.news.append(reported)
        trial.news.append(reported)
        trial.step, trial.last = step, event
        trial.reported_status = event.get("status") or "running"
        trial.reports += 1
        if value is not None and trial.reported_status != "diverged":
            metric = self.search["metric"]
            if trial.best is None or self.beats(value, trial.best[metric]):
                trial.best = event
            if self.best is None or self.beats(value, self.best[metric]):
                self.best = event
        return True

    @property
    def is_running(self) -> bool:
        """True when the search runs now."""
        return self.status == "running" and not self.is_killed

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the corpus; empty when a damaged log has none."""
        return str(self.search.get("corpus", {}).get("fingerprint", ""))

    def trial(self, number: int, where: str | None = None) -> TrialHistory:
        """Returns a trial.

        Raises:
            ConfigError: the trial never began. The message names the trials that there are.
        """
        name = trial_name(number)
        if name not in self.trials:
            raise ConfigError(no_trial(number, self.trials), where)
        return self.trials[name]

    def of(self, *statuses: str) -> list[TrialHistory]:
        return [trial for trial in self.trials.values() if trial.status in statuses]


def load_history(folder: Path) -> History:
    """Returns the state of the search in a run folder. Raises ConfigError for any other folder."""
    return history_of(open_log(folder))


def history_of(log: Log) -> History:
    """Returns the state of a search at the moment of the log. Raises ConfigError for a bad log."""
    history = History(log.read()[0])
    history.is_killed = log.status(history.status) == KILLED
    return history
