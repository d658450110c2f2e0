"""The recorder of a search: it writes the events to the run folder and passes them on.

The recorder does not know what runs the trials. Its methods are called in the driver's main thread.
An event is appended to the log first. The state, the display and the trackers learn of it after
that. A kill at any moment therefore loses nothing that anybody was told. The tables are made from
the log from time to time, and at the end (tables.py). The checkpoints of other trials are deleted
last, after the end of the trial has been recorded (tuning.callback).

On a full disk the search continues: events wait in memory, and the tables stay as they were.
"""

import contextlib
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from s2s_search.errors import ConfigError
from s2s_search.hparams.arguments import BOOL, FLOAT, INT
from s2s_search.hparams.configuration import Hparams, resolve
from s2s_search.hparams.table import declared
from s2s_search.runs.events import Event
from s2s_search.runs.failures import FIRST_FAILURES, cause, error_message
from s2s_search.runs.folder import CONFIG, ENVIRONMENT, ERROR, SPACE, write_json
from s2s_search.runs.log import EventLog
from s2s_search.runs.state import History, TrialHistory
from s2s_search.runs.tables import write_tables
from s2s_search.runs.trackers import Trackers
from s2s_search.spaces.space import Space
from s2s_search.statuses import FAILED, STOPPED, WAITED

SECONDS_BETWEEN_TABLES = 10.0  # the shortest time between two writings of the tables
SHARE_OF_TABLES = 0.001  # the largest share of the driver's time that the tables may take
# The entries of the environment that `resume` needs. The search event holds them, too.
NEEDED_TO_RESUME = ("space", "seed", "overrides", "corpus", "draws", "storage")

Config = Mapping[str, Any]  # a flat configuration: dotted keys, with "model" among them


def resolved(config: Config) -> Hparams:
    """Returns the complete configuration of a flat dict. Raises ConfigError when it is invalid."""
    return resolve(config["model"], {key: value for key, value in config.items() if key != "model"})


class Watcher(Protocol):
    """Shows a search while it runs: display.progress."""

    def recall(self, events: Iterable[Event]) -> None:
        """Reads the events of a search that is resumed, without showing each of them."""

    def show(self, event: Event) -> None: ...

    def tick(self) -> None:
        """Redraws the view when it is due."""


class Recorder:
    """The writer of one run folder. The folder is locked until `close`.

    `history` is the state of the search, from all events so far.

    Args:
        space: the search space.
        folder: the run folder.
        progress: the display; None for a search without one.
        trackers: the trackers; None for a search without them.

    Raises:
        ConfigError: another search writes the folder.
    """

    def __init__(
        self,
        space: Space,
        folder: Path,
        progress: Watcher | None = None,
        trackers: Trackers | None = None,
    ) -> None:
        self.space, self.folder, self.progress, self.trackers = space, folder, progress, trackers
        self.log = EventLog(folder)
        self.status = "running"  # the status of the search
        self.message: str | None = None
        self.history: History | None = None  # None before the first event
        self._noted: set[tuple[str | None, str]] = set()
        self._full = ""
        self._waiting = ""
        self._first_ends: list[tuple[str, str]] = []  # statuses and causes of the first trials
        self._first_message: str | None = None
        self._reports = 0
        self._clock, self._processor_clock = time.monotonic(), time.process_time()
        self._tables_due = 0.0

    def begin(self, trials: int, environment: Mapping[str, object], **more: object) -> None:
        """Writes the search event, the space, the environment and the empty tables.

        `trials` is the number of trials. `more` are further entries of the search event.
        """
        space = self.space
        (self.folder / SPACE).write_bytes(space.text.encode())
        write_json(self.folder / ENVIRONMENT, environment)
        event = {"event": "search", "mark": secrets.token_hex(4), "name": space.name}
        event |= {"metric": space.metric.name, "goal": space.metric.goal}
        searched = {key: column_dtype(key) for key in space.searched}
        objectives = [[objective.name, objective.goal] for objective in space.objectives]
        again = {"objectives": objectives, "hours": space.search.hours} | {
            key: environment[key] for key in NEEDED_TO_RESUME
        }
        self._log(
            event
            | {"searched": searched, "trials": trials, "scheduler": asdict(space.scheduler)}
            | again
            | more
        )
        self.write_tables()

    def resume(self, history: History, trials: int, **changes: object) -> None:
        """Reads the past of a search, and writes that the search is resumed."""
        if self.progress is not None:
            self.progress.recall(history.events)
        if self.trackers is not None:
            self.trackers.recall(history.events)
        self.history = history
        # The check for first trials that fail alike is off: the search did not end for them before.
        self._first_ends = [(FAILED, "")] * FIRST_FAILURES
        self._log({"event": "resume", "trials": trials} | changes)

    def trial(self, name: str) -> TrialHistory | None:
        """Returns the state of a trial; None when it has not begun."""
        return None if self.history is None else self.history.trials.get(name)

    def has_begun(self, name: str) -> bool:
        return self.trial(name) is not None

    def step(self, name: str) -> int:
        """Returns the step of a trial's newest report; 0 when it has no report."""
        trial = self.trial(name)
        return 0 if trial is None else trial.step

    def best(self, name: str) -> Event | None:
        """Returns the best report of a trial; None when it has no report with a finite metric."""
        trial = self.trial(name)
        return None if trial is None else trial.best

    def queue(self, trial: str) -> None:
        """Writes that hyperband has put a trial into a bracket."""
        self._log({"event": "queued", "trial": trial})

    def begin_trial(self, trial: str, config: Config) -> None:
        """Writes that a trial has got a worker.

        The first time, this writes the trial event with the configuration, and makes the trial's
        folder. Later it writes a start event.
        """
        self._waiting = ""
        if self.has_begun(trial):
            self._log({"event": "start", "trial": trial})
            return
        complete = config
        with contextlib.suppress(ConfigError):  # the trial itself will fail with this error
            complete = resolved(config).flat()
        self._log(
            {"event": "trial", "trial": trial, "settings": self._settings(config), "config": config}
        )
        with self._disk():
            (self.folder / trial).mkdir(exist_ok=True)
            write_json(self.folder / trial / CONFIG, complete)

    def report(self, trial: str, metrics: Mapping[str, Any]) -> bool:
        """Writes a report if it is news, and returns whether it is.

        A trial that was resumed from a checkpoint may send reports again.
        """
        if self.history is not None and not self.history.is_news(trial, metrics["step"]):
            return False
        self._reports += 1
        self._log({"event": "report", "trial": trial} | dict(metrics))
        return True

    def decision(self, trial: str, reason: Mapping[str, Any]) -> None:
        """Writes the scheduler's decision about a report, with its reason."""
        self._log({"event": "decision", "trial": trial} | dict(reason))

    def restart(self, trial: str, reason: str, message: str | None = None) -> None:
        """Writes that a trial will resume from its newest checkpoint.

        A trial without a checkpoint starts from the beginning.
        """
        step = self.step(trial)
        self._log(
            {"event": "restart", "trial": trial, "step": step, "cause": reason}
            | _unless_none(message)
        )

    def pause(self, trial: str) -> None:
        """Writes that a trial has given up its worker until the scheduler has compared it."""
        self._log({"event": "pause", "trial": trial})

    def exploit(self, trial: str, source: str, config: Config) -> None:
        """Writes that a trial copies the weights of `source`, and has a new configuration."""
        settings = self._settings(config)
        self._log(
            {
                "event": "exploit",
                "trial": trial,
                "source": source,
                "settings": settings,
                "config": config,
            }
        )

    def _settings(self, config: Config) -> dict[str, object]:
        """Returns the searched hyperparameters of a configuration, with labels for their values."""
        return {
            key: self.space.label(key, config[key]) for key in self.space.searched if key in config
        }

    def note(self, message: str, trial: str | None = None) -> None:
        """Writes and shows a problem that did not stop the search.

        Messages of one trial that differ in nothing but numbers are written once.
        """
        key = (trial, cause(message))
        if key not in self._noted:
            self._noted.add(key)
            self._log({"event": "note", "message": message} | ({"trial": trial} if trial else {}))

    def _note_trackers(self) -> None:
        while self.trackers is not None and self.trackers.problems:
            self.note(self.trackers.problems.pop(0))

    def wait(self, why: str) -> None:
        """Writes why no trial runs, when the reason has changed."""
        if why != self._waiting:
            self._log({"event": "wait", "message": why})
        self._waiting = why

    def end_trial(self, trial: str, status: str, message: str | None = None) -> None:
        """Writes the end of a trial. A stopped trial has the reason of the decision as message."""
        past = self.trial(trial)
        if status == STOPPED and message is None and past is not None:
            is_waiting = past.decisions and past.decisions[-1]["action"] == "pause"
            message = WAITED if is_waiting else past.reason
        if len(self._first_ends) < FIRST_FAILURES:
            self._first_ends.append((status, "" if self.step(trial) else cause(message or "")))
            self._first_message = message
        self._log({"event": "status", "trial": trial, "status": status} | _unless_none(message))

    def fail_trial(self, trial: str, status: str, text: str) -> None:
        """Writes the end of a trial that failed. `text` is its traceback, or the message of Ray."""
        with self._disk():
            (self.folder / trial / ERROR).write_text(text, encoding="utf-8", errors="replace")
        self.end_trial(trial, status, error_message(text))

    def failing_alike(self) -> str | None:
        """Returns the message of the first trials, when they all failed alike before a report.

        Otherwise it returns None.
        """
        first = set(self._first_ends)
        if (
            len(self._first_ends) == FIRST_FAILURES
            and len(first) == 1
            and (end := first.pop())[0] == FAILED
        ):
            return self._first_message if end[1] else None
        return None

    def end(self, status: str, message: str | None = None) -> None:
        """Writes the end of the search, its costs in this process, and the tables a last time."""
        self.status, self.message = status, message
        if self.trackers is not None:
            self.trackers.close()
            self._note_trackers()
        driver = {
            "reports": self._reports,
            "seconds": round(time.monotonic() - self._clock, 3),
            "processor_seconds": round(time.process_time() - self._processor_clock, 3),
        }
        self._log({"event": "status", "status": status, "driver": driver} | _unless_none(message))
        self.write_tables()

    def close(self) -> None:
        self.log.close()

    def tick(self) -> None:
        """Writes waiting events, redraws the display, and writes the tables when they are due.

        The callback calls this after each step of Ray Tune's loop.
        """
        self.log.flush()
        self._note_trackers()
        if self.progress is not None:
            self.progress.tick()
        if time.monotonic() >= self._tables_due:
            self.write_tables()

    def write_tables(self) -> None:
        began = time.monotonic()
        with self._disk():
            write_tables(self.folder)
        now = time.monotonic()
        self._tables_due = now + max(SECONDS_BETWEEN_TABLES, (now - began) / SHARE_OF_TABLES)

    @contextlib.contextmanager
    def _disk(self) -> Iterator[None]:
        """Lets the search continue when a file cannot be written or read now.

        That is for files that can be made again from the log.
        """
        try:
            yield
        except (OSError, ConfigError) as error:
            why = error.strerror if isinstance(error, OSError) else "; ".join(error.problems)
            self.note(f"{self.folder}: {why}; the search continues, and writes when that is over")

    def _log(self, event: Mapping[str, object]) -> dict[str, Any]:
        # The log comes first: nothing else may know of an event that a kill could take back.
        row = self.log.append(event)
        if self.history is None:
            self.history = History([row])
        else:
            self.history.add(row)
        if self.progress is not None:
            self.progress.show(row)
        if self.trackers is not None:
            self.trackers.hear(row)
        if self.log.full != self._full and self.log.full and self.progress is not None:
            self.progress.show(
                {
                    "event": "note",
                    "message": f"{self.folder}: {self.log.full}; events wait in memory",
                }
            )
        self._full = self.log.full
        return row


def column_dtype(key: str) -> str:
    """Returns the dtype of a hyperparameter's column, from its kind in the table.

    A cell or a bridge is stored as its label or as JSON text, so that its column holds strings.
    """
    dtypes = {INT: "Int64", FLOAT: "Float64", BOOL: "boolean"}
    return "string" if key == "model" else dtypes.get(declared(key).kind, "string")


def _unless_none(message: str | None) -> dict[str, object]:
    return {} if message is None else {"message": message}
