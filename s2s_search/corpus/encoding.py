"""Text as numbers: the tokens of many lines at once, by PyArrow and numpy.

Lines are taken in blocks, so that what a block needs besides its numbers stays small. The tokens
are those of `text.tokenize`, in the same order.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from s2s_search.corpus.text import Delimiter
from s2s_search.corpus.vocabulary import Vocabulary

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Ids = npt.NDArray[np.int32]
    Offsets = npt.NDArray[np.int64]

LINES_AT_ONCE = 20_000  # the number of lines in a block
IDS_AT_ONCE = 1 << 20  # the number of ids that numpy converts at once, with eight bytes for each
CODE_POINTS = 0x110000  # the number of Unicode's code points


@dataclass
class Encoded:
    """N sequences of tokens. The number k stands for the token `tokens[k]`, and each token occurs.

    Sequence i is `numbers[offsets[i]:offsets[i + 1]]`.
    """

    tokens: list[str]
    numbers: Ids
    offsets: Offsets  # [N + 1]

    def counts(self) -> dict[str, int]:
        """Returns how often each token occurs."""
        import numpy as np

        counts = np.zeros(len(self.tokens), np.int64)
        for block in self._blocks():
            counts += np.bincount(block, minlength=len(self.tokens))
        return dict(zip(self.tokens, counts.tolist(), strict=True))

    def ids(self, vocab: Vocabulary) -> tuple[Ids, Offsets]:
        """Returns the ids of all sequences in a vocabulary, and their offsets.

        The ids take the place of the numbers, which are lost.
        """
        import numpy as np

        ids = np.array(vocab.encode(self.tokens), np.int32)
        for block in self._blocks():
            block[:] = ids[block]
        return self.numbers, self.offsets

    def _blocks(self) -> Iterator[Ids]:
        for begin in range(0, len(self.numbers), IDS_AT_ONCE):
            yield self.numbers[begin : begin + IDS_AT_ONCE]


def encode_pairs(
    pairs: list[tuple[str, str]], delimiters: tuple[Delimiter, str]
) -> tuple[Encoded, Encoded]:
    """Returns the tokens of the sources and of the targets as numbers.

    The pairs are removed from the list, so that text and numbers need not be in memory at once.
    """
    source, target = map(_Side, delimiters)
    while pairs:
        block = pairs[:LINES_AT_ONCE]
        del pairs[:LINES_AT_ONCE]
        source.add([pair[0] for pair in block])
        target.add([pair[1] for pair in block])
    return source.encoded(), target.encoded()


class _Side:
    """Encodes the lines of one side, which come in blocks."""

    def __init__(self, delimiter: Delimiter) -> None:
        self.delimiter = delimiter
        self.columns: list[_Side] = []  # of a side that has several
        if isinstance(delimiter, tuple):
            self.columns = list(map(_Side, delimiter))
        self.number_of: dict[str, int] = {}
        self.numbers, self.offsets = array("i"), array("q", [0])

    def add(self, lines: list[str]) -> None:
        if isinstance(self.delimiter, tuple):
            rows = [line.split("\t") for line in lines]
            for k, column in enumerate(self.columns):
                column.add([row[k] for row in rows])
            return
        if self.delimiter:
            found, ends = _split(lines, self.delimiter, self.number_of)
        else:
            found, ends = _characters(lines, self.number_of)
        self.offsets.frombytes((ends + len(self.numbers)).tobytes())
        self.numbers.frombytes(found.tobytes())

    def encoded(self) -> Encoded:
        import numpy as np

        if self.columns:
            return _together([column.encoded() for column in self.columns])
        numbers = np.frombuffer(self.numbers, np.int32)
        return Encoded(list(self.number_of), numbers, np.frombuffer(self.offsets, np.int64))


def _split(lines: Sequence[str], delimiter: str, number_of: dict[str, int]) -> tuple[Ids, Offsets]:
    """Returns the numbers of the tokens between delimiters, and the end of each line.

    New tokens get numbers in `number_of`.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    split = pc.split_pattern(pa.array(lines, pa.large_string()), delimiter)
    ends = split.offsets.to_numpy().astype(np.int64)
    encoded = split.values.dictionary_encode()
    numbers = []
    for token in encoded.dictionary.to_pylist():
        numbers.append(number_of.setdefault(token, len(number_of)) if token else -1)
    found = np.array(numbers, np.int32)[encoded.indices.to_numpy()]
    if -1 in numbers:  # empty text between delimiters is no token
        is_token = found >= 0
        before = np.concatenate([[0], np.cumsum(is_token)])
        ends = before[ends]
        found = found[is_token]
    return found, ends[1:]


def _characters(lines: Sequence[str], number_of: dict[str, int]) -> tuple[Ids, Offsets]:
    """Returns the numbers of the characters of lines, and the end of each line."""
    import numpy as np

    codes = np.frombuffer("".join(lines).encode("utf-32-le"), np.uint32)
    numbers = np.zeros(CODE_POINTS, np.int32)
    for code in np.bincount(codes, minlength=1).nonzero()[0].tolist():
        numbers[code] = number_of.setdefault(chr(code), len(number_of))
    lengths = np.fromiter(map(len, lines), np.int64, len(lines))
    return numbers[codes], np.cumsum(lengths)


def _together(columns: Sequence[Encoded]) -> Encoded:
    """Returns the sequences of several columns as one; tabs before a token mark its column."""
    import numpy as np

    lengths = [np.diff(column.offsets) for column in columns]
    offsets = np.concatenate([[0], np.cumsum(sum(lengths))])
    numbers = np.empty(offsets[-1], np.int32)
    tokens: list[str] = []
    begins = offsets[:-1].copy()  # where the tokens of the next column begin in each sequence
    for k, column in enumerate(columns):
        moved = np.repeat(begins - column.offsets[:-1], lengths[k])
        numbers[moved + np.arange(len(moved))] = column.numbers + len(tokens)
        tokens += ["\t" * k + token for token in column.tokens]
        begins += lengths[k]
    return Encoded(tokens, numbers, offsets)
