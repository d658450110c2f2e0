"""The memory that a process keeps after it was freed: glibc's settings for a training step."""

import ctypes
import os

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
BLOCK_THAT_TRIMS = 2**17


def keep_freed_memory() -> None:
    """Lets this process keep the memory that it frees, where its C library is glibc.

    By default glibc returns large blocks to the system, and each training step asks for the same ones again, at the
    cost of hundreds of page faults or more.
    """
    if (libc := _glibc()) is not None:
        libc.mallopt(M_MMAP_THRESHOLD, 2**30)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def release_freed_memory() -> None:
    """Returns what `keep_freed_memory` keeps to the system, at the end of a trial and in its thread.

    The next trial of a process runs in another thread, to which glibc may give another arena. `malloc_trim` returns
    what is free inside all arenas, but the free end only of the main one. That of any other is returned when its thread
    frees a block of 64 KiB or more while more than the threshold is free there.
    """
    if (libc := _glibc()) is not None:
        libc.mallopt(M_TRIM_THRESHOLD, 0)
        libc.free(libc.malloc(BLOCK_THAT_TRIMS))
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    """Returns the C library of this process where it is glibc."""
    if os.name != "posix" or not hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        return None
    libc.malloc.argtypes, libc.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
    libc.free.argtypes = [ctypes.c_void_p]
    return libc
