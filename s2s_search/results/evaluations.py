"""Evaluations: metrics over seeds and examples, from what single sources add to them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from s2s_search.metrics import METRICS, metrics_of
from s2s_search.results.two_way import Floats, OverSeeds, resampled_sums
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


def table(folder: Path) -> pd.DataFrame:
    """Returns the evaluations of a run folder, one row per evaluation and configuration.

    Columns: time (UTC); split (dev or test); trial; run (the run folder of the models); seeds
    (their number); fresh (False when these seeds chose the configuration); beam; examples; and for
    each metric, such as error_rate, its mean over seeds, and as error_rate.low and error_rate.high
    its 95 % interval.

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
                found = evaluated.metrics.get(f"{evaluation.split}.{name}")
                if found is not None:
                    row |= {name: found.value, f"{name}.low": found.low, f"{name}.high": found.high}
            rows.append(row)
    return pd.DataFrame(rows, columns=list(COLUMN_TYPES)).astype(COLUMN_TYPES)


def _about(evaluated: Evaluated) -> dict[str, object]:
    return {
        "trial": evaluated.trial,
        "run": ", ".join(dict.fromkeys(model.run for model in evaluated.models)),
        "seeds": len(evaluated.models),
        "fresh": evaluated.fresh,
        "beam": evaluated.beam,
    }


COLUMN_TYPES = {
    "time": "datetime64[ns, UTC]",
    **dict.fromkeys(("split", "trial", "run"), "string"),
    "seeds": "Int64",
    "fresh": "boolean",
    **dict.fromkeys(("beam", "examples"), "Int64"),
    **dict.fromkeys(
        (f"{name}{end}" for name in METRIC_NAMES for end in ("", ".low", ".high")), "Float64"
    ),
}
