"""Corpora: parallel text as flat arrays of ids, with the vocabularies that give the ids.

A corpus comes from the user's files, parallel text or TSV, or is built in: `cmudict`, English words
and their pronunciations, and the toy tasks `copy` and `reverse`. docs/corpora.md describes them
all.

numpy is imported inside the functions that make arrays, so that the check of a search space does
not wait for it.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from s2s_search.corpus.text import Delimiter
from s2s_search.corpus.vocabulary import Vocabulary
from s2s_search.errors import InputWarning, shown

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Ids = npt.NDArray[np.int32]
    Offsets = npt.NDArray[np.int64]

PARTS = ("train", "dev", "test")
SIDES = ("source", "target")


@dataclass(frozen=True, eq=False)
class Split:
    """N pairs of sequences without special ids, as flat read-only arrays.

    Sequence i is `tokens[offsets[i]:offsets[i + 1]]`. A group is one source with all its
    references: group g holds the pairs from `groups[g]` up to `groups[g + 1]`.
    """

    source_tokens: Ids  # [number of source tokens] int32
    source_offsets: Offsets  # [N + 1] int64
    target_tokens: Ids  # [number of target tokens] int32
    target_offsets: Offsets  # [N + 1] int64
    groups: Offsets  # [G + 1] int64

    def __len__(self) -> int:
        return len(self.source_offsets) - 1

    def source(self, i: int) -> Ids:
        return self.source_tokens[self.source_offsets[i] : self.source_offsets[i + 1]]

    def target(self, i: int) -> Ids:
        return self.target_tokens[self.target_offsets[i] : self.target_offsets[i + 1]]


@dataclass(frozen=True, eq=False)
class Corpus:
    """Pairs to train on, to compare models on (dev), and perhaps to test the best model on."""

    name: str
    source_vocab: Vocabulary
    target_vocab: Vocabulary
    train: Split
    dev: Split
    test: Split | None
    # Between tokens of source and target text; "" stands for characters.
    delimiters: tuple[Delimiter, str]
    fingerprint: str  # the SHA-256 of everything but the name and the warnings
    warnings: tuple[InputWarning, ...] = ()  # what in the text is probably a mistake


Sequences = Iterable[Iterable[str]]
Vocabularies = tuple[Vocabulary, Vocabulary]


def make_split(
    sources: Sequences,
    targets: Sequences,
    vocabs: Vocabularies,
    group_sizes: Iterable[int] | None = None,
) -> Split:
    """Returns the encoded pairs of one part of a corpus.

    Args:
        sources: the tokens of each source.
        targets: the tokens of each target.
        vocabs: the vocabularies of sources and targets.
        group_sizes: the number of pairs of each group. Without it, every pair is a group of its
            own.
    """
    return split_of(_encode(sources, vocabs[0]), _encode(targets, vocabs[1]), group_sizes)


def split_of(
    source: tuple[Ids, Offsets],
    target: tuple[Ids, Offsets],
    group_sizes: Iterable[int] | None = None,
) -> Split:
    """Returns the pairs of one part of a corpus from the ids and the offsets of both sides."""
    import numpy as np

    if group_sizes is None:
        groups = np.arange(len(source[1]), dtype=np.int64)
    else:
        groups = np.cumsum([0, *group_sizes], dtype=np.int64)
    for values in (*source, *target, groups):
        values.flags.writeable = False  # as Ray makes arrays that processes share
    return Split(*source, *target, groups)


def _encode(sequences: Sequences, vocab: Vocabulary) -> tuple[Ids, Offsets]:
    """Returns the ids of N sequences one after the other, and their N + 1 offsets."""
    import numpy as np

    tokens, offsets = array("i"), array("q", [0])
    for sequence in sequences:
        tokens.fromlist(vocab.encode(sequence))
        offsets.append(len(tokens))
    return np.array(tokens, np.int32), np.array(offsets, np.int64)


def make_corpus(
    name: str,
    vocabs: Vocabularies,
    splits: Mapping[str, Split],
    delimiters: tuple[Delimiter, str],
) -> Corpus:
    """Returns the corpus of these splits, with its fingerprint.

    Args:
        name: the name of the corpus.
        vocabs: the vocabularies of sources and targets.
        splits: the splits by the names of their parts; train and dev must be among them.
        delimiters: the delimiters between tokens of source and target text.
    """
    digest = sha256(repr((vocabs[0].tokens, vocabs[1].tokens, delimiters)).encode())
    for part, split in splits.items():
        for field, values in vars(split).items():
            digest.update(f"{part}.{field} {len(values)}".encode())
            digest.update(values)
    train, dev, test = splits["train"], splits["dev"], splits.get("test")
    return Corpus(name, *vocabs, train, dev, test, delimiters, digest.hexdigest())


def not_whole(value: object, minimum: int) -> list[str]:
    """Returns a list of one sentence when a value is no whole number of at least `minimum`."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= minimum:
        return []
    return [f"must be a whole number of at least {minimum}, but is {shown(value)}"]
