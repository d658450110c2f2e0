"""A corpus from the user's files: parallel text or TSV for each of train, dev and test."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from s2s_search.corpus.built_in import BUILT_IN
from s2s_search.corpus.columns import columns_of, columns_problems, delimiters_of
from s2s_search.corpus.corpus import PARTS, SIDES, Corpus, make_corpus, not_whole, split_of
from s2s_search.corpus.encoding import encode_pairs
from s2s_search.corpus.held_out import KEY, Pairs, hold_out, hold_out_problems
from s2s_search.corpus.text import (
    Delimiter,
    canonical,
    check_two_sides,
    paired,
    read_texts,
    why_unreadable,
)
from s2s_search.corpus.vocabulary import SPECIALS, Vocabulary
from s2s_search.corpus.warnings import line_warnings, text_warnings, unknown_warnings
from s2s_search.errors import ConfigError, InputWarning, collecting, quantity, shown

VOCABS = tuple(f"{side}_vocab" for side in SIDES)
FILE_KEYS = (
    *PARTS,
    *VOCABS,
    "columns",
    "group_by",
    *(f"{side}_{what}" for what in ("max_vocab", "delimiter") for side in SIDES),
)


def file_problems(spec: Mapping[str, Any], look: bool) -> Iterator[tuple[str, str]]:
    """Yields the problems of a specification of files as pairs of a key and a sentence.

    With `look` False the files need not be there.
    """
    for part in ("train", "dev"):
        if part in spec:
            continue
        hint = f"give train: and dev:, or name: {' | '.join(BUILT_IN)}"
        if "train" in spec:
            hint += "; dev: {hold_out: 0.05} takes a share of the sources of train"
        yield part, f"is missing; {hint}"
    for part in PARTS:
        if part not in spec:
            continue
        if part != "train" and isinstance(spec[part], Mapping):
            for problem in hold_out_problems(spec[part]):
                yield part, problem
            continue
        files = files_of(spec[part])
        if not files:
            yield part, f"must be [SOURCE, TARGET] or one TSV file, but is {shown(spec[part])}"
        if look:
            yield from _unreadable(part, files)
    if "columns" in spec:
        yield from columns_problems(spec)
    if "group_by" in spec and spec["group_by"] != "source":
        yield "group_by", f"must be source, but is {shown(spec['group_by'])}"
    for side in SIDES:
        yield from _side_problems(spec, side, look)


def _unreadable(key: str, files: tuple[Path, ...]) -> Iterator[tuple[str, str]]:
    for file in files:
        for problem in why_unreadable(file):
            yield key, problem


def _side_problems(spec: Mapping[str, Any], side: str, look: bool) -> Iterator[tuple[str, str]]:
    """Yields the problems of the vocabulary and the delimiter of one side."""
    vocab, maximum, delimiter = f"{side}_vocab", f"{side}_max_vocab", f"{side}_delimiter"
    if vocab in spec:
        files = files_of(spec[vocab])
        if len(files) != 1:
            yield vocab, f"must be a file, but is {shown(spec[vocab])}"
        if look:
            yield from _unreadable(vocab, files)
    if maximum in spec:
        for problem in not_whole(spec[maximum], 1):
            yield maximum, problem
        if vocab in spec:
            yield maximum, f"limits a vocabulary built from train, but {vocab} gives one"
    texts = spec.get(delimiter, " ")
    if side == "source" and isinstance(texts, list | tuple):
        columns = spec.get("columns")
        numbers = columns.get("source") if isinstance(columns, Mapping) else None
        count = len(numbers) if isinstance(numbers, list | tuple) else 1
        if len(texts) != count:
            law = "must have a delimiter for each column in columns.source"
            yield delimiter, f"{law}, but has {len(texts)} for {quantity(count, 'column')}"
    else:
        texts = [texts]
    for text in texts:
        if not isinstance(text, str) or "\n" in text or "\r" in text:
            law = "must be text within a line, or empty for characters"
            yield delimiter, f"{law}, but is {shown(text)}"


def files_of(value: object) -> tuple[Path, ...]:
    """Returns the path of a TSV file or those of source and target; () for any other value."""
    paths = value if isinstance(value, list | tuple) and len(value) == 2 else [value]
    if all(isinstance(path, str | Path) and str(path) for path in paths):
        return tuple(map(Path, paths))
    return ()


def held_out_sizes(spec: Mapping[str, Any]) -> dict[str, int | float]:
    """Returns the share or the number of sources of each part that train holds out."""
    return {part: spec[part][KEY] for part in PARTS if isinstance(spec.get(part), Mapping)}


def load_files(spec: Mapping[str, Any], name: str) -> Corpus:
    """Returns the corpus of a specification of files, encoded and with its warnings.

    Raises:
        ConfigError: with the problems of all files, of which every one is read.
    """
    delimiters = delimiters_of(spec)
    columns = columns_of(spec)
    problems: list[str] = []
    texts: dict[str, list[tuple[str, str]]] = {}  # the pairs of each part
    warnings: list[InputWarning] = []
    for part in PARTS:
        files = files_of(spec.get(part))
        if not files:  # the part is held out, or there is none
            continue
        with collecting(problems, f"corpus.{part}: "):
            lines = read_texts(files)
            warnings += line_warnings(part, lines, delimiters)
            if not any("\t" in delimiter for delimiter in delimiters):
                check_two_sides(files, lines)
            if columns is None:
                texts[part] = paired(files, lines)
            else:
                texts[part] = paired(files, lines, columns.source, columns.target)
    sizes = held_out_sizes(spec)
    if sizes and "train" in texts:
        with collecting(problems):
            texts |= hold_out(texts["train"], sizes, delimiters[0])
    group_sizes: dict[str, list[int]] = {}
    if "group_by" in spec:
        for part, pairs in texts.items():
            texts[part], group_sizes[part] = grouped(pairs, delimiters[0])
    vocabs: dict[str, Vocabulary] = {}
    for side, delimiter in zip(SIDES, delimiters, strict=True):
        if f"{side}_vocab" in spec:
            with collecting(problems, f"corpus.{side}_vocab: "):
                vocabs[side] = Vocabulary.load(spec[f"{side}_vocab"], delimiter)
                tokens = [vocabs[side].tokens]
                warnings += line_warnings(f"{side}_vocab", tokens, delimiters)
    if not problems:
        warnings += text_warnings(texts, delimiters, "group_by" in spec)
    encoded = {}
    for part, pairs in texts.items():
        kept = [] if part == "train" else pairs.copy()  # of the text of train nothing is kept
        encoded[part] = encode_pairs(pairs, delimiters)
        pairs += kept
    for k, side in enumerate(SIDES):
        file, counts = spec.get(f"{side}_vocab"), {}
        if "train" in encoded:
            counts = encoded["train"][k].counts()
        with collecting(problems, f"corpus.{side}_vocab: "):
            if not file and "train" in encoded:
                if not counts.keys() - SPECIALS:
                    key_path = _side_file(spec["train"], k)
                    raise ConfigError(f"{key_path}: {_no_token(side, counts, delimiters[k])}")
                vocabs[side] = Vocabulary.from_counts(counts, spec.get(f"{side}_max_vocab"))
            elif side in vocabs and counts and counts.keys().isdisjoint(vocabs[side].tokens):
                raise ConfigError(
                    f"{file}: holds no token of train; "
                    f"is {side}_delimiter right: {delimiters[k]!r}?"
                )
    if problems:
        raise ConfigError(problems)
    both = vocabs["source"], vocabs["target"]
    del texts["train"]
    warnings += list(unknown_warnings(texts, both, delimiters, warnings))
    splits = {}
    for part, (source, target) in encoded.items():
        splits[part] = split_of(source.ids(both[0]), target.ids(both[1]), group_sizes.get(part))
    return replace(make_corpus(name, both, splits, delimiters), warnings=tuple(warnings))


def grouped(pairs: Pairs, delimiter: Delimiter) -> tuple[Pairs, list[int]]:
    """Returns the pairs with those of one source together, and the number of each source.

    Sources are in the order of their first lines, and the pairs of a source in that of the file.
    Sources are equal when they have the same tokens.
    """
    groups: dict[str, Pairs] = {}
    for pair in pairs:
        groups.setdefault(canonical(pair[0], delimiter), []).append(pair)
    return [pair for group in groups.values() for pair in group], [*map(len, groups.values())]


def with_files(corpus: Corpus, spec: Mapping[str, Any]) -> Corpus:
    """Returns the corpus with the paths of its files in its warnings."""
    warnings = []
    for warning in corpus.warnings:
        key = warning.key_path[1]
        if not files_of(spec.get(key)) or key not in (*PARTS, *VOCABS):
            key = "train"
        warnings.append(replace(warning, file=str(_side_file(spec[key], warning.side))))
    return replace(corpus, warnings=tuple(warnings))


def _side_file(value: object, k: int) -> Path:
    """Returns the file that holds the sources (0) or targets (1) of a part."""
    files = files_of(value)
    return files[k % len(files)]


def _no_token(side: str, counts: Mapping[str, int], delimiter: Delimiter) -> str:
    """Returns why a vocabulary cannot be built from train."""
    if not counts:
        return f"train has no {side} token; is {side}_delimiter right: {delimiter!r}?"
    names = ", ".join(sorted(counts))
    return f"train has no {side} token but {names}, the name of a special token"
