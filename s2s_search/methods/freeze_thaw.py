"""Freeze-thaw search (Swersky et al., 2014): trials train for one report at a time.

At each report the model of all curves says what every trial may still become, and what a new one
may. The one with the most expected gain per step to its end trains next, until the next report.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from s2s_search.methods.gaussian_process import Floats
from s2s_search.methods.pausing import NEW, TRAINS, WAITS, Pausing
from s2s_search.methods.proposals import Proposals
from s2s_search.methods.reading import Reading
from s2s_search.methods.surrogate import Expectation
from s2s_search.spaces.settings import Scheduler

LEAST = 3  # a trial that trains on counts at least this part of the steps of a whole trial


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
        self._newest: tuple[object, int | None] | None = None  # the newest choice, and its cause

    def begin(self, number: int, config: Mapping[str, object]) -> None:
        if number not in self.trials:
            self._proposals.running(number, config)
        super().begin(number, config)

    def cost(self, value: float) -> float:
        return self._sign * value

    def hear(self, number: int, reading: Reading) -> None:
        self._proposals.report(number, reading)
        super().hear(number, reading)

    def compares(self, number: int) -> bool:
        return True

    def choose(self, has_new: bool) -> int | None:
        reports = sum(len(trial.steps) for trial in self.trials.values())
        cause = (has_new, reports, len(self.trials), tuple(self.of(TRAINS)), tuple(self.of(WAITS)))
        if self._newest is None or self._newest[0] != cause:
            self._newest = cause, self._choose(has_new)
        return self._newest[1]

    def reason(self, number: int) -> str | None:
        surrogate = self._proposals.surrogate
        expectation = surrogate.expectation(n for n in self.of(TRAINS) if n != number)
        if expectation is None:
            return "the model knows too few reports yet"
        return expectation.sentence(surrogate.trials[number].vector, number)

    def _choose(self, has_new: bool) -> int | None:
        training = self.of(TRAINS)
        left = self.total_steps - sum(trial.step for trial in self.trials.values())
        if left <= len(training) * self._proposals.surrogate.first:
            return None  # the reports under way take what is left
        if has_new and len(self.trials) < len(self._proposals.space.first):
            return NEW
        expectation = self._proposals.surrogate.expectation(training)
        late = self._late(expectation, left)
        if late is not None:
            return late if self.trials[late].state == WAITS else None
        new = self._proposals.best(len(self.trials), expectation) if has_new else None
        waiting = self._known(self.of(WAITS), expectation)
        if new is not None and (expectation is None or not waiting):
            return NEW
        if not waiting:
            return None
        if expectation is None:
            return min(waiting, key=lambda number: self.trials[number].costs[-1])
        # Improvement per step that is left to train. A trial near its end has few steps left. By
        # these alone it would train to its end before the search looks at others.
        gains = expectation.gains(self._vectors(waiting), waiting)
        worth = gains / np.maximum(self._rests(waiting), self.settings.max_steps / LEAST)
        k = int(np.argmax(worth))
        is_new = new is not None and new.gain / self.settings.max_steps > worth[k]
        return NEW if is_new else waiting[k]

    def _late(self, expectation: Expectation | None, left: int) -> int | None:
        """Returns the best trial that can reach its end, if it must train on now for that.

        The budget may be one of steps, or of hours.

        Args:
            expectation: what the model expects; None while it knows too little.
            left: the steps that are left of the budget.
        """
        seconds, first = self.seconds_left(), self._proposals.surrogate.first
        training = self.of(TRAINS)
        known = self._known([*self.of(WAITS), *training], expectation)
        rests, times = self._rests(known), self._times(known)
        # The other trials that train take a report each.
        others = np.array([len(training) - (number in training) for number in known])
        needs = rests + first * others
        able = [k for k in range(len(known)) if needs[k] <= left and times[k] <= seconds]
        if not able:
            return None
        means = self._ends(known, expectation)
        best = min(able, key=lambda k: means[k])
        if left - needs[best] < first:
            return known[best]
        report = first * max(times / rests)
        is_waiting = self.trials[known[best]].state == WAITS
        return known[best] if is_waiting and seconds - times[best] < report else None

    def _known(self, numbers: Sequence[int], expectation: Expectation | None) -> list[int]:
        """Returns the trials of some that have reported, and of which something is expected."""
        return [
            number
            for number in numbers
            if self.trials[number].steps and (expectation is None or expectation.knows(number))
        ]

    def _ends(self, numbers: Sequence[int], expectation: Expectation | None) -> Floats:
        """Returns what is expected at the end of each trial; at first, its newest cost."""
        if expectation is None:
            return np.array([self.trials[number].costs[-1] for number in numbers])
        means, _ = expectation.at_the_end(self._vectors(numbers), numbers)
        return means

    def _vectors(self, numbers: Sequence[int]) -> Floats:
        return np.array([self._proposals.surrogate.trials[number].vector for number in numbers])

    def _rests(self, numbers: Sequence[int]) -> Floats:
        """Returns the number of steps of each trial that are left."""
        return np.array([float(self.settings.max_steps - self.trials[n].step) for n in numbers])

    def _times(self, numbers: Sequence[int]) -> Floats:
        """Returns the seconds that these steps take."""
        paces = np.array([self.trials[n].seconds / self.trials[n].step for n in numbers])
        times: Floats = self._rests(numbers) * paces
        return times
