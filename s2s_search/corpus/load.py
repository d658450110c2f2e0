"""Loads any corpus, built-in or from files; what takes long is kept encoded in the cache."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

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


def load_corpus(spec: Mapping[str, object]) -> Corpus:
    """Returns the corpus that a specification names.

    A corpus from files is encoded once. The user's cache folder keeps it until the content of the
    files changes.

    Raises:
        ConfigError: with all problems of the specification, or else with those of all files.
    """
    problems = []
    for part, problem in check_corpus(spec):
        problems.append(f"corpus.{part}: {problem}" if part else f"corpus: {problem}")
    if problems:
        raise ConfigError(problems)
    if "name" in spec and spec["name"] != "cmudict":
        return load_toy(spec)  # made in a tenth of a second, which is not worth a file
    key = _key(spec)
    name = str(spec.get("name") or files_of(spec["train"])[0].stem)
    if key and (kept := _kept(key, name)):
        return with_files(kept, spec)
    corpus = load_cmudict() if "name" in spec else load_files(spec, name)
    if key and key == _key(spec):  # otherwise a file has changed while it was read
        _keep(key, corpus)
    return with_files(corpus, spec)


def check_corpus(spec: object, files: bool = True) -> list[tuple[str, str]]:
    """Returns the problems of a specification as pairs of a key and a sentence.

    The corpus is not read. The key "" stands for the whole specification. With `files` False the
    files need not be there.
    """
    if not isinstance(spec, Mapping):
        files_form = "{train: [SOURCE, TARGET], dev: [SOURCE, TARGET]}"
        return [("", f"must be a mapping such as {{name: cmudict}} or {files_form}")]
    name = spec.get("name")
    if "name" in spec and not (isinstance(name, str) and name in BUILT_IN):
        return [("name", f"unknown corpus {shown(name)}{nearest(name, BUILT_IN)}")]
    known = ("name", *BUILT_IN[name]) if name else FILE_KEYS
    problems = [(str(key), f"unknown key{nearest(key, known)}") for key in spec if key not in known]
    if name:
        return [*problems, *toy_problems({**BUILT_IN[name], **spec})]
    return [*problems, *file_problems(spec, files)]


# A new number makes all entries of the cache useless. It is needed whenever the same files give
# other arrays or other warnings than before, in their words, too.
FORMAT = 7


def _key(spec: Mapping[str, Any]) -> str | None:
    """Returns a key made of the content of all files; None where a file is a pipe or missing."""
    files = {key: files_of(spec[key]) for key in (*PARTS, *VOCABS) if files_of(spec.get(key))}
    if not files:
        files = {"name": (cmudict_file(),)}
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
    """Saves a corpus in the cache."""
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
    """Returns the corpus that the cache has under a key, or None."""
    entry = cache.load(key)
    if entry is None:
        return None
    head, arrays = entry
    source_delimiter, target_delimiter = head["delimiters"]
    if isinstance(source_delimiter, list):
        source_delimiter = tuple(source_delimiter)  # one for each column
    source, target = (Vocabulary(tuple(tokens)) for tokens in head["tokens"])
    splits = {part: Split(*arrays[5 * k : 5 * k + 5]) for k, part in enumerate(head["parts"])}
    warnings = []
    for row in head["warnings"]:
        warnings.append(InputWarning(**row | {"key_path": tuple(row["key_path"])}))
    return Corpus(
        name=name,
        source_vocab=source,
        target_vocab=target,
        train=splits["train"],
        dev=splits["dev"],
        test=splits.get("test"),
        delimiters=(source_delimiter, target_delimiter),
        fingerprint=head["fingerprint"],
        warnings=tuple(warnings),
    )
