"""The columns of TSV files: which of them are source and target, and how each is split."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from s2s_search.corpus.text import Delimiter
from s2s_search.errors import nearest, shown

FORM = "{source: [1, 3], target: 2}"


@dataclass(frozen=True)
class Columns:
    """The numbers of the columns of sources and targets, from 1."""

    source: tuple[int, ...]
    target: int

    @property
    def highest(self) -> int:
        return max(*self.source, self.target)


def columns_problems(spec: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields the problems of the key `columns`, and of keys that do not go together with it."""
    value = spec["columns"]
    if not isinstance(value, Mapping):
        yield "columns", f"must be a mapping such as {FORM}, but is {shown(value)}"
        return
    for key in value:
        if key not in ("source", "target"):
            yield "columns", f"unknown key {shown(key)}{nearest(key, ('source', 'target'))}"
    for side in ("source", "target"):
        if side not in value:
            yield "columns", f"{side} is missing; {FORM} names the columns of both sides"
    if "target" in value and not _is_column(value["target"]):
        law = "must be the number of one column, from 1"
        yield "columns", f"target: {law}, but is {shown(value['target'])}"
    numbers = _listed(value.get("source", []))
    if "source" in value and not (numbers and all(map(_is_column, numbers))):
        law = "must be the number of a column, from 1, or a list of such numbers"
        yield "columns", f"source: {law}, but is {shown(value['source'])}"
    used = Counter(filter(_is_column, [*numbers, value.get("target")]))
    for number, count in used.items():
        if count > 1:
            yield "columns", f"column {number} is named {count} times"
    for part in ("train", "dev", "test"):
        if isinstance(spec.get(part), list | tuple):
            yield part, "must be one TSV file, because columns names the columns of sources"
    if len(numbers) > 1 and "source_vocab" in spec:
        law = "cannot be combined with several columns of sources"
        yield "source_vocab", f"{law}; their vocabulary is made from train"
    for side in ("source", "target"):
        if any("\t" in str(text) for text in _listed(spec.get(f"{side}_delimiter", ""))):
            yield f"{side}_delimiter", "must not hold a tab, which is between the columns"


def columns_of(spec: Mapping[str, Any]) -> Columns | None:
    """Returns the columns of a specification without problems; None without the key."""
    if "columns" not in spec:
        return None
    return Columns(tuple(_listed(spec["columns"]["source"])), spec["columns"]["target"])


def delimiters_of(spec: Mapping[str, Any]) -> tuple[Delimiter, str]:
    """Returns the delimiters of sources and targets of a specification without problems."""
    columns = columns_of(spec)
    source, target = spec.get("source_delimiter", " "), spec.get("target_delimiter", " ")
    if columns is None or len(columns.source) == 1:
        return _listed(source)[0], target
    if isinstance(source, str):
        return (source,) * len(columns.source), target
    return tuple(source), target


def _is_column(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]
