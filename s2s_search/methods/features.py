"""Configurations as vectors, for models of what a configuration is worth.

A range is its position from -1/2 to 1/2, and a choice is a point at distance 1 from all others. A
key that takes no part lies at zero, the middle of its values. Two configurations in which it takes
no part therefore do not differ by it.
"""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from s2s_search.spaces.dimensions import Choice, Dimension, Range, value_of
from s2s_search.spaces.space import Space

Floats = NDArray[np.float64]


class Features:
    """The vectors of the configurations of a space.

    `keys` holds, for each entry of a vector, the number of the key that it belongs to.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        sizes = [_size(dimension) for dimension in space.varying]
        self._starts = {dimension.key: sum(sizes[:k]) for k, dimension in enumerate(space.varying)}
        self.keys = np.repeat(np.arange(len(sizes)), sizes)

    def of(self, config: Mapping[str, object]) -> Floats:
        """Returns the vector of a configuration.

        Raises:
            ValueError: a value does not belong to the space.
        """
        vector = np.zeros(len(self.keys))

        def read(dimension: Dimension) -> object:
            value = value_of(dimension.key, config)
            start, domain = self._starts[dimension.key], dimension.domain
            if isinstance(domain, Range):
                vector[start] = domain.position(value) - 0.5
            elif isinstance(domain, Choice):
                count = len(domain.values)
                vector[start : start + count] -= math.sqrt(0.5) / count
                vector[start + domain.values.index(value)] += math.sqrt(0.5)
            return value

        self._space.configuration(read)
        return vector


def _size(dimension: Dimension) -> int:
    return len(dimension.domain.values) if isinstance(dimension.domain, Choice) else 1
