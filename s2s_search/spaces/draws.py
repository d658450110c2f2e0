"""Numbers in the unit cube, one for each dimension: random or quasi-random."""

import math
import random
from collections.abc import Iterator, Sequence
from itertools import count


def uniform(keys: Sequence[str], seed: int) -> Iterator[list[float]]:
    """Yields points of the unit cube. Each key has its own stream: fixing one leaves the others as they were."""
    streams = [random.Random(f"{seed} {key}") for key in keys]
    while True:
        yield [stream.random() for stream in streams]


def halton(keys: Sequence[str], seed: int) -> Iterator[list[float]]:
    """Yields the points of Halton's sequence, the digits of each coordinate permuted at random (Owen, 2017)."""
    primes = (n for n in count(2) if all(n % divisor for divisor in range(2, math.isqrt(n) + 1)))
    axes = []
    for key, base in zip(keys, primes, strict=False):
        digits = range(math.ceil(30 / math.log2(base)))
        axes.append(
            (base, [random.Random(f"{seed} {key} {d}").sample(range(base), base) for d in digits])
        )
    for index in count():
        yield [
            sum(digit[index // b**d % b] / b ** (d + 1) for d, digit in enumerate(digits))
            for b, digits in axes
        ]
