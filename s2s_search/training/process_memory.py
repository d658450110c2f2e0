"""glibc's settings for freed memory: a process keeps it between training steps."""

import ctypes
import os

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # parameters of glibc's mallopt
BLOCK_THAT_TRIMS = 2**17  # bytes; freeing a block of 64 KiB or more trims its arena


def keep_freed_memory() -> None:
    """Makes this process keep the memory that it frees, if its C library is glibc.

    By default glibc returns large blocks to the system. Each training step would then ask for the
    same blocks again, which costs hundreds of page faults or more.
    """
    libc = _glibc()
    if libc is not None:
        libc.mallopt(M_MMAP_THRESHOLD, 2**30)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def release_freed_memory() -> None:
    """Gives the memory that `keep_freed_memory` kept back to the system.

    It must be called at the end of a trial, in the thread of the trial. The next trial of the
    process runs in another thread, to which glibc may give another arena. `malloc_trim` trims the
    free end of the main arena only. The free end of another arena is trimmed when its thread frees
    a block of 64 KiB or more, while more than the threshold is free there.
    """
    libc = _glibc()
    if libc is not None:
        libc.mallopt(M_TRIM_THRESHOLD, 0)
        libc.free(libc.malloc(BLOCK_THAT_TRIMS))
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    """Returns the C library of this process if it is glibc, or None."""
    if os.name != "posix":
        return None
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "malloc_trim"):
        return None
    libc.malloc.argtypes, libc.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
    libc.free.argtypes = [ctypes.c_void_p]
    return libc
