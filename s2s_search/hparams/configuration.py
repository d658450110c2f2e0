"""Configurations: a model's defaults with overrides laid over them.

`resolve` is the one way to a complete configuration, and it reports all problems at once. table.py
declares the hyperparameters.
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
    """Returns the spec with its arguments converted to their kinds, and the problems in it.

    A problem names the key that the user wrote: name.argument for an argument among `entries`, and
    the name of the whole spec for the others.
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
            written = f"{name}.{key}" if key in entries else name
            problems.append((written, f"{name}.{key}: {problem}"))
    return checked, sorted(problems)


def complete_spec(
    name: str, spec: Spec, entries: Mapping[str, object], whole: bool
) -> tuple[Spec, list[Problem]]:
    """Returns a spec with single entries laid over it, checked, and the problems that were found.

    An entry that the user gave and that the class does not have is a problem. An entry of the
    default is dropped where the user's class does not have it, and the default's `num_units`
    becomes the `cell_size` of GRUBlockCell.

    Args:
        name: the hyperparameter.
        spec: the spec that the user gave, or the default.
        entries: the entries that the user gave one by one.
        whole: whether the user gave `spec`.
    """
    spec = {**spec, **entries}
    arguments = {
        argument.name: argument for argument in spec_classes(name).get(str(spec.get("class")), ())
    }
    if not whole:
        if "cell_size" in arguments:
            spec.setdefault("cell_size", spec.get("num_units"))
        known = {"class", *arguments, *entries}
        spec = {key: value for key, value in spec.items() if key in known}
    missing = [
        key
        for key, argument in arguments.items()
        if argument.default is REQUIRED and key not in spec
    ]
    spec, problems = check_spec(name, spec, entries)
    for key in missing:
        problems.append((name, f"{name}: {spec['class']} needs {key}"))
    return spec, problems


def _argument(class_name: str, arguments: Mapping[str, Argument], key: str) -> Argument:
    """Returns the class's argument. Raises ValueError when it has none of that name."""
    if key in arguments:
        return arguments[key]
    if key in REFUSED:
        raise ValueError(f"{key} is refused: {REFUSED[key]}")
    raise ValueError(f"{class_name} has no argument {shown(key)}{nearest(key, arguments)}")


@dataclass(frozen=True)
class Hparams(Mapping[str, Any]):
    """A complete configuration: the model's name and a value for each hyperparameter.

    A configuration never changes. A spec is returned as a copy.
    """

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
        """Returns the flat configuration, a dict of JSON's types with "model" as its first key."""
        return {"model": self.model, **self}


def defaults(model: str) -> dict[str, Any]:
    """Returns the default of each hyperparameter of a model.

    Raises:
        ConfigError: the model is unknown.
    """
    name = canonical_model(model)
    return {row.name: row.default_for(name) for row in HPARAMS if name in row.models}


def overlay(model: str, overrides: Mapping[str, object]) -> tuple[dict[str, Any], list[Problem]]:
    """Returns the model's defaults with overrides laid over them, and the problems in these.

    Each value is checked by itself; the rules between hyperparameters are not checked.
    """
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
            elif key in SPECS:
                specs[key] = typed(key, value)
            else:
                values[key] = typed(key, value)
        except ValueError as problem:
            problems.append((str(key), str(problem)))
    for name in [row for row in SPECS if row in specs or row in entries]:
        spec = specs.get(name, values[name])
        values[name], found = complete_spec(name, spec, entries.get(name, {}), whole=name in specs)
        problems += found
    return values, problems


def resolve(model: str, overrides: Mapping[str, object]) -> Hparams:
    """Returns the complete configuration of a model.

    Args:
        model: the model's name.
        overrides: dotted keys and their values. All other hyperparameters have their defaults.

    Raises:
        ConfigError: with all problems of names and values, and all rules that are broken. A rule
            that reads a wrong value is not checked.
    """
    name = canonical_model(model)
    values, problems = overlay(name, overrides)
    sentences = [sentence for _, sentence in problems]
    sound = values
    for key, _ in problems:  # the key of a row, or of an entry of its spec
        sound = {row: value for row, value in sound.items() if not f"{key}.".startswith(f"{row}.")}
    for rule in RULES:
        try:
            sentences += rule(sound)
        except KeyError:  # the rule reads a wrong value
            if not problems:
                raise
    if sentences:
        raise ConfigError(sentences)
    return Hparams(name, values)


NAME_AND_EQUALS = re.compile(r"\s*([^\s=,]+)\s*=\s*")
COMMA_OR_END = re.compile(r"\s*(,|$)")


def parse_hparams(text: str) -> dict[str, object]:
    """Returns the overrides that a text holds: "a.b=1,c.d={...JSON...}" or one JSON object.

    The first form is the original's. Values that are not JSON stay text, because only the table
    knows their kinds.

    Raises:
        ConfigError: the text has neither form, or names a key twice.
    """
    try:
        if text.strip().startswith("{"):
            return dict(
                json.loads(text, object_pairs_hook=_without_duplicates, parse_int=_whole_number)
            )
        return _without_duplicates(_assignments(text))
    except json.JSONDecodeError as problem:
        raise ConfigError(f"no valid JSON: {problem}, in {shown(text)}") from None
    except (ValueError, RecursionError) as problem:
        raise ConfigError(f"{problem}, in {shown(text)}") from None


def _whole_number(digits: str) -> int | str:
    """Returns a whole number; hundreds of digits stay text, which the table refuses."""
    return int(digits) if len(digits) < 100 else digits


def _without_duplicates(pairs: Iterable[tuple[str, object]]) -> dict[str, object]:
    """Returns a dict of the pairs. Raises ValueError when a name is given twice."""
    values: dict[str, object] = {}
    for name, value in pairs:
        if name in values:
            raise ValueError(f"{name} is given twice")
        values[name] = value
    return values


def _assignments(text: str) -> Iterator[tuple[str, object]]:
    """Yields the names and values of "a.b=1,c.d={...}". Raises ValueError at the first mistake."""
    decoder = json.JSONDecoder(object_pairs_hook=_without_duplicates, parse_int=_whole_number)
    position = 0
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
