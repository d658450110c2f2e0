"""A run folder: its files, its lock, and how its files are replaced as a whole.

A trial has one identity in three forms: its number K, its name (trial-00007 for K = 7), and the
name of its folder below the run folder. The name is also the trial's id in Ray Tune.
"""

import contextlib
import json
import logging
import os
import re
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from s2s_search.errors import ConfigError, command, printable

# The files of a run folder. All other modules take their names from here.
EVENTS, LOCK = "events.jsonl", "driver.lock"
SPACE, ENVIRONMENT = "space.yaml", "environment.json"
TRIALS_CSV, TRIALS, REPORTS = "trials.csv", "trials.parquet", "reports.parquet"
DECODING, EVALUATIONS, PAGE = "decoding.csv", "evaluations.jsonl", "report.html"
RAY, RAY_LOG = "ray", "ray.log"
TENSORBOARD, MLFLOW = "tensorboard", "mlflow.db"  # W&B names its folder itself
# The files of a trial's folder, and of a debug run.
CONFIG, ANSWERS, ERROR = "config.json", "answers.json", "error.txt"
BEST, LAST, PREVIOUS = "best.pt", "last.pt", "previous.pt"
DEBUG_REPORTS = "reports.jsonl"

SECONDS_OF_A_LOOK = 0.2  # the longest time for which `is_locked` holds a lock

logger = logging.getLogger(__name__)


def lock(folder: Path) -> int:
    """Locks a run folder for this process.

    Returns:
        The open lock file. The lock ends when the file is closed, and when the process ends or is
        killed.

    Raises:
        ConfigError: another process holds the lock, or the folder cannot be written.
    """
    # Imported late: the command `check` imports this module, and has to be fast.
    from filelock import lock_descriptor

    path, due = folder / LOCK, time.monotonic() + SECONDS_OF_A_LOOK
    while True:
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise ConfigError(f"cannot be written: {error.strerror}", str(folder)) from None
        try:
            free = lock_descriptor(file, blocking=False)
        except OSError:  # a file system without locks
            free = True
            logger.warning(
                "%s: this file system has no locks: make sure that no other search uses the folder",
                path,
            )
        if not free:
            holder = _holder(file)
            os.close(file)
            if time.monotonic() < due:  # another process may only be looking, in `is_locked`
                time.sleep(0.01)
                continue
            law = "is in use: a run folder has one search at a time"
            raise ConfigError(f"{law}, and {holder or 'another process'} drives it", str(folder))
        if _is_at(path, file):
            with contextlib.suppress(OSError):  # on a full disk the lock file stays empty
                os.ftruncate(file, 0)
                os.write(file, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
            return file
        os.close(file)


def _holder(file: int) -> str:
    """Returns the text of an open lock file: who holds it.

    On Windows the text is empty, because a locked file cannot be read there.
    """
    try:
        return os.read(file, 200).decode(errors="replace").strip()
    except OSError:
        return ""


def _is_at(path: Path, file: int) -> bool:
    """Returns whether an open file still lies at the path. Its holder may just have removed it."""
    try:
        return os.stat(path).st_ino == os.fstat(file).st_ino
    except OSError:
        return False


def is_locked(folder: Path) -> bool:
    """Returns whether a search is writing a run folder now."""
    try:
        file = os.open(folder / LOCK, os.O_RDONLY)
    except OSError:
        return False
    try:
        return not _look(file)
    except OSError:  # a file system without locks
        return False
    finally:
        os.close(file)


def _look(file: int) -> bool:
    """Returns whether nobody holds an open lock file.

    The look takes a shared lock for a moment. Two processes may look at the same time
    without blocking each other, and on NFS the right to read is enough. filelock has no shared
    locks. Without fcntl (Windows) the look therefore takes an exclusive lock.
    """
    try:
        import fcntl
    except ImportError:
        from filelock import lock_descriptor

        return lock_descriptor(file, blocking=False)
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def holder_elsewhere(folder: Path) -> str:
    """Returns "process N on HOST" when a process on another machine holds or held the lock.

    Otherwise the text is empty.
    """
    try:
        holder = (folder / LOCK).read_text(errors="replace").strip()[:200]
    except OSError:
        return ""
    holder = printable(holder)
    return "" if holder.endswith(f" on {socket.gethostname()}") else holder


def run_folders(folder: Path) -> list[str]:
    """Returns the run folders beside a path, the newest first.

    When there are none, it returns the run folders below runs/.
    """
    logs = [*folder.parent.glob(f"*/{EVENTS}")] or [*Path("runs").glob(f"*/{EVENTS}")]
    return [
        str(log.parent) for log in sorted(logs, key=lambda log: log.stat().st_mtime, reverse=True)
    ]


# The pattern of a trial's name. It is strict, because a name becomes the name of a folder.
TRIAL_NAME = "trial-([0-9]{5}|[1-9][0-9]{5,8})"


def trial_name(number: int) -> str:
    """Returns the name of trial K, trial-0000K. Ray Tune's id and the folder have the same name."""
    return f"trial-{number:05d}"


def trial_number(text: str) -> int | None:
    """Returns the number of a trial that is given as trial-00005 or 5; None for any other text."""
    found = re.fullmatch("(?:trial-)?([0-9]{1,10})", text)
    return int(found[1]) if found else None


def no_trial(number: int, known: Iterable[str]) -> str:
    """Returns a sentence for a missing trial, which names the trials that there are.

    Consecutive trials are shown as the first and the last of them.
    """
    spans: list[list[int]] = []
    for other in sorted(int(name.removeprefix("trial-")) for name in known):
        if spans and other == spans[-1][-1] + 1:
            spans[-1][1:] = [other]
        else:
            spans.append([other])
    phrases = [" to ".join(map(trial_name, span)) for span in spans[:6]]
    more = ", ..." if len(spans) > 6 else ""
    there = (
        f"there {'is' if len(spans) == len(spans[0]) == 1 else 'are'} {', '.join(phrases)}{more}"
        if spans
        else ""
    )
    return f"there is no {trial_name(number)}; {there or 'no trial has begun'}"


def is_trial_name(name: object) -> bool:
    """Returns whether a name is the name of a trial."""
    return isinstance(name, str) and re.fullmatch(TRIAL_NAME, name) is not None


# --- the folder ---


def check_new(folder: Path) -> None:
    """Raises ConfigError when a folder cannot become the folder of a new run."""
    if folder.is_dir() and any(folder.iterdir()):
        how = f"; to resume it: {command('resume', folder)}" if (folder / EVENTS).exists() else ""
        raise ConfigError(f"is there already, and a run is never overwritten{how}", str(folder))
    if folder.exists() and not folder.is_dir():
        raise ConfigError("is a file; a run needs a folder of its own", str(folder))


def new_folder(folder: Path) -> None:
    """Makes the folder of a new run, with an empty log.

    When several searches do this at once, only one of them succeeds.

    Raises:
        ConfigError: the folder cannot be made, or belongs to another search.
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
    """Makes the folder of a new run, and returns it.

    When the folder is there already, it makes a folder with a number beside it (NAME-2).

    Raises:
        ConfigError: the folder cannot be made.
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
    """Replaces a file by the file that `write` writes, in one step.

    A reader sees the old file or the new file and nothing in between, also after a kill.
    """
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(new)
        os.replace(new, path)
    finally:
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Raises ConfigError when `replace` could not write this file, and leaves nothing behind.

    A command that works for minutes before it writes its result calls this first.
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
