"""What the log says of each trial of a search: where it stands, what was decided about it, and why.

From this a search goes on after a kill, and `explain` answers. Needs nothing but the log.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from s2s_search.corpus import Corpus, load_corpus
from s2s_search.events import NEEDED, Event, Log, no_trial, open_log, trial_name
from s2s_search.failures import FAILURES, LOST, OUT_OF_MEMORY
from s2s_search.spaces import Space, load_space
from s2s_search.statuses import KILLED
from s2s_search.table import ConfigError, command

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
        self.spans: list[tuple[str, float, float]] = []  # which trial ran, from when to when, by those seconds
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
            self.search |= {key: value for key, value in event.items() if key not in ("event", *NEEDED["search"])}
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
            trial.config, trial.settings, trial.step, trial.reports = event["config"], event["settings"], 0, 0

    def _halt(self, *names: str) -> None:
        self.spans += [(name, self._since.pop(name), self.elapsed) for name in names if name in self._since]

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
    space = replace(load_space(folder / "space.yaml", home, files=False), name=history.search["name"])
    if corpus is not None:
        is_same_kind = "name" not in corpus and "name" not in space.corpus
        space = replace(space, corpus={**space.corpus, **corpus} if is_same_kind else dict(corpus))
    if "configs" in history.search:
        return replace(space, scheduler=replace(space.scheduler, name="none", interval_steps=None))
    return space


def place_of(search: Event, folder: Path) -> str:
    """Returns where the checkpoints and answers of a run folder lie: there, or below the URL that its log names."""
    return str(search.get("storage") or folder)


def is_far(place: str) -> bool:
    """Says whether a place is reached over a network, and with the credentials of whoever asks."""
    return "://" in place and not place.startswith("file://")


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


# --- why was this trial stopped? ---


def explain(history: History, number: int, folder: Path = Path("DIR")) -> Iterator[str]:
    """Says in lines what happened to a trial and why; commands name the run folder.

    Raises:
        ConfigError: it never began.
    """
    trial = history.trial(number)
    metric, minimize = history.search["metric"], history.search["goal"] == "minimize"
    yield f"{trial.name}: {trial.status}" + (f" after step {trial.step}" if trial.reports else ", without a report")
    for key, value in trial.settings.items():
        yield f"  {key} = " + ('""' if value == "" else str(value))
    if trial.best is not None:
        yield f"best {metric} {trial.best[metric]:.4g} at step {trial.best['step']}"
    for event in sorted([*trial.decisions, *trial.events], key=lambda event: event["time"]):
        yield _said(event, metric, minimize)
        if event["event"] == "decision":
            yield from _not_judged(event, trial, history)
    if trial.message:
        yield f"why: {trial.message}"
    yield from _outlook(trial, history, folder)


def _said(event: Event, metric: str, minimize: bool) -> str:
    kind = event["event"]
    if kind == "decision":
        return decision_line(event, metric, minimize)
    if kind == "restart":
        return f"went on after step {event.get('step') or 0}: {event['cause']}" + (
            f" ({event['message']})" if event.get("message") else ""
        )
    if kind == "exploit":
        return f"took over the weights of {event['source']}, with other settings"
    return str(event.get("message", ""))


def decision_line(event: Event, metric: str, minimize: bool) -> str:
    """A decision in a sentence: what was compared with what, and what would have kept a trial that was stopped."""
    value, cutoff, stopped = event["value"], event.get("cutoff"), event["action"] == "stop"
    has_rung = event.get("rung") is not None
    at = f"rung {event['rung']:g}, at step {event['step']}" if has_rung else f"step {event['step']}"
    if cutoff is None and not has_rung:
        return f"{at}: {metric} {value:.4g}, too few to compare it with ({event.get('of')} so far), so it went on"
    if cutoff is None:
        return f"{at}: {metric} {value:.4g}, the first of its kind, so it went on"
    relation = "below" if minimize else "above"
    what = "the median of the others" if not has_rung else "the cutoff"
    place = (
        f", {event['rank']} of {event.get('of')} so far" if "rank" in event else f", {event.get('of')} trials so far"
    )
    verdict = f"stopped; {metric} at or {relation} {cutoff:.4g} would have kept it" if stopped else "so it went on"
    return f"{at}: {metric} {value:.4g} against {what} {cutoff:.4g}{place}: {verdict}"


def _not_judged(event: Event, trial: TrialHistory, history: History) -> Iterator[str]:
    """Says of a trial that a rung stopped that it had been better before: a rung judges the report that reaches it."""
    metric, minimize = history.search["metric"], history.search["goal"] == "minimize"
    if event["action"] != "stop" or event.get("rung") is None:
        return
    reports = [other for other in history.events if other["event"] == "report" and other.get("trial") == trial.name]
    measured = [other for other in reports if other.get(metric) is not None and other.get("status") != "diverged"]
    before = [other for other in measured if (other.get("step") or 0) < event["step"]]
    if not before:
        return
    best = (min if minimize else max)(before, key=lambda report: report[metric])
    if best[metric] < event["value"] if minimize else best[metric] > event["value"]:
        earlier = f"{metric} {best[metric]:.4g} at step {best['step']}"
        yield f"a rung judges the report that reaches it, and not the best one before it: {earlier}"


def _outlook(trial: TrialHistory, history: History, folder: Path) -> Iterator[str]:
    if trial.status in FAILURES:
        yield f"to see it fail under a debugger: {command('debug', '--run', folder, '--trial', trial.number)}"
    if trial.status == OUT_OF_MEMORY:
        yield "smaller train.batch_size, num_units or sequence lengths need less memory; it is not run again by itself"
    if trial.status == LOST:
        yield f"its worker was lost {trial.losses + 1} times, more than search.retries allows"
    if trial.status == "stopped" and not any(event["action"] == "stop" for event in trial.decisions):
        yield f"the scheduler, {history.search.get('scheduler', {}).get('name')}, ended it and gave no numbers"
    if trial.status == "running" and not history.is_running:
        how = "killed" if history.is_killed else history.status
        yield f"the search ended before it ({how}); resume lets it go on"
