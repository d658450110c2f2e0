"""A replay of a search under another scheduler: its recorded curves, without training.

This is a simulation of discrete events. Trials start in the recorded order, as soon as a worker is
free. Each report comes after the seconds that it took. Ray Tune's own scheduler decides which
trials continue.

A curve that the search has cut short cannot be continued. Another scheduler may let a trial run
beyond its record. Such a trial is *unknown* from there on: its record counts, and then its worker
is free. Only the record of a search without a scheduler leaves nothing unknown.
"""

import itertools
import math
from bisect import bisect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from typing import Any

import pandas as pd

from s2s_search.errors import ConfigError
from s2s_search.metrics import SECONDS
from s2s_search.results.pareto import pareto
from s2s_search.runs.events import Event
from s2s_search.spaces.settings import Scheduler
from s2s_search.spaces.space import Space
from s2s_search.statuses import FAILURES
from s2s_search.tuning.schedulers import Past, Watched, make_scheduler
from s2s_search.whatif.curves import WEIGHTS_MOVE, Curve, CurvePoint, Record, best, shuffled

SETTINGS = {
    "asha": ("reduction_factor", "grace_steps"),
    "median": ("grace_steps",),
    "hyperband": ("reduction_factor",),
}
SIMULATED = ("none", "pbt", *SETTINGS)  # the schedulers of Ray Tune
DEFAULT_GRID: dict[str, tuple[Any, ...]] = {
    "name": ("none", "median", "asha"),
    "reduction_factor": (2.0, 3.0, 4.0),
}
REPLAY_COLUMNS = {
    "scheduler": "string",
    **dict.fromkeys(("reduction_factor", "grace_steps"), "Float64"),
    **dict.fromkeys(("max_steps", "workers"), "Int64"),
    **dict.fromkeys(
        (
            "worker_seconds",
            "share",
            "wall_seconds",
            "steps",
            "stopped",
            "unknown",
            "best",
            "regret",
            "found",
        ),
        "Float64",
    ),
    "winner": "string",
    "front": "boolean",
}
GRACES = 3  # the number of values of grace_steps in a grid


# --- under which settings ---


def replay_schedulers(
    record: Record, given: Mapping[str, Sequence[Any]], grid: bool = False
) -> list[Scheduler]:
    """Returns the schedulers to replay: every combination of the given values.

    `given` has values for `name` (of the scheduler), `reduction_factor`, `grace_steps` and
    `max_steps`. A setting without values keeps its recorded value. With `grid` it takes the values
    of DEFAULT_GRID instead, and `grace_steps` takes some steps of the reports. Settings that a
    scheduler does not use give no further combinations.

    Raises:
        ConfigError: the problems, all at once. One of them is that trials would end between two
            reports, where nothing is known.
    """
    was = record.space.scheduler
    values = {
        key: (getattr(was, key),)
        for key in ("name", "reduction_factor", "grace_steps", "max_steps")
    }
    if grid:
        last = min(given.get("max_steps", [was.max_steps]))
        values |= DEFAULT_GRID | {"grace_steps": graces(record.steps, last)}
    values |= {key: tuple(chosen) for key, chosen in given.items()}
    if problems := list(_problems(record, values, given)):
        raise ConfigError(problems, "replay")
    found: dict[Scheduler, None] = {}
    for combination in itertools.product(*values.values()):
        wanted = replace(was, interval_steps=None, **dict(zip(values, combination, strict=True)))
        idle = {"reduction_factor", "grace_steps"} - set(SETTINGS.get(wanted.name, ()))
        found[replace(wanted, **{key: values[key][0] for key in idle})] = None
    return list(found)


def _problems(
    record: Record, values: Mapping[str, Sequence[Any]], given: Mapping[str, Sequence[Any]]
) -> Iterator[str]:
    names = values["name"]
    for name in names:
        if name not in SIMULATED:
            law = f"{name} is not replayed alone; replay --league compares it with others"
            yield f"--scheduler: {law}"
    if "pbt" in names:
        yield f"--scheduler pbt: {WEIGHTS_MOVE}"
    for key in ("reduction_factor", "grace_steps"):
        heeding = [name for name, heeded in SETTINGS.items() if key in heeded]
        if key in given and not set(names) & set(heeding):
            law = f"only {' and '.join(heeding)} have one, but the scheduler is {', '.join(names)}"
            yield f"--{key.replace('_', '-')}: {law}"
    for last in given.get("max_steps", ()):
        if last < record.steps[-1] and last not in record.steps:
            after = bisect(record.steps, last)
            near = " and ".join(f"{step:,}" for step in record.steps[max(after - 1, 0) : after + 1])
            law = "must be a step at which trials reported, or one beyond the last"
            yield f"--max-steps: {law}, but got {last:,}; the nearest: {near}"
    longest, shortest = max(values["grace_steps"]), min(values["max_steps"])
    if longest > shortest and set(names) & {"asha", "median"}:
        yield f"--grace-steps: must be at most --max-steps {shortest}, but got {longest}"


def graces(steps: Sequence[int], last: int) -> tuple[int, ...]:
    """Returns some of the steps below `last`, in about equal ratios; `last` when there are none."""
    below = [step for step in steps if step < last] or [last]
    ratio = last / below[0]
    wanted = [below[0] * ratio ** (k / GRACES) for k in range(GRACES)]
    return tuple(sorted({min(below, key=lambda step: abs(step - target)) for target in wanted}))


# --- the simulation ---


@dataclass(frozen=True)
class Replayed:
    """The result of a search under another scheduler.

    `worker_seconds` is the time of all workers. `wall_seconds` is the time from the start of the
    search to its end. `steps` is the number of updates of all trials. `regret` is the difference
    between the best value that was found and the best value of the record.

    `unknown` holds the trials that would have continued beyond their record, with the step at which
    it ends. With such trials, seconds and steps are lower bounds, and `regret` holds only for the
    known part.
    """

    worker_seconds: float
    steps: int
    wall_seconds: float
    stopped: int
    unknown: dict[str, int]
    winner: str
    best: float
    regret: float


class SimulatedTrial(Past):
    """A trial of a simulation. To a scheduler it is a trial of Ray Tune.

    `made` is the number of reports of its curve that it has made so far.
    """

    def __init__(self, curve: Curve) -> None:
        super().__init__(curve.trial)
        self.curve, self.made, self.end = curve, 0, ""

    @property
    def reports(self) -> tuple[CurvePoint, ...]:
        return self.curve.reports[: self.made]


@dataclass
class Simulation:
    """A simulated search. To its scheduler it is the controller of Ray Tune."""

    record: Record
    settings: Scheduler
    workers: int
    now: float = 0.0
    trials: list[SimulatedTrial] = field(init=False)

    def __post_init__(self) -> None:
        self.scheduler = scheduler_of(self.record.space, self.settings)
        self.trials = [SimulatedTrial(curve) for curve in self.record.curves]
        self._free = self.workers
        # The next report of each running trial: its time, a count that breaks ties, and the trial.
        self._due: list[tuple[float, int, SimulatedTrial]] = []
        self._count = itertools.count()

    def run(self) -> Replayed:
        for trial in self.trials:
            self.scheduler.on_trial_add(self, trial)
        while True:
            while self._free and (trial := self.scheduler.choose_trial_to_run(self)) is not None:
                self._free -= 1
                trial.status = "RUNNING"
                self._go_on(trial)
            if not self._due:
                return self._outcome()
            self.now, _, trial = heappop(self._due)
            self._report(trial)

    def _go_on(self, trial: SimulatedTrial) -> None:
        if trial.made < len(trial.curve.reports):
            due = self.now + trial.curve.reports[trial.made].seconds
            heappush(self._due, (due, next(self._count), trial))
        else:
            had_its_steps = trial.made > 0 and trial.reports[-1].status == "finished"
            self._end(trial, "unknown" if trial.curve.is_cut or had_its_steps else "failed")

    def _report(self, trial: SimulatedTrial) -> None:
        report = trial.curve.reports[trial.made]
        trial.made += 1
        is_last = report.status != "running" or report.step >= self.settings.max_steps
        if report.status == "finished" and report.step == self.record.space.scheduler.max_steps:
            # The trial had no more steps then, but other settings may give it more.
            is_last = report.step >= self.settings.max_steps
        action = "CONTINUE"
        if report.value is not None:
            status = "finished" if is_last else "running"
            result = {
                "step": report.step,
                self.record.space.metric.name: report.value,
                "status": status,
                SECONDS.name: report.trained,
            }
            action = self.scheduler.on_trial_result(self, trial, result)
            trial.last_result = result
        if is_last:
            self._end(trial, "finished")
        elif action == "STOP":
            self._end(trial, "stopped")
        elif action == "PAUSE":
            trial.status = "PAUSED"
            self._free += 1
        else:
            self._go_on(trial)

    def _end(self, trial: SimulatedTrial, how: str) -> None:
        tell(self.scheduler, self, trial, how)
        trial.status, trial.end = "TERMINATED", how
        self._free += 1

    # --- what a scheduler asks of Tune's controller ---

    def get_trials(self) -> list[SimulatedTrial]:
        return self.trials

    def stop_trial(self, trial: SimulatedTrial) -> None:
        """Ends a paused trial."""
        self.scheduler.on_trial_remove(self, trial)
        trial.status, trial.end = "TERMINATED", "stopped"

    # ---

    def _outcome(self) -> Replayed:
        record, goal = self.record, self.record.space.metric.goal
        value, winner = best(((trial.trial_id, trial.reports) for trial in self.trials), goal)
        return Replayed(
            worker_seconds=sum(report.seconds for trial in self.trials for report in trial.reports),
            steps=sum(trial.reports[-1].step for trial in self.trials if trial.made),
            wall_seconds=self.now,
            stopped=sum(trial.end == "stopped" for trial in self.trials),
            unknown={
                trial.trial_id: trial.reports[-1].step if trial.made else 0
                for trial in self.trials
                if trial.end == "unknown"
            },
            winner=winner,
            best=value,
            regret=abs(value - record.best[0]),
        )


def replay_table(
    record: Record, schedulers: Sequence[Scheduler], workers: int, orders: int = 1
) -> pd.DataFrame:
    """Returns a row for each scheduler: the results as means over several orders of the trials.

    The first order is the recorded one, and the others are random. The columns:

    - scheduler, reduction_factor, grace_steps (NA when the scheduler has none), max_steps, workers.
    - worker_seconds, and share: their share of the worker seconds of the record.
    - wall_seconds, steps, and stopped: the number of stopped trials.
    - unknown: the number of trials that would have continued beyond their record.
    - best, regret, and found: the share of orders that found the best value of the record.
    - winner: the trial that most orders found best.
    - front: True when no other row is as cheap with as little regret; False with unknown trials.

    Args:
        record: the recorded curves.
        schedulers: the schedulers to replay.
        workers: the number of trials that can run at once.
        orders: the number of orders.
    """
    records = [record, *(shuffled(record, seed) for seed in range(1, orders))]
    rows = []
    for settings in schedulers:
        outcomes = pd.DataFrame(
            [vars(Simulation(each, settings, workers).run()) for each in records]
        )
        outcomes["unknown"], outcomes["found"] = (
            outcomes["unknown"].map(len),
            outcomes["regret"] == 0,
        )
        row: dict[str, Any] = {
            "scheduler": settings.name,
            "max_steps": settings.max_steps,
            "workers": workers,
        }
        row |= {key: getattr(settings, key) for key in SETTINGS.get(settings.name, ())}
        row |= {str(key): mean for key, mean in outcomes.drop(columns="winner").mean().items()}
        rows.append(row | {"winner": outcomes["winner"].mode()[0]})
    found = pd.DataFrame(rows, columns=list(REPLAY_COLUMNS)).astype(REPLAY_COLUMNS)
    found["share"] = found["worker_seconds"] / (record.seconds or math.nan)
    known = found[["worker_seconds", "regret"]].where(found["unknown"] == 0).astype(object)
    found["front"] = pareto(
        known.where(known.notna(), None).to_numpy().tolist(), ["minimize", "minimize"]
    )
    return found


def scheduler_of(space: Space, settings: Scheduler) -> Watched:
    """Returns a scheduler of Ray Tune."""
    # How many trials run at once is the number of workers here.
    search = replace(space.search, max_at_once=None)
    scheduler = make_scheduler(replace(space, scheduler=settings, search=search), explore=dict)
    assert isinstance(scheduler, Watched)
    return scheduler


def in_recorded_order(record: Record) -> dict[tuple[str, int], Event]:
    """Returns the recomputed decisions of the search's own scheduler, by trial and step.

    They are made in the order of the log.
    """
    scheduler = scheduler_of(record.space, record.space.scheduler)
    trials: dict[str, Past] = {}
    made: dict[tuple[str, int], Event] = {}
    for event in record.history.events:
        kind, name = event["event"], event.get("trial", "")
        if kind in ("trial", "restart") and name in record.history.trials:
            trials.setdefault(name, Past(name))
            scheduler.on_trial_add(scheduler, trials[name])
        elif (
            kind == "report" and name in trials and event.get(record.space.metric.name) is not None
        ):
            trials[name].last_result = {key: event.get(key) for key in scheduler.keys}
            scheduler.on_trial_result(scheduler, trials[name], trials[name].last_result)
            if name in scheduler.decisions:
                made[name, event["step"]] = scheduler.decisions.pop(name)
        elif kind == "status" and name in trials:
            tell(scheduler, scheduler, trials.pop(name), event["status"])
    return made


def made_again(record: Record) -> tuple[int, int]:
    """Returns how many decisions of the log are the same when recomputed, and how many it has."""
    if record.space.scheduler.pauses:
        return 0, 0
    again = in_recorded_order(record)
    of = [
        (name, decision)
        for name, trial in record.history.trials.items()
        for decision in trial.decisions
    ]
    same = [
        again.get((name, was["step"]), {}).items() <= was.items()
        for name, was in of
        if (name, was["step"]) in again
    ]
    return sum(same), len(of)


def tell(scheduler: Watched, tune: Any, trial: Any, how: str) -> None:
    """Tells a scheduler that a trial has ended, as Ray Tune does.

    A trial without a result is reported as an error, because schedulers do not know it.

    Args:
        scheduler: the scheduler.
        tune: the controller of Ray Tune, or a stand-in for it.
        trial: the trial.
        how: the status with which it ended.
    """
    if how in FAILURES or not trial.last_result:
        scheduler.on_trial_error(tune, trial)
    else:
        scheduler.on_trial_complete(tune, trial, trial.last_result)
