"""The checkpoints of a trial: the newest snapshot, the one before it, the best with its answers.

Checkpoints lie in the trial's folder, or below a URL that PyArrow takes (s3://, gs://, hdfs://,
file://). Each file is there whole or not at all. A file that is damaged all the same is noticed,
and the next older file is read instead.

A worker saves the snapshot before it hands over the report, and the snapshot holds the report. The
driver may be killed before it records a report. The resumed trial then sends that report again, so
that no report is lost.

A save is several file operations. The writer can be killed, or meet an error, between any two of
them. The value of best.pt is therefore read from best.pt itself. `settle` puts the answers of
best.pt in their place, and deletes files that an interrupted save left behind.
"""

import contextlib
import io
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


class Saveable(Protocol):
    """A report as `training.train` yields it: metrics, and on demand a snapshot and answers.

    The answers are None when nothing was decoded. A snapshot is valid until the trial makes its
    next step, because it holds the live tensors of the model and no copies.
    """

    @property
    def metrics(self) -> dict[str, Any]: ...

    @property
    def snapshot(self) -> Callable[[], Snapshot]: ...

    @property
    def answers(self) -> Callable[[], Answers | None]: ...


class Checkpoints:
    """The checkpoints of one trial, in a folder or below a URL.

    `problems` lists the files that were damaged or could not be written. The reader of the list
    empties it.
    """

    def __init__(self, place: str | Path) -> None:
        self.place = str(place)
        self.problems: list[str] = []
        self._files, self._folder = file_system(self.place)
        self._last_is_good = True

    def save(self, snapshot: Snapshot, is_best: bool, answers: Answers | None = None) -> bool:
        """Saves a snapshot as the newest, and with `is_best` also as the best, with its answers.

        Returns whether all files were written. After a failure best.pt may be the old file or the
        new one: `settle` tells which.
        """
        # Imported late: the driver of a search deletes checkpoints, and needs no torch for that.
        import torch

        # The mark is random, because a writer on another node may have the same process number.
        mark = secrets.token_hex(4)
        unfinished, best, text, old_text = (
            f".{name}.{mark}" for name in (LAST, BEST, ANSWERS, f"{ANSWERS}.old")
        )
        try:
            self._files.create_dir(self._folder, recursive=True)
            with self._files.open_output_stream(self._path(unfinished)) as stream:
                torch.save(snapshot, stream)
            # best.pt is written before last.pt, because last.pt holds the value of best.pt.
            if is_best:
                self._files.copy_file(self._path(unfinished), self._path(best))
                if answers is not None:
                    with self._files.open_output_stream(self._path(text)) as stream:
                        stream.write(answers.text().encode())
                # answers.json must never lie beside the best.pt of another report.
                if self._exists(ANSWERS):
                    self._files.move(self._path(ANSWERS), self._path(old_text))
                self._files.move(self._path(best), self._path(BEST))
                if answers is not None:
                    self._files.move(self._path(text), self._path(ANSWERS))
            # A damaged last.pt must not replace previous.pt.
            if self._last_is_good and self._exists(LAST):
                self._files.move(self._path(LAST), self._path(PREVIOUS))
            self._files.move(self._path(unfinished), self._path(LAST))
            self._last_is_good = True
        # On a full disk torch's writer raises a RuntimeError.
        except (OSError, RuntimeError) as error:
            self.problems.append(f"no checkpoint of step {snapshot.get('step')}: {reason(error)}")
            with contextlib.suppress(OSError):
                self.settle()
            return False
        if is_best:
            self._remove([old_text])
        return True

    def settle(self) -> Snapshot | None:
        """Completes a save that was interrupted by a kill or an error.

        The answers of best.pt are put beside it, and unfinished files are deleted.

        Returns:
            The snapshot in best.pt; None when there is none that can be read.

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
        """Returns last.pt; when it cannot be read, the newer of previous.pt and best.pt; or None.

        Damaged snapshots are added to `problems`. With `unfinished`, a snapshot that was made at
        the end of the trial is skipped.

        Raises:
            OSError: no snapshot can be read now, but that may change. A trial must not start from
                the beginning for that reason.
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
        """Returns a snapshot; None when an error occurs, which is added to `errors`."""
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
        except FileNotFoundError:  # another process has just renamed the file
            return None
        except ValueError as error:
            self.problems.append(f"{name} is damaged and left out: {error}")
            return None

    def has_best(self) -> bool:
        return self._exists(BEST)

    def keep_best(self) -> None:
        """Deletes the files that only a running trial needs."""
        self._remove([LAST, PREVIOUS, *self._unfinished()])

    def remove(self) -> None:
        """Deletes all checkpoints. The answers stay."""
        self._remove([*ALL, *self._unfinished()])

    def _unfinished(self) -> list[str]:
        """Returns the names of the files that killed writers did not complete."""
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
    """Returns the snapshot at a path or URL.

    Nothing in the file is executed, and every byte is checked.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or is no snapshot of a trial.
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
    except Exception as error:  # a damaged file may hold any bytes, and these may cause any error
        raise ValueError(reason(error)) from None
    return snapshot


def keep_snapshots(
    reports: Iterable[Saveable],
    checkpoints: Checkpoints,
    metric: str,
    goal: str,
    before: Mapping[str, Any] | None = None,
) -> Iterator[Saveable]:
    """Yields the reports unchanged, after it has saved the snapshot of each.

    It keeps the newest snapshot, the one before it, and the best one with its answers. best.pt is
    only replaced by a better snapshot, whatever failed before. A diverged model is not saved. On a
    full disk the trial continues without checkpoints. Each report gets `snapshot_seconds`: the
    seconds that the trial has spent on saving so far.

    Args:
        reports: the reports of one trial.
        checkpoints: the checkpoints of the trial.
        metric: the name of the metric by which snapshots are compared.
        goal: "minimize" or "maximize".
        before: the snapshot from which the trial resumes.
    """
    sign = 1 if goal == "minimize" else -1
    best: float | None = None  # the value of best.pt, times `sign`; None until it is known
    seconds = 0.0 if before is None else before["report"]["snapshot_seconds"]
    for report in reports:
        began = perf_counter()
        value = sign * report.metrics[metric]
        if best is None:
            best = _worth(checkpoints, sign)
        if best is not None and report.metrics["status"] != "diverged" and math.isfinite(value):
            is_best = value < best
            report.metrics["snapshot_seconds"] = seconds
            # `report.snapshot()` does not make these three entries. tuning.worker adds a fourth
            # one, `exploited`, when pbt has copied weights.
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
    """Returns the value of best.pt times `sign`, so that less is better.

    Returns infinity when there is no best.pt, and None when it cannot be read now.
    """
    try:
        best = checkpoints.settle()
    except OSError as error:
        checkpoints.problems.append(f"no checkpoint: {BEST} cannot be read: {reason(error)}")
        return None
    return math.inf if best is None else sign * float(best["best"])
