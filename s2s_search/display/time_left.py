"""How long a search may still take."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping

from s2s_search.runs.events import Event

IDEAL = 50.0  # trials


class Survival:
    """How many more steps trials make: what Kaplan and Meier (1958) estimate from some that ended and some that run.

    ended: the number of trials that ended, by step · running: the steps of those that have not · limit: where all end
    """

    def __init__(self, ended: Mapping[int, float], running: Iterable[int], limit: int) -> None:
        upwards, later = sorted(running), 0.0
        steps, beyond = (
            [limit],
            [0.0],
        )  # where some end, and how many steps are made beyond by one that comes there
        for step in sorted(ended, reverse=True):
            later += ended[step]
            if ended[step] > 0 and step < limit:
                came = later + len(upwards) - bisect_left(upwards, step)
                beyond.append((1 - ended[step] / came) * (steps[-1] - step + beyond[-1]))
                steps.append(step)
        self._steps, self._beyond = steps[::-1], beyond[::-1]

    def left(self, step: int) -> float:
        """The steps that a trial makes on average after so many; one of none may still fail before its first report."""
        following = bisect_right(self._steps, step) if step > 0 else 0
        if following == len(self._steps):
            return 0.0
        return self._steps[following] - step + self._beyond[following]


def ideal_ends(scheduler: Event, limit: int) -> Iterator[tuple[int, float]]:
    """Where trials end ideally, as numbers of trials by step: what is known before any has.

    ASHA passes on a fixed share in the long run, and more of the first trials, for it compares them with few: so this
    counts as much as IDEAL trials. With others all trials come to the end; that counts as one.
    """
    number, step, factor = (
        1.0,
        amount(scheduler.get("grace_steps")),
        amount(scheduler.get("reduction_factor")),
    )
    if scheduler.get("name") == "asha" and step >= 1 and factor > 1:
        number = IDEAL
        while step < limit:
            yield round(step), number * (1 - 1 / factor)
            number, step = number / factor, step * factor
    yield limit, number


def amount(value: object) -> float:
    """A value of a log that may be damaged, where it is a number of steps; 0 where not."""
    return float(value) if type(value) in (int, float) and 0 <= value < 2**53 else 0.0  # type: ignore[operator, arg-type]
