"""Parallel text: lines of UTF-8 files, pairs of lines, tokens, and what is wrong with a file.

A problem names its file and line.
"""

import codecs
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from s2s_search.errors import ConfigError, collecting, quantity, unreadable

GZIP = b"\x1f\x8b"  # the first bytes of a compressed file
BLOCK = 1 << 24  # the number of bytes of a file that are read at once
BYTES_AT_ONCE = 65_536  # the capacity of a pipe
LONGEST_LINE = 1 << 20  # the limit of a line that comes through a pipe, in bytes
NAMED = 5  # the number of lines, and of different sentences, that a problem of a file names
FROM_UTF16 = "is it UTF-16? iconv -f UTF-16 -t UTF-8 converts it"
AS_TSV = (
    'pandas writes plain TSV with to_csv(..., sep="\\t", header=False, index=False, '
    "quoting=csv.QUOTE_NONE)"
)
NAME_COLUMNS = (
    "the key columns names those to read, as in columns: {source: 1, target: 2} "
    "or {source: [1, 3], target: 2}"
)
CONVERT_CR = "lines must end in LF or CRLF; tr '\\r' '\\n' converts lines that end in CR alone"


# What separates the tokens of a text: a string, or for columns between tabs one string for each.
Delimiter = str | tuple[str, ...]


def tokenize(line: str, delimiter: Delimiter) -> list[str]:
    """Returns the tokens of a line: its parts between delimiters without empty ones.

    An empty delimiter stands for a split into characters. A token of the second column begins with
    a tab, and one of the third with two. No text in a column has a tab, so tokens of different
    columns are never equal.
    """
    if isinstance(delimiter, tuple):
        tokens = []
        for k, (cell, own) in enumerate(zip(line.split("\t"), delimiter, strict=False)):
            mark = "\t" * k
            tokens += [mark + token for token in tokenize(cell, own)]
        return tokens
    if not delimiter:
        return list(line)
    return [token for token in line.split(delimiter) if token]


def without_column(token: str, delimiter: Delimiter) -> str:
    """Returns a token of a text as the file has it, without the mark of its column."""
    return token.lstrip("\t") if isinstance(delimiter, tuple) else token


def text_form(delimiter: Delimiter) -> str:
    """Returns how the tokens of a text are found, in words."""
    if isinstance(delimiter, tuple):
        columns = "; ".join(map(text_form, delimiter))
        return f"{len(delimiter)} columns with a tab between them ({columns})"
    return f"tokens separated by {delimiter!r}" if delimiter else "split into characters"


def canonical(line: str, delimiter: Delimiter) -> str:
    """Returns a text that is equal for all lines with the same tokens."""
    if isinstance(delimiter, tuple):
        return "\t".join(map(canonical, line.split("\t"), delimiter))
    if not delimiter:
        return line
    at_end = line.startswith(delimiter) or line.endswith(delimiter)
    if not at_end and delimiter + delimiter not in line:
        return line  # there is no empty text between delimiters
    return delimiter.join(tokenize(line, delimiter))


def why_unreadable(path: Path) -> list[str]:
    """Returns why a file cannot be opened, as a list of one sentence; of none when it can."""
    try:
        with path.open("rb"):
            return []
    except (OSError, ValueError) as error:
        return [f"{path}: {unreadable(path, error)}"]


def shortened(problems: Iterable[tuple[int, str]], path: str | Path) -> list[str]:
    """Returns the sentences about a file, of which there are few even if a thousand lines are bad.

    Args:
        problems: pairs of a line and a sentence; line 0 stands for the whole file. Equal sentences
            become one that names the first lines and counts the others.
        path: the file.
    """
    lines: dict[str, list[int]] = {}
    for line, sentence in problems:
        lines.setdefault(sentence, []).append(line)
    texts = [f"{path}: {line_prefix(found)}{sentence}" for sentence, found in lines.items()]
    left_out = sum(map(len, list(lines.values())[NAMED:]))
    if left_out == 0:
        return texts
    return [*texts[:NAMED], f"{path}: ... and {left_out:,} more lines like these"]


def line_prefix(lines: Sequence[int]) -> str:
    """Returns "line 3: ", "lines 3, 4: " or "lines 3, 4, 5, 6, 7 and 993 more: "; "" for line 0."""
    if lines[0] == 0:
        return ""
    named = ", ".join(str(line) for line in lines[:NAMED])
    if len(lines) > NAMED:
        named += f" and {len(lines) - NAMED:,} more"
    return f"line {named}: " if len(lines) == 1 else f"lines {named}: "


def read_lines(path: str | Path) -> list[str]:
    """Returns the lines of a UTF-8 file, without their ends and without a byte order mark.

    A line ends in LF or CRLF. Other characters that str.splitlines knows belong to the text.

    Raises:
        ConfigError: the file cannot be read, or is not UTF-8.
    """
    if problems := why_unreadable(Path(path)):
        raise ConfigError(problems)
    lines: list[str] = []
    begin = b""  # of the file, by which another encoding is guessed
    with Path(path).open("rb") as file:
        while data := file.read(BLOCK):
            data += file.readline()  # to the end of the line
            if not begin:
                data = data.removeprefix(codecs.BOM_UTF8)
                begin = data[:BYTES_AT_ONCE]
            try:
                text = data.decode()
            except UnicodeDecodeError as error:
                line = len(lines) + data.count(b"\n", 0, error.start) + 1
                problem = not_utf8(begin, data[error.start])
                raise ConfigError(f"{path}: line {line}: {problem}") from None
            if text:
                lines += text.replace("\r\n", "\n").removesuffix("\n").split("\n")
    return lines


def not_utf8(data: bytes, byte: int) -> str:
    """Returns a sentence about a byte of a text that begins with `data`.

    It has a guess of the encoding.
    """
    has_utf16_mark = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    if data.startswith(GZIP):
        hint = "is it compressed? gunzip unpacks it"
    elif has_utf16_mark or b"\0" in data[:BYTES_AT_ONCE]:
        hint = FROM_UTF16
    else:
        hint = "is it Windows-1252? iconv -f WINDOWS-1252 -t UTF-8 converts it"
    return f"byte 0x{byte:02x} is not valid UTF-8; {hint}"


def ready_lines(file: io.BufferedIOBase, where: str, most: int) -> Iterator[list[str]]:
    """Yields the lines of a file or pipe as they come, up to `most` at once.

    It waits for the first line of a list, and never for a second one, so that a user who types
    lines gets answers. The lines are as `read_lines` returns them. A line that cannot be read is
    yielded too, so that every line has its place: bytes that are not UTF-8 become U+FFFD, and a
    line of more than LONGEST_LINE bytes is empty.

    Raises:
        ConfigError: after all lines, with those that cannot be read; or the file cannot be read.
    """
    number = 0  # the number of lines so far
    begun = b""  # the line whose end has not come yet
    is_too_long = False  # whether that line has been too long, so that it is not kept
    at_end = False
    problems: list[tuple[int, str]] = []
    while not at_end:
        try:
            data = file.read1(BYTES_AT_ONCE)
        except OSError as error:
            raise ConfigError(f"{where}: cannot be read: {error.strerror}") from None
        at_end = not data
        *ended, begun = (begun + data).split(b"\n")
        ended = [line.removesuffix(b"\r") for line in ended]
        is_mark = number == 0 and begun == codecs.BOM_UTF8  # of a file that holds nothing else
        if at_end and (begun or is_too_long) and not is_mark:
            ended.append(begun)
        ready: list[str] = []
        for line in ended:
            number += 1
            line = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            if is_too_long or len(line) > LONGEST_LINE:
                problems.append((number, f"has more than {LONGEST_LINE:,} bytes"))
                line = b""
            try:
                ready.append(line.decode())
            except UnicodeDecodeError as error:
                problems.append((number, not_utf8(line, line[error.start])))
                ready.append(line.decode(errors="replace"))
            is_too_long = False
        if len(begun) > LONGEST_LINE + len(b"\r"):
            is_too_long = True
        if is_too_long:
            begun = b""  # it is not kept, as the line may never end
        for first in range(0, len(ready), most):
            yield ready[first : first + most]
    if problems:
        raise ConfigError(shortened(problems, where))


def read_texts(files: tuple[Path, ...]) -> list[list[str]]:
    """Returns the lines of each file.

    Raises:
        ConfigError: with the problems of all files.
    """
    problems: list[str] = []
    texts: list[list[str]] = []
    for file in files:
        with collecting(problems):
            texts.append(read_lines(file))
    if problems:
        raise ConfigError(problems)
    return texts


def paired(
    files: tuple[Path, ...],
    texts: list[list[str]],
    source_columns: Sequence[int] = (),
    target_column: int = 0,
) -> list[tuple[str, str]]:
    """Returns the pairs of source and target of two files or one TSV file.

    Lines that are blank on both sides are left out.

    Args:
        files: the files.
        texts: the lines of each file. The lists of a TSV file are left without text.
        source_columns: the numbers of the columns of a source, from 1, which a tab then separates;
            without them, a line of a TSV file has two columns.
        target_column: the number of the column of a target.

    Raises:
        ConfigError: the files do not go together, or one side is blank in all lines.
    """
    if source_columns:
        pairs = _chosen_columns(files[0], texts[0], source_columns, target_column)
    else:
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
    """Returns the two columns of a TSV file.

    Raises:
        ConfigError: with all lines that do not have exactly one tab.
    """
    examples = 0
    bad: list[tuple[int, int]] = []  # number of the line, number of tabs
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        examples += 1
        tabs = line.count("\t")
        if tabs != 1:
            bad.append((number, tabs))
    if bad:
        widths = {tabs + 1 for _, tabs in bad}
        odd = any("\0" in line or "\r" in line for line in lines)
        if len(bad) == examples and len(widths) == 1 and min(widths) > 2 and not odd:
            raise ConfigError(f"{path}: every line has {min(widths)} columns; {NAME_COLUMNS}")
        without_tab, more_tabs = _hints_of_columns(lines, [number for number, _ in bad], examples)
        problems = []
        for number, tabs in bad:
            law = f"must be a source, one tab and a target, but the tabs number {tabs}"
            problems.append((number, law + (without_tab if tabs == 0 else more_tabs)))
        raise ConfigError(shortened(problems, path))
    pairs = []
    for line in taken(lines):
        source, _, target = line.partition("\t")
        pairs.append((source, target))
    return pairs


def taken(lines: list[str]) -> Iterator[str]:
    """Yields the lines that are not blank.

    Each is replaced by empty text in the list, so that a file and its columns need not be in memory
    at once.
    """
    for k, line in enumerate(lines):
        lines[k] = ""
        if line.strip():
            yield line


def _hints_of_columns(lines: list[str], bad: list[int], examples: int) -> tuple[str, str]:
    """Returns what to do about lines without a tab, and about lines with several tabs."""
    if any("\0" in line for line in lines):
        return f"; {FROM_UTF16}", f"; {FROM_UTF16}"
    if any("\r" in line for line in lines):
        return f"; {CONVERT_CR}", f"; {CONVERT_CR}"
    has_commas = all("," in lines[number - 1] or ";" in lines[number - 1] for number in bad)
    is_csv = has_commas and len(bad) == examples
    without_tab = f"; is it CSV? {AS_TSV}" if is_csv else ""
    return without_tab, f"; {NAME_COLUMNS}"


def _chosen_columns(
    path: Path, lines: list[str], source_columns: Sequence[int], target_column: int
) -> list[tuple[str, str]]:
    """Returns the columns of sources, with tabs between them, and the column of targets.

    Raises:
        ConfigError: with all lines that have not as many columns as most lines, or most lines
            lack a column.
    """
    widths = Counter(line.count("\t") + 1 for line in lines if line.strip())
    if not widths:
        return []
    ((width, _),) = widths.most_common(1)
    highest = max(*source_columns, target_column)
    if highest > width:
        lines_have = "every line has" if len(widths) == 1 else "most lines have"
        fact = f"{lines_have} {quantity(width, 'column')}"
        raise ConfigError(f"{path}: columns names column {highest}, but {fact}")
    bad: list[tuple[int, str]] = []
    for number, line in enumerate(lines, start=1):
        has = line.count("\t") + 1
        if line.strip() and has != width:
            law = f"must have {width} columns, as most lines have"
            bad.append((number, f"{law}, but has {has}"))
    if bad:
        raise ConfigError(shortened(bad, path))
    pairs = []
    for line in taken(lines):
        cells = line.split("\t")
        source = "\t".join([cells[k - 1] for k in source_columns])
        target = cells[target_column - 1]
        if source.strip() or target.strip():
            pairs.append((source, target))
    return pairs


def _aligned(files: tuple[Path, ...], texts: list[list[str]]) -> list[tuple[str, str]]:
    """Returns the pairs of lines of two files. Raises ConfigError where one file is longer."""
    counts = [len(text) for text in texts]
    # Blank lines at the end of the longer file do not count.
    if any(line.strip() for text in texts for line in text[min(counts) :]):
        facts = f"{files[0]} has {counts[0]} and {files[1]} has {counts[1]}"
        hint = f"; {CONVERT_CR}" if any("\r" in line for text in texts for line in text) else ""
        raise ConfigError(f"both sides must have the same number of lines, but {facts}{hint}")
    return [
        (source, target)
        for source, target in zip(*texts, strict=False)
        if source.strip() or target.strip()
    ]


def check_two_sides(files: tuple[Path, ...], texts: list[list[str]]) -> None:
    """Raises ConfigError when two TSV files stand in the place of a source and a target file."""
    rows = [[line for line in text if line.strip()] for text in texts]
    if len(files) != 2 or not all(rows):
        return
    if all(line.count("\t") == 1 for text in rows for line in text):
        law = "a list is [SOURCE, TARGET]"
        fact = "every line of both files is a source, one tab and a target"
        hint = "join them into one TSV file, as cat does, and name that file"
        raise ConfigError(f"{law}, but {fact}: {files[0]} and {files[1]}; {hint}")
