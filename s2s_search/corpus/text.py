"""Parallel text files: lines of UTF-8, pairs of lines or TSV, and tokens; what is wrong with them, by file and line."""

import codecs
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from s2s_search.errors import ConfigError, collecting, unreadable

GZIP = b"\x1f\x8b"  # how a compressed file begins
BYTES_AT_ONCE = 65_536  # the capacity of a pipe
LONGEST_LINE = 1 << 20  # bytes of a line that comes through a pipe
FROM_UTF16 = "is it UTF-16? iconv -f UTF-16 -t UTF-8 converts it"
AS_TSV = 'pandas writes plain TSV with to_csv(..., sep="\\t", header=False, index=False, quoting=csv.QUOTE_NONE)'
CONVERT_CR = "lines must end in LF or CRLF; tr '\\r' '\\n' converts those that end in CR alone"


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


def shortened(problems: Iterable[tuple[int, str]], path: str | Path, most: int = 5) -> list[str]:
    """Returns sentences about a file from pairs of a line and what is wrong with it.

    Equal sentences become one that names the first lines and counts the others; line 0 is the whole file. Of different
    sentences the first `most` are kept: a thousand bad lines are one mistake.
    """
    lines: dict[str, list[int]] = {}
    for line, sentence in problems:
        lines.setdefault(sentence, []).append(line)
    texts = [f"{path}: {place_of(found)}{sentence}" for sentence, found in lines.items()]
    left_out = sum(map(len, list(lines.values())[most:]))
    return (
        texts
        if left_out == 0
        else [*texts[:most], f"{path}: ... and {left_out:,} more lines like these"]
    )


def place_of(lines: Sequence[int], most: int = 5) -> str:
    """Returns "line 3: ", "lines 3, 4: " or "lines 3, 4, 5, 6, 7 and 993 more: "; nothing for line 0."""
    if lines[0] == 0:
        return ""
    named = ", ".join(str(line) for line in lines[:most])
    if len(lines) > most:
        named += f" and {len(lines) - most:,} more"
    return f"line {named}: " if len(lines) == 1 else f"lines {named}: "


def read_lines(path: str | Path) -> list[str]:
    """Reads the lines of a UTF-8 file, ending in LF or CRLF and in nothing else, without a byte order mark."""
    if problems := why_unreadable(Path(path)):
        raise ConfigError(problems)
    data = Path(path).read_bytes().removeprefix(codecs.BOM_UTF8)
    try:
        lines = data.decode().replace("\r\n", "\n").split("\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}: line {line}: {not_utf8(data, error.start)}") from None
    return lines if lines[-1] else lines[:-1]


def not_utf8(data: bytes, at: int) -> str:
    """Returns a sentence about the byte at a place of some text, with what the text may be."""
    if data.startswith(GZIP):
        hint = "is it compressed? gunzip unpacks it"
    elif (
        data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in data[:BYTES_AT_ONCE]
    ):
        hint = FROM_UTF16
    else:
        hint = "is it Windows-1252? iconv -f WINDOWS-1252 -t UTF-8 converts it"
    return f"byte 0x{data[at]:02x} is not valid UTF-8; {hint}"


def ready_lines(file: io.BufferedIOBase, place: str, most: int) -> Iterator[list[str]]:
    """Yields the lines of a file or pipe as they come, up to `most` at once: waits for a line, never for a second one.

    Lines are those of `read_lines`. Raises ConfigError where there is no such line, after the lines before it.
    """
    number = 0  # of lines so far
    begun = b""  # a line whose end has not come yet
    at_end = False
    while not at_end:
        try:
            data = file.read1(BYTES_AT_ONCE)
        except OSError as error:
            raise ConfigError(f"{place}: cannot be read: {error.strerror}") from None
        at_end = not data
        *ended, begun = (begun + data).split(b"\n")
        ended = [line.removesuffix(b"\r") for line in ended]
        is_mark = number == 0 and begun == codecs.BOM_UTF8  # of a file without lines
        if at_end and begun and not is_mark:
            ended.append(begun)
        ready: list[str] = []
        problem = ""
        for line in ended:
            number += 1
            line = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            try:
                ready.append(line.decode())
            except UnicodeDecodeError as error:
                problem = not_utf8(line, error.start)
                break
        if not problem and len(begun) > LONGEST_LINE:
            number += 1
            problem = f"has more than {LONGEST_LINE:,} bytes"
        for first in range(0, len(ready), most):
            yield ready[first : first + most]
        if problem:
            raise ConfigError(f"{place}: line {number}: {problem}")


def read_texts(files: tuple[Path, ...]) -> list[list[str]]:
    """Reads the lines of each file. Raises ConfigError with the problems of all."""
    problems: list[str] = []
    texts: list[list[str]] = []
    for file in files:
        with collecting(problems):
            texts.append(read_lines(file))
    if problems:
        raise ConfigError(problems)
    return texts


def paired(files: tuple[Path, ...], texts: list[list[str]]) -> list[tuple[str, str]]:
    """Pairs the source and target lines of two files or one TSV file, leaving out what is blank on both sides.

    Raises ConfigError where the files do not go together, or one side holds nothing at all.
    """
    pairs = _columns(files[0], texts[0]) if len(files) == 1 else _aligned(files, texts)
    if not pairs:
        raise ConfigError(f"{files[0]}: holds no examples")
    for k, side in enumerate(("source", "target")):
        if not any(pair[k].strip() for pair in pairs):
            raise ConfigError(
                f"{files[k % len(files)]}: every {side} is blank, in all {len(pairs):,} examples"
            )
    return pairs


def _columns(path: Path, lines: list[str]) -> list[tuple[str, str]]:
    tabs = [(n, line.count("\t")) for n, line in enumerate(lines, start=1) if line.strip()]
    bad = [(n, count) for n, count in tabs if count != 1]
    if bad:
        law = "must be a source, one tab and a target, but the tabs number"
        has_commas = all("," in lines[n - 1] or ";" in lines[n - 1] for n, _ in bad) and len(
            bad
        ) == len(tabs)
        commas = f"; is it CSV? {AS_TSV}"
        hints = {0: commas if has_commas else ""}
        columns = "; a file of more columns needs two of them, as cut -f1,2 gives"
        for character, hint in (("\r", CONVERT_CR), ("\0", FROM_UTF16)):
            if any(character in line for line in lines):
                columns = f"; {hint}"
                hints = {0: columns}
        problems = [(n, f"{law} {count}{hints.get(count, columns)}") for n, count in bad]
        raise ConfigError(shortened(problems, path))
    return [
        (source, target)
        for source, _, target in (line.partition("\t") for line in lines if line.strip())
    ]


def _aligned(files: tuple[Path, ...], texts: list[list[str]]) -> list[tuple[str, str]]:
    counts = [len(text) for text in texts]
    if any(
        line.strip() for text in texts for line in text[min(counts) :]
    ):  # blank lines at the end do not count
        facts = f"{files[0]} has {counts[0]} and {files[1]} has {counts[1]}"
        hint = f"; {CONVERT_CR}" if any("\r" in line for text in texts for line in text) else ""
        raise ConfigError(f"both sides must have the same number of lines, but {facts}{hint}")
    return [
        (source, target)
        for source, target in zip(*texts, strict=False)
        if source.strip() or target.strip()
    ]


def check_two_sides(files: tuple[Path, ...], texts: list[list[str]]) -> None:
    """Raises ConfigError for two TSV files in place of a source and a target file."""
    rows = [[line for line in text if line.strip()] for text in texts]
    if (
        len(files) == 2
        and all(rows)
        and all(line.count("\t") == 1 for text in rows for line in text)
    ):
        law = "a list is [SOURCE, TARGET], but every line of both files is a source, one tab and a target"
        raise ConfigError(
            f"{law}: {files[0]} and {files[1]}; join them into one TSV file, as cat does, and name that"
        )
