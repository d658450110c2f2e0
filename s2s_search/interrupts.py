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
    """Makes of Ctrl-C, a SIGTERM or a SIGHUP a wish that `check` grants at a good moment, and of a second an order.

    Either raises KeyboardInterrupt, once: from then on, or after `hold`, what is being written is not disturbed. A
    SIGHUP that is ignored, as under nohup, stays so.
    """

    def __init__(self) -> None:
        self.wanted = self.held = False

    def __enter__(self) -> None:
        self._signals: list[signal.Signals] = []
        if threading.current_thread() is threading.main_thread():
            self._signals = [number for number in SIGNALS if not _is_nohup(number)]
        self._before = self.listen()

    def listen(self) -> dict[signal.Signals, Any]:
        """Takes the signals over, also from Ray, which takes SIGTERM when it starts; gives their handlers."""
        return {number: signal.signal(number, self._on_signal) for number in self._signals}

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler or signal.SIG_DFL)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        again, self.wanted = self.wanted, True
        if again:
            self.check()

    def check(self) -> None:
        """Raises KeyboardInterrupt when there was a signal."""
        if self.wanted and not self.held:
            self.hold()
            raise KeyboardInterrupt

    def hold(self) -> None:
        self.held = True


def _is_nohup(number: signal.Signals) -> bool:
    return number.name == "SIGHUP" and signal.getsignal(number) is signal.SIG_IGN
