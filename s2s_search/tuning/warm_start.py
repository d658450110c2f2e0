"""What a search takes from earlier runs: configurations that it runs first, and data to learn from.

tpe learns from the ends of trials. The models of gp and freeze_thaw learn from curves, and only
from those on the same corpus.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from s2s_search.errors import ConfigError, collecting, quantity
from s2s_search.methods.reading import reading_of
from s2s_search.methods.samplers import (
    TPE,
    EarlierCurve,
    EarlierTrial,
    Sampler,
    fitted,
    objective_values,
)
from s2s_search.runs.state import History, TrialHistory, load_history
from s2s_search.spaces.dimensions import Flat
from s2s_search.spaces.settings import MODELS
from s2s_search.spaces.space import Space
from s2s_search.statuses import ENDS, FAILURES

NOTHING = "the space contains no trial with a result, besides those that `first` names"
NO_CURVES = ", and the model can learn from none: it needs the same corpus, and reports in time"
BEST = 3  # the number of configurations that are run first, where the user names none


@dataclass(frozen=True)
class EarlierRun:
    """An earlier run: its folder as the user named it, and the state of its search."""

    folder: Path
    history: History


@dataclass(frozen=True)
class FirstConfiguration:
    """A configuration that is run first: its values, and the trial that had it.

    `named` has the values of the varying keys, without those of grids: all of a grid is run.
    """

    named: Flat
    run: EarlierRun
    trial: TrialHistory

    def __str__(self) -> str:
        metric = self.run.history.search["metric"]
        value = (self.trial.best or {})[metric]
        return f"{self.trial.name} of {self.run.folder} ({metric} {value:.4g})"


@dataclass(frozen=True)
class WarmStart:
    """What a search takes from earlier runs. Without earlier runs it is nothing.

    best: the configurations that are run first
    trials: the ended trials of all runs, which are data for tpe
    """

    runs: Sequence[EarlierRun] = ()
    best: Sequence[FirstConfiguration] = ()
    trials: Sequence[EarlierTrial] = ()

    @property
    def first(self) -> tuple[Flat, ...]:
        """Returns the configurations that are run first, as `Space.first` has them."""
        return tuple(each.named for each in self.best)

    def teach(self, sampler: Sampler, curves: Sequence[EarlierCurve]) -> list[str]:
        """Hands the data to a sampler. Returns notes of all that is taken from the earlier runs.

        Raises:
            ConfigError: nothing of them can be used.
        """
        if not self.runs:
            return []
        folders = ", ".join(str(run.folder) for run in self.runs)
        notes = []
        taken = 0
        if self.best:
            which = ", ".join(map(str, self.best))
            notes.append(f"warm start: the best earlier configurations are run first: {which}")
        learnt = sampler.learn(curves)
        if isinstance(sampler, TPE):
            taken, left_out = sampler.warm_start(self.trials)
            counts = f"{taken} trials taken, {left_out} do not fit the space"
            notes.append(f"warm start from {folders}: {counts}")
        elif learnt is not None:
            taken, left_out = learnt
            rest = f"; {left_out} have values outside the space, or report too late"
            said = f"the model learns from the reports of {quantity(taken, 'earlier trial')}"
            notes.append(f"warm start: {said}{rest if left_out else ''}")
        if not self.best and not taken:
            why = NOTHING if learnt is None else NOTHING + NO_CURVES
            raise ConfigError(f"--warm-start {folders}: {why}")
        return notes

    def curves(self, fingerprint: str) -> list[EarlierCurve]:
        """Returns the curves of all runs whose corpus has a fingerprint.

        A trial whose weights pbt replaced has no curve of its own.
        """
        return [
            (trial.config, list(_points(trial, run.history.search["metric"])))
            for run in self.runs
            if run.history.fingerprint == fingerprint
            for trial in run.history.trials.values()
            if trial.news and not trial.exploits
        ]

    def corpus_notes(self, fingerprint: str, learner: str | None) -> Iterator[str]:
        """Yields a note for each run whose corpus has another fingerprint.

        learner: what chooses configurations by earlier results, if anything does.
        """
        for run in self.runs:
            if run.history.fingerprint != fingerprint:
                name = run.history.search.get("corpus", {}).get("name", "unknown")
                law = f"the corpus of {run.folder} ({name}) is not that of this search"
                note = f"warm start: {law}; what was best there may not be best here"
                rest = ", and the model learns nothing from it" if learner in MODELS else ""
                yield note + rest

    def entries(self, sampler: Sampler, curves: Sequence[EarlierCurve]) -> dict[str, object]:
        """Returns the entries of the search event, from which the search is resumed."""
        if not self.runs:
            return {}
        entries: dict[str, object] = {
            "warm_start_from": [str(run.folder.absolute()) for run in self.runs],
            "warm_start_first": list(self.first),
        }
        if isinstance(sampler, TPE):
            entries["warm_start"] = list(self.trials)
        if curves:
            entries["warm_start_curves"] = list(curves)
        return entries


def _points(trial: TrialHistory, metric: str) -> Iterator[tuple[int, float, float | None]]:
    """Yields step, value and loss of the reports of a trial."""
    for event, _ in trial.news:
        reading = reading_of(event, metric)
        if reading is not None:
            loss = None if math.isnan(reading.loss) else reading.loss
            yield reading.step, reading.value, loss


def earlier_runs(folders: Sequence[Path], space: Space) -> list[EarlierRun]:
    """Returns the earlier runs in some folders.

    Raises:
        ConfigError: the problems of all folders: one is no run folder, is given twice, or its
            search has another metric than the space.
    """
    runs = []
    problems: list[str] = []
    seen = set()
    wanted = (space.metric.name, space.metric.goal)
    for folder in folders:
        with collecting(problems, label="--warm-start "):
            if folder.resolve() in seen:
                raise ConfigError("is given twice", str(folder))
            seen.add(folder.resolve())
            history = load_history(folder)
            found = (history.search["metric"], history.search["goal"])
            if found != wanted:
                law = f"its trials are ranked by {' '.join(found)}, those of this search by"
                raise ConfigError(f"{law} {' '.join(wanted)}", str(folder))
            runs.append(EarlierRun(folder, history))
    if problems:
        raise ConfigError(problems)
    return runs


def warm_start_of(
    runs: Sequence[EarlierRun],
    space: Space,
    overrides: Mapping[str, object],
    draws: int | None,
    count: int,
) -> WarmStart:
    """Returns what a search takes from earlier runs.

    Args:
        runs: the earlier runs.
        space: the space of the search.
        overrides: values that are fixed.
        draws: the number of draws; None stands for the number of the space.
        count: the largest number of configurations that are run first, if there are enough draws.

    Raises:
        ConfigError: an override is wrong, or no draw is left to run one first and nothing learns.
    """
    if not runs:
        return WarmStart()
    fixed = space.fixed(overrides) if overrides else space
    draws = space.search.trials if draws is None else draws
    if draws is not None:
        count = min(count, draws - len(space.first))
    if count < 1 and space.learner is None:
        fact = f"--warm-start-best and {draws} draws, {len(space.first)} of them by `first`"
        law = "only tpe, gp and freeze_thaw learn from trials that are not run again"
        raise ConfigError(f"--warm-start: {fact}, leave nothing to run first; {law}")
    trials = [
        (trial.config, objective_values(trial.best, space), trial.status)
        for run in runs
        for trial in run.history.of(*ENDS)
    ]
    best = best_configurations(runs, fixed, max(count, 1))
    return WarmStart(runs, best[:count], trials)


def best_configurations(
    runs: Iterable[EarlierRun], space: Space, count: int
) -> list[FirstConfiguration]:
    """Returns the best different configurations of earlier runs that a space contains, best first.

    They are ranked by the best report of each trial, over all runs. A configuration counts once,
    with the best of its trials, whatever their budgets and seeds. Trials that diverged or failed
    do not count, nor what the space runs first already.
    """
    reported = [
        (run, trial)
        for run in runs
        for trial in run.history.trials.values()
        if trial.best is not None and trial.status not in ("diverged", *FAILURES)
    ]
    metric, sign = space.metric.name, 1 if space.metric.goal == "minimize" else -1
    reported.sort(key=lambda pair: sign * (pair[1].best or {})[metric])
    is_grid = space.search.method == "grid"
    keys = [each.key for each in space.varying if is_grid or not each.grid]
    met = [space.chosen(named) for named in space.first]
    found: list[FirstConfiguration] = []
    for run, trial in reported:
        if len(found) >= count:
            break
        flat = fitted(space, trial.config)
        if flat is None:
            continue
        named = {key: flat[key] for key in keys if key in flat}
        chosen = space.chosen(named)
        if chosen not in met:
            met.append(chosen)
            found.append(FirstConfiguration(named, run, trial))
    return found
