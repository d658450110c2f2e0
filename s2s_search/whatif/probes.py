"""Probes: the seconds and the memory of a few steps of a model, measured on this machine.

torch is imported in the functions that need it, so that the others do not wait for it.
"""

import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from contextlib import ExitStack, suppress
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


PROBE_SECONDS = 30.0  # total over all probes
WARM_UP = 3  # the number of steps before the timed ones
TIMED = 100  # the most steps that are timed
TRIED = 200  # the number of sources in the first, short evaluation


@dataclass(frozen=True)
class Probe:
    """What a few steps of a trial took on a device of this machine, as means over the processes.

    memory_bytes: the peak, with the largest batches of training and of evaluation. On the CPU it is
        the memory of the whole process. None: not known.
    at_once: the number of processes that ran at the same time, as in a search.
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
    """Probes trials one after the other, each in several processes that share this machine.

    Args:
        chosen: the configurations to probe, by trial number.
        parameters: the numbers of parameters of the trials.
        corpus: the corpus of the search.
        spec: the corpus as the search space names it; each process loads it again.
        resources: what a trial takes.
        at_once: the number of processes.

    Raises:
        ConfigError: memory is too small. Where that is certain, nothing is trained before.
    """
    import torch

    device = torch.device("cuda" if resources.gpu and torch.cuda.is_available() else "cpu")
    problems = []
    for trial, hparams in chosen.items():
        sharing = resources.sharing if device.type == "cuda" else at_once
        problem = memory_problem(hparams, corpus, parameters[trial], device, sharing)
        if problem:
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
    """Measures a trial in new processes, and returns their mean times and their largest memory.

    The processes are new because a process also counts the peak memory of earlier probes.

    Args:
        trial: its number.
        hparams: its configuration.
        spec: the corpus as the search space names it.
        resources: what a trial takes.
        at_once: the number of processes that run at the same time.
        seconds: about how long the probe may take.
    """
    spawn = multiprocessing.get_context("spawn")
    arguments = (hparams.model, hparams.flat(), dict(spec), resources, seconds)
    barrier = spawn.Barrier(at_once)

    def free_the_others(ended: "Future[Measured]") -> None:
        if ended.exception() is not None:
            barrier.abort()

    with ExitStack() as stack:
        running = []
        for process in range(at_once):
            # Each process has a pool of its own. The pool of Python 3.11 does not notice when a
            # process is killed that it started after others, so the others would wait forever.
            pool = ProcessPoolExecutor(1, spawn, _meet_at, (barrier,))
            each = stack.enter_context(pool).submit(measured, *arguments, process)
            each.add_done_callback(free_the_others)
            running.append(each)
        errors = [each.exception() for each in running]
    for error in errors:
        if isinstance(error, BrokenExecutor):
            reason = "the system killed a process, as it does when memory runs out"
            raise ConfigError(_too_much(trial, at_once, reason))
        if error is None or isinstance(error, BrokenBarrierError):
            continue  # a broken barrier only says that another process failed
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
    return (
        f"{trial_name(trial)}: out of memory when probed, {at_once} at once: {reason}; "
        "--no-probe plans without training it"
    )


# --- in the processes ---


class Measured(NamedTuple):
    """What one process measured."""

    device: str
    step_seconds: float
    evaluation_seconds: float
    memory_bytes: int | None


class Meeting:
    """Where the processes of a probe wait for each other. After `leave` of one, no other waits."""

    barrier: Barrier | None = None

    def wait(self) -> None:
        if self.barrier is not None:
            self.barrier.wait()

    def leave(self) -> None:
        if self.barrier is not None:
            self.barrier.abort()


MEETING = Meeting()  # one in each process; its barrier is set when the process starts


def _meet_at(barrier: Barrier) -> None:
    MEETING.barrier = barrier


def measured(
    model: str,
    flat: Mapping[str, object],
    spec: Mapping[str, object],
    resources: Resources,
    seconds: float,
    process: int,
) -> Measured:
    """Trains a trial for at most about half of the seconds, and evaluates it for the other half.

    Args:
        model: the model's name.
        flat: its hyperparameters.
        spec: the corpus as the search space names it.
        resources: what a trial takes.
        seconds: about how long this may take.
        process: the number of this process among those of the probe, from 0; it decides the GPU.
    """
    try:
        import torch

        from s2s_search.training.trial import STEPS_BETWEEN_LOOKS, Trial

        torch.set_num_threads(resources.threads)  # as in a trial of the search
        device = torch.device("cpu")
        before = 0  # bytes of GPU memory that torch does not count
        steps = 1
        if resources.gpu and torch.cuda.is_available():
            sharing = resources.sharing
            device = torch.device("cuda", process // sharing)
            torch.cuda.set_device(device)
            torch.zeros((), device=device)
            # Until every process has its CUDA context, whose memory torch does not count.
            MEETING.wait()
            free, total = torch.cuda.mem_get_info(device)
            before = (total - free) // sharing
            steps = STEPS_BETWEEN_LOOKS
        state = Trial(resolve(model, flat), load_corpus(spec), device)
        for _ in range(WARM_UP):
            state.train_steps(steps)
        # The steps of all processes are timed at the same time, because they compete for memory
        # bandwidth and caches as the trials of a search do. The same holds for the evaluation.
        MEETING.wait()
        took: list[float] = []
        began = time.perf_counter()
        while len(took) < TIMED and (not took or time.perf_counter() - began < seconds / 2):
            took.append(elapsed(state.train_steps, steps) / steps)
        MEETING.wait()
        evaluation = evaluation_seconds(state, seconds / 2)
        take_largest_batches(state)
        memory = peak_memory(device)
        if memory is not None:
            memory += before
        return Measured(device.type, median(took), evaluation, memory)
    except BaseException:
        MEETING.leave()
        raise


def take_largest_batches(trial: "Trial") -> None:
    """Trains on the largest training pairs and evaluates the largest dev batch: the memory peak."""
    import numpy as np

    from s2s_search.corpus.batches import evaluation_batches, make_batch
    from s2s_search.training.evaluation import evaluate_batch
    from s2s_search.training.trial import training_step

    corpus, hparams = trial.corpus, trial.hparams
    limits = hparams["source.max_seq_len"], hparams["target.max_seq_len"]
    vocabularies = corpus.source_vocab, corpus.target_vocab
    sources, targets = lengths(corpus.train)
    sources = np.minimum(sources, limits[0])
    targets = np.minimum(targets, limits[1])
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
    trial.model.eval()
    evaluate_batch(trial.model, largest.to(trial.device), decoded_as_long_as_dev(trial), rows)


def evaluation_seconds(trial: "Trial", limit: float) -> float:
    """Returns the seconds of an evaluation.

    Where a short evaluation shows that a whole one would take longer than `limit`, the seconds are
    extrapolated. Answers are decoded no further than the longest dev target: those of a trained
    model are about as long as the references, but a model after a few steps never ends an answer.
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
    """Returns a trial's hyperparameters, with answers at most as long as the longest dev target."""
    longest = int(lengths(trial.corpus.dev)[1].max()) - 1
    limit = min(longest, trial.hparams["inference.max_decode_length"])
    return resolve(trial.hparams.model, {**trial.hparams, "inference.max_decode_length": limit})


def elapsed(run: Callable[..., object], *arguments: object) -> float:
    """Returns the seconds that a call takes."""
    began = time.perf_counter()
    run(*arguments)
    return time.perf_counter() - began


def peak_memory(device: "torch.device") -> int | None:
    """Returns the most bytes that this process has used so far; on a GPU, that torch reserved."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_reserved(device)
    # VmHWM comes first: on Linux, ru_maxrss also counts the memory of the parent before the exec.
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    if os.name != "posix":
        return None
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
