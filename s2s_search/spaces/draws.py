"""Points of the unit cube, random or quasi-random, with one coordinate per dimension."""

import math
import random
from collections.abc import Iterator, Sequence
from itertools import count


def uniform(keys: Sequence[str], seed: int | str) -> Iterator[list[float]]:
    """Yields random points.

    Each key has a random stream of its own, so that fixing one key does not change the others.
    """
    streams = [random.Random(f"{seed} {key}") for key in keys]
    while True:
        yield [stream.random() for stream in streams]


def halton(keys: Sequence[str], seed: int | str) -> Iterator[list[float]]:
    """Yields the points of Halton's sequence.

    The digits of each coordinate are permuted at random (Owen, 2017).
    """
    primes = (n for n in count(2) if all(n % divisor for divisor in range(2, math.isqrt(n) + 1)))
    axes = []
    for key, base in zip(keys, primes, strict=False):
        permutations = []
        for digit in range(math.ceil(30 / math.log2(base))):  # the digits of 30 bits
            rng = random.Random(f"{seed} {key} {digit}")
            permutations.append(rng.sample(range(base), base))
        axes.append((base, permutations))
    for index in count():
        yield [_radical_inverse(index, base, permutations) for base, permutations in axes]


def _radical_inverse(index: int, base: int, permutations: Sequence[Sequence[int]]) -> float:
    """Returns a number in [0, 1) whose digits are those of the index, permuted and mirrored."""
    mirrored: float = sum(
        permutation[index // base**digit % base] / base ** (digit + 1)
        for digit, permutation in enumerate(permutations)
    )
    return mirrored
