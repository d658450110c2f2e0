"""The part that search methods of other tools share in a simulated search over a pool.

A tool proposes any configuration of the space, and the pool has only some of them. The recorded
configuration that is nearest to the proposal trains, of those that have not begun. The tool learns
from that configuration, not from its proposal.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from s2s_search.hparams.table import owners
from s2s_search.methods.features import Features
from s2s_search.spaces.dimensions import Choice, Dimension, Flat, Range, value_of
from s2s_search.spaces.space import Space
from s2s_search.whatif.pool import Pool

FACTOR = 3  # of all methods


@dataclass(frozen=True)
class Key:
    """A varying key as other tools have it: a number of a range, or the index of a choice."""

    name: str
    domain: Choice | Range

    @property
    def values(self) -> tuple[object, ...]:
        """Returns the values of a choice, and of a range with wide steps; else none."""
        if isinstance(self.domain, Choice):
            return self.domain.values
        if self.domain.step is None or (self.domain.whole and self.domain.step == 1):
            return ()
        return self.domain.points()

    def number(self, value: object) -> object:
        return self.values.index(value) if self.values else value

    def value(self, number: float) -> object:
        return self.values[int(number)] if self.values else self.domain.nearest(number)


class Stock:
    """The recorded configurations that have not begun."""

    def __init__(self, pool: Pool) -> None:
        self.space = pool.space
        self.keys = {
            dimension.key: Key(dimension.key, dimension.domain) for dimension in pool.space.varying
        }
        self._configs = pool.configs
        self._features = Features(pool.space)
        self._vectors = np.array([self._features.of(config) for config in pool.configs])
        self._left = list(range(len(pool.configs)))

    def __len__(self) -> int:
        return len(self._left)

    def config(self, numbers: Mapping[str, float]) -> Flat:
        """Returns the configuration of a proposal; numbers of keys without a part do not count."""
        return self.space.configuration(lambda d: self.keys[d.key].value(numbers[d.key]))

    def numbers(self, row: int) -> dict[str, object]:
        """Returns the number of each key that takes part in a recorded configuration."""
        numbers: dict[str, object] = {}

        def read(dimension: Dimension) -> object:
            value = value_of(dimension.key, self._configs[row])
            numbers[dimension.key] = self.keys[dimension.key].number(value)
            return value

        self.space.configuration(read)
        return numbers

    def take(self, proposal: Flat) -> int:
        """Takes out the configuration nearest to a proposal, and returns its row."""
        vector = self._features.of(proposal)
        distances = ((self._vectors[self._left] - vector) ** 2).sum(axis=1)
        return self._left.pop(int(distances.argmin()))


def conditions(space: Space) -> dict[str, dict[str, tuple[object, ...]]]:
    """Returns for each key the values of other varying keys under which it takes part."""
    varying = {dimension.key: dimension for dimension in space.varying}
    found = {}
    for key, dimension in varying.items():
        when = {parent: values for parent, values in dimension.when.items() if parent in varying}
        if "model" in varying and key != "model":
            models = varying["model"].domain.values
            having = tuple(model for model in models if model in owners(key))
            if len(having) < len(models):
                when.setdefault("model", having)
        found[key] = when
    return found


def grace(pool: Pool, share: int) -> int:
    """Returns the steps from which trials are compared, as in `replay --league`."""
    return max(pool.steps[0], pool.steps[-1] // share)


class ByBudget(ABC):
    """A method that asks for the value of a configuration after a number of steps.

    The configuration may have trained before. Then it trains on, from where it paused.
    """

    def __init__(self, pool: Pool) -> None:
        self.stock = Stock(pool)
        self._sign = 1 if pool.minimizes else -1
        self._rows: list[int] = []  # of the trials
        self._budgets: dict[int, float] = {}  # of each row, in steps

    @abstractmethod
    def ask(self) -> tuple[int, float] | None:
        """Returns a row of the pool and a number of steps, more than before; None for neither."""

    @abstractmethod
    def tell(self, row: int, cost: float) -> None:
        """Hears the cost of a row after the steps that were asked for."""

    def start(self) -> tuple[int, int] | None:
        asked = self.ask()
        if asked is None:
            return None
        row, steps = asked
        if row not in self._budgets:
            self._rows.append(row)
        self._budgets[row] = steps
        return self._rows.index(row), row

    def report(self, number: int, step: int, value: float) -> bool:
        row = self._rows[number]
        if step < self._budgets[row]:
            return True
        self.tell(row, self._sign * value)
        return False

    def finish(self, number: int, step: int, value: float) -> None:
        self.tell(self._rows[number], self._sign * value)
