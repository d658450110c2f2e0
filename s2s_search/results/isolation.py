"""Isolation: what each value of a hyperparameter reached, and whether the best two values differ.

The name and the method are those of Google's tuning playbook: the other hyperparameters are
nuisance parameters, so a value is judged by its best trials. Needs numpy and pandas; neither Ray
nor torch.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pandas as pd

from s2s_search.errors import ConfigError
from s2s_search.results.replicates import configurations
from s2s_search.results.results import Results
from s2s_search.results.statistics import AT_ONCE, LEVEL, interval

# The mean of this number of best configurations stands for a value: it is what the value reaches
# when the other hyperparameters suit it.
TOP = 5
SHUFFLES = 2_000  # the number of permutations of a test


def isolation(
    groups: Iterable[tuple[str, pd.DataFrame]], minimize: bool, top: int = TOP
) -> pd.DataFrame:
    """Returns a table of what groups of trials reached, one row per group.

    A configuration with several seeds counts once, with the mean over its seeds. For each group the
    mean is taken over the same share of its configurations, because the best 5 of 40 are better
    than the best 5 of 16 by chance alone. The share is `top` of the smallest group that has `top`.

    The columns are value (string); n (the number of configurations); best; mean (of the best
    share); low and high (the 95 % bootstrap interval of that mean, as if the best were a sample);
    top (the number of configurations in the mean); trial (the best one); scores (of all
    configurations, the best first).

    Args:
        groups: the groups' names, and their trials, best first, with the columns trial,
            configuration and score.
        minimize: whether a lower score is better.
        top: the number of best configurations that are averaged in the smallest group.
    """
    named = [(name, by_configuration(trials, minimize)) for name, trials in groups]
    share = top / min((len(found) for _, found in named if len(found) >= top), default=top)
    rows = []
    for name, found in named:
        scores = found["score"].tolist()
        count = min(len(found), max(round(share * len(found)), 1))
        best, mean, trial = np.nan, np.nan, None
        if scores:
            best = scores[0]
            mean = np.mean(scores[:count])
            trial = found["trial"].iloc[0]
        rows.append((name, len(found), best, mean, *interval(scores[:count]), count, trial, scores))
    columns = ["value", "n", "best", "mean", "low", "high", "top", "trial", "scores"]
    return pd.DataFrame(rows, columns=columns)


def by_configuration(trials: pd.DataFrame, minimize: bool) -> pd.DataFrame:
    """Returns one row per configuration, best first, from trials that are sorted best first.

    The score is the mean over the seeds of the configuration. All other columns are those of the
    best seed.
    """
    groups = trials.groupby("configuration", sort=False)
    found = trials.drop_duplicates("configuration").set_index("configuration")
    found = found.assign(score=groups["score"].mean())
    return found.sort_values("score", ascending=minimize, kind="stable").reset_index(drop=True)


def isolated(results: Results, key: str, top: int = TOP) -> pd.DataFrame:
    """Returns the isolation of the values of a column; the value with the best trial comes first.

    Raises:
        ConfigError: there is no such column, or `top` is below 1.
    """
    if top < 1:
        raise ConfigError(f"top must be at least 1, but got {top}")
    column = results.column(key)
    minimize = results.minimizes(results.metric)
    trials = results.trials.assign(
        configuration=configurations(results), score=results.trials[f"best.{results.metric}"]
    )
    trials = trials.dropna(subset=[column, "score"])
    trials = trials.sort_values("score", ascending=minimize, kind="stable")
    groups = [(str(value), group) for value, group in trials.groupby(column, sort=False)]
    return isolation(groups, minimize, top)


def chance(first: "pd.Series[Any]", second: "pd.Series[Any]", minimize: bool) -> float:
    """Returns the p-value of a permutation test of two rows of an isolation.

    It is the probability that two equal values have means at least as far apart. The scores are
    shuffled over both groups, and the best of each group are averaged as in the rows. An interval
    of the best ignores that they were chosen as the best; this test does not, whatever the numbers
    of configurations are.
    """
    scores = np.sort(np.concatenate([first["scores"], second["scores"]]))
    if not minimize:
        scores = scores[::-1]
    observed = abs(first["mean"] - second["mean"])
    rng = np.random.default_rng(0)
    is_first = np.arange(len(scores)) < first["n"]
    as_far = 1  # the observed order counts as one of the permutations
    left = SHUFFLES
    while left > 0:
        rows = min(left, max(1, AT_ONCE // len(scores)))
        shuffled = rng.permuted(np.tile(is_first, (rows, 1)), axis=1)
        means = []
        for members, top in ((shuffled, first["top"]), (~shuffled, second["top"])):
            best = members & (members.cumsum(axis=1) <= top)  # the scores are sorted, best first
            means.append(best @ scores / top)
        # The tolerance is for sums of the same scores in another order.
        as_far += int((abs(means[0] - means[1]) >= observed * (1 - 1e-9)).sum())
        left -= rows
    return as_far / (SHUFFLES + 1)


def conclusion(table: pd.DataFrame, minimize: bool, quoted: Callable[[str], str] = str) -> str:
    """Says which two values of an isolation are the best, and whether they differ.

    quoted: how to write the name of a value.
    """
    ranked = table.dropna(subset="mean").sort_values("mean", ascending=minimize, kind="stable")
    if len(ranked) < 2:
        return "fewer than two of its values have a result, so there is nothing to compare"
    first, second = ranked.iloc[0], ranked.iloc[1]
    p = chance(first, second, minimize)
    said = "more than chance" if p <= 1 - LEVEL else "this search does not tell them apart"
    means = []
    for row in (first, second):
        mean = f"{quoted(row['value'])} {row['mean']:.4g}"
        means.append(f"{mean} (the mean of the best {row['top']} of {row['n']})")
    return f"{means[0]}, then {means[1]}; {said} (p = {p:.2g} by permutation)"
