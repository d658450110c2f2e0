"""Why trials fail: the classes of failure, each with a status and a rule of its own.

lost            its worker died or its node vanished: not the trial's doing; it goes on elsewhere, so many times
out_of_memory   of the GPU or the host: the same again would end the same; kept, and run again only when asked to
failed          an error in the trial: kept with its traceback; when the first trials fail alike, the search ends
diverged        a loss that is not finite: no failure but a result

A checkpoint that is damaged fails nothing: the trial goes on from the one before.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from s2s_search.statuses import FAILED, FAILURES, OUT_OF_MEMORY

AGAIN = "run again"  # why a trial that had failed goes on
ALIKE = 3  # so many first trials that fail alike end the search

# What torch, Python, NumPy, the system, CUDA and Ray say; a message that only names memory as one of many possible
# causes is not here. "error: out of memory" is CUDA's where other processes fill the card.
MEMORY = re.compile(
    r"MemoryError\b|(CUDA|HIP|error:) out of memory|an(not|'t) allocate memory|std::bad_alloc|"
    r"_STATUS_ALLOC_FAILED|low on memory|memory monitor"
)


@dataclass(frozen=True)
class Failure:
    """Trials that failed alike: how, the message of the first, which ones, and what only they have in common."""

    status: str
    message: str
    trials: tuple[str, ...]
    shared: Mapping[str, object]


def error_message(text: str) -> str:
    """The first line of the message at the end of a traceback, "ValueError: ..."; of another text its first line."""
    lines = text.strip().splitlines()
    frames = [i for i, line in enumerate(lines) if line.startswith('  File "')]
    rest = lines[frames[-1] + 1 :] if frames else lines
    return next(
        (line for line in rest if line and not line[0].isspace()), "failed without a message"
    )


def status_of(error: str) -> str:
    """The status of a trial that ended with a traceback or a message."""
    return OUT_OF_MEMORY if MEMORY.search(error_message(error)) else FAILED


def cause(message: str) -> str:
    """A message without what differs from trial to trial: numbers and addresses."""
    return re.sub(r"0x[0-9a-f]+|\d+(\.\d+)?(e[+-]?\d+)?", "#", message)


def grouped(trials: Iterable[Mapping[str, Any]], searched: Sequence[str]) -> list[Failure]:
    """Groups failed trials by status and cause, the largest group first.

    A trial is a mapping with `trial`, `status`, `message` and its searched hyperparameters.
    """
    rows = list(trials)
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["status"] in FAILURES:
            groups.setdefault((row["status"], cause(row["message"] or "")), []).append(row)
    found = []
    for (status, _), group in groups.items():
        names = tuple(str(row["trial"]) for row in group)
        others = [row for row in rows if str(row["trial"]) not in names]
        found.append(
            Failure(status, group[0]["message"] or "", names, _shared(group, others, searched))
        )
    return sorted(found, key=lambda failure: -len(failure.trials))


def _shared(
    group: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]], searched: Sequence[str]
) -> dict[str, object]:
    """The settings that all of a group have and none of the others; without others there is nothing to tell."""
    if len(group) < 2 or not others:
        return {}
    common = {
        key: group[0].get(key) for key in searched if len({str(row.get(key)) for row in group}) == 1
    }
    return {
        key: value
        for key, value in common.items()
        if value is not None and all(str(row.get(key)) != str(value) for row in others)
    }
