"""Problems and warnings about a user's input, and how messages show values and commands."""

import difflib
import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

# Characters that move a terminal's cursor, change its colours or direction, or cannot be encoded.
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """Returns foreign text in one line; control characters become spaces or question marks."""
    return CONTROL.sub(lambda found: " " if found[0].isspace() else "?", text)


class ConfigError(ValueError):
    """Carries all problems of a user's input.

    Its text is "where: problem", or "where: N problems" and a line for each problem.
    """

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
        # A problem quotes file names and values, which can hold any character.
        return "\n".join(map(printable, text.split("\n")))


@contextmanager
def collecting(problems: list[str], label: str = "", where: str | None = None) -> Iterator[None]:
    """Adds the problems of a ConfigError of the block to `problems` and continues after the block.

    Code after the block must cope with a missing result. Each problem gets the label, and the place
    that its error names. The place `where` is left out, because the caller will name it for all
    problems together.
    """
    try:
        yield
    except ConfigError as error:
        if error.where and error.where != where:
            label = f"{label}{error.where}: "
        problems.extend(label + problem for problem in error.problems)


# Names that Optuna, Ray Tune, scipy and Weights & Biases give to our keys. By spelling alone, "low"
# is nearest to "log".
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
# The least similarity of two spellings at which a guess is more often right than wrong.
LEAST_SIMILARITY = 0.7


def nearest(name: object, known: Iterable[str]) -> str:
    """Returns the end of a sentence about an unknown name: a guess, or else the known names."""
    word, names = str(name)[:100], list(known)
    guess = _guess(word, names) if word else None
    if guess is not None:
        return f"; did you mean '{guess}'?"
    if not names:
        return ""
    if len(names) > 20:
        return f"; known: {', '.join(names[:3])}, ... ({len(names)} in all)"
    return "; known: " + ", ".join(other or '""' for other in names)


def _guess(word: str, names: Sequence[str]) -> str | None:
    """Returns the name that is probably meant, or None."""
    ends = [name for name in names if name.endswith("." + word)]
    if ends:
        return ends[0]
    if SYNONYMS.get(word) in names:
        return SYNONYMS[word]
    alike = difflib.get_close_matches(word, names, n=1, cutoff=LEAST_SIMILARITY)
    if alike:
        return alike[0]
    longer = [name for name in names if name.startswith(word + "_") or name.endswith("_" + word)]
    return longer[0] if len(longer) == 1 else None


def unreadable(path: Path, error: OSError | ValueError, known: Iterable[str] = ()) -> str:
    """Returns why a file cannot be read.

    For a missing file, the sentence also names the most similar file that lies beside it or is
    among the known ones.
    """
    hint = ""
    if isinstance(error, FileNotFoundError):
        beside = [str(other) for other in path.parent.glob("*") if other.is_file()]
        names: dict[str, str] = {}
        for name in [*beside, *known]:
            names.setdefault(name, name)
            names.setdefault(Path(name).stem, name)
        close = difflib.get_close_matches(str(path), names, n=1)
        close = close or difflib.get_close_matches(path.stem, names, n=1)
        if close:
            hint = f"; did you mean '{names[close[0]]}'?"
    return f"cannot be read: {getattr(error, 'strerror', None) or error}{hint}"


def quantity(number: int, noun: str) -> str:
    """Returns a number with its noun, such as "1 trial" or "1,200 trials"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def command(*words: object) -> str:
    """Returns a command of this program, quoted for a shell."""
    texts = []
    for word in words:
        # A path that begins with "-" would be read as an option.
        is_like_option = isinstance(word, Path) and str(word).startswith("-")
        texts.append(f"./{word}" if is_like_option else str(word))
    return shlex.join([*started_as(), *texts])


def started_as() -> list[str]:
    """Returns the words that started this program: its installed name, or the script."""
    if Path(sys.argv[0]).stem == "s2s-search":
        return ["s2s-search"]
    return ["python", "run_search.py"]


def shown(value: object) -> str:
    """Returns the value as a message shows it: a string in quotes, a long value shortened."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


NOTICED = 0.01  # the least share of a corpus that is worth a warning


@dataclass(frozen=True)
class InputWarning:
    """A warning about input that is accepted, though hardly any user means it.

    Attributes:
        key_path: the keys that lead to the value in the search-space file.
        sentence: what was found, with numbers.
        values: the same numbers by name.
        hint: what the user can do about it.
        file: the file of a corpus, where the warning is about one.
        line: the line in `file`, from 1; 0 stands for the whole file.
        side: 0 for the file of sources, 1 for the file of targets.
        at: the line in the search-space file, from 1; 0 stands for the whole file.
    """

    key_path: tuple[str, ...]
    sentence: str
    values: Mapping[str, object]
    hint: str = ""
    file: str = ""
    line: int = 0
    side: int = 0
    at: int = 0

    @property
    def key(self) -> str:
        """Returns the dotted name of the hyperparameter or of the key of a section."""
        return ".".join(self.key_path).removeprefix("parameters.")

    def __str__(self) -> str:
        parts = [self.key, self.file, f"line {self.line}" if self.line else "", self.sentence]
        return ": ".join(part for part in parts if part) + (f"; {self.hint}" if self.hint else "")

    def row(self) -> dict[str, object]:
        """Returns the warning as --json prints it, with null for a place that it does not have."""
        return {
            "line": self.at or None,
            "key": self.key,
            "file": self.file or None,
            "file_line": self.line or None,
            "warning": self.sentence,
            "values": dict(self.values),
            "hint": self.hint or None,
        }


def noticed(count: int, total: int) -> bool:
    """Returns whether `count` of `total` is worth a warning."""
    return count > 0 and count >= NOTICED * total


def percent(count: float, total: float) -> str:
    """Returns a share such as "44 %", or "all"."""
    return f"{100 * count / total:.2g} %" if count < total else "all"
