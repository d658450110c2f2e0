"""What an argument is: its kind, its default and the values that it may have."""

from dataclasses import KW_ONLY, dataclass
from enum import Enum
from typing import Any


class Kind(Enum):
    """What a value is; the value of the member is what a message calls it."""

    INT = "a whole number"
    FLOAT = "a number"
    BOOL = "true or false"
    NAME = "a name"
    SPEC = "a mapping with a class"


INT, FLOAT, BOOL, NAME, SPEC = Kind
REQUIRED = ...  # the default of an argument that must be given
WIDEST = 65536  # units: a width beyond it is a slip of the pen


@dataclass(frozen=True)
class Argument:
    """Declares an argument of a cell or bridge, or a hyperparameter. A default of None allows None."""

    name: str
    kind: Kind
    default: Any
    _: KW_ONLY
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None  # a minimum that is itself excluded

    @property
    def law(self) -> str:
        """What a value must be, in words: "a number above 0 and at most 1"."""
        if self.choices:
            return "one of " + ", ".join(choice or '""' for choice in self.choices)
        ends = (("at least", self.minimum), ("above", self.above), ("at most", self.maximum))
        bounds = " and ".join(f"{word} {end:.12g}" for word, end in ends if end is not None)
        return f"{self.kind.value} {bounds}".strip() + (" or null" if self.default is None else "")


def width(name: str, default: object = REQUIRED) -> Argument:
    """Declares a number of units."""
    return Argument(name, INT, default, minimum=1, maximum=WIDEST)


def positive(name: str, default: object) -> Argument:
    """Declares a number above zero."""
    return Argument(name, FLOAT, default, above=0)
