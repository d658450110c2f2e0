"""Writes what happens in a search to its run folder, as it happens, and shows it on the terminal.

It hears of things and knows nothing of what runs the trials. The event log is written first and is the truth; the
tables are made from it now and then, and at the end (tables.py). Where the disk is full the search goes on: the log
waits in memory, and the tables stay as they were.
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
from s2s_search.runs.failures import ALIKE, cause, error_message
from s2s_search.runs.folder import CONFIG, ENVIRONMENT, ERROR, SPACE, write_json
from s2s_search.runs.log import EventLog
from s2s_search.runs.state import History, TrialHistory
from s2s_search.runs.tables import write_tables
from s2s_search.runs.trackers import Loggers
from s2s_search.spaces.space import Space
from s2s_search.statuses import FAILED

SECONDS_BETWEEN_TABLES = 10.0  # at least
SHARE_OF_TABLES = 0.001  # of the driver's time, however many reports the tables have
KEPT = (
    "space",
    "seed",
    "overrides",
    "corpus",
    "draws",
    "storage",
)  # of the environment: what it takes to go on

Config = Mapping[str, Any]  # flat, by dotted keys, "model" among them


def resolved(config: Config) -> Hparams:
    """The complete configuration of a flat dict. Raises ConfigError."""
    return resolve(config["model"], {key: value for key, value in config.items() if key != "model"})


class Watcher(Protocol):
    """Shows a search while it runs: display.progress."""

    def recall(self, events: Iterable[Event]) -> None:
        """Takes in the events of a search that goes on, without showing each."""

    def show(self, event: Event) -> None: ...

    def tick(self) -> None:
        """Redraws the view when it is due."""


class Recorder:
    """The writer of one run folder, which it keeps locked until `close`; `history` is the past of a resumed search.

    Raises:
        ConfigError: another search writes the folder.
    """

    def __init__(
        self,
        space: Space,
        folder: Path,
        progress: Watcher | None = None,
        loggers: Loggers | None = None,
    ) -> None:
        self.space, self.folder, self.progress, self.loggers = space, folder, progress, loggers
        self.log = EventLog(folder)
        self.status = "running"  # of the search
        self.message: str | None = None
        self.history: History | None = None  # of all events so far
        self._said: set[tuple[str | None, str]] = set()
        self._full = ""
        self._waiting = ""
        self._first_ends: list[tuple[str, str]] = []  # statuses and causes
        self._first_message: str | None = None
        self._reports = 0
        self._clock, self._processor_clock = time.monotonic(), time.process_time()
        self._tables_due = 0.0

    def begin(self, trials: int, environment: Mapping[str, object], **more: object) -> None:
        """Writes what is known before the first of so many trials; `more` are further keys of the search event."""
        space = self.space
        (self.folder / SPACE).write_bytes(space.text.encode())
        write_json(self.folder / ENVIRONMENT, environment)
        event = {"event": "search", "mark": secrets.token_hex(4), "name": space.name}
        event |= {"metric": space.metric.name, "goal": space.metric.goal}
        searched = {key: column_dtype(key) for key in space.searched}
        objectives = [[objective.name, objective.goal] for objective in space.objectives]
        again = {"objectives": objectives, "hours": space.search.hours} | {
            key: environment[key] for key in KEPT
        }
        self._log(
            event
            | {"searched": searched, "trials": trials, "scheduler": asdict(space.scheduler)}
            | again
            | more
        )
        self.write_tables()

    def resume(self, history: History, trials: int, **changes: object) -> None:
        """Takes in the past, and writes that the search goes on."""
        if self.progress is not None:
            self.progress.recall(history.events)
        if self.loggers is not None:
            self.loggers.recall(history.events)
        self.history = history
        self._first_ends = [(FAILED, "")] * ALIKE  # it did not end for these before
        self._log({"event": "resume", "trials": trials} | changes)

    def trial(self, name: str) -> TrialHistory | None:
        """What has happened to a trial so far; None where it has not begun."""
        return None if self.history is None else self.history.trials.get(name)

    def has_begun(self, name: str) -> bool:
        return self.trial(name) is not None

    def step(self, name: str) -> int:
        """The step of a trial's newest report; 0 where it has none."""
        trial = self.trial(name)
        return 0 if trial is None else trial.step

    def best(self, name: str) -> Event | None:
        """The best report of a trial."""
        trial = self.trial(name)
        return None if trial is None else trial.best

    def queue(self, trial: str) -> None:
        """Notes that hyperband has put a trial into a bracket."""
        self._log({"event": "queued", "trial": trial})

    def begin_trial(self, trial: str, config: Config) -> None:
        """Writes that a trial has got a worker: at first with its configuration, then that it runs again."""
        self._waiting = ""
        if self.has_begun(trial):
            self._log({"event": "start", "trial": trial})
            return
        complete = config
        with contextlib.suppress(ConfigError):  # the trial will say so
            complete = resolved(config).flat()
        self._log(
            {"event": "trial", "trial": trial, "settings": self._settings(config), "config": config}
        )
        with self._disk():
            (self.folder / trial).mkdir(exist_ok=True)
            write_json(self.folder / trial / CONFIG, complete)

    def report(self, trial: str, metrics: Mapping[str, Any]) -> bool:
        """Writes a report; says whether it is news. A trial that went on from a checkpoint may say things again."""
        if self.history is not None and not self.history.is_news(trial, metrics["step"]):
            return False
        self._reports += 1
        self._log({"event": "report", "trial": trial} | dict(metrics))
        return True

    def decision(self, trial: str, reason: Mapping[str, Any]) -> None:
        """Writes what the scheduler made of a report, and why."""
        self._log({"event": "decision", "trial": trial} | dict(reason))

    def restart(self, trial: str, reason: str, message: str | None = None) -> None:
        """Writes that a trial will go on from its newest checkpoint, or from the start where it has none."""
        step = self.step(trial)
        self._log(
            {"event": "restart", "trial": trial, "step": step, "cause": reason}
            | _unless_none(message)
        )

    def pause(self, trial: str) -> None:
        """Writes that a trial has given up its place, for the scheduler to compare it with others."""
        self._log({"event": "pause", "trial": trial})

    def exploit(self, trial: str, source: str, config: Config) -> None:
        """Writes that a trial goes on with another's weights and a new configuration."""
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
        """The searched hyperparameters that take part, values that have a name by their names."""
        return {
            key: self.space.label(key, config[key]) for key in self.space.searched if key in config
        }

    def note(self, message: str, trial: str | None = None) -> None:
        """Writes and shows something that went wrong and did not stop the search; the same of a trial only once."""
        key = (trial, cause(message))
        if key not in self._said:
            self._said.add(key)
            self._log({"event": "note", "message": message} | ({"trial": trial} if trial else {}))

    def _note_loggers(self) -> None:
        while self.loggers is not None and self.loggers.problems:
            self.note(self.loggers.problems.pop(0))

    def wait(self, why: str) -> None:
        """Writes why nothing runs, when that has changed."""
        if why != self._waiting:
            self._log({"event": "wait", "message": why})
        self._waiting = why

    def end_trial(self, trial: str, status: str, message: str | None = None) -> None:
        if len(self._first_ends) < ALIKE:
            self._first_ends.append((status, "" if self.step(trial) else cause(message or "")))
            self._first_message = message
        self._log({"event": "status", "trial": trial, "status": status} | _unless_none(message))

    def fail_trial(self, trial: str, status: str, text: str) -> None:
        """Writes the end of a trial that failed, with its traceback, or what there is of one."""
        with self._disk():
            (self.folder / trial / ERROR).write_text(text, encoding="utf-8", errors="replace")
        self.end_trial(trial, status, error_message(text))

    def failing_alike(self) -> str | None:
        """The message of the first trials, when they all failed with the same one before they reported."""
        first = set(self._first_ends)
        if len(self._first_ends) == ALIKE and len(first) == 1 and (end := first.pop())[0] == FAILED:
            return self._first_message if end[1] else None
        return None

    def end(self, status: str, message: str | None = None) -> None:
        """Writes how the search ended and what it cost this process, and the tables for the last time."""
        self.status, self.message = status, message
        if self.loggers is not None:
            self.loggers.close()
            self._note_loggers()
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
        """Does what is due; to be called often."""
        self.log.flush()
        self._note_loggers()
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
        """Lets the search go on when something cannot be written, or read, that can be made anew."""
        try:
            yield
        except (OSError, ConfigError) as error:
            why = error.strerror if isinstance(error, OSError) else "; ".join(error.problems)
            self.note(f"{self.folder}: {why}; the search continues, and writes when that is over")

    def _log(self, event: Mapping[str, object]) -> dict[str, Any]:
        row = self.log.append(event)
        if self.history is None:
            self.history = History([row])
        else:
            self.history.add(row)
        if self.progress is not None:
            self.progress.show(row)
        if self.loggers is not None:
            self.loggers.hear(row)
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
    """The dtype of a hyperparameter's column, from its kind in the table; a spec is its label or JSON text."""
    dtypes = {INT: "Int64", FLOAT: "Float64", BOOL: "boolean"}
    return "string" if key == "model" else dtypes.get(declared(key).kind, "string")


def _unless_none(message: str | None) -> dict[str, object]:
    return {} if message is None else {"message": message}
