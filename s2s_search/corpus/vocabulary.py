"""Vocabularies: the ids of tokens, from a file or by counting."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from s2s_search.corpus.text import Delimiter, line_prefix, read_lines, shortened, tokenize
from s2s_search.errors import ConfigError, shown

# The special tokens. Their ids follow those of the vocabulary, in this order.
SPECIALS = ("UNK", "SEQUENCE_START", "SEQUENCE_END")
# A token, a tab and a number.
COUNTED_TOKEN = re.compile(r"(.*)\t[+-]?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?", re.DOTALL)
SPACED_COUNT = re.compile(r"\S+ +[0-9]+")  # a token and its count as other toolkits write them


@dataclass(frozen=True)
class Vocabulary:
    """V tokens with the ids 0 .. V-1.

    UNK = V, SEQUENCE_START = V+1 and SEQUENCE_END = V+2 follow. `len` counts the special tokens,
    too.

    Raises:
        ConfigError: there is no token, or a token is blank, repeated or special. The first token is
            line 1.
    """

    tokens: tuple[str, ...]

    def __post_init__(self) -> None:
        if problems := token_problems(self.tokens):
            raise ConfigError([f"{line_prefix([line])}{sentence}" for line, sentence in problems])

    def __len__(self) -> int:
        return len(self.tokens) + len(SPECIALS)

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {token: i for i, token in enumerate(self.tokens)}

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
        """Returns the ids of the tokens: UNK for an unknown token, without START and END."""
        ids, unk = self._ids, self.unk
        return [ids.get(token, unk) for token in tokens]

    def decode(self, ids: Iterable[int]) -> list[str]:
        """Returns the tokens of the ids up to the first SEQUENCE_END, special ones by name."""
        tokens = []
        for i in ids:
            if i == self.end:
                break
            tokens.append(self.tokens[i] if i < self.unk else SPECIALS[i - self.unk])
        return tokens

    @classmethod
    def load(cls, path: str | Path, delimiter: Delimiter = " ") -> Vocabulary:
        """Returns the vocabulary of a file with one token per line.

        The id of a token is the number of its line, from 0. A tab and a count may follow a token.

        Args:
            path: the file.
            delimiter: the delimiter of the text, by which a token of the file could never be split
                off.

        Raises:
            ConfigError: with all problems of the file.
        """
        split = f"split at {delimiter!r}" if delimiter else "split into characters"
        tokens, problems = list[str](), list[tuple[int, str]]()
        for number, line in enumerate(read_lines(path), start=1):
            counted = COUNTED_TOKEN.fullmatch(line)
            token = counted[1] if counted else line
            tokens.append(token)
            if "\t" in token and len(token) > 1:
                law = "must be a token, or a token, a tab and a count"
                problems.append((number, f"{law}, but is {shown(line)}"))
            elif token and tokenize(token, delimiter) != [token]:
                problem = f"{shown(token)} would never be a token of text {split}"
                if SPACED_COUNT.fullmatch(token):
                    problem += "; a count follows a tab"
                problems.append((number, problem))
        problems += token_problems(tokens)
        if problems:
            raise ConfigError(shortened(problems, path))
        return cls(tuple(tokens))

    @classmethod
    def from_counts(cls, counts: Mapping[str, int], maximum: int | None = None) -> Vocabulary:
        """Returns the vocabulary of the `maximum` most frequent tokens; None keeps all tokens.

        Tokens of equal frequency are in the order of the alphabet.
        """
        ranked = sorted(counts.keys() - SPECIALS, key=lambda token: (-counts[token], token))
        return cls(tuple(ranked[:maximum]))


def token_problems(tokens: Sequence[str]) -> list[tuple[int, str]]:
    """Returns pairs of a line, from 1, and what is wrong there; line 0 is the whole file."""
    if not tokens:
        return [(0, "there is no token")]
    problems = []
    first: dict[str, int] = {}
    for line, token in enumerate(tokens, start=1):
        first.setdefault(token, line)
        if not token:
            problems.append((line, "blank token"))
        elif token in SPECIALS:
            problem = f"{token} is a special token; the special tokens are added automatically"
            problems.append((line, problem))
        elif first[token] != line:
            problems.append((line, f"{shown(token)} is in line {first[token]} already"))
    return problems
