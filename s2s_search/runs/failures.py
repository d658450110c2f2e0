"""The classes of failure of a trial, each with a status and a rule of its own.

lost            The worker died or its node vanished. The trial did not cause that. It is resumed on
                another worker, at most search.retries times.
out_of_memory   The GPU or the host had no memory left. The trial would fail again in the same way.
                It is kept, and runs again only on request.
failed          The trial raised an error. It is kept with its traceback. When the first trials all
                fail alike, the search ends.
diverged        The loss is not finite. That is a result and no failure.

A damaged checkpoint fails no trial: the trial resumes from the checkpoint before it.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from s2s_search.statuses import FAILED, FAILURES, OUT_OF_MEMORY

AGAIN = "run again"  # the cause of a restart when a failed trial runs again on request
FIRST_FAILURES = 3  # the number of first trials that end the search when they all fail alike

# The messages of torch, Python, NumPy, the system, CUDA and Ray. A message that only names memory
# as one of many possible causes is not among them. CUDA says "error: out of memory" when other
# processes fill the GPU.
MEMORY = re.compile(
    r"MemoryError\b|(CUDA|HIP|error:) out of memory|an(not|'t) allocate memory|std::bad_alloc|"
    r"_STATUS_ALLOC_FAILED|low on memory|memory monitor"
)


@dataclass(frozen=True)
class Failure:
    """Trials that failed alike.

    `message` is that of the first of these trials. `shared` holds the settings that all these
    trials have and no other trial has.
    """

    status: str
    message: str
    trials: tuple[str, ...]
    shared: Mapping[str, object]


def error_message(text: str) -> str:
    """Returns the first line of the message at the end of a traceback, such as "ValueError: ...".

    For a text without a traceback, it returns the first line of the text.
    """
    lines = text.strip().splitlines()
    frames = [i for i, line in enumerate(lines) if line.startswith('  File "')]
    rest = lines[frames[-1] + 1 :] if frames else lines
    return next(
        (line for line in rest if line and not line[0].isspace()), "failed without a message"
    )


def status_of(error: str) -> str:
    """Returns the status of a trial that ended with a traceback or a message."""
    return OUT_OF_MEMORY if MEMORY.search(error_message(error)) else FAILED


def cause(message: str) -> str:
    """Returns a message without the parts that differ between trials: numbers and addresses."""
    return re.sub(r"0x[0-9a-f]+|\d+(\.\d+)?(e[+-]?\d+)?", "#", message)


def grouped(trials: Iterable[Mapping[str, Any]], searched: Sequence[str]) -> list[Failure]:
    """Returns the failed trials, grouped by status and cause, the largest group first.

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
    """Returns the settings that all trials of a group have and none of the others has.

    Without other trials, every setting would count. The result is empty then.
    """
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
