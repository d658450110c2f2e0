"""The recorded curves of a search: what each trial reported, and what that took."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from random import Random
from typing import NamedTuple

from s2s_search.errors import ConfigError
from s2s_search.runs.events import Event
from s2s_search.runs.inputs import space_of
from s2s_search.runs.state import History, load_history
from s2s_search.spaces.space import Space

# What a worker spends on a trial, as its reports say it: each so far.
SECONDS = ("seconds", "start_seconds", "snapshot_seconds", "waiting_seconds")
WEIGHTS_MOVE = "pbt copies weights between trials, so curves recorded under pbt say nothing about other schedulers"


class CurvePoint(NamedTuple):
    """A report of a curve; `seconds` are the worker's since the one before, `value` is None where it had none."""

    step: int
    value: float | None
    seconds: float
    status: str


@dataclass(frozen=True)
class Curve:
    """What is known of a trial. One that is cut would have gone on: the scheduler, or the search's end, ended it."""

    trial: str
    reports: tuple[CurvePoint, ...]
    is_cut: bool


@dataclass(frozen=True)
class Record:
    """The curves of a search, in the order in which its trials began, or hyperband took them into its brackets.

    `workers` is how many trials ran at once, at most.
    """

    space: Space
    history: History
    curves: tuple[Curve, ...]
    workers: int

    @cached_property
    def seconds(self) -> float:
        """Of all workers."""
        return sum(report.seconds for curve in self.curves for report in curve.reports)

    @cached_property
    def best(self) -> tuple[float, str]:
        """The best value of the metric that is known, and whose it is."""
        return best(((curve.trial, curve.reports) for curve in self.curves), self.space.metric.goal)

    @cached_property
    def steps(self) -> list[int]:
        """The steps at which trials reported, upwards."""
        return sorted({report.step for curve in self.curves for report in curve.reports})


def best(curves: Iterable[tuple[str, Sequence[CurvePoint]]], goal: str) -> tuple[float, str]:
    """The best value of some trials' reports, a divergence's left out, and whose it is; NaN where there is none."""
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
    """Reads the curves of a search that has ended.

    Raises:
        ConfigError: no run folder, a search that still runs, without a report, or by pbt.
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
    """The curves, in the order of hyperband's queue where there is one; else as the trials began."""
    places = {name: place for place, name in enumerate(reversed(history.queued))}
    for name in sorted(history.trials, key=lambda name: -places.get(name, -1)):
        reports: list[CurvePoint] = []
        before: Event = {}
        for event, _ in history.trials[name].news:
            if not event["step"]:
                continue
            status = event.get("status") or "running"
            seconds = _seconds(before, event)
            reports.append(CurvePoint(event["step"], event.get(metric), seconds, status))
            before = event
        is_cut = history.trials[name].status in ("stopped", "running")
        yield Curve(name, tuple(reports), is_cut)


def _seconds(before: Event, after: Event) -> float:
    """From one report to the next; a trial that goes on from a checkpoint counts some of them anew."""
    return sum(max((after.get(part) or 0.0) - (before.get(part) or 0.0), 0.0) for part in SECONDS)


def shuffled(record: Record, seed: int) -> Record:
    """The same trials, begun in a random order."""
    return replace(record, curves=tuple(Random(seed).sample(record.curves, len(record.curves))))
