"""Makes overrides into a complete configuration.

`resolve` is the one way to a configuration; it reports all problems at once. table.py declares what there is.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from s2s_search.errors import ConfigError, nearest, shown
from s2s_search.hparams.arguments import REQUIRED, Argument
from s2s_search.hparams.rules import RULES
from s2s_search.hparams.table import (
    ENTRIES,
    HPARAMS,
    REFUSED,
    SPECS,
    Problem,
    Spec,
    canonical_model,
    declared,
    owners,
    spec_classes,
)
from s2s_search.hparams.values import convert, typed

__all__ = ["ConfigError", "Hparams", "defaults", "parse_hparams", "resolve"]


def check_spec(name: str, spec: Spec, entries: Iterable[str] = ()) -> tuple[Spec, list[Problem]]:
    """Returns the spec with its arguments in their kinds, and the problems of its class and arguments.

    A problem of an argument among `entries` is about the key name.argument, one of another is about the spec.
    """
    class_name, classes = spec.get("class"), spec_classes(name)
    if not isinstance(class_name, str) or class_name not in classes:
        key = f"{name}.class" if "class" in entries else name
        problem = f"unknown class {shown(class_name)}" if "class" in spec else "class is missing"
        return spec, [(key, f"{key}: {problem}{nearest(class_name, classes)}")]
    arguments = {argument.name: argument for argument in classes[class_name]}
    checked, problems = {"class": class_name, **spec}, list[Problem]()
    for key in checked.keys() - {"class"}:
        try:
            checked[key] = convert(_argument(class_name, arguments, key), checked[key])
        except ValueError as problem:
            problems.append(
                (f"{name}.{key}" if key in entries else name, f"{name}.{key}: {problem}")
            )
    return checked, sorted(problems)


def complete_spec(
    name: str, spec: Spec, entries: Mapping[str, object], whole: bool
) -> tuple[Spec, list[Problem]]:
    """Lays single entries over a spec (given whole, or the default); returns it, checked, and the problems.

    Entries of the default that another class does not know are dropped; its `num_units` becomes the `cell_size`
    of GRUBlockCell. An entry that was given and that the class does not know is a problem.
    """
    spec = {**spec, **entries}
    arguments = {
        argument.name: argument for argument in spec_classes(name).get(str(spec.get("class")), ())
    }
    if not whole:
        if "cell_size" in arguments:
            spec.setdefault("cell_size", spec.get("num_units"))
        spec = {
            key: value
            for key, value in spec.items()
            if key in arguments or key in entries or key == "class"
        }
    missing = [
        key
        for key, argument in arguments.items()
        if argument.default is REQUIRED and key not in spec
    ]
    spec, problems = check_spec(name, spec, entries)
    return spec, [*problems, *((name, f"{name}: {spec['class']} needs {key}") for key in missing)]


def _argument(class_name: str, arguments: Mapping[str, Argument], key: str) -> Argument:
    if key in arguments:
        return arguments[key]
    if key in REFUSED:
        raise ValueError(f"{key} is refused: {REFUSED[key]}")
    raise ValueError(f"{class_name} has no argument {shown(key)}{nearest(key, arguments)}")


@dataclass(frozen=True)
class Hparams(Mapping[str, Any]):
    """A complete configuration: the model's name and a value for each hyperparameter. Never changes."""

    model: str
    _values: Mapping[str, object]

    def __getitem__(self, name: str) -> Any:
        value = self._values[name]
        return dict(value) if isinstance(value, dict) else value

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __hash__(self) -> int:
        return hash(json.dumps(self.flat(), sort_keys=True))

    def __repr__(self) -> str:
        return f"Hparams({self.flat()})"

    def flat(self) -> dict[str, object]:
        """Returns everything as a flat JSON-able dict, "model" first."""
        return {"model": self.model, **self}


def defaults(model: str) -> dict[str, Any]:
    """Returns the default of each hyperparameter of the model. Raises ConfigError for an unknown model."""
    name = canonical_model(model)
    return {row.name: row.default_for(name) for row in HPARAMS if name in row.models}


def overlay(model: str, overrides: Mapping[str, object]) -> tuple[dict[str, Any], list[Problem]]:
    """Lays overrides over the model's defaults: returns all values and the problems, those of rules aside."""
    values, problems = defaults(model), list[Problem]()
    specs, entries = dict[str, Any](), dict[str, Spec]()
    for key, value in overrides.items():
        try:
            if key == "model":
                if canonical_model(value) != model:
                    raise ValueError(f"model is {shown(value)}, but this is a {model}")
                continue
            declared(str(key))
            if model not in owners(key):
                raise ValueError(
                    f"{key} belongs to {' and '.join(owners(key))}, and this is a {model}"
                )
            row, _, entry = key.rpartition(".")
            if key in ENTRIES:
                entries.setdefault(row, {})[entry] = value
            else:
                (specs if key in SPECS else values)[key] = typed(key, value)
        except ValueError as problem:
            problems.append((str(key), str(problem)))
    for name in [row for row in SPECS if row in specs or row in entries]:
        spec = specs.get(name, values[name])
        values[name], found = complete_spec(name, spec, entries.get(name, {}), whole=name in specs)
        problems += found
    return values, problems


def resolve(model: str, overrides: Mapping[str, object]) -> Hparams:
    """Returns the complete configuration. Raises ConfigError with all problems of names, values and rules."""
    name = canonical_model(model)
    values, problems = overlay(name, overrides)
    sentences = [sentence for _, sentence in problems] or [
        text for rule in RULES for text in rule(values)
    ]
    if sentences:
        raise ConfigError(sentences)
    return Hparams(name, values)


NAME_AND_EQUALS = re.compile(r"\s*([^\s=,]+)\s*=\s*")
COMMA_OR_END = re.compile(r"\s*(,|$)")


def parse_hparams(text: str) -> dict[str, object]:
    """Returns the overrides written as "a.b=1,c.d={...JSON...}" (the original's form) or as one JSON object.

    Values stay text where they are not JSON; the table decides their kinds. Raises ConfigError.
    """
    try:
        if text.strip().startswith("{"):
            return dict(json.loads(text, object_pairs_hook=_without_duplicates, parse_int=_whole))
        return _without_duplicates(_assignments(text))
    except json.JSONDecodeError as problem:
        raise ConfigError(f"no valid JSON: {problem}, in {shown(text)}") from None
    except (ValueError, RecursionError) as problem:
        raise ConfigError(f"{problem}, in {shown(text)}") from None


def _whole(digits: str) -> int | str:
    """Returns a whole number; one of hundreds of digits as text, which the table refuses in its own words."""
    return int(digits) if len(digits) < 100 else digits


def _without_duplicates(pairs: Iterable[tuple[str, object]]) -> dict[str, object]:
    values: dict[str, object] = {}
    for name, value in pairs:
        if name in values:
            raise ValueError(f"{name} is given twice")
        values[name] = value
    return values


def _assignments(text: str) -> Iterator[tuple[str, object]]:
    decoder, position = json.JSONDecoder(object_pairs_hook=_without_duplicates, parse_int=_whole), 0
    while text[position:].strip():
        match = NAME_AND_EQUALS.match(text, position)
        if not match:
            raise ValueError(f"expected name=value, but got {shown(text[position:])}")
        name, position = match[1], match.end()
        value: object
        if text.startswith(("{", "[", '"'), position):
            try:
                value, position = decoder.raw_decode(text, position)
            except json.JSONDecodeError as problem:
                raise ValueError(f"{name}: no valid JSON: {problem}") from None
        else:
            value = text[position:].partition(",")[0]
            position += len(value)
            value = value.strip()
        yield name, value
        separator = COMMA_OR_END.match(text, position)
        if not separator:
            raise ValueError(
                f"{name}: expected a comma after the value, but got {shown(text[position:])}"
            )
        position = separator.end()
