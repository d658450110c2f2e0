"""Trials that differ in nothing but their seed."""

import math
from typing import Any

import numpy as np
import pandas as pd

from s2s_search.results.results import Results
from s2s_search.results.statistics import SEED, alike, interval


def configurations(results: Results) -> "pd.Series[int]":
    """The number of each trial's configuration: equal where trials differ in nothing but their seed."""
    return alike(results.trials, [key for key in results.searched if key != SEED])


def replicates(results: Results) -> pd.DataFrame:
    """The configurations of a search, best mean first: groups of trials that are equal in everything but their seed.

    Columns: the searched hyperparameters but train.seed; trials (all of the group); n (how many finished); mean, std,
    low, high (the 95 % interval of the mean) and best of these n, by the search's metric at their best reports; seed
    and trial of the best. Trials that were stopped early count in `trials` alone: they had fewer steps to be good in.
    """
    keys, score = [key for key in results.searched if key != SEED], f"best.{results.metric}"
    trials = results.trials.assign(
        value=results.trials[score].where(results.trials["status"].eq("finished"))
    )
    upwards = results.goal == "minimize"
    trials = trials.sort_values(["value", "trial"], ascending=[upwards, True], na_position="last")
    by: list[Any] = keys or [np.zeros(len(trials))]
    groups = trials.groupby(by, dropna=False, sort=False)
    values = groups["value"]
    intervals = [interval(group) if len(group) > 1 else (math.nan, math.nan) for _, group in values]
    finished = values.count() > 0
    columns = {
        "trials": values.size().astype("Int64"),
        "n": values.count().astype("Int64"),
        "mean": values.mean(),
        "std": values.std(),
        "low": pd.array([low for low, _ in intervals], "Float64"),
        "high": pd.array([high for _, high in intervals], "Float64"),
        "best": values.first(),
        "seed": groups["seed"].first().where(finished),
        "trial": groups["trial"].first().where(finished),
    }
    table = pd.DataFrame(columns).reset_index(drop=not keys)
    return table.sort_values(
        ["mean", "trial"], ascending=[upwards, True], na_position="last", ignore_index=True
    )
