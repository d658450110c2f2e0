"""The schedulers of Ray Tune, which decide when a trial stops, with a record of their decisions.

Ray Tune decides. `Watched` stands in front of its scheduler. It hides reports that the scheduler
has seen before, and keeps each decision with its reason. After a kill it recomputes the decisions
of the past from the log, so that rungs and brackets are as they were.

Ray Tune calls a scheduler in the driver's main thread, and before the callback. A decision is
therefore made before its report is recorded. If the driver dies in between, the resumed trial sends
the report again, and the decision is recomputed.
"""

import math
from bisect import bisect_left, bisect_right, insort
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from ray.tune.experiment import Trial
from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    FIFOScheduler,
    HyperBandScheduler,
    MedianStoppingRule,
    PopulationBasedTraining,
    TrialScheduler,
)

from s2s_search.methods.make import make_pausing
from s2s_search.methods.samplers import Sampler
from s2s_search.metrics import SECONDS
from s2s_search.runs.events import Event
from s2s_search.runs.failures import AGAIN
from s2s_search.spaces.rungs import asha_rungs
from s2s_search.spaces.settings import Scheduler
from s2s_search.spaces.space import Space
from s2s_search.statuses import FAILURES, TIME_IS_OVER
from s2s_search.tuning.pausing import PausingScheduler

ALIVE = (Trial.PENDING, Trial.RUNNING, Trial.PAUSED)

Explore = Callable[[dict[str, Any]], dict[str, Any]]


def make_scheduler(
    space: Space, explore: Explore, sampler: Sampler | None = None
) -> "Watched | PausingScheduler":
    """Returns the scheduler of a space.

    Args:
        space: the space.
        explore: for pbt, changes a configuration of Tune's.
        sampler: for freeze_thaw, the sampler whose model it shares.
    """
    settings, minimize = space.scheduler, space.metric.goal == "minimize"
    pausing = make_pausing(settings, minimize, sampler)
    if pausing is not None:
        hours = space.search.trial_hours
        return PausingScheduler(pausing, settings.name, space.metric.name, hours)
    inner = _inner(settings, explore)
    inner.set_search_properties(
        space.metric.name, "min" if space.metric.goal == "minimize" else "max"
    )
    return Watched(
        inner,
        settings,
        space.metric.name,
        minimize,
        trial_hours=space.search.trial_hours,
        max_at_once=space.search.max_at_once,
    )


def _inner(settings: Scheduler, explore: Explore) -> TrialScheduler:
    if settings.name == "asha":
        return AsyncHyperBandScheduler(
            time_attr="step",
            max_t=settings.max_steps,
            grace_period=settings.grace_steps,
            reduction_factor=settings.reduction_factor,
            # A trial ends by itself. With True, Ray 2.60 compares late reports at earlier rungs.
            stop_last_trials=False,
        )
    if settings.name == "median":
        # Otherwise Ray 2.60 pauses a trial once, when fewer than three have come as far and others
        # wait.
        never: Any = math.inf
        return MedianStoppingRule(
            time_attr="step", grace_period=settings.grace_steps, min_time_slice=never
        )
    if settings.name == "hyperband":
        return HyperBandScheduler(
            time_attr="step", max_t=settings.max_steps, reduction_factor=settings.reduction_factor
        )
    if settings.name == "pbt":
        return PopulationBasedTraining(
            time_attr="step",
            perturbation_interval=settings.interval_steps or settings.grace_steps,
            custom_explore_fn=explore,
            log_config=False,
        )
    if settings.name == "none":
        return FIFOScheduler()  # type: ignore[no-untyped-call]
    raise ValueError(f"no scheduler is called {settings.name!r}")


class RungValues:
    """A rung of asha: its step, the trials that reached it, and their values in order."""

    def __init__(self, step: float) -> None:
        self.step = step
        self.trials: set[str] = set()
        self.values: list[float] = []  # in increasing order

    def add(self, trial: str, value: float, minimize: bool) -> int:
        """Adds a trial, and returns its rank. Rank 1 is the best, and equal values share a rank."""
        better = (
            bisect_left(self.values, value)
            if minimize
            else len(self.values) - bisect_right(self.values, value)
        )
        self.trials.add(trial)
        insort(self.values, value)
        return better + 1


class Watched(TrialScheduler):
    """A scheduler of Ray Tune that sees every report once, and whose decisions are known.

    `decisions` holds, for each trial, the newest decision that is not yet recorded. Its entries:

    - `action`: continue or stop.
    - `step` and `value`: the step of the report, and its value of the metric. For median, `value`
      is the trial's best value so far.
    - `cutoff`: the value that the trial had to reach; None when nothing was compared.
    - `of`: the number of trials that were compared, this trial included.
    - `rung` and `rank`, for asha: the rung, and the rank of the trial there so far.
    - `reason`: why a trial was stopped that was not compared with others; else not there.

    Args:
        inner: the scheduler of Ray Tune.
        settings: the scheduler's settings in the space.
        metric: the name of the metric.
        minimize: True when less is better.
        trial_hours: the worker time after which a trial is stopped; None for no limit.
        max_at_once: the largest number of trials that run at once; None for no limit.
    """

    def __init__(
        self,
        inner: TrialScheduler,
        settings: Scheduler,
        metric: str,
        minimize: bool,
        trial_hours: float | None = None,
        max_at_once: int | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.inner: Any = inner
        self.name, self.metric_name, self.minimize = settings.name, metric, minimize
        self.pauses = settings.pauses
        self._trial_hours, self._max_at_once = trial_hours, max_at_once
        self._share = 1 / settings.reduction_factor
        self.decisions: dict[str, dict[str, Any]] = {}
        self._seen: dict[str, float] = {}  # the step of each trial's newest report
        self._rungs = [RungValues(step) for step in reversed(asha_rungs(settings))]
        self._grace = settings.grace_steps
        # Trials in the order in which they start. Some may have started already.
        self._waiting: OrderedDict[str, Any] = OrderedDict()
        self._past: dict[str, Past] = {}  # stand-ins for the trials of a log
        self._population: dict[str, dict[str, Any]] = {}  # what pbt knows of the trials of a log
        self._given_up: dict[str, Any] = {}  # trials that Tune has lost and that come again
        self._halving = False
        self.queued: list[str] = []  # trials that hyperband put into a bracket, not yet recorded

    def __reduce__(self) -> tuple[type, tuple[()]]:
        """Pickles as an empty scheduler: Ray 2.60 saves it in its state, and nothing reads that."""
        return FIFOScheduler, ()

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: object) -> bool:
        return True  # `make_scheduler` has set metric and mode

    def replay(self, events: Iterable[Event]) -> dict[str, dict[str, Any]]:
        """Recomputes the decisions of a log, and returns the newest decision of each trial."""
        if self.name == "pbt":
            self._replay_population(events)
            return {}
        newest: dict[str, dict[str, Any]] = {}
        first = "queued" if self.name == "hyperband" else "trial"
        for event in events:
            kind, name = event["event"], event.get("trial", "")
            if kind == first and (first == "queued" or name not in self._past):
                if name in self._past:  # the trial was lost before it ran, or runs again
                    self.stop_trial(self._past[name])
                self._past[name] = Past(name)
                self.inner.on_trial_add(self, self._past[name])
            elif kind == "restart" and event["cause"] == AGAIN and self.name == "hyperband":
                self._past.pop(name, None)  # the trial waits for a bracket
            elif kind == "report" and name in self._past and self._past[name].status in ALIVE:
                result = {key: event.get(key) for key in self.keys}
                if None not in (result["step"], result[self.metric_name]):
                    self._again(self._past[name], result)
                    if name in self.decisions:
                        newest[name] = self.decisions.pop(name)
            elif kind == "status" and name in self._past:
                self._ended(self._past[name], event["status"])
        stopped = {
            name: {"action": "stop"}
            for name, past in self._past.items()
            if past.status == Trial.TERMINATED
        }
        return stopped | newest

    def waiting(self) -> set[str]:
        """Returns the names of the trials of the log that wait in a bracket."""
        return {name for name, past in self._past.items() if past.status == Trial.PAUSED}

    def _ended(self, trial: "Past", how: str) -> None:
        if self.name == "hyperband":
            self.stop_trial(trial)
        elif self.name == "median" and how not in FAILURES and trial.last_result:
            # Ray 2.60 counts the last result of an ended trial twice, so the replay does, too.
            self.inner.on_trial_complete(self, trial, trial.last_result)

    def _again(self, trial: "Past", result: dict[str, Any]) -> None:
        trial.last_result, trial.status = result, Trial.RUNNING
        action = self.on_trial_result(self, trial, result)
        if self.name == "hyperband" and action == TrialScheduler.PAUSE:
            trial.status = Trial.PAUSED
        elif self.name == "hyperband" and action == TrialScheduler.STOP:
            self.stop_trial(trial)
        elif action == TrialScheduler.STOP:
            trial.status = Trial.TERMINATED

    def stop_trial(self, trial: "Past") -> None:
        """Stops a trial of the past. The scheduler gets this object as Tune's controller."""
        if trial.status in ALIVE:
            self.on_trial_remove(self, trial)
            trial.status = Trial.TERMINATED

    def _replay_population(self, events: Iterable[Event]) -> None:
        """Restores what pbt knows of its trials: their values, and when these were compared.

        The weights are in the checkpoints.
        """
        interval, sign = self.inner._perturbation_interval, -1.0 if self.minimize else 1.0
        for event in events:
            kind, name = event["event"], event.get("trial", "")
            known = self._population.get(name, {"last_perturbation_time": 0})
            if kind == "exploit":
                self._seen.pop(name, None)
                times = ("last_perturbation_time", "last_train_time")
                source = self._population.get(event["source"], {})
                self._population[name] = known | {
                    key: source[key] for key in times if key in source
                }
            elif (
                kind == "report"
                and event.get("step") is not None
                and event.get(self.metric_name) is not None
            ):
                step = self._seen[name] = event["step"]
                if step - known["last_perturbation_time"] >= interval:
                    score = {
                        "last_score": sign * event[self.metric_name],
                        "last_result": dict(event),
                    }
                    self._population[name] = score | {
                        "last_perturbation_time": step,
                        "last_train_time": step,
                    }

    def give_up(self, trial: Any) -> None:
        """Keeps a trial that Tune lost before it ran. It will come again under the same name."""
        self._given_up[trial.trial_id] = trial

    def forget(self, trial: str) -> None:
        """Lets a trial report earlier steps again, because it resumes from another's checkpoint."""
        self._seen.pop(trial, None)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: Mapping[str, Any]) -> str:
        step, value = result.get("step"), result.get(self.metric_name)
        if step is None or value is None or step <= self._seen.get(trial.trial_id, -1):
            return TrialScheduler.CONTINUE
        self._seen[trial.trial_id] = step
        if self.pauses and result.get("status") != "running":
            # The trial has ended. Ray 2.60 would pause it and wait for it forever.
            return TrialScheduler.STOP
        # A trial that has ended by itself needs no decision.
        runs_on = result.get("status") in (None, "running")
        is_over = runs_on and self._has_used_its_time(result)
        if is_over and self.pauses:
            return self._stop_for_its_time(trial, step, value)
        reason = self._reason(trial, step, value)
        action: str = self._settled(
            self.inner.on_trial_result, tune_controller, trial, dict(result)
        )
        if is_over and action == TrialScheduler.CONTINUE:
            return self._stop_for_its_time(trial, step, value)
        if (
            runs_on
            and reason is not None
            and action in (TrialScheduler.CONTINUE, TrialScheduler.STOP)
        ):
            self.decisions[trial.trial_id] = {
                "action": action.lower(),
                "step": step,
                "value": value,
            } | reason
        return action

    @property
    def keys(self) -> tuple[str, ...]:
        """Returns the keys of a report from which decisions are made."""
        return ("step", self.metric_name, "status", SECONDS.name)

    def _has_used_its_time(self, result: Mapping[str, Any]) -> bool:
        seconds = result.get(SECONDS.name) or 0.0
        return self._trial_hours is not None and seconds > 3600 * self._trial_hours

    def _stop_for_its_time(self, trial: Any, step: float, value: float) -> str:
        why = f"{TIME_IS_OVER}{self._trial_hours:g} h are over"
        stop = {"action": "stop", "step": step, "value": value, "reason": why}
        self.decisions[trial.trial_id] = stop
        return TrialScheduler.STOP

    def _reason(self, trial: Any, step: float, value: float) -> dict[str, Any] | None:
        """Returns the reason of a decision; None when there is no decision to make."""
        if self.name == "median":
            return self._median(trial, step, value)
        if self.name != "asha":
            return None
        for rung in self._rungs:
            if step >= rung.step:
                if trial.trial_id in rung.trials:
                    return None
                cutoff, rank = (
                    self._cutoff(rung.values),
                    rung.add(trial.trial_id, value, self.minimize),
                )
                return {"rung": rung.step, "cutoff": cutoff, "rank": rank, "of": len(rung.values)}
        return None

    def _cutoff(self, values: Sequence[float]) -> float | None:
        if not values:
            return None
        return float(
            np.percentile(values, 100 * (self._share if self.minimize else 1 - self._share))
        )

    def _median(self, trial: Any, step: float, value: float) -> dict[str, Any] | None:
        """Returns the reason of a decision of median, by the rule of Ray Tune.

        The rule compares the trial's best value so far with a median. That is the median, over the
        other trials, of each trial's mean value up to this step.
        """
        rule = self.inner
        if step < self._grace:
            return None
        others = [other for other in rule._trials_beyond_time(step) if other != trial]
        means = [mean for other in others if math.isfinite(mean := rule._running_mean(other, step))]
        before = [result[self.metric_name] for result in rule._results.get(trial, ())]
        best = (min if self.minimize else max)([*before, value])
        cutoff = float(np.median(means)) if len(means) >= rule._min_samples_required else None
        return {"value": best, "cutoff": cutoff, "of": len(means) + 1}

    # --- passed on ---

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        name = trial.trial_id
        is_new = self._waiting.get(name) is not trial
        self._waiting[name] = trial
        self._waiting.move_to_end(name)  # a trial that was lost starts after the others
        self._add(tune_controller, trial)
        if is_new and self.pauses and self._max_at_once is not None:
            self._hold_back(trial)

    def _hold_back(self, trial: Any) -> None:
        """Pauses a new trial, so that it starts only when `choose_trial_to_run` names it.

        Ray 2.60 starts a pending trial as soon as there are resources. `Trials` does not give other
        schedulers a trial that is one too many, but hyperband and pbt must know one that waits.
        """
        if trial.status != Trial.PENDING:
            return
        trial.set_status(Trial.PAUSED)
        if self.name == "hyperband":
            self.inner._trial_info[trial][0].trials_to_unpause.add(trial)

    def _add(self, tune_controller: Any, trial: Any) -> None:
        name = trial.trial_id
        if self.name == "hyperband":
            if name in self._past and self._past[name].status in ALIVE:
                self._take_place(self._past.pop(name), trial)
                return
            self.queued.append(name)
        self.inner.on_trial_add(tune_controller, trial)
        if name in self._population:
            vars(self.inner._trial_state[trial]).update(self._population.pop(name))
        if name in self._given_up:
            self._take_over(self._given_up.pop(name), trial)

    def _take_over(self, before: Any, trial: Any) -> None:
        """Gives a trial the results of the trial of the same name that Tune gave up."""
        known = {"median": "_results", "pbt": "_trial_state"}.get(self.name)
        if known is not None and before in getattr(self.inner, known):
            getattr(self.inner, known)[trial] = getattr(self.inner, known).pop(before)

    def _take_place(self, past: "Past", trial: Any) -> None:
        """Puts a trial into its bracket in place of its stand-in from the log.

        When the stand-in was paused, the trial waits there, too.
        """
        if past.status == Trial.PAUSED:
            trial.set_status(Trial.PAUSED)
            trial.update_last_result(past.last_result)
        bracket, band = self.inner._trial_info.pop(past)
        self.inner._trial_info[trial] = bracket, band
        bracket._live_trials = {
            trial if t == trial else t: result for t, result in bracket._live_trials.items()
        }
        bracket.trials_to_unpause = {trial if t == trial else t for t in bracket.trials_to_unpause}

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        self._settled(self.inner.on_trial_error, tune_controller, trial)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        self._settled(self.inner.on_trial_complete, tune_controller, trial, result)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        self._settled(self.inner.on_trial_remove, tune_controller, trial)

    def _settled(
        self, call: Callable[..., Any], tune_controller: Any, trial: Any, *result: dict[str, Any]
    ) -> Any:
        """Calls the scheduler, then halves the bracket of the trial as often as it is due.

        A bracket is due when every trial in it has reached its step.

        The hyperband of Ray 2.60 halves a bracket at most once per report, and not when a trial is
        gone. The other trials would wait forever. Calls that halving itself makes are only passed
        on.
        """
        if self.name != "hyperband" or self._halving:
            return call(tune_controller, trial, *result)
        self._halving, bracket = True, self.inner._trial_info[trial][0]
        action = call(tune_controller, trial, *result)
        while (
            action in (None, TrialScheduler.PAUSE)
            and bracket.current_trials()
            and bracket.cur_iter_done()
        ):
            action = self.inner._process_bracket(tune_controller, bracket)
        self._halving = False
        return action

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """Returns the next trial to start.

        When no trial pauses, that is the first trial that waits, as in Ray 2.60. Ray itself looks
        at all trials to find it, also at trials that have ended, and is slower.
        """
        if self.pauses:
            chosen = self.inner.choose_trial_to_run(tune_controller)
            is_paused = chosen is not None and chosen.status == Trial.PAUSED
            return None if is_paused and self._are_enough(tune_controller) else chosen
        while self._waiting:
            first = next(iter(self._waiting.values()))
            if first.status == Trial.PENDING:
                return first
            self._waiting.popitem(last=False)
        return None

    def _are_enough(self, tune_controller: Any) -> bool:
        """Returns whether as many trials have a worker, or wait for one, as may run at once."""
        if self._max_at_once is None:
            return False
        live = tune_controller.get_live_trials()
        return sum(t.status in (Trial.PENDING, Trial.RUNNING) for t in live) >= self._max_at_once

    def debug_string(self) -> str:
        return str(self.inner.debug_string())


class Past(SimpleNamespace):
    """The stand-in for a trial of the past, with the attributes that schedulers read.

    It equals the present trial of the same name, because the name is the identity of a trial.
    """

    def __init__(self, name: str) -> None:
        super().__init__(trial_id=name, status=Trial.PENDING, last_result={}, is_saving=False)

    def __hash__(self) -> int:  # type: ignore[override]
        return int(self.trial_id.removeprefix("trial-"))

    def __eq__(self, other: object) -> bool:
        return bool(self.trial_id == getattr(other, "trial_id", None))
