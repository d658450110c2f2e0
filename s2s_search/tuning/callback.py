"""The callback of a search: it records what Ray Tune reports, and checks budgets and interrupts.

Ray Tune calls it in the driver's main thread, as it calls the scheduler and the source of trials.
The recorder, the display and the tables therefore need no locks. Only trackers have their own
threads.

For one report the order is: scheduler, `on_trial_result` (the log, then display and trackers), and
then Ray Tune carries out the decision. When a trial ends, its status is recorded before checkpoints
are deleted. The tables are written between two steps of Ray Tune's loop.
"""

import json
import math
import time
from typing import Any

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.result import AUTO_RESULT_KEYS, NODE_IP

from s2s_search.interrupts import Interrupt
from s2s_search.methods.reading import reading_of
from s2s_search.methods.samplers import objective_values
from s2s_search.runs.failures import error_message
from s2s_search.runs.folder import trial_name
from s2s_search.statuses import LOST
from s2s_search.tuning import cluster
from s2s_search.tuning.best_kept import BestKept
from s2s_search.tuning.pausing import PausingScheduler
from s2s_search.tuning.search import HPARAMS_KEY, NUMBER_KEY, Search
from s2s_search.tuning.trials import Trials

RAY_KEYS = {
    *AUTO_RESULT_KEYS,
    "done",
    "trial_id",
    "experiment_tag",
    "should_checkpoint",
    "checkpoint_dir_name",
}
# After this time without a running trial, the search says why.
SECONDS_WITHOUT_TRIALS = 10.0


class Over(Exception):
    """Raised to end a search in order, with a status and a message."""

    def __init__(self, status: str, message: str) -> None:
        super().__init__(message)
        self.status = status


class Listener(tune.Callback):
    """Passes the calls of Ray Tune on to the recorder. It can end Tune's loop between two steps."""

    def __init__(self, search: Search, trials: Trials, interrupt: Interrupt) -> None:
        self.search, self.recorder, self.interrupt = search, search.recorder, interrupt
        self.scheduler, self.trials = search.scheduler, trials
        self._started: dict[str, float] = {}  # when each running trial got its worker
        self._busy = search.busy
        self._begun = self._silent_since = time.monotonic()
        self._kept = BestKept(search)
        if isinstance(self.scheduler, PausingScheduler):
            self.scheduler.inner.seconds_left = self.seconds_left

    def __reduce__(self) -> tuple[type, tuple[()]]:
        """Pickles as an empty callback: Ray 2.60 pickles its callbacks, and nothing reads that."""
        return tune.Callback, ()

    def on_step_begin(self, iteration: int, trials: list[Any], **info: object) -> None:
        self.interrupt.check()
        self._check_budgets()
        if message := self.recorder.failing_alike():
            raise Over("failed", f"the first trials all failed alike: {message}")

    def on_step_end(self, iteration: int, trials: list[Any], **info: object) -> None:
        self.recorder.tick()
        if self.search.space.scheduler.pauses:
            self._note_pauses(trials)
        now = time.monotonic()
        if self._started:
            self._silent_since = now
        elif now - self._silent_since > SECONDS_WITHOUT_TRIALS:
            self._silent_since = now
            self.recorder.wait(cluster.why_waiting(self.search.space.resources))

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: object) -> None:
        self._write_queue()
        name, hparams = trial.trial_id, trial.config[HPARAMS_KEY]
        # pbt has given this trial the configuration of another one, with the other one's number.
        # That number is the only sign of an exploit, and names the trial whose weights are copied.
        if trial.config[NUMBER_KEY] != trial.number:
            self.scheduler.forget(name)
            self.recorder.exploit(name, trial_name(trial.config[NUMBER_KEY]), json.loads(hparams))
            trial.config = trial.config | {NUMBER_KEY: trial.number}
        self._started[name] = time.monotonic()
        self.recorder.begin_trial(name, json.loads(hparams))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: object
    ) -> None:
        # The scheduler has decided about this report already. The report is recorded first, and
        # the decision only if the report is news.
        self._write_queue()
        name = trial.trial_id
        for note in result.pop("notes", ()):
            self.recorder.note(f"{name}: {note}", name)
        metrics = {key: value for key, value in result.items() if key not in RAY_KEYS} | {
            "node": result.get(NODE_IP)
        }
        is_news = self.recorder.report(name, metrics)
        reading = reading_of(metrics, self.search.space.metric.name)
        if is_news and reading is not None:
            self.search.sampler.report(trial.number, reading)
        if is_news and name in self.scheduler.decisions:
            self.recorder.decision(name, self.scheduler.decisions.pop(name))

    def on_trial_complete(
        self, iteration: int, trials: list[Any], trial: Any, **info: object
    ) -> None:
        status = trial.last_result.get("status", "finished")
        self._stop_clock(trial.trial_id)
        self.recorder.end_trial(trial.trial_id, "stopped" if status == "running" else status)
        self._tell(trial, "stopped" if status == "running" else status)

    def on_trial_recover(
        self, iteration: int, trials: list[Any], trial: Any, **info: object
    ) -> None:
        self._stop_clock(trial.trial_id)
        self.recorder.restart(trial.trial_id, LOST, error_message(trial.error))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: object) -> None:
        self._stop_clock(trial.trial_id)
        hparams = json.loads(trial.config[HPARAMS_KEY])
        if not self.recorder.has_begun(trial.trial_id):  # the trial never got a worker
            self.recorder.begin_trial(trial.trial_id, hparams)
        if trial.should_recover():
            self.recorder.restart(trial.trial_id, LOST, error_message(trial.error))
            self.scheduler.give_up(trial)
            self.trials.again(trial.number, hparams, trial.losses)
            return
        self.recorder.fail_trial(trial.trial_id, trial.failure, trial.error)
        self._tell(trial, trial.failure)

    def _tell(self, trial: Any, status: str) -> None:
        values = objective_values(self.recorder.best(trial.trial_id), self.search.space)
        self.search.sampler.tell(
            trial.number, json.loads(trial.config[HPARAMS_KEY]), values, status
        )
        self._kept.ended(trial.trial_id, status)

    def _write_queue(self) -> None:
        for name in self.scheduler.queued:
            self.recorder.queue(name)
        self.scheduler.queued.clear()

    def _note_pauses(self, trials: list[Any]) -> None:
        for trial in trials:
            if trial.status == Trial.PAUSED and trial.trial_id in self._started:
                self._stop_clock(trial.trial_id)
                self.recorder.pause(trial.trial_id)

    def _stop_clock(self, name: str) -> None:
        self._busy += time.monotonic() - self._started.pop(name, time.monotonic())

    def _check_budgets(self) -> None:
        budget = self.search.space.search
        if self._hours_left() < 0:
            raise Over("out of budget", f"search.hours: {budget.hours:g} hours are over")
        if self._gpu_hours_left() < 0:
            law = f"search.gpu_hours: {budget.gpu_hours:g} GPU hours are over"
            raise Over("out of budget", law)

    def _hours_left(self) -> float:
        hours = self.search.space.search.hours
        if hours is None:
            return math.inf
        return hours - (self.search.spent + time.monotonic() - self._begun) / 3600

    def _gpu_hours_left(self) -> float:
        gpu_hours = self.search.space.search.gpu_hours
        if gpu_hours is None:
            return math.inf
        now = time.monotonic()
        busy = self._busy + sum(now - began for began in self._started.values())
        return gpu_hours - busy * self.search.space.resources.gpu / 3600

    def seconds_left(self) -> float:
        """Returns the time until a budget is spent, if as many trials train as now."""
        gpus = self.search.space.resources.gpu * max(1, len(self._started))
        by_gpus = self._gpu_hours_left() / gpus if gpus else math.inf
        return 3600 * min(self._hours_left(), by_gpus)
