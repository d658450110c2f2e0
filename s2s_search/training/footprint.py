"""How much memory a trial takes: the sizes of the largest tensors that its model makes of a batch.

numpy is imported late, by the functions that count lengths, since importing it takes time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from s2s_search.corpus.corpus import Corpus, Split
from s2s_search.hparams.configuration import Hparams
from s2s_search.machine import usable_memory
from s2s_search.training.size import FLOAT_BYTES, checkpoint_bytes, count_parameters, size_text

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

    from s2s_search.corpus.cuts import Cells

    Lengths = npt.NDArray[np.int64]


def row_cells(hparams: Hparams, target_size: int) -> Cells:
    """Returns the function that counts the numbers in the largest tensor that evaluation makes.

    The function takes the source and the target length of one row. The logits of all steps do not
    count, since evaluation computes them for some steps at a time.
    """
    units = max(_units(hparams[f"{side}.rnn_cell.cell_spec"]) for side in ("encoder", "decoder"))
    # The numbers of one position: the gates of an LSTM are the most that a cell has.
    width: int = max(4 * units, hparams["embedding.dim"])
    beams: int = hparams["inference.beam_search.beam_width"]
    one_step: int = beams * target_size  # logits
    answers: int = beams * hparams["inference.max_decode_length"]
    has_attention = hparams.model == "AttentionSeq2Seq"
    scored: int = 0  # numbers of one source position in additive scores
    if has_attention:
        scored = beams * hparams["attention.dim"]

    def cells(source: int, target: int) -> int:
        weights = source * target if has_attention else 0
        return max(one_step, answers, width * source, width * target, scored * source, weights)

    return cells


def _units(cell: Mapping[str, Any]) -> int:
    """Returns the number of units of a cell; GRUBlockCell alone has another name for it."""
    name = "cell_size" if cell["class"] == "GRUBlockCell" else "num_units"
    units: int = cell[name]
    return units


@dataclass(frozen=True)
class Need:
    """The bytes that are certainly needed at one moment, and their purpose in words."""

    bytes: int
    what: str


def largest_batch(hparams: Hparams, corpus: Corpus) -> Need:
    """Returns a lower bound of the memory for the largest batch, besides the weights.

    It counts the tensors that every such model has at the same time. The process takes up to three
    times as much.
    """
    needs = (_training(hparams, corpus), _evaluation(hparams, corpus))
    return max(needs, key=lambda need: need.bytes)


def _training(hparams: Hparams, corpus: Corpus) -> Need:
    """Returns the need of the training batch with the largest pair, or of average logits if larger.

    All pairs of a batch are padded to the lengths of its largest.
    """
    import numpy as np

    from s2s_search.corpus.batches import BATCHES_PER_POOL  # late: it imports torch

    sources, targets = lengths(corpus.train)
    sources = np.minimum(sources, hparams["source.max_seq_len"])
    targets = np.minimum(targets, hparams["target.max_seq_len"]) - 1
    numbers = _kept_numbers(hparams)(sources, targets)
    largest = int(numbers.argmax())
    rows = min(hparams["train.batch_size"], len(sources))
    if len(sources) <= hparams["train.batch_size"] * BATCHES_PER_POOL:
        # One pool holds all pairs, sorted by length: the longest are in the last, smaller batch.
        rows = len(sources) % hparams["train.batch_size"] or rows
    logits = int(hparams["train.batch_size"] * targets.mean() * len(corpus.target_vocab))
    if logits > rows * numbers[largest]:
        pairs = f"{hparams['train.batch_size']} pairs"
        tokens = f"{len(corpus.target_vocab):,} target tokens"
        return Need(FLOAT_BYTES * logits, f"the logits of {pairs} over {tokens} in training")
    pair = f"{sources[largest]:,} source and {targets[largest]:,} target tokens"
    what = f"a training batch of {rows} pairs, one of them {pair}"
    return Need(FLOAT_BYTES * rows * int(numbers[largest]), what)


def _evaluation(hparams: Hparams, corpus: Corpus) -> Need:
    """Returns the need of the largest dev pair alone: evaluation cuts its batches to that size."""
    sources, targets = lengths(corpus.dev)
    cells = row_cells(hparams, len(corpus.target_vocab))
    candidates = {int(each.argmax()) for each in (sources, targets, sources * targets)}
    size, source, target = max(
        (cells(sources[k], targets[k]), sources[k], targets[k]) for k in candidates
    )
    what = f"the evaluation of a dev pair of {source:,} source and {target:,} target tokens"
    return Need(FLOAT_BYTES * int(size), what)


def lengths(split: Split) -> tuple[Lengths, Lengths]:
    """Returns the lengths of all sources with END, and of all targets with START and END."""
    sources = split.source_offsets[1:] - split.source_offsets[:-1]
    targets = split.target_offsets[1:] - split.target_offsets[:-1]
    return sources + 1, targets + 2


def _kept_numbers(hparams: Hparams) -> Callable[[Lengths, Lengths], Lengths]:
    """Returns the function that counts the numbers that training keeps of one row."""
    embedding = hparams["embedding.dim"]
    of_source = embedding + _kept_units(hparams, "encoder")
    if hparams["encoder.type"] != "UnidirectionalRNNEncoder":
        of_source += _kept_units(hparams, "encoder")
    of_target = embedding + _kept_units(hparams, "decoder")
    of_both = 0
    if hparams.model == "AttentionSeq2Seq":
        of_both = 2  # the weights and the gradients of their scores
        if hparams["attention.score_type"] == "bahdanau":
            of_both += hparams["attention.dim"]

    def numbers(sources: Lengths, targets: Lengths) -> Lengths:
        kept: Lengths = sources * of_source + targets * of_target + sources * targets * of_both
        return kept

    return numbers


def _kept_units(hparams: Hparams, side: str) -> int:
    """Returns the number of gates and outputs of a position in all layers of one direction."""
    spec = hparams[f"{side}.rnn_cell.cell_spec"]
    gates = 1
    if "LSTM" in spec["class"]:
        gates = 4
    elif "GRU" in spec["class"]:
        gates = 3
    units: int = (gates + 1) * _units(spec) * hparams[f"{side}.rnn_cell.num_layers"]
    return units


def memory_problem(
    hparams: Hparams, corpus: Corpus, parameters: int, device: torch.device, at_once: int = 1
) -> str | None:
    """Returns a sentence, without its subject, when trials certainly do not fit into memory.

    Args:
        hparams: The hyperparameters of each trial.
        corpus: The corpus.
        parameters: The number of the model's parameters.
        device: The device that the trials share.
        at_once: The number of trials that run at the same time.
    """
    batch = largest_batch(hparams, corpus)
    weights = checkpoint_bytes(parameters, hparams) + FLOAT_BYTES * parameters
    needed = at_once * (weights + batch.bytes)
    memory = device_memory(device, at_once)
    if needed <= memory:
        return None
    who = "takes" if at_once == 1 else f"and {at_once - 1} more like it at once take"
    return (
        f"{who} at least {size_text(needed)} of memory, and there are {size_text(memory)} "
        f"({size_text(weights)} for weights, gradients and slots, "
        f"{size_text(batch.bytes)} for {batch.what})"
    )


def check_memory(hparams: Hparams, corpus: Corpus, device: torch.device) -> None:
    """Raises MemoryError, with a sentence, when a trial certainly does not fit into memory."""
    problem = memory_problem(hparams, corpus, count_parameters(hparams, corpus), device)
    if problem is not None:
        raise MemoryError(f"a trial of this configuration {problem}")


def device_memory(device: torch.device, processes: int = 1) -> float:
    """Returns the bytes of memory of a GPU, or those that `processes` processes may take here.

    Returns infinity when that is not known.
    """
    if device.type == "cuda":
        import torch

        if not torch.cuda.is_available():
            return math.inf
        return torch.cuda.get_device_properties(device).total_memory
    return usable_memory(processes)
