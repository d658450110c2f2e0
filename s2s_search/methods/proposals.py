"""The configurations that a search proposes by what it expects of them.

The candidates are random draws of the space, and changes of the configurations that promise most.
"""

import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from s2s_search.methods.gaussian_process import Floats
from s2s_search.methods.reading import Reading
from s2s_search.methods.samplers import EarlierCurve, ObjectiveValues
from s2s_search.methods.surrogate import Expectation, Surrogate
from s2s_search.spaces.dimensions import Choice, Dimension, Flat, Range, value_of
from s2s_search.spaces.space import Space

DRAWN = 3  # one in so many new trials is the next draw
PARENTS = 3  # the number of best configurations that are changed
CHILDREN = 8  # the number of changes of each
CHANGED = 0.3  # the probability that a key is changed
BELIEF = 10  # after so many trials, a prior counts half: the square root of its ratio
REACH = 0.1  # the deviation of a change of a number, as a share of its range


@dataclass(frozen=True)
class Candidate:
    """A configuration, and the improvement that is expected of it; NaN where nothing is."""

    config: Flat
    gain: float


class Proposals:
    """A sampler that learns from every report.

    Args:
        space: the space.
        draws: the random draws of the search in their order, and further ones.
        trials: the number of trials of the search.
        seed: the seed of the changes; None for draws alone.
        surrogate: the model.
    """

    def __init__(
        self,
        space: Space,
        draws: Sequence[Flat],
        trials: int,
        seed: int | None,
        surrogate: Surrogate,
    ) -> None:
        self.space, self.surrogate = space, surrogate
        self._trials, self._seed = trials, seed
        self._left = list(draws)  # the draws that have not begun, and what belongs to each
        self._vectors = [surrogate.features.of(draw) for draw in draws]
        self._complete = [space.complete(draw) for draw in draws]
        self._met = set(self._complete)
        self._begun: dict[int, Flat] = {}
        self._ended: set[int] = set()
        self._training: Callable[[], list[int]] = lambda: [
            trial for trial in self._begun if trial not in self._ended
        ]

    def __len__(self) -> int:
        return self._trials

    def ask(self, number: int) -> Flat | None:
        """Returns the configuration of a trial that starts now; None when there are no more."""
        candidate = self.best(number, self.surrogate.expectation(self._training()))
        if candidate is None:
            return None
        self.running(number, candidate.config)
        return candidate.config

    def follow(self, training: Callable[[], list[int]]) -> None:
        """Takes from a scheduler that pauses trials which of them train."""
        self._training = training

    def best(self, number: int, expectation: Expectation | None) -> Candidate | None:
        """Returns the configuration that promises most for a new trial.

        Without an expectation, and for the first trials that the space names, it is the next draw.
        So it is for one in DRAWN further trials, when the most promising configuration would begin.
        A model that is wrong then does not keep the search in one corner of the space.
        """
        if number >= len(self) or not self._left:
            return None
        if expectation is None or number < len(self.space.first):
            return Candidate(self._left[0], math.nan)
        configs, vectors = list(self._left), list(self._vectors)
        for config in self._changed(number, expectation):
            configs.append(config)
            vectors.append(self.surrogate.features.of(config))
        gains = expectation.gains(np.array(vectors), [None] * len(vectors))
        k = int(np.argmax(gains * self._preference(configs, number)))
        is_drawn = number % DRAWN == 0
        return Candidate(configs[0] if is_drawn else configs[k], float(gains[k]))

    def _preference(self, configs: Sequence[Flat], number: int) -> Floats:
        """Returns the weight of each candidate by the priors of the space.

        It falls with the number of trials (Hvarfner et al., 2022), so that a wrong prior does not
        hold for ever.
        """
        logs = np.array([self.space.log_prior(config) for config in configs])
        weights: Floats = np.exp(logs * BELIEF / (BELIEF + number))
        return weights

    def _changed(self, number: int, expectation: Expectation) -> Iterator[Flat]:
        """Yields changes of the configurations that promise most, none of which has begun."""
        if self._seed is None:
            return
        rng = random.Random(f"{self._seed} {number} changes")
        met = set(self._met)
        for parent in self._parents(expectation):
            for _ in range(CHILDREN):
                config = self.space.configuration(partial(_changed_value, rng, parent))
                config = self.space.budgeted(config, self.space.search.seed)
                complete = self.space.complete(config)
                if complete is not None and complete not in met:
                    met.add(complete)
                    yield config

    def _parents(self, expectation: Expectation) -> list[Flat]:
        numbers = [number for number in self._begun if self.surrogate.trials[number].steps]
        if not numbers:  # the model knows earlier searches only
            return []
        vectors = np.array([self.surrogate.trials[number].vector for number in numbers])
        means, _ = expectation.at_the_end(vectors, numbers)
        return [self._begun[numbers[k]] for k in np.argsort(means, kind="stable")[:PARENTS]]

    def running(self, number: int, config: Mapping[str, object]) -> None:
        """Records a trial that has begun."""
        if number in self._begun:
            return
        self._begun[number] = dict(config)
        self.surrogate.begin(number, config)
        complete = self.space.complete(dict(config))
        self._met.add(complete)
        if complete in self._complete:
            place = self._complete.index(complete)
            for kept in (self._left, self._vectors, self._complete):
                del kept[place]

    def report(self, number: int, reading: Reading) -> None:
        """Records a report of a trial."""
        self.surrogate.report(number, reading)

    def learn(self, curves: Iterable[EarlierCurve]) -> tuple[int, int]:
        """Takes curves of earlier searches as data; returns how many are used and how many not.

        The draws that earlier searches have trained come after all others, except those that the
        space runs first.
        """
        counts = self.surrogate.learn(curves)
        known = {seen.vector.tobytes() for n, seen in self.surrogate.trials.items() if n < 0}
        named = len(self.space.first)
        is_known = [vector.tobytes() in known for vector in self._vectors]
        order = sorted(range(len(self._left)), key=lambda k: k >= named and is_known[k])
        self._left = [self._left[k] for k in order]
        self._vectors = [self._vectors[k] for k in order]
        self._complete = [self._complete[k] for k in order]
        return counts

    def tell(
        self, number: int, config: Mapping[str, object], values: ObjectiveValues | None, status: str
    ) -> None:
        """Records that a trial has ended."""
        if number not in self._begun:
            self.running(number, config)
        self._ended.add(number)


def _changed_value(
    rng: random.Random, parent: Mapping[str, object], dimension: Dimension
) -> object:
    """Returns the parent's value of a dimension, or sometimes another one."""
    domain, value = dimension.domain, value_of(dimension.key, parent)
    is_changed = rng.random() < CHANGED
    if isinstance(domain, Choice):
        return rng.choice(domain.values) if is_changed or value not in domain else value
    assert isinstance(domain, Range)
    try:
        position = domain.position(value)
    except ValueError:  # the key takes no part in the parent
        return domain.at(rng.random())
    if not is_changed:
        return value
    return domain.at(min(max(rng.gauss(position, REACH), 0.0), 1.0))
