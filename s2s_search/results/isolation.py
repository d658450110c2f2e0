"""Isolation: what each value of a hyperparameter reached, whatever the others were, and whether the best two differ.

The word and the method are those of Google's tuning playbook: the other hyperparameters are nuisance, so that a value
is judged by its best trials. Needs numpy and pandas; neither Ray nor torch.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pandas as pd

from s2s_search.errors import ConfigError
from s2s_search.results.replicates import configurations
from s2s_search.results.results import Results
from s2s_search.results.statistics import AT_ONCE, LEVEL, interval

TOP = 5  # configurations whose mean stands for a value: what it reaches when the other hyperparameters suit it
SHUFFLES = 2_000


def isolation(
    groups: Iterable[tuple[str, pd.DataFrame]], minimize: bool, top: int = TOP
) -> pd.DataFrame:
    """What groups of trials reached, a row a group.

    The seeds of a configuration count as one, by their mean. Of all groups the same share is averaged, that which is
    the best `top` of the smallest group with so many: the best 5 of 40 would be better than the best 5 of 16 by chance.

    groups: names, and trials with the columns trial, configuration and score, the best first. Columns: value (string),
    n (configurations), best, mean (of the best share), low and high (the bootstrap's 95 % interval of that mean, as if
    the best were a sample), top (how many it is of), trial (the best one), scores (of the configurations, best first).
    """
    named = [(name, by_configuration(trials, minimize)) for name, trials in groups]
    share = top / min((len(found) for _, found in named if len(found) >= top), default=top)
    rows = []
    for name, found in named:
        scores, count = found["score"].tolist(), min(len(found), max(round(share * len(found)), 1))
        best, trial = (scores[0], found["trial"].iloc[0]) if scores else (np.nan, None)
        mean = np.mean(scores[:count]) if scores else np.nan
        rows.append((name, len(found), best, mean, *interval(scores[:count]), count, trial, scores))
    return pd.DataFrame(
        rows, columns=["value", "n", "best", "mean", "low", "high", "top", "trial", "scores"]
    )


def by_configuration(trials: pd.DataFrame, minimize: bool) -> pd.DataFrame:
    """Trials, the best first, with the seeds of a configuration as one row: their mean score, else of the best seed."""
    groups = trials.groupby("configuration", sort=False)
    found = trials.drop_duplicates("configuration").set_index("configuration")
    found = found.assign(score=groups["score"].mean())
    return found.sort_values("score", ascending=minimize, kind="stable").reset_index(drop=True)


def isolated(results: Results, key: str, top: int = TOP) -> pd.DataFrame:
    """The isolation of the values of a column of the trials table, the value with the best trial first.

    Raises:
        ConfigError: there is no such column, or `top` is below 1.
    """
    if top < 1:
        raise ConfigError(f"top must be at least 1, but got {top}")
    column, score, minimize = (
        results.column(key),
        f"best.{results.metric}",
        results.minimizes(results.metric),
    )
    trials = results.trials.assign(
        configuration=configurations(results), score=results.trials[score]
    )
    trials = trials.dropna(subset=[column, "score"]).sort_values(
        "score", ascending=minimize, kind="stable"
    )
    return isolation(
        ((str(value), group) for value, group in trials.groupby(column, sort=False)), minimize, top
    )


def chance(first: "pd.Series[Any]", second: "pd.Series[Any]", minimize: bool) -> float:
    """How likely equal values would have means as far apart: the p-value of a permutation test of two rows.

    The scores are shuffled over both groups, and of each the best are averaged as in the rows. Unlike an interval of
    the best, which forgets that they were chosen, this holds whatever the numbers of configurations are.
    """
    counts, tops = (first["n"], second["n"]), (first["top"], second["top"])
    scores = np.sort(np.concatenate([first["scores"], second["scores"]]))[:: 1 if minimize else -1]
    observed = abs(first["mean"] - second["mean"])
    rng, is_first, as_far, left = (
        np.random.default_rng(0),
        np.arange(len(scores)) < counts[0],
        1,
        SHUFFLES,
    )
    while left:
        rows = min(left, max(1, AT_ONCE // len(scores)))
        shuffled = rng.permuted(np.tile(is_first, (rows, 1)), axis=1)
        means = []
        for members, top in ((shuffled, tops[0]), (~shuffled, tops[1])):
            best = members & (members.cumsum(axis=1) <= top)
            means.append(best @ scores / top)
        as_far += int((abs(means[0] - means[1]) >= observed * (1 - 1e-9)).sum())
        left -= rows
    return as_far / (SHUFFLES + 1)


def conclusion(table: pd.DataFrame, minimize: bool, quoted: Callable[[str], str] = str) -> str:
    """What an isolation allows to say of its best two values; `quoted` sets their names."""
    ranked = table.dropna(subset="mean").sort_values("mean", ascending=minimize, kind="stable")
    if len(ranked) < 2:
        return "fewer than two of its values have a result, so there is nothing to compare"
    first, second = ranked.iloc[0], ranked.iloc[1]
    p = chance(first, second, minimize)
    by = f"p = {p:.2g} by permutation"
    sure = (
        f"more than chance ({by})"
        if p <= 1 - LEVEL
        else f"this search does not tell them apart ({by})"
    )
    best = [f"the mean of the best {row['top']} of {row['n']}" for row in (first, second)]
    means = [f"{quoted(row['value'])} {row['mean']:.4g}" for row in (first, second)]
    return f"{means[0]} ({best[0]}), then {means[1]} ({best[1]}); {sure}"
