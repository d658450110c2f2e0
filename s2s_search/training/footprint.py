"""How much memory a trial takes: the sizes of the largest tensors that its model makes of a batch.

numpy is imported where lengths are counted, so that the rest does not wait for it.
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
    """Returns the function that counts the numbers in the largest tensor that evaluation makes of one row.

    Logits of all steps are not among them: evaluation computes them for some steps at a time.
    """
    units = max(_units(hparams[f"{side}.rnn_cell.cell_spec"]) for side in ("encoder", "decoder"))
    width: int = max(4 * units, hparams["embedding.dim"])  # of a position: the gates of an LSTM
    beams: int = hparams["inference.beam_search.beam_width"]
    one_step: int = beams * target_size  # logits
    answers: int = beams * hparams["inference.max_decode_length"]
    has_attention = hparams.model == "AttentionSeq2Seq"
    scored: int = (
        beams * hparams["attention.dim"] if has_attention else 0
    )  # of a source position, with additive scores

    def cells(source: int, target: int) -> int:
        weights = source * target if has_attention else 0
        return max(one_step, answers, width * source, width * target, scored * source, weights)

    return cells


def _units(cell: Mapping[str, Any]) -> int:
    """Returns the number of units of a cell, which only GRUBlockCell calls by another name."""
    units: int = cell["cell_size"] if cell["class"] == "GRUBlockCell" else cell["num_units"]
    return units


@dataclass(frozen=True)
class Need:
    """Bytes that are certainly needed at one moment, and what for."""

    bytes: int
    what: str


def largest_batch(hparams: Hparams, corpus: Corpus) -> Need:
    """Returns what the largest batch of training or evaluation takes at least, besides the weights.

    It counts the tensors that every such model makes at once; what is really taken is up to three times as much.
    """
    return max(
        _training(hparams, corpus), _evaluation(hparams, corpus), key=lambda need: need.bytes
    )


def _training(hparams: Hparams, corpus: Corpus) -> Need:
    """A training batch with the largest pair: the others are padded to its lengths. Or the logits of an average one."""
    import numpy as np

    from s2s_search.corpus.batches import BATCHES_PER_POOL  # late: it needs torch

    sources, targets = lengths(corpus.train)
    sources = np.minimum(sources, hparams["source.max_seq_len"])
    targets = np.minimum(targets, hparams["target.max_seq_len"]) - 1
    numbers = _kept_numbers(hparams)(sources, targets)
    largest = int(numbers.argmax())
    rows = min(hparams["train.batch_size"], len(sources))
    if (
        len(sources) <= hparams["train.batch_size"] * BATCHES_PER_POOL
    ):  # the longest are in the last, smaller batch
        rows = len(sources) % hparams["train.batch_size"] or rows
    logits = int(hparams["train.batch_size"] * targets.mean() * len(corpus.target_vocab))
    if logits > rows * numbers[largest]:
        what = f"the logits of {hparams['train.batch_size']} pairs over {len(corpus.target_vocab):,} target tokens"
        return Need(FLOAT_BYTES * logits, f"{what} in training")
    pair = f"{sources[largest]:,} source and {targets[largest]:,} target tokens"
    return Need(
        FLOAT_BYTES * rows * int(numbers[largest]),
        f"a training batch of {rows} pairs, one of them {pair}",
    )


def _evaluation(hparams: Hparams, corpus: Corpus) -> Need:
    """The largest dev pair alone: batches are cut to it."""
    sources, targets = lengths(corpus.dev)
    cells = row_cells(hparams, len(corpus.target_vocab))
    candidates = {int(each.argmax()) for each in (sources, targets, sources * targets)}
    size, source, target = max(
        (cells(sources[k], targets[k]), sources[k], targets[k]) for k in candidates
    )
    return Need(
        FLOAT_BYTES * int(size),
        f"the evaluation of a dev pair of {source:,} source and {target:,} target tokens",
    )


def lengths(split: Split) -> tuple[Lengths, Lengths]:
    """The lengths of all sources with END, and of all targets with START and END."""
    sources = split.source_offsets[1:] - split.source_offsets[:-1]
    targets = split.target_offsets[1:] - split.target_offsets[:-1]
    return sources + 1, targets + 2


def _kept_numbers(hparams: Hparams) -> Callable[[Lengths, Lengths], Lengths]:
    """Returns the function that counts the numbers that training keeps of a row for the backward pass."""
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
    """The numbers that all layers of one direction keep of a position: gates and outputs."""
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
    """Says that a trial, or so many at once, cannot fit into memory; None where they may."""
    batch = largest_batch(hparams, corpus)
    weights = checkpoint_bytes(parameters, hparams["optimizer.name"]) + FLOAT_BYTES * parameters
    needed, memory = at_once * (weights + batch.bytes), device_memory(device, at_once)
    if needed <= memory:
        return None
    who = "takes" if at_once == 1 else f"and {at_once - 1} more like it at once take"
    parts = f"{size_text(weights)} for weights, gradients and slots, {size_text(batch.bytes)} for {batch.what}"
    return (
        f"{who} at least {size_text(needed)} of memory, and there are {size_text(memory)} ({parts})"
    )


def check_memory(hparams: Hparams, corpus: Corpus, device: torch.device) -> None:
    """Raises MemoryError, with a sentence, when a trial certainly does not fit into memory."""
    if problem := memory_problem(hparams, corpus, count_parameters(hparams, corpus), device):
        raise MemoryError(f"a trial of this configuration {problem}")


def device_memory(device: torch.device, processes: int = 1) -> float:
    """The bytes of memory that a GPU has, or that so many processes may take here; infinite where that is not known."""
    if device.type == "cuda":
        import torch

        if not torch.cuda.is_available():
            return math.inf
        return torch.cuda.get_device_properties(device).total_memory
    return usable_memory(processes)
