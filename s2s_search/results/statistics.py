"""How certain a result is: intervals, and whether A is better than B.

Intervals of differences are Student's: over seeds or configurations, or paired over draws or dev
examples. Needs numpy, pandas and, late, SciPy; neither Ray nor torch.
"""

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import pandas as pd
from numpy.typing import NDArray

# With this number, the ends of a bootstrap interval are accurate to a twentieth of its half width.
RESAMPLES_OF_EXAMPLES = 2_000
AT_ONCE = 2_000_000  # the most numbers of resamples or shuffles in memory
MANY = 1_000  # with this number of values, Student's distribution is practically the normal one
LEVEL = 0.95  # the confidence level of intervals
LEVEL_WITHIN = 0.9  # that of two one-sided tests at 5 %: an interval inside a margin
POWER = 0.8  # the probability with which a difference should be shown
SEED = "train.seed"
BEST_SHARE = 0.1  # the share of configurations that count as the best
FEWEST_BEST = 5  # the least number of them
FEWEST_SKEWED = 5  # the least number of values whose skewness says anything
LEAST = 10  # with fewer configurations or examples, nothing is said about them

Floats = NDArray[np.float64]


# --- intervals ---


def interval(
    values: Sequence[float] | Floats | pd.Series, level: float = LEVEL
) -> tuple[float, float]:
    """Returns Student's interval of the mean; (nan, nan) for fewer than 2 values.

    Missing values are left out.
    """
    known = present(values)
    if len(known) < 2:
        return math.nan, math.nan
    error = float(known.std(ddof=1)) / math.sqrt(len(known))
    return _around(float(known.mean()), error, len(known) - 1, level)


def mean_interval(values: Sequence[float] | Floats | pd.Series) -> tuple[float, float]:
    """Returns the 95 % interval of the mean of values that may be skewed.

    It is the wider one of two: Student's, and, from FEWEST_SKEWED values on, that of Hall (1992),
    which corrects Student's t for the skewness of the values by a cubic. Missing values are left
    out. It is (nan, nan) for fewer than 2 values.
    """
    known = present(values)
    student = interval(known)
    n = len(known)
    if n < FEWEST_SKEWED or student[0] == student[1]:
        return student
    mean, deviation = float(known.mean()), float(known.std(ddof=1))
    cubes = float((((known - mean) / deviation) ** 3).sum())
    third = cubes * n / ((n - 1) * (n - 2)) / 3  # a third of the skewness
    half = student_quantile((1 + LEVEL) / 2, n - 1) / math.sqrt(n)
    ends = [mean - deviation * _without_skew(sign * half, third, n) for sign in (1, -1)]
    return min(student[0], ends[0]), max(student[1], ends[1])


def _without_skew(t: float, third: float, n: int) -> float:
    """Returns the u with u + third u^2 + third^2 u^3 / 3 + third / (2 n) = t."""
    if third == 0:
        return t
    return (math.cbrt(1 + 3 * third * (t - third / (2 * n))) - 1) / third


def difference_interval(
    a: Sequence[float], b: Sequence[float], level: float = LEVEL
) -> tuple[float, float]:
    """Returns the interval of the difference of two means, a's minus b's.

    It is the wider one of two: Student's, for equal deviations of both sides, and Welch's. With 2
    values against 10 or more, Welch's alone would tell equal sides apart in 10 to 20 of 100 cases,
    because it takes the deviation of a side from its own few values. Student's alone would, in 20
    to 45, if the side of few values has three times the deviation of the other.

    The interval is (nan, nan) if a side has fewer than 2 values.

    Args:
        a: the values of one side.
        b: the values of the other side.
        level: the confidence level.
    """
    if min(len(a), len(b)) < 2:
        return math.nan, math.nan
    left, right = np.asarray(a, float), np.asarray(b, float)
    difference = float(left.mean() - right.mean())
    pooled = pooled_deviation(a, b) * math.sqrt(1 / len(a) + 1 / len(b))
    student = _around(difference, pooled, len(a) + len(b) - 2, level)
    squares = float(left.var(ddof=1)) / len(a), float(right.var(ddof=1)) / len(b)
    if sum(squares) == 0:
        return student
    degrees = sum(squares) ** 2 / (squares[0] ** 2 / (len(a) - 1) + squares[1] ** 2 / (len(b) - 1))
    welch = _around(difference, math.sqrt(sum(squares)), degrees, level)
    return min(student[0], welch[0]), max(student[1], welch[1])


def rate_difference_interval(
    a: tuple[Sequence[int], Sequence[int]],
    b: tuple[Sequence[int], Sequence[int]],
    level: float = LEVEL,
) -> tuple[float, float, float]:
    """Returns the difference of two error rates, a's minus b's, and its interval.

    The interval is that of the mean of the changes of `_changes`, so that an example counts on both
    sides.

    Args:
        a: the edits and the reference lengths of one side, by example.
        b: those of the other side, for the same examples in the same order.
        level: the confidence level.
    """
    (rate_a, changes_a), (rate_b, changes_b) = _changes(*a), _changes(*b)
    difference = rate_a - rate_b
    low, high = interval(changes_a - changes_b, level)
    return difference, difference + low, difference + high


def rate_half_width(edits: Sequence[int], lengths: Sequence[int], level: float = LEVEL) -> float:
    """Returns half the width of the interval of an error rate over its examples.

    Args:
        edits: the edits of each example.
        lengths: the reference lengths.
        level: the confidence level.
    """
    low, high = interval(_changes(edits, lengths)[1], level)
    return (high - low) / 2


def _changes(edits: Sequence[int], lengths: Sequence[int]) -> tuple[float, Floats]:
    """Returns an error rate, and by how much each example changes it, times their number.

    A rate is a ratio of sums. To first order, an example changes it by its edits minus the rate
    times its length, divided by the sum of the lengths.
    """
    errors, sizes = np.array(edits, float), np.array(lengths, float)
    total = max(float(sizes.sum()), 1.0)
    rate = float(errors.sum()) / total
    return rate, len(errors) * (errors - rate * sizes) / total


def superiority_interval(share: float, n: int, m: int, level: float = LEVEL) -> tuple[float, float]:
    """Returns the interval of the probability that a value of one side is better than of the other.

    It is the fifth of the methods of Newcombe (2006), with Student's quantile in place of the
    normal one. It is the set of probabilities p whose distance from the share is at most the
    quantile times the standard error at p. The error is that of values with exponential
    distributions.

    Args:
        share: the share of the pairs of values in which the one is better; ties count one half.
        n: the number of values of one side.
        m: the number of values of the other side.
        level: the confidence level.
    """
    from scipy.optimize import brentq  # late, as no search needs it

    quantile = student_quantile((1 + level) / 2, n + m - 2)
    pairs = (n + m) / 2 - 1

    def beyond(p: float) -> float:
        spread = 1 + pairs * (1 - p) / (2 - p) + pairs * p / (1 + p)
        return float((p - share) ** 2 - quantile**2 * p * (1 - p) * spread / (n * m))

    low, high = 0.0, 1.0
    if share > 0:
        low = brentq(beyond, 0.0, min(share, 1 - 1e-9))  # p = 1 is no end after a share of 1
    if share < 1:
        high = brentq(beyond, max(share, 1e-9), 1.0)
    return low, high


def violation(a: Floats, b: Floats) -> float:
    """Returns how far costs are from a being stochastically smaller than b, from 0 to 1.

    It is the share of the squared distance between the two quantile functions at which a has the
    larger one (Dror et al., 2019, after del Barrio et al., 2018). It is NaN for equal values.
    """
    parts = np.unique([*np.arange(len(a) + 1) / len(a), *np.arange(len(b) + 1) / len(b)])
    middles = (parts[1:] + parts[:-1]) / 2
    of_a, of_b = (np.sort(side)[(middles * len(side)).astype(int)] for side in (a, b))
    squares = (of_a - of_b) ** 2 * np.diff(parts)
    total = float(squares.sum())
    return float(squares[of_a > of_b].sum()) / total if total else math.nan


def share_interval(count: float, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Returns the interval of a probability after `count` of n cases (Clopper and Pearson, 1934).

    count: need not be whole: a tie counts one half.
    """
    from scipy.special import betaincinv

    tail = (1 - level) / 2
    low, high = 0.0, 1.0
    if count > 0:
        low = float(betaincinv(count, n - count + 1, tail))
    if count < n:
        high = float(betaincinv(count + 1, n - count, 1 - tail))
    return low, high


def pooled_deviation(a: Sequence[float], b: Sequence[float]) -> float:
    """Returns the standard deviation of a value, which both sides are assumed to share."""
    squares = sum(float(np.var(values)) * len(values) for values in (a, b))
    return math.sqrt(squares / (len(a) + len(b) - 2))


def present(values: Sequence[float] | Floats | pd.Series) -> Floats:
    """Returns values as numbers, without missing ones."""
    return pd.Series(values, dtype="Float64").dropna().to_numpy(float)


def student_quantile(p: float, degrees: float) -> float:
    """Returns the p-quantile of Student's t distribution."""
    from scipy.special import stdtrit  # late, as no search needs it

    return float(stdtrit(degrees, p))


def _around(value: float, error: float, degrees: float, level: float) -> tuple[float, float]:
    """Returns Student's interval around a value with a standard error."""
    half = student_quantile((1 + level) / 2, degrees) * error
    return value - half, value + half


def number_needed(difference: float, deviation: float, is_paired: bool = False) -> float:
    """Returns the number of values per side that show a difference of means in 80 of 100 cases.

    The test is two-sided at 5 %. The number is infinite for a difference of 0. It is the least
    n >= 3 with n >= sides ((t(0.975) + z(0.8)) deviation / difference)^2. With two sides Student's
    t has 2n - 3 degrees of freedom, as Welch's has fewer than a pooled test. Pairs are one side,
    their differences, and t has n - 1.

    Args:
        difference: the true difference of the means.
        deviation: the standard deviation of a value, the same on both sides; that of a difference
            if the values are paired.
        is_paired: True if the n values of one side are paired with those of the other.
    """
    if difference == 0:
        return math.inf
    sides = 1 if is_paired else 2
    tail, ratio = (1 + LEVEL) / 2, deviation / abs(difference)

    def needed(quantile: float) -> float:
        return sides * ((quantile + NormalDist().inv_cdf(POWER)) * ratio) ** 2

    least = needed(NormalDist().inv_cdf(tail))
    if not math.isfinite(least):
        return math.inf
    n = max(3, math.ceil(least))
    while n < MANY and n < needed(student_quantile(tail, n - 1 if is_paired else 2 * n - 3)):
        n += 1
    return n


# --- replicates ---


def alike(trials: pd.DataFrame, keys: Sequence[str]) -> "pd.Series[int]":
    """Returns a number for each trial, the same for trials with the same values of all keys."""
    if not keys:
        return pd.Series(0, index=trials.index)
    return trials.groupby(list(keys), dropna=False, sort=False).ngroup()


# --- A against B ---


@dataclass(frozen=True)
class Comparison:
    """The values of a metric on two sides.

    A value is that of a unit, such as a seed. A unit that diverged or failed has the value NaN. It
    takes no part in means, and is worse than all others where single units are compared.
    """

    names: tuple[str, str]
    values: tuple[Sequence[float], Sequence[float]]
    metric: str
    goal: str
    unit: str  # "seed", "configuration" or "draw"
    is_paired: bool = False  # True if the k-th values of both sides belong together
    scope: str = ""  # which units are compared, as the end of a clause
    reservation: str = ""  # what a claim does not cover, as the end of a clause
    margin: float | None = None  # a difference that is too small to matter

    @functools.cached_property
    def known(self) -> tuple[list[float], list[float]]:
        """The values without those of broken units; of pairs, the whole ones."""
        left, right = self.values
        if self.is_paired:
            whole = [
                pair for pair in zip(left, right, strict=True) if not any(map(math.isnan, pair))
            ]
            return [a for a, _ in whole], [b for _, b in whole]
        return [a for a in left if not math.isnan(a)], [b for b in right if not math.isnan(b)]

    @property
    def difference(self) -> float:
        return float(np.mean(self.known[0]) - np.mean(self.known[1]))

    @property
    def deviation(self) -> float:
        """Returns the standard deviation of a value, pooled over both sides, or of a difference."""
        if self.is_paired:
            return float(np.std(self._differences, ddof=1))
        return pooled_deviation(*self.known)

    @property
    def _differences(self) -> Floats:
        return np.subtract(*self.known)

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        if self.is_paired:
            return interval(self._differences, level)
        return difference_interval(*self.known, level)

    def sentence(self) -> str:
        """Says whether A is better, worse, equivalent or not distinguishable, and by how much.

        If A and B are not distinguishable, the last part is the number of units that would show
        the differences at the ends of the interval.
        """
        a, b = self.names
        if not all(self.known):
            return f"{a} against {b}: no finished trial on one side, so nothing can be said"
        over = self._over()
        means = " against ".join(f"{np.mean(values):.4g}" for values in self.known)
        if not self._has_several:
            return (
                f"{a} against {b}: {self.metric} {means} {over}: "
                f"at least 2 {self.unit}s each are needed to say anything"
            )
        if not self._varies:
            what = "differences" if self.is_paired else "values of a side"
            return (
                f"{a} against {b}: {self.metric} {means} {over}: all {what} are equal, which does "
                "not tell how far chance moves them, so nothing can be said"
            )
        ends = self.interval()
        claim, is_sure = better_or_worse(a, b, ends, self.goal)
        by = apart(self.difference, ends)
        is_equivalent = False
        if self.margin is not None:
            low, high = self.interval(LEVEL_WITHIN)
            is_equivalent = max(-low, high) < self.margin
            by = f"{by[:-1]}, 90 % interval {low:+.3g} to {high:+.3g})"
            claim = _within(claim, self.names, is_sure, is_equivalent, self.margin)
        values = f"{self.metric} {means}, {by} {over}"
        if is_sure or is_equivalent:
            return f"{claim}{self.scope}{self.reservation}: {values}"
        return (
            f"{claim}{self.scope}: {values}; {self.needed()} would show differences as large as "
            "the ends of the interval in 80 of 100 cases, and smaller ones may never show"
        )

    @property
    def is_open(self) -> bool:
        """Returns whether there is an interval of the difference, and it contains 0."""
        if not (self._has_several and self._varies):
            return False
        return not better_or_worse(*self.names, self.interval(), self.goal)[1]

    @property
    def _has_several(self) -> bool:
        return min(map(len, self.known)) >= 2

    @property
    def _varies(self) -> bool:
        return self.deviation > 1e-9 * max(map(abs, [*self.known[0], *self.known[1]]))

    def _over(self) -> str:
        if self.is_paired:
            of = " of the other hyperparameters" if self.unit == "configuration" else ""
            return f"paired over {len(self.known[0])} {self.unit}s{of}"
        return f"over {len(self.known[0])} and {len(self.known[1])} {self.unit}s"

    def needed(self) -> str:
        """Returns how many units would show the differences at the ends of an interval around 0.

        An example: "12 to 300 seeds each".
        """
        more = min(map(len, self.known)) + 1
        needed = [number_needed(end, self.deviation, self.is_paired) for end in self.interval()]
        least, most = (max(number, more) for number in sorted(needed))
        number = f"{least:,}"
        if math.isinf(most):
            number += " or more"
        elif most > least:
            number += f" to {most:,}"
        each = "" if self.is_paired else " each"
        return f"{number} {self.unit}s{each}"

    def pairs(self) -> Iterator[str]:
        """Yields in how many pairs of units A is better, with fewer than 2 units a side nothing.

        A broken unit is worse than all others.
        """
        sign = 1 if self.goal == "minimize" else -1
        left, right = (sign * np.asarray(values, float) for values in self.values)
        if min(len(left), len(right)) < 2:
            return
        broken = ""
        if np.isnan(left).any() or np.isnan(right).any():
            broken = ", where what diverged or failed is worse"
        left, right = (np.where(np.isnan(costs), np.inf, costs) for costs in (left, right))
        if self.is_paired:
            won = float(np.sum(left < right) + np.sum(left == right) / 2)
            low, high = share_interval(won, len(left))
            where = f"in {won:,g} of {len(left):,} pairs"
        else:
            size = len(left) * len(right)
            won = float(np.less.outer(left, right).sum() + np.equal.outer(left, right).sum() / 2)
            low, high = superiority_interval(won / size, len(left), len(right))
            where = f"in {won:,g} of {size:,} pairs of a {self.unit} each"
        yield (
            f"{self.names[0]} is better {where}{broken}: in {100 * low:.0f} to {100 * high:.0f} "
            "of 100 such pairs (95 % interval)"
        )
        if not self.is_paired and min(map(len, self.values)) >= LEAST and not broken:
            against = violation(left, right)
            if not math.isnan(against):
                yield (
                    f"almost stochastic order: {100 * against:.0f} % of the distance between the "
                    f"two distributions speaks against {self.names[0]} (0 % if it is better at "
                    "every quantile, 50 % if both are alike)"
                )


def _within(
    claim: str, names: tuple[str, str], is_sure: bool, is_equivalent: bool, margin: float
) -> str:
    """Returns a claim, and what it means for a margin."""
    if is_sure and is_equivalent:
        return f"{claim} by less than {margin:g}"
    if is_equivalent:
        return f"{names[0]} and {names[1]} are equivalent within {margin:g}"
    if is_sure:
        return claim
    return f"{claim}, nor shown to be equivalent within {margin:g}"


def better_or_worse(a: str, b: str, interval: tuple[float, float], goal: str) -> tuple[str, bool]:
    """Returns what an interval of a's value minus b's says, and whether it says which is better."""
    low, high = interval if goal == "minimize" else (-interval[1], -interval[0])
    if not (low > 0 or high < 0):
        return f"{a} and {b} are not distinguishable by these results", False
    return f"{a} is {'better' if high < 0 else 'worse'} than {b}", True


def apart(difference: float, interval: tuple[float, float]) -> str:
    return f"difference {difference:+.3g} (95 % interval {interval[0]:+.3g} to {interval[1]:+.3g})"
