"""Measures a training step, including its batch: the processor time, and the ratio to simpler code.

"Plain loops" compute one position after the other: `stacks.plain_unroll` and
`AttentionDecoder.attend_all`, with the loss of `training.loss.token_losses` and torch's own
backward. Everything else is the same trial. "torch's loops" have the written-out backward of
nn/fast without compiled code. All run on one thread. W1, W1n, W2 and W3 have the sizes of the
comparison with other toolkits. The other rows show what a configuration costs, compared with
similar ones. "by the step without" is the ratio to the same step without what the name adds.
"""

import statistics
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, partial
from itertools import islice
from typing import Any
from unittest import mock

import torch

from benchmarks.measure import parser, ratio, show, take_turns
from s2s_search.corpus import Corpus, load_corpus
from s2s_search.corpus.batches import Batch, TrainingBatches
from s2s_search.hparams import resolve
from s2s_search.nn.cells import CELL_CLASSES
from s2s_search.nn.fast import native
from s2s_search.nn.models import Seq2Seq
from s2s_search.training.loss import token_losses
from s2s_search.training.trial import Trial

BATCHES_FOR_PADDING = 200


@dataclass(frozen=True)
class Work:
    """A model and its data; `steps` is the number of steps in one turn."""

    overrides: Mapping[str, Any] = field(default_factory=dict)
    model: str = "AttentionSeq2Seq"
    tokens: int | None = None  # size of the vocabulary of the toy task reverse; None: CMUdict
    length: int = 0  # of all sequences of the toy task, END included
    steps: int = 10
    added: Mapping[str, Any] = field(default_factory=dict)  # to compare with the step without it


def both(**values: object) -> dict[str, object]:
    """Returns hyperparameters for the cells of both encoder and decoder."""
    return {
        f"{side}.rnn_cell.{name}": value
        for side in ("encoder", "decoder")
        for name, value in values.items()
    }


def cell(name: str, **arguments: object) -> dict[str, object]:
    units = "cell_size" if name == "GRUBlockCell" else "num_units"
    return both(cell_spec={"class": name, units: 128, **arguments})


W2 = {
    "embedding.dim": 100,
    "encoder.type": "BidirectionalRNNEncoder",
    "encoder.rnn_cell.cell_spec.num_units": 128,
    "decoder.rnn_cell.cell_spec.num_units": 256,
    "attention.score_type": "bahdanau",
    "train.batch_size": 64,
}
W3 = {
    "embedding.dim": 256,
    "encoder.type": "StackBidirectionalRNNEncoder",
    "encoder.rnn_cell.cell_spec.num_units": 256,
    "encoder.rnn_cell.num_layers": 2,
    "decoder.rnn_cell.cell_spec.num_units": 512,
    "decoder.rnn_cell.num_layers": 2,
    "attention.dim": 256,
    "attention.score_type": "bahdanau",
    "train.batch_size": 64,
}
BIDIRECTIONAL = {"encoder.type": "BidirectionalRNNEncoder"}
STACKED = {"encoder.type": "StackBidirectionalRNNEncoder", **both(num_layers=2)}
DROPOUT = both(dropout_input_keep_prob=0.8, dropout_output_keep_prob=0.8)
PEEPHOLES = cell("LSTMCell", use_peepholes=True)
BASIC = "BasicSeq2Seq"

# What a work does not set has its default.
WORKS = {
    "W1": Work(tokens=97, length=20),
    "W1n": Work(model=BASIC, tokens=97, length=20),
    "W2": Work(W2, steps=5),
    "W3": Work(W3, tokens=7997, length=25, steps=1),
    "basic": Work(model=BASIC),
    "basic-bidirectional": Work(BIDIRECTIONAL, BASIC),
    "basic-stacked": Work(STACKED, BASIC),
    "basic-dropout": Work(DROPOUT, BASIC),
    "basic-GRUCell": Work(cell("GRUCell"), BASIC),
    "basic-4-layers-residual": Work(both(num_layers=4, residual_connections=True), BASIC, steps=5),
    "dot": Work(),
    "bahdanau": Work({"attention.score_type": "bahdanau"}),
    "bidirectional": Work(BIDIRECTIONAL),
    "stacked": Work(STACKED),
    "LSTMCell-peepholes": Work(PEEPHOLES),
    "LSTMCell-peepholes-dropout": Work(PEEPHOLES | DROPOUT),
    "LSTMCell-projection": Work(cell("LSTMCell", num_proj=64)),
    "LSTMBlockCell": Work(cell("LSTMBlockCell")),
    "CoupledInputForgetGateLSTMCell": Work(cell("CoupledInputForgetGateLSTMCell")),
    "LayerNormBasicLSTMCell": Work(cell("LayerNormBasicLSTMCell")),
    "GRUCell": Work(cell("GRUCell")),
    "GRUBlockCell": Work(cell("GRUBlockCell")),
    "BasicRNNCell": Work(cell("BasicRNNCell")),
    "dropout": Work(DROPOUT),
    "2-layers": Work(both(num_layers=2)),
    "2-layers-dropout": Work(both(num_layers=2) | DROPOUT),
    "2-layers-GRUCell": Work(both(num_layers=2) | cell("GRUCell")),
    "4-layers": Work(both(num_layers=4), steps=5),
    "4-layers-residual": Work(both(num_layers=4, residual_connections=True), steps=5),
    "4-layers-residual-dropout": Work(
        both(num_layers=4, residual_connections=True) | DROPOUT, steps=5
    ),
}
ADDED: dict[str, Mapping[str, Any]] = {
    "average": {"train.average_decay": 0.999},
    "label-smoothing": {"train.label_smoothing": 0.1},
    "warmup": {"optimizer.warmup_steps": 10_000},
    "weight-decay": {"optimizer.weight_decay": 0.01},
}
WORKS |= {
    f"{name}-{what}": replace(WORKS[name], added=added)
    for what, added in ADDED.items()
    for name in ("dot", "W2", "W3")
}


def main() -> None:
    made = parser("training", __doc__, rounds=7)
    made.add_argument("--work", default=",".join(WORKS), help="some of: %(default)s")
    args = made.parse_args()
    names = args.work.split(",")
    if unknown := set(names) - set(WORKS):
        made.error(f"no such work: {', '.join(sorted(unknown))}; there are {', '.join(WORKS)}")
    torch.set_num_threads(1)
    rows = []
    for name in names:
        measure = beside if WORKS[name].added else row
        rows.append(measure(name, WORKS[name], args.rounds))
    show(rows, args.json)


def beside(name: str, work: Work, rounds: int) -> dict[str, object]:
    """Returns the row of a step with something added, and of the same step without it."""
    now, without = trial(work), trial(replace(work, added={}))
    seconds = take_turns(
        {
            "now": partial(now.train_steps, work.steps),
            "without": partial(without.train_steps, work.steps),
        },
        rounds,
    )
    return {
        "work": name,
        "ms a step": 1000 * statistics.median(seconds["now"]) / work.steps,
        "by the step without": ratio(seconds["now"], seconds["without"]),
    }


def row(name: str, work: Work, rounds: int) -> dict[str, object]:
    now, uncompiled, plain, batches = trial(work), trial(work), trial(work), trial(work).batches
    padded = padding(batches)
    batches.position = 0
    contestants = {
        "now": partial(now.train_steps, work.steps),
        "torch": partial(train_uncompiled, uncompiled, work.steps),
        "plain": partial(train_plainly, plain, work.steps),
        "batches": lambda: list(islice(batches, work.steps)),
    }
    seconds = take_turns(contestants, rounds)
    return {
        "work": name,
        "ms a step": 1000 * statistics.median(seconds["now"]) / work.steps,
        "plain loops take": ratio(seconds["plain"], seconds["now"]),
        "torch's loops take": ratio(seconds["torch"], seconds["now"]),
        "plain by torch's": ratio(seconds["plain"], seconds["torch"]),
        "making the batch, %": 100
        * statistics.median(seconds["batches"])
        / statistics.median(seconds["now"]),
        "padding, %": 100 * padded,
    }


def trial(work: Work) -> Trial:
    """Returns a trial at its beginning. Two trials of the same work get the same batches."""
    return Trial(
        resolve(work.model, {**work.overrides, **work.added}),
        corpus(work.tokens, work.length),
        torch.device("cpu"),
    )


@cache
def corpus(tokens: int | None, length: int) -> Corpus:
    if tokens is None:
        return load_corpus({"name": "cmudict"})
    return load_corpus(
        {
            "name": "reverse",
            "train": 6400,
            "vocabulary": tokens,
            "min_length": length - 1,
            "max_length": length - 1,
        }
    )


def train_uncompiled(trial: Trial, steps: int) -> None:
    with mock.patch.object(native, "LIBRARY", None):
        trial.train_steps(steps)


def train_plainly(trial: Trial, steps: int) -> None:
    with plain_loops():
        trial.train_steps(steps)


@contextmanager
def plain_loops() -> Iterator[None]:
    """Makes all cells run in plain loops, and computes the loss by its definition."""
    with ExitStack() as patches:
        patches.enter_context(mock.patch.object(Seq2Seq, "loss", plain_loss))
        for cell in CELL_CLASSES.values():
            patches.enter_context(mock.patch.object(cell, "recurrence", return_value=None))
        yield


def plain_loss(model: Seq2Seq, batch: Batch, label_smoothing: float = 0.0) -> torch.Tensor:
    return token_losses(model(batch), batch, label_smoothing).sum()


def padding(batches: TrainingBatches) -> float:
    """Returns the share of padding in source and target positions."""
    drawn = list(islice(batches, BATCHES_FOR_PADDING))
    real = sum(int(batch.source_lengths.sum() + batch.target_lengths.sum()) for batch in drawn)
    return 1 - real / sum(batch.source_ids.numel() + batch.target_ids.numel() for batch in drawn)


if __name__ == "__main__":
    main()
