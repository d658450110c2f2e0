"""The cores and the memory of the machine that this process may use, and how busy the cores are."""

import math
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")
CORE_TIMES = Path("/proc/stat")


def usable_cores() -> int:
    """Returns the number of cores that this process may compute on, at least 1.

    The limits are the CPU affinity (taskset, Slurm) and the CPU quota of the cgroups (containers,
    systemd). A quota of 1.5 cores counts as one core, because two threads would wait for each
    other.
    """
    cores: float = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    for folder in _cgroup_folders("cpu"):
        cores = min(cores, _quota(folder))
    return max(1, int(cores))


def usable_memory(processes: int = 1) -> float:
    """Returns the bytes of memory that a number of processes like this one may take together.

    The processes share the memory of the machine and of the cgroups. The limit of the address space
    (ulimit -v) holds for each process. The result is infinite where no limit is known.
    """
    memory = math.inf
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for folder in _cgroup_folders("memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            memory = min(memory, *_cgroup_numbers(folder / name)[:1], math.inf)
    return min(memory, processes * _address_space())


def busy_cores(seconds: float = 0.5) -> float | None:
    """Returns how many of the usable cores are busy now; None where that is not known.

    The number is a mean over `seconds`, in which this process sleeps. It is a sum of shares: two
    cores that are half busy count as 1.0.
    """
    before = _core_times()
    time.sleep(seconds)
    after = _core_times()
    busy = 0.0
    for core, (worked, passed) in after.items():
        worked_before, passed_before = before.get(core, (worked, passed))
        if passed > passed_before:  # no tick may have passed
            busy += (worked - worked_before) / (passed - passed_before)
    return busy if after else None


def _core_times() -> dict[int, tuple[int, int]]:
    """Returns, for each usable core, the ticks of work and all ticks since the machine started."""
    found: dict[int, tuple[int, int]] = {}
    with suppress(OSError, ValueError, AttributeError):
        usable = os.sched_getaffinity(0)
        for line in CORE_TIMES.read_text().splitlines():
            name, *words = line.split()
            if name.startswith("cpu") and name != "cpu" and int(name[3:]) in usable:
                # The columns after the eighth are the time of guests, which "user" and "nice"
                # contain.
                ticks = [int(word) for word in words[:8]]
                idle, waiting = ticks[3:5]
                found[int(name[3:])] = (sum(ticks) - idle - waiting, sum(ticks))
    return found


def _cgroup_folders(controller: str) -> Iterator[Path]:
    """Yields the folders of this process's cgroup and of all cgroups above it.

    The limits of all of them hold. Both versions of cgroups are read. Some of the folders may not
    exist: inside a container the path can be the one that the host sees, and then only the topmost
    folder is there.
    """
    with suppress(OSError):
        for line in OWN_CGROUPS.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            inner = PurePosixPath(path.lstrip("/"))
            mounts: list[Path] = []
            if not controllers:  # version 2 has one tree for all controllers
                mounts = [CGROUPS]
            elif controller in controllers.split(","):
                mounts = [CGROUPS / controller, CGROUPS / controllers]
            for mount in dict.fromkeys(mounts):
                for part in (inner, *inner.parents):
                    yield mount / part


def _quota(folder: Path) -> float:
    """Returns the number of cores that a cgroup grants; infinite without a limit."""
    numbers = _cgroup_numbers(folder / "cpu.max")  # version 2 has quota and period in one file
    if not numbers:
        numbers = [
            *_cgroup_numbers(folder / "cpu.cfs_quota_us"),
            *_cgroup_numbers(folder / "cpu.cfs_period_us"),
        ]
    if len(numbers) < 2:
        return math.inf
    quota, period = numbers[:2]
    if quota <= 0 or period <= 0:  # a quota of -1 means that there is no limit
        return math.inf
    return quota / period


def _cgroup_numbers(file: Path) -> list[float]:
    """Returns the numbers in a file of a cgroup, "max" as infinity; none where it is missing."""
    try:
        return [math.inf if word == "max" else float(word) for word in file.read_text().split()]
    except (OSError, ValueError):
        return []


def _address_space() -> float:
    """Returns the limit of the address space in bytes (ulimit -v); infinite without a limit."""
    if os.name != "posix":
        return math.inf
    import resource  # late, because Windows has no such module

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return math.inf if limit == resource.RLIM_INFINITY else limit
