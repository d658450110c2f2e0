"""A search: its trials, its sampler, its scheduler, and how it is restored from its log."""

import contextlib
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from s2s_search.corpus.corpus import Corpus
from s2s_search.display.progress import Progress
from s2s_search.errors import quantity
from s2s_search.methods.reading import reading_of
from s2s_search.methods.samplers import Sampler, objective_values
from s2s_search.runs.events import Event
from s2s_search.runs.recorder import Recorder
from s2s_search.runs.state import History, TrialHistory
from s2s_search.runs.trackers import Trackers
from s2s_search.spaces.explore import explore
from s2s_search.spaces.space import Space
from s2s_search.statuses import ENDS_ITSELF, FAILURES
from s2s_search.tuning.schedulers import make_scheduler
from s2s_search.tuning.worker import Train


@dataclass(frozen=True)
class Outcome:
    """The end of a search: its status, its run folder, and a message.

    The status is finished, interrupted, out of budget or failed.
    """

    status: str
    folder: Path
    message: str | None = None


@dataclass(frozen=True)
class Remaining:
    """The work that is left for a resumed search."""

    ended: int  # the number of trials that have ended
    # Trials whose end was not recorded before the kill, with their status.
    unrecorded_ends: dict[str, str]
    resumed: dict[str, int]  # trials that are resumed, with the step of their newest report
    waiting: dict[str, int]  # trials that wait for the scheduler's choice, in the same way
    new: int  # the number of trials that have not begun
    decisions: dict[str, dict[str, Any]]  # the scheduler's, which were not recorded before the kill

    def lines(self) -> Iterator[str]:
        yield f"kept {quantity(self.ended, 'trial')} that had ended"
        if self.unrecorded_ends:
            yield (
                f"{len(self.unrecorded_ends)} more had already ended, "
                f"which was not recorded before the kill: {_listed(self.unrecorded_ends)}"
            )
        if self.resumed:
            yield f"resume {len(self.resumed)}: {_listed(self.resumed, 'at step ')}"
        if self.waiting:
            yield f"{len(self.waiting)} wait: {_listed(self.waiting, 'at step ')}"
        yield f"new: {self.new}"


def _listed(trials: Mapping[str, object], word: str = "") -> str:
    shown = [f"{name} {word}{value}" for name, value in list(trials.items())[:8]]
    return ", ".join(shown) + (f" and {len(trials) - 8} more" if len(trials) > 8 else "")


@dataclass
class Search:
    """A search in this process: its space and corpus, its sampler, scheduler and recorder."""

    space: Space
    folder: Path
    sampler: Sampler
    corpus: Corpus
    draws: int | None
    seed: int | None
    overrides: Mapping[str, object]
    address: str | None
    storage: str | None
    progress: Progress | None
    train: Train | None
    log: Sequence[str] = ()
    resumed: list[TrialHistory] = field(default_factory=list)
    ended_before: list[str] = field(default_factory=list)
    new: list[int] = field(init=False)  # the numbers of trials that have not begun
    # Trials whose end was not recorded before the kill, with their status.
    unrecorded_ends: Mapping[str, str] = field(default_factory=dict)
    before: str | None = None  # the status of a resumed search before it was resumed
    spent: float = 0.0  # the time of the search before this process, in seconds
    busy: float = 0.0  # the worker time of all trials before this process, in seconds

    def __post_init__(self) -> None:
        self.new = list(range(len(self.sampler)))
        self.scheduler = make_scheduler(self.space, self._explore, self.sampler)
        self._random = random.Random(f"{self.space.search.seed} explore")

    @contextlib.contextmanager
    def recorder_open(self) -> Iterator[None]:
        trackers = Trackers(self.log, self.folder, self.space.name) if self.log else None
        self.recorder = Recorder(self.space, self.folder, self.progress, trackers)
        try:
            yield
        finally:
            self.recorder.close()

    def recall(self, history: History, again: Sequence[str]) -> Remaining:
        """Restores the scheduler and the sampler from the log.

        Nothing is read from the files that Ray keeps. The decisions of the scheduler are
        recomputed, and the sampler is told again how the trials ended.

        Returns:
            The work that is left.
        """
        decisions = self.scheduler.replay(history.events)
        waits = self.scheduler.waiting()
        unrecorded_decisions: dict[str, dict[str, Any]] = {}
        unrecorded_ends: dict[str, str] = {}
        for trial in history.of("running", *again):
            decided = decisions.get(trial.name, {})
            # The log has a decision right after its report, so only the newest can be missing.
            if "step" in decided and all(e["step"] != decided["step"] for e in trial.decisions):
                unrecorded_decisions[trial.name] = decided
            # A driver that was killed may not have recorded the end of a trial.
            if trial.status == "running" and trial.reported_status in ENDS_ITSELF:
                unrecorded_ends[trial.name] = trial.reported_status
            elif trial.status == "running" and decided.get("action") == "stop":
                unrecorded_ends[trial.name] = "stopped"
            else:
                self.resumed.append(trial)
        for event in history.events:
            self._hear(event, history.trials)
        for trial in history.trials.values():
            if trial in self.resumed:
                self.sampler.running(trial.number, trial.config)
            else:
                status = unrecorded_ends.get(trial.name, trial.status)
                self.ended_before += [] if status in FAILURES else [trial.name]
                self.sampler.tell(
                    trial.number, trial.config, objective_values(trial.best, self.space), status
                )
        # These need not be the first numbers, because Tune does not begin trials in order.
        begun = {trial.number for trial in history.trials.values()}
        self.new = [number for number in range(len(self.sampler)) if number not in begun]
        self.unrecorded_ends, self.before = unrecorded_ends, history.status
        self.spent, self.busy = history.elapsed, history.busy
        exploits = sum(trial.exploits for trial in history.trials.values())
        self._random = random.Random(f"{self.space.search.seed} explore {exploits}")
        resumed, waiting = dict[str, int](), dict[str, int]()
        for trial in self.resumed:
            where = waiting if trial.name in waits else resumed
            where[trial.name] = trial.step
        ended = len(history.trials) - len(self.resumed) - len(unrecorded_ends)
        new = len(self.new)
        return Remaining(ended, unrecorded_ends, resumed, waiting, new, unrecorded_decisions)

    def _hear(self, event: Event, trials: Mapping[str, TrialHistory]) -> None:
        """Tells the sampler again that a trial began or reported."""
        trial = trials.get(event.get("trial", ""))
        if trial is None:
            return
        if event["event"] == "trial":
            self.sampler.running(trial.number, event["config"])
        elif event["event"] == "report":
            reading = reading_of(event, self.space.metric.name)
            if reading is not None:
                self.sampler.report(trial.number, reading)

    def _explore(self, config: dict[str, Any]) -> dict[str, Any]:
        """Returns Tune's configuration for a trial that copies the weights of another trial.

        `config` is Tune's configuration of the other trial. Its number stays in the result. By that
        number tuning.callback recognises the exploit, and knows whose weights are copied.
        """
        space = self.space.fixed(self.overrides) if self.overrides else self.space
        changed = explore(space, json.loads(config[HPARAMS_KEY]), self._random)
        return config | {HPARAMS_KEY: json.dumps(changed)}


# The two keys of Ray Tune's configuration of a trial: its number, and its hyperparameters as JSON
# text, which is one value to Tune. When pbt makes a trial copy another trial, it hands over the
# other trial's number.
NUMBER_KEY, HPARAMS_KEY = "number", "hparams"
