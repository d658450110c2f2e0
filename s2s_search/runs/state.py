"""What the log says of each trial of a search: where it stands, what was decided about it, and why.

From this a search goes on after a kill, and `explain` answers. Needs nothing but the log.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from s2s_search.corpus.corpus import Corpus
from s2s_search.corpus.load import load_corpus
from s2s_search.errors import ConfigError
from s2s_search.runs.events import LASTING, Event
from s2s_search.runs.folder import no_trial, trial_name
from s2s_search.runs.log import Log, open_log
from s2s_search.spaces.load import load_space
from s2s_search.spaces.space import Space
from s2s_search.statuses import KILLED, LOST

REPLICATES = "-replicates"  # how the names of replicates end

# What ends a trial by itself: a driver that was killed may not have written down that it did.
ENDS_ITSELF = ("finished", "diverged")


@dataclass
class TrialHistory:
    """One trial: its configuration, its newest status and step, its best value, and what was decided about it."""

    name: str
    config: dict[str, Any]
    settings: dict[str, Any]
    status: str = "running"
    message: str | None = None
    step: int = 0  # of the newest report
    said: str = "running"  # what the newest report said of itself
    best: Event | None = None  # the report with the best value of the metric
    last: Event | None = None  # the newest report
    reports: int = 0
    losses: int = 0  # of its worker
    decisions: list[Event] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)  # restarts, exploits, notes

    @property
    def number(self) -> int:
        return int(self.name.removeprefix("trial-"))


class History:
    """The past of a search.

    `search` is its first event, changed by what it was resumed with; `trials` are those that began, by name, in order.
    """

    def __init__(self, events: Sequence[Event]) -> None:
        self.events = events
        self.search: dict[str, Any] = {"trials": 0, **events[0]}
        self.trials: dict[str, TrialHistory] = {}
        self.status = "running"  # as the log has it
        self.is_killed = False  # the log says that it runs, and nobody drives it
        self.message: str | None = None
        self.elapsed = 0.0  # seconds in which a driver was at work
        self.spans: list[
            tuple[str, float, float]
        ] = []  # which trial ran, from when to when, by those seconds
        self._now = self.search["time"]
        self._since: dict[str, float] = {}  # of those that run
        for event in events[1:]:
            self._add(event)
        self._halt(*self._since)

    def _add(self, event: Event) -> None:
        kind, name = event["event"], event.get("trial", "")
        now = event.get("time", self._now)
        if kind != "resume":
            self.elapsed += max(now - self._now, 0.0)
        self._now = now
        if kind == "trial" and name not in self.trials:
            self.trials[name] = TrialHistory(name, event["config"], event["settings"])
            self._since[name] = self.elapsed
        elif kind == "status" and not name:
            self.status, self.message = event["status"], event.get("message")
            self._halt(*self._since)
        elif kind == "resume":
            self._halt(*self._since)
            self.status, self.message = "running", None
            self.search |= {key: value for key, value in event.items() if key not in LASTING}
        elif name in self.trials:
            self._follow(self.trials[name], event)

    def _follow(self, trial: TrialHistory, event: Event) -> None:
        kind = event["event"]
        if kind == "report":
            self._report(trial, event)
        elif kind == "status":
            trial.status, trial.message = event["status"], event.get("message")
            self._halt(trial.name)
        elif kind == "decision":
            trial.decisions.append(event)
        elif kind == "pause":
            self._halt(trial.name)
        elif kind == "start":
            self._since.setdefault(trial.name, self.elapsed)
        else:
            trial.events.append(event)
        if kind == "restart":
            trial.status, trial.message = "running", None
            trial.losses += event["cause"] == LOST
            self._halt(trial.name)
        elif kind == "exploit":
            trial.config, trial.settings, trial.step, trial.reports = (
                event["config"],
                event["settings"],
                0,
                0,
            )

    def _halt(self, *names: str) -> None:
        self.spans += [
            (name, self._since.pop(name), self.elapsed) for name in names if name in self._since
        ]

    def _report(self, trial: TrialHistory, event: Event) -> None:
        step, value = event.get("step") or 0, event.get(self.search["metric"])
        if step <= trial.step and trial.reports:
            return
        trial.step, trial.said, trial.last = step, event.get("status") or "running", event
        trial.reports += 1
        if value is not None and trial.said != "diverged":
            best = None if trial.best is None else trial.best[self.search["metric"]]
            minimize = self.search["goal"] == "minimize"
            if best is None or (value < best if minimize else value > best):
                trial.best = event

    @property
    def is_running(self) -> bool:
        """Says whether the search runs now."""
        return self.status == "running" and not self.is_killed

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the corpus; empty where a damaged log has none."""
        return str(self.search.get("corpus", {}).get("fingerprint", ""))

    def trial(self, number: int, where: str | None = None) -> TrialHistory:
        """Returns a trial. Raises ConfigError, with the trials that there are, when it never began."""
        name = trial_name(number)
        if name not in self.trials:
            raise ConfigError(no_trial(number, self.trials), where)
        return self.trials[name]

    @property
    def busy(self) -> float:
        """The seconds of all trials."""
        return sum(end - begin for _, begin, end in self.spans)

    def of(self, *statuses: str) -> list[TrialHistory]:
        return [trial for trial in self.trials.values() if trial.status in statuses]


def load_history(folder: Path) -> History:
    """Reads the log of a run folder. Raises ConfigError."""
    return history_of(open_log(folder))


def history_of(log: Log) -> History:
    """Returns the past of a search, as of the moment of the log. Raises ConfigError."""
    history = History(log.read()[0])
    history.is_killed = log.status(history.status) == KILLED
    return history


def space_of(history: History, folder: Path, corpus: Mapping[str, object] | None = None) -> Space:
    """Returns the search space of a run folder; the paths of its corpus start from where its file was.

    The files of the corpus need not be there. `corpus` says where they lie now; what it leaves out, such as delimiters,
    is as the search had it. Replicates have the space of the search that they are of, without its scheduler: who is
    stopped early tells less.
    """
    home = Path(history.search.get("space") or folder / "space.yaml").parent
    space = replace(
        load_space(folder / "space.yaml", home, files=False), name=history.search["name"]
    )
    if corpus is not None:
        is_same_kind = "name" not in corpus and "name" not in space.corpus
        space = replace(space, corpus={**space.corpus, **corpus} if is_same_kind else dict(corpus))
    if "configs" in history.search:
        return replace(space, scheduler=replace(space.scheduler, name="none", interval_steps=None))
    return space


def corpus_of(space: Space, fingerprint: str | None, folder: Path) -> Corpus:
    """Returns the corpus of a past search, which has this fingerprint; None: whatever it is now.

    Raises:
        ConfigError: it cannot be read where the space says, or it is another.
    """
    moved = "where it lies now is said by --corpus, as a mapping {train: ..., dev: ...} or the file of a search space"
    try:
        corpus = load_corpus(space.corpus)
    except ConfigError as error:
        hint = [] if "name" in space.corpus else [moved]
        raise ConfigError([*error.problems, *hint], str(folder)) from None
    if fingerprint is not None and corpus.fingerprint != fingerprint:
        now = f"its fingerprint was {fingerprint[:12] or 'not recorded'} and is {corpus.fingerprint[:12]}"
        law = "the corpus is not the one that the search was made with, so that numbers would not compare"
        raise ConfigError(f"{law}: {now}", str(folder))
    return corpus


def most_at_once(events: Iterable[Event]) -> int:
    """How many trials of a log ran at once, at the most."""
    running: set[str] = set()
    most = 1
    for event in events:
        if event["event"] in ("trial", "start"):
            running.add(event["trial"])
        elif event["event"] in ("status", "pause", "restart"):
            running.discard(event.get("trial", ""))
        elif event["event"] == "resume":
            running.clear()
        most = max(most, len(running))
    return most
