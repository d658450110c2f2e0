"""How certain a result is: intervals, and whether A is better than B.

Intervals are bootstrap intervals (Efron and Tibshirani, 1993): over seeds or configurations, or
paired over dev examples. Needs numpy, pandas and, late, SciPy; neither Ray nor torch.
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
# Fewer for examples, of which there are thousands: the ends of an interval are then still accurate
# to a twentieth of its half width.
RESAMPLES_OF_EXAMPLES = 2_000
AT_ONCE = 2_000_000  # the most numbers of resamples in memory
MANY = 1_000  # with this number of values, Student's distribution is practically the normal one
LEVEL = 0.95  # the confidence level of intervals
POWER = 0.8  # the probability with which a difference should be shown
SEED = "train.seed"
BEST_SHARE = 0.1  # the share of configurations that count as the best
FEWEST_BEST = 5  # the least number of them
LEAST = 10  # with fewer configurations, nothing is said about the best

Floats = NDArray[np.float64]


# --- intervals ---


def interval(
    values: Sequence[float] | pd.Series, level: float = LEVEL, seed: int = 0
) -> tuple[float, float]:
    """Returns the bootstrap interval of the mean; (nan, nan) for fewer than 2 values.

    Missing values are left out. The ends are percentiles of resampled means, whose distance from
    the mean is multiplied by `student_ratio`. Without this factor an interval at 95 % would contain
    the truth in only half of all cases for 2 values, and in 84 of 100 cases for 5 values.
    """
    known = present(values)
    if len(known) < 2:
        return math.nan, math.nan
    ratio = student_ratio(len(known) - 1, level)
    return _stretched(known.mean(), _deviations(known, seed), ratio, level)


def difference_interval(
    a: Sequence[float], b: Sequence[float], level: float = LEVEL, seed: int = 0
) -> tuple[float, float]:
    """Returns the bootstrap interval of the difference of two means, a's minus b's.

    The degrees of freedom are Welch's. The interval is (nan, nan) if a side has fewer than 2
    values.

    Args:
        a: the values of one side.
        b: the values of the other side.
        level: the confidence level.
        seed: the seed of the resamples.
    """
    if min(len(a), len(b)) < 2:
        return math.nan, math.nan
    left, right = np.asarray(a, float), np.asarray(b, float)
    deviations = _deviations(left, seed) - _deviations(right, seed + 1)
    ratio = student_ratio(_welch(left, right), level)
    return _stretched(left.mean() - right.mean(), deviations, ratio, level)


def rate_difference_interval(
    a: tuple[Sequence[int], Sequence[int]],
    b: tuple[Sequence[int], Sequence[int]],
    level: float = LEVEL,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Returns the difference of two error rates, a's minus b's, and its paired bootstrap interval.

    A resample draws examples, and each example counts on both sides (Koehn, 2004).

    Args:
        a: the edits and the reference lengths of one side, by example.
        b: those of the other side, for the same examples in the same order.
        level: the confidence level.
        seed: the seed of the resamples.
    """
    columns = np.array([*a, *b], float)
    sums = []
    for picked in _resamples(columns.shape[1], seed, RESAMPLES_OF_EXAMPLES):
        sums.append(columns[:, picked].sum(axis=2))
    low, high = _percentiles(_rates_apart(np.concatenate(sums, axis=1)), level)
    return float(_rates_apart(columns.sum(axis=1))), low, high


def _rates_apart(sums: Floats) -> Floats:
    edits_a, tokens_a, edits_b, tokens_b = sums
    return np.asarray(edits_a / np.maximum(tokens_a, 1) - edits_b / np.maximum(tokens_b, 1))


def present(values: Sequence[float] | pd.Series) -> Floats:
    """Returns values as numbers, without missing ones."""
    return pd.Series(values, dtype="Float64").dropna().to_numpy(float)


def student_ratio(degrees: float, level: float) -> float:
    """Returns Student's quantile divided by the normal one.

    It is the factor by which intervals are wider because the standard deviation is estimated.
    """
    tail = (1 + level) / 2
    return student_quantile(tail, degrees) / NormalDist().inv_cdf(tail)


def student_quantile(p: float, degrees: float) -> float:
    """Returns the p-quantile of Student's t distribution."""
    from scipy.special import stdtrit  # late, as no search needs it

    return float(stdtrit(degrees, p))


def seeds_needed(difference: float, deviation: float) -> float:
    """Returns the number of seeds per side that show a difference of means in 80 of 100 cases.

    The test is two-sided at 5 %. The number is infinite for a difference of 0. It is the least
    n >= 3 with n >= 2 ((t(0.975) + z(0.8)) deviation / difference)^2, where Student's t has 2n - 3
    degrees of freedom: `difference_interval` has about one fewer than a pooled test. With n = 2 it
    would show few differences, however large.

    deviation: the standard deviation of a seed, the same on both sides.
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
    """Yields `count` rows of n positions that are drawn with replacement, some rows at a time."""
    rng, rows = np.random.default_rng(seed), max(1, AT_ONCE // n)
    for start in range(0, count, rows):
        yield rng.integers(0, n, (min(rows, count - start), n))


def _deviations(values: Floats, seed: int) -> Floats:
    """Returns the bootstrap deviations from the mean.

    They are scaled by sqrt(n / (n - 1)), so that their variance is unbiased.
    """
    picks = _resamples(len(values), seed)
    means = np.concatenate([values[picked].mean(axis=1) for picked in picks])
    return np.asarray((means - values.mean()) * math.sqrt(len(values) / (len(values) - 1)))


def _stretched(value: float, deviations: Floats, ratio: float, level: float) -> tuple[float, float]:
    low, high = _percentiles(deviations, level)
    return float(value + ratio * low), float(value + ratio * high)


def _percentiles(values: Floats, level: float) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _welch(a: Floats, b: Floats) -> float:
    """Returns Welch's degrees of freedom for the difference of two means."""
    square_a = a.var(ddof=1) / len(a)  # the square of the standard error
    square_b = b.var(ddof=1) / len(b)
    if square_a + square_b == 0:
        return len(a) + len(b) - 2
    below = square_a**2 / (len(a) - 1) + square_b**2 / (len(b) - 1)
    return float((square_a + square_b) ** 2 / below)


# --- replicates ---


def alike(trials: pd.DataFrame, keys: Sequence[str]) -> "pd.Series[int]":
    """Returns a number for each trial, the same for trials with the same values of all keys."""
    if not keys:
        return pd.Series(0, index=trials.index)
    return trials.groupby(list(keys), dropna=False, sort=False).ngroup()


# --- A against B ---


@dataclass(frozen=True)
class Comparison:
    """The values of a metric on two sides, one value per seed or per configuration."""

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
        """Returns the standard deviation of one unit, pooled over both sides."""
        squares = sum(float(np.var(values)) * len(values) for values in self.values)
        return math.sqrt(squares / (sum(map(len, self.values)) - 2))

    @functools.cached_property
    def interval(self) -> tuple[float, float]:
        return difference_interval(*self.values)

    def sentence(self) -> str:
        """Says whether A is better, worse or not distinguishable, and by how much.

        The last part is the number of seeds or configurations that would show the difference.
        """
        a, b = self.names
        units = f"{self.unit}s"
        if not all(self.values):
            return f"{a} against {b}: no finished trial on one side, so nothing can be said"
        over = f"{len(self.values[0])} and {len(self.values[1])} {units}"
        means = " against ".join(f"{np.mean(values):.4g}" for values in self.values)
        if min(map(len, self.values)) < 2:
            return (
                f"{a} against {b}: {self.metric} {means} over {over}: "
                f"at least 2 {units} each are needed to say anything"
            )
        needed = seeds_needed(self.difference, self.deviation)
        claim, is_sure = verdict(a, b, self.interval, self.goal)
        if not is_sure:
            needed = max(needed, min(map(len, self.values)) + 1)
        shows = f"{needed:,} {units} each" if math.isfinite(needed) else f"no number of {units}"
        by = f"{self.metric} {means}, {apart(self.difference, self.interval)} over {over}"
        return f"{claim}: {by}; {shows} would show such a difference in 80 of 100 cases"


def verdict(a: str, b: str, interval: tuple[float, float], goal: str) -> tuple[str, bool]:
    """Returns what an interval of a's value minus b's says, and whether it says which is better."""
    low, high = interval if goal == "minimize" else (-interval[1], -interval[0])
    if low <= 0 <= high:
        return f"{a} and {b} are not distinguishable at this budget", False
    return f"{a} is {'better' if high < 0 else 'worse'} than {b}", True


def apart(difference: float, interval: tuple[float, float]) -> str:
    return f"difference {difference:+.3g} (95 % interval {interval[0]:+.3g} to {interval[1]:+.3g})"
