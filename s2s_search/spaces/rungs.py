"""Where schedulers compare trials: the rungs of ASHA and the brackets of hyperband."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle

from s2s_search.spaces.settings import Scheduler


@dataclass(frozen=True)
class Rung:
    """A step at which trials are compared, or end."""

    step: int
    trials: float  # the number of trials that reach the step, when none fails


def asha_rungs(scheduler: Scheduler) -> list[float]:
    """Returns the steps grace_steps * reduction_factor^k up to max_steps, by Ray Tune's formula."""
    span = math.log(scheduler.max_steps / scheduler.grace_steps)
    count = int(span / math.log(scheduler.reduction_factor) + 1)
    return [scheduler.grace_steps * scheduler.reduction_factor**k for k in range(count)]


def brackets(scheduler: Scheduler, trials: int) -> Iterator[tuple[Rung, ...]]:
    """Yields the brackets of Ray Tune's HyperBand in the order in which trials fill them.

    A bracket is its rungs, of which the last one is the end of its trials. The bracket of s
    halvings begins at max_steps / reduction_factor^s. The number of trials that a halving keeps
    follows from the size of the bracket, also when the last trials do not fill it.
    """
    last, factor = scheduler.max_steps, scheduler.reduction_factor
    count = round(math.log(last) / math.log(factor)) + 1
    for halvings in cycle(range(count)):
        step = int(last * factor**-halvings)
        size = math.ceil(count / (halvings + 1) * factor**halvings)
        if step == 0:
            continue
        if trials <= 0:
            return
        reached = [Rung(step, min(size, trials))]
        trials -= size
        for _ in range(halvings):
            step = int(min(step * factor, last))
            size = math.ceil(size / factor)
            reached.append(Rung(step, min(size, reached[-1].trials)))
        yield tuple(reached)
