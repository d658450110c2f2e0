"""The disk space that the checkpoints of a search take."""

import random
from collections.abc import Sequence

from s2s_search.corpus.corpus import Corpus
from s2s_search.errors import ConfigError
from s2s_search.hparams.configuration import resolve
from s2s_search.spaces.dimensions import Flat
from s2s_search.spaces.settings import CheckpointSettings
from s2s_search.spaces.space import Space
from s2s_search.training.size import checkpoint_bytes, count_parameters, size_text

COUNTED = 300  # trials at most whose parameters are counted: a model takes milliseconds


# Parameters


def sample(trials: int) -> list[int]:
    """The trials that are counted: all, or where there are many a part that stands for all."""
    return sorted(random.Random(0).sample(range(trials), min(COUNTED, trials)))


# Disk and room


def disk_needed(checkpoint: int, at_once: int, trials: int, space: Space) -> int:
    """The bytes of all checkpoints that a search keeps at a time, each of `checkpoint` bytes.

    A trial that runs or waits keeps its best, its newest and the one before; the best of the search keep one each.
    """
    alive = trials if space.scheduler.pauses else min(at_once, trials)
    return checkpoint * (3 * alive + min(space.checkpoints.best, trials))


def check_disk(space: Space, corpus: Corpus, trials: Sequence[Flat], at_once: int) -> None:
    """Raises ConfigError when the checkpoints of a search can take more than checkpoints.disk_gb.

    `at_once` is how many trials can run at once.
    """
    if space.checkpoints.disk_gb is None:
        return
    hparams = [resolve(str(trials[k]["model"]), trials[k]) for k in sample(len(trials))]
    checkpoint = max(
        checkpoint_bytes(count_parameters(own, corpus), own["optimizer.name"]) for own in hparams
    )
    needed = disk_needed(checkpoint, at_once, len(trials), space)
    if problems := disk_problems(needed, needed, space.checkpoints):
        raise ConfigError(problems, str(space.path))


def disk_problems(needed: int, free: int, checkpoints: CheckpointSettings) -> list[str]:
    """Says what is wrong when the checkpoints need more bytes than are free or allowed."""
    takes, problems = f"the checkpoints can take {size_text(needed)}", list[str]()
    if checkpoints.disk_gb is not None and needed > checkpoints.disk_gb * 1e9:
        hint = f"keep fewer than best = {checkpoints.best}, or raise it"
        problems.append(
            f"checkpoints.disk_gb: {takes}, but disk_gb = {checkpoints.disk_gb:g}; {hint}"
        )
    if needed > free:
        problems.append(f"disk: {takes}, but only {size_text(free)} are free")
    return problems
