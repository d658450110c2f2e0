"""How much memory a trial takes: the sizes of the largest tensors that its model makes of a batch."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from s2s_search.hparams import Hparams

CELLS = 2**24  # numbers in the largest tensor of a batch in evaluation and decoding: 64 MB as float32
Cells = Callable[[int, int], int]  # numbers in the largest tensor of a row with so many source and target positions


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
    scored: int = beams * hparams["attention.dim"] if has_attention else 0  # of a source position, with additive scores

    def cells(source: int, target: int) -> int:
        weights = source * target if has_attention else 0
        return max(one_step, answers, width * source, width * target, scored * source, weights)

    return cells


def _units(cell: Mapping[str, Any]) -> int:
    """Returns the number of units of a cell, which only GRUBlockCell calls by another name."""
    units: int = cell["cell_size"] if cell["class"] == "GRUBlockCell" else cell["num_units"]
    return units


def cut_at_cells(sources: Sequence[int], targets: Sequence[int], cells: Cells) -> Iterator[slice]:
    """Cuts rows of these lengths into parts of at most CELLS numbers; a row that has more is a part of its own."""
    begin = longest_source = longest_target = 0
    for row, (source, target) in enumerate(zip(sources, targets, strict=True)):
        longest_source, longest_target = max(longest_source, source), max(longest_target, target)
        if row > begin and (row + 1 - begin) * cells(longest_source, longest_target) > CELLS:
            yield slice(begin, row)
            begin, longest_source, longest_target = row, source, target
    yield slice(begin, len(sources))
