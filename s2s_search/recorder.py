"""Writes what happens in a search to its run folder, as it happens, and shows it on the terminal.

It hears of things and knows nothing of what runs the trials. The event log is written first and is the truth; the
tables are made from it now and then, and at the end (results.py).
"""

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from s2s_search import results
from s2s_search.corpus import Corpus
from s2s_search.hparams import Hparams, resolve
from s2s_search.metrics import bleu_signature
from s2s_search.progress import Progress
from s2s_search.spaces import Space
from s2s_search.table import BOOL, FLOAT, INT, ConfigError, declared

ERROR = "error.txt"  # of a failed trial
SECONDS_BETWEEN_TABLES = 10.0  # or 20 times as long as writing them takes

Config = Mapping[str, Any]  # flat, by dotted keys, "model" among them


def resolved(config: Config) -> Hparams:
    """The complete configuration of a flat dict. Raises ConfigError."""
    return resolve(config["model"], {key: value for key, value in config.items() if key != "model"})


class Recorder:
    """The writer of one run folder."""

    def __init__(self, space: Space, folder: Path, progress: Progress | None = None) -> None:
        self.space, self.folder, self.progress = space, folder, progress
        self.status = "running"  # of the search
        self._begun: set[str] = set()
        self._reports = 0
        self._clock, self._processor_clock = time.monotonic(), time.process_time()
        self._tables_due = 0.0

    def begin(self, trials: int, environment: Mapping[str, object]) -> None:
        """Writes what is known before the first of so many trials."""
        space = self.space
        (self.folder / "space.yaml").write_bytes(space.text.encode())
        results.write_json(self.folder / "environment.json", environment)
        event = {"event": "search", "name": space.name, "metric": space.metric.name, "goal": space.metric.goal}
        searched = {key: column_dtype(key) for key in space.searched}
        self._log(event | {"searched": searched, "trials": trials, "scheduler": asdict(space.scheduler)})
        self.write_tables()

    def begin_trial(self, trial: str, config: Config) -> None:
        """Writes the complete configuration of a trial, when it is not known yet."""
        if trial in self._begun:
            return
        self._begun.add(trial)
        complete = config
        with contextlib.suppress(ConfigError):  # the trial will say so
            complete = resolved(config).flat()
        (self.folder / trial).mkdir(exist_ok=True)
        results.write_json(self.folder / trial / "config.json", complete)
        settings = {key: self.space.label(key, config[key]) for key in self.space.searched if key in config}
        self._log({"event": "trial", "trial": trial, "settings": settings, "config": config})

    def report(self, trial: str, metrics: Mapping[str, Any]) -> None:
        self._reports += 1
        self._log({"event": "report", "trial": trial} | dict(metrics))

    def end_trial(self, trial: str, status: str, message: str | None = None) -> None:
        self._log({"event": "status", "trial": trial, "status": status} | _unless_none(message))

    def fail_trial(self, trial: str, text: str) -> None:
        """Writes the end of a trial that failed; the text is for where the trial could write no traceback itself."""
        path = self.folder / trial / ERROR
        if not path.exists():
            path.write_text(text, encoding="utf-8")
        self.end_trial(trial, "failed", results.error_message(path.read_text(encoding="utf-8")))

    def end(self, status: str, message: str | None = None) -> None:
        """Writes how the search ended and what it cost this process, and the tables for the last time."""
        self.status = status
        driver = {
            "reports": self._reports,
            "seconds": round(time.monotonic() - self._clock, 3),
            "processor_seconds": round(time.process_time() - self._processor_clock, 3),
        }
        self._log({"event": "status", "status": status, "driver": driver} | _unless_none(message))
        self.write_tables()

    def tick(self) -> None:
        """Does what is due; to be called often."""
        if self.progress is not None:
            self.progress.tick()
        if time.monotonic() >= self._tables_due:
            self.write_tables()

    def write_tables(self) -> None:
        began = time.monotonic()
        results.write_tables(self.folder)
        now = time.monotonic()
        self._tables_due = now + max(SECONDS_BETWEEN_TABLES, 20 * (now - began))

    def _log(self, event: Mapping[str, object]) -> None:
        row = results.append_event(self.folder, event)
        if self.progress is not None:
            self.progress.show(row)


def environment(
    space: Space, corpus: Corpus, seed: int | None, overrides: Mapping[str, object] | None, command: Sequence[str]
) -> dict[str, object]:
    """What it takes to run a search again: command, seed, data, software."""
    references = (corpus.dev.groups[1:] - corpus.dev.groups[:-1]).tolist()
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": list(command),
        "space": str(space.path),
        "seed": space.search.seed if seed is None else seed,
        "overrides": dict(overrides or {}),
        "corpus": {"name": corpus.name, "fingerprint": corpus.fingerprint},
        "bleu_signature": bleu_signature(references),
        **results.software(),
    }


def column_dtype(key: str) -> str:
    """The dtype of a hyperparameter's column, from its kind in the table; a spec is its label or JSON text."""
    dtypes = {INT: "Int64", FLOAT: "Float64", BOOL: "boolean"}
    return "string" if key == "model" else dtypes.get(declared(key).kind, "string")


def _unless_none(message: str | None) -> dict[str, object]:
    return {} if message is None else {"message": message}
