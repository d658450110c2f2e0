"""How long a search may still take."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping

from s2s_search.runs.events import Event

IDEAL = 50.0  # the number of trials as which ASHA's ideal shares count
# These are constants of spaces.settings, which needs more packages than a display.
OURS, PROMOTE = ("pasha", "first_reports", "freeze_thaw"), "promote"
SHARE = 4


class Survival:
    """The expected number of further steps of a trial, by the estimator of Kaplan and Meier (1958).

    Args:
        ended: the number of trials that ended at each step.
        running: the steps that the running trials have made.
        limit: the step at which every trial ends.
    """

    def __init__(self, ended: Mapping[int, float], running: Iterable[int], limit: int) -> None:
        made = sorted(running)
        # Steps at which trials end, and the expected further steps of a trial that reaches each of
        # them. Both are built from the last step to the first.
        steps = [limit]
        beyond = [0.0]
        ended_later = 0.0
        for step in sorted(ended, reverse=True):
            ended_later += ended[step]
            if ended[step] > 0 and step < limit:
                at_risk = ended_later + len(made) - bisect_left(made, step)
                survives = 1 - ended[step] / at_risk
                beyond.append(survives * (steps[-1] - step + beyond[-1]))
                steps.append(step)
        self._steps = steps[::-1]
        self._beyond = beyond[::-1]

    def left(self, step: int) -> float:
        """Returns the expected number of further steps of a trial that has made `step` steps.

        At step 0, trials that fail before their first report count too.
        """
        following = bisect_right(self._steps, step) if step > 0 else 0
        if following == len(self._steps):
            return 0.0
        return self._steps[following] - step + self._beyond[following]


def ideal_ends(scheduler: Event, limit: int, trials: int) -> Iterator[tuple[int, float]]:
    """Yields steps and how many trials ideally end there: the prior before any trial has ended.

    In the long run ASHA lets a fixed share of the trials pass a rung. Of the first ones more pass,
    as ASHA compares them with few others. To outweigh these, the prior counts as IDEAL trials. With
    first_reports all but the best few end at the grace steps. With other schedulers every trial
    reaches the end, and the prior counts as one trial.
    """
    number, name = 1.0, scheduler.get("name")
    step = amount(scheduler.get("grace_steps"))
    factor = amount(scheduler.get("reduction_factor"))
    if name in ("asha", "pasha") and step >= 1 and factor > 1:
        number = IDEAL
        while step < limit:
            yield round(step), number * (1 - 1 / factor)
            number, step = number / factor, step * factor
    elif name == "first_reports" and 1 <= step < limit:
        number = min(amount(scheduler.get("keep")), trials)
        yield round(step), trials - number
    yield limit, number


def lets_wait(scheduler: Event) -> bool:
    """Returns whether trials wait until the search ends, by the scheduler's settings in the log."""
    return scheduler.get("name") in OURS or scheduler.get("variant") == PROMOTE


def steps_of_all(scheduler: Event, ends: Mapping[int, float], limit: int, trials: int) -> float:
    """Returns the steps that all trials ideally make together.

    Args:
        scheduler: the scheduler's settings in the log.
        ends: the ideal ends.
        limit: the steps of a trial that reaches its end.
        trials: the number of trials.
    """
    if scheduler.get("name") == "freeze_thaw":
        return amount(scheduler.get("total_steps")) or trials * limit / SHARE
    steps = sum(step * number for step, number in ends.items())
    return trials * steps / (sum(ends.values()) or 1.0)


def amount(value: object) -> float:
    """Returns a value of the log as a number of steps; 0 if a damaged log holds something else."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**53:
        return float(value)
    return 0.0
