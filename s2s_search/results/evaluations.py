"""Evaluations: metrics over seeds and examples, from what single sources add to them."""

from collections.abc import Iterator, Sequence, Set
from pathlib import Path

import numpy as np
import pandas as pd

from s2s_search.errors import quantity
from s2s_search.metrics import METRICS, metrics_of
from s2s_search.results.statistics import Floats, apart, better_or_worse
from s2s_search.results.two_way import OverSeeds, paired_interval, resampled_sums
from s2s_search.runs.evaluations import Estimate, Evaluated, MeasuredModel, load_evaluations

METRIC_NAMES = tuple(name.removeprefix("dev.") for name in METRICS)


def sides(models: Sequence[Floats], split: str) -> dict[str, OverSeeds]:
    """Returns each metric of S models, by its name such as test.error_rate.

    Args:
        models: what each of N sources adds to the sums of each model, [N, len(SUMS)].
        split: "dev" or "test".
    """
    found = [metrics_of(sums.sum(axis=0).tolist(), split) for sums in models]
    resampled = []
    for sums in models:
        rows = resampled_sums(sums).tolist()
        resampled.append([metrics_of(row, split) for row in rows])
    by_name = {}
    for name in found[0]:
        columns = [[row[name] for row in rows] for rows in resampled]
        values = np.array([of_model[name] for of_model in found])
        by_name[name] = OverSeeds(values, np.array(columns).T, len(models[0]))
    return by_name


def with_intervals(models: Sequence[Floats], split: str) -> dict[str, Estimate]:
    """Returns the mean of each metric over S models with its interval; see `sides`."""
    metrics = {}
    for name, side in sides(models, split).items():
        low, high = side.interval()
        metrics[name] = Estimate(side.mean, _known(low), _known(high))
    return metrics


def _known(value: float) -> float | None:
    return None if np.isnan(value) else value


def sums_of(model: MeasuredModel) -> Floats:
    """Returns what each source adds to the sums of a model that was kept."""
    return np.array(model.sums.rows(), float)


def compared(
    folder: Path,
    names: tuple[str, str],
    trials: tuple[Set[str], Set[str]],
    metric: str,
    goal: str,
    reservation: str = "",
) -> Iterator[str]:
    """Yields what the newest evaluations of a run folder say about two configurations.

    There is a sentence for each split and beam width with which both were measured. The models are
    paired over the sources of the split.

    Args:
        folder: the run folder.
        names: how the two configurations are called.
        trials: the trials of the folder that have each configuration.
        metric: the metric of the search; one that is not measured is replaced by dev.error_rate.
        goal: "minimize" or "maximize".
        reservation: what a claim does not cover, as the end of a clause.
    """
    newest: dict[tuple[str, str, int, int], dict[int, Evaluated]] = {}
    for evaluation in load_evaluations(folder):
        for evaluated in evaluation.trials:
            if evaluated.ensemble > 1:
                continue  # it is not the trial's own result
            key = (
                evaluation.split,
                evaluation.fingerprint,
                evaluation.examples,
                evaluated.beam,
            )
            for side, of_side in enumerate(trials):
                if evaluated.trial in of_side:
                    newest.setdefault(key, {})[side] = evaluated
    if metric not in METRICS:
        metric, goal = "dev.error_rate", "minimize"
    for (split, _, examples, beam), found in newest.items():
        if len(found) == 2:
            name = f"{split}.{metric.removeprefix('dev.')}"
            of_split = f"{quantity(examples, f'{split} source')}, {decoding(beam)}"
            said = _sentence(names, (found[0], found[1]), split, name, goal, reservation)
            yield f"on {of_split}: {said}"


def _sentence(
    names: tuple[str, str],
    measured: tuple[Evaluated, Evaluated],
    split: str,
    metric: str,
    goal: str,
    reservation: str,
) -> str:
    a, b = measured
    if a.fresh != b.fresh:
        return (
            f"{names[0]} and {names[1]} are not compared: one was measured by replicates, and the "
            "other by the trial that was chosen for its result"
        )
    left, right = (
        sides([sums_of(model) for model in each.models], split)[metric] for each in (a, b)
    )
    values = f"{metric} {left.mean:.4g} against {right.mean:.4g}"
    low, high = paired_interval(left, right)
    if np.isnan(low):
        return f"{names[0]} against {names[1]}: {values}: nothing can be said of the difference"
    said, is_sure = better_or_worse(*names, (low, high), goal)
    if is_sure:
        said += reservation
    seeds = f"{len(left.values)} and {quantity(len(right.values), 'seed')}"
    text = f"{said}: {values}, {apart(left.mean - right.mean, (low, high))}"
    if min(len(left.values), len(right.values)) == 1:
        return f"{text} over the sources; this says nothing about other seeds"
    if not a.fresh:
        seeds += ", which chose the configurations"
    return f"{text} over {seeds}, paired over the sources"


def decoding(beam: int) -> str:
    """Returns how answers were found, as a phrase."""
    return "greedy" if beam == 1 else f"beam {beam}"


def table(folder: Path) -> pd.DataFrame:
    """Returns the evaluations of a run folder, one row per evaluation and configuration.

    Columns: time (UTC); split (dev or test); trial; run (the run folder of the models); seeds
    (their number); ensemble (the number of models that answered together, of which trial is the
    best; 1 where each answered alone); fresh (False when these seeds chose the configuration);
    beam; examples; and for each metric, such as error_rate, its mean over seeds, and as
    error_rate.low and error_rate.high its 95 % interval.

    Raises:
        ConfigError: the file is there and cannot be read.
    """
    rows = []
    for evaluation in load_evaluations(folder):
        for evaluated in evaluation.trials:
            row = {
                "time": pd.Timestamp(evaluation.time, unit="s", tz="UTC"),
                "split": evaluation.split,
                **_about(evaluated),
                "examples": evaluation.examples,
            }
            for name in METRIC_NAMES:
                found = evaluated.metrics[f"{evaluation.split}.{name}"]
                row |= {name: found.value, f"{name}.low": found.low, f"{name}.high": found.high}
            rows.append(row)
    return pd.DataFrame(rows, columns=list(COLUMN_TYPES)).astype(COLUMN_TYPES)


def _about(evaluated: Evaluated) -> dict[str, object]:
    runs = []
    for model in evaluated.models:
        runs += [model.run, *(other.run for other in model.others)]
    return {
        "trial": evaluated.trial,
        "run": ", ".join(dict.fromkeys(runs)),
        "seeds": len(evaluated.models),
        "ensemble": evaluated.ensemble,
        "fresh": evaluated.fresh,
        "beam": evaluated.beam,
    }


COLUMN_TYPES = {
    "time": "datetime64[ns, UTC]",
    **dict.fromkeys(("split", "trial", "run"), "string"),
    **dict.fromkeys(("seeds", "ensemble"), "Int64"),
    "fresh": "boolean",
    **dict.fromkeys(("beam", "examples"), "Int64"),
    **dict.fromkeys(
        (f"{name}{end}" for name in METRIC_NAMES for end in ("", ".low", ".high")), "Float64"
    ),
}
