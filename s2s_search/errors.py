"""Problems and warnings about what a user gave, and how messages show values and commands."""

import difflib
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# What moves a terminal's cursor, colours or reverses what follows, or cannot be encoded.
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """Returns foreign text in one line without control characters: a space or a question mark stands for each."""
    return CONTROL.sub(lambda found: " " if found[0].isspace() else "?", text)


class ConfigError(ValueError):
    """Carries all problems of a user's input: "where: problem", or "where: N problems" and a line for each."""

    def __init__(self, problems: str | Sequence[str], where: str | None = None) -> None:
        self.problems = (problems,) if isinstance(problems, str) else tuple(problems)
        self.where = where
        super().__init__(self.problems, where)

    def __str__(self) -> str:
        prefix = f"{self.where}: " if self.where else ""
        lines = [prefix + self.problems[0]]
        if len(self.problems) > 1:
            lines = [f"{prefix}{len(self.problems)} problems", *self.problems]
        text = "\n  ".join(lines)
        return "\n".join(map(printable, text.split("\n")))  # names of files and values are anyone's


# What other tools call it: Optuna, Ray Tune, scipy, Weights & Biases. Spelling alone would take low for log.
SYNONYMS = {
    **dict.fromkeys(("low", "lower", "lo", "from", "start", "begin"), "min"),
    **dict.fromkeys(("high", "upper", "hi", "to", "end", "stop"), "max"),
    **dict.fromkeys(("value", "values", "options", "categories"), "choices"),
    **dict.fromkeys(("q", "stepsize"), "step"),
    **dict.fromkeys(("if", "where", "condition"), "when"),
    **dict.fromkeys(("mode", "direction"), "goal"),
    **dict.fromkeys(("min_steps", "grace_period", "min_resource"), "grace_steps"),
    **dict.fromkeys(("max_t", "max_iter", "max_resource"), "max_steps"),
    **dict.fromkeys(("eta", "factor"), "reduction_factor"),
    **dict.fromkeys(("num_samples", "n_iter"), "trials"),
    "random_state": "seed",
    "lr": "optimizer.learning_rate",
    "wer": "dev.word_error_rate",
    "dev.wer": "dev.word_error_rate",
}
ALIKE = 0.7  # of two spellings: below it a guess is more often wrong than right


def nearest(name: object, known: Iterable[str]) -> str:
    """Returns the end of a sentence about an unknown name: the nearest known one, or the known ones."""
    word, names = str(name)[:100], list(known)
    close = [other for other in names if word and other.endswith("." + word)]
    if not close and SYNONYMS.get(word) in names:
        close = [SYNONYMS[word]]
    if not close:
        close = difflib.get_close_matches(word, names, n=1, cutoff=ALIKE)
    if not close:
        parts = [
            other
            for other in names
            if word and (other.startswith(word + "_") or other.endswith("_" + word))
        ]
        close = parts if len(parts) == 1 else []
    if close:
        return f"; did you mean '{close[0]}'?"
    if len(names) > 20:
        return f"; known: {', '.join(names[:3])}, ... ({len(names)} in all)"
    return "; known: " + ", ".join(other or '""' for other in names) if names else ""


def unreadable(path: Path, error: OSError | ValueError, folder: str | None = None) -> str:
    """Says why a file cannot be read; of one that is not there, names the nearest beside it or below `folder`."""
    hint = ""
    if isinstance(error, FileNotFoundError):
        others = [*(Path(folder).rglob("*") if folder else ()), *path.parent.glob("*")]
        by_name = {other.stem: other for other in others if other.is_file()}
        close = difflib.get_close_matches(path.stem, by_name, n=1)
        hint = f"; did you mean '{by_name[close[0]]}'?" if close else ""
    return f"cannot be read: {getattr(error, 'strerror', None) or error}{hint}"


def command(*words: object) -> str:
    """Returns a command of this program as a shell takes it, whatever characters a path has."""
    texts = [
        f"./{word}" if isinstance(word, Path) and str(word).startswith("-") else str(word)
        for word in words
    ]
    return shlex.join(["python", "run_search.py", *texts])


def shown(value: object) -> str:
    """Returns the value as a message shows it: quoted when a string, shortened when long."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


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
        places = {
            "line": self.at or None,
            "key": self.key,
            "file": self.file or None,
            "file_line": self.line or None,
        }
        return {
            **places,
            "warning": self.sentence,
            "values": dict(self.values),
            "hint": self.hint or None,
        }


def noticed(count: int, total: int) -> bool:
    return count > 0 and count >= NOTICED * total


def percent(count: float, total: float) -> str:
    """Returns "44 %"."""
    return f"{100 * count / total:.2g} %" if count < total else "all"
