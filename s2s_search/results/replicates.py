"""Trials that differ in nothing but their seed."""

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from s2s_search.hparams.configuration import Hparams
from s2s_search.results.ranked import Ranked
from s2s_search.results.statistics import SEED, alike, mean_interval
from s2s_search.spaces.space import completed
from s2s_search.statuses import COMPLETE


def seedless(config: Mapping[str, object]) -> Hparams | str:
    """Returns what is equal for configurations that differ in nothing but their seed.

    It is the complete configuration, or the text of one that is not valid.
    """
    without = {**config, SEED: 0}
    return completed(without) or json.dumps(without, sort_keys=True)


def configurations(results: Ranked) -> "pd.Series[int]":
    """Returns the number of each trial's configuration, which is the trial without its seed."""
    return alike(results.trials, [key for key in results.searched if key != SEED])


def replicates(results: Ranked) -> pd.DataFrame:
    """Returns one row per configuration of a search, the best mean first.

    A configuration is a group of trials that differ only in their seed. Columns: the searched
    hyperparameters except train.seed; trials (the number of trials); n (the number of finished
    trials); mean, std, low and high (the 95 % interval of the mean), and best, all of the search's
    metric at the best reports of these n trials; seed and trial of the best. Trials that were
    stopped early count in `trials` only, as they had fewer steps to improve. Configurations with a
    seed that diverged come after all others: the mean of the other seeds flatters them.
    """
    keys = [key for key in results.searched if key != SEED]
    is_finished = results.trials["status"].isin(COMPLETE)
    value = results.trials[f"best.{results.metric}"].where(is_finished)
    trials = results.trials.assign(value=value, diverged=results.trials["status"].eq("diverged"))
    upwards = results.goal == "minimize"
    trials = trials.sort_values(["value", "trial"], ascending=[upwards, True], na_position="last")
    by: list[Any] = keys or [np.zeros(len(trials))]
    groups = trials.groupby(by, dropna=False, sort=False)
    values = groups["value"]
    intervals = [mean_interval(group) for _, group in values]
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
    table = pd.DataFrame(columns)
    table = table.assign(diverged=groups["diverged"].any()).reset_index(drop=not keys)
    table = table.sort_values(
        ["diverged", "mean", "trial"],
        ascending=[True, upwards, True],
        na_position="last",
        ignore_index=True,
    )
    return table.drop(columns="diverged")


def seed_deviation(groups: pd.DataFrame) -> tuple[float, int]:
    """Returns the standard deviation of a seed and its degrees of freedom.

    It is pooled over all configurations of a table of `replicates`; (nan, 0) if none has two seeds.
    """
    several = groups[groups["n"] > 1]
    degrees = several["n"].astype(int) - 1
    if several.empty:
        return math.nan, 0
    squares = (several["std"].astype(float) ** 2 * degrees).sum()
    return math.sqrt(squares / degrees.sum()), int(degrees.sum())
