"""What this process may use of the machine: its cores and its memory, and how busy the cores are."""

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

    Its CPU affinity (taskset, Slurm) and the CPU quota of its cgroups (containers, systemd) limit it. Of a quota of 1.5
    cores only one counts: two threads would wait for each other.
    """
    cores: float = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    for folder in _cgroup_folders("cpu"):
        cores = min(cores, _quota(folder))
    return max(1, int(cores))


def usable_memory(processes: int = 1) -> float:
    """Returns the bytes of memory that so many processes like this one may take; infinite where that is not known.

    They share the memory of the machine and of its cgroups; the limit of address space (ulimit -v) holds for each.
    """
    memory = math.inf
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for folder in _cgroup_folders("memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            memory = min(memory, *_numbers(folder / name)[:1], math.inf)
    return min(memory, processes * _address_space())


def busy_cores(seconds: float = 0.5) -> float | None:
    """Returns how many of the cores that this process may use others keep busy now; None where that is not known."""
    before = _core_times()
    time.sleep(seconds)
    after = _core_times()
    busy = 0.0
    for core, (worked, passed) in after.items():
        worked_before, passed_before = before.get(core, (worked, passed))
        if passed > passed_before:
            busy += (worked - worked_before) / (passed - passed_before)
    return busy if after else None


def _core_times() -> dict[int, tuple[int, int]]:
    """The ticks that each usable core has worked, and all that have passed, since the machine started."""
    found: dict[int, tuple[int, int]] = {}
    with suppress(OSError, ValueError, AttributeError):
        usable = os.sched_getaffinity(0)
        for line in CORE_TIMES.read_text().splitlines():
            name, *words = line.split()
            if name.startswith("cpu") and name != "cpu" and int(name[3:]) in usable:
                _, _, _, idle, waiting, *_ = ticks = [
                    int(word) for word in words[:8]
                ]  # what follows is counted twice
                found[int(name[3:])] = (sum(ticks) - idle - waiting, sum(ticks))
    return found


def _cgroup_folders(controller: str) -> Iterator[Path]:
    """The folders whose limits hold for this process: of its cgroup and of all above it, of versions 1 and 2.

    Inside a container the path can be the one that the host sees; then only the topmost folder exists.
    """
    with suppress(OSError):
        for line in OWN_CGROUPS.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            inner = PurePosixPath(path.lstrip("/"))
            mounts = [CGROUPS] if not controllers else []
            if controller in controllers.split(","):
                mounts = [CGROUPS / controller, CGROUPS / controllers]
            for mount in dict.fromkeys(mounts):
                yield from (mount / part for part in (inner, *inner.parents))


def _quota(folder: Path) -> float:
    """The cores that a cgroup grants; infinite without a limit."""
    numbers = _numbers(folder / "cpu.max")  # version 2: quota and period
    if not numbers:
        numbers = [*_numbers(folder / "cpu.cfs_quota_us"), *_numbers(folder / "cpu.cfs_period_us")]
    if len(numbers) < 2 or numbers[0] <= 0 or numbers[1] <= 0:  # a quota of -1 is none
        return math.inf
    return numbers[0] / numbers[1]


def _numbers(file: Path) -> list[float]:
    """The numbers in a file of a cgroup, where "max" is infinite; none where there is no such file."""
    try:
        return [math.inf if word == "max" else float(word) for word in file.read_text().split()]
    except (OSError, ValueError):
        return []


def _address_space() -> float:
    if os.name != "posix":
        return math.inf
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return math.inf if limit == resource.RLIM_INFINITY else limit
