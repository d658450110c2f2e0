"""How sure a result is: replicates, intervals, and whether A is better than B.

Intervals are the bootstrap's (Efron and Tibshirani, 1993): over seeds or configurations, and paired over dev examples.
Needs numpy and pandas; neither Ray nor torch.
"""

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import pandas as pd
from numpy.typing import NDArray

RESAMPLES = 10_000
RESAMPLES_OF_EXAMPLES = (
    2_000  # there are thousands of them; the ends are sure to a twentieth of the half width
)
AT_ONCE = 2_000_000  # numbers of resamples that are in memory together
MANY = 1_000  # values for which Student's quantile is the normal one
GRID = 100_001  # points at which Student's distribution is summed up
LEVEL, POWER = 0.95, 0.8
SEED = "train.seed"
BEST, FEWEST_BEST, LEAST = (
    0.1,
    5,
    10,
)  # share of the configurations that are the best, at least so many, of at least

Floats = NDArray[np.float64]


# --- intervals ---


def interval(
    values: Sequence[float] | pd.Series, level: float = LEVEL, seed: int = 0
) -> tuple[float, float]:
    """The bootstrap interval of the mean of values; missing ones are left out. Fewer than 2 values: (nan, nan).

    Its ends are percentiles of resampled means, moved away from the mean by `student_ratio`: else the interval of 2
    values would hold the truth half as often as it says, and that of 5 in 84 of 100 cases.
    """
    known = present(values)
    if len(known) < 2:
        return math.nan, math.nan
    return _stretched(
        known.mean(), _deviations(known, seed), student_ratio(len(known) - 1, level), level
    )


def difference_interval(
    a: Sequence[float], b: Sequence[float], level: float = LEVEL, seed: int = 0
) -> tuple[float, float]:
    """The same for the difference of two means, a's minus b's, with Welch's degrees of freedom.

    Fewer than 2 values on a side: (nan, nan).
    """
    if min(len(a), len(b)) < 2:
        return math.nan, math.nan
    left, right = np.asarray(a, float), np.asarray(b, float)
    deviations = _deviations(left, seed) - _deviations(right, seed + 1)
    return _stretched(
        left.mean() - right.mean(), deviations, student_ratio(_welch(left, right), level), level
    )


def rate_difference_interval(
    a: tuple[Sequence[int], Sequence[int]],
    b: tuple[Sequence[int], Sequence[int]],
    level: float = LEVEL,
    seed: int = 0,
) -> tuple[float, float, float]:
    """The difference of two error rates on the same examples, a's minus b's, and its paired bootstrap interval.

    Each side is the edits and the reference lengths of the examples, in one order; a resample draws examples, and
    with each of them both sides (Koehn, 2004).
    """
    columns = np.array([*a, *b], float)
    sums = [
        columns[:, picked].sum(axis=2)
        for picked in _resamples(columns.shape[1], seed, RESAMPLES_OF_EXAMPLES)
    ]
    low, high = _percentiles(_rates_apart(np.concatenate(sums, axis=1)), level)
    return float(_rates_apart(columns.sum(axis=1))), low, high


def _rates_apart(sums: Floats) -> Floats:
    edits_a, tokens_a, edits_b, tokens_b = sums
    return np.asarray(edits_a / np.maximum(tokens_a, 1) - edits_b / np.maximum(tokens_b, 1))


def present(values: Sequence[float] | pd.Series) -> Floats:
    """Values as numbers, without those that are missing."""
    return pd.Series(values, dtype="Float64").dropna().to_numpy(float)


def student_ratio(degrees: float, level: float) -> float:
    """Student's quantile by the normal one: how much wider intervals are where the deviation is known badly."""
    tail = (1 + level) / 2
    return student_quantile(tail, degrees) / NormalDist().inv_cdf(tail)


@functools.lru_cache(1000)
def student_quantile(p: float, degrees: float) -> float:
    """The p-quantile, p at least 0.5, of Student's t distribution with at least 1 degree of freedom.

    With t = sqrt(degrees) tan(angle) its density is in proportion to cos(angle)^(degrees - 1), which is summed up.
    """
    angles = np.linspace(0.0, math.pi / 2, GRID)
    density = np.cos(angles) ** (degrees - 1)
    sums = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    return math.sqrt(degrees) * math.tan(float(np.interp((2 * p - 1) * sums[-1], sums, angles)))


def seeds_needed(difference: float, deviation: float) -> float:
    """How many seeds a side show a difference of means in 80 of 100 cases, at 5 % (two-sided); infinite for none.

    The least n of at least 3 with n >= 2 ((t(0.975) + z(0.8)) deviation / difference)^2, where Student's t has 2n - 3
    degrees of freedom: `difference_interval` has about one fewer than a pooled test, and with 2 values a side it shows
    few differences, however large. The deviation is that of a seed, the same on both sides.
    """
    if difference == 0:
        return math.inf
    tail, ratio = (1 + LEVEL) / 2, deviation / abs(difference)

    def needed(quantile: float) -> float:
        return 2 * ((quantile + NormalDist().inv_cdf(POWER)) * ratio) ** 2

    least = needed(NormalDist().inv_cdf(tail))
    if not math.isfinite(least):
        return math.inf
    n = max(3, math.ceil(least))
    while n < MANY and n < needed(student_quantile(tail, 2 * n - 3)):
        n += 1
    return n


def _resamples(n: int, seed: int, count: int = RESAMPLES) -> Iterator[NDArray[np.int64]]:
    """Yields so many rows of n positions, drawn with replacement, some rows at a time."""
    rng, rows = np.random.default_rng(seed), max(1, AT_ONCE // n)
    for start in range(0, count, rows):
        yield rng.integers(0, n, (min(rows, count - start), n))


def _deviations(values: Floats, seed: int) -> Floats:
    """Resampled means minus the mean, by the root as far as it takes for the variance to be that of n - 1."""
    means = np.concatenate(
        [values[picked].mean(axis=1) for picked in _resamples(len(values), seed)]
    )
    return np.asarray((means - values.mean()) * math.sqrt(len(values) / (len(values) - 1)))


def _stretched(value: float, deviations: Floats, ratio: float, level: float) -> tuple[float, float]:
    low, high = _percentiles(deviations, level)
    return float(value + ratio * low), float(value + ratio * high)


def _percentiles(values: Floats, level: float) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _welch(a: Floats, b: Floats) -> float:
    """Welch's degrees of freedom for the difference of two means."""
    square_a, square_b = (
        values.var(ddof=1) / len(values) for values in (a, b)
    )  # of their standard errors
    if square_a + square_b == 0:
        return len(a) + len(b) - 2
    return float(
        (square_a + square_b) ** 2 / (square_a**2 / (len(a) - 1) + square_b**2 / (len(b) - 1))
    )


# --- replicates ---


def alike(trials: pd.DataFrame, keys: Sequence[str]) -> "pd.Series[int]":
    """A number for each trial, the same where all keys have the same values."""
    if not keys:
        return pd.Series(0, index=trials.index)
    return trials.groupby(list(keys), dropna=False, sort=False).ngroup()


# --- A against B ---


@dataclass(frozen=True)
class Comparison:
    """The values of a metric on two sides, a value a seed or a configuration."""

    names: tuple[str, str]
    values: tuple[Sequence[float], Sequence[float]]
    metric: str
    goal: str
    unit: str  # "seed" or "configuration"

    @property
    def difference(self) -> float:
        return float(np.mean(self.values[0]) - np.mean(self.values[1]))

    @property
    def deviation(self) -> float:
        """Of one unit, pooled over the sides."""
        squares = sum(float(np.var(values)) * len(values) for values in self.values)
        return math.sqrt(squares / (sum(map(len, self.values)) - 2))

    @functools.cached_property
    def interval(self) -> tuple[float, float]:
        return difference_interval(*self.values)

    def sentence(self) -> str:
        """Says whether A is better, worse, or not distinguishable; by how much; and how many seeds it takes."""
        (a, b), units = self.names, f"{self.unit}s"
        over = " and ".join(str(len(values)) for values in self.values) + f" {units}"
        if not all(self.values):
            return f"{a} against {b}: no finished trial on one side, so nothing can be said"
        means = " against ".join(f"{np.mean(values):.4g}" for values in self.values)
        if min(map(len, self.values)) < 2:
            return f"{a} against {b}: {self.metric} {means} over {over}: it needs at least 2 {units} each to say anything"
        needed = seeds_needed(self.difference, self.deviation)
        claim, is_sure = verdict(a, b, self.interval, self.goal)
        if not is_sure:
            needed = max(needed, min(map(len, self.values)) + 1)
        shows = f"{needed:,} {units} each" if math.isfinite(needed) else f"no number of {units}"
        by = f"{self.metric} {means}, {apart(self.difference, self.interval)} over {over}"
        return f"{claim}: {by}; {shows} would show such a difference in 80 of 100 cases"


def verdict(a: str, b: str, interval: tuple[float, float], goal: str) -> tuple[str, bool]:
    """What an interval of the difference of a and b says, and whether it says which is better."""
    low, high = interval if goal == "minimize" else (-interval[1], -interval[0])
    if low <= 0 <= high:
        return f"{a} and {b} are not distinguishable at this budget", False
    return f"{a} is {'better' if high < 0 else 'worse'} than {b}", True


def apart(difference: float, interval: tuple[float, float]) -> str:
    return f"difference {difference:+.3g} (95 % interval {interval[0]:+.3g} to {interval[1]:+.3g})"
