"""How the benchmarks measure: contestants take turns, and the median ratio counts.

The ratio is that of processor times. Other work on the machine, or a change of its clock rate, then
slows all contestants alike.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from s2s_search.machine import usable_cores

PACKAGES = ("torch", "ray", "numpy", "pandas")


class Ratio(NamedTuple):
    """How many times as long one contestant takes as another: median and quartiles."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f}-{self.high:.2f})"


def take_turns(
    contestants: Mapping[str, Callable[[], object]],
    rounds: int,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, list[float]]:
    """Runs each contestant once a round, and returns the seconds of its runs by name.

    The order is reversed in every other round.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for run in contestants.values():
        run()  # the first run warms up
    for k in range(rounds):
        for name in list(contestants)[:: 1 if k % 2 == 0 else -1]:
            began = clock()
            contestants[name]()
            seconds[name].append(clock() - began)
    return seconds


def ratio(slow: Sequence[float], fast: Sequence[float]) -> Ratio:
    """Returns how many times as long `slow` takes as `fast`, round by round."""
    each = sorted(a / b for a, b in zip(slow, fast, strict=True))
    low, median, high = statistics.quantiles(each, n=4) if len(each) > 1 else each * 3
    return Ratio(median, low, high)


def machine() -> dict[str, object]:
    """Returns a description of the machine and the versions."""
    versions = {package: metadata.version(package) for package in PACKAGES}
    return {
        "processor": processor(),
        "cores": usable_cores(),
        "python": platform.python_version(),
        **versions,
    }


def processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def parser(
    name: str, description: str | None, rounds: int | None = None
) -> argparse.ArgumentParser:
    """Returns a parser with the arguments of all benchmarks.

    `rounds` is the default number of rounds; None for a benchmark without turns.
    """
    made = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=description)
    if rounds is not None:
        made.add_argument(
            "--rounds",
            type=int,
            default=rounds,
            help=f"number of turns of each contestant (default: {rounds})",
        )
    made.add_argument(
        "--json",
        type=Path,
        default=Path("runs") / "benchmarks" / f"{name}.json",
        help="the file for the rows (default: %(default)s)",
    )
    return made


def show(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Prints rows as a Markdown table, and writes them as JSON with the machine's description."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    print("| " + " | ".join(columns) + " |")
    print("|" + " --- |" * len(columns))
    for row in rows:
        print("| " + " | ".join(cell(row.get(column)) for column in columns) + " |")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")
    print(f"\n{path}")


def cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return "" if value is None else str(value)
