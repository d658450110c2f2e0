"""Vocabularies: the numbers of tokens, from a file or by counting."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from s2s_search.table import ConfigError
from s2s_search.text_files import collecting, read_lines, shortened, tokenize

SPECIALS = ("UNK", "SEQUENCE_START", "SEQUENCE_END")  # their ids follow the vocabulary's, in this order


@dataclass(frozen=True)
class Vocabulary:
    """Numbers V tokens 0 .. V-1; UNK = V, SEQUENCE_START = V+1 and SEQUENCE_END = V+2 follow, and count in `len`.

    Raises ConfigError for blank, repeated and special tokens and for none at all; the first token is line 1.
    """

    tokens: tuple[str, ...]

    def __post_init__(self) -> None:
        problems = [] if self.tokens else ["there is no token"]
        for line, token in enumerate(self.tokens, start=1):
            if not token:
                problems.append(f"line {line}: blank token")
            elif token in SPECIALS:
                problems.append(f"line {line}: {token} is a special token; these follow the others by themselves")
            elif self._ids[token] != line - 1:
                problems.append(f"line {line}: {token!r} is in line {self._ids[token] + 1} already")
        if problems:
            raise ConfigError(problems)

    def __len__(self) -> int:
        return len(self.tokens) + len(SPECIALS)

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {self.tokens[i]: i for i in reversed(range(len(self.tokens)))}  # the first of two duplicates wins

    @property
    def unk(self) -> int:
        return len(self.tokens)

    @property
    def start(self) -> int:
        return len(self.tokens) + 1

    @property
    def end(self) -> int:
        return len(self.tokens) + 2

    def encode(self, tokens: Iterable[str]) -> list[int]:
        """Returns the ids of the tokens: UNK for an unknown one, no START and no END."""
        ids, unk = self._ids, self.unk
        return [ids.get(token, unk) for token in tokens]

    def decode(self, ids: Iterable[int]) -> list[str]:
        """Returns the tokens of the ids up to the first SEQUENCE_END; special ids appear by their names."""
        tokens = []
        for i in ids:
            if i == self.end:
                break
            tokens.append(self.tokens[i] if i < self.unk else SPECIALS[i - self.unk])
        return tokens

    @classmethod
    def load(cls, path: str | Path, delimiter: str = " ") -> Vocabulary:
        """Reads one token a line; its id is the number of the line, from 0. A tab and a count may follow every token.

        `delimiter` is the text's: a token that it could never split off raises ConfigError.
        """
        tokens = read_lines(path)
        if tokens and len(tokens[0].split("\t")) == 2:  # the first line tells, as in the original
            tokens = [line.rpartition("\t")[0] for line in tokens]
        law = "would never be a token of text " + (f"split at {delimiter!r}" if delimiter else "split into characters")
        misfits = [n for n, token in enumerate(tokens, start=1) if token and tokenize(token, delimiter) != [token]]
        problems = [f"line {n}: {tokens[n - 1]!r} {law}" for n in misfits]
        with collecting(problems):
            vocab = cls(tuple(tokens))
        if problems:
            raise ConfigError(shortened(problems, path))
        return vocab

    @classmethod
    def from_counts(cls, counts: Mapping[str, int], maximum: int | None = None) -> Vocabulary:
        """Ranks tokens by frequency, then by alphabet, and keeps the first `maximum`, or all."""
        ranked = sorted(counts.keys() - SPECIALS, key=lambda token: (-counts[token], token))
        return cls(tuple(ranked[:maximum]))
