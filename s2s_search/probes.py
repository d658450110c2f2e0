"""What a model costs here: its parameters, the bytes of its checkpoint, and what a few steps of it take.

torch is imported inside the functions that make models, so that the rest does not wait for it.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from s2s_search.corpus import Corpus
from s2s_search.events import trial_name
from s2s_search.hparams import Hparams, resolve
from s2s_search.machine import usable_memory
from s2s_search.spaces import Resources
from s2s_search.table import ConfigError

if TYPE_CHECKING:
    import torch

    from s2s_search.training import Trial

PROBE_SECONDS = 30.0  # of all probes together
WARM_UP, TIMED = 3, 100  # steps of a probe, the latter at most
TRIED = 200  # sources that an evaluation is first tried on
FLOAT_BYTES = 4  # of a float32
STATE_BYTES, TENSOR_BYTES = 10_000, 5_000  # random numbers and names; what describes the tensors of weights, of a slot


@dataclass(frozen=True)
class Probe:
    """What a few steps of a trial took on a device here, with the device to itself.

    memory_bytes: at the peak; on the CPU of the whole process, on a GPU of what torch takes there; None: not known
    """

    trial: int
    device: str
    step_seconds: float
    evaluation_seconds: float
    memory_bytes: int | None


def count_parameters(hparams: Hparams, corpus: Corpus) -> int:
    """The number of a model's parameters; the model takes no memory."""
    import torch

    from s2s_search.nn.models import build_model

    with torch.device("meta"):
        model = build_model(hparams, len(corpus.source_vocab), len(corpus.target_vocab))
    return sum(p.numel() for p in model.parameters())


def checkpoint_bytes(parameters: int, optimizer_name: str) -> int:
    """The bytes of a snapshot: weights and the optimizer's slots, float32, and what describes them.

    A corpus with a large vocabulary adds its tokens, which are little beside their embeddings.
    """
    from s2s_search.optim import RULES

    copies = 1 + len(RULES[optimizer_name].SLOTS)
    return copies * (FLOAT_BYTES * parameters + TENSOR_BYTES) + STATE_BYTES


def run_probes(
    chosen: Mapping[int, Hparams], parameters: Mapping[int, int], corpus: Corpus, resources: Resources
) -> Iterator[Probe]:
    """Probes trials one after the other. Raises ConfigError, before the first, where memory is too small."""
    import torch

    device = torch.device("cuda" if resources.gpu and torch.cuda.is_available() else "cpu")
    memory = device_memory(device)
    problems = []
    for trial, hparams in chosen.items():
        needed = checkpoint_bytes(parameters[trial], hparams["optimizer.name"]) + FLOAT_BYTES * parameters[trial]
        if needed > memory:
            law = f"weights, gradients and slots take {size_text(needed)}, and there are {size_text(memory)}"
            problems.append(f"{trial_name(trial)}: {law}; --no-probe plans without training it")
    if problems:
        raise ConfigError(problems)
    torch.set_num_threads(resources.threads)  # as many as a trial of the search has
    for trial, hparams in chosen.items():
        yield probe(trial, hparams, corpus, device, PROBE_SECONDS / len(chosen))


def probe(trial: int, hparams: Hparams, corpus: Corpus, device: "torch.device", seconds: float) -> Probe:
    """Trains a trial for about half of the seconds, or less, and evaluates for about the other half."""
    from s2s_search.training import Trial

    state, began = Trial(hparams, corpus, device), time.perf_counter()
    took: list[float] = []
    while len(took) < WARM_UP + TIMED and (len(took) <= WARM_UP or time.perf_counter() - began < seconds / 2):
        took.append(elapsed(state.train_steps, 1))
    evaluation = evaluation_seconds(state, seconds / 2)
    return Probe(trial, device.type, median(took[WARM_UP:]), evaluation, peak_memory(device))


def evaluation_seconds(trial: "Trial", limit: float) -> float:
    """The seconds of an evaluation, or where that might take longer than the limit, a part's in proportion.

    A model that has learnt little ends no answer; those of one that has are about as long as the references. None is
    decoded any further here.
    """
    from s2s_search.training import evaluate

    dev, corpus = trial.corpus.dev, trial.corpus
    longest = 1 + max(int(n) for n in dev.target_offsets[1:] - dev.target_offsets[:-1])
    hparams = resolve(
        trial.hparams.model,
        {**trial.hparams, "inference.max_decode_length": min(longest, trial.hparams["inference.max_decode_length"])},
    )
    sources = len(dev.groups) - 1
    wanted = min(hparams["train.eval_examples"] or sources, sources)
    tried = min(TRIED, wanted)
    for examples in (tried, wanted):
        part = resolve(hparams.model, {**hparams, "train.eval_examples": examples})
        seconds = elapsed(evaluate, trial.model, dev, corpus, part) * wanted / examples
        if examples == wanted or seconds > limit:
            break
    return seconds


def elapsed(run: Callable[..., object], *arguments: object) -> float:
    """The seconds that a call takes."""
    began = time.perf_counter()
    run(*arguments)
    return time.perf_counter() - began


def device_memory(device: "torch.device") -> float:
    """The bytes of memory that a GPU has, or that this process may take; infinite where that is not known."""
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_properties(device).total_memory
    return usable_memory()


def peak_memory(device: "torch.device") -> int | None:
    """The most bytes that this process has taken so far, on a GPU those that torch has."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_reserved(device)
    if os.name != "posix":
        return None
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def size_text(size: float) -> str:
    """Bytes in words: 1.5 MB."""
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            break
        size /= 1000
    return f"{size:.3g} {unit}"
