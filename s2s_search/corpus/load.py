"""Loads a corpus: a built-in one or one from files, kept encoded in the cache."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from hashlib import file_digest, sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s2s_search.corpus import cache
from s2s_search.corpus.built_in import BUILT_IN, cmudict_file, load_cmudict, load_toy, toy_problems
from s2s_search.corpus.corpus import PARTS, Corpus, Split
from s2s_search.corpus.files import (
    FILE_KEYS,
    VOCABS,
    file_problems,
    files_of,
    load_files,
    with_files,
)
from s2s_search.corpus.vocabulary import Vocabulary
from s2s_search.errors import ConfigError, InputWarning, nearest, shown

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Ids = npt.NDArray[np.int32]
    Offsets = npt.NDArray[np.int64]


def load_corpus(spec: Mapping[str, object]) -> Corpus:
    """Loads what the specification names; raises ConfigError with all problems of it, or else of all its files.

    What comes from files is encoded once, and kept in the user's cache folder for as long as their content is the same.
    """
    if found := check_corpus(spec):
        raise ConfigError(
            [f"corpus.{key}: {problem}" if key else f"corpus: {problem}" for key, problem in found]
        )
    if "name" in spec and spec["name"] != "cmudict":
        return load_toy(spec)  # a tenth of a second's work leaves no file behind
    key = _key(spec)
    name = str(spec.get("name") or files_of(spec["train"])[0].stem)
    if key and (kept := _kept(key, name)):
        return with_files(kept, spec)
    corpus = load_cmudict() if "name" in spec else load_files(spec, name)
    if key and key == _key(spec):  # no file has changed while it was read
        _keep(key, corpus)
    return with_files(corpus, spec)


def check_corpus(spec: object, files: bool = True) -> list[tuple[str, str]]:
    """Returns the problems of a specification as (key, problem), without reading the corpus; key "" is the whole.

    With `files` False it does not matter whether its files are there.
    """
    if not isinstance(spec, Mapping):
        return [
            (
                "",
                "must be a mapping such as {name: cmudict} or {train: [SOURCE, TARGET], dev: [SOURCE, TARGET]}",
            )
        ]
    name = spec.get("name")
    if "name" in spec and not (isinstance(name, str) and name in BUILT_IN):
        return [("name", f"unknown corpus {shown(name)}{nearest(name, BUILT_IN)}")]
    known = ("name", *BUILT_IN[name]) if name else FILE_KEYS
    problems = [(str(key), f"unknown key{nearest(key, known)}") for key in spec if key not in known]
    return problems + (
        toy_problems({**BUILT_IN[name], **spec}) if name else file_problems(spec, files)
    )


# Kept between runs (cache.py)

FORMAT = (
    4  # of what is kept: another number when the same files are to give other arrays or warnings
)


def _key(spec: Mapping[str, Any]) -> str | None:
    """Names a specification by its files' content; None where a file cannot be read twice."""
    files = {key: files_of(spec[key]) for key in (*PARTS, *VOCABS) if key in spec} or {
        "name": (cmudict_file(),)
    }
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
    warnings = tuple(
        InputWarning(**found | {"place": tuple(found["place"])}) for found in head["warnings"]
    )
    return Corpus(
        name,
        source,
        target,
        train,
        dev,
        test,
        tuple(head["delimiters"]),
        head["fingerprint"],
        warnings,
    )
