"""Values of hyperparameters: converted to their kind and checked against their range."""

import numbers
import re
from collections.abc import Mapping

from s2s_search.errors import nearest, shown
from s2s_search.hparams.arguments import BOOL, FLOAT, NAME, SPEC, Argument, Kind
from s2s_search.hparams.table import REFUSED, declared

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
        raise ValueError(
            refused or f"unknown name {shown(value)}{nearest(value, argument.choices)}"
        )
    converted = _of_kind(argument.kind, value)
    if converted is None or not _within(argument, converted):
        raise ValueError(f"must be {argument.law}, but got {shown(value)}")
    return converted


def _of_kind(kind: Kind, value: object) -> object:
    """Returns the value in the kind, or None when it cannot be."""
    if kind is SPEC:  # its arguments wait for check_spec
        return (
            {str(name): entry for name, entry in value.items()}
            if isinstance(value, Mapping)
            else None
        )
    if kind is NAME:
        return value if isinstance(value, str) else None
    if kind is BOOL:
        return (
            WORDS.get(value.lower())
            if isinstance(value, str)
            else value
            if isinstance(value, bool)
            else None
        )
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
    return (
        (least is None or least <= value)
        and (most is None or value <= most)
        and (above is None or above < value)
    )


def typed(key: str, value: object) -> object:
    """Returns a declared key's value in its kind. Raises ValueError with a whole sentence."""
    try:
        return convert(declared(key), value)
    except ValueError as problem:
        raise ValueError(f"{key}: {problem}") from None
