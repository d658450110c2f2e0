"""Values of hyperparameters: converted to their kind and checked against their range."""

import numbers
import re
from collections.abc import Mapping

from s2s_search.errors import nearest, shown
from s2s_search.hparams.arguments import BOOL, FLOAT, NAME, SPEC, Argument, Kind
from s2s_search.hparams.table import REFUSED, declared

WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
LARGEST_INT = 2**53  # the largest whole number up to which a float is exact
LARGEST_FLOAT = 3.4e38  # the largest number in float32, in which models compute


def convert(argument: Argument, value: object) -> object:
    """Returns a value converted to the argument's kind, also from text such as "1e-4".

    Raises:
        ValueError: the value breaks the law of the argument, which the message states.
    """
    if argument.default is None and (value is None or value in ("null", "None")):
        return None
    if argument.choices and isinstance(value, str) and value not in argument.choices:
        if value in REFUSED:
            raise ValueError(f"{value} is refused: {REFUSED[value]}")
        raise ValueError(f"unknown name {shown(value)}{nearest(value, argument.choices)}")
    converted = _of_kind(argument.kind, value)
    if converted is None or not _within(argument, converted):
        raise ValueError(f"must be {argument.law}, but got {shown(value)}")
    return converted


def _of_kind(kind: Kind, value: object) -> object:
    """Returns the value converted to the kind, or None when that is impossible."""
    if kind is SPEC:
        return _as_spec(value)
    if kind is NAME:
        return value if isinstance(value, str) else None
    if kind is BOOL:
        return _as_bool(value)
    return _as_number(kind, value)


def _as_spec(value: object) -> object:
    """Returns a copy of a mapping. Its arguments are converted later, by `check_spec`."""
    if not isinstance(value, Mapping):
        return None
    return {str(name): entry for name, entry in value.items()}


def _as_bool(value: object) -> object:
    if isinstance(value, str):
        return WORDS.get(value.lower())
    return value if isinstance(value, bool) else None


def _as_number(kind: Kind, value: object) -> object:
    if isinstance(value, str):
        if len(value) >= 100 or not NUMBER.fullmatch(value.strip()):
            return None
        value = float(value)
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
    """Returns whether a value lies in the argument's range; True for what is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return True
    least, most = argument.minimum, argument.maximum
    above, below = argument.above, argument.below
    return (
        (least is None or least <= value)
        and (most is None or value <= most)
        and (above is None or above < value)
        and (below is None or value < below)
    )


def typed(key: str, value: object) -> object:
    """Returns the value of a declared key, converted to its kind.

    Raises:
        ValueError: the key is not declared, or the value breaks its law; the message names the key.
    """
    try:
        return convert(declared(key), value)
    except ValueError as problem:
        raise ValueError(f"{key}: {problem}") from None
