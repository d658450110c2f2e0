"""Loggers: TensorBoard, MLflow and Weights & Biases, and what a search tells them, each trial as a run of its own.

Each listens in a thread of its own, so that a search waits for none of them; one that fails is named and hears no more.
Without another wish they write below the run folder: to tensorboard/, to mlflow.db, and to wandb/ offline.
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

SECONDS_TO_END = 20.0  # that a search waits at its end for what they have not written yet
SECONDS_BETWEEN_WRITES = 1.0  # of Weights & Biases: what a kill of the search costs there
NO_METRICS = ("step", "time", "parameters")  # numbers of a report
NOT_IN_NAMES = re.compile(
    r"[/\\#?%:;,'\x00-\x1f]"
)  # what Weights & Biases refuses in a project's name or a run's id
LONGEST_NAME = 128  # characters of a project or group there
LONGEST_NAME_IN_ID = 64  # bytes: a run's id is part of the name of a file

Settings = Mapping[str, object]  # hyperparameters by dotted keys: numbers, bools, strings


class Logger(Protocol):
    """A tool that hears of trials. It is made when the first begins; what it raises ends it and nothing else."""

    def begin(self, trial: str, settings: Settings) -> None:
        """Hears that a trial begins, or goes on after the search was interrupted; one that is paused still runs."""

    def report(self, trial: str, step: int, metrics: Mapping[str, float], when: float) -> None:
        """Hears a report of a trial that has begun; `when` in seconds since 1970.

        Steps grow, but where pbt gives a trial another's weights: it goes on at the step of these.
        """

    def end(self, trial: str, status: str) -> None:
        """Hears that a trial ended, or with `running` that the search ends before it."""


def search_id(name: str, search: Event) -> str:
    """Names a search by its search event, also when it goes on or its folder has moved.

    The name has the space, when the search began (UTC), and its mark: many searches can begin at one moment.
    """
    began = f"{name}-{datetime.fromtimestamp(search['time'], UTC):%Y%m%d-%H%M%S.%f}"
    mark = str(search.get("mark", ""))  # absent from older logs
    return f"{began}-{mark}" if mark.isalnum() else began


def sqlite_url(path: Path) -> str:
    """Returns the URL of a database file, whatever characters its path holds.

    Raises:
        ValueError: SQLAlchemy is older than 2.1 and cannot say it.
    """
    from sqlalchemy import URL, make_url

    # With the driver's name: from sqlite:///PATH MLflow 3.17 makes folders that have the escapes in their names.
    url = URL.create("sqlite+pysqlite", database=str(path)).render_as_string()
    if make_url(url).database != str(path):
        raise ValueError(f"SQLAlchemy 2.1 or newer is needed for a database at {path}")
    return url


class TensorBoard:
    """Event files as tensorboard's own writer makes them, which loads neither torch nor TensorFlow.

    A folder a trial: the metrics as scalars, and for the HParams tab its hyperparameters and how it ended.
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
        self._writers[trial].flush()  # a killed search has lost nothing


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
    """Runs of an experiment with the run folder's name, in a database in the folder, or at MLFLOW_TRACKING_URI.

    A run a trial, with its hyperparameters as params, its metrics by step, and the tags `status` and `search`: at a
    server, folders of one name share an experiment.
    """

    def __init__(self, folder: Path, name: str, search: Event) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # a search calls nobody
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
    """Runs of the project with the space's name, offline unless WANDB_MODE says otherwise; `wandb sync` uploads them.

    A run a trial, in a group with the run folder's name. Characters that are refused there become hyphens, and what is
    too long is cut. A trial that goes on has a further folder of the same run.
    Its charts go by the metric `step`: what is told of a step below its own last one W&B drops, and pbt goes back.
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
            reinit="create_new",  # beside the runs of other trials
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


LOGGERS: dict[str, Callable[[Path, str, Event], Logger]] = {
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
    "wandb": WeightsAndBiases,
}


def check_loggers(names: Iterable[str]) -> None:
    """Raises ConfigError with all that is wrong with the names: a tool that is not known, or not installed."""
    problems = []
    for name in names:
        if name not in LOGGERS:
            problems.append(f"--log: unknown tool {name!r}{nearest(name, LOGGERS)}")
        elif importlib.util.find_spec(name) is None:
            problems.append(f"--log {name}: is not installed; pip install 's2s-search[log]'")
    if problems:
        raise ConfigError(problems)


class Loggers:
    """The loggers of a search by their names in LOGGERS, told by the search's events as they are written down.

    Each is made from the run folder, the space's name, and the search event. A trial's hyperparameters are those that
    it began with, also where pbt changes them. A report of a divergence has no metrics to tell. A trial that ran when a
    search was killed hears of its end when it is known, also where it never runs again. `problems` are sentences about
    loggers that failed and are off.
    """

    def __init__(self, names: Sequence[str], folder: Path, name: str) -> None:
        self.problems: list[str] = []
        self._settings: dict[str, Settings] = {}
        self._running: set[str] = set()
        self._left_open: set[str] = set()  # trials that ran when the search was killed
        self._off: set[str] = set()
        self._search: Event = {"time": 0.0}
        self._calls: dict[str, queue.SimpleQueue[tuple[Any, ...]]] = {
            tool: queue.SimpleQueue() for tool in names
        }
        self._threads = {
            tool: threading.Thread(
                target=self._listen, args=(tool, folder, name), name=tool, daemon=True
            )
            for tool in names
        }

    def recall(self, events: Iterable[Event]) -> None:
        """Takes in the past of a search that goes on: the loggers know it already."""
        for event in events:
            self._learn(event)
            kind, trial = event["event"], event.get("trial", "")
            if kind in ("trial", "start"):
                self._left_open.add(trial)
            elif kind == "status" and trial:
                self._left_open.discard(trial)
            elif kind == "status":  # the search ended in order, and `close` has told the end of all
                self._left_open.clear()

    def hear(self, event: Event) -> None:
        """Passes an event on."""
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
            self._settings[event["trial"]] = _plain(event)

    def _begin(self, trial: str) -> None:
        self._left_open.discard(trial)
        self._running.add(trial)
        self._call("begin", trial, self._settings.get(trial, {}))

    def _end(self, trial: str, status: str) -> None:
        if trial in self._left_open:
            self._begin(trial)  # for a tool that was made since
        self._running.remove(trial)
        self._call("end", trial, status)

    def close(self) -> None:
        """Ends the runs of trials that still run, or ran before a kill, and waits a while until all is written."""
        for trial in sorted(self._running | self._left_open):
            self._end(trial, "running")
        self._call("")
        due = time.monotonic() + SECONDS_TO_END
        for tool, thread in self._threads.items():
            if thread.ident is not None:
                thread.join(max(due - time.monotonic(), 0.0))
            if thread.is_alive():
                self.problems.append(
                    f"--log {tool}: has not taken all within {SECONDS_TO_END:g} seconds"
                )
        self._threads.clear()

    def _call(self, method: str, *values: object) -> None:
        for tool, calls in self._calls.items():
            if tool in self._off:
                continue
            calls.put((method, *values))
            if method == "begin" and self._threads[tool].ident is None:
                self._threads[tool].start()

    def _listen(self, tool: str, folder: Path, name: str) -> None:
        try:
            logger = LOGGERS[tool](folder, name, self._search)
            while (call := self._calls[tool].get())[0]:
                getattr(logger, call[0])(*call[1:])
        except Exception as error:  # whatever goes wrong in a tool, the search goes on
            said = (str(error).strip().splitlines() or [""])[0]
            self.problems.append(f"--log {tool}: off from here on: {type(error).__name__}: {said}")
            self._off.add(tool)


def _plain(event: Event) -> Settings:
    settings = {key: value for key, value in event["settings"].items() if value is not None}
    settings["train.seed"] = event["config"].get("train.seed", 0)
    return {
        key: json.dumps(value) if isinstance(value, dict) else value
        for key, value in settings.items()
    }


def _metrics(event: Event) -> dict[str, float]:
    numbers = {name: value for name, value in event.items() if type(value) in (int, float)}
    return {name: float(value) for name, value in numbers.items() if name not in NO_METRICS}
