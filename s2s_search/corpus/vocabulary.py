"""Vocabularies: the numbers of tokens, from a file or by counting."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from s2s_search.corpus.text import place_of, read_lines, shortened, tokenize
from s2s_search.errors import ConfigError, shown

SPECIALS = (
    "UNK",
    "SEQUENCE_START",
    "SEQUENCE_END",
)  # their ids follow the vocabulary's, in this order
COUNTED = re.compile(
    r"(.*)\t[+-]?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?", re.DOTALL
)  # a token, a tab and a number
SPACED_COUNT = re.compile(r"\S+ +[0-9]+")  # as other toolkits write a token and its count


@dataclass(frozen=True)
class Vocabulary:
    """Numbers V tokens 0 .. V-1; UNK = V, SEQUENCE_START = V+1 and SEQUENCE_END = V+2 follow, and count in `len`.

    Raises ConfigError for blank, repeated and special tokens and for none at all; the first token is line 1.
    """

    tokens: tuple[str, ...]

    def __post_init__(self) -> None:
        if problems := token_problems(self.tokens):
            raise ConfigError([f"{place_of([line])}{sentence}" for line, sentence in problems])

    def __len__(self) -> int:
        return len(self.tokens) + len(SPECIALS)

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {
            self.tokens[i]: i for i in reversed(range(len(self.tokens)))
        }  # the first of two duplicates wins

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
        """Reads one token a line; its id is the number of the line, from 0. A tab and a count may follow a token.

        `delimiter` is the text's: a token that it could never split off raises ConfigError.
        """
        never = "would never be a token of text " + (
            f"split at {delimiter!r}" if delimiter else "split into characters"
        )
        tokens, problems = list[str](), list[tuple[int, str]]()
        for number, line in enumerate(read_lines(path), start=1):
            counted = COUNTED.fullmatch(line)
            token = counted[1] if counted else line
            tokens.append(token)
            if "\t" in token and len(token) > 1:
                problems.append(
                    (
                        number,
                        f"must be a token, or a token, a tab and a count, but is {shown(line)}",
                    )
                )
            elif token and tokenize(token, delimiter) != [token]:
                hint = "; a count follows a tab" if SPACED_COUNT.fullmatch(token) else ""
                problems.append((number, f"{shown(token)} {never}{hint}"))
        problems += token_problems(tokens)
        if problems:
            raise ConfigError(shortened(problems, path))
        return cls(tuple(tokens))

    @classmethod
    def from_counts(cls, counts: Mapping[str, int], maximum: int | None = None) -> Vocabulary:
        """Ranks tokens by frequency, then by alphabet, and keeps the first `maximum`, or all."""
        ranked = sorted(counts.keys() - SPECIALS, key=lambda token: (-counts[token], token))
        return cls(tuple(ranked[:maximum]))


def token_problems(tokens: Sequence[str]) -> list[tuple[int, str]]:
    """Returns what is wrong with a vocabulary's tokens, each with its line from 1, or line 0 for the whole."""
    problems = [] if tokens else [(0, "there is no token")]
    first: dict[str, int] = {}
    for line, token in enumerate(tokens, start=1):
        first.setdefault(token, line)
        if not token:
            problems.append((line, "blank token"))
        elif token in SPECIALS:
            problems.append(
                (line, f"{token} is a special token; these follow the others by themselves")
            )
        elif first[token] != line:
            problems.append((line, f"{shown(token)} is in line {first[token]} already"))
    return problems
