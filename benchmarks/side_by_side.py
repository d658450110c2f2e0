"""The training step and the decoding of a trial, for a comparison with other toolkits.

A `work` has the sizes of a model (see `model_of`). A batch is a dictionary of numpy int64 arrays,
padded on the right: src [B, S] with src_len, and tgt_in, tgt_out [B, T] with tgt_len. tgt_in starts
with BEGIN, and tgt_out ends with an end symbol.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from s2s_search.corpus.batches import Batch
from s2s_search.hparams import Hparams, resolve
from s2s_search.nn.generate import beam_search, greedy
from s2s_search.nn.models import Seq2Seq, build_model
from s2s_search.training.optimizers import make_optimizer
from s2s_search.training.process_memory import keep_freed_memory
from s2s_search.training.trial import training_step

Arrays = Mapping[str, Any]

BEGIN = 0


def model_of(work: Any) -> tuple[Seq2Seq, Hparams]:
    """Returns the model of a work and its hyperparameters, with defaults for what is left open."""
    more: dict[str, Any] = {}
    if work.attention != "none":
        more = {"attention.dim": work.att_dim, "attention.score_type": work.attention}
    kind = "UnidirectionalRNNEncoder"
    if work.bidirectional:
        kind = "BidirectionalRNNEncoder" if work.enc_layers == 1 else "StackBidirectionalRNNEncoder"
    hparams = resolve(
        "BasicSeq2Seq" if work.attention == "none" else "AttentionSeq2Seq",
        {
            "embedding.dim": work.emb,
            "source.reverse": False,
            "encoder.type": kind,
            "encoder.rnn_cell.cell_spec": {"class": "BasicLSTMCell", "num_units": work.enc_hidden},
            "encoder.rnn_cell.num_layers": work.enc_layers,
            "decoder.rnn_cell.cell_spec": {"class": "BasicLSTMCell", "num_units": work.dec_hidden},
            "decoder.rnn_cell.num_layers": work.dec_layers,
            "optimizer.learning_rate": work.lr,
            "optimizer.clip_gradients": work.clip,
            **more,
        },
    )
    torch.manual_seed(0)
    return build_model(hparams, work.vocab_src, work.vocab_tgt), hparams


def sources(arrays: Arrays) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(arrays["src"]), torch.from_numpy(arrays["src_len"])


def batch_of(arrays: Arrays) -> Batch:
    """Returns the batch of a dictionary of arrays."""
    target_ids = np.concatenate([arrays["tgt_in"][:, :1], arrays["tgt_out"]], axis=1)
    falling = np.argsort(-arrays["tgt_len"], kind="stable")  # as in the batches of a trial
    columns = arrays["src"], arrays["src_len"], target_ids, arrays["tgt_len"] + 1
    return Batch(*(torch.from_numpy(column[falling]) for column in columns))


def build(work: Any) -> tuple[Callable[[Arrays], float], int]:
    """Returns a function that trains on a batch and returns its loss; and the model's size."""
    keep_freed_memory()
    model, hparams = model_of(work)
    optimizer = make_optimizer(model.parameters(), hparams)
    steps = 0

    def step(arrays: Arrays) -> float:
        nonlocal steps
        loss, _ = training_step(model, optimizer, batch_of(arrays), steps)
        steps += 1
        return float(loss)

    return step, sum(p.numel() for p in model.parameters())


def decoder(work: Any, beam: int, length: int) -> Callable[[Arrays], Tensor]:
    """Returns a function that decodes a batch to ids [B, length], with a beam if `beam` is above 1.

    No sequence ends before `length`.
    """
    model, hparams = model_of(work)
    model.eval()
    model.start_id, model.end_id = BEGIN, -1

    def decode(arrays: Arrays) -> Tensor:
        if beam > 1:
            weight = hparams["inference.beam_search.length_penalty_weight"]
            return beam_search(model, *sources(arrays), length, beam, weight).ids[:, 0]
        return greedy(model, *sources(arrays), length).ids

    return decode
