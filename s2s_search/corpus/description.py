"""What a corpus is: sizes, lengths, vocabularies, unknown tokens, repeated pairs and examples.

Sequences are compared as a model reads them: by their ids, so that all unknown tokens are equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from s2s_search.corpus.corpus import PARTS, SIDES, Corpus, Split

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from s2s_search.corpus.text import Delimiter
    from s2s_search.corpus.vocabulary import Vocabulary

EXAMPLES = 10  # the number of examples
MOST_FREQUENT = 10  # the number of tokens that are named
SPECIAL_TOKENS = {"source": 1, "target": 2}  # of a sequence: END, and START and END


@dataclass(frozen=True)
class SideOfPart:
    """The sequences of one side of a part; lengths are without special tokens."""

    tokens: int
    unknown: int  # the number of unknown tokens
    empty: int  # the number of sequences without a token
    median: int  # the lengths of which half, and 99 in 100 of the sequences are at most
    most: int
    longest: int
    cut: int  # the number of sequences longer than max_seq_len, special tokens included


@dataclass(frozen=True)
class Part:
    """What is in train, dev or test."""

    pairs: int
    groups: int
    sources: int  # the number of different sources
    repeated: int  # the number of pairs that an earlier line of the part has, too
    shared: Mapping[str, int]  # the number of sources that each earlier part has, too
    sides: Mapping[str, SideOfPart]


@dataclass(frozen=True)
class VocabularyUse:
    """A vocabulary, and how often train has its tokens."""

    size: int  # without special tokens
    once: int  # the number of tokens that train has once
    unused: int  # the number of tokens that train lacks
    most_frequent: list[tuple[str, int]]  # tokens and their counts


@dataclass(frozen=True)
class Description:
    """What a corpus is. Examples are the source and target tokens of pairs of train."""

    name: str
    delimiters: tuple[Delimiter, str]
    limits: Mapping[str, int]
    parts: Mapping[str, Part]
    vocabularies: Mapping[str, VocabularyUse]
    examples: list[tuple[list[str], list[str]]]


def describe(corpus: Corpus, limits: Mapping[str, int]) -> Description:
    """Returns what a corpus is.

    Args:
        corpus: the corpus.
        limits: the max_seq_len of each side, special tokens included.
    """
    vocabs = {"source": corpus.source_vocab, "target": corpus.target_vocab}
    sources: dict[str, set[bytes]] = {}
    parts = {}
    for part in PARTS:
        split: Split | None = getattr(corpus, part)
        if split is None:
            continue
        rows = sequences(split.source_tokens, split.source_offsets)
        sources[part] = set(rows)
        shared = {other: len(sources[part] & sources[other]) for other in sources if other != part}
        parts[part] = Part(
            pairs=len(split),
            groups=len(split.groups) - 1,
            sources=len(sources[part]),
            repeated=len(split) - _different_pairs(rows, split),
            shared=shared,
            sides={side: _side(split, side, vocabs[side], limits[side]) for side in SIDES},
        )
    uses = {
        "source": _use(corpus.train.source_tokens, corpus.source_vocab),
        "target": _use(corpus.train.target_tokens, corpus.target_vocab),
    }
    return Description(corpus.name, corpus.delimiters, limits, parts, uses, list(_examples(corpus)))


def sequences(tokens: npt.NDArray[np.int32], offsets: npt.NDArray[np.int64]) -> list[bytes]:
    """Returns the ids of each sequence as bytes, which are quickly compared."""
    data, size = tokens.tobytes(), tokens.itemsize
    bounds = (offsets * size).tolist()
    return [data[begin:end] for begin, end in pairwise(bounds)]


def _different_pairs(sources: list[bytes], split: Split) -> int:
    """Returns the number of pairs that differ, from the sources and the targets of a part."""
    import numpy as np

    numbers = []
    for rows in (sources, sequences(split.target_tokens, split.target_offsets)):
        first: dict[bytes, int] = {}
        numbers.append(np.array([first.setdefault(row, len(first)) for row in rows], np.int64))
    return len(np.unique(numbers[0] * len(split) + numbers[1]))


def _side(split: Split, side: str, vocab: Vocabulary, limit: int) -> SideOfPart:
    import numpy as np

    if side == "source":
        tokens, offsets = split.source_tokens, split.source_offsets
    else:
        tokens, offsets = split.target_tokens, split.target_offsets
    lengths = np.diff(offsets)
    median, most = np.quantile(lengths, [0.5, 0.99], method="higher").tolist()
    return SideOfPart(
        tokens=len(tokens),
        unknown=int((tokens == vocab.unk).sum()),
        empty=int((lengths == 0).sum()),
        median=int(median),
        most=int(most),
        longest=int(lengths.max()),
        cut=int((lengths + SPECIAL_TOKENS[side] > limit).sum()),
    )


def _use(tokens: npt.NDArray[np.int32], vocab: Vocabulary) -> VocabularyUse:
    import numpy as np

    counts = np.bincount(tokens, minlength=len(vocab))[: vocab.unk]
    order = np.argsort(-counts, kind="stable")[:MOST_FREQUENT]
    return VocabularyUse(
        size=len(vocab.tokens),
        once=int((counts == 1).sum()),
        unused=int((counts == 0).sum()),
        most_frequent=[(vocab.tokens[i], int(counts[i])) for i in order],
    )


def _examples(corpus: Corpus) -> list[tuple[list[str], list[str]]]:
    """Returns pairs of train from its first to its last, at equal distances."""
    number = min(EXAMPLES, len(corpus.train))
    examples = []
    for k in range(number):
        i = k * (len(corpus.train) - 1) // max(number - 1, 1)
        source = corpus.source_vocab.decode(corpus.train.source(i))
        examples.append((source, corpus.target_vocab.decode(corpus.train.target(i))))
    return examples
