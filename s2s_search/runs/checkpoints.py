"""The checkpoints of a trial: its newest snapshot, the one before, and that of its best report with its answers.

They lie in the trial's folder, or below a URL that PyArrow takes (s3://, gs://, hdfs://, file://). Each file is there
whole or not at all, and one that is damaged in spite of that is noticed and passed over for the next older. A snapshot
holds its own report: whoever goes on from it can say again what may not have been heard.

A save is several file operations, and the writer can be killed, or meet an error, between any two of them. So what
best.pt is worth is read from best.pt itself, and `settle` finishes what was begun.
"""

import contextlib
import io
import logging
import math
import secrets
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

from pyarrow import fs

from s2s_search.runs.answers import Answers, load_answers
from s2s_search.runs.folder import ANSWERS, BEST, LAST, PREVIOUS
from s2s_search.runs.storage import below, file_system, reason

ALL = (LAST, PREVIOUS, BEST)

Snapshot = dict[str, Any]
logger = logging.getLogger(__name__)


class Saveable(Protocol):
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
        self._last_is_good = True

    def save(self, snapshot: Snapshot, is_best: bool, answers: Answers | None = None) -> bool:
        """Makes a snapshot the newest, and the best when it is, with answers; returns False when that failed.

        After a failure best.pt may be the old one or the new one: `settle` tells which.
        """
        import torch  # the process that drives a search deletes checkpoints, and needs none

        mark = secrets.token_hex(
            4
        )  # another writer, of another node, may have the same process number
        unfinished, best, text, old_text = (
            f".{name}.{mark}" for name in (LAST, BEST, ANSWERS, f"{ANSWERS}.old")
        )
        try:
            self._files.create_dir(self._folder, recursive=True)
            with self._files.open_output_stream(self._path(unfinished)) as stream:
                torch.save(snapshot, stream)
            if is_best:  # before the newest, which says that it is kept
                self._files.copy_file(self._path(unfinished), self._path(best))
                if answers is not None:
                    with self._files.open_output_stream(self._path(text)) as stream:
                        stream.write(answers.text().encode())
                if self._exists(
                    ANSWERS
                ):  # answers.json is never beside the best.pt of another report
                    self._files.move(self._path(ANSWERS), self._path(old_text))
                self._files.move(self._path(best), self._path(BEST))
                if answers is not None:
                    self._files.move(self._path(text), self._path(ANSWERS))
            if self._last_is_good and self._exists(LAST):  # else the one before is worth more
                self._files.move(self._path(LAST), self._path(PREVIOUS))
            self._files.move(self._path(unfinished), self._path(LAST))
            self._last_is_good = True
        except (
            OSError,
            RuntimeError,
        ) as error:  # torch's writer makes a RuntimeError of a full disk
            self.problems.append(f"no checkpoint of step {snapshot.get('step')}: {reason(error)}")
            with contextlib.suppress(OSError):
                self.settle()
            return False
        if is_best:
            self._remove([old_text])
        return True

    def settle(self) -> Snapshot | None:
        """Finishes what a writer that was killed, or met an error, had begun; returns the snapshot in best.pt.

        The answers of best.pt are put beside it, and unfinished files are deleted.

        Raises:
            OSError: the files cannot be read now. Nothing is deleted.
        """
        best = self._read(BEST)
        begun = self._unfinished()
        if best is not None:
            texts = [ANSWERS, *(name for name in begun if name.startswith(f".{ANSWERS}."))]
            fitting = [name for name in texts if self._step_of_answers(name) == best["step"]]
            if fitting and fitting[0] != ANSWERS:
                self._files.move(self._path(fitting[0]), self._path(ANSWERS))
            elif not fitting and self._step_of_answers(ANSWERS) is not None:
                self._remove([ANSWERS])
        self._remove(begun)
        return best

    def _step_of_answers(self, name: str) -> int | None:
        answers = load_answers(self.place, name)
        return None if answers is None else answers.step

    def newest(self, unfinished: bool = False) -> Snapshot | None:
        """The newest snapshot that can be read, or None where there is none; damaged ones are among the problems.

        `unfinished` passes over that of the trial's end.

        Raises:
            OSError: none can be read now, but that may change. A trial must not begin anew for that.
        """
        errors: list[OSError] = []
        last = self._read_or(errors, LAST)
        self._last_is_good = last is not None
        if last is not None and not (unfinished and _is_end(last)):
            return last
        others = [self._read_or(errors, name) for name in (PREVIOUS, BEST)]
        found = [
            other for other in others if other is not None and not (unfinished and _is_end(other))
        ]
        if errors and not found:
            raise errors[0]
        return max(found, key=lambda snapshot: snapshot["step"], default=None)

    def _read_or(self, errors: list[OSError], name: str) -> Snapshot | None:
        """Reads a snapshot, or records the error."""
        try:
            return self._read(name)
        except OSError as error:
            self.problems.append(f"{name} cannot be read and is left out: {reason(error)}")
            errors.append(error)
            return None

    def _read(self, name: str) -> Snapshot | None:
        if not self._exists(name):
            return None
        try:
            return read_snapshot(below(self.place, name))
        except FileNotFoundError:  # another process has just renamed it
            return None
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
        return sorted(file.base_name for file in files if file.base_name.startswith(begun))

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
        raise ValueError(reason(error)) from None
    return snapshot


def keep_snapshots(
    reports: Iterable[Saveable],
    checkpoints: Checkpoints,
    metric: str,
    goal: str,
    before: Mapping[str, Any] | None = None,
) -> Iterator[Saveable]:
    """Passes reports on, and keeps the newest snapshot, the one before, and the best report's with its answers.

    The best has the least `metric`, or the greatest where `goal` is "maximize"; best.pt is replaced by a better one
    only, whatever failed before. `before` is the snapshot that the trial goes on from. A diverged model is not kept.
    Where there is no room the trial goes on without. A report learns its `snapshot_seconds`: those of writing, so far.
    """
    sign = 1 if goal == "minimize" else -1
    best: float | None = None  # what best.pt is worth; None until it is known
    seconds = 0.0 if before is None else before["report"]["snapshot_seconds"]
    for report in reports:
        began = perf_counter()
        value = sign * report.metrics[metric]
        if best is None:
            best = _worth(checkpoints, sign)
        if best is not None and report.metrics["status"] != "diverged" and math.isfinite(value):
            is_best = value < best
            report.metrics["snapshot_seconds"] = seconds
            kept = {
                "report": dict(report.metrics),
                "metric": metric,
                "best": sign * min(value, best),
            }
            snapshot = report.snapshot() | kept
            saved = checkpoints.save(snapshot, is_best, report.answers() if is_best else None)
            best = min(value, best) if saved else None
        seconds += perf_counter() - began
        report.metrics["snapshot_seconds"] = seconds
        yield report


def _worth(checkpoints: Checkpoints, sign: int) -> float | None:
    """What best.pt is worth, the less the better; infinity where there is none, None while that cannot be read."""
    try:
        best = checkpoints.settle()
    except OSError as error:
        checkpoints.problems.append(f"no checkpoint: {BEST} cannot be read: {reason(error)}")
        return None
    return math.inf if best is None else sign * float(best["best"])
