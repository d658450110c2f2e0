"""Small configurations, models and batches for the tests."""

from collections.abc import Sequence

import torch

from s2s_search.corpus.batches import Batch
from s2s_search.hparams.configuration import Hparams, resolve
from s2s_search.hparams.table import CELLS
from s2s_search.nn.models import Seq2Seq, build_model

SOURCE_SIZE, TARGET_SIZE = 9, 8  # with the three special ids


def cell_spec(name: str, units: int) -> dict[str, object]:
    return {"class": name, "cell_size" if name == "GRUBlockCell" else "num_units": units}


def small(
    model: str = "AttentionSeq2Seq", cell: str = "BasicLSTMCell", **overrides: object
) -> Hparams:
    """A model of a few units; a double underscore in a keyword stands for a dot."""
    assert cell in CELLS
    values: dict[str, object] = {
        "embedding.dim": 4,
        "encoder.rnn_cell.cell_spec": cell_spec(cell, 5),
        "decoder.rnn_cell.cell_spec": cell_spec(cell, 5),
        "inference.max_decode_length": 7,
    }
    if model == "AttentionSeq2Seq":
        values["attention.dim"] = 3
    return resolve(
        model, values | {name.replace("__", "."): value for name, value in overrides.items()}
    )


def make(hparams: Hparams, seed: int = 0, dtype: torch.dtype = torch.float64) -> Seq2Seq:
    """A model with all weights random, biases included."""
    torch.manual_seed(seed)
    model = build_model(hparams, SOURCE_SIZE, TARGET_SIZE, source_length=6).to(dtype)
    with torch.no_grad():
        for p in model.parameters():
            p.uniform_(-0.8, 0.8)
    return model


def batch_of(
    sources: Sequence[Sequence[int]],
    targets: Sequence[Sequence[int]],
    padding: tuple[int, int] = (0, 0),
) -> Batch:
    """A batch of ids without special ids: END and START are added here, and `padding` more columns than it needs."""
    source_rows = [[*row, SOURCE_SIZE - 1] for row in sources]
    target_rows = [[TARGET_SIZE - 2, *row, TARGET_SIZE - 1] for row in targets]
    return Batch(*padded(source_rows, padding[0]), *padded(target_rows, padding[1]))


def padded(rows: list[list[int]], more: int) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(map(len, rows)) + more
    lengths = torch.tensor([len(row) for row in rows])
    return torch.tensor([row + [0] * (width - len(row)) for row in rows]), lengths


BATCH = batch_of([[1, 2, 3, 4], [5, 0], [2]], [[1, 2], [3, 4, 0, 1], []])
