"""Where schedulers compare trials: the rungs of ASHA and the brackets of hyperband."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle

from s2s_search.spaces.settings import Scheduler


@dataclass(frozen=True)
class Rung:
    """A step at which trials are compared, or end, and how many get there in the ideal case."""

    step: int
    trials: float


def milestones(scheduler: Scheduler) -> Iterator[float]:
    """The steps grace_steps * reduction_factor^k below max_steps."""
    step = float(scheduler.grace_steps)
    while step < scheduler.max_steps:
        yield step
        step *= scheduler.reduction_factor


def brackets(scheduler: Scheduler, trials: int) -> Iterator[tuple[Rung, ...]]:
    """The brackets of Tune's hyperband, in the order in which trials fill them: their rungs, the last their end.

    The bracket of s halvings begins at max_steps / reduction_factor^s. How many it keeps follows from its size, also
    where the last trials do not fill it.
    """
    last, factor = scheduler.max_steps, scheduler.reduction_factor
    count = round(math.log(last) / math.log(factor)) + 1
    for halvings in cycle(range(count)):
        step, size = (
            int(last * factor**-halvings),
            math.ceil(count / (halvings + 1) * factor**halvings),
        )
        if step == 0:
            continue
        if trials <= 0:
            return
        reached = [Rung(step, min(size, trials))]
        trials -= size
        for _ in range(halvings):
            step, size = int(min(step * factor, last)), math.ceil(size / factor)
            reached.append(Rung(step, min(size, reached[-1].trials)))
        yield tuple(reached)
