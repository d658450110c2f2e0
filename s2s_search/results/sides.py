"""The sides of a comparison: which trials A and B name, and which of them count."""

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from s2s_search.errors import ConfigError, nearest, quantity, shown
from s2s_search.hparams.configuration import Hparams
from s2s_search.results.beside import LINKS
from s2s_search.results.replicates import seedless
from s2s_search.results.statistics import SEED
from s2s_search.runs.folder import no_trial, trial_name, trial_number
from s2s_search.runs.inputs import space_of
from s2s_search.runs.state import AUDIT, History, TrialHistory
from s2s_search.runs.storage import below, place_of
from s2s_search.statuses import COMPLETE, FAILED, OUT_OF_MEMORY, STOPPED

BROKEN = ("diverged", FAILED, OUT_OF_MEMORY)  # the ends that a configuration may bring about


@dataclass(frozen=True)
class ComparedTrial:
    """A trial of one of the run folders that are compared."""

    trial: TrialHistory
    place: str  # the trial's folder, or its place below the URL of checkpoints
    value: float  # the trial's best value of the metric; NaN without a report
    curve: Mapping[int, float]  # the metric by step
    configuration: Hparams | str  # equal for trials that differ in nothing but their seed
    is_replicate: bool
    learner: str = ""  # what chose it by earlier results, such as "tpe"
    grids: frozenset[str] = frozenset()  # the keys of which its search ran all values at each draw
    couplings: tuple[str, ...] = ()  # what made the keys of its search depend on each other

    @property
    def seed(self) -> str:
        return _text(self.trial.config.get(SEED, 0))  # a log may hold anything

    @property
    def is_finished(self) -> bool:
        return self.trial.status in COMPLETE and not math.isnan(self.value)

    @property
    def is_broken(self) -> bool:
        return self.trial.status in BROKEN

    def flat(self) -> Mapping[str, object]:
        """Returns the complete configuration, or what the log has of one that is invalid now."""
        if isinstance(self.configuration, Hparams):
            return self.configuration.flat()
        return self.trial.config

    def values(self, key: str) -> list[str]:
        """Returns the ways in which the value of a key may be written: its label, and the value.

        This includes keys that no search has varied.
        """
        known = (self.trial.settings, self.flat())
        return [_text(each[key]) for each in known if key in each]

    def rest(self, left_out: frozenset[str]) -> str:
        """Returns the settings without some keys and without the seed, as text."""
        config = self.trial.config.items()
        rest = {key: value for key, value in config if key not in left_out and key != SEED}
        return json.dumps(rest, sort_keys=True)


@dataclass(frozen=True)
class Side:
    """One side of a comparison: the trials of one configuration, or all trials with a setting."""

    name: str
    runs: Sequence[ComparedTrial]
    key: str = ""  # the key of a setting; empty for a trial
    is_fresh: bool = False  # True if only replicates count
    left_out: Sequence[str] = ()  # phrases: the number of trials that are left out, and why
    tried: int = 0  # the number of values of the key that the trials of the folders have

    @property
    def finished(self) -> list[ComparedTrial]:
        return [run for run in self.runs if run.is_finished]

    @property
    def ended(self) -> list[ComparedTrial]:
        """The trials that finished or were stopped for being worse.

        All of them say something about how good the side is.
        """
        return [run for run in self.runs if run.trial.status in (*COMPLETE, STOPPED) and run.curve]

    def line(self) -> str:
        """Returns a line about the trials that count, and those that are left out.

        An example: "A: 5 of 9 trials finished, of 4 configurations; 4 stopped".
        """
        configurations = len({run.configuration for run in self.runs})
        others = Counter(
            run.trial.status.replace("_", " ") for run in self.runs if not run.is_finished
        )
        out = "".join(f"; {number} {status}" for status, number in sorted(others.items()))
        of = f"of {quantity(configurations, 'configuration')}"
        out += "".join(f"; {phrase}" for phrase in self.left_out)
        trials = quantity(len(self.runs), "trial")
        return f"{self.name}: {len(self.finished)} of {trials} finished, {of}{out}"


def compared_trials(folder: Path, history: History) -> Iterator[ComparedTrial]:
    metric, place = history.search["metric"], place_of(history.search, folder)
    is_replicate = "configs" in history.search and LINKS[AUDIT] not in history.search
    learner, grids, couplings = _drawn(folder, history)
    for trial in history.trials.values():
        yield ComparedTrial(
            trial,
            below(place, trial.name),
            math.nan if trial.best is None else float(trial.best[metric]),
            _curve(trial, metric),
            seedless(trial.config),
            is_replicate,
            "" if is_replicate else learner,
            grids,
            () if is_replicate else couplings,
        )


def _drawn(folder: Path, history: History) -> tuple[str, frozenset[str], tuple[str, ...]]:
    """Returns how a search chose its configurations.

    That is what learned from earlier results, the keys of which it ran all values at each draw, and
    what made its keys depend on each other.
    """
    try:
        space = space_of(history, folder)
    except ConfigError:  # without its space, a configuration counts as a draw of its own
        return "", frozenset(), ()
    grids = frozenset(each.key for each in space.varying if each.grid)
    if space.search.method == "grid":  # no draws: all configurations are chosen
        grids = frozenset()
    return space.learner or "", grids, space.couplings


def _curve(trial: TrialHistory, metric: str) -> dict[int, float]:
    """Returns the metric by step, without the report of a divergence."""
    curve: dict[int, float] = {}
    for event, _ in trial.news:
        if event.get(metric) is not None and event.get("status") != "diverged":
            curve.setdefault(event["step"], float(event[metric]))
    return curve


def named_side(
    text: str, runs: Sequence[Sequence[ComparedTrial]], folder: Path, problems: list[str]
) -> Side:
    """Returns the side that a trial of the first folder or a setting names.

    When there is no such trial, it adds a problem to `problems`.

    Args:
        text: a trial's name or number, or a setting KEY=VALUE.
        runs: the trials of each folder.
        folder: the first folder.
        problems: gets a sentence when no trial is named.
    """
    every = [run for of_folder in runs for run in of_folder]
    number = trial_number(text)
    if number is not None:
        named = {run.configuration for run in runs[0] if run.trial.number == number}
        found = [run for run in every if run.configuration in named]
        if not found:
            problems.append(f"{folder}: {no_trial(number, [run.trial.name for run in runs[0]])}")
        return _counting(trial_name(number), "", found, any(run.is_replicate for run in found))
    key, equals, value = text.partition("=")
    found = [run for run in every if equals and value in run.values(key)]
    if not found and len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        value = value[1:-1]  # reports and messages print an empty text in quotes
        found = [run for run in every if value in run.values(key)]
    if not found:
        problems.append(_unknown(text, every))
    side = _counting(
        f"{key}={_shown_value(value)}", key, found, all(run.is_replicate for run in every)
    )
    return replace(side, tried=len(_tried(key, runs)))


def _tried(key: str, runs: Sequence[Sequence[ComparedTrial]]) -> set[str]:
    """Returns the values of a key in the trials of each folder.

    If a search varied the key, other trials may have a default of it, which takes no part.
    """
    tried: set[str] = set()
    for of_folder in runs:
        varied = [run for run in of_folder if key in run.trial.settings]
        for run in varied or of_folder:
            tried.update(run.values(key)[:1])
    return tried


def _counting(name: str, key: str, found: Sequence[ComparedTrial], is_fresh: bool) -> Side:
    """Returns the side in which only replicates count, or only the other trials.

    A configuration and seed counts once, if possible with a trial that finished.
    """
    left_out = []
    chosen = [run for run in found if run.is_replicate == is_fresh]
    if others := len(found) - len(chosen):
        why = "as chosen for its result" if is_fresh else "as replicates of what was chosen"
        left_out.append(f"left out, {why}: {others}")
    once: dict[object, ComparedTrial] = {}
    for run in sorted(chosen, key=lambda run: not run.is_finished):
        once.setdefault((run.configuration, run.seed), run)
    runs = [run for run in chosen if run is once[run.configuration, run.seed]]
    if again := len(chosen) - len(runs):
        left_out.append(f"left out, as the same configuration and seed again: {again}")
    return Side(name, runs, key, is_fresh, left_out)


def _unknown(text: str, runs: Sequence[ComparedTrial]) -> str:
    key, equals, value = text.partition("=")
    if values := sorted({written[0] for run in runs if (written := run.values(key))}):
        if not equals:
            example = f"{key}={_shown_value(values[-1])}"
            return f"{shown(text)} has no value: write KEY=VALUE, such as {example}"
        return f"{shown(text)}: no trial has that value{nearest(value, values)}"
    law = (
        f"{shown(text)} names no trial: give a trial's name or number, or a setting KEY=VALUE "
        "that the trials have"
    )
    return law + nearest(key, sorted({key for run in runs for key in run.trial.settings}))


def _shown_value(value: str) -> str:
    return value or '""'


def _text(value: object) -> str:
    return json.dumps(value) if isinstance(value, dict | list | bool) else str(value)
