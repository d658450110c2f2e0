"""Dimensions of a search space: the values of a key, and the conditions under which it is set."""

import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import accumulate
from statistics import NormalDist
from typing import TypeGuard

from s2s_search.errors import shown
from s2s_search.hparams.table import ENTRIES, TABLE, owners

Flat = dict[str, object]  # a partial configuration: values by dotted keys, "model" among them


@dataclass(frozen=True)
class Choice:
    """One of several values. A constant is a choice of one value.

    Labels are the names that the file gives to specs. Without weights all values are equally
    likely.
    """

    values: tuple[object, ...]
    labels: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()

    def at(self, u: float) -> object:
        """Returns the value at a coordinate from 0 to 1."""
        if self.weights:
            ends = list(accumulate(self.weights))
            index = bisect_right(ends, u * ends[-1])
        else:
            index = int(u * len(self.values))
        return self.values[min(index, len(self.values) - 1)]

    def points(self) -> tuple[object, ...]:
        return self.values

    def share(self, value: object) -> float:
        """Returns the probability of a value. Raises ValueError when there is no such value."""
        index = self.values.index(value)
        return self.weights[index] / sum(self.weights) if self.weights else 1 / len(self.values)

    def allows(self, value: object) -> bool:
        """Returns whether a configuration can have the value."""
        return value in self.values

    @property
    def law(self) -> str:
        """Returns what a value must be, in words."""
        return "one of " + ", ".join(str(name) for name in self.labels or self.values)

    def nearest(self, value: object) -> object:
        """Returns the value itself, else the nearest number, else the first value."""
        if value in self.values:
            return value
        numbers = [each for each in self.values if is_number(each)]
        if not is_number(value) or not numbers:
            return self.values[0]
        return min(numbers, key=lambda each: abs(each - value))

    def perturbed(self, value: object, factor: float) -> object:
        """Returns the next value for a factor above 1, else the one before it."""
        step = 1 if factor > 1 else -1
        index = self.values.index(value) + step
        return self.values[min(max(index, 0), len(self.values) - 1)]

    @property
    def named(self) -> dict[str, object]:
        """Returns the values by their labels."""
        return dict(zip(self.labels, self.values, strict=False))

    def __contains__(self, value: object) -> bool:
        return value in self.values

    @property
    def size(self) -> float:
        return len(self.values)


@dataclass(frozen=True)
class Range:
    """Numbers from low to high, both included, evenly spread.

    With `log` their logarithms are evenly spread. With `step` the numbers are low, low + step, and
    so on.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None  # None stands for a continuous range
    whole: bool = False  # True for a hyperparameter of whole numbers

    def at(self, u: float) -> object:
        """Returns the number at a coordinate from 0 to 1; without steps, to six digits."""
        end = self._end
        if self.log:
            low = math.log(self.low)
            x = math.exp(low + u * (math.log(end) - low))
        else:
            x = self.low + u * (end - self.low)
        if self.step is not None:
            return self._point(min(int((x - self.low) / self.step), int(self.size) - 1))
        # A rate of 0.000351827 reads better than one of 17 digits.
        digits = 5 - math.floor(math.log10(x if self.log else self.high - self.low))
        return min(max(round(x, digits), self.low), self.high)

    @property
    def _end(self) -> float:
        """Returns the end of the interval of `at`, of which each step has a part."""
        if self.step is None:
            return self.high
        return self.low + self.size * self.step

    def position(self, value: object) -> float:
        """Returns a coordinate in [0, 1] at which `at` gives the value.

        For a point of a range with steps it is the middle of the point's interval.

        Raises:
            ValueError: the value is outside the range, or between two points.
        """
        if not self.allows(value):
            raise ValueError(f"must be a value of {self}, but got {shown(value)}")
        assert isinstance(value, int | float)
        if self.step is None:
            return self._coordinate(value)
        return self._coordinate(self.low + (self._index(value) + 0.5) * self.step)

    def interval(self, value: float) -> tuple[float, float]:
        """Returns the coordinates between which `at` gives a point of a range with steps."""
        assert self.step is not None
        begin = self.low + self._index(value) * self.step
        return self._coordinate(begin), self._coordinate(begin + self.step)

    def _coordinate(self, x: float) -> float:
        low, end = self.low, self._end
        if self.log:
            x, low, end = math.log(x), math.log(low), math.log(end)
        return min(max((x - low) / (end - low), 0.0), 1.0)

    def perturbed(self, value: object, factor: float) -> object:
        """Returns the value times a factor, within the range.

        In a range with steps, the result is at least one step away, where the range allows it.
        """
        assert isinstance(value, int | float)
        x = min(max(value * factor, self.low), self.high)
        if self.step is None:
            return self.at(self.position(x))
        index, near = self._index(value), self._index(x)
        if near == index and factor != 1:
            near = index + 1 if value * factor > value else index - 1
        return self._point(min(max(near, 0), int(self.size) - 1))

    def points(self) -> tuple[object, ...]:
        return tuple(self._point(index) for index in range(int(self.size)))

    def allows(self, value: object) -> bool:
        """Returns whether a configuration can have the value."""
        return self._is_inside(value) and (self.step is None or value in self)

    @property
    def law(self) -> str:
        """Returns what a value must be, in words."""
        steps = ""
        if self.step is not None and not (self.whole and self.step == 1):
            steps = f" in steps of {self.step:.12g}"
        return f"from {self.low:.12g} to {self.high:.12g}{steps}"

    def nearest(self, value: object) -> object:
        """Returns the number nearest to a number; for other values, the middle of the range."""
        if not is_number(value):
            return self.at(0.5)
        x = min(max(value, self.low), self.high)
        if self.step is None:
            return x
        return self._point(min(self._index(x), int(self.size) - 1))

    def __contains__(self, value: object) -> bool:
        if self.step is None or not self._is_inside(value):
            return False
        assert isinstance(value, int | float)
        return self._point(self._index(value)) == value

    @property
    def size(self) -> float:
        """Returns the number of points; infinite for a continuous range."""
        if self.step is None:
            return math.inf
        return math.floor((self.high - self.low) / self.step + 1e-9) + 1

    def _is_inside(self, value: object) -> bool:
        return is_number(value) and self.low <= value <= self.high

    def _index(self, value: float) -> int:
        assert self.step is not None
        return round((value - self.low) / self.step)

    def _point(self, index: int) -> object:
        assert self.step is not None
        x = self.low + index * self.step
        if self.whole:
            return int(x)
        return min(max(float(f"{x:.12g}"), self.low), self.high)  # 0.3 instead of 0.1 + 2 * 0.1


@dataclass(frozen=True)
class Tie:
    """The value of another key. For a spec, the values of its entries are tied, too."""

    key: str
    size = 1.0


@dataclass(frozen=True)
class Prior:
    """A value of a choice or a range that is probably good, near which some draws lean.

    In a leaning draw, a range has a normal distribution around the value, cut at both ends. Its
    standard deviation is `spread`, a share of the range on its own scale. A choice has the value
    with probability 1/2, and else any value as without the prior.
    """

    value: object
    spread: float = 0.15

    def at(self, domain: Choice | Range, u: float) -> object:
        """Returns the value of a leaning draw at a coordinate from 0 to 1."""
        if isinstance(domain, Choice):
            return self._leaning(domain).at(u)
        normal = NormalDist(domain.position(self.value), self.spread)
        begin, end = normal.cdf(0), normal.cdf(1)
        share = begin + u * (end - begin)
        x = normal.inv_cdf(min(max(share, SMALLEST), 1 - SMALLEST))
        return domain.at(min(max(x, 0.0), 1.0))

    def ratio(self, domain: Choice | Range, value: object) -> float:
        """Returns how many times as likely a value is in a leaning draw as without the prior.

        Raises:
            ValueError: the domain does not have the value.
        """
        if isinstance(domain, Choice):
            return self._leaning(domain).share(value) / domain.share(value)
        x = domain.position(value)
        normal = NormalDist(domain.position(self.value), self.spread)
        within = normal.cdf(1) - normal.cdf(0)
        if domain.step is None:
            return normal.pdf(x) / within
        assert is_number(value)
        begin, end = domain.interval(value)
        return (normal.cdf(end) - normal.cdf(begin)) / (end - begin) / within

    def _leaning(self, choice: Choice) -> Choice:
        weights = list(choice.weights or (1.0,) * len(choice.values))
        weights[choice.values.index(self.value)] += sum(weights)
        return replace(choice, weights=tuple(weights))


SMALLEST = 1e-16  # the quantile at 0 or 1 would be infinite


@dataclass(frozen=True)
class Dimension:
    """A key of the file: its values, and the conditions under which it takes part."""

    key: str
    domain: Choice | Range | Tie
    # The key takes part when each key of this mapping has one of its values.
    when: Mapping[str, tuple[object, ...]] = field(default_factory=dict)
    role: str | None = None  # "scientific" | "nuisance"
    grid: bool = False
    prior: Prior | None = None

    @property
    def varies(self) -> bool:
        return self.domain.size > 1


def is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def value_of(key: str, flat: Mapping[str, object]) -> object:
    """Returns the value of a key in a partial configuration.

    That is its default where it is not set, and None where the model or the class does not have the
    key.
    """
    if key in flat:
        return flat[key]
    model = str(flat["model"])
    row, _, entry = key.rpartition(".")
    if model not in owners(key):
        return None
    if key in TABLE:
        return TABLE[key].default_for(model)
    spec = flat.get(row, TABLE[row].default_for(model))
    return spec.get(entry, ENTRIES[key].default) if isinstance(spec, dict) else None
