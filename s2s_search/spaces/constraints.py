"""The section `constraints`: comparisons that hold in every configuration of a space."""

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from s2s_search.errors import nearest, shown
from s2s_search.hparams.arguments import FLOAT, INT, REQUIRED, SPEC, Argument
from s2s_search.hparams.table import ENTRIES, TABLE
from s2s_search.hparams.values import NUMBER, convert
from s2s_search.spaces.parameters import check_owner
from s2s_search.spaces.yaml_file import Problems, described, listed

PARAMETERS = "parameters"  # the word that stands for the number of parameters of the model
COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
    "==": operator.eq,
    "!=": operator.ne,
}
SIGNS = re.compile("([<>=!]+)")
NAME = re.compile(r"[A-Za-z_][\w.]*")
LAW = f"a comparison is LEFT OP RIGHT with one of {', '.join(COMPARISONS)}"

Side = float | str  # a number; a dotted key, or PARAMETERS


@dataclass(frozen=True)
class Constraint:
    """A comparison of two sides, of which one at least depends on the configuration."""

    left: Side
    comparison: str
    right: Side

    def __str__(self) -> str:
        return f"{_text(self.left)} {self.comparison} {_text(self.right)}"

    @property
    def names(self) -> tuple[str, ...]:
        """Returns the sides that are no numbers."""
        return tuple(side for side in (self.left, self.right) if isinstance(side, str))

    def broken(self, number: Callable[[str], float | None]) -> str | None:
        """Returns the values that break the constraint, in words; None when it holds.

        A constraint holds where a key takes no part.

        Args:
            number: returns the number of a name in a configuration; None where it has none.
        """
        numbers = {name: number(name) for name in self.names}
        left, right = (
            numbers[side] if isinstance(side, str) else side for side in (self.left, self.right)
        )
        if left is None or right is None or COMPARISONS[self.comparison](left, right):
            return None
        return " and ".join(f"{name} = {_text(value)}" for name, value in numbers.items())


def _text(side: Side | None) -> str:
    return side if isinstance(side, str) else f"{side:.12g}"


def read_constraints(
    parts: Mapping[str, object], models: Sequence[str], problems: Problems
) -> tuple[Constraint, ...]:
    """Returns the constraints of a file. Those that are no comparison are problems."""
    found = []
    for index, text in enumerate(listed(parts.get("constraints", []))):
        label = f"constraints: {text[:100]}: " if isinstance(text, str) else "constraints: "
        with problems.at("constraints", index, label=label):
            found.append(_parsed(text, models))
    return tuple(found)


def _parsed(text: object, models: Sequence[str]) -> Constraint:
    """Returns the constraint of a text. Raises ValueError with a sentence."""
    if not isinstance(text, str):
        raise ValueError(f"{LAW}, but got {described(text)}")
    words = [word.strip() for word in SIGNS.split(text)]
    if len(words) != 3 or not words[0] or not words[2]:
        raise ValueError(LAW)
    left, comparison, right = words
    if comparison not in COMPARISONS:
        raise ValueError(
            f"unknown comparison {shown(comparison)}{nearest(comparison, COMPARISONS)}"
        )
    constraint = Constraint(_side(left, models), comparison, _side(right, models))
    if not constraint.names:
        raise ValueError(f"one side must be a key, or the word {PARAMETERS}")
    if constraint.left == constraint.right:
        raise ValueError("both sides are the same")
    return constraint


def _side(word: str, models: Sequence[str]) -> Side:
    """Returns a side of a comparison. Raises ValueError with a sentence."""
    if NUMBER.fullmatch(word):
        number = convert(Argument("number", FLOAT, REQUIRED), word)
        assert isinstance(number, float)
        return number
    if not NAME.fullmatch(word):
        law = f"a side is a key, a number or the word {PARAMETERS}, without arithmetic"
        raise ValueError(f"{law}, but got {shown(word)}")
    if word == PARAMETERS:
        return word
    if "." not in word:
        hint = nearest(word, [PARAMETERS, *TABLE, *ENTRIES])
        raise ValueError(f"unknown hyperparameter {shown(word)}{hint}")
    kind = check_owner(word, models).kind
    if kind not in (INT, FLOAT):
        hint = f"; one entry of it may be, such as {word}.num_units" if kind is SPEC else ""
        raise ValueError(f"only numbers are compared, and {word} is {kind.value}{hint}")
    return word
