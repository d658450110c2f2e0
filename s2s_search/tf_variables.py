"""Weights by the original's variable names: a trained model of the original comes in, one of ours goes out.

A variable has the shape that the original gave it: matrices are [in, out], used as x W + b.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from s2s_search.errors import ConfigError, nearest
from s2s_search.nn.bridges import InitialStateBridge, ReadingBridge
from s2s_search.nn.cells import (
    BasicLSTMCell,
    BasicRNNCell,
    Cell,
    CoupledInputForgetGateLSTMCell,
    GRUBlockCell,
    GRUCell,
    LayerNormBasicLSTMCell,
    LSTMCell,
)
from s2s_search.nn.decoders import AttentionDecoder, BasicDecoder
from s2s_search.nn.encoders import (
    BidirectionalRNNEncoder,
    StackBidirectionalRNNEncoder,
    UnidirectionalRNNEncoder,
)
from s2s_search.nn.models import BasicSeq2Seq, Seq2Seq
from s2s_search.nn.stacks import StackedCell

Blocks = tuple[
    Tensor, ...
]  # views of parameters that the original keeps in one variable, one below the other
Variables = Iterator[tuple[str, Blocks]]


def variables(model: Seq2Seq) -> dict[str, Blocks]:
    """The model's parameters by the original's names, as views in the original's orientation."""
    prefix = "model/basic_seq2seq/" if isinstance(model, BasicSeq2Seq) else "model/att_seq2seq/"
    return {prefix + name: blocks for name, blocks in _model(model)}


def export_variables(model: Seq2Seq) -> dict[str, NDArray[np.float32]]:
    """The model's weights as {name: array}, copies that no longer change with the model."""
    return {
        name: torch.cat(blocks).detach().cpu().numpy() for name, blocks in variables(model).items()
    }


@torch.no_grad()
def load_variables(model: Seq2Seq, arrays: Mapping[str, ArrayLike]) -> None:
    """Sets all weights of a model from {name: array}.

    A bridge over the encoder's outputs becomes as long as the given one, before an optimizer sees its parameters.
    Raises ConfigError that lists every name missing, unknown or of another shape; the model is then unchanged.
    """
    given = {name: np.asarray(array) for name, array in arrays.items()}
    width = _bridge_width(model, given)
    own = variables(model)
    shapes = {name: (sum(map(len, blocks)), *blocks[0].shape[1:]) for name, blocks in own.items()}
    if width is not None:
        shapes |= {
            name: (width, shapes[name][1])
            for name in own
            if "_bridge/" in name and len(shapes[name]) == 2
        }
    problems = [f"no value for variable {name!r}" for name in own if name not in given]
    problems += [
        f"unknown variable {name!r}{nearest(name, own)}" for name in given if name not in own
    ]
    problems += [
        f"{name}: shape is {shape}, but the given array has {given[name].shape}"
        for name, shape in shapes.items()
        if name in given and given[name].shape != shape
    ]
    if problems:
        raise ConfigError(problems, where="load_variables")
    if width is not None and isinstance(model.bridge, ReadingBridge):
        model.bridge.resize(width)
    for name, blocks in variables(model).items():
        rows = torch.split(torch.tensor(given[name]), [len(block) for block in blocks])
        for block, values in zip(blocks, rows, strict=True):
            block.copy_(values)


def _bridge_width(model: Seq2Seq, given: Mapping[str, NDArray[np.float32]]) -> int | None:
    """How many values the given bridge reads of the encoder's outputs: whole positions. None when it reads none."""
    if not isinstance(model.bridge, ReadingBridge) or model.bridge.bridge_input != "outputs":
        return None
    widths = [len(array) for name, array in given.items() if "_bridge/" in name and array.ndim == 2]
    return widths[0] if widths and widths[0] % model.encoder.output_size == 0 else None


def _model(model: Seq2Seq) -> Variables:
    yield "source_embedding", (model.source_embedding.weight,)
    yield "target_embedding", (model.target_embedding.weight,)
    yield from _encoder(model.encoder)
    if isinstance(model.bridge, ReadingBridge):
        scope = (
            "initial_state_bridge"
            if isinstance(model.bridge, InitialStateBridge)
            else "concat_input_bridge"
        )
        for i, layer in enumerate(model.bridge.layers):
            yield from _linear(f"{scope}/fully_connected{f'_{i}' if i else ''}", layer)
    decoder = model.decoder
    if isinstance(decoder, AttentionDecoder):
        yield from _linear("attention/att_keys", decoder.attention.keys)
        yield from _linear("attention/att_query", decoder.attention.query)
        if decoder.attention.v is not None:
            yield "attention/v_att", (decoder.attention.v,)
        yield from _linear("attention_decoder/rnn_step/attention_mix", decoder.mix)
        yield from _linear("attention_decoder/rnn_step/logits", decoder.logits)
        yield from _stack("attention_decoder/rnn", decoder.cell)
    elif isinstance(decoder, BasicDecoder):
        yield from _linear("basic_decoder/rnn_step/fully_connected", decoder.logits)
        yield from _stack("basic_decoder/rnn", decoder.cell)


def _encoder(encoder: nn.Module) -> Variables:
    if isinstance(encoder, UnidirectionalRNNEncoder):
        yield from _stack("forward_rnn_encoder/rnn", encoder.cell)
    elif isinstance(encoder, BidirectionalRNNEncoder):
        yield from _directions("bidi_rnn_encoder/bidirectional_rnn", encoder)
    elif isinstance(encoder, StackBidirectionalRNNEncoder):
        for i, layer in enumerate(encoder.layers):
            yield from _directions(
                f"stacked_bidi_rnn_encoder/stack_bidirectional_rnn/cell_{i}/bidirectional_rnn",
                layer,
            )


def _directions(scope: str, encoder: nn.Module) -> Variables:
    assert isinstance(encoder, BidirectionalRNNEncoder)
    yield from _stack(f"{scope}/fw", encoder.forward_cell)
    yield from _stack(f"{scope}/bw", encoder.backward_cell)


def _stack(scope: str, stack: StackedCell) -> Variables:
    if len(stack.cells) == 1:
        yield from _cell(scope, stack.cells[0])
        return
    scope += "/extended_multi_rnn_cell"
    if stack.input_transform is not None:
        yield from _linear(f"{scope}/input_transform", stack.input_transform)
    for i, cell in enumerate(stack.cells):
        yield from _cell(f"{scope}/cell_{i}", cell)


def _linear(scope: str, layer: nn.Module) -> Variables:
    assert isinstance(layer, nn.Linear)
    yield f"{scope}/weights", (layer.weight.T,)
    yield f"{scope}/biases", (layer.bias,)


def _cell(scope: str, cell: Cell) -> Variables:
    if isinstance(cell, GRUCell):
        names: tuple[str, ...] = (
            "gru_cell/gates/weights",
            "gru_cell/gates/biases",
            "gru_cell/candidate/weights",
            "gru_cell/candidate/biases",
        )
        if isinstance(cell, GRUBlockCell):
            names = (
                "GRUBlockCell/w_ru",
                "GRUBlockCell/b_ru",
                "GRUBlockCell/w_c",
                "GRUBlockCell/b_c",
            )
        gates = 2 * cell.output_size
        yield f"{scope}/{names[0]}", (cell.input_weights[:, :gates], cell.gate_weights)
        yield f"{scope}/{names[1]}", (cell.biases[:gates],)
        yield f"{scope}/{names[2]}", (cell.input_weights[:, gates:], cell.candidate_weights)
        yield f"{scope}/{names[3]}", (cell.biases[gates:],)
    elif isinstance(cell, BasicRNNCell):
        yield f"{scope}/basic_rnn_cell/weights", (cell.input_weights, cell.recurrent_weights)
        yield f"{scope}/basic_rnn_cell/biases", (cell.biases,)
    elif isinstance(cell, LSTMCell):
        kind, names = _lstm_names(cell)
        yield f"{scope}/{kind}/{names[0]}", (cell.input_weights, cell.recurrent_weights)
        rest = (cell.biases, cell.w_f_diag, cell.w_i_diag, cell.w_o_diag, cell.projection)
        yield from (
            (f"{scope}/{kind}/{n}", (t,))
            for n, t in zip(names[1:], rest, strict=True)
            if t is not None
        )
        if (
            isinstance(cell, LayerNormBasicLSTMCell)
            and cell.gamma is not None
            and cell.beta is not None
        ):
            for gate in cell.GATES:
                yield f"{scope}/{kind}/{gate}/gamma", (cell.gamma[gate],)
                yield f"{scope}/{kind}/{gate}/beta", (cell.beta[gate],)


def _lstm_names(cell: LSTMCell) -> tuple[str, tuple[str, ...]]:
    """The scope of an LSTM, and its names for kernel, biases, the peepholes of f, i and o, and projection."""
    names = ("weights", "biases", "w_f_diag", "w_i_diag", "w_o_diag", "projection/weights")
    if isinstance(cell, CoupledInputForgetGateLSTMCell):
        return "coupled_input_forget_gate_lstm_cell", (
            "W_0",
            "B",
            "W_F_diag",
            "W_I_diag",
            "W_O_diag",
            "W_P_0",
        )
    if isinstance(cell, LayerNormBasicLSTMCell):
        return "layer_norm_basic_lstm_cell", names
    return "basic_lstm_cell" if isinstance(
        cell, BasicLSTMCell
    ) else "lstm_cell", names  # LSTMBlockCell's is lstm_cell, too
