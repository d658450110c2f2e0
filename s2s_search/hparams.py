"""Overrides become a complete configuration: `resolve` is the one way to it, and reports all problems at once."""

import json
import math
import numbers
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from s2s_search.table import (
    BOOL,
    CELLS,
    ENTRIES,
    FLOAT,
    HPARAMS,
    NAME,
    REFUSED,
    REQUIRED,
    SPEC,
    SPECS,
    Argument,
    ConfigError,
    Kind,
    Problem,
    Spec,
    canonical_model,
    declared,
    nearest,
    owners,
    shown,
    spec_classes,
)

__all__ = ["ConfigError", "Hparams", "defaults", "parse_hparams", "resolve"]  # what scripts use

WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
LARGEST_INT = 2**53
LARGEST_FLOAT = 3.4e38  # of float32, in which models compute


def convert(argument: Argument, value: object) -> object:
    """Returns the value in the argument's kind, text ("1e-4") included. Raises ValueError with the law."""
    if argument.default is None and (value is None or value in ("null", "None")):
        return None
    if argument.choices and isinstance(value, str) and value not in argument.choices:
        refused = f"{value} is refused: {REFUSED[value]}" if value in REFUSED else ""
        raise ValueError(refused or f"unknown name {shown(value)}{nearest(value, argument.choices)}")
    converted = _of_kind(argument.kind, value)
    if converted is None or not _within(argument, converted):
        raise ValueError(f"must be {argument.law}, but got {shown(value)}")
    return converted


def _of_kind(kind: Kind, value: object) -> object:
    """Returns the value in the kind, or None when it cannot be."""
    if kind is NAME:
        return value if isinstance(value, str) else None
    if kind is BOOL:
        return WORDS.get(value.lower()) if isinstance(value, str) else value if isinstance(value, bool) else None
    if isinstance(value, str):
        value = float(value) if len(value) < 100 and NUMBER.fullmatch(value.strip()) else None
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    if kind is FLOAT:
        return number if abs(number) <= LARGEST_FLOAT else None
    return int(number) if number.is_integer() and abs(number) <= LARGEST_INT else None


def _within(argument: Argument, value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return True
    least, most, above = argument.minimum, argument.maximum, argument.above
    return (least is None or least <= value) and (most is None or value <= most) and (above is None or above < value)


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
    typed, problems = {"class": class_name, **spec}, list[Problem]()
    for key in typed.keys() - {"class"}:
        try:
            typed[key] = convert(_argument(class_name, arguments, key), typed[key])
        except ValueError as problem:
            problems.append((f"{name}.{key}" if key in entries else name, f"{name}.{key}: {problem}"))
    return typed, sorted(problems)


def complete_spec(name: str, spec: Spec, entries: Mapping[str, object], whole: bool) -> tuple[Spec, list[Problem]]:
    """Lays single entries over a spec (given whole, or the default); returns it, checked, and the problems.

    Entries of the default that another class does not know are dropped; its `num_units` becomes the `cell_size`
    of GRUBlockCell. An entry that was given and that the class does not know is a problem.
    """
    spec = {**spec, **entries}
    arguments = {argument.name: argument for argument in spec_classes(name).get(str(spec.get("class")), ())}
    if not whole:
        if "cell_size" in arguments:
            spec.setdefault("cell_size", spec.get("num_units"))
        spec = {key: value for key, value in spec.items() if key in arguments or key in entries or key == "class"}
    missing = [key for key, argument in arguments.items() if argument.default is REQUIRED and key not in spec]
    spec, problems = check_spec(name, spec, entries)
    return spec, [*problems, *((name, f"{name}: {spec['class']} needs {key}") for key in missing)]


def _argument(class_name: str, arguments: Mapping[str, Argument], key: str) -> Argument:
    if key in arguments:
        return arguments[key]
    if key in REFUSED:
        raise ValueError(f"{key} is refused: {REFUSED[key]}")
    raise ValueError(f"{class_name} has no argument {shown(key)}{nearest(key, arguments)}")


# ------------------------------------------------------------------------------------------------------ rules


def cell_output_size(spec: Mapping[str, object]) -> int:
    """Returns the width of the cell's output: its projection's where it has one, else its number of units."""
    size = spec.get("num_proj") or spec.get("num_units") or spec.get("cell_size")
    assert isinstance(size, int), spec
    return size


def cell_state_sizes(spec: Mapping[str, object]) -> tuple[int, ...]:
    """Returns the widths of the tensors of the cell's state: (c, h) of an LSTM, else one."""
    output = cell_output_size(spec)
    units = spec.get("num_units", output)
    assert isinstance(units, int), spec
    arguments = {argument.name: argument.default for argument in CELLS[str(spec["class"])]}
    if "forget_bias" not in arguments:
        return (output,)
    return (units, output) if spec.get("state_is_tuple", arguments.get("state_is_tuple", True)) else (units + output,)


Structure = int | str | tuple["Structure", ...]  # a tensor's width, or a tuple; an LSTM's is ("LSTM", c, h)


def _cell_structure(spec: Mapping[str, object]) -> Structure:
    sizes = cell_state_sizes(spec)
    if len(sizes) == 1:
        return sizes[0]
    return sizes if spec["class"] == "LSTMBlockCell" else ("LSTM", *sizes)


def state_structures(values: Mapping[str, object]) -> tuple[Structure, Structure]:
    """Returns the structures of the encoder's final state and of the decoder's state, as in the original.

    One layer has its cell's state, several have a tuple of them; a bidirectional encoder has (fw, bw). The
    stacked one has a tuple of layers in each direction even when there is one layer.
    """
    stacks = []
    for side in ("encoder", "decoder"):
        spec, layers = values[f"{side}.rnn_cell.cell_spec"], values[f"{side}.rnn_cell.num_layers"]
        assert isinstance(spec, dict)
        assert isinstance(layers, int)
        stacked = layers > 1 or (side == "encoder" and values["encoder.type"] == "StackBidirectionalRNNEncoder")
        stacks.append((_cell_structure(spec),) * layers if stacked else _cell_structure(spec))
    encoder, decoder = stacks
    return encoder if values["encoder.type"] == "UnidirectionalRNNEncoder" else (encoder, encoder), decoder


def _described(structure: Structure) -> str:
    if not isinstance(structure, tuple):
        return str(structure)
    if structure[0] == "LSTM":
        return f"LSTM{structure[1:]}"
    inner = _described(structure[0])
    return f"({len(structure)} x {inner})" if len(structure) > 2 else "(" + ", ".join(inner for _ in structure) + ")"


def passthrough_problems(values: Mapping[str, object]) -> list[str]:
    """PassThroughBridge hands on the encoder's final state as it is: it must be shaped as the decoder's."""
    bridge = values["bridge_spec"]
    assert isinstance(bridge, dict)
    encoder, decoder = state_structures(values)
    if bridge["class"] != "PassThroughBridge" or encoder == decoder:
        return []
    return [
        "bridge_spec: PassThroughBridge needs an encoder whose final state is shaped as the decoder's state, "
        f"but encoder = {_described(encoder)} and decoder = {_described(decoder)}; InitialStateBridge fits any"
    ]


DECAY = ("decay_type", "start_decay_at", "stop_decay_at", "decay_steps", "decay_rate", "staircase")


def decay_problems(values: Mapping[str, object]) -> list[str]:
    """Decay must keep the learning rate finite and positive; it can grow when stop < start or rate > 1."""
    kind, start, stop, steps, rate, staircase = (values[f"optimizer.lr_{name}"] for name in DECAY)
    last = values["train.max_steps"]
    assert isinstance(start, int) and isinstance(stop, int) and isinstance(last, int)  # noqa: PT018
    assert isinstance(steps, int) and isinstance(rate, float)  # noqa: PT018
    progress = (min(last, stop) - start) / steps if last > start else 0.0
    progress = math.floor(progress) if staircase else progress
    law = f"{kind} must keep the learning rate finite and positive, but rate = {rate:g} and p = {progress:g}"
    growth = {"exponential_decay": progress * math.log(rate), "natural_exp_decay": -progress * rate}
    if growth.get(str(kind), 0) > 300:  # e^300: float32 has long overflowed
        return [f"optimizer.lr_decay_type: {law} give a factor of e^{growth[str(kind)]:.4g}"]
    if kind == "inverse_time_decay" and 1 + rate * progress <= 0:
        return [f"optimizer.lr_decay_type: {law} give 1 + rate * p = {1 + rate * progress:g}"]
    return []


# There is no rule for residual connections: all layers of a stack share one spec, hence one output width, and an
# input of another width goes through a linear layer first. Nothing can be unequal, projections included.
RULES: tuple[Callable[[Mapping[str, object]], list[str]], ...] = (passthrough_problems, decay_problems)


# --------------------------------------------------------------------------------------------- configurations


class Hparams(Mapping[str, Any]):
    """A complete configuration: the model's name and a value for each hyperparameter. Never changes."""

    __slots__ = ("_values", "model")
    model: str
    _values: dict[str, object]

    def __init__(self, model: str, values: Mapping[str, object]) -> None:
        object.__setattr__(self, "model", model)
        object.__setattr__(self, "_values", dict(values))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a configuration never changes; resolve another one")

    def __reduce__(self) -> tuple[type["Hparams"], tuple[str, dict[str, object]]]:
        return Hparams, (self.model, self._values)

    def __getitem__(self, name: str) -> Any:
        value = self._values[name]
        return dict(value) if isinstance(value, dict) else value

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Hparams) and (self.model, self._values) == (other.model, other._values)

    def __hash__(self) -> int:
        return hash(json.dumps(self.flat(), sort_keys=True))

    def __repr__(self) -> str:
        return f"Hparams({self.flat()})"

    def flat(self) -> dict[str, object]:
        """Returns everything as a flat JSON-able dict, "model" first."""
        return {"model": self.model, **self}


def defaults(model: str) -> dict[str, object]:
    """Returns the default of each hyperparameter of the model. Raises ConfigError for an unknown model."""
    name = canonical_model(model)
    return {row.name: row.default_for(name) for row in HPARAMS if name in row.models}


def overlay(model: str, overrides: Mapping[str, object]) -> tuple[dict[str, object], list[Problem]]:
    """Lays overrides over the model's defaults: returns all values and the problems, those of rules aside."""
    values, problems = defaults(model), list[Problem]()
    specs: dict[str, Spec] = {}
    entries: dict[str, dict[str, object]] = {}
    for key, value in overrides.items():
        try:
            if key == "model":
                if canonical_model(value) != model:
                    raise ValueError(f"model is {shown(value)}, but this is a {model}")
                continue
            argument = declared(str(key))
            if model not in owners(key):
                raise ValueError(f"{key} belongs to {' and '.join(owners(key))}, and this is a {model}")
            row, _, entry = key.rpartition(".")
            if key in ENTRIES:
                entries.setdefault(row, {})[entry] = value
            elif argument.kind is SPEC:
                specs[key] = _mapping(key, value)
            else:
                values[key] = _converted(argument, key, value)
        except ValueError as problem:
            problems.append((str(key), str(problem)))
    for name in [row for row in SPECS if row in specs or row in entries]:
        spec = specs.get(name, values[name])
        assert isinstance(spec, dict)
        values[name], found = complete_spec(name, spec, entries.get(name, {}), whole=name in specs)
        problems += found
    return values, problems


def _mapping(key: str, value: object) -> Spec:
    if not isinstance(value, Mapping):
        raise ValueError(f"{key}: must be {SPEC.value}, but got {shown(value)}")
    return {str(name): entry for name, entry in value.items()}


def _converted(argument: Argument, key: str, value: object) -> object:
    try:
        return convert(argument, value)
    except ValueError as problem:
        raise ValueError(f"{key}: {problem}") from None


def resolve(model: str, overrides: Mapping[str, object]) -> Hparams:
    """Returns the complete configuration. Raises ConfigError with all problems of names, values and rules."""
    name = canonical_model(model)
    values, problems = overlay(name, overrides)
    sentences = [sentence for _, sentence in problems] or [text for rule in RULES for text in rule(values)]
    if sentences:
        raise ConfigError(sentences)
    return Hparams(name, values)


# ------------------------------------------------------------------------------------------------- text forms

NAME_AND_EQUALS = re.compile(r"\s*([^\s=,]+)\s*=\s*")
COMMA_OR_END = re.compile(r"\s*(,|$)")


def parse_hparams(text: str) -> dict[str, object]:
    """Returns the overrides written as "a.b=1,c.d={...JSON...}" (the original's form) or as one JSON object.

    Values stay text where they are not JSON; the table decides their kinds. Raises ConfigError.
    """
    try:
        if text.strip().startswith("{"):
            return dict(json.loads(text, object_pairs_hook=_without_duplicates))
        return _without_duplicates(_assignments(text))
    except json.JSONDecodeError as problem:
        raise ConfigError(f"no valid JSON: {problem}, in {shown(text)}") from None
    except (ValueError, RecursionError) as problem:
        raise ConfigError(f"{problem}, in {shown(text)}") from None


def _without_duplicates(pairs: Iterable[tuple[str, object]]) -> dict[str, object]:
    values: dict[str, object] = {}
    for name, value in pairs:
        if name in values:
            raise ValueError(f"{name} is given twice")
        values[name] = value
    return values


def _assignments(text: str) -> Iterator[tuple[str, object]]:
    decoder, position = json.JSONDecoder(object_pairs_hook=_without_duplicates), 0
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
            raise ValueError(f"{name}: expected a comma after the value, but got {shown(text[position:])}")
        position = separator.end()
