"""The events of a log: their kinds, and what each must hold.

An event is a JSON object with its kind as `event`. It is checked once, where it is read, by
msgspec; an object that does not fit its kind is no event. Keys that are not declared here may hold
anything.
"""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from s2s_search.errors import printable
from s2s_search.hparams.table import ENTRIES, TABLE
from s2s_search.metrics import GOALS
from s2s_search.runs.folder import TRIAL_NAME
from s2s_search.statuses import ENDS, REPORTED, SEARCH_ENDS

Event = Mapping[str, Any]  # an event that was checked
Row = dict[str, Any]

DTYPES = ("Int64", "Float64", "boolean", "string")
# A searched column of the trials table is a hyperparameter. Any other name could clash with one of
# our own columns.
SEARCHABLE = ("model", *TABLE, *ENTRIES)
# Bytes of a JSON line that may stand for control characters. JSON writes the characters below 32 as
# escapes. The others (DEL, C1, line separators, changes of the text's direction) may stand as they
# are.
SUSPECT = re.compile(rb"\\[bfnrtu]|\x7f|\xc2[\x80-\x9f]|\xe2\x80[\xa8-\xae]|\xe2\x81[\xa6-\xa9]")


def one_of(texts: Iterable[str]) -> Meta:
    return Meta(pattern=rf"\A({'|'.join(map(re.escape, texts))})\Z")


# Numbers that pandas can hold. JSON may have 10 or 10.0 for a step, and both are whole.
Number = Annotated[int, Meta(ge=-(2**62), le=2**62)] | float
Whole = Annotated[int, Meta(ge=0, lt=2**53)] | Annotated[float, Meta(ge=0, lt=2**53, multiple_of=1)]
Count = Annotated[int, Meta(ge=0, lt=10**9)]
TrialName = Annotated[str, Meta(pattern=rf"\A{TRIAL_NAME}\Z")]
Goal = Annotated[str, one_of(GOALS)]
Objective = tuple[str, Goal]


class Configuration(Struct):
    """A flat configuration: dotted keys, with the model among them."""

    model: str


EarlierCurve = tuple[Configuration, list[tuple[Whole, Number, Number | None]]]
EarlierTrial = tuple[Configuration, list[Number | None] | None, Annotated[str, one_of(ENDS)]]


class Timed(Struct, kw_only=True):
    """The entries of every event: its kind, and its time in seconds since 1970."""

    event: str
    time: Number


class AnyEvent(Timed, kw_only=True):
    trial: TrialName | UnsetType = UNSET
    message: str | None = None


class OfTrial(Timed, kw_only=True):
    trial: TrialName
    message: str | None = None


class About(AnyEvent, kw_only=True):
    """The description of a search. When a search is resumed, some of it may change."""

    objectives: list[Objective] | UnsetType = UNSET
    scheduler: dict[str, Any] | UnsetType = UNSET
    corpus: dict[str, Any] | UnsetType = UNSET
    overrides: dict[str, Any] | None = None
    hours: Number | None = None
    gpu_hours: Number | None = None
    seed: Whole | None = None
    draws: Whole | None = None
    space: str | None = None
    storage: str | None = None
    log: list[str] | UnsetType = UNSET
    configs: list[Configuration] | UnsetType = UNSET
    replicates_of: str | None = None
    audits_of: str | None = None
    warm_start: list[EarlierTrial] | UnsetType = UNSET
    warm_start_curves: list[EarlierCurve] | UnsetType = UNSET
    warm_start_first: list[dict[str, Any]] | UnsetType = UNSET
    warm_start_from: list[str] | UnsetType = UNSET


class SearchEvent(About, kw_only=True):
    """The first event of a log. `searched` gives the dtypes of the columns of the trials table."""

    trials: Count | UnsetType = UNSET
    name: Annotated[str, Meta(pattern=r"\A[^/]*\Z")]  # a folder of replicates is named after it
    metric: Annotated[str, Meta(pattern=r"^(dev|train)\.")]
    goal: Goal
    searched: dict[Annotated[str, one_of(SEARCHABLE)], Annotated[str, one_of(DTYPES)]]


class ResumeEvent(About, kw_only=True):
    trials: Count


class TrialEvent(OfTrial, kw_only=True):
    """A trial begins: its searched hyperparameters by their labels, and its configuration."""

    settings: dict[str, Any]
    config: dict[str, Any]


class ExploitEvent(TrialEvent, kw_only=True):
    """pbt gives the trial the weights of another one, and a new configuration."""

    source: str


class ReportEvent(OfTrial, kw_only=True):
    """A report of a trial. Each of its other numbers is a metric or a time."""

    step: Whole
    status: Annotated[str, one_of(REPORTED)] | UnsetType = UNSET
    parameters: Whole | None = None


class DecisionEvent(OfTrial, kw_only=True):
    """The scheduler let a trial continue, or stopped it.

    `value` was compared with `cutoff`. `reason` says why a trial was stopped without a comparison.
    """

    action: Any
    step: Whole
    value: Number
    cutoff: Number | None = None
    rung: Number | None = None
    rank: Number | None = None
    of: Number | None = None
    reason: str | None = None


class RestartEvent(OfTrial, kw_only=True):
    cause: str
    step: Whole | None = None


class TrialStatusEvent(OfTrial, kw_only=True):
    status: Annotated[str, one_of(ENDS)]


class SearchStatusEvent(AnyEvent, kw_only=True):
    status: Annotated[str, one_of(SEARCH_ENDS)]
    driver: dict[str, Number] | UnsetType = UNSET


class MessageEvent(Timed, kw_only=True):
    trial: TrialName | UnsetType = UNSET
    message: str | None


KINDS: dict[str, Any] = {
    "search": SearchEvent,
    "queued": OfTrial,  # hyperband has put the trial into a bracket
    "trial": TrialEvent,
    "report": ReportEvent,
    "decision": DecisionEvent,
    "restart": RestartEvent,  # the trial will resume from its newest checkpoint
    "exploit": ExploitEvent,
    "pause": OfTrial,  # the trial has given up its worker
    "start": OfTrial,  # the trial has got a worker again
    "resume": ResumeEvent,
    "note": MessageEvent,
    "wait": MessageEvent,  # the message says why no trial runs
}
# The entries of the search event that stay as they are when the search is resumed.
LASTING = ("event", "name", "metric", "goal", "searched", "time")
NUMBERS = re.compile(r"(dev|train)\.|learning_rate$|.*seconds$")  # keys of a report with numbers


def is_event(row: object) -> bool:
    """Returns whether a JSON value is an event that its kind allows."""
    if not isinstance(row, dict) or not isinstance(row.get("event"), str):
        return False
    kind = KINDS.get(row["event"], AnyEvent)
    if row["event"] == "status":
        kind = TrialStatusEvent if "trial" in row else SearchStatusEvent
    try:
        msgspec.convert(row, kind)
        if kind is ReportEvent:
            numbers = [row[key] for key in _number_keys(tuple(row))]
            msgspec.convert(numbers, list[Number | None])
    except msgspec.ValidationError:
        return False
    return True


@lru_cache(1000)
def _number_keys(keys: tuple[str, ...]) -> list[str]:
    """Returns the keys of a report that hold numbers.

    The result is cached, because the reports of a search mostly have the same keys.
    """
    return [key for key in keys if NUMBERS.match(key)]


def cleaned(value: Any) -> Any:
    """Returns the JSON value of a foreign file with all its text printable, keys included."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, Mapping):
        return {printable(key): cleaned(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [cleaned(inner) for inner in value]
    return value


def decoded(lines: Iterable[bytes]) -> list[Row | None]:
    """Returns the event of each line of a log, with printable text; None for a line without one."""
    lines = list(lines)
    decoder = msgspec.json.Decoder()
    try:
        values: list[Any] = decoder.decode_lines(b"\n".join(lines))  # faster than line by line
    except (msgspec.DecodeError, RecursionError):
        values = [_decoded_line(decoder, line) for line in lines]
    if len(values) != len(lines):  # decode_lines skips empty lines
        values = [_decoded_line(decoder, line) for line in lines]
    rows: list[Row | None] = []
    for line, value in zip(lines, values, strict=True):
        row = cleaned(value) if SUSPECT.search(line) else value
        rows.append(row if is_event(row) else None)
    return rows


def _decoded_line(decoder: "msgspec.json.Decoder[Any]", line: bytes) -> object:
    try:
        return decoder.decode(line)
    except (msgspec.DecodeError, RecursionError):
        return None
