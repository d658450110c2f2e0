"""Courses: the steps at which a trial may end, and how likely it ideally reaches each of them."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from s2s_search.hparams.configuration import Hparams
from s2s_search.spaces.rungs import Rung, asha_rungs, brackets
from s2s_search.spaces.settings import Scheduler


@dataclass(frozen=True)
class Span:
    """An amount, from the least to the most.

    least: the amount if only the best trials pass each comparison, and if those with train.patience
        have no better report than their first
    most: the amount if all trials run to their end
    """

    least: float
    most: float

    def times(self, factor: float) -> "Span":
        return Span(self.least * factor, self.most * factor)

    def at_most(self, limit: float) -> "Span":
        return Span(min(self.least, limit), min(self.most, limit))


def total(ranges: Iterable[Span]) -> Span:
    """Returns the sum of ranges."""
    every = list(ranges)
    return Span(sum(one.least for one in every), sum(one.most for one in every))


# --- steps ---


@dataclass(frozen=True)
class Course:
    """How far a trial may get.

    ends: the steps at which it may end
    shares: the probability that it ideally reaches each of them
    every: the number of steps between two reports
    patience: its train.patience; 0 when it does not end by itself before its last step
    """

    ends: tuple[int, ...]
    shares: tuple[float, ...]
    every: int
    patience: int = 0

    @property
    def steps(self) -> Span:
        return self._total(self.ends, (self.patience + 1) * self.every)

    @property
    def evaluations(self) -> Span:
        return self._total([math.ceil(end / self.every) for end in self.ends], self.patience + 1)

    def _total(self, amounts: Sequence[int], plateaued: int) -> Span:
        """Returns the expected amount, where a trial that ends at `ends[k]` takes `amounts[k]`.

        A trial with patience takes at least `plateaued`, when its first report is the best.
        """
        expected = 0.0
        before = 0
        for share, amount in zip(self.shares, amounts, strict=True):
            if self.patience:
                amount = min(amount, plateaued)
            expected += share * (amount - before)
            before = amount
        return Span(expected, amounts[-1])


def make_courses(hparams: Sequence[Hparams], scheduler: Scheduler) -> list[Course]:
    """Returns the courses of all trials, in the order in which the trials start."""
    if scheduler.name != "hyperband":
        return [course(own, scheduler, len(hparams)) for own in hparams]
    shared: list[Sequence[Rung]] = []  # the bracket of each trial
    for bracket in brackets(scheduler, len(hparams)):
        shared += [bracket] * round(bracket[0].trials)
    return [bracket_course(own, bracket) for own, bracket in zip(hparams, shared, strict=True)]


def course(hparams: Hparams, scheduler: Scheduler, trials: int) -> Course:
    """Returns the course of one of `trials` trials.

    Ideally at least one trial reaches the end. A rung takes effect at the next report.
    """
    every, end = hparams["train.eval_every_steps"], hparams["train.max_steps"]
    stops: list[float] = []
    factor: float = scheduler.reduction_factor
    if scheduler.name in ("asha", "pasha"):
        stops = asha_rungs(scheduler)
    elif scheduler.name == "first_reports":
        stops = [scheduler.grace_steps]
        factor = max(trials / scheduler.keep, 1.0)
    elif scheduler.name == "freeze_thaw":
        # The budget is of all trials together. As a mean, each of them has the same share of it.
        end = min(end, math.ceil(scheduler.steps_of_all(trials) / trials))
    elif scheduler.name == "median":
        stops = [scheduler.grace_steps]
        factor = math.inf
    elif scheduler.name not in ("none", "pbt"):
        raise ValueError(f"no scheduler is called {scheduler.name!r}")
    reports = sorted({math.ceil(stop / every) * every for stop in stops})
    if stops:
        end = min(end, math.ceil(scheduler.max_steps / every) * every)
    ends = [step for step in reports if step < end]
    ends.append(end)
    shares = [max(factor**-k, 1 / trials) for k in range(len(ends))]
    return Course(tuple(ends), tuple(shares), every, hparams["train.patience"])


def bracket_course(hparams: Hparams, bracket: Sequence[Rung]) -> Course:
    """Returns the course of a trial in a bracket.

    Several rungs can take effect at the same report; the share of the first of them counts.
    """
    every, end = hparams["train.eval_every_steps"], hparams["train.max_steps"]
    shares: dict[int, float] = {}
    for rung in bracket:
        report = min(math.ceil(rung.step / every) * every, end)
        shares.setdefault(report, rung.trials / bracket[0].trials)
    return Course(tuple(shares), tuple(shares.values()), every, hparams["train.patience"])


def expected_rungs(courses: Sequence[Course]) -> tuple[Rung, ...]:
    """Returns the rungs of the courses by step; the last one is the end of the longest course."""
    reached: dict[int, float] = defaultdict(float)
    for one in courses:
        for step, share in zip(one.ends[:-1], one.shares, strict=False):
            reached[step] += share
    found = [Rung(step, reached[step]) for step in sorted(reached)]
    found.append(Rung(max(one.ends[-1] for one in courses), sum(one.shares[-1] for one in courses)))
    return tuple(found)
