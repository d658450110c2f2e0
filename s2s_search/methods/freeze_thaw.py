"""Freeze-thaw search (Swersky et al., 2014): trials train for one report at a time.

At each report the model of all curves says what every trial may still become, and what a new one
may. The one with the most expected gain per step to its end trains next, until the next report.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from s2s_search.methods.gaussian_process import Floats
from s2s_search.methods.pausing import NEW, TRAINS, WAITS, Pausing
from s2s_search.methods.proposals import Proposals
from s2s_search.spaces.settings import Scheduler


class FreezeThaw(Pausing):
    """A scheduler that shares its model with the sampler.

    Args:
        settings: the scheduler's settings. With `total_steps` steps of all trials the search ends.
        minimize: True when less is better.
        proposals: the sampler.
    """

    def __init__(self, settings: Scheduler, minimize: bool, proposals: Proposals) -> None:
        super().__init__()
        self.settings, self._sign = settings, 1.0 if minimize else -1.0
        self._proposals = proposals
        self.total_steps = settings.steps_of_all(len(proposals))
        self._known: tuple[object, int | None] | None = None  # the newest choice, and its cause

    def begin(self, number: int, config: Mapping[str, object]) -> None:
        if number not in self.trials:
            self._proposals.running(number, config)
        super().begin(number, config)

    def cost(self, value: float) -> float:
        return self._sign * value

    def compares(self, number: int) -> bool:
        trial = self.trials[number]
        self._proposals.report(number, trial.steps[-1], self._sign * trial.costs[-1])
        return True

    def choose(self, has_new: bool) -> int | None:
        reports = sum(len(trial.steps) for trial in self.trials.values())
        cause = (has_new, reports, len(self.trials), tuple(self.of(TRAINS)), tuple(self.of(WAITS)))
        if self._known is None or self._known[0] != cause:
            self._known = cause, self._choose(has_new)
        return self._known[1]

    def reason(self, number: int) -> str | None:
        surrogate = self._proposals.surrogate
        expectation = surrogate.expectation(n for n in self.of(TRAINS) if n != number)
        if expectation is None:
            return "the model knows too few reports yet; draws come first"
        return expectation.sentence(surrogate.trials[number].vector, number)

    def _choose(self, has_new: bool) -> int | None:
        left = self.total_steps - sum(trial.step for trial in self.trials.values())
        if left <= 0:
            return None
        if has_new and len(self.trials) < len(self._proposals.space.first):
            return NEW
        expectation = self._proposals.surrogate.expectation(self.of(TRAINS))
        new = self._proposals.best(len(self.trials), expectation) if has_new else None
        waiting = self.of(WAITS)
        if expectation is not None:
            waiting = [number for number in waiting if expectation.knows(number)]
        if expectation is None or not waiting:
            return NEW if new is not None else next(iter(waiting), None)
        vectors = np.array([self._proposals.surrogate.trials[number].vector for number in waiting])
        means, deviations = expectation.at_the_end(vectors, waiting)
        last = self._last_chance(waiting, means, left)
        if last is not None:
            return last
        # Improvement per step that it still costs.
        rests = [self.settings.max_steps - self.trials[number].step for number in waiting]
        worth = expectation.gains(means, deviations) / rests
        k = int(np.argmax(worth))
        is_new = new is not None and new.gain / self.settings.max_steps > worth[k]
        return NEW if is_new else waiting[k]

    def _last_chance(self, waiting: Sequence[int], means: Floats, left: int) -> int | None:
        """Returns the best waiting trial that can reach its end, if it must go on now for that.

        Args:
            waiting: the trials that wait.
            means: what is expected of each.
            left: the steps that are left of the budget.
        """
        rests = np.array([self.settings.max_steps - self.trials[n].step for n in waiting])
        able = np.flatnonzero(rests <= left)
        if len(able) == 0:
            return None
        best = int(able[np.argmin(means[able])])
        is_late = left - rests[best] < self._proposals.surrogate.first
        return waiting[best] if is_late else None
