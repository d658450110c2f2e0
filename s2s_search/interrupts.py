"""Signals that end a search: Ctrl-C, SIGTERM and SIGHUP."""

import signal
import threading
from types import FrameType
from typing import Any

# Slurm and Kubernetes give notice by SIGTERM. Windows has no SIGHUP.
SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)


class Interrupt:
    """Turns Ctrl-C, SIGTERM and SIGHUP into one KeyboardInterrupt at a moment when nothing is lost.

    A first signal is noted, and the next `check` raises KeyboardInterrupt. A second signal raises
    it at once. After that, or after `hold`, no signal raises anything, so that files are written to
    their end. A SIGHUP that is ignored, as under nohup, stays ignored.
    """

    def __init__(self) -> None:
        self.wanted = False  # a signal has come
        self.held = False  # nothing is to be raised any more

    def __enter__(self) -> None:
        self._signals: list[signal.Signals] = []
        if threading.current_thread() is threading.main_thread():
            self._signals = [number for number in SIGNALS if not _is_nohup(number)]
        self._before = self.listen()

    def listen(self) -> dict[signal.Signals, Any]:
        """Takes over the signals and returns their handlers until now.

        It is called again after Ray has started, because Ray sets a handler of its own for SIGTERM.
        """
        return {number: signal.signal(number, self._on_signal) for number in self._signals}

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler or signal.SIG_DFL)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        is_second = self.wanted
        self.wanted = True
        if is_second:
            self.check()

    def check(self) -> None:
        """Raises KeyboardInterrupt once, when a signal has come."""
        if self.wanted and not self.held:
            self.hold()
            raise KeyboardInterrupt

    def hold(self) -> None:
        """Makes all signals from now on raise nothing."""
        self.held = True


def _is_nohup(number: signal.Signals) -> bool:
    """Returns whether the signal is a SIGHUP that the process was told to ignore."""
    return number.name == "SIGHUP" and signal.getsignal(number) is signal.SIG_IGN
