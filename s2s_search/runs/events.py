"""The events of a log: their kinds, and what each must hold."""

import functools
import json
import logging
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from s2s_search.errors import printable
from s2s_search.hparams.table import ENTRIES, TABLE
from s2s_search.metrics import GOALS
from s2s_search.runs.folder import is_trial_name
from s2s_search.statuses import ENDS, REPORTED, RUNNING, SEARCH_ENDS

# The kinds of events, with what the readers need of each.
NEEDED = {
    "search": {"name", "metric", "goal", "searched", "time"},
    "queued": {"trial"},
    "trial": {"trial", "settings", "config"},
    "report": {"trial", "time", "step"},
    "decision": {"trial", "action", "step", "value"},
    "restart": {"trial", "cause"},
    "exploit": {"trial", "source", "settings", "config"},
    "pause": {"trial"},
    "start": {"trial"},
    "status": {"status"},
    "resume": {"trials", "time"},
    "note": {"message"},
    "wait": {"message"},
}

Event = Mapping[str, Any]
Row = dict[str, Any]

DTYPES = ("Int64", "Float64", "boolean", "string")
# How control characters stand in a line of JSON, which cannot hold the others as they are.
SUSPECT = re.compile(rb"\\[bfnrtu]|\x7f|\xc2[\x80-\x9f]|\xe2\x80[\xa8-\xae]|\xe2\x81[\xa6-\xa9]")
HALVES = (b"\\ud", b"\\uD")  # how the escape of half a surrogate pair begins
NUMBERS = re.compile(
    r"dev\.|train\.|.*seconds$|step$|value$|cutoff$|rung$|rank$|of$|parameters$|learning_rate$"
)

logger = logging.getLogger(__name__)


def cleaned(value: Any) -> Any:
    """Returns JSON of a foreign file with all its text printable, keys too."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, Mapping):
        return {printable(key): cleaned(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [cleaned(inner) for inner in value]
    return value


def parse_line(line: bytes) -> object:
    try:
        row = json.loads(line.decode())
        json.dumps(
            row, ensure_ascii=False
        ).encode()  # half a surrogate pair can be neither stored nor shown
        row = cleaned(row)
    except (ValueError, RecursionError):
        return None
    return row


def is_event(row: object) -> bool:
    if not isinstance(row, dict) or not isinstance(row.get("event"), str):
        return False
    if not NEEDED.get(row["event"], set()) | {"time"} <= row.keys():
        return False
    if row["event"] == "status" and row["status"] not in (ENDS if "trial" in row else SEARCH_ENDS):
        return False
    if row["event"] == "report" and row.get("status", RUNNING) not in REPORTED:
        return False
    sure = {"decision": ("value", "step"), "report": ("step",)}.get(row["event"], ())
    if not all(is_number(row[key]) for key in sure):
        return False
    return all(_check(key)(value) for key, value in row.items())


@functools.lru_cache(1000)
def _check(key: str) -> Callable[[Any], bool]:
    """What says whether a value is of the kind that its key stands for."""
    return _HOLDS.get(key) or (_is_number_or_null if NUMBERS.match(key) else _is_anything)


def _is_objective(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and isinstance(value[0], str)
        and value[1] in GOALS
    )


def _is_column(key: str, dtype: object) -> bool:
    """Says whether a column of the trials table is of a hyperparameter; another could bear the name of one we make."""
    return (key == "model" or key in TABLE or key in ENTRIES) and dtype in DTYPES


def _is_configuration(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("model"), str)


def _is_earlier_trial(value: object) -> bool:
    if not isinstance(value, list) or len(value) != 3:
        return False
    config, values, status = value
    known = values is None or (isinstance(values, list) and all(map(_is_number_or_null, values)))
    return _is_configuration(config) and known and status in ENDS


def is_number(value: object) -> bool:
    if type(value) is float:
        return math.isfinite(value)
    return type(value) is int and abs(value) < 2**62


def _is_count(value: object) -> bool:
    return type(value) in (int, float) and 0 <= value < 2**53 and value == int(value)  # type: ignore[call-overload, operator]


def _is_number_or_null(value: object) -> bool:
    return value is None or is_number(value)


def _is_anything(value: object) -> bool:
    return True


_HOLDS: dict[str, Callable[[Any], bool]] = {
    "time": is_number,
    **dict.fromkeys(
        ("step", "parameters", "seed", "draws"), lambda value: value is None or _is_count(value)
    ),
    "trial": is_trial_name,
    "source": lambda value: isinstance(value, str),
    "warm_start": lambda value: isinstance(value, list) and all(map(_is_earlier_trial, value)),
    "log": lambda value: isinstance(value, list) and all(isinstance(name, str) for name in value),
    "configs": lambda value: isinstance(value, list) and all(map(_is_configuration, value)),
    **dict.fromkeys(
        ("message", "space", "storage", "replicates_of"),
        lambda value: value is None or isinstance(value, str),
    ),
    "cause": lambda value: isinstance(value, str),
    "trials": lambda value: type(value) is int and 0 <= value < 10**9,
    "driver": lambda value: isinstance(value, dict) and all(map(is_number, value.values())),
    "objectives": lambda value: isinstance(value, list) and all(map(_is_objective, value)),
    "status": lambda value: isinstance(value, str),
    "metric": lambda value: isinstance(value, str) and value.startswith(("dev.", "train.")),
    "name": lambda value: (
        isinstance(value, str) and "/" not in value
    ),  # a folder of replicates is named after it
    "goal": lambda value: value in GOALS,
    "searched": lambda value: (
        isinstance(value, dict) and all(map(_is_column, value, value.values()))
    ),
    **dict.fromkeys(
        ("settings", "config", "scheduler", "corpus"), lambda value: isinstance(value, dict)
    ),
    "overrides": lambda value: value is None or isinstance(value, dict),
    **dict.fromkeys(("hours", "gpu_hours"), _is_number_or_null),
}
