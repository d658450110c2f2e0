"""The checkpoints of a trial: its newest snapshot, the one before, and that of its best report with its answers.

They lie in the trial's folder, or below a URL that PyArrow takes (s3://, gs://, hdfs://, file://). Each file is there
whole or not at all, and one that is damaged in spite of that is noticed and passed over for the next older. A snapshot
holds its own report: whoever goes on from it can say again what may not have been heard.
"""

import contextlib
import io
import logging
import math
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

from pyarrow import fs

from s2s_search.answers import ANSWERS, Answers
from s2s_search.table import ConfigError

BEST, LAST, PREVIOUS = "best.pt", "last.pt", "previous.pt"
ALL = (LAST, PREVIOUS, BEST)

Snapshot = dict[str, Any]
logger = logging.getLogger(__name__)


class Reported(Protocol):
    """What `training.train` yields: metrics, and on demand a snapshot and answers, None where nothing was decoded."""

    @property
    def metrics(self) -> dict[str, Any]: ...

    @property
    def snapshot(self) -> Callable[[], Snapshot]: ...

    @property
    def answers(self) -> Callable[[], Answers | None]: ...


class Checkpoints:
    """The checkpoints of one trial, in a folder or below a URL.

    `problems` says what was damaged or could not be written, since it was last emptied.
    """

    def __init__(self, place: str | Path) -> None:
        self.place = str(place)
        self.problems: list[str] = []
        self._files, self._folder = file_system(self.place)

    def save(self, snapshot: Snapshot, is_best: bool, answers: Answers | None = None) -> bool:
        """Makes a snapshot the newest, and the best when it is, with answers; says whether there was room for it."""
        import torch  # the process that drives a search deletes checkpoints, and needs none

        unfinished, best, text = (f".{name}.{os.getpid()}" for name in (LAST, BEST, ANSWERS))
        try:
            self._files.create_dir(self._folder, recursive=True)
            with self._files.open_output_stream(self._path(unfinished)) as stream:
                torch.save(snapshot, stream)
            if is_best:  # before the newest, which says that it is kept
                self._files.copy_file(self._path(unfinished), self._path(best))
                if answers is not None:
                    with self._files.open_output_stream(self._path(text)) as stream:
                        stream.write(answers.text().encode())
                    self._files.move(self._path(text), self._path(ANSWERS))
                self._files.move(self._path(best), self._path(BEST))
            if self._exists(LAST):
                self._files.move(self._path(LAST), self._path(PREVIOUS))
            self._files.move(self._path(unfinished), self._path(LAST))
        except (OSError, RuntimeError) as error:  # torch's writer makes a RuntimeError of a full disk
            self.problems.append(f"no checkpoint of step {snapshot.get('step')}: {_reason(error)}")
            self._remove([unfinished, best, text])
            return False
        return True

    def newest(self, unfinished: bool = False) -> Snapshot | None:
        """The newest snapshot that can be read, or None; damaged ones are among the problems.

        `unfinished` passes over that of the trial's end.
        """
        if (last := self._read(LAST)) is not None and not (unfinished and _is_end(last)):
            return last
        others = [snapshot for name in (PREVIOUS, BEST) if (snapshot := self._read(name)) is not None]
        others = [snapshot for snapshot in others if not (unfinished and _is_end(snapshot))]
        return max(others, key=lambda snapshot: snapshot["step"], default=None)

    def _read(self, name: str) -> Snapshot | None:
        if not self._exists(name):
            return None
        try:
            return read_snapshot(below(self.place, name))
        except ValueError as error:
            self.problems.append(f"{name} is damaged and left out: {error}")
            return None

    def has_best(self) -> bool:
        return self._exists(BEST)

    def keep_best(self) -> None:
        """Deletes what only a running trial needs."""
        self._remove([LAST, PREVIOUS, *self._unfinished()])

    def remove(self) -> None:
        """Deletes them all; the answers stay."""
        self._remove([*ALL, *self._unfinished()])

    def _unfinished(self) -> list[str]:
        """What writers that were killed had begun."""
        files = self._files.get_file_info(fs.FileSelector(self._folder, allow_not_found=True))
        begun = tuple(f".{name}." for name in (LAST, BEST, ANSWERS))
        return [file.base_name for file in files if file.base_name.startswith(begun)]

    def _exists(self, name: str) -> bool:
        return bool(self._files.get_file_info(self._path(name)).is_file)

    def _remove(self, names: Iterable[str]) -> None:
        for name in names:
            with contextlib.suppress(OSError):
                self._files.delete_file(self._path(name))

    def _path(self, name: str) -> str:
        return f"{self._folder}/{name}"


def _is_end(snapshot: Snapshot) -> bool:
    return bool(snapshot["report"]["status"] != "running")


def below(place: str | Path, name: str) -> str:
    """The place of a name below a folder or URL, whose query (s3://bucket/path?region=...) stays its end."""
    path, mark, query = str(place).partition("?") if "://" in str(place) else (str(place), "", "")
    return f"{path.rstrip('/')}/{name}{mark}{query}"


def file_system(place: str) -> tuple[fs.FileSystem, str]:
    """The file system of a folder or URL, and the path in it. Raises ConfigError when PyArrow knows no such URL."""
    if "://" in place:
        try:
            files, path = fs.FileSystem.from_uri(place)
        except ValueError as error:
            raise ConfigError(f"is no place for checkpoints: {_reason(error)}", place) from None
        return files, path
    return fs.LocalFileSystem(), os.path.abspath(place)


def read_snapshot(place: str) -> Snapshot:
    """Reads a snapshot from a path or URL. Nothing in the file is executed, and every byte is checked.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged, or no snapshot of a trial.
    """
    import torch

    files, path = file_system(place)
    with files.open_input_file(path) as file:
        data = io.BytesIO(file.read())
    try:
        with zipfile.ZipFile(data) as archive:
            broken = archive.testzip()
        if broken:
            raise ValueError(f"the checksum of {broken} is wrong")
        data.seek(0)
        snapshot = torch.load(data, weights_only=True, map_location="cpu")
        if not isinstance(snapshot, dict) or not isinstance(snapshot["step"], int):
            raise ValueError("no snapshot of a trial")
    except Exception as error:  # whatever bytes a damaged file holds
        raise ValueError(_reason(error)) from None
    return snapshot


def _reason(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return next(iter(text.splitlines()), type(error).__name__).split(". ")[0]


def keep_snapshots(
    reports: Iterable[Reported],
    checkpoints: Checkpoints,
    metric: str,
    goal: str,
    before: Mapping[str, Any] | None = None,
) -> Iterator[Reported]:
    """Passes reports on, and keeps the newest snapshot, the one before, and the best report's with its answers.

    The best has the least `metric`, or the greatest where `goal` is "maximize"; `before` is the snapshot that the trial
    goes on from. A diverged model is not kept. Where there is no room the trial goes on without. A report learns its
    `snapshot_seconds`: those of writing, so far.
    """
    sign = 1 if goal == "minimize" else -1
    best = math.inf if before is None else sign * before["best"]
    seconds = 0.0 if before is None else before["report"]["snapshot_seconds"]
    for report in reports:
        began = perf_counter()
        value = sign * report.metrics[metric]
        if report.metrics["status"] != "diverged" and math.isfinite(value):
            is_best = value < best
            report.metrics["snapshot_seconds"] = seconds
            snapshot = report.snapshot() | {"report": dict(report.metrics), "best": sign * min(value, best)}
            if checkpoints.save(snapshot, is_best, report.answers() if is_best else None):
                best = min(value, best)
        seconds += perf_counter() - began
        report.metrics["snapshot_seconds"] = seconds
        yield report
