"""Follows a search that runs in another process, or on another machine that shares the run folder.

The event log is all that is read. Nothing is written, and the search is not disturbed.
"""

import time
from pathlib import Path

from s2s_search.display.progress import SECONDS_BETWEEN_FRAMES, Progress
from s2s_search.interrupts import Interrupt
from s2s_search.runs.log import first_event, is_driven, log_size, new_events

# A search without a driver counts as killed only after this time: it may be about to start.
SECONDS_OF_SILENCE = 5.0


class Follower:
    """Reads the log of a run folder as it grows, and passes its events to a display.

    Raises:
        ConfigError: the folder is no run folder.
    """

    def __init__(self, folder: Path, progress: Progress) -> None:
        log_size(folder)  # raises ConfigError where there is no log
        self.folder = folder
        self.progress = progress
        self._read = 0  # bytes of the log that have been read
        self._heard = time.monotonic()  # when there was last a driver or a new event

    def read(self) -> str:
        """Shows the new events, and returns the status of the search: the logged one, or "killed".

        Raises:
            ConfigError: the folder is no run folder.
        """
        # The lock is tried before the log is read: the driver writes its last event under the lock.
        driven = is_driven(self.folder)
        if log_size(self.folder) < self._read:
            self._read = 0  # another log has taken the place of this one
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
            first_event(self.folder)  # raises ConfigError, as the log has no first event
        self.progress.show({"event": "status", "status": "killed"})
        return "killed"


def watch(folder: Path, progress: Progress, interval: float) -> str:
    """Shows a search until it ends, reading its log every `interval` seconds; returns its status.

    Raises:
        ConfigError: the folder is no run folder.
        KeyboardInterrupt: Ctrl-C, a SIGTERM or a SIGHUP; the search still runs.
    """
    follower, interrupt = Follower(folder, progress), Interrupt()
    with interrupt:
        try:
            progress.note(f"watching {folder}; Ctrl-C stops the watching, not the search")
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
