"""What a model costs here: its parameters, the bytes of its checkpoint, and what a few steps of it take.

torch is imported inside the functions that make models, so that the rest does not wait for it.
"""

import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from pathlib import Path
from statistics import mean, median
from threading import BrokenBarrierError
from typing import TYPE_CHECKING, NamedTuple

from s2s_search.corpus.corpus import Corpus
from s2s_search.corpus.load import load_corpus
from s2s_search.errors import ConfigError
from s2s_search.hparams.configuration import Hparams, resolve
from s2s_search.runs.failures import status_of
from s2s_search.runs.folder import trial_name
from s2s_search.spaces.settings import Resources
from s2s_search.statuses import OUT_OF_MEMORY
from s2s_search.training.footprint import lengths, memory_problem, row_cells

if TYPE_CHECKING:
    import torch

    from s2s_search.training.trial import Trial


PROBE_SECONDS = 30.0  # of all probes together
WARM_UP, TIMED = 3, 100  # steps of a probe, the latter at most
TRIED = 200  # sources that an evaluation is first tried on


@dataclass(frozen=True)
class Probe:
    """What a few steps of a trial took on a device here, on average over the processes that made them.

    at_once: the number of processes that did this at the same time, as a search does · memory_bytes: at the peak, with
    the largest batches of training and evaluation; on the CPU of the whole process; None: not known
    """

    trial: int
    device: str
    step_seconds: float
    evaluation_seconds: float
    memory_bytes: int | None
    at_once: int = 1


def run_probes(
    chosen: Mapping[int, Hparams],
    parameters: Mapping[int, int],
    corpus: Corpus,
    spec: Mapping[str, object],
    resources: Resources,
    at_once: int,
) -> Iterator[Probe]:
    """Probes trials one after the other, each in `at_once` processes that share this machine as in a search.

    spec: what names the corpus, which each process loads for itself.

    Raises:
        ConfigError: memory is too small; before the first is trained, where that is certain.
    """
    import torch

    device = torch.device("cuda" if resources.gpu and torch.cuda.is_available() else "cpu")
    problems = []
    for trial, hparams in chosen.items():
        sharing = resources.sharing if device.type == "cuda" else at_once
        if problem := memory_problem(hparams, corpus, parameters[trial], device, sharing):
            problems.append(f"{trial_name(trial)}: {problem}; --no-probe plans without training it")
    if problems:
        raise ConfigError(problems)
    for trial, hparams in chosen.items():
        yield probe(trial, hparams, spec, resources, at_once, PROBE_SECONDS / len(chosen))


def probe(
    trial: int,
    hparams: Hparams,
    spec: Mapping[str, object],
    resources: Resources,
    at_once: int,
    seconds: float,
) -> Probe:
    """Measures a trial in so many new processes at the same time, and returns their mean and the most memory.

    In a new process no memory of another probe counts.
    """
    spawn = multiprocessing.get_context("spawn")
    arguments = (hparams.model, hparams.flat(), dict(spec), resources, seconds)
    with ProcessPoolExecutor(at_once, spawn, _meet_at, (spawn.Barrier(at_once),)) as pool:
        running = [pool.submit(measured, *arguments, place) for place in range(at_once)]
        errors = [error for each in running if (error := each.exception()) is not None]
    for error in errors:
        if isinstance(error, BrokenExecutor):
            raise ConfigError(
                _too_much(trial, at_once, "a process was killed, as the system does without memory")
            )
        if not isinstance(error, BrokenBarrierError):
            text = f"{type(error).__name__}: {error}"
            if status_of(text) == OUT_OF_MEMORY:
                raise ConfigError(_too_much(trial, at_once, text.splitlines()[0]))
            raise error
    found = [each.result() for each in running]
    memory = [one.memory_bytes for one in found if one.memory_bytes is not None]
    return Probe(
        trial,
        found[0].device,
        mean(one.step_seconds for one in found),
        mean(one.evaluation_seconds for one in found),
        max(memory, default=None),
        at_once,
    )


def _too_much(trial: int, at_once: int, reason: str) -> str:
    return f"{trial_name(trial)}: out of memory when probed, {at_once} at once: {reason}; --no-probe plans without it"


# In the processes


class Measured(NamedTuple):
    """What one process found."""

    device: str
    step_seconds: float
    evaluation_seconds: float
    memory_bytes: int | None


class Meeting:
    """Where the processes of a probe wait for each other; none waits for one that has failed."""

    barrier: Barrier | None = None

    def wait(self) -> None:
        if self.barrier is not None:
            self.barrier.wait()

    def leave(self) -> None:
        if self.barrier is not None:
            self.barrier.abort()


MEETING = Meeting()  # of this process, set when it starts


def _meet_at(barrier: Barrier) -> None:
    MEETING.barrier = barrier


def measured(
    model: str,
    flat: Mapping[str, object],
    spec: Mapping[str, object],
    resources: Resources,
    seconds: float,
    place: int,
) -> Measured:
    """Trains a trial for about half of the seconds, or less, and evaluates for about the other half.

    place: the number of this process among those of the probe, from 0, which decides its GPU.
    """
    try:
        import torch

        from s2s_search.training.trial import STEPS_BETWEEN_LOOKS, Trial

        torch.set_num_threads(resources.threads)  # as many as a trial of the search has
        device, before = torch.device("cpu"), 0
        steps = 1
        if resources.gpu and torch.cuda.is_available():
            sharing = resources.sharing
            device = torch.device("cuda", place // sharing)
            torch.cuda.set_device(device)
            torch.zeros((), device=device)
            MEETING.wait()  # all contexts are made: what they take is no memory of torch's
            free, total = torch.cuda.mem_get_info(device)
            before, steps = (total - free) // sharing, STEPS_BETWEEN_LOOKS
        state = Trial(resolve(model, flat), load_corpus(spec), device)
        for _ in range(WARM_UP):
            state.train_steps(steps)
        MEETING.wait()
        took: list[float] = []
        began = time.perf_counter()
        while len(took) < TIMED and (not took or time.perf_counter() - began < seconds / 2):
            took.append(elapsed(state.train_steps, steps) / steps)
        MEETING.wait()
        evaluation = evaluation_seconds(state, seconds / 2)
        take_largest_batches(state)
        memory = peak_memory(device)
        return Measured(
            device.type, median(took), evaluation, None if memory is None else before + memory
        )
    except BaseException:
        MEETING.leave()
        raise


def take_largest_batches(trial: "Trial") -> None:
    """Makes a step on the largest training pairs, and evaluates the largest dev pairs: what takes the most memory."""
    import numpy as np

    from s2s_search.corpus.batches import evaluation_batches, make_batch
    from s2s_search.training.evaluation import evaluate_batch
    from s2s_search.training.trial import training_step

    corpus, hparams = trial.corpus, trial.hparams
    limits = hparams["source.max_seq_len"], hparams["target.max_seq_len"]
    vocabularies = corpus.source_vocab, corpus.target_vocab
    sources, targets = (
        np.minimum(each, limit) for each, limit in zip(lengths(corpus.train), limits, strict=True)
    )
    longest = np.argsort(-(sources * targets), kind="stable")[: hparams["train.batch_size"]]
    batch = make_batch(corpus.train, longest[np.argsort(-targets[longest])], *vocabularies, *limits)
    trial.model.train()
    training_step(trial.model, trial.optimizer, batch.to(trial.device), trial.step)
    cells = row_cells(hparams, len(corpus.target_vocab))
    batches = evaluation_batches(
        corpus.dev, *vocabularies, hparams["train.eval_batch_size"], cells=cells
    )
    largest, _ = max(
        batches, key=lambda pair: pair[0].source_ids.numel() * pair[0].target_ids.shape[1]
    )
    rows = range(len(largest.source_ids))
    evaluate_batch(
        trial.model.eval(), largest.to(trial.device), decoded_as_long_as_dev(trial), rows
    )


def evaluation_seconds(trial: "Trial", limit: float) -> float:
    """The seconds of an evaluation, or where that might take longer than the limit, a part's in proportion.

    A model that has learnt little ends no answer; those of one that has are about as long as the references. None is
    decoded any further here.
    """
    from s2s_search.training.evaluation import evaluate

    dev, corpus, hparams = trial.corpus.dev, trial.corpus, decoded_as_long_as_dev(trial)
    sources = len(dev.groups) - 1
    wanted = min(hparams["train.eval_examples"] or sources, sources)
    tried = min(TRIED, wanted)
    for examples in (tried, wanted):
        part = resolve(hparams.model, {**hparams, "train.eval_examples": examples})
        seconds = elapsed(evaluate, trial.model, dev, corpus, part) * wanted / examples
        if examples == wanted or seconds > limit:
            break
    return seconds


def decoded_as_long_as_dev(trial: "Trial") -> Hparams:
    """The hyperparameters of a trial, but with answers no longer than the longest dev target and its END."""
    longest = int(lengths(trial.corpus.dev)[1].max()) - 1
    limit = min(longest, trial.hparams["inference.max_decode_length"])
    return resolve(trial.hparams.model, {**trial.hparams, "inference.max_decode_length": limit})


def elapsed(run: Callable[..., object], *arguments: object) -> float:
    """The seconds that a call takes."""
    began = time.perf_counter()
    run(*arguments)
    return time.perf_counter() - began


def peak_memory(device: "torch.device") -> int | None:
    """The most bytes that this process has taken so far, on a GPU those that torch has taken."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_reserved(device)
    with suppress(
        OSError, StopIteration
    ):  # ru_maxrss would count what the process had that started this one
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    if os.name != "posix":
        return None
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
