"""A scheduler of methods as Ray Tune's scheduler: trials that wait are paused trials of Ray Tune.

Ray Tune asks for a new trial before it asks which trial to run. A new trial therefore comes only
when the scheduler chooses one, and a worker is free.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from s2s_search.methods.pausing import NEW, TRAINS, WAITS, Pausing
from s2s_search.methods.reading import Reading, reading_of
from s2s_search.runs.events import Event
from s2s_search.runs.folder import trial_name
from s2s_search.statuses import ENDS_ITSELF, TIME_IS_OVER


class PausingScheduler(TrialScheduler):
    """Passes what Ray Tune says to a scheduler of methods, and its choices to Ray Tune.

    `slots` returns the number of trials that can train at once, and `has_new` whether further
    trials can begin. The source of trials sets both.

    Args:
        inner: the scheduler.
        name: its name in the space.
        metric: the name of the metric.
        trial_hours: the worker time after which a trial is stopped; None for no limit.
    """

    pauses = True

    def __init__(self, inner: Pausing, name: str, metric: str, trial_hours: float | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._trial_hours = trial_hours
        self.inner, self.name, self.metric_name = inner, name, metric
        self.slots: Callable[[], int] = lambda: 1
        self.has_new: Callable[[], bool] = lambda: True
        self.decisions: dict[str, dict[str, Any]] = {}
        self.queued: list[str] = []
        self._trials: dict[int, Any] = {}  # the newest trial of Ray Tune of each number

    def __reduce__(self) -> tuple[type, tuple[()]]:
        """Pickles as an empty scheduler: Ray 2.60 saves it in its state, and nothing reads that."""
        return FIFOScheduler, ()

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: object) -> bool:
        return True

    def replay(self, events: Iterable[Event]) -> dict[str, dict[str, Any]]:
        """Hears a log. A trial that was compared waits, unless it has trained on since then."""
        for event in events:
            kind, name = event["event"], event.get("trial", "")
            number = int(name.removeprefix("trial-")) if name else NEW
            if kind == "trial":
                self.inner.begin(number, event["config"])
            elif kind == "start" and number in self.inner.trials:
                self.inner.begin(number, {})
            elif kind == "restart" and number in self.inner.trials:
                # A trial that waited when the search was resumed still waits.
                if event["cause"] != "resume":
                    self.inner.begin(number, {})
            elif kind == "pause" and number in self.inner.trials:
                self.inner.trials[number].state = WAITS
            elif kind == "report" and number in self.inner.trials:
                self._hear_again(number, event)
            elif kind == "status" and name:
                self.inner.end(number)
        return {}

    def _hear_again(self, number: int, event: Event) -> None:
        reading = reading_of(event, self.metric_name)
        if reading is not None and reading.step > self.inner.trials[number].step:
            self.inner.hear(number, reading)
            if event.get("status") in ENDS_ITSELF:
                self.inner.end(number)

    def waiting(self) -> set[str]:
        """Returns the names of the trials that wait."""
        return {trial_name(number) for number in self.inner.of(WAITS)}

    # --- what Ray Tune calls ---

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        self._trials[trial.number] = trial
        known = self.inner.trials.get(trial.number)
        if known is not None and known.state == WAITS:
            trial.set_status(Trial.PAUSED)
            # Without a result Ray 2.60 would take it for one that has ended by itself.
            trial.update_last_result({"step": known.step, "status": "running"})
        else:
            self.inner.begin(trial.number, trial.hparams)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: Mapping[str, Any]) -> str:
        reading = reading_of(result, self.metric_name)
        if reading is None or reading.step <= self.inner.trials[trial.number].step:
            return TrialScheduler.CONTINUE
        if result.get("status") not in (None, "running"):
            self.inner.hear(trial.number, reading)
            self.inner.end(trial.number)
            return TrialScheduler.STOP
        if self._trial_hours is not None and reading.seconds > 3600 * self._trial_hours:
            self.inner.hear(trial.number, reading)
            self._decide(trial, reading, f"{TIME_IS_OVER}{self._trial_hours:g} h are over")
            return TrialScheduler.STOP
        goes_on = self.inner.report(trial.number, reading, self.has_new())
        action = TrialScheduler.CONTINUE if goes_on else TrialScheduler.PAUSE
        self._decide(trial, reading, self.inner.reason(trial.number), action)
        return action

    def _decide(self, trial: Any, reading: Reading, why: str | None, action: str = "stop") -> None:
        """Keeps a decision for the log, with what decided it."""
        if why is not None:
            decision = {
                "action": action.lower(),
                "step": reading.step,
                "value": reading.value,
                "reason": why,
            }
            self.decisions[trial.trial_id] = decision

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """Returns the trial that gets the next free worker; None when there is none."""
        for number in self.inner.of(TRAINS):
            if self._trials[number].status == Trial.PENDING:
                return self._trials[number]
        if not self._has_room():
            return None
        chosen = self.inner.choose(self.has_new())
        if chosen == NEW:
            return None  # the source of trials brings it
        if chosen is not None:
            self.inner.begin(chosen, {})
            return self._trials[chosen]
        for dropped in self.inner.dropped(self.has_new()):
            tune_controller.stop_trial(self._trials[dropped])
        return None

    def wants_new(self) -> bool:
        """Returns whether a new trial should begin now."""
        is_pending = any(
            self._trials[number].status == Trial.PENDING for number in self.inner.of(TRAINS)
        )
        return not is_pending and self._has_room() and self.inner.choose(self.has_new()) == NEW

    def is_over(self) -> bool:
        """Returns whether no trial will train any more."""
        return not self.inner.of(TRAINS) and self.inner.choose(self.has_new()) is None

    def _has_room(self) -> bool:
        return len(self.inner.of(TRAINS)) < self.slots()

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        self.inner.end(trial.number)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        self.inner.end(trial.number)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        self.inner.end(trial.number)

    def give_up(self, trial: Any) -> None:
        """Keeps the place of a trial that Tune lost before it ran. It comes again."""
        self.inner.begin(trial.number, {})

    def forget(self, trial: str) -> None:
        """Does nothing: only pbt copies weights."""

    def debug_string(self) -> str:
        return f"{self.name}: {len(self.inner.of(TRAINS))} train, {len(self.inner.of(WAITS))} wait"
