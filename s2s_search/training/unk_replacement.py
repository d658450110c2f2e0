"""What stands in an answer in the place of UNK: the source token that the model attended to most.

This is the `unk_replace` of google/seq2seq, after Luong et al. (2015), "Addressing the Rare Word
Problem in Neural Machine Translation".
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from s2s_search.corpus.text import Delimiter, read_lines, shortened, tokenize
from s2s_search.corpus.vocabulary import SPECIALS
from s2s_search.errors import ConfigError, shown

UNK = SPECIALS[0]
Weights = npt.NDArray[np.float32]
Replacements = Mapping[str, Sequence[str]]  # a source token -> the target tokens in its place


def without_unk(
    answer: Sequence[str],
    source: Sequence[str],
    weights: Weights,
    replacements: Replacements | None = None,
) -> list[str]:
    """Returns an answer in which the source token with the highest weight replaces each UNK.

    The end of the source does not count. Where the source has no token, UNK stays.

    Args:
        answer: T tokens.
        source: S tokens.
        weights: attention weights, [T + 1, S + 1], with a row and a column for END.
        replacements: what replaces UNK in place of some source tokens.
    """
    tokens = []
    for token, row in zip(answer, weights, strict=False):
        if token != UNK or not source:
            tokens.append(token)
            continue
        chosen = source[int(row[: len(source)].argmax())]
        tokens.extend((replacements or {}).get(chosen, (chosen,)))
    return tokens


def load_replacements(path: Path, delimiters: tuple[Delimiter, str]) -> Replacements:
    """Returns the replacements of a file: lines of a source token, a tab and target tokens.

    A source of several columns may have the token in any of them.

    Args:
        path: the file.
        delimiters: what separates the tokens of source and target.

    Raises:
        ConfigError: with all lines that are wrong.
    """
    columns = delimiters[0] if isinstance(delimiters[0], tuple) else (delimiters[0],)
    found: dict[str, list[str]] = {}
    first: dict[str, int] = {}
    problems = []
    for number, line in enumerate(read_lines(path), start=1):
        if not line:
            continue
        source, _, target = line.partition("\t")
        split = [tokenize(source, own) for own in columns]
        tokens = next((tokens for tokens in split if len(tokens) == 1), [])
        if line.count("\t") != 1 or len(tokens) != 1:
            law = "must be a source token, one tab and what replaces it"
            problems.append((number, f"{law}, but is {shown(line)}"))
        elif tokens[0] in first:
            there = f"is in line {first[tokens[0]]} already"
            problems.append((number, f"{shown(tokens[0])} {there}"))
        else:
            first[tokens[0]] = number
            found[tokens[0]] = tokenize(target, delimiters[1])
    if problems:
        raise ConfigError(shortened(problems, path))
    return found
