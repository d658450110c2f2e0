"""A search that runs in another process, or on another machine that has its folder, followed by its event log alone.

Nothing is written, and the search is not disturbed.
"""

import time
from pathlib import Path

from s2s_search.display.progress import SECONDS_BETWEEN_FRAMES, Progress
from s2s_search.interrupts import Interrupt
from s2s_search.runs.log import first_event, is_driven, log_size, new_events

SECONDS_OF_SILENCE = (
    5.0  # without a driver, before a search counts as killed: it may be about to begin, or to go on
)


class Follower:
    """Reads the log of a run folder as it grows, and passes its events on to a display.

    Raises:
        ConfigError: the folder is none of a search.
    """

    def __init__(self, folder: Path, progress: Progress) -> None:
        log_size(folder)  # or it is none of a search
        self.folder, self.progress = folder, progress
        self._read = 0  # bytes
        self._heard = time.monotonic()

    def read(self) -> str:
        """Takes in what is new, and gives the status of the search: as it says itself, or killed.

        Raises:
            ConfigError: the folder is none of a search.
        """
        driven = is_driven(
            self.folder
        )  # before the log is read: the last event is written under the lock
        if log_size(self.folder) < self._read:
            self._read = 0  # another log
        events, end = new_events(self.folder, self._read)
        if self._read == 0:
            self.progress.recall(events)
        else:
            for event in events:
                self.progress.show(event)
        if driven or end != self._read:
            self._heard = time.monotonic()
        self._read = end
        standing = self.progress.standing
        if standing is not None and standing.status != "running":
            return standing.status
        if driven or time.monotonic() - self._heard < SECONDS_OF_SILENCE:
            return "running"
        if standing is None:
            first_event(self.folder)  # there is none, which is said
        self.progress.show({"event": "status", "status": "killed"})
        return "killed"


def watch(folder: Path, progress: Progress, interval: float) -> str:
    """Shows a search until it ends, reading its log every `interval` seconds; gives its status.

    Raises:
        ConfigError: the folder is none of a search.
        KeyboardInterrupt: Ctrl-C, a SIGTERM or a SIGHUP; the search goes on.
    """
    follower, interrupt = Follower(folder, progress), Interrupt()
    with interrupt:
        try:
            progress.note(f"watching {folder}; Ctrl-C leaves the search alone")
            while (status := follower.read()) == "running":
                due = time.monotonic() + interval
                while time.monotonic() < due:
                    interrupt.check()
                    progress.tick()
                    time.sleep(min(SECONDS_BETWEEN_FRAMES, interval))
            progress.tick()
        finally:
            progress.close()
    return status
