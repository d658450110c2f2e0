"""The sides of a comparison: which trials A and B name, which of them count, and what comes of it."""

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
    place: str  # its folder, or what is below the URL of checkpoints
    value: float  # its best; NaN without one
    curve: Mapping[int, float]  # the metric by step
    configuration: Hparams | str  # equal where trials differ in nothing but their seed
    is_replicate: bool

    @property
    def is_finished(self) -> bool:
        return self.trial.status == "finished" and not np.isnan(self.value)

    def values(self, key: str) -> list[str]:
        """How the value of a key may be written: by its label or written out, also where no search varied it."""
        flat = self.configuration.flat() if isinstance(self.configuration, Hparams) else {}
        return [_text(known[key]) for known in (self.trial.settings, flat) if key in known]


@dataclass(frozen=True)
class Side:
    """What is compared: the trials of one configuration, or those with a setting."""

    name: str
    runs: Sequence[ComparedTrial]
    left_out: str = ""  # how many trials, and why

    @property
    def finished(self) -> list[ComparedTrial]:
        return [run for run in self.runs if run.is_finished]

    @property
    def ended(self) -> list[ComparedTrial]:
        """Those that finished or were stopped for being worse: all that say how good the side is."""
        return [
            run for run in self.runs if run.trial.status in ("finished", "stopped") and run.curve
        ]

    def line(self) -> str:
        """What counts and what is left out, such as: A: 5 of 9 trials finished, of 4 configurations; 4 stopped."""
        configurations = len({run.configuration for run in self.runs})
        others = Counter(
            run.trial.status.replace("_", " ") for run in self.runs if not run.is_finished
        )
        out = "".join(f"; {number} {status}" for status, number in sorted(others.items()))
        of = f"of {configurations} configuration{'' if configurations == 1 else 's'}"
        out += f"; {self.left_out}" if self.left_out else ""
        return f"{self.name}: {len(self.finished)} of {len(self.runs)} trials finished, {of}{out}"


def compare(folders: Sequence[Path], a: str, b: str, fetch: bool = False) -> Iterator[str]:
    """Compares A with B, each a trial or a setting such as attention.score_type=dot, and says it in lines.

    A name or number stands for the configuration of that trial of the first folder, with all its seeds in all
    folders; where it was replicated the replicates alone count, as it was chosen by the others. A setting stands for
    all trials that have it, without replicates unless all folders are of replicates: they are of the configurations
    that did best, on one side perhaps. Trials that finished count, at their best reports; where some were stopped,
    these too, but at the last step that all have reached. The unit is a configuration, by the mean of its seeds; it
    is a seed where there is one configuration on either side. Answers that lie at a URL are only read with `fetch`.

    Raises:
        ConfigError: no run folders, one of them twice, or not of one metric, goal and corpus; A or B names no trial, or
            both name the same.
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
    """The comparison of two sides of configurations with values."""
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
    """Compares all that ended at the last step that they all reached, where some were stopped for being worse."""
    ended = [*left.ended, *right.ended]
    if all(run.trial.status == "finished" for run in ended):
        return
    step = min(max(run.curve) for run in ended)
    if all(step in run.curve for run in ended):
        values = [
            [(run.configuration, run.curve[step]) for run in side.ended] for side in (left, right)
        ]
        sentence = _compared(left.name, right.name, values, metric, goal).sentence()
        yield f"at step {step:,}, which these {len(ended)} reached, before any was stopped: {sentence}"


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
    """The trials that a number of the first folder or a setting names; adds a problem where there are none."""
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
    """The side of which replicates alone count, or all but them."""
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
    law = f"{shown(text)} names no trial: give a trial's name or number, or a setting KEY=VALUE that the trials have"
    return law + nearest(key, sorted({key for run in runs for key in run.trial.settings}))


def _cautions(*sides: Side) -> Iterator[str]:
    """What counts on each side, and what a comparison of these knows nothing of."""
    yield from map(Side.line, sides)
    runs = [run for side in sides for run in side.runs]
    steps = sorted({run.trial.step for side in sides for run in side.finished})
    if len(steps) > 1:
        yield f"not all made the same number of steps: {steps[0]:,} to {steps[-1]:,}"
    if any(run.trial.status == "stopped" for run in runs):
        yield "some were stopped early for being worse: what finished is the better part of each side"


def _best(side: Side, goal: str) -> ComparedTrial | None:
    ranked = sorted(side.finished, key=lambda run: run.value, reverse=goal == "maximize")
    return ranked[0] if ranked else None


def _on_examples(a: ComparedTrial | None, b: ComparedTrial | None, fetch: bool) -> Iterator[str]:
    """Compares the best models of both sides on the dev examples, where it was written down what they answered."""
    if a is None or b is None:
        return
    names = [
        f"the model of {shown_place(run.place)} (seed {run.trial.config.get(SEED, 0)})"
        for run in (a, b)
    ]
    if far := [shown_place(run.place) for run in (a, b) if is_far(run.place) and not fetch]:
        yield f"not compared on single dev examples: the answers lie at {' and '.join(far)}, where --fetch reads them"
        return
    answers = [load_answers(run.place) for run in (a, b)]
    if missing := [
        shown_place(run.place) for run, found in zip((a, b), answers, strict=True) if found is None
    ]:
        yield f"not compared on single dev examples: there is no answers.json in {' and '.join(missing)}"
        return
    of_a, of_b = ((found.errors, found.lengths) for found in answers if found is not None)
    if len(of_a[0]) != len(of_b[0]):
        yield f"not compared on single dev examples: they answered {len(of_a[0]):,} and {len(of_b[0]):,} of them"
        return
    difference, low, high = rate_difference_interval(of_a, of_b)
    claim = verdict(names[0], names[1], (low, high), "minimize")[0]
    rates = " against ".join(
        f"{sum(errors) / max(sum(lengths), 1):.4g}" for errors, lengths in (of_a, of_b)
    )
    by = f"error rate {rates}, {apart(difference, (low, high))}, paired over {len(of_a[0]):,} dev examples"
    yield f"{claim}: {by}; this says nothing about other seeds"
