"""Processes that share work, and end with the process that started them."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

KILLED = "the system killed a process, as it does when memory runs out"
# What NumPy reads when it is imported.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@contextmanager
def processes_of(count: int) -> Iterator[list[ProcessPoolExecutor]]:
    """Gives pools of one process each. After an error, Ctrl-C included, the processes are ended.

    One pool with several processes would not notice in Python 3.11 when one of them is killed.
    """
    others = set(multiprocessing.active_children())
    spawn = multiprocessing.get_context("spawn")
    pools = [ProcessPoolExecutor(1, spawn, _begin) for _ in range(count)]
    try:
        yield pools
    except BaseException:
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        raise
    finally:
        for pool in pools:
            pool.shutdown(cancel_futures=True)


def _begin() -> None:
    """Makes Ctrl-C end this process silently, and the end of its parent end it, too.

    The process computes with one thread, because there is a process for each core.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ |= dict.fromkeys(THREADS, "1")


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        signal.raise_signal(signal.SIGTERM)
