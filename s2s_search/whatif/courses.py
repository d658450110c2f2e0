"""How far trials go: the steps at which each may end, and how likely it gets there."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from s2s_search.hparams.configuration import Hparams
from s2s_search.spaces.rungs import Rung, brackets, milestones
from s2s_search.spaces.settings import Scheduler


@dataclass(frozen=True)
class Range:
    """From the least, if only the best survived each comparison, to the most, if all trials ran to their end."""

    least: float
    most: float

    def times(self, factor: float) -> "Range":
        return Range(self.least * factor, self.most * factor)


def total(ranges: Iterable[Range]) -> Range:
    least, most = zip(*((one.least, one.most) for one in ranges), strict=True)
    return Range(sum(least), sum(most))


# Steps


@dataclass(frozen=True)
class Course:
    """How a trial may go: the steps at which it may end, and how likely it ideally gets to each; steps per report."""

    ends: tuple[int, ...]
    shares: tuple[float, ...]
    every: int

    @property
    def steps(self) -> Range:
        return self._total(self.ends)

    @property
    def evaluations(self) -> Range:
        return self._total([math.ceil(end / self.every) for end in self.ends])

    def _total(self, amounts: Sequence[int]) -> Range:
        """The expected amount, where amounts[k] is that of a trial that ends at ends[k]."""
        grown = [after - before for before, after in zip((0, *amounts), amounts, strict=False)]
        return Range(
            sum(share * more for share, more in zip(self.shares, grown, strict=True)), amounts[-1]
        )


def make_courses(hparams: Sequence[Hparams], scheduler: Scheduler) -> list[Course]:
    """The courses of all trials, in the order in which they start."""
    if scheduler.name == "hyperband":
        shared = [
            bracket
            for bracket in brackets(scheduler, len(hparams))
            for _ in range(round(bracket[0].trials))
        ]
        return [bracket_course(own, bracket) for own, bracket in zip(hparams, shared, strict=True)]
    return [course(own, scheduler, len(hparams)) for own in hparams]


def course(hparams: Hparams, scheduler: Scheduler, trials: int) -> Course:
    """The course of one of so many trials. One at least reaches the end; a rung counts at the next report."""
    every, end = hparams["train.eval_every_steps"], hparams["train.max_steps"]
    stops, factor = list[float](), scheduler.reduction_factor
    if scheduler.name == "asha":
        stops = list(milestones(scheduler))
    elif scheduler.name == "median":
        stops, factor = [scheduler.grace_steps], math.inf
    reports = sorted({math.ceil(stop / every) * every for stop in stops})
    if stops:
        end = min(end, math.ceil(scheduler.max_steps / every) * every)
    ends = (*(step for step in reports if step < end), end)
    return Course(ends, tuple(max(factor**-k, 1 / trials) for k in range(len(ends))), every)


def bracket_course(hparams: Hparams, bracket: Sequence[Rung]) -> Course:
    """The course of a trial in a bracket, which halves for each rung that a report passes."""
    every, end = hparams["train.eval_every_steps"], hparams["train.max_steps"]
    shares: dict[int, float] = {}
    for rung in bracket:
        shares.setdefault(
            min(math.ceil(rung.step / every) * every, end), rung.trials / bracket[0].trials
        )
    return Course(tuple(shares), tuple(shares.values()), every)


def rungs(courses: Sequence[Course]) -> tuple[Rung, ...]:
    """The rungs of the courses by step, and last the end, at the step of the longest."""
    reached: dict[int, float] = defaultdict(float)
    for one in courses:
        for step, share in zip(one.ends[:-1], one.shares, strict=False):
            reached[step] += share
    end = Rung(max(one.ends[-1] for one in courses), sum(one.shares[-1] for one in courses))
    return (*(Rung(step, reached[step]) for step in sorted(reached)), end)
