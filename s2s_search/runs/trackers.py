"""The trackers TensorBoard, MLflow and Weights & Biases. Each trial is a run of its own there.

The driver's main thread puts calls into queues. Each tracker reads its queue in a thread of its
own, so that the search waits for none of them. A tracker that fails is named, and gets no more
calls. By default trackers write below the run folder: to tensorboard/, to mlflow.db, and to wandb/
offline.
"""

import importlib.util
import json
import logging
import os
import queue
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from s2s_search.errors import ConfigError, nearest
from s2s_search.runs.events import Event
from s2s_search.runs.folder import MLFLOW, TENSORBOARD
from s2s_search.runs.log import now
from s2s_search.statuses import FAILURES

SECONDS_TO_END = 20.0  # the longest time that a search waits at its end for its trackers
# The time between two writes of Weights & Biases, and so the most that a kill of the search loses.
SECONDS_BETWEEN_WRITES = 1.0
NO_METRICS = ("step", "time", "parameters")  # numbers of a report that are no metrics
# Characters that Weights & Biases refuses in a project's name or a run's id.
NOT_IN_NAMES = re.compile(r"[/\\#?%:;,'\x00-\x1f]")
LONGEST_NAME = 128  # the characters that a project or a group may have in Weights & Biases
LONGEST_NAME_IN_ID = 64  # in bytes, because a run's id is part of the name of a file

Settings = Mapping[str, object]  # hyperparameters: dotted keys to numbers, bools, strings


class Tracker(Protocol):
    """A tracker. It is made when the first trial begins.

    When it raises an error, only the tracker stops, and the search continues.
    """

    def begin(self, trial: str, settings: Settings) -> None:
        """Records that a trial begins, or is resumed after the search was interrupted.

        A trial that the scheduler pauses counts as running.
        """

    def report(self, trial: str, step: int, metrics: Mapping[str, float], when: float) -> None:
        """Records a report of a trial that has begun.

        Steps increase. The exception is pbt: a trial that copies weights continues at their step.

        Args:
            trial: the name of the trial.
            step: the step of the report.
            metrics: the numbers of the report, by name.
            when: the time of the report, in seconds since 1970.
        """

    def end(self, trial: str, status: str) -> None:
        """Records that a trial ended. Status `running`: the search ends before the trial."""


def search_id(name: str, search: Event) -> str:
    """Returns an id of a search that stays the same when it is resumed or its folder is moved.

    The id holds the name of the space, the time when the search began (UTC), and the random mark of
    its search event. The mark is needed because many searches can begin at the same moment.
    """
    began = f"{name}-{datetime.fromtimestamp(search['time'], UTC):%Y%m%d-%H%M%S.%f}"
    mark = str(search.get("mark", ""))  # logs of earlier versions have no mark
    return f"{began}-{mark}" if mark.isalnum() else began


def sqlite_url(path: Path) -> str:
    """Returns the URL of a database file, whatever characters its path holds.

    Raises:
        ValueError: SQLAlchemy is older than 2.1 and cannot write such a URL.
    """
    from sqlalchemy import URL, make_url

    # The URL names the driver, because MLflow 3.17 makes folders with escapes in their names from
    # sqlite:///PATH.
    url = URL.create("sqlite+pysqlite", database=str(path)).render_as_string()
    if make_url(url).database != str(path):
        raise ValueError(f"SQLAlchemy 2.1 or newer is needed for a database at {path}")
    return url


class TensorBoard:
    """Writes event files with the writer of tensorboard, which loads neither torch nor TensorFlow.

    Each trial has a folder. It holds the metrics as scalars, and for the HParams tab the
    hyperparameters and the status at the end.
    """

    def __init__(self, folder: Path, name: str, search: Event) -> None:
        self._folder = folder / TENSORBOARD
        self._writers: dict[str, Any] = {}

    def begin(self, trial: str, settings: Settings) -> None:
        from tensorboard.plugins.hparams import summary_v2
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._writers[trial] = EventFileWriter(str(self._folder / trial))
        self._add(trial, summary_v2.hparams_pb(dict(settings), trial_id=trial), 0, now())

    def report(self, trial: str, step: int, metrics: Mapping[str, float], when: float) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=name, simple_value=value) for name, value in metrics.items()]
        self._add(trial, Summary(value=values), step, when)

    def end(self, trial: str, status: str) -> None:
        if status != "running":
            self._add(trial, _session_end(status in FAILURES), 0, now())
        self._writers.pop(trial).close()

    def _add(self, trial: str, summary: Any, step: int, when: float) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._writers[trial].add_event(Event(wall_time=when, step=step, summary=summary))
        self._writers[trial].flush()  # so that a kill of the search loses nothing


def _session_end(is_failure: bool) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    status = api_pb2.STATUS_FAILURE if is_failure else api_pb2.STATUS_SUCCESS
    end = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=now())
    about = metadata.create_summary_metadata(
        plugin_data_pb2.HParamsPluginData(session_end_info=end)
    )
    return Summary(
        value=[
            Summary.Value(
                tag=metadata.SESSION_END_INFO_TAG, metadata=about, tensor=metadata.NULL_TENSOR
            )
        ]
    )


class MLflow:
    """Writes runs of an MLflow experiment that has the name of the run folder.

    The runs go to a database in the folder, or to MLFLOW_TRACKING_URI. Each trial is a run with its
    hyperparameters as params, its metrics by step, and the tags `status` and `search`. The tag
    `search` is needed because, on a server, run folders of the same name share an experiment.
    """

    def __init__(self, folder: Path, name: str, search: Event) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # a search sends no telemetry
        from mlflow import MlflowClient

        for talkative in ("mlflow", "alembic"):
            logging.getLogger(talkative).setLevel(logging.WARNING)
        elsewhere = os.environ.get("MLFLOW_TRACKING_URI")
        self._client = MlflowClient(elsewhere or sqlite_url(folder / MLFLOW))
        known = self._client.get_experiment_by_name(folder.name)
        place = None if elsewhere else (folder / "mlruns").as_uri()
        self._experiment = (
            known.experiment_id if known else self._client.create_experiment(folder.name, place)
        )
        self._search = search_id(name, search)
        self._runs: dict[str, str] = {}

    def begin(self, trial: str, settings: Settings) -> None:
        from mlflow.entities import Param

        tags = {"search": self._search}
        named = self._client.search_runs([self._experiment], f"attributes.run_name = '{trial}'")
        before = [run for run in named if run.data.tags.get("search") == self._search]
        run = (
            before[0]
            if before
            else self._client.create_run(self._experiment, int(1000 * now()), tags, trial)
        )
        self._runs[trial] = run.info.run_id
        self._client.update_run(run.info.run_id, status="RUNNING")
        self._client.log_batch(
            run.info.run_id, params=[Param(key, str(value)) for key, value in settings.items()]
        )

    def report(self, trial: str, step: int, metrics: Mapping[str, float], when: float) -> None:
        from mlflow.entities import Metric

        batch = [Metric(name, value, int(1000 * when), step) for name, value in metrics.items()]
        self._client.log_batch(self._runs[trial], metrics=batch)

    def end(self, trial: str, status: str) -> None:
        state = {"running": "KILLED"} | dict.fromkeys(FAILURES, "FAILED")
        self._client.set_tag(self._runs[trial], "status", status)
        self._client.set_terminated(
            self._runs.pop(trial), state.get(status, "FINISHED"), int(1000 * now())
        )


class WeightsAndBiases:
    """Writes runs of a W&B project that has the name of the space.

    The runs are offline unless WANDB_MODE says otherwise, and `wandb sync` uploads them. Each trial
    is a run, in a group that has the name of the run folder. In names, characters that Weights &
    Biases refuses become hyphens, and names that are too long are cut. A trial that is resumed has
    another folder of the same run.

    The x axis of its charts is the metric `step`. The step of Weights & Biases itself cannot be
    used, because it drops values of earlier steps, and pbt returns to earlier steps.
    """

    def __init__(self, folder: Path, name: str, search: Event) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        project, group = NOT_IN_NAMES.sub("-", name), NOT_IN_NAMES.sub("-", folder.name)
        self._project, self._group = project[:LONGEST_NAME], group[:LONGEST_NAME]
        short = (
            project.strip().encode(errors="replace")[:LONGEST_NAME_IN_ID].decode(errors="ignore")
        )
        self._folder, self._search = folder, search_id(short, search)
        self._runs: dict[str, Any] = {}

    def begin(self, trial: str, settings: Settings) -> None:
        import wandb

        mode: Any = os.environ.get("WANDB_MODE", "offline")
        quiet: dict[str, Any] = {
            "silent": True,
            "console": "off",
            "x_disable_stats": True,
            "disable_git": True,
            "save_code": False,
            "x_transaction_log_flush_interval": SECONDS_BETWEEN_WRITES,
        }
        self._runs[trial] = wandb.init(
            project=self._project,
            group=self._group,
            id=f"{self._search}-{trial}",
            name=trial,
            config=dict(settings),
            dir=self._folder,
            mode=mode,
            resume="allow",
            reinit="create_new",  # so that runs of other trials stay open
            settings=wandb.Settings(**quiet),
        )
        self._runs[trial].define_metric("*", step_metric="step")

    def report(self, trial: str, step: int, metrics: Mapping[str, float], when: float) -> None:
        run = self._runs[trial]
        run.log({**metrics, "step": step}, step=max(step, run.step + 1))

    def end(self, trial: str, status: str) -> None:
        run = self._runs.pop(trial)
        run.summary["status"] = status
        run.finish(exit_code=int(status in FAILURES))


TRACKERS: dict[str, Callable[[Path, str, Event], Tracker]] = {
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
    "wandb": WeightsAndBiases,
}


def check_trackers(names: Iterable[str]) -> None:
    """Raises ConfigError with all problems: trackers that are unknown or not installed."""
    problems = []
    for name in names:
        if name not in TRACKERS:
            problems.append(f"--log: unknown tracker {name!r}{nearest(name, TRACKERS)}")
        elif importlib.util.find_spec(name) is None:
            problems.append(f"--log {name}: is not installed; pip install 's2s-search[log]'")
    if problems:
        raise ConfigError(problems)


class Trackers:
    """The trackers of a search, by their names in TRACKERS. They get events that are recorded.

    A tracker is made from the run folder, the name of the space, and the search event. It gets the
    hyperparameters with which a trial began, also when pbt changes them later. It gets no report of
    a divergence. When a search is killed, its trials stay open in the trackers. The end of such a
    trial is passed on when it is known, also when the trial never runs again.

    `problems` holds a sentence for each tracker that failed and is off.
    """

    def __init__(self, names: Sequence[str], folder: Path, space: str) -> None:
        self.problems: list[str] = []
        self._settings: dict[str, Settings] = {}
        self._running: set[str] = set()
        self._left_open: set[str] = set()  # trials that ran when the search was killed
        self._off: set[str] = set()
        self._search: Event = {"time": 0.0}
        self._calls: dict[str, queue.SimpleQueue[tuple[Any, ...]]] = {
            name: queue.SimpleQueue() for name in names
        }
        self._threads = {
            name: threading.Thread(
                target=self._listen, args=(name, folder, space), name=name, daemon=True
            )
            for name in names
        }

    def recall(self, events: Iterable[Event]) -> None:
        """Reads the past of a search that is resumed. The trackers know it already."""
        for event in events:
            self._learn(event)
            kind, trial = event["event"], event.get("trial", "")
            if kind in ("trial", "start"):
                self._left_open.add(trial)
            elif kind == "status" and trial:
                self._left_open.discard(trial)
            # The search ended in order: `close` has passed on the end of all trials.
            elif kind == "status":
                self._left_open.clear()

    def hear(self, event: Event) -> None:
        """Passes an event on to the trackers."""
        self._learn(event)
        kind, trial = event["event"], event.get("trial", "")
        if kind in ("trial", "start") and trial not in self._running:
            self._begin(trial)
        elif kind == "report" and trial in self._running and event.get("status") != "diverged":
            self._call("report", trial, event["step"], _metrics(event), event["time"])
        elif kind == "status" and trial in self._running | self._left_open:
            self._end(trial, event["status"])

    def _learn(self, event: Event) -> None:
        if event["event"] == "search":
            self._search = event
        elif event["event"] == "trial":
            self._settings[event["trial"]] = _tracked_settings(event)

    def _begin(self, trial: str) -> None:
        self._left_open.discard(trial)
        self._running.add(trial)
        self._call("begin", trial, self._settings.get(trial, {}))

    def _end(self, trial: str, status: str) -> None:
        if trial in self._left_open:
            self._begin(trial)  # for a tracker that the killed search did not have
        self._running.remove(trial)
        self._call("end", trial, status)

    def close(self) -> None:
        """Ends the runs of all open trials, and waits at most SECONDS_TO_END for the trackers.

        Open trials are those that still run, and those that ran when the search was killed.
        """
        for trial in sorted(self._running | self._left_open):
            self._end(trial, "running")
        self._call("")
        due = time.monotonic() + SECONDS_TO_END
        for name, thread in self._threads.items():
            if thread.ident is not None:
                thread.join(max(due - time.monotonic(), 0.0))
            if thread.is_alive():
                self.problems.append(
                    f"--log {name}: has not taken all within {SECONDS_TO_END:g} seconds"
                )
        self._threads.clear()

    def _call(self, method: str, *values: object) -> None:
        for name, calls in self._calls.items():
            if name in self._off:
                continue
            calls.put((method, *values))
            if method == "begin" and self._threads[name].ident is None:
                self._threads[name].start()

    def _listen(self, name: str, folder: Path, space: str) -> None:
        """Passes the calls in a tracker's queue on to it. This runs in the tracker's own thread."""
        try:
            tracker = TRACKERS[name](folder, space, self._search)
            while (call := self._calls[name].get())[0]:
                getattr(tracker, call[0])(*call[1:])
        except Exception as error:  # no error of a tracker may end the search
            reason = (str(error).strip().splitlines() or [""])[0]
            self.problems.append(
                f"--log {name}: off from here on: {type(error).__name__}: {reason}"
            )
            self._off.add(name)


def _tracked_settings(event: Event) -> Settings:
    settings = {key: value for key, value in event["settings"].items() if value is not None}
    settings["train.seed"] = event["config"].get("train.seed", 0)
    return {
        key: json.dumps(value) if isinstance(value, dict) else value
        for key, value in settings.items()
    }


def _metrics(event: Event) -> dict[str, float]:
    numbers = {name: value for name, value in event.items() if type(value) in (int, float)}
    return {name: float(value) for name, value in numbers.items() if name not in NO_METRICS}
