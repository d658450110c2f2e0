"""The trials of a search as Ray Tune has them: where they come from, and what a failure of theirs was."""

import json
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

from s2s_search.runs.failures import status_of
from s2s_search.runs.folder import trial_name
from s2s_search.runs.recorder import Config
from s2s_search.spaces.samplers import TPE
from s2s_search.statuses import LOST, OUT_OF_MEMORY
from s2s_search.tuning import cluster
from s2s_search.tuning.search import HPARAMS, NUMBER, Search


class Trials(SearchAlgorithm):
    """Hands trials to Tune: first those that go on, then new ones of the sampler's.

    A sampler that learns is asked no sooner than a trial can start.
    """

    def __init__(self, search: Search) -> None:
        self._search = search
        self._going_on = [(trial.number, trial.config, 0) for trial in reversed(search.going_on)]
        self._new = list(reversed(search.new))
        self._running: set[str] = set()
        self._slots, self._slots_due = 0, 0.0

    def __reduce__(self) -> tuple[type, tuple[()]]:
        """Ray 2.60 pickles what it is given into its own state: of this nothing."""
        return SearchAlgorithm, ()

    def add_configurations(self, experiments: Any) -> None:
        self._spec = experiments[0].spec
        self._trainable = get_trainable_cls(self._spec["run"])  # type: ignore[no-untyped-call]
        self._resources = self._trainable.default_resource_request({})

    def next_trial(self) -> Trial | None:
        if self._going_on:
            return self._trial(*self._going_on.pop())
        if isinstance(self._search.sampler, TPE) and len(self._running) >= self._slots_now():
            return None
        config = self._search.sampler.ask(self._new[-1]) if self._new else None
        if config is None:
            self._finished = True
            return None
        return self._trial(self._new.pop(), config)

    def again(self, number: int, config: Config, losses: int) -> None:
        """Takes back a trial that was lost before it ran: Ray 2.60 gives up such a trial."""
        self._going_on.append((number, dict(config), losses))

    def is_finished(self) -> bool:
        return self._finished and not self._going_on

    def _trial(self, number: int, config: Config, losses: int = 0) -> "SearchTrial":
        name = trial_name(number)
        self._running.add(name)
        tune_config = {NUMBER: number, HPARAMS: json.dumps(config)}
        shared = (self._search.space.search.retries, self._trainable, self._resources)
        return SearchTrial(self._spec, name, tune_config, losses, *shared)

    def _slots_now(self) -> int:
        if time.monotonic() > self._slots_due:
            self._slots_due = time.monotonic() + 10
            # At least 1: where no trial runs, Ray 2.60 asks for a trial until it gets one.
            self._slots = max(1, cluster.slots(self._search.space.resources))
        return self._slots

    def on_trial_complete(self, trial_id: str, result: object = None, error: bool = False) -> None:
        self._running.discard(trial_id)


class SearchTrial(Trial):
    """A trial of Tune's that knows which failure it met, and goes on elsewhere only when its worker was lost.

    It keeps of its reports the last and has no folder for Tune. It shares with the others what Ray 2.60
    would make anew for each: the class of its workers, and the resources, which Tune compares all the
    time.
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
        self.number: int = config[NUMBER]  # of its own: pbt gives it the configuration of another
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

    def __hash__(self) -> int:  # Ray 2.60 keeps trials in sets: small numbers come in their order
        return self.number

    def __eq__(self, other: object) -> bool:
        """To a scheduler it is also the one of before a kill; Tune must tell it from the one that it gave up."""
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
    """The status of a trial that met an error of Ray's, and the text of the error."""
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
