"""Weights by the variable names of Google's seq2seq: its trained models are read, ours are written.

A variable has the shape that it has there: matrices are [inputs, outputs], used as x W + b. The
functions `_model` to `_cell` list the variables of a part of a model below a scope, as the original
nests its scopes.
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

# Views of the parameters that the original keeps in one variable, one below the other.
Blocks = tuple[Tensor, ...]
Variables = Iterator[tuple[str, Blocks]]


def variables(model: Seq2Seq) -> dict[str, Blocks]:
    """Returns the model's parameters by the original's names, as views of the original's shape."""
    prefix = "model/basic_seq2seq/" if isinstance(model, BasicSeq2Seq) else "model/att_seq2seq/"
    return {prefix + name: blocks for name, blocks in _model(model)}


def export_variables(model: Seq2Seq) -> dict[str, NDArray[np.float32]]:
    """Returns copies of the model's weights as {name: array}."""
    arrays: dict[str, NDArray[np.float32]] = {}
    for name, blocks in variables(model).items():
        arrays[name] = torch.cat(blocks).detach().cpu().numpy()
    return arrays


@torch.no_grad()
def load_variables(model: Seq2Seq, arrays: Mapping[str, ArrayLike]) -> None:
    """Sets all weights of a model from {name: array}.

    A bridge that reads the encoder's outputs gets the length of the given bridge. Its parameters
    are then new ones, so the optimizer must be made afterwards.

    Raises:
        ConfigError: names are missing or unknown, or arrays have another shape. It lists all of
            them, and the model is unchanged.
    """
    given = {name: np.asarray(array) for name, array in arrays.items()}
    width = _bridge_width(model, given)
    own = variables(model)
    shapes = {name: (sum(map(len, blocks)), *blocks[0].shape[1:]) for name, blocks in own.items()}
    if width is not None:
        for name, shape in shapes.items():
            if "_bridge/" in name and len(shape) == 2:
                shapes[name] = (width, shape[1])
    problems = [f"no value for variable {name!r}" for name in own if name not in given]
    for name in given:
        if name not in own:
            problems.append(f"unknown variable {name!r}{nearest(name, own)}")
    for name, shape in shapes.items():
        if name in given and given[name].shape != shape:
            found = given[name].shape
            problems.append(f"{name}: shape is {shape}, but the given array has {found}")
    if problems:
        raise ConfigError(problems, where="load_variables")
    if width is not None and isinstance(model.bridge, ReadingBridge):
        model.bridge.resize(width)
    for name, blocks in variables(model).items():
        rows = torch.split(torch.tensor(given[name]), [len(block) for block in blocks])
        for block, values in zip(blocks, rows, strict=True):
            block.copy_(values)


def _bridge_width(model: Seq2Seq, given: Mapping[str, NDArray[np.float32]]) -> int | None:
    """Returns the number of values that the given bridge reads of the encoder's outputs.

    Returns None when the model's bridge does not read them, or when the number is not a whole
    number of positions.
    """
    if not isinstance(model.bridge, ReadingBridge) or model.bridge.bridge_input != "outputs":
        return None
    for name, array in given.items():
        if "_bridge/" in name and array.ndim == 2:
            width = len(array)
            return width if width % model.encoder.output_size == 0 else None
    return None


def _model(model: Seq2Seq) -> Variables:
    yield "source_embedding", (model.source_embedding.weight,)
    yield "target_embedding", (model.target_embedding.weight,)
    yield from _encoder(model.encoder)
    if isinstance(model.bridge, ReadingBridge):
        scope = "concat_input_bridge"
        if isinstance(model.bridge, InitialStateBridge):
            scope = "initial_state_bridge"
        for i, layer in enumerate(model.bridge.layers):
            name = f"fully_connected_{i}" if i else "fully_connected"
            yield from _linear(f"{scope}/{name}", layer)
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
        scope = "stacked_bidi_rnn_encoder/stack_bidirectional_rnn"
        for i, layer in enumerate(encoder.layers):
            yield from _directions(f"{scope}/cell_{i}/bidirectional_rnn", layer)


def _directions(scope: str, encoder: nn.Module) -> Variables:
    assert isinstance(encoder, BidirectionalRNNEncoder)
    yield from _stack(f"{scope}/fw", encoder.forward_cell)
    yield from _stack(f"{scope}/bw", encoder.backward_cell)


def _stack(scope: str, stack: StackedCell) -> Variables:
    if len(stack.cells) == 1:
        yield from _cell_variables(scope, stack.cells[0])
        return
    scope += "/extended_multi_rnn_cell"
    if stack.input_transform is not None:
        yield from _linear(f"{scope}/input_transform", stack.input_transform)
    for i, cell in enumerate(stack.cells):
        yield from _cell_variables(f"{scope}/cell_{i}", cell)


def _linear(scope: str, layer: nn.Module) -> Variables:
    assert isinstance(layer, nn.Linear)
    yield f"{scope}/weights", (layer.weight.T,)
    yield f"{scope}/biases", (layer.bias,)


def _cell_variables(scope: str, cell: Cell) -> Variables:
    if isinstance(cell, GRUCell):
        kind = "gru_cell"
        names = ("gates/weights", "gates/biases", "candidate/weights", "candidate/biases")
        if isinstance(cell, GRUBlockCell):
            kind, names = "GRUBlockCell", ("w_ru", "b_ru", "w_c", "b_c")
        scope += f"/{kind}"
        gates = 2 * cell.output_size
        yield f"{scope}/{names[0]}", (cell.input_weights[:, :gates], cell.gate_weights)
        yield f"{scope}/{names[1]}", (cell.biases[:gates],)
        yield f"{scope}/{names[2]}", (cell.input_weights[:, gates:], cell.candidate_weights)
        yield f"{scope}/{names[3]}", (cell.biases[gates:],)
    elif isinstance(cell, BasicRNNCell):
        yield f"{scope}/basic_rnn_cell/weights", (cell.input_weights, cell.recurrent_weights)
        yield f"{scope}/basic_rnn_cell/biases", (cell.biases,)
    elif isinstance(cell, LSTMCell):
        kind, lstm_names = _lstm_names(cell)
        scope += f"/{kind}"
        yield f"{scope}/{lstm_names[0]}", (cell.input_weights, cell.recurrent_weights)
        rest = (cell.biases, cell.w_f_diag, cell.w_i_diag, cell.w_o_diag, cell.projection)
        for name, parameter in zip(lstm_names[1:], rest, strict=True):
            if parameter is not None:
                yield f"{scope}/{name}", (parameter,)
        if isinstance(cell, LayerNormBasicLSTMCell):
            if cell.gamma is None or cell.beta is None:
                return
            for gate in cell.GATES:
                yield f"{scope}/{gate}/gamma", (cell.gamma[gate],)
                yield f"{scope}/{gate}/beta", (cell.beta[gate],)


def _lstm_names(cell: LSTMCell) -> tuple[str, tuple[str, ...]]:
    """Returns the scope of an LSTM and the names of its variables.

    The order is kernel, biases, peepholes of f, i and o, projection.
    """
    names = ("weights", "biases", "w_f_diag", "w_i_diag", "w_o_diag", "projection/weights")
    if isinstance(cell, CoupledInputForgetGateLSTMCell):
        coupled = ("W_0", "B", "W_F_diag", "W_I_diag", "W_O_diag", "W_P_0")
        return "coupled_input_forget_gate_lstm_cell", coupled
    if isinstance(cell, LayerNormBasicLSTMCell):
        return "layer_norm_basic_lstm_cell", names
    if isinstance(cell, BasicLSTMCell):
        return "basic_lstm_cell", names
    return "lstm_cell", names  # of LSTMCell and of LSTMBlockCell
