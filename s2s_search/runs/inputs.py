"""The inputs of a past search, its space and its corpus, as its run folder describes them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from s2s_search.corpus.corpus import Corpus
from s2s_search.corpus.load import load_corpus
from s2s_search.errors import ConfigError
from s2s_search.runs.folder import SPACE
from s2s_search.runs.state import History
from s2s_search.spaces.load import load_space
from s2s_search.spaces.space import Space


def space_of(history: History, folder: Path, corpus: Mapping[str, object] | None = None) -> Space:
    """Returns the search space of a run folder.

    Relative paths of the corpus start from the folder of the original space file. The files of the
    corpus need not be there. `corpus` says where they lie now. Entries that it leaves out, such as
    delimiters, are as the search had them. What a warm start runs first is in `first`. A search of
    replicates has the space of the original search, changed by `of_replicates`.
    """
    home = Path(history.search.get("space") or folder / SPACE).parent
    space = replace(load_space(folder / SPACE, home, files=False), name=history.search["name"])
    space = replace(space, first=(*space.first, *history.search.get("warm_start_first", ())))
    if corpus is not None:
        space = replace(space, corpus=moved(space.corpus, corpus))
    if "configs" in history.search:
        return of_replicates(space, history.search["configs"])
    return space


def of_replicates(space: Space, configs: Sequence[object]) -> Space:
    """Returns the space of a search of replicates.

    No scheduler stops a replicate, and no limit of its time. The weights of all of them are kept:
    an evaluation of the best seeds alone would be too good.
    """
    return replace(
        space,
        search=replace(space.search, trial_hours=None),
        scheduler=replace(space.scheduler, name="none", interval_steps=None),
        checkpoints=replace(space.checkpoints, best=max(space.checkpoints.best, len(configs))),
    )


def moved(spec: Mapping[str, Any], corpus: Mapping[str, object]) -> dict[str, Any]:
    """Returns the specification of a corpus that lies in a new place.

    Entries that the new one leaves out, such as delimiters, are as they were.
    """
    is_same_kind = "name" not in corpus and "name" not in spec
    return {**spec, **corpus} if is_same_kind else dict(corpus)


def corpus_of(space: Space, fingerprint: str | None, folder: Path) -> Corpus:
    """Returns the corpus of a past search, which must have this fingerprint.

    With None for the fingerprint, it returns the corpus as it is now.

    Raises:
        ConfigError: the corpus cannot be read where the space says, or has another fingerprint.
    """
    return recorded_corpus(space.corpus, fingerprint, folder)


def recorded_corpus(spec: Mapping[str, Any], fingerprint: str | None, folder: Path) -> Corpus:
    """Returns what `corpus_of` returns, for the specification of a corpus."""
    moved = (
        "where it lies now is said by --corpus, as a mapping {train: ..., dev: ...} or the file "
        "of a search space"
    )
    try:
        corpus = load_corpus(spec)
    except ConfigError as error:
        hint = [] if "name" in spec else [moved]
        raise ConfigError([*error.problems, *hint], str(folder)) from None
    if fingerprint is not None and corpus.fingerprint != fingerprint:
        now = (
            f"its fingerprint was {fingerprint[:12] or 'not recorded'} and is "
            f"{corpus.fingerprint[:12]}"
        )
        law = (
            "the corpus is not the one that the search was made with, so that numbers would not "
            "compare"
        )
        raise ConfigError(f"{law}: {now}", str(folder))
    return corpus
