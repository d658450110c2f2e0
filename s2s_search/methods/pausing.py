"""Schedulers that pause trials: they decide which trial trains next, and for how long.

A trial trains, waits or has ended. A report may be one at which it is compared. Then it waits,
unless it is the one that trains next. When a worker is free, the scheduler chooses a waiting trial
or a new one.

A scheduler knows nothing but what it is told, in that order. After a kill it hears the log again
and is where it was.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from s2s_search.methods.reading import Reading

TRAINS, WAITS, ENDED = "trains", "waits", "ended"
NEW = -1  # the number of a trial that has not begun


@dataclass
class Standing:
    """A trial as a scheduler knows it. A cost is a value of the metric, of which less is better."""

    state: str = TRAINS
    steps: list[int] = field(default_factory=list)  # of its reports
    costs: list[float] = field(default_factory=list)
    seconds: float = 0.0  # how long it has trained, as far as that is known

    @property
    def step(self) -> int:
        return self.steps[-1] if self.steps else 0


class Pausing(ABC):
    """The trials of a search, by number, of which some wait.

    `seconds_left` returns the time until a budget of hours is spent. The search sets it.
    """

    def __init__(self) -> None:
        self.trials: dict[int, Standing] = {}
        self.seconds_left: Callable[[], float] = lambda: math.inf

    def begin(self, number: int, config: Mapping[str, object]) -> None:
        """A new trial trains, or a waiting one trains again."""
        self.trials.setdefault(number, Standing()).state = TRAINS

    def report(self, number: int, reading: Reading, has_new: bool) -> bool:
        """Hears a report of a trial that has steps left; returns whether the trial trains on now.

        `has_new` is True while further trials can begin.
        """
        self.hear(number, reading)
        if self.trials[number].state == WAITS and self.choose(has_new) == number:
            self.trials[number].state = TRAINS
        return self.trials[number].state == TRAINS

    def hear(self, number: int, reading: Reading) -> None:
        """Hears a report of a trial, which waits now if the report is one to compare."""
        trial = self.trials[number]
        trial.steps.append(reading.step)
        trial.costs.append(self.cost(reading.value))
        trial.seconds = reading.seconds
        trial.state = WAITS if self.compares(number) else TRAINS

    def end(self, number: int) -> None:
        if number in self.trials:
            self.trials[number].state = ENDED

    def of(self, state: str) -> list[int]:
        """Returns the numbers of the trials in a state, in the order in which they began."""
        return [number for number, trial in self.trials.items() if trial.state == state]

    def dropped(self, has_new: bool) -> list[int]:
        """Returns the waiting trials that will not train again: all of them, in the end."""
        if self.of(TRAINS) or self.choose(has_new) is not None:
            return []
        return self.of(WAITS)

    @abstractmethod
    def cost(self, value: float) -> float:
        """Returns the cost of a value of the metric."""

    @abstractmethod
    def compares(self, number: int) -> bool:
        """Takes note of the newest report of a trial, and returns whether it is compared now."""

    def reason(self, number: int) -> str | None:
        """Says what decided whether a trial trained on at its newest report; None for nothing."""
        return None

    @abstractmethod
    def choose(self, has_new: bool) -> int | None:
        """Returns the trial that trains next: a waiting one, NEW, or None for neither.

        It changes nothing: it may be asked again.
        """
