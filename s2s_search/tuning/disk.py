"""The disk space of the checkpoints of a search."""

import random
from collections.abc import Sequence

from s2s_search.corpus.corpus import Corpus
from s2s_search.errors import ConfigError
from s2s_search.hparams.configuration import resolve
from s2s_search.spaces.dimensions import Flat
from s2s_search.spaces.settings import CheckpointSettings
from s2s_search.spaces.space import Space
from s2s_search.training.size import checkpoint_bytes, count_parameters, size_text

# The parameters of at most this number of trials are counted. They stand for all trials.
SAMPLE_SIZE = 300


def sampled_trials(trials: int) -> list[int]:
    """Returns the trials whose parameters are counted: all of them, or a random sample of many."""
    return sorted(random.Random(0).sample(range(trials), min(SAMPLE_SIZE, trials)))


def disk_needed(checkpoint: int, at_once: int, trials: int, space: Space) -> int:
    """Returns the largest number of bytes that the checkpoints of a search take at one time.

    A trial that runs or waits keeps three checkpoints: the best, the newest and the one before it.
    The best trials of the search keep one each.

    Args:
        checkpoint: the bytes of one checkpoint.
        at_once: the number of trials that can run at once.
        trials: the number of all trials.
        space: the search space, with its scheduler and the number of best trials to keep.
    """
    alive = trials if space.scheduler.pauses else min(at_once, trials)
    return checkpoint * (3 * alive + min(space.checkpoints.best, trials))


def check_disk(space: Space, corpus: Corpus, trials: Sequence[Flat], at_once: int) -> None:
    """Raises ConfigError when the checkpoints of a search can take more than checkpoints.disk_gb.

    Args:
        space: the search space.
        corpus: its corpus, which decides the sizes of the vocabularies.
        trials: the configurations of all trials.
        at_once: the number of trials that can run at once.
    """
    if space.checkpoints.disk_gb is None:
        return
    hparams = [resolve(str(trials[k]["model"]), trials[k]) for k in sampled_trials(len(trials))]
    checkpoint = max(checkpoint_bytes(count_parameters(own, corpus), own) for own in hparams)
    needed = disk_needed(checkpoint, at_once, len(trials), space)
    if problems := disk_problems(needed, needed, space.checkpoints):
        raise ConfigError(problems, str(space.path))


def disk_problems(needed: int, free: int, checkpoints: CheckpointSettings) -> list[str]:
    """Returns the problems of checkpoints that need more bytes than are free or allowed."""
    takes, problems = f"the checkpoints can take {size_text(needed)}", list[str]()
    if checkpoints.disk_gb is not None and needed > checkpoints.disk_gb * 1e9:
        hint = f"keep fewer than best = {checkpoints.best}, or raise it"
        problems.append(
            f"checkpoints.disk_gb: {takes}, but disk_gb = {checkpoints.disk_gb:g}; {hint}"
        )
    if needed > free:
        problems.append(f"disk: {takes}, but only {size_text(free)} are free")
    return problems
