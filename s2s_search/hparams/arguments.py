"""An argument of a cell or bridge, or a hyperparameter: its kind, default and allowed values."""

from dataclasses import KW_ONLY, dataclass
from enum import Enum
from typing import Any


class Kind(Enum):
    """The kind of a value. The value of the member is its name in messages."""

    INT = "a whole number"
    FLOAT = "a number"
    BOOL = "true or false"
    NAME = "a name"
    SPEC = "a mapping with a class"


INT, FLOAT, BOOL, NAME, SPEC = Kind
REQUIRED = ...  # the default of an argument that must be given
WIDEST = 65536  # the largest number of units; a larger one is taken for a typing error


@dataclass(frozen=True)
class Argument:
    """The declaration of an argument or hyperparameter; a default of None allows None."""

    name: str
    kind: Kind
    default: Any
    _: KW_ONLY
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None  # the lower bound, when the bound itself is not allowed
    below: float | None = None  # the upper bound, when the bound itself is not allowed

    @property
    def law(self) -> str:
        """Returns what a value must be, in words: "a number above 0 and at most 1"."""
        if self.choices:
            return "one of " + ", ".join(choice or '""' for choice in self.choices)
        ends = (
            ("at least", self.minimum),
            ("above", self.above),
            ("at most", self.maximum),
            ("below", self.below),
        )
        bounds = " and ".join(f"{word} {end:.12g}" for word, end in ends if end is not None)
        law = f"{self.kind.value} {bounds}".strip()
        return f"{law} or null" if self.default is None else law


def width(name: str, default: object = REQUIRED) -> Argument:
    """Returns the declaration of a number of units."""
    return Argument(name, INT, default, minimum=1, maximum=WIDEST)


def positive(name: str) -> Argument:
    """Returns the declaration of a number above zero that is null by default."""
    return Argument(name, FLOAT, None, above=0)
