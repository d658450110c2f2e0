"""A comparison of A with B: the trials of each side, which of them count, and the verdict."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from s2s_search.errors import ConfigError, nearest, shown
from s2s_search.hparams.configuration import Hparams
from s2s_search.results.statistics import SEED, Comparison, apart, rate_difference_interval, verdict
from s2s_search.runs.answers import load_answers
from s2s_search.runs.folder import no_trial, trial_name, trial_number
from s2s_search.runs.state import History, TrialHistory, load_history
from s2s_search.runs.storage import below, is_far, place_of, shown_place
from s2s_search.spaces.space import completed


@dataclass(frozen=True)
class ComparedTrial:
    """A trial of one of the run folders that are compared."""

    trial: TrialHistory
    place: str  # the trial's folder, or its place below the URL of checkpoints
    value: float  # the trial's best value of the metric; NaN without a report
    curve: Mapping[int, float]  # the metric by step
    configuration: Hparams | str  # equal for trials that differ in nothing but their seed
    is_replicate: bool

    @property
    def is_finished(self) -> bool:
        return self.trial.status == "finished" and not np.isnan(self.value)

    def values(self, key: str) -> list[str]:
        """Returns the ways in which the value of a key may be written: its label, and the value.

        This includes keys that no search has varied.
        """
        flat = self.configuration.flat() if isinstance(self.configuration, Hparams) else {}
        return [_text(known[key]) for known in (self.trial.settings, flat) if key in known]


@dataclass(frozen=True)
class Side:
    """One side of a comparison: the trials of one configuration, or all trials with a setting."""

    name: str
    runs: Sequence[ComparedTrial]
    left_out: str = ""  # a phrase: the number of trials that are left out, and why

    @property
    def finished(self) -> list[ComparedTrial]:
        return [run for run in self.runs if run.is_finished]

    @property
    def ended(self) -> list[ComparedTrial]:
        """The trials that finished or were stopped for being worse.

        All of them say something about how good the side is.
        """
        return [
            run for run in self.runs if run.trial.status in ("finished", "stopped") and run.curve
        ]

    def line(self) -> str:
        """Returns a line about the trials that count, and those that are left out.

        An example: "A: 5 of 9 trials finished, of 4 configurations; 4 stopped".
        """
        configurations = len({run.configuration for run in self.runs})
        others = Counter(
            run.trial.status.replace("_", " ") for run in self.runs if not run.is_finished
        )
        out = "".join(f"; {number} {status}" for status, number in sorted(others.items()))
        of = f"of {configurations} configuration{'' if configurations == 1 else 's'}"
        out += f"; {self.left_out}" if self.left_out else ""
        return f"{self.name}: {len(self.finished)} of {len(self.runs)} trials finished, {of}{out}"


def compare(folders: Sequence[Path], a: str, b: str, fetch: bool = False) -> Iterator[str]:
    """Compares A with B, and yields the lines that say the result.

    Each of A and B is a trial or a setting:

    - The name or number of a trial names the configuration of that trial of the first folder. It
      stands for all trials of that configuration, in all folders and with all seeds. If it was
      replicated, only the replicates count, because the results of the others were what chose it.
    - A setting, such as attention.score_type=dot, stands for all trials that have it. Replicates do
      not count, unless all folders are of replicates. They are replicates of the best
      configurations, which may all be on one side.

    Finished trials count, with their best reports. If some trials were stopped, a second comparison
    counts them, too, at the last step that all trials have reached. The unit of a comparison is a
    configuration, with the mean over its seeds. If each side has one configuration, it is a seed.

    Args:
        folders: the run folders.
        a: a trial or a setting.
        b: another trial or setting.
        fetch: True to read also answers that lie at a URL.

    Raises:
        ConfigError: a folder is no run folder or is named twice; the folders differ in metric, goal
            or corpus; A or B names no trial, or both name the same trial.
    """
    histories = [load_history(folder) for folder in folders]
    _check_alike(folders, histories)
    runs = [
        list(_runs(folder, history)) for folder, history in zip(folders, histories, strict=True)
    ]
    problems: list[str] = []
    left, right = (_side(text, runs, folders[0], problems) for text in (a, b))
    if both := [run.trial.name for run in left.runs if run in right.runs]:
        problems.append(
            f"{a} and {b} both name {', '.join(both[:4])}{', ...' if len(both) > 4 else ''}"
        )
    if problems:
        raise ConfigError(problems)
    for folder, history in zip(folders, histories, strict=True):
        if history.is_running:
            yield f"{folder} is still running: what follows may change"
    yield from _cautions(left, right)
    metric, goal = histories[0].search["metric"], histories[0].search["goal"]
    finished = [[(run.configuration, run.value) for run in side.finished] for side in (left, right)]
    yield _compared(left.name, right.name, finished, metric, goal).sentence()
    yield from _at_a_common_step(left, right, metric, goal)
    yield from _on_examples(_best(left, goal), _best(right, goal), fetch)


def _compared(
    a: str, b: str, sides: Sequence[Sequence[tuple[Hparams | str, float]]], metric: str, goal: str
) -> Comparison:
    """Returns the comparison of two sides, each a list of configurations with values.

    Args:
        a: the name of the first side.
        b: the name of the second side.
        sides: for each side a pair of configuration and value for each trial.
        metric: the name of the metric.
        goal: "minimize" or "maximize".
    """
    groups: list[dict[Hparams | str, list[float]]] = [{}, {}]
    for group, pairs in zip(groups, sides, strict=True):
        for configuration, value in pairs:
            group.setdefault(configuration, []).append(value)
    if all(len(group) <= 1 for group in groups):
        left, right = (next(iter(group.values()), []) for group in groups)
        return Comparison((a, b), (left, right), metric, goal, "seed")
    left, right = ([float(np.mean(values)) for values in group.values()] for group in groups)
    return Comparison((a, b), (left, right), metric, goal, "configuration")


def _at_a_common_step(left: Side, right: Side, metric: str, goal: str) -> Iterator[str]:
    """Compares all ended trials at the last step that all of them reached.

    It yields nothing when no trial was stopped for being worse.

    Args:
        left: one side.
        right: the other side.
        metric: the name of the metric.
        goal: "minimize" or "maximize".
    """
    ended = [*left.ended, *right.ended]
    if all(run.trial.status == "finished" for run in ended):
        return
    step = min(max(run.curve) for run in ended)
    if all(step in run.curve for run in ended):
        values = [
            [(run.configuration, run.curve[step]) for run in side.ended] for side in (left, right)
        ]
        sentence = _compared(left.name, right.name, values, metric, goal).sentence()
        yield (
            f"at step {step:,}, which these {len(ended)} reached, before any was stopped: "
            f"{sentence}"
        )


def _check_alike(folders: Sequence[Path], histories: Sequence[History]) -> None:
    first = histories[0].search
    times = Counter(folder.resolve() for folder in folders)
    problems = [
        f"{folder} is named {count} times; a run counts once"
        for folder, count in times.items()
        if count > 1
    ]
    for folder, history in zip(folders[1:], histories[1:], strict=True):
        search = history.search
        if (search["metric"], search["goal"]) != (first["metric"], first["goal"]):
            by, of_first = (f"{each['metric']} ({each['goal']})" for each in (search, first))
            problems.append(f"{folder} ranks by {by}, but {folders[0]} by {of_first}")
        if search.get("corpus", {}).get("fingerprint") != first.get("corpus", {}).get(
            "fingerprint"
        ):
            problems.append(
                f"{folder} is of another corpus than {folders[0]}: their numbers would not compare"
            )
    if problems:
        raise ConfigError(problems)


def _runs(folder: Path, history: History) -> Iterator[ComparedTrial]:
    metric, place = history.search["metric"], place_of(history.search, folder)
    for trial in history.trials.values():
        seedless = {**trial.config, SEED: 0}
        configuration = completed(seedless) or json.dumps(seedless, sort_keys=True)
        value = float("nan") if trial.best is None else float(trial.best[metric])
        curve: dict[int, float] = {}
        for event, _ in trial.news:
            if event.get(metric) is not None:
                curve.setdefault(event["step"], float(event[metric]))
        is_replicate = "configs" in history.search
        yield ComparedTrial(
            trial, below(place, trial.name), value, curve, configuration, is_replicate
        )


def _side(
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
        return _counting(trial_name(number), found, any(run.is_replicate for run in found))
    key, equals, value = text.partition("=")
    found = [run for run in every if equals and value in run.values(key)]
    if not found:
        problems.append(_unknown(text, every))
    return _counting(text, found, all(run.is_replicate for run in every))


def _counting(name: str, found: Sequence[ComparedTrial], replicates: bool) -> Side:
    """Returns the side in which only replicates count, or only the other trials."""
    runs = [run for run in found if run.is_replicate == replicates]
    why = "as chosen for its result" if replicates else "as replicates of what was chosen"
    return Side(
        name, runs, f"left out, {why}: {len(found) - len(runs)}" if len(runs) < len(found) else ""
    )


def _text(value: object) -> str:
    return json.dumps(value) if isinstance(value, dict | list | bool) else str(value)


def _unknown(text: str, runs: Sequence[ComparedTrial]) -> str:
    key, equals, value = text.partition("=")
    if values := sorted({written[0] for run in runs if (written := run.values(key))}):
        if not equals:
            return f"{shown(text)} has no value: write KEY=VALUE, such as {key}={values[-1]}"
        return f"{shown(text)}: no trial has that value{nearest(value, values)}"
    law = (
        f"{shown(text)} names no trial: give a trial's name or number, or a setting KEY=VALUE "
        "that the trials have"
    )
    return law + nearest(key, sorted({key for run in runs for key in run.trial.settings}))


def _cautions(*sides: Side) -> Iterator[str]:
    """Says which trials count on each side, and where the comparison is not fair."""
    yield from map(Side.line, sides)
    runs = [run for side in sides for run in side.runs]
    steps = sorted({run.trial.step for side in sides for run in side.finished})
    if len(steps) > 1:
        yield f"not all made the same number of steps: {steps[0]:,} to {steps[-1]:,}"
    if any(run.trial.status == "stopped" for run in runs):
        yield (
            "some were stopped early for being worse: what finished is the better part of each side"
        )


def _best(side: Side, goal: str) -> ComparedTrial | None:
    ranked = sorted(side.finished, key=lambda run: run.value, reverse=goal == "maximize")
    return ranked[0] if ranked else None


def _on_examples(a: ComparedTrial | None, b: ComparedTrial | None, fetch: bool) -> Iterator[str]:
    """Compares the best models of both sides on the dev examples, if they have recorded answers."""
    if a is None or b is None:
        return
    names = [
        f"the model of {shown_place(run.place)} (seed {run.trial.config.get(SEED, 0)})"
        for run in (a, b)
    ]
    if far := [shown_place(run.place) for run in (a, b) if is_far(run.place) and not fetch]:
        yield (
            f"not compared on single dev examples: the answers lie at {' and '.join(far)}, where "
            "--fetch reads them"
        )
        return
    answers = [load_answers(run.place) for run in (a, b)]
    if missing := [
        shown_place(run.place) for run, found in zip((a, b), answers, strict=True) if found is None
    ]:
        yield (
            "not compared on single dev examples: there is no answers.json in "
            f"{' and '.join(missing)}"
        )
        return
    of_a, of_b = ((found.errors, found.lengths) for found in answers if found is not None)
    if len(of_a[0]) != len(of_b[0]):
        yield (
            f"not compared on single dev examples: they answered {len(of_a[0]):,} and "
            f"{len(of_b[0]):,} of them"
        )
        return
    difference, low, high = rate_difference_interval(of_a, of_b)
    claim = verdict(names[0], names[1], (low, high), "minimize")[0]
    rates = " against ".join(
        f"{sum(errors) / max(sum(lengths), 1):.4g}" for errors, lengths in (of_a, of_b)
    )
    by = (
        f"error rate {rates}, {apart(difference, (low, high))}, paired over {len(of_a[0]):,} dev "
        "examples"
    )
    yield f"{claim}: {by}; this says nothing about other seeds"
