"""Parallel text files: lines of UTF-8, pairs of lines or TSV, and tokens; what is wrong with them, by file and line."""

import codecs
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from s2s_search.table import ConfigError, unreadable


def tokenize(line: str, delimiter: str) -> list[str]:
    """Splits a line at the delimiter, leaving out empty tokens; an empty delimiter splits it into characters."""
    return [token for token in line.split(delimiter) if token] if delimiter else list(line)


def why_unreadable(path: Path) -> list[str]:
    """Returns why a file cannot be opened, in no or one sentence."""
    try:
        with path.open("rb"):
            return []
    except (OSError, ValueError) as error:
        return [f"{path}: {unreadable(path, error)}"]


@contextmanager
def collecting(problems: list[str], where: str = "") -> Iterator[None]:
    """Adds the problems of a ConfigError to the others, instead of stopping at it."""
    try:
        yield
    except ConfigError as error:
        problems.extend(where + problem for problem in error.problems)


def shortened(problems: list[str], path: str | Path, most: int = 5) -> list[str]:
    """Puts the file's name before the first few problems of one kind: a thousand bad lines are one mistake."""
    more = [f"... and {len(problems) - most} more like these"] if len(problems) > most else []
    return [f"{path}: {problem}" for problem in [*problems[:most], *more]]


def read_lines(path: str | Path) -> list[str]:
    """Reads the lines of a UTF-8 file, ending in LF or CRLF and in nothing else, without a byte order mark."""
    if problems := why_unreadable(Path(path)):
        raise ConfigError(problems)
    data = Path(path).read_bytes().removeprefix(codecs.BOM_UTF8)
    try:
        lines = data.decode().replace("\r\n", "\n").split("\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}: line {line}: byte 0x{data[error.start]:02x} is not valid UTF-8") from None
    return lines if lines[-1] else lines[:-1]


def decoded_lines(lines: Iterable[bytes], place: str) -> Iterator[str]:
    """The same of lines that come one by one, such as those of standard input; raises ConfigError at a bad one."""
    for number, line in enumerate(lines, start=1):
        data = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
        try:
            yield data.decode().replace("\r\n", "\n").removesuffix("\n")
        except UnicodeDecodeError as error:
            raise ConfigError(f"{place}: line {number}: byte 0x{data[error.start]:02x} is not valid UTF-8") from None


def read_pairs(files: tuple[Path, ...]) -> list[tuple[str, str]]:
    """Reads source and target lines from two files or one TSV file, leaving out what is blank on both sides."""
    problems: list[str] = []
    texts: list[list[str]] = []
    for file in files:
        with collecting(problems):
            texts.append(read_lines(file))
    if problems:
        raise ConfigError(problems)
    pairs = _columns(files[0], texts[0]) if len(files) == 1 else _aligned(files, texts)
    if not pairs:
        raise ConfigError(f"{files[0]}: holds no examples")
    return pairs


def _columns(path: Path, lines: list[str]) -> list[tuple[str, str]]:
    law = "must be a source, one tab and a target, but the tabs number"
    tabs = [(n, line.count("\t")) for n, line in enumerate(lines, start=1) if line.strip()]
    if problems := [f"line {n}: {law} {count}" for n, count in tabs if count != 1]:
        raise ConfigError(shortened(problems, path))
    return [(source, target) for source, _, target in (line.partition("\t") for line in lines if line.strip())]


def _aligned(files: tuple[Path, ...], texts: list[list[str]]) -> list[tuple[str, str]]:
    counts = [len(text) for text in texts]
    if any(line.strip() for text in texts for line in text[min(counts) :]):  # blank lines at the end do not count
        facts = f"{files[0]} has {counts[0]} and {files[1]} has {counts[1]}"
        raise ConfigError(f"both sides must have the same number of lines, but {facts}")
    return [(source, target) for source, target in zip(*texts, strict=False) if source.strip() or target.strip()]
