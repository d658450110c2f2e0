"""What a smaller search would have found: the best of n trials, as a mean over such searches.

Reporting this mean over n is advice of Dodge et al. (2019), "Show Your Work". Their estimate draws
with replacement, and therefore says too good a value for small numbers of trials (Tang et al.,
2020). This one draws without. Needs numpy and pandas; neither Ray nor torch.
"""

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd

from s2s_search.results.replicates import configurations
from s2s_search.results.results import Results
from s2s_search.results.statistics import LEAST, LEVEL, Floats, student_quantile

PARTS = 4  # the interval needs this many times as many configurations as a smaller search has


def expected_best(results: Results) -> pd.DataFrame:
    """Returns the mean result of searches with fewer configurations of the same space.

    A configuration has the mean of its seeds' best values. One without a value, because it failed
    or diverged, is as bad as the worst. With fewer than 10 configurations that have a value the
    table is empty.

    Columns: n (the number of configurations, from 2 on); mean; low and high (its 95 % interval);
    seconds (the worker seconds that n configurations take, at the mean of this search). The
    interval is NaN for more than a quarter of the configurations: it would be too narrow.
    """
    values = results.trials[f"best.{results.metric}"].astype(float)
    scores = values.groupby(configurations(results)).mean()
    minimize = results.minimizes(results.metric)
    rows = []
    if scores.notna().sum() >= LEAST:
        worst = scores.max() if minimize else scores.min()
        known = np.asarray(scores.fillna(worst), float)
        rows = [(n, *best_of(known, n, minimize)) for n in range(2, len(known) + 1)]
    table = pd.DataFrame(rows, columns=["n", "mean", "low", "high"])
    each = results.trials["seconds"].astype(float).sum() / max(len(scores), 1)
    return table.assign(seconds=table["n"] * each)


def best_of(scores: Floats, n: int, minimize: bool) -> tuple[float, float, float]:
    """Returns the mean of the best of n scores drawn without replacement, and its interval.

    The standard error is that of the jackknife. Student's t has N / n - 1 degrees of freedom for N
    scores, because N / n is the number of searches of this size that they are. The interval is
    (nan, nan) where this number is below PARTS.
    """
    ordered = np.sort(scores) if minimize else np.sort(scores)[::-1]
    mean = float(ordered @ _weights(len(ordered), n))
    if len(ordered) < PARTS * n:
        return mean, math.nan, math.nan
    # Without score k, those behind it move up by one place.
    weights = _weights(len(ordered) - 1, n)
    before = np.concatenate([[0.0], np.cumsum(ordered[:-1] * weights)])
    behind = np.concatenate([np.cumsum((ordered[1:] * weights)[::-1])[::-1], [0.0]])
    without = before + behind
    spread = float(((without - without.mean()) ** 2).sum())
    error = math.sqrt((len(ordered) - 1) / len(ordered) * spread)
    half = error * student_quantile((1 + LEVEL) / 2, len(ordered) / n - 1)
    return mean, mean - half, mean + half


def _weights(count: int, n: int) -> Floats:
    """Returns for each of `count` ordered scores the probability that it is the best of n.

    That is C(count - i, n - 1) / C(count, n) for score i = 1, 2, ...
    """
    weights = np.zeros(count)
    weights[0] = n / count
    for i in range(1, count - n + 1):
        weights[i] = weights[i - 1] * (count - i - n + 1) / (count - i)
    return weights


def sizes(table: pd.DataFrame) -> list[int]:
    """Returns the sizes of smaller searches that a table shows: the powers of 2, and the whole."""
    whole = int(table["n"].max())
    return [n for n in table["n"] if n == whole or n & (n - 1) == 0]


def sentences(table: pd.DataFrame, metric: str) -> Iterator[str]:
    """Says what a quarter and a half of the configurations would have given.

    `table` is that of `expected_best`, and `metric` the metric as the sentence names it.
    """
    whole = int(table["n"].max())
    columns = table.astype(float).set_index(table["n"])
    mean, low, high, seconds = (columns[name] for name in ("mean", "low", "high", "seconds"))
    quarter = max(whole // PARTS, 2)
    yield (
        f"Searches of {quarter:,} configurations like these {whole:,} would reach {metric} "
        f"{mean[quarter]:.4g} on average (95 % interval of this mean {low[quarter]:.4g} to "
        f"{high[quarter]:.4g}) in {seconds[quarter] / 3600:.2g} worker hours in place of "
        f"{seconds[whole] / 3600:.2g}, if each trial is stopped as it was here."
    )
    yield (
        f"A random half of them reaches {mean[whole // 2]:.4g} on average, and all {whole:,} "
        f"reached {mean[whole]:.4g}."
    )
