"""The recorded curves of a search: the reports of each trial, and the seconds between them."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from random import Random
from typing import NamedTuple

from s2s_search.errors import ConfigError
from s2s_search.metrics import LOSS, SECONDS
from s2s_search.runs.events import Event
from s2s_search.runs.inputs import space_of
from s2s_search.runs.state import History, load_history
from s2s_search.spaces.space import Space

# The kinds of seconds in a report that add up to a worker's time. Each is counted over the trial so
# far.
WORK_SECONDS = ("seconds", "start_seconds", "snapshot_seconds", "waiting_seconds")
WEIGHTS_MOVE = (
    "pbt copies weights between trials, so curves recorded under pbt say nothing about other "
    "schedulers"
)


class CurvePoint(NamedTuple):
    """A report of a curve.

    `seconds` is the worker's time since the report before it. `value` is None when the report has
    no value of the metric. `trained` is the training time of the trial so far, in seconds. `loss`
    is that on the dev part.
    """

    step: int
    value: float | None
    seconds: float
    status: str
    trained: float | None = None
    loss: float | None = None


@dataclass(frozen=True)
class Curve:
    """The reports of a trial.

    A curve is cut when the scheduler or the end of the search ended the trial. The trial would have
    continued otherwise.
    """

    trial: str
    reports: tuple[CurvePoint, ...]
    is_cut: bool


@dataclass(frozen=True)
class Record:
    """The curves of a search, in the order in which its trials began.

    For hyperband, it is the order in which trials got into brackets. `workers` is the largest
    number of trials that ran at once.
    """

    space: Space
    history: History
    curves: tuple[Curve, ...]
    workers: int

    @cached_property
    def seconds(self) -> float:
        """The time of all workers, in seconds."""
        return sum(report.seconds for curve in self.curves for report in curve.reports)

    @cached_property
    def best(self) -> tuple[float, str]:
        """The best known value of the metric, and the name of its trial."""
        return best(((curve.trial, curve.reports) for curve in self.curves), self.space.metric.goal)

    @cached_property
    def steps(self) -> list[int]:
        """The steps at which trials reported, in increasing order."""
        return sorted({report.step for curve in self.curves for report in curve.reports})


def best(curves: Iterable[tuple[str, Sequence[CurvePoint]]], goal: str) -> tuple[float, str]:
    """Returns the best value of some trials' reports, and the name of its trial.

    Reports of a divergence are left out. The value is NaN when no report is left.
    """
    sign = 1 if goal == "minimize" else -1
    values = [
        (sign * report.value, trial)
        for trial, reports in curves
        for report in reports
        if report.value is not None and report.status != "diverged"
    ]
    cost, trial = min(values, default=(math.nan, ""))
    return sign * cost, trial


def load_record(folder: Path) -> Record:
    """Returns the curves of a search that has ended.

    Raises:
        ConfigError: the folder is no run folder, its search still runs, no trial has reported, or
            the scheduler was pbt.
    """
    history = load_history(folder)
    space = space_of(history, folder)
    curves = tuple(_curves(history, space.metric.name))
    problems = []
    if history.is_running:
        problems.append("a search writes this folder now: replay it when it has ended")
    if not any(curve.reports for curve in curves):
        problems.append("no trial has reported: there is nothing to replay")
    if space.scheduler.name == "pbt":
        problems.append(f"scheduler.name = pbt cannot be replayed: {WEIGHTS_MOVE}")
    if problems:
        raise ConfigError(problems, str(folder))
    return Record(space, history, curves, history.workers)


def _curves(history: History, metric: str) -> Iterator[Curve]:
    """Yields the curves in the order in which trials began, or were queued by hyperband."""
    positions = {name: position for position, name in enumerate(reversed(history.queued))}
    for name in sorted(history.trials, key=lambda name: -positions.get(name, -1)):
        reports: list[CurvePoint] = []
        before: Event = {}
        for event, _ in history.trials[name].news:
            if not event["step"]:
                continue
            status = event.get("status") or "running"
            seconds = _seconds(before, event)
            value, trained = event.get(metric), event.get(SECONDS.name)
            loss = event.get(LOSS.name)
            reports.append(CurvePoint(event["step"], value, seconds, status, trained, loss))
            before = event
        is_cut = history.trials[name].status in ("stopped", "running")
        yield Curve(name, tuple(reports), is_cut)


def _seconds(before: Event, after: Event) -> float:
    """Returns the worker's seconds from one report to the next.

    A resumed trial counts some kinds of seconds from 0 again. A difference below 0 therefore counts
    as 0.
    """
    return sum(
        max((after.get(part) or 0.0) - (before.get(part) or 0.0), 0.0) for part in WORK_SECONDS
    )


def shuffled(record: Record, seed: int) -> Record:
    """Returns the record with its trials in a random order."""
    return replace(record, curves=tuple(Random(seed).sample(record.curves, len(record.curves))))
