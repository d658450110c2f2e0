"""Successive halving in which trials wait at rungs until they are among the best there.

- `Promotion` is asynchronous successive halving as Li et al. (2020) describe it: a trial goes on
  when it is among the best 1 / reduction_factor of its rung.
- `Progressive` (PASHA, Bohdal et al., 2023) has few rungs at first. A further one is added when the
  ranking in the highest rung differs from the ranking in the rung below.
- `FirstReports` (Egele et al., 2023) lets all trials reach one step. The best few then train to the
  end.
"""

from itertools import pairwise
from statistics import quantiles

from s2s_search.methods.pausing import NEW, TRAINS, WAITS, Pausing
from s2s_search.spaces.rungs import asha_rungs
from s2s_search.spaces.settings import Scheduler

LEAST_RUNGS = 2  # of PASHA at first
TENTHS = 10  # two trials rank alike within nine tenths of the differences of such pairs


class Halving(Pausing):
    """Trials that wait at rungs. `rungs` maps a rung's step to the cost of each trial there."""

    def __init__(self, settings: Scheduler, minimize: bool) -> None:
        super().__init__()
        self.settings, self._sign = settings, 1.0 if minimize else -1.0
        self.rungs: dict[float, dict[int, float]] = {
            rung: {} for rung in asha_rungs(settings) if rung < settings.max_steps
        }
        self._reached: dict[int, float] = {}  # the highest rung of each trial

    def cost(self, value: float) -> float:
        return self._sign * value

    def compares(self, number: int) -> bool:
        trial, before = self.trials[number], self._reached.get(number, 0.0)
        reached = [rung for rung in self.rungs if before < rung <= trial.step]
        if not reached:
            return False
        self._reached[number] = max(reached)
        for rung in reached:
            self.rungs[rung][number] = trial.costs[-1]
        return True

    def reason(self, number: int) -> str | None:
        trial, rung = self.trials[number], self._reached.get(number, 0.0)
        if len(trial.steps) > 1 and trial.steps[-2] >= rung:
            return None  # the newest report is not one at a rung
        if not rung:
            return None
        rank = self.best(rung, len(self.rungs[rung])).index(number) + 1
        return f"{rank} of {len(self.rungs[rung])} so far at rung {rung:g}"

    def best(self, rung: float, count: int) -> list[int]:
        """Returns the best trials of a rung; of equal ones, those that reached it first."""
        costs = self.rungs[rung]
        return sorted(costs, key=lambda number: costs[number])[:count]

    def waiting_at(self, rung: float, numbers: list[int]) -> int | None:
        """Returns the first of some trials that waits at a rung and not higher."""
        for number in numbers:
            if self.trials[number].state == WAITS and self._reached[number] == rung:
                return number
        return None


class Promotion(Halving):
    """Asynchronous successive halving that never stops a trial, and lets the best go on.

    When no trial is left to begin or to go on, the best of the highest rung trains to its end. A
    search of few trials would otherwise end without one.
    """

    def choose(self, has_new: bool) -> int | None:
        for rung in reversed(self.open_rungs()):
            share = int(len(self.rungs[rung]) / self.settings.reduction_factor)
            number = self.waiting_at(rung, self.best(rung, share))
            if number is not None:
                return number
        if has_new:
            return NEW
        reached = [rung for rung in self.rungs if self.rungs[rung]]
        if self.of(TRAINS) or not reached:
            return None
        return self.waiting_at(reached[-1], self.best(reached[-1], 1))

    def open_rungs(self) -> list[float]:
        """Returns the rungs from which trials go on, the lowest first."""
        return list(self.rungs)


class Progressive(Promotion):
    """Promotion over rungs that are added when they are needed."""

    def __init__(self, settings: Scheduler, minimize: bool) -> None:
        super().__init__(settings, minimize)
        self._open = LEAST_RUNGS

    def compares(self, number: int) -> bool:
        is_compared = super().compares(number)
        rungs = list(self.rungs)
        top = self._open - 1
        if is_compared and self._open < len(rungs) and number in self.rungs[rungs[top]]:
            self._open += not self._ranks_alike(rungs[top - 1], rungs[top])
        return is_compared

    def open_rungs(self) -> list[float]:
        return list(self.rungs)[: self._open - 1]

    def _ranks_alike(self, lower: float, upper: float) -> bool:
        """Returns whether the trials of a rung rank as they did at the rung below.

        Trials whose costs differ by less than noise rank alike in any order. Noise is what
        separates pairs of trials that overtook each other more than once.
        """
        ranked = self.best(upper, len(self.rungs[upper]))
        noise = self._noise(ranked)
        below = self.rungs[lower]
        for place, number in enumerate(ranked):
            for other in ranked[place + 1 :]:
                if below[number] > below[other] + noise:
                    return False
        return True

    def _noise(self, numbers: list[int]) -> float:
        crossing = []
        for place, number in enumerate(numbers):
            for other in numbers[place + 1 :]:
                pairs = zip(self.trials[number].costs, self.trials[other].costs, strict=False)
                differences = [a - b for a, b in pairs]
                apart = [difference for difference in differences if difference]
                if sum(a * b < 0 for a, b in pairwise(apart)) > 1:
                    crossing.append(abs(differences[-1]))
        if len(crossing) < 2:
            return sum(crossing)
        return quantiles(crossing, n=TENTHS, method="inclusive")[-1]


class FirstReports(Halving):
    """All trials reach the first rung. The best `keep` of them train to the end."""

    def __init__(self, settings: Scheduler, minimize: bool) -> None:
        super().__init__(settings, minimize)
        self.rungs = {float(settings.grace_steps): {}}

    def choose(self, has_new: bool) -> int | None:
        if has_new:
            return NEW
        rung = float(self.settings.grace_steps)
        if any(self.trials[number].step < rung for number in self.of(TRAINS)):
            return None  # the ranking is not complete
        return self.waiting_at(rung, self.best(rung, self.settings.keep))
