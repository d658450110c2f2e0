"""The trials of a search as Ray Tune has them: their source, and how their failures are classified.

A trial's id in Ray Tune, its name and the name of its folder are the same. Ray Tune's configuration
of a trial holds two values: its number, and its hyperparameters as JSON text (tuning.search).
"""

import json
import math
import time
from collections.abc import Mapping
from typing import Any

from ray.exceptions import (
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RayTaskError,
    WorkerCrashedError,
)
from ray.tune.experiment import Trial
from ray.tune.registry import get_trainable_cls
from ray.tune.search import SearchAlgorithm

from s2s_search.methods.samplers import Listed
from s2s_search.runs.failures import status_of
from s2s_search.runs.folder import trial_name
from s2s_search.runs.recorder import Config
from s2s_search.statuses import LOST, OUT_OF_MEMORY
from s2s_search.tuning import cluster
from s2s_search.tuning.pausing import PausingScheduler
from s2s_search.tuning.search import HPARAMS_KEY, NUMBER_KEY, Search


class Trials(SearchAlgorithm):
    """Gives trials to Ray Tune: first the trials that are resumed, then new trials of the sampler.

    A sampler that learns is only asked when a trial can start, so that it knows as many results as
    possible. With search.max_at_once, no trial is given that would be one too many.
    """

    def __init__(self, search: Search) -> None:
        self._search = search
        self._resumed = [(trial.number, trial.config, 0) for trial in reversed(search.resumed)]
        self._new = list(reversed(search.new))
        self._alive: dict[str, SearchTrial] = {}
        self._slots, self._slots_due = 0, 0.0
        self._finished = False
        if isinstance(search.scheduler, PausingScheduler):
            search.scheduler.slots = lambda: search.space.search.at_once(self._slots_now())
            search.scheduler.has_new = lambda: bool(self._new)

    def __reduce__(self) -> tuple[type, tuple[()]]:
        """Pickles as an empty object: Ray 2.60 saves it in its state, and nothing reads that."""
        return SearchAlgorithm, ()

    def add_configurations(self, experiments: Any) -> None:
        self._spec = experiments[0].spec
        self._trainable = get_trainable_cls(self._spec["run"])  # type: ignore[no-untyped-call]
        self._resources = self._trainable.default_resource_request({})

    def next_trial(self) -> Trial | None:
        scheduler = self._search.scheduler
        if isinstance(scheduler, PausingScheduler):
            return self._chosen(scheduler)
        if self._are_enough():
            return None
        if self._resumed:
            return self._trial(*self._resumed.pop())
        return self._new_trial()

    def _chosen(self, scheduler: PausingScheduler) -> Trial | None:
        """Returns a resumed trial, or the new one that a scheduler of methods chooses."""
        if self._resumed:
            return self._trial(*self._resumed.pop())
        # Not before: Ray 2.60 ends the processes of paused trials when no new trial can come.
        self._finished = scheduler.is_over()
        return self._new_trial() if scheduler.wants_new() else None

    def _new_trial(self) -> Trial | None:
        config = self._search.sampler.ask(self._new[-1]) if self._new else None
        if config is None:
            self._finished = True
            return None
        return self._trial(self._new.pop(), config)

    def again(self, number: int, config: Config, losses: int) -> None:
        """Queues a trial again that was lost before it ran: Ray 2.60 gives up such a trial."""
        self._resumed.append((number, dict(config), losses))

    def is_finished(self) -> bool:
        # Ray 2.60 ends the process of a paused trial when no new trials come and none waits for a
        # worker. With search.max_at_once none waits, and each resumed trial would need a new one.
        is_limited = self._search.space.search.max_at_once is not None
        if isinstance(self._search.scheduler, PausingScheduler):
            return self._finished and not self._resumed
        waits = is_limited and any(t.status == Trial.PAUSED for t in self._alive.values())
        return self._finished and not self._resumed and not waits

    def _are_enough(self) -> bool:
        """Returns whether as many trials run, or wait for their first worker, as may do so.

        Paused trials do not count. Where a scheduler pauses trials, more trials may wait: hyperband
        puts them into brackets, and would halve a bracket of the trials so far, and pbt would pause
        no trial. A sampler that learns gives one of them.
        """
        space = self._search.space
        most = math.inf if space.search.max_at_once is None else space.search.max_at_once
        ahead = cluster.AHEAD
        if not isinstance(self._search.sampler, Listed):
            most, ahead = min(most, self._slots_now()), 1
        if most == math.inf:
            return False
        if space.scheduler.pauses:
            most += ahead
        return sum(map(self._takes_a_place, self._alive.values())) >= most

    def _takes_a_place(self, trial: "SearchTrial") -> bool:
        if trial.status == Trial.PAUSED:
            return not self._search.recorder.has_begun(trial.trial_id)
        return trial.status in (Trial.PENDING, Trial.RUNNING)

    def _trial(self, number: int, config: Config, losses: int = 0) -> "SearchTrial":
        name = trial_name(number)
        tune_config = {NUMBER_KEY: number, HPARAMS_KEY: json.dumps(config)}
        shared = (self._search.space.search.retries, self._trainable, self._resources)
        trial = SearchTrial(self._spec, name, tune_config, losses, *shared)
        self._alive[name] = trial
        return trial

    def _slots_now(self) -> int:
        if time.monotonic() > self._slots_due:
            self._slots_due = time.monotonic() + 10
            # At least 1, because Ray 2.60 asks for a trial until it gets one when no trial runs.
            self._slots = max(1, cluster.slots(self._search.space.resources))
        return self._slots

    def on_trial_complete(self, trial_id: str, result: object = None, error: bool = False) -> None:
        self._alive.pop(trial_id, None)


class SearchTrial(Trial):
    """A trial of Ray Tune that knows the class of its failure.

    It is resumed on another worker only when its worker was lost. It keeps only its last report,
    and has no folder for Tune. All trials share the class of their workers and their resources. Ray
    2.60 would make both again for each trial, and compares the resources all the time.

    Args:
        spec: the experiment, as Ray Tune hands it to `Trials`.
        name: the trial's name, which is its id and its folder's name.
        config: Ray Tune's configuration of the trial: the number and the JSON text.
        losses: how often the trial has lost its worker so far.
        retries: how often it may lose its worker.
        trainable: the class of the workers.
        resources: the resources of a worker.
    """

    def __init__(
        self,
        spec: Mapping[str, Any],
        name: str,
        config: dict[str, Any],
        losses: int,
        retries: int,
        trainable: type,
        resources: Any,
    ) -> None:
        # The trial keeps its number here, because pbt gives it a configuration with another number.
        self.number: int = config[NUMBER_KEY]
        super().__init__(
            spec["run"],
            config=config,
            trial_id=name,
            storage=spec["storage"],
            checkpoint_config=spec.get("checkpoint_config"),
            trial_name_creator=lambda trial: trial.trial_id,
            trial_dirname_creator=lambda trial: trial.trial_id,
        )
        self.retries, self.losses = retries, losses
        self.failure, self.error = "", ""
        self._trainable, self._resources = trainable, resources
        self.storage.trial_dir_name = name  # type: ignore[union-attr]

    @property
    def hparams(self) -> dict[str, Any]:
        """The configuration of the trial."""
        found: dict[str, Any] = json.loads(self.config[HPARAMS_KEY])
        return found

    def __hash__(self) -> int:
        # Ray 2.60 keeps trials in sets. With small hashes, sets give trials in order of numbers.
        return self.number

    def __eq__(self, other: object) -> bool:
        """Returns whether both are the same trial.

        A trial equals the `schedulers.Past` of its name, so that schedulers find it after a kill.
        It does not equal an older `SearchTrial` of its name, which Tune gave up.
        """
        if isinstance(other, SearchTrial):
            return self is other
        return self.trial_id == getattr(other, "trial_id", None)

    def get_trainable_cls(self) -> type:
        return self._trainable

    def create_placement_group_factory(self) -> None:
        self.placement_group_factory = self._resources

    def init_local_path(self) -> None: ...

    def update_last_result(self, result: dict[str, Any]) -> None:
        self.run_metadata.last_result, self.run_metadata.last_result_time = result, time.time()

    def handle_error(self, exc: Exception | None = None) -> None:
        self.failure, self.error = failure_of(exc)
        if self.failure == LOST and not getattr(exc, "preempted", False):
            self.losses += 1

    def should_recover(self) -> bool:
        return self.failure == LOST and self.losses <= self.retries

    def get_json_state(self) -> tuple[str, str]:
        return "{}", "{}"  # the record that Ray 2.60 keeps of a trial is never read


def failure_of(error: Exception | None) -> tuple[str, str]:
    """Returns the status of a trial that met an error of Ray, and the text of the error."""
    cause = error.cause if isinstance(error, RayTaskError) else error
    if isinstance(cause, RayError):
        text = str(cause)
        if isinstance(cause, OutOfMemoryError) or "running low on memory" in text:
            return OUT_OF_MEMORY, text
        if "creation task" not in text and isinstance(
            cause, RayActorError | NodeDiedError | WorkerCrashedError | ObjectLostError
        ):
            return LOST, text
    is_ours = isinstance(cause, RuntimeError) and str(cause).startswith("Traceback")
    text = str(cause) if is_ours else str(error)
    return status_of(text), text
