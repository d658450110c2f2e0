"""The event log of a run folder: the events of a search in order, one JSON object a line.

The log is the only source: the tables are made from it (tables.py), and a killed search is resumed
from it (state.py). The driver therefore appends an event to the log before anything else learns of
the event. The log has one writer, which holds the lock of the folder, and any number of readers. A
line without its end is ignored.
"""

import contextlib
import json
import logging
import math
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

from s2s_search.errors import ConfigError, nearest
from s2s_search.runs.events import Event, Row, cleaned, decoded
from s2s_search.runs.folder import EVENTS, LOCK, holder_elsewhere, is_locked, lock, run_folders
from s2s_search.statuses import KILLED, RUNNING

SECONDS_BETWEEN_SYNCS = 1.0
# A search on another machine counts as killed when its newest event is older than this.
SECONDS_ELSEWHERE = 600.0

logger = logging.getLogger(__name__)


def _clock_ticks() -> float:
    """Returns seconds that no change of the clock disturbs.

    They include the time in which the machine sleeps, where the system can tell it.
    """
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


_BEGAN = time.time() - _clock_ticks()


def now() -> float:
    """Returns the seconds since 1970, by the clock as it was set when this process began.

    When the clock is set back or forward later, no duration changes.
    """
    return _BEGAN + _clock_ticks()


class EventLog:
    """The log of a run folder, open for its one writer.

    On a full disk, events wait in memory and are written as soon as there is room. `full` says why
    they wait.

    Raises:
        ConfigError: another process writes the log, or the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.full = ""
        self._lock = lock(folder)
        try:
            self._file = os.open(folder / EVENTS, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        except OSError as error:
            os.close(self._lock)
            raise ConfigError(
                f"{EVENTS} cannot be written: {error.strerror}", str(folder)
            ) from None
        self._size = whole_lines(self._file)
        os.ftruncate(self._file, self._size)  # removes the half line of a writer that was killed
        # More than 0 when the clock was set back after the last event.
        self._ahead = max(_last_time(self._file, self._size) - now(), 0.0)
        self._waiting: list[bytes] = []
        self._synced = time.monotonic()
        self._dirty = False

    def append(self, event: Event) -> Row:
        """Appends an event to the log in one write, and returns the event as it was written.

        An event is `{"event": kind, "time": seconds since 1970, ...}`. The time is added here, and
        numbers that are not finite become null. The times of a log never decrease.
        """
        row: Row = {"event": event["event"], "time": round(now() + self._ahead, 3)}
        row |= {key: cleaned(_finite(value)) for key, value in event.items() if key != "event"}
        line = json.dumps(row, ensure_ascii=False, allow_nan=False)
        # The name of a file may not be valid Unicode.
        self._waiting.append(line.encode(errors="replace") + b"\n")
        self.flush()
        return row

    def flush(self) -> None:
        """Writes the events that wait for room on the disk.

        From time to time it also synchronises the file, so that it survives a loss of power.
        """
        while self._waiting and self._write(self._waiting[0]):
            del self._waiting[0]
        if self._dirty and time.monotonic() - self._synced > SECONDS_BETWEEN_SYNCS:
            self._sync()

    def _write(self, line: bytes) -> bool:
        try:
            written = os.write(self._file, line)
            self.full = "" if written == len(line) else "No space left on device"
        except OSError as error:
            self.full = error.strerror or str(error)
        if self.full:
            os.ftruncate(self._file, self._size)  # removes the half line
            return False
        self._size += len(line)
        self._dirty = True
        return True

    def _sync(self) -> None:
        sync = getattr(os, "fdatasync", os.fsync)  # macOS and Windows have no fdatasync
        with contextlib.suppress(OSError):
            sync(self._file)
        self._synced, self._dirty = time.monotonic(), False

    def close(self) -> None:
        """Closes the log and releases its lock.

        Events that still wait for room on the disk are lost. A resumed search makes them again.
        """
        self.flush()
        if self._waiting:
            logger.warning(
                "%s: %s: the last %d events are lost", self.folder, self.full, len(self._waiting)
            )
        self._sync()
        os.close(self._file)
        with contextlib.suppress(OSError):
            (self.folder / LOCK).unlink()
        os.close(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def is_driven(folder: Path) -> bool:
    """Returns whether a search drives a run folder now, as far as this machine can see.

    A search drives the folder while it holds the lock. The lock of another machine may be invisible
    here. The search of such a machine counts as alive until SECONDS_ELSEWHERE after its newest
    event.
    """
    if is_locked(folder):
        return True
    return bool(holder_elsewhere(folder)) and time.time() - _newest_time(folder) < SECONDS_ELSEWHERE


def _newest_time(folder: Path) -> float:
    """Returns the time of the newest event, by the clock of its writer; 0 without an event."""
    try:
        with _opened(folder) as log:
            return _last_time(log.fileno(), whole_lines(log.fileno()))
    except ConfigError:
        return 0.0


# --- reading ---


@dataclass(frozen=True)
class Log:
    """The log of a run folder at one moment. Its readers read the first `size` bytes only."""

    folder: Path
    size: int
    was_driven: bool

    def read(self) -> tuple[list[Row], list[str]]:
        """Returns the events, and one problem for each line that is left out."""
        return read_events(self.folder, self.size)

    def status(self, recorded: str) -> str:
        """Returns the status of the search. `recorded` is the status by the log.

        When the log says `running` but no process writes it, the search was killed.
        """
        # `is_driven` is asked again, because the search may have been resumed just now.
        if recorded != RUNNING or self.was_driven or is_driven(self.folder):
            return recorded
        return KILLED


def open_log(folder: Path) -> Log:
    """Returns the log of a run folder as it is now. Raises ConfigError for any other folder."""
    # The lock is looked at before the size, because the last event is written under the lock.
    was_driven = is_driven(folder)
    return Log(folder, log_size(folder), was_driven)


def log_size(folder: Path) -> int:
    """Returns the bytes of the log. Raises ConfigError when the folder is no run folder."""
    try:
        return (folder / EVENTS).stat().st_size
    except OSError as error:
        what = "is no run folder" if folder.is_dir() else "is no folder"
        hint = nearest(folder, run_folders(folder))
        raise ConfigError(
            f"{what} of a search: {EVENTS}: {error.strerror}{hint}", str(folder)
        ) from None


def read_events(folder: Path, size: int | None = None) -> tuple[list[Row], list[str]]:
    """Returns the events in the first `size` bytes of the log, and one problem for each bad line.

    Bad lines are left out. With None for the size, it reads the whole log. A last line without its
    end is still being written, and is no problem.

    Raises:
        ConfigError: the file is no log of a search.
    """
    size = log_size(folder) if size is None else size
    with _opened(folder) as log:
        return _parse(log.read(size).split(b"\n")[:-1], folder)


def new_events(folder: Path, start: int) -> tuple[list[Row], int]:
    """Returns the events in the whole lines of the log from byte `start` on, and where they end.

    Raises:
        ConfigError: the file is no log of a search.
    """
    with _opened(folder) as log:
        log.seek(start)
        *lines, torn = log.read().split(b"\n")
        end = log.tell() - len(torn)
    if start == 0 and lines:
        return _parse(lines, folder)[0], end
    return [row for row in decoded(lines) if row is not None], end


def first_event(folder: Path) -> Row:
    """Returns the search event. Raises ConfigError when the file is no log of a search."""
    with _opened(folder) as log:
        return _parse([log.readline()], folder)[0][0]


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[BinaryIO]:
    try:
        with open(folder / EVENTS, "rb") as log:
            yield log
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", str(folder / EVENTS)) from None


def _parse(lines: Sequence[bytes], folder: Path) -> tuple[list[Row], list[str]]:
    rows = decoded(lines)
    if not rows or rows[0] is None or rows[0]["event"] != "search":
        law = "is no log of a search: it does not begin with a search event"
        raise ConfigError(law, str(folder / EVENTS))
    problems = [
        f"{folder / EVENTS}: line {number}: no event, left out: {_excerpt(line)}"
        for number, (line, row) in enumerate(zip(lines, rows, strict=True), 1)
        if row is None
    ]
    return [row for row in rows if row is not None], problems


def _excerpt(line: bytes) -> str:
    return repr(line[:60].decode(errors="replace"))


def whole_lines(file: int) -> int:
    """Returns the number of bytes of an open file up to the end of its last whole line."""
    end = os.fstat(file).st_size
    while end > 0:
        begin = max(0, end - 65536)
        if (found := _read_at(file, begin, end - begin).rfind(b"\n")) >= 0:
            return begin + found + 1
        end = begin
    return 0


def _last_time(file: int, size: int) -> float:
    """Returns the time of the last event in the first `size` bytes of an open log.

    Returns 0 when no event can be read.
    """
    begin = max(0, size - 65536)
    for line in reversed(_read_at(file, begin, size - begin).splitlines()):
        (row,) = decoded([line])
        if row is not None:
            return float(row["time"])
    return 0.0


def _read_at(file: int, begin: int, size: int) -> bytes:
    """Returns up to `size` bytes of an open file from byte `begin` on. Windows has no pread."""
    os.lseek(file, begin, os.SEEK_SET)
    return os.read(file, size)


def _finite(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value
