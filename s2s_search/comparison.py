"""How sure a result is: intervals by the bootstrap (Efron and Tibshirani, 1993).

Needs numpy and pandas; neither Ray nor torch.
"""

import functools
import math
from collections.abc import Iterator, Sequence
from statistics import NormalDist

import numpy as np
import pandas as pd
from numpy.typing import NDArray

RESAMPLES = 10_000
AT_ONCE = 2_000_000  # numbers of resamples that are in memory together
GRID = 100_001  # points at which Student's distribution is summed up

Floats = NDArray[np.float64]


def interval(values: Sequence[float] | pd.Series, level: float = 0.95, seed: int = 0) -> tuple[float, float]:
    """The bootstrap interval of the mean of values; missing ones are left out.

    It lies between percentiles of the resampled means, whose distances from the mean are stretched by `stretch`, as
    few values scatter less in a resample than in the world. Fewer than 2 values: (nan, nan).
    """
    known = present(values)
    if len(known) < 2:
        return math.nan, math.nan
    means = np.concatenate([known[picked].mean(axis=1) for picked in _resamples(len(known), seed)])
    return _between(means, known.mean(), level, stretch(len(known), len(known) - 1, level))


def present(values: Sequence[float] | pd.Series) -> Floats:
    """Values as numbers, without those that are missing."""
    return pd.Series(values, dtype="Float64").dropna().to_numpy(float)


def stretch(n: float, degrees: float, level: float) -> float:
    """What makes the percentile interval of n values as wide as Student's with that many degrees of freedom.

    sqrt(n / (n - 1)) t / z: the deviation of a resample is too small by the root, and the normal quantile z knows
    nothing of how badly few values tell their deviation. It is 9 for 2 values, 1.6 for 5, 1.02 for 50. (Hesterberg,
    2015, corrects the percentiles for the same two reasons.)
    """
    tail = (1 + level) / 2
    return math.sqrt(n / (n - 1)) * student_quantile(tail, degrees) / NormalDist().inv_cdf(tail)


@functools.lru_cache(1000)
def student_quantile(p: float, degrees: float) -> float:
    """The p-quantile, p at least 0.5, of Student's t distribution with at least 1 degree of freedom.

    With t = sqrt(degrees) tan(a) the density is in proportion to cos(a)^(degrees - 1), which is summed up over a.
    """
    angles = np.linspace(0.0, math.pi / 2, GRID)
    density = np.cos(angles) ** (degrees - 1)
    sums = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    return math.sqrt(degrees) * math.tan(float(np.interp((2 * p - 1) * sums[-1], sums, angles)))


def _resamples(n: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Yields RESAMPLES rows of n positions, drawn with replacement, some rows at a time."""
    rng, rows = np.random.default_rng(seed), max(1, AT_ONCE // n)
    for start in range(0, RESAMPLES, rows):
        yield rng.integers(0, n, (min(rows, RESAMPLES - start), n))


def _between(resampled: Floats, value: float, level: float, factor: float = 1.0) -> tuple[float, float]:
    """The percentiles of what was resampled, their distances from the value itself times a factor."""
    tail = (1 - level) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return float(value + factor * (low - value)), float(value + factor * (high - value))
