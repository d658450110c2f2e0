"""When a trial is stopped: Ray Tune's schedulers, watched.

Tune decides. `Watched` stands in front of it: what Tune has seen it does not see again, each decision is written down
with its reason, and after a kill the decisions of the past are made again from the log, so that rungs and brackets are
as they were.
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

from s2s_search.runs.events import Event
from s2s_search.runs.failures import AGAIN
from s2s_search.spaces.settings import Scheduler
from s2s_search.spaces.space import Space
from s2s_search.statuses import FAILURES

RUNS = (Trial.PENDING, Trial.RUNNING, Trial.PAUSED)

Explore = Callable[[dict[str, Any]], dict[str, Any]]


def make_scheduler(space: Space, explore: Explore) -> "Watched":
    """The scheduler of a space. `explore` changes Tune's configuration of a trial, for pbt."""
    settings = space.scheduler
    inner = _inner(settings, explore)
    inner.set_search_properties(
        space.metric.name, "min" if space.metric.goal == "minimize" else "max"
    )
    return Watched(inner, settings, space.metric.name, space.metric.goal == "minimize")


def _inner(settings: Scheduler, explore: Explore) -> TrialScheduler:
    if settings.name == "asha":
        return AsyncHyperBandScheduler(
            time_attr="step",
            max_t=settings.max_steps,
            grace_period=settings.grace_steps,
            reduction_factor=settings.reduction_factor,
            # A trial ends by itself. With True, Ray 2.60 compares late reports at rungs long passed.
            stop_last_trials=False,
        )
    if settings.name == "median":
        # Ray 2.60 else pauses a trial once, if fewer than three have come as far and others wait.
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
    return FIFOScheduler()  # type: ignore[no-untyped-call]


def rungs(settings: Scheduler) -> list[float]:
    """The steps at which asha compares trials, upwards."""
    count = int(
        math.log(settings.max_steps / settings.grace_steps) / math.log(settings.reduction_factor)
        + 1
    )
    return [settings.grace_steps * settings.reduction_factor**k for k in range(count)]


class RungValues:
    """A step at which asha compares trials: those that came to it, and their values in order."""

    def __init__(self, step: float) -> None:
        self.step = step
        self.trials: set[str] = set()
        self.values: list[float] = []  # upwards

    def add(self, trial: str, value: float, minimize: bool) -> int:
        """Takes in a trial, and gives its rank: 1 is the best, and the equal share one."""
        better = (
            bisect_left(self.values, value)
            if minimize
            else len(self.values) - bisect_right(self.values, value)
        )
        self.trials.add(trial)
        insort(self.values, value)
        return better + 1


class Watched(TrialScheduler):
    """A scheduler of Tune's that sees every report once, and whose decisions are known.

    `decisions` holds by trial the newest decision that is not yet written down: `action` (continue or stop), `step`,
    `value` (of the metric), `cutoff` (what it had to reach, None where nothing was compared), and for asha `rung`,
    `rank` and `of` (its place among those that came to the rung so far).
    """

    def __init__(
        self, inner: TrialScheduler, settings: Scheduler, metric: str, minimize: bool
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.inner: Any = inner
        self.name, self.metric_name, self.minimize = settings.name, metric, minimize
        self.pauses = settings.pauses
        self._share = 1 / settings.reduction_factor
        self.decisions: dict[str, dict[str, Any]] = {}
        self._seen: dict[str, float] = {}  # the newest steps
        self._rungs = [RungValues(step) for step in reversed(rungs(settings))]
        self._grace = settings.grace_steps
        self._waiting: OrderedDict[str, Any] = (
            OrderedDict()
        )  # trials as they start; some have started already
        self._past: dict[str, Past] = {}  # the trials of a log, in brackets and rungs
        self._population: dict[str, dict[str, Any]] = {}  # of a log's trials, what pbt knows
        self._given_up: dict[str, Any] = {}
        self._halving = False
        self.queued: list[
            str
        ] = []  # trials that hyperband has put into a bracket, not yet written down

    def __reduce__(self) -> tuple[type, tuple[()]]:
        """Ray 2.60 pickles its scheduler into its own state: of this one nothing."""
        return FIFOScheduler, ()

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: object) -> bool:
        return True  # it has them

    def replay(self, events: Iterable[Event]) -> dict[str, dict[str, Any]]:
        """Makes the decisions of a log's trials again, and gives by trial the newest."""
        if self.name == "pbt":
            self._replay_population(events)
            return {}
        newest: dict[str, dict[str, Any]] = {}
        first = "queued" if self.name == "hyperband" else "trial"
        for event in events:
            kind, name = event["event"], event.get("trial", "")
            if kind == first and (first == "queued" or name not in self._past):
                if name in self._past:  # it was lost before it ran, or is run again
                    self.stop_trial(self._past[name])
                self._past[name] = Past(name)
                self.inner.on_trial_add(self, self._past[name])
            elif kind == "restart" and event["cause"] == AGAIN and self.name == "hyperband":
                self._past.pop(name, None)  # it waits for a bracket
            elif kind == "report" and name in self._past and self._past[name].status in RUNS:
                result = {key: event.get(key) for key in ("step", self.metric_name, "status")}
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

    def _ended(self, trial: "Past", how: str) -> None:
        if self.name == "hyperband":
            self.stop_trial(trial)
        elif self.name == "median" and how not in FAILURES and trial.last_result:
            self.inner.on_trial_complete(self, trial, trial.last_result)  # Ray 2.60 counts it twice

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
        """What a scheduler asks of Tune, of a trial of the past."""
        if trial.status in RUNS:
            self.on_trial_remove(self, trial)
            trial.status = Trial.TERMINATED

    def _replay_population(self, events: Iterable[Event]) -> None:
        """What pbt knows of its trials: values, and when they were compared. Its weights are in their checkpoints."""
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
        """Keeps what is known of a trial that will come again under the same name: Tune lost it before it ran."""
        self._given_up[trial.trial_id] = trial

    def forget(self, trial: str) -> None:
        """Lets a trial report steps again that it has reported: it goes on from another's checkpoint."""
        self._seen.pop(trial, None)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: Mapping[str, Any]) -> str:
        step, value = result.get("step"), result.get(self.metric_name)
        if step is None or value is None or step <= self._seen.get(trial.trial_id, -1):
            return TrialScheduler.CONTINUE
        self._seen[trial.trial_id] = step
        if self.pauses and result.get("status") != "running":
            # The trial has ended. Ray 2.60 would pause it, and wait for it for ever.
            return TrialScheduler.STOP
        reason = self._reason(trial, step, value)
        action: str = self._settled(
            self.inner.on_trial_result, tune_controller, trial, dict(result)
        )
        runs_on = result.get("status") in (
            None,
            "running",
        )  # what has ended by itself is not decided about
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

    def _reason(self, trial: Any, step: float, value: float) -> dict[str, Any] | None:
        """What a decision rests on; None where there is none to make."""
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
        """The best value so far against the median of the others' means up to this step, as Tune's rule has them."""
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
        self._waiting[name] = trial
        self._waiting.move_to_end(name)  # one that was lost
        if self.name == "hyperband":
            if name in self._past and self._past[name].status in RUNS:
                self._take_place(self._past.pop(name), trial)
                return
            self.queued.append(name)
        self.inner.on_trial_add(tune_controller, trial)
        if name in self._population:
            vars(self.inner._trial_state[trial]).update(self._population.pop(name))
        if name in self._given_up:
            self._take_over(self._given_up.pop(name), trial)

    def _take_over(self, before: Any, trial: Any) -> None:
        """Lets a trial have the results of the one of its name that Tune gave up."""
        known = {"median": "_results", "pbt": "_trial_state"}.get(self.name)
        if known is not None and before in getattr(self.inner, known):
            getattr(self.inner, known)[trial] = getattr(self.inner, known).pop(before)

    def _take_place(self, past: "Past", trial: Any) -> None:
        """Puts a trial where the one of the past is in its bracket; it waits there where that one was paused."""
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
        """Makes a call, then halves the trial's bracket for as long as all that are in it have passed its step.

        The hyperband of Ray 2.60 halves once a report, and not again when a trial is gone: the others
        would wait for ever. What halving itself calls is passed on alone.
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

        Where no trial pauses, it is the first that waits, as Ray 2.60 chooses it too. Ray looks at all
        trials for that, also at those that have ended.
        """
        if self.pauses:
            return self.inner.choose_trial_to_run(tune_controller)
        while self._waiting:
            first = next(iter(self._waiting.values()))
            if first.status == Trial.PENDING:
                return first
            self._waiting.popitem(last=False)
        return None

    def debug_string(self) -> str:
        return str(self.inner.debug_string())


class Past(SimpleNamespace):
    """A trial of the past, as far as a scheduler looks at it; equal to the one of now that has its name."""

    def __init__(self, name: str) -> None:
        super().__init__(trial_id=name, status=Trial.PENDING, last_result={}, is_saving=False)

    def __hash__(self) -> int:  # type: ignore[override]
        return int(self.trial_id.removeprefix("trial-"))

    def __eq__(self, other: object) -> bool:
        return bool(self.trial_id == getattr(other, "trial_id", None))
