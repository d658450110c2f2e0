"""The two-way bootstrap: intervals over seeds and over examples at once.

Models of S seeds answer the same N examples. Another draw of both would give another number. Such
data are a crossed design: an example is hard for all models or for one, and a model is good on all
examples or on one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from s2s_search.results.statistics import AT_ONCE, LEAST, LEVEL, RESAMPLES_OF_EXAMPLES, Floats


def resampled_sums(sums: Floats, seed: int = 0) -> Floats:
    """Returns the sums over resampled examples, [RESAMPLES_OF_EXAMPLES, K].

    A resample draws N of the N examples with replacement. The same seed and the same N draw the
    same examples, so that models can be compared on them.

    Args:
        sums: what each example adds to K sums, [N, K].
        seed: the seed of the resamples.
    """
    rng, examples = np.random.default_rng(seed), len(sums)
    rows, parts = max(1, AT_ONCE // examples), []
    for first in range(0, RESAMPLES_OF_EXAMPLES, rows):
        counts = []
        for _ in range(min(rows, RESAMPLES_OF_EXAMPLES - first)):
            drawn = rng.integers(0, examples, examples)
            counts.append(np.bincount(drawn, minlength=examples))
        parts.append(np.array(counts, float) @ sums)
    return np.concatenate(parts)


@dataclass(frozen=True)
class OverSeeds:
    """A metric of S models on the same N examples, each trained with another seed."""

    values: Floats  # [S], on all examples
    resampled: Floats  # [resamples, S], on resampled examples
    examples: int

    @property
    def mean(self) -> float:
        return float(self.values.mean())

    @cached_property
    def of_seeds(self) -> float:
        """The variance of the mean that comes from the seeds, and from how they meet examples."""
        return float(self.values.var(ddof=1)) / len(self.values)

    def interval(self, level: float = LEVEL, seed: int = 0) -> tuple[float, float]:
        """Returns the interval of the mean; see `interval_of`."""
        return interval_of(self.mean, [(1.0, self)], level, seed)


def paired_interval(
    a: OverSeeds, b: OverSeeds, level: float = LEVEL, seed: int = 0
) -> tuple[float, float]:
    """Returns the interval of a's mean minus b's, paired over the examples; see `interval_of`."""
    return interval_of(a.mean - b.mean, [(1.0, a), (-1.0, b)], level, seed)


def interval_of(
    value: float, sides: Sequence[tuple[float, OverSeeds]], level: float, seed: int
) -> tuple[float, float]:
    """Returns the interval of a sum of means, each with its factor.

    A deviation is a resampled one of the examples plus one of the seeds, which has Student's
    distribution, because few seeds estimate their own variance badly. The degrees of freedom are
    Welch's. The variance of the examples is the covariance between models. What is particular to a
    model and an example is part of the variance of the seeds, and would count twice.

    Where a side has one seed, the interval is over examples alone. It is (nan, nan) for fewer than
    LEAST examples, and where no example makes a difference.
    """
    rng, examples = np.random.default_rng(seed), sides[0][1].examples
    resampled = np.sum([factor * side.resampled.mean(axis=1) for factor, side in sides], axis=0)
    deviations = resampled - value
    if examples < LEAST or np.ptp(resampled) == 0:
        return math.nan, math.nan
    if min(len(side.values) for _, side in sides) > 1:
        deviations *= math.sqrt(max(_covariance(sides), 0.0) / deviations.var())
        of_seeds = sum(side.of_seeds for _, side in sides)
        below = sum(side.of_seeds**2 / (len(side.values) - 1) for _, side in sides)
        if below > 0:
            from scipy.special import stdtrit  # late, as no search needs it

            tails = (np.arange(len(deviations)) + 0.5) / len(deviations)
            students = stdtrit(of_seeds**2 / below, tails)
            deviations += math.sqrt(of_seeds) * rng.permutation(students)
    low, high = value + np.quantile(deviations, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _covariance(sides: Sequence[tuple[float, OverSeeds]]) -> float:
    """Returns the variance of a sum of means by what two different models share of an example."""
    columns = np.concatenate([side.resampled for _, side in sides], axis=1)
    weights = np.concatenate(
        [np.full(len(side.values), factor / len(side.values)) for factor, side in sides]
    )
    covariances = np.cov(columns, rowvar=False)
    shared = float(weights @ covariances @ weights)
    # A model's covariance with itself holds what is its own. What it shares with another model of
    # its side stands in for it.
    first = 0
    for factor, side in sides:
        seeds = len(side.values)
        block = covariances[first : first + seeds, first : first + seeds]
        own = float(np.trace(block))
        with_others = (float(block.sum()) - own) / (seeds - 1)
        shared += (factor / seeds) ** 2 * (with_others - own)
        first += seeds
    return shared
