"""How many reports of a trial in a row were no better than the best one before them."""

import math
from collections.abc import Mapping
from typing import Any

from s2s_search.metrics import MINIMIZE


class Patience:
    """Counts the reports since the best one. The first of equal reports is the best."""

    def __init__(self, reports: int, metric: str, goal: str) -> None:
        self._most, self._metric = reports, metric
        self._sign = 1.0 if goal == MINIMIZE else -1.0
        self._least = math.inf  # the best value so far, times the sign
        self._without = 0  # the number of reports since then

    def hear(self, report: Mapping[str, Any]) -> None:
        """Counts a report."""
        cost = self._sign * report[self._metric]
        if cost < self._least:
            self._least, self._without = cost, 0
        else:
            self._without += 1

    @property
    def is_over(self) -> bool:
        """Returns whether as many reports were without a better one as the trial may have."""
        return self._without >= self._most

    def state(self) -> list[float]:
        """Returns what `restore` takes, for a snapshot."""
        return [self._least, self._without]

    def restore(self, state: list[float]) -> None:
        self._least, self._without = state[0], int(state[1])
