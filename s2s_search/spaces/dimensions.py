"""Dimensions of a search space: the values that a key takes, and under which conditions; how a file says it."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from s2s_search.errors import nearest, printable, shown
from s2s_search.hparams.arguments import BOOL, FLOAT, INT, NAME, REQUIRED, SPEC, Argument
from s2s_search.hparams.configuration import check_spec
from s2s_search.hparams.table import (
    ENTRIES,
    SPECS,
    TABLE,
    Problem,
    canonical_model,
    declared,
    owners,
)
from s2s_search.hparams.values import convert, typed
from s2s_search.spaces.yaml_file import Place, Report, described, listed, mapping

Flat = dict[str, object]  # a partial configuration by dotted names, "model" among them


@dataclass(frozen=True)
class Choice:
    """One of several values, all equally likely; a constant is a choice of one. Labels name values that are specs."""

    values: tuple[object, ...]
    labels: tuple[str, ...] = ()

    def at(self, u: float) -> object:
        return self.values[min(int(u * len(self.values)), len(self.values) - 1)]

    def points(self) -> tuple[object, ...]:
        return self.values

    def perturbed(self, value: object, factor: float) -> object:
        """Returns the next value when the factor is above 1, else the one before; the value itself at the ends."""
        index = self.values.index(value) + (1 if factor > 1 else -1)
        return self.values[min(max(index, 0), len(self.values) - 1)]

    @property
    def named(self) -> dict[str, object]:
        return dict(zip(self.labels, self.values, strict=False))

    def __contains__(self, value: object) -> bool:
        return value in self.values

    @property
    def size(self) -> float:
        return len(self.values)


@dataclass(frozen=True)
class Range:
    """Numbers from low to high, both included: evenly spread, or (log) their logarithms; on multiples of a step."""

    low: float
    high: float
    log: bool = False
    step: float | None = None  # None: continuous
    whole: bool = False

    def at(self, u: float) -> object:
        end = (
            self.high if self.step is None else self.low + self.size * self.step
        )  # a point stands for its interval
        logs = (math.log(self.low), math.log(end)) if self.log else (0.0, 0.0)
        x = (
            math.exp(logs[0] + u * (logs[1] - logs[0]))
            if self.log
            else self.low + u * (end - self.low)
        )
        if self.step is not None:
            return self._point(min(int((x - self.low) / self.step), int(self.size) - 1))
        digits = 5 - math.floor(math.log10(x if self.log else self.high - self.low))
        return min(
            max(round(x, digits), self.low), self.high
        )  # a rate of 0.000351827 reads better than 17 digits

    def position(self, value: object) -> float:
        """Returns where in [0, 1] `at` has a value; of a point, the middle of what it stands for.

        Raises ValueError when the value is outside, or between two points.
        """
        if not self._is_inside(value) or (self.step is not None and value not in self):
            raise ValueError(f"must be a value of {self}, but got {shown(value)}")
        assert isinstance(value, int | float)
        x, low, end = float(value), self.low, self.high
        if self.step is not None:
            x, end = low + (self._index(x) + 0.5) * self.step, low + self.size * self.step
        if self.log:
            x, low, end = math.log(x), math.log(low), math.log(end)
        return min(max((x - low) / (end - low), 0.0), 1.0)

    def perturbed(self, value: object, factor: float) -> object:
        """Returns the value times a factor, within the range; of steps, at least the next one."""
        assert isinstance(value, int | float)
        x = min(max(value * factor, self.low), self.high)
        if self.step is None:
            return self.at(self.position(x))
        index, near = self._index(value), self._index(x)
        if near == index and factor != 1:
            near += 1 if value * factor > value else -1
        return self._point(min(max(near, 0), int(self.size) - 1))

    def points(self) -> tuple[object, ...]:
        return tuple(self._point(index) for index in range(int(self.size)))

    def __contains__(self, value: object) -> bool:
        if self.step is None or not self._is_inside(value):
            return False
        assert isinstance(value, int | float)
        return self._point(self._index(value)) == value

    @property
    def size(self) -> float:
        return (
            math.inf
            if self.step is None
            else math.floor((self.high - self.low) / self.step + 1e-9) + 1
        )

    def _is_inside(self, value: object) -> bool:
        return (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and self.low <= value <= self.high
        )

    def _index(self, value: float) -> int:
        assert self.step is not None
        return round((value - self.low) / self.step)

    def _point(self, index: int) -> object:
        assert self.step is not None
        x = self.low + index * self.step
        return int(x) if self.whole else min(max(float(f"{x:.12g}"), self.low), self.high)


@dataclass(frozen=True)
class Tie:
    """The value of another key; of a spec, also its single entries."""

    key: str
    size = 1.0


@dataclass(frozen=True)
class Dimension:
    """A key of the file: what values it takes, and under which conditions it takes part at all."""

    key: str
    domain: Choice | Range | Tie
    when: Mapping[str, tuple[object, ...]] = field(default_factory=dict)
    role: str | None = None  # "scientific" | "nuisance"
    grid: bool = False

    @property
    def varies(self) -> bool:
        return self.domain.size > 1


def value_of(key: str, flat: Mapping[str, object]) -> object:
    """Returns a key's value in a partial configuration, its default where it is not set; None when it has none."""
    if key in flat:
        return flat[key]
    model, (row, _, entry) = str(flat["model"]), key.rpartition(".")
    if model not in owners(key):
        return None
    if key in TABLE:
        return TABLE[key].default_for(model)
    spec = flat.get(row, TABLE[row].default_for(model))
    return spec.get(entry, ENTRIES[key].default) if isinstance(spec, dict) else None


OPTIONS = ("choices", "grid", "same_as", "min", "max", "log", "step", "when", "role")
ROLE = Argument("role", NAME, None, choices=("scientific", "nuisance"))
MOST_STEPS = 10**16  # of a range: whole numbers are exact up to there


def _check_owner(key: str, models: Sequence[str]) -> Argument:
    """Returns the declaration of a key. Raises ValueError when it is unknown or belongs to none of the models."""
    argument = declared(key)
    if not set(owners(key)) & set(models):
        raise ValueError(
            f"{key} belongs to {' and '.join(owners(key))}, and this file searches {', '.join(models)}"
        )
    return argument


def checked(key: str, value: object, models: Sequence[str]) -> object:
    """Returns a key's value in its kind. Raises ValueError with whole sentences; a spec may still lack arguments."""
    if key == "model":
        name = canonical_model(value)
        if name not in models:
            raise ValueError(f"model: {name} is not searched here; known: {', '.join(models)}")
        return name
    _check_owner(key, models)
    in_kind, problems = typed(key, value), list[Problem]()
    if isinstance(in_kind, dict):
        in_kind, problems = check_spec(key, in_kind)
    if problems:
        raise ValueError("; ".join(sentence for _, sentence in problems))
    return in_kind


def read_dimensions(
    parts: Mapping[str, object], models: tuple[str, ...], report: Report
) -> tuple[Dimension, ...]:
    """Returns the dimensions of the section `parameters`, each after those that it depends on."""
    parameters = mapping(parts.get("parameters", {}), ("parameters",), report)
    found, before = {"model": Dimension("model", Choice(models))}, len(report.problems)
    for key, value in parameters.items():
        with report.at("parameters", key):
            if key == "model":
                raise ValueError("model is a section of its own, beside parameters:")
            _check_owner(key, models)
            dimension = _dimension(key, value, models, report)
            if dimension:
                found[key] = dimension
    for key, value in parameters.items():
        if isinstance(value, dict) and "when" in value:
            place = ("parameters", key, "when")
            given = mapping(value["when"], place, report)
            nameless = {
                name for name in parameters if name in SPECS and name not in found
            }  # their labels are unknown
            when = _conditions(
                {k: v for k, v in given.items() if k not in nameless}, place, found, models, report
            )
            found |= {key: replace(found[key], when=when)} if key in found else {}
    ordered = _ordered(found, report)
    if len(report.problems) == before:
        for dimension in ordered:
            _check_links(dimension, found, models, report)
    return ordered


def _dimension(key: str, value: object, models: Sequence[str], report: Report) -> Dimension | None:
    """Returns what the file says of a key, conditions aside; None when that was reported. Raises ValueError."""
    place: Place = ("parameters", key)
    if not isinstance(value, dict) or (declared(key).kind is SPEC and "class" in value):
        choice = _choice(key, listed(value), place, models, report)
        return Dimension(key, choice) if choice else None
    unknown = [name for name in value if name not in OPTIONS]
    for name in unknown:
        report.add((*place, name), f"{key}: unknown word {shown(name)}{nearest(name, OPTIONS)}")
    ways = [name for name in ("choices", "grid", "same_as") if name in value]
    ways += ["min and max"] * any(name in value for name in ("min", "max", "log", "step"))
    if unknown and not ways:
        return None  # an unknown word stands for the one that is needed
    if len(ways) != 1:
        law = "needs one of choices, grid, same_as, or min and max"
        raise ValueError(f"{key}: {law}, but has {' and '.join(ways) or 'none'}")
    role: object = None
    with report.at(*place, "role", label=f"{key}: role: "):
        role = convert(ROLE, value.get("role"))
    if ways == ["same_as"]:
        domain: Choice | Range | Tie | None = _tie(key, value["same_as"], models)
    elif ways == ["min and max"]:
        domain = _range(key, value, models, report)
    else:
        domain = _choice(key, value[ways[0]], (*place, ways[0]), models, report)
    return (
        Dimension(key, domain, role=str(role) if role else None, grid=ways == ["grid"])
        if domain
        else None
    )


def _tie(key: str, source: object, models: Sequence[str]) -> Tie:
    kind, other = declared(key).kind, _check_owner(str(source), models).kind
    if kind is not other:
        raise ValueError(f"{key}: same_as: {key} is {kind.value}, but {source} is {other.value}")
    return Tie(str(source))


def _choice(
    key: str, items: object, place: Place, models: Sequence[str], report: Report
) -> Choice | None:
    if not isinstance(items, list | dict):
        raise ValueError(
            f"{key}: {place[-1]} must be a list, or a mapping from labels, but got {described(items)}"
        )
    values: list[object] = []
    for name, item in items.items() if isinstance(items, dict) else enumerate(items):
        with report.at(*place, name):
            if isinstance(name, str) and printable(name) != name:
                raise ValueError(f"{key}: a label holds a control character: {shown(name)}")
            value = checked(key, item, models)
            if value in values:
                raise ValueError(f"{key}: {shown(value)} is listed twice")
            values.append(value)
    if not items:
        raise ValueError(f"{key}: the list of choices is empty")
    return (
        Choice(tuple(values), tuple(items) if isinstance(items, dict) else ())
        if len(values) == len(items)
        else None
    )


def _range(
    key: str, options: Mapping[str, object], models: Sequence[str], report: Report
) -> Range | None:
    kind, before = declared(key).kind, len(report.problems)
    if kind not in (INT, FLOAT):
        raise ValueError(f"{key}: min and max are for numbers, and this is {kind.value}")
    ends: dict[str, Any] = {}
    for name in ("min", "max"):
        if name not in options:
            raise ValueError(f"{key}: {name} is missing")
        with report.at("parameters", key, name):
            ends[name] = checked(key, options[name], models)
    words: dict[str, Any] = {"log": False, "step": 1 if kind is INT else None}
    for word in (Argument("log", BOOL, REQUIRED), Argument("step", kind, REQUIRED, above=0)):
        if word.name in options:
            with report.at("parameters", key, word.name, label=f"{key}: {word.name} "):
                words[word.name] = convert(word, options[word.name])
    if len(report.problems) > before:
        return None
    low, high, step = ends["min"], ends["max"], words["step"]
    if low >= high:
        raise ValueError(f"{key}: min must be below max, but min = {low} and max = {high}")
    if words["log"] and low <= 0:
        raise ValueError(f"{key}: log needs min above 0, but min = {low}")
    if step is not None and not (high - low) / MOST_STEPS <= step <= high - low:
        law = "step must be at most max - min and at least 1e-16 of it"
        raise ValueError(f"{key}: {law}, but step = {step} and max - min = {high - low:g}")
    return Range(low, high, words["log"], step, kind is INT)


def _conditions(
    when: Mapping[str, object],
    place: Place,
    dimensions: Mapping[str, Dimension],
    models: Sequence[str],
    report: Report,
) -> dict[str, tuple[object, ...]]:
    """Returns the values that each parent must have one of; a label stands for its value."""
    conditions = {}
    for parent, given in when.items():
        domain = dimensions[parent].domain if parent in dimensions else None
        named = domain.named if isinstance(domain, Choice) else {}
        values = []
        for value in listed(given):
            with report.at(*place, parent, label=f"{place[1]}: when: "):
                if named and not isinstance(value, dict) and value not in named:
                    raise ValueError(
                        f"{parent} has no choice {described(value)}{nearest(value, named)}"
                    )
                values.append(
                    named[str(value)]
                    if isinstance(value, str) and named
                    else checked(parent, value, models)
                )
        conditions[parent] = tuple(values)
    return conditions


def _parents(dimension: Dimension, keys: Iterable[str]) -> list[str]:
    """Returns those of the keys that a dimension's conditions and tie look at."""
    tie = [dimension.domain.key] if isinstance(dimension.domain, Tie) else []
    rows = [key.rpartition(".")[0] for key in (*dimension.when, *tie) if key in ENTRIES]
    entries = [key for key in keys if key in ENTRIES and key.rpartition(".")[0] in tie]
    return [key for key in (*dimension.when, *tie, *rows, *entries) if key in keys]


def _ordered(dimensions: Mapping[str, Dimension], report: Report) -> tuple[Dimension, ...]:
    """Returns the dimensions, parents first; reports circles."""
    done: dict[str, Dimension] = {}

    def visit(key: str, path: tuple[str, ...]) -> None:
        if key in path:
            circle = " -> ".join([*path[path.index(key) :], key])
            report.add(("parameters", key), f"{key}: when and same_as go in a circle: {circle}")
        elif key not in done:
            for parent in _parents(dimensions[key], dimensions):
                visit(parent, (*path, key))
            done[key] = dimensions[key]

    for key in dimensions:
        visit(key, ())
    return tuple(done.values())


def _check_links(
    dimension: Dimension, dimensions: Mapping[str, Dimension], models: Sequence[str], report: Report
) -> None:
    """Reports a tie to a key that the file does not set, and a condition that can never hold."""
    key, domain = dimension.key, dimension.domain
    if isinstance(domain, Tie) and not _parents(replace(dimension, when={}), dimensions):
        report.add(
            ("parameters", key, "same_as"), f"{key}: same_as: {domain.key} is not set in this file"
        )
    for parent, values in dimension.when.items():
        for value in values:
            if not _can_be(parent, value, dimensions, models):
                law = f"{key}: when: {parent} can never be {shown(value)} in this file"
                report.add(("parameters", key, "when", parent), law)


def _can_be(
    key: str, value: object, dimensions: Mapping[str, Dimension], models: Sequence[str]
) -> bool:
    """Tells whether a key can ever have a value."""
    dimension, row = dimensions.get(key), dimensions.get(key.rpartition(".")[0])
    if dimension is None and row is not None and isinstance(row.domain, Tie):
        return True
    if dimension is None or dimension.when:
        specs = (
            [{row.key: spec} for spec in row.domain.points()]
            if row and not isinstance(row.domain, Tie)
            else [{}]
        )
        if any(
            value_of(key, {"model": model, **spec}) == value for model in models for spec in specs
        ):
            return True
    return dimension is not None and (
        isinstance(dimension.domain, Tie) or value in dimension.domain
    )
