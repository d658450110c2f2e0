"""The event log of a run folder: what happened in a search, a JSON object a line, as it happened.

It is the truth: the tables are made from it (run_tables.py), and a search that was killed goes on from it (history.py).
It has one writer, which holds the lock of the folder, and any number of readers. A line is there whole or counts for
nothing.
"""

import contextlib
import fcntl
import functools
import json
import logging
import math
import os
import re
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

from s2s_search.statuses import ENDS, KILLED, REPORTED, RUNNING, SEARCH_ENDS
from s2s_search.table import ENTRIES, TABLE, ConfigError, command, nearest, printable

EVENTS = "events.jsonl"
LOCK = "driver.lock"
SECONDS_BETWEEN_SYNCS = 1.0
SECONDS_OF_A_LOOK = 0.2  # at most, in which `is_locked` holds a lock
SECONDS_ELSEWHERE = 600.0  # after its newest event a search on another machine counts as killed

# The kinds of events, with what the readers need of each.
NEEDED = {
    "search": {"name", "metric", "goal", "searched", "time"},
    "queued": {"trial"},
    "trial": {"trial", "settings", "config"},
    "report": {"trial", "time", "step"},
    "decision": {"trial", "action", "step", "value"},
    "restart": {"trial", "cause"},
    "exploit": {"trial", "source", "settings", "config"},
    "pause": {"trial"},
    "start": {"trial"},
    "status": {"status"},
    "resume": {"trials", "time"},
    "note": {"message"},
    "wait": {"message"},
}

Event = Mapping[str, Any]
Row = dict[str, Any]

GOALS = ("minimize", "maximize")
DTYPES = ("Int64", "Float64", "boolean", "string")
# How control characters stand in a line of JSON, which cannot hold the others as they are.
SUSPECT = re.compile(rb"\\[bfnrtu]|\x7f|\xc2[\x80-\x9f]|\xe2\x80[\xa8-\xae]|\xe2\x81[\xa6-\xa9]")
HALVES = (b"\\ud", b"\\uD")  # how the escape of half a surrogate pair begins
NUMBERS = re.compile(r"dev\.|train\.|.*seconds$|step$|value$|cutoff$|rung$|rank$|of$|parameters$|learning_rate$")

logger = logging.getLogger(__name__)


def _ticks() -> float:
    """Seconds that no change of the clock disturbs; time asleep counts where the system can tell it."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


_BEGAN = time.time() - _ticks()


def now() -> float:
    """Returns the seconds since 1970, by the clock as it was set when this process began.

    A clock that is set back or forward later changes no duration.
    """
    return _BEGAN + _ticks()


class EventLog:
    """The log of a run folder, open for its one writer.

    On a full disk events wait in memory, and are written as soon as there is room: `full` says why they wait.

    Raises:
        ConfigError: another process writes it, or the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.full = ""
        self._lock = lock(folder)
        try:
            self._file = os.open(folder / EVENTS, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        except OSError as error:
            os.close(self._lock)
            raise ConfigError(f"{EVENTS} cannot be written: {error.strerror}", str(folder)) from None
        self._size = whole_lines(self._file)
        os.ftruncate(self._file, self._size)  # what a writer that was killed had begun
        self._ahead = max(_last_time(self._file, self._size) - now(), 0.0)  # where the clock was set back since
        self._waiting: list[bytes] = []
        self._synced = time.monotonic()
        self._dirty = False

    def append(self, event: Event) -> Row:
        """Appends an event in one write; gives what was written.

        An event is `{"event": kind, "time": seconds since 1970, ...}`; the time is added here, and numbers that are not
        finite become null. The times of a log never go back.
        """
        row: Row = {"event": event["event"], "time": round(now() + self._ahead, 3)}
        row |= {key: cleaned(_finite(value)) for key, value in event.items() if key != "event"}
        line = json.dumps(row, ensure_ascii=False, allow_nan=False)
        self._waiting.append(line.encode(errors="replace") + b"\n")  # a file's name may be no Unicode
        self.flush()
        return row

    def flush(self) -> None:
        """Writes what waits for room on the disk, and from time to time makes sure that it survives a loss of power."""
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
            os.ftruncate(self._file, self._size)  # no half line
            return False
        self._size += len(line)
        self._dirty = True
        return True

    def _sync(self) -> None:
        with contextlib.suppress(OSError):
            os.fdatasync(self._file)
        self._synced, self._dirty = time.monotonic(), False

    def close(self) -> None:
        """Lets go of the log and of its lock. What there was no room for is lost: a resumed search makes it again."""
        self.flush()
        if self._waiting:
            logger.warning("%s: %s: the last %d events are lost", self.folder, self.full, len(self._waiting))
        self._sync()
        os.close(self._file)
        with contextlib.suppress(OSError):
            (self.folder / LOCK).unlink()
        os.close(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def lock(folder: Path) -> int:
    """Locks a run folder for this process and gives the open lock; it ends with the process, however that ends.

    Raises:
        ConfigError: another process holds it.
    """
    path, due = folder / LOCK, time.monotonic() + SECONDS_OF_A_LOOK
    while True:
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise ConfigError(f"cannot be written: {error.strerror}", str(folder)) from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(file, 200).decode(errors="replace").strip()
            os.close(file)
            if time.monotonic() < due:  # someone may only have looked whether it is locked
                time.sleep(0.01)
                continue
            law = "is in use: a run folder has one search at a time"
            raise ConfigError(f"{law}, and {holder or 'another process'} drives it", str(folder)) from None
        except OSError:  # a file system without locks
            logger.warning("%s: this file system has no locks: make sure that no other search uses the folder", path)
        if _is_at(path, file):
            with contextlib.suppress(OSError):  # on a full disk it is locked without a name
                os.ftruncate(file, 0)
                os.pwrite(file, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
            return file
        os.close(file)


def _is_at(path: Path, file: int) -> bool:
    """Says whether an open file is the one at a path, and not one that its holder has just removed there."""
    try:
        return os.stat(path).st_ino == os.fstat(file).st_ino
    except OSError:
        return False


def is_locked(folder: Path) -> bool:
    """Says whether a search is writing a run folder now."""
    try:
        file = os.open(folder / LOCK, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(file)
    return False


def holder_elsewhere(folder: Path) -> str:
    """Returns "process N on HOST" where that holds, or held until a kill, the lock on another machine; else nothing."""
    try:
        holder = (folder / LOCK).read_text(errors="replace").strip()[:200]
    except OSError:
        return ""
    holder = printable(holder)
    return "" if holder.endswith(f" on {socket.gethostname()}") else holder


def is_driven(folder: Path) -> bool:
    """Says whether a search drives a run folder now, as far as can be seen here.

    It does while it holds the lock. The lock of another machine may not be seen here: its search counts as alive until
    SECONDS_ELSEWHERE after its newest event.
    """
    if is_locked(folder):
        return True
    return bool(holder_elsewhere(folder)) and time.time() - _newest_time(folder) < SECONDS_ELSEWHERE


def _newest_time(folder: Path) -> float:
    """The time of the newest event, by the clock of its writer; 0 where there is none."""
    try:
        with _opened(folder) as log:
            return _last_time(log.fileno(), whole_lines(log.fileno()))
    except ConfigError:
        return 0.0


# --- reading ---


@dataclass(frozen=True)
class Log:
    """The log of a run folder at one moment: whatever is read of it later is of its first `size` bytes."""

    folder: Path
    size: int
    was_driven: bool

    def read(self) -> tuple[list[Row], list[str]]:
        """Returns the events, and what is wrong with lines that are left out."""
        return read_events(self.folder, self.size)

    def status(self, said: str) -> str:
        """Returns the status of the search, which is `said` by its log: a search that nobody drives was killed."""
        if said != RUNNING or self.was_driven or is_driven(self.folder):  # it may have been resumed just now
            return said
        return KILLED


def open_log(folder: Path) -> Log:
    """Looks at a run folder once. Raises ConfigError when it is none of a search."""
    was_driven = is_driven(folder)  # before the size is taken: the last event is written under the lock
    return Log(folder, log_size(folder), was_driven)


def log_size(folder: Path) -> int:
    """The bytes of the log. Raises ConfigError when the folder is none of a search."""
    try:
        return (folder / EVENTS).stat().st_size
    except OSError as error:
        what = "is no run folder" if folder.is_dir() else "is no folder"
        hint = nearest(folder, run_folders(folder))
        raise ConfigError(f"{what} of a search: {EVENTS}: {error.strerror}{hint}", str(folder)) from None


def run_folders(folder: Path) -> list[str]:
    """The run folders beside a path, or where there are none those below runs/, the newest first."""
    logs = [*folder.parent.glob(f"*/{EVENTS}")] or [*Path("runs").glob(f"*/{EVENTS}")]
    return [str(log.parent) for log in sorted(logs, key=lambda log: log.stat().st_mtime, reverse=True)]


def read_events(folder: Path, size: int | None = None) -> tuple[list[Row], list[str]]:
    """The events in the first `size` bytes of the log (None: in all), and what is wrong with lines that are left out.

    A last line without its end is still being written, and no problem.

    Raises:
        ConfigError: this is no log of a search.
    """
    size = log_size(folder) if size is None else size
    with _opened(folder) as log:
        return _parse(log.read(size).split(b"\n")[:-1], folder)


def new_events(folder: Path, start: int) -> tuple[list[Row], int]:
    """The events in the whole lines of the log from byte `start` on, and the byte where they end.

    Raises:
        ConfigError: this is no log of a search.
    """
    with _opened(folder) as log:
        log.seek(start)
        *lines, torn = log.read().split(b"\n")
        end = log.tell() - len(torn)
    if start == 0 and lines:
        return _parse(lines, folder)[0], end
    return [row for row in map(_parse_line, lines) if isinstance(row, dict) and _is_event(row)], end


def first_event(folder: Path) -> Row:
    """The search event. Raises ConfigError."""
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
    data = b"[" + b",".join(lines) + b"]"
    try:
        rows = json.loads(data.decode())  # one call: twice as fast as one a line
        if len(rows) != len(lines) or any(escape in data for escape in HALVES):
            raise ValueError
        rows = [cleaned(row) if SUSPECT.search(line) else row for row, line in zip(rows, lines, strict=True)]
    except (ValueError, RecursionError):
        rows = [_parse_line(line) for line in lines]
    events = [row for row in rows if _is_event(row)]
    if not rows or not _is_event(rows[0]) or rows[0]["event"] != "search":
        raise ConfigError("is no log of a search: it does not begin with a search event", str(folder / EVENTS))
    if len(events) == len(rows):
        return events, []
    damaged = [i for i, row in enumerate(rows, 1) if not _is_event(row)]
    return events, [f"{folder / EVENTS}: line {i}: no event, left out: {_excerpt(lines[i - 1])}" for i in damaged]


def cleaned(value: Any) -> Any:
    """Returns JSON of a foreign file with all its text printable, keys too."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, Mapping):
        return {printable(key): cleaned(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [cleaned(inner) for inner in value]
    return value


def _parse_line(line: bytes) -> object:
    try:
        row = json.loads(line.decode())
        json.dumps(row, ensure_ascii=False).encode()  # half a surrogate pair can be neither stored nor shown
        row = cleaned(row)
    except (ValueError, RecursionError):
        return None
    return row


def _is_event(row: object) -> bool:
    if not isinstance(row, dict) or not isinstance(row.get("event"), str):
        return False
    if not NEEDED.get(row["event"], set()) | {"time"} <= row.keys():
        return False
    if row["event"] == "status" and row["status"] not in (ENDS if "trial" in row else SEARCH_ENDS):
        return False
    if row["event"] == "report" and row.get("status", RUNNING) not in REPORTED:
        return False
    sure = {"decision": ("value", "step"), "report": ("step",)}.get(row["event"], ())
    if not all(_is_number(row[key]) for key in sure):
        return False
    return all(_check(key)(value) for key, value in row.items())


@functools.lru_cache(1000)
def _check(key: str) -> Callable[[Any], bool]:
    """What says whether a value is of the kind that its key stands for."""
    return _HOLDS.get(key) or (_is_number_or_null if NUMBERS.match(key) else _is_anything)


def trial_name(number: int) -> str:
    """Names the K-th configuration trial-0000K."""
    return f"trial-{number:05d}"


def trial_number(text: str) -> int | None:
    """Returns the number that a trial's name or number stands for, such as trial-00005 or 5; None of another text."""
    found = re.fullmatch("(?:trial-)?([0-9]{1,10})", text)
    return int(found[1]) if found else None


def no_trial(number: int, known: Iterable[str]) -> str:
    """Says that there is no such trial, and which there are: names, or the first and the last of several in a row."""
    spans: list[list[int]] = []
    for other in sorted(int(name.removeprefix("trial-")) for name in known):
        if spans and other == spans[-1][-1] + 1:
            spans[-1][1:] = [other]
        else:
            spans.append([other])
    said = [" to ".join(map(trial_name, span)) for span in spans[:6]]
    more = ", ..." if len(spans) > 6 else ""
    there = f"there {'is' if len(spans) == len(spans[0]) == 1 else 'are'} {', '.join(said)}{more}" if spans else ""
    return f"there is no {trial_name(number)}; {there or 'no trial has begun'}"


def is_trial_name(name: object) -> bool:
    """Says whether a name is one of our own: names become folders."""
    return isinstance(name, str) and re.fullmatch(r"trial-([0-9]{5}|[1-9][0-9]{5,8})", name) is not None


def _is_objective(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and value[1] in GOALS


def _is_column(key: str, dtype: object) -> bool:
    """Says whether a column of the trials table is of a hyperparameter; another could bear the name of one we make."""
    return (key == "model" or key in TABLE or key in ENTRIES) and dtype in DTYPES


def _is_configuration(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("model"), str)


def _is_earlier_trial(value: object) -> bool:
    if not isinstance(value, list) or len(value) != 3:
        return False
    config, values, status = value
    known = values is None or (isinstance(values, list) and all(map(_is_number_or_null, values)))
    return _is_configuration(config) and known and status in ENDS


def _is_number(value: object) -> bool:
    if type(value) is float:
        return math.isfinite(value)
    return type(value) is int and abs(value) < 2**62


def _is_count(value: object) -> bool:
    return type(value) in (int, float) and 0 <= value < 2**53 and value == int(value)  # type: ignore[call-overload, operator]


def _is_number_or_null(value: object) -> bool:
    return value is None or _is_number(value)


def _is_anything(value: object) -> bool:
    return True


_HOLDS: dict[str, Callable[[Any], bool]] = {
    "time": _is_number,
    **dict.fromkeys(("step", "parameters", "seed", "draws"), lambda value: value is None or _is_count(value)),
    "trial": is_trial_name,
    "source": lambda value: isinstance(value, str),
    "warm_start": lambda value: isinstance(value, list) and all(map(_is_earlier_trial, value)),
    "log": lambda value: isinstance(value, list) and all(isinstance(name, str) for name in value),
    "configs": lambda value: isinstance(value, list) and all(map(_is_configuration, value)),
    **dict.fromkeys(
        ("message", "space", "storage", "replicates_of"), lambda value: value is None or isinstance(value, str)
    ),
    "cause": lambda value: isinstance(value, str),
    "trials": lambda value: type(value) is int and 0 <= value < 10**9,
    "driver": lambda value: isinstance(value, dict) and all(map(_is_number, value.values())),
    "objectives": lambda value: isinstance(value, list) and all(map(_is_objective, value)),
    "status": lambda value: isinstance(value, str),
    "metric": lambda value: isinstance(value, str) and value.startswith(("dev.", "train.")),
    "name": lambda value: isinstance(value, str) and "/" not in value,  # a folder of replicates is named after it
    "goal": lambda value: value in GOALS,
    "searched": lambda value: isinstance(value, dict) and all(map(_is_column, value, value.values())),
    **dict.fromkeys(("settings", "config", "scheduler", "corpus"), lambda value: isinstance(value, dict)),
    "overrides": lambda value: value is None or isinstance(value, dict),
    **dict.fromkeys(("hours", "gpu_hours"), _is_number_or_null),
}


def _excerpt(line: bytes) -> str:
    return repr(line[:60].decode(errors="replace"))


def whole_lines(file: int) -> int:
    """The bytes of an open file up to the end of its last whole line."""
    end = os.fstat(file).st_size
    while end > 0:
        begin = max(0, end - 65536)
        if (found := os.pread(file, end - begin, begin).rfind(b"\n")) >= 0:
            return begin + found + 1
        end = begin
    return 0


def _last_time(file: int, size: int) -> float:
    """The time of the last event in the whole lines of an open log; 0 where none can be read."""
    begin = max(0, size - 65536)
    for line in reversed(os.pread(file, size - begin, begin).splitlines()):
        row = _parse_line(line)
        if isinstance(row, dict) and _is_number(row.get("time")):
            return float(row["time"])
    return 0.0


def _finite(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value


# --- the folder ---


def check_new(folder: Path) -> None:
    """Raises ConfigError when a folder cannot become that of a new run."""
    if folder.is_dir() and any(folder.iterdir()):
        how = f"; to go on with it: {command('resume', folder)}" if (folder / EVENTS).exists() else ""
        raise ConfigError(f"is there already, and a run is never overwritten{how}", str(folder))
    if folder.exists() and not folder.is_dir():
        raise ConfigError("is a file; a run needs a folder of its own", str(folder))


def new_folder(folder: Path) -> None:
    """Makes the folder of a new run, with an empty log: of several searches one alone succeeds.

    Raises:
        ConfigError: it cannot be made, or is another search's.
    """
    check_new(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / EVENTS).touch(exist_ok=False)
    except FileExistsError:
        raise ConfigError("another search has just begun there", str(folder)) from None
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror}", str(folder)) from None


def new_folder_of_its_own(folder: Path) -> Path:
    """Makes the folder of a new run, or one beside it with a number (NAME-2) where there is one; returns it.

    Raises:
        ConfigError: it cannot be made.
    """
    own, number = folder, 1
    while True:
        try:
            own.parent.mkdir(parents=True, exist_ok=True)
            own.mkdir()
            break
        except FileExistsError:
            number += 1
            own = folder.with_name(f"{folder.name}-{number}")
        except OSError as error:
            raise ConfigError(f"cannot be written: {error.strerror}", str(own)) from None
    new_folder(own)
    return own


def replace(path: Path, write: Callable[[Path], object]) -> None:
    """Replaces a file by what `write` writes, in one step: a reader, or a kill, meets the old or the new."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(new)
        os.replace(new, path)
    finally:
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Raises ConfigError when `replace` could not write this file, and leaves nothing behind.

    Work of minutes begins with this where its result is written at the end.
    """
    new = path.with_name(f".{path.name}.{os.getpid()}")
    if os.path.isdir(path):
        raise ConfigError("cannot be written: a folder has this name", str(path))
    try:
        new.touch()
        new.unlink()
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror}", str(path)) from None


def write_json(path: Path, value: Mapping[str, object]) -> None:
    """Writes an object as JSON that people read."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    replace(path, lambda new: new.write_text(text, encoding="utf-8"))
