"""A warning: what is accepted of a user's input, though hardly anyone wants it."""

from collections.abc import Mapping
from dataclasses import dataclass

NOTICED = 0.01  # the share from which on something is worth a warning


@dataclass(frozen=True)
class InputWarning:
    """What is accepted of a user's input, though hardly anyone wants it.

    place: the keys of a search space that it is about · sentence: what holds, and its values · values: the same as
    numbers · hint: what would mend it · file, line: of a corpus · side: 0 is the file of sources, 1 that of targets ·
    at: the line in the search-space file. Lines count from 1; 0 is the whole file.
    """

    place: tuple[str, ...]
    sentence: str
    values: Mapping[str, object]
    hint: str = ""
    file: str = ""
    line: int = 0
    side: int = 0
    at: int = 0

    @property
    def key(self) -> str:
        return ".".join(self.place).removeprefix("parameters.")

    def __str__(self) -> str:
        parts = [self.key, self.file, f"line {self.line}" if self.line else "", self.sentence]
        return ": ".join(part for part in parts if part) + (f"; {self.hint}" if self.hint else "")

    def row(self) -> dict[str, object]:
        """Returns the warning as --json prints it; null where it has no such place."""
        places = {"line": self.at or None, "key": self.key, "file": self.file or None, "file_line": self.line or None}
        return {**places, "warning": self.sentence, "values": dict(self.values), "hint": self.hint or None}


def noticed(count: int, total: int) -> bool:
    return count > 0 and count >= NOTICED * total


def percent(count: float, total: float) -> str:
    """Returns "44 %"."""
    return f"{100 * count / total:.2g} %" if count < total else "all"
