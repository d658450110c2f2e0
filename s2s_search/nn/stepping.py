"""A decoder's step, prepared for many steps without gradients: constant parts are computed once.

B sources · K hypotheses of each source · S source positions · M memory units
H cell output units · A attention units · V target vocabulary
The rows of a tensor [B * K, ...] are the hypotheses, those of one source side by side.
"""

import copy
from collections.abc import Sequence
from typing import Protocol, overload

import torch
from torch import Tensor

from s2s_search.nn.attention import Attention, Memory
from s2s_search.nn.cells import Cell, State
from s2s_search.nn.decoders import AttentionDecoder, BasicDecoder
from s2s_search.nn.encoders import EncoderOutput
from s2s_search.nn.ensembles import (
    AnyEncoding,
    AnyModel,
    Encodings,
    Ensemble,
    mean_log_probs,
    members,
)
from s2s_search.nn.fast import cell_loops
from s2s_search.nn.fast.matmul import addmm, mm
from s2s_search.nn.models import Encoding, Seq2Seq

# The largest vocabulary for which a table of projected embeddings pays, in rows of a step: a batch
# looks up its rows at a few tens of steps.
ROWS_OF_A_TABLE = 10
# The smallest width of the values, in source positions, for which projecting them pays.
MEMORY_OVER_POSITIONS = 5


class Stepper(Protocol):
    """Decodes B sources with K hypotheses each, step by step.

    Only the stepper that made a state can read it: the steppers differ in what they keep of
    attention (PlainStepper, PreparedStepper). A caller may select and reorder a state's rows.
    """

    def start(self) -> State:
        """Returns the state [B * K, ...] before the first step."""

    def step(self, ids: Tensor, state: State) -> tuple[Tensor, State, Tensor | None]:
        """Returns the logits [B * K, V], the next state and the weights [B * K, S] or None.

        The ids [B * K] are the target tokens of the step before.
        """

    def select(self, sources: Tensor) -> "Stepper":
        """Returns a stepper for some of the sources, given their indices."""


def make_stepper(model: AnyModel, encoding: AnyEncoding, beams: int) -> Stepper:
    """Returns the fastest stepper for the decoder; all compute what PlainStepper does.

    The stepper of an ensemble has those of its models.
    """
    if isinstance(model, Ensemble):
        return EnsembleStepper([make_stepper(*each, beams) for each in members(model, encoding)])
    assert isinstance(encoding, Encoding)
    if model.decoder.cell.residual:
        return PlainStepper(model, encoding, beams)
    return PreparedStepper(model, encoding, beams)


class PlainStepper:
    """Calls the decoder's own step. The state is the decoder's: the cell's and the last context."""

    def __init__(self, model: Seq2Seq, encoding: Encoding, beams: int) -> None:
        self.model, self.encoding, self.beams = model, encoding, beams
        self.repeated = repeated(encoding, beams)

    def start(self) -> State:
        return self.model.decoder.start(self.repeated.state, self.repeated.memory)

    def step(self, ids: Tensor, state: State) -> tuple[Tensor, State, Tensor | None]:
        x = self.model.decoder_input(ids, self.repeated.extra)
        return self.model.decoder.step(x, state, self.repeated.memory)

    def select(self, sources: Tensor) -> "PlainStepper":
        return PlainStepper(self.model, selected(self.encoding, sources), self.beams)


class PreparedStepper:
    """Computes the constant parts of a step once; not for residual connections.

    The first layer's input is [embedding, bridge vector, context], so its projection is a sum of
    three. The first is looked up in a table, the second is the same at every step. With attention
    and z = W_mix [y, context] + b_mix,

    logits = W tanh(z) + b = 2 W sigmoid(2 z) + b - W · 1

    since on a CPU a tanh costs three sigmoids.

    The state is the cell's state, and with attention one tensor more: the last context
    [B * K, M], or the last weights [B * K, S] if PreparedAttention has projected the values.
    """

    def __init__(self, model: Seq2Seq, encoding: Encoding, beams: int) -> None:
        decoder = model.decoder
        assert isinstance(decoder, BasicDecoder | AttentionDecoder)
        self.encoding, self.beams, self.cell = encoding, beams, decoder.cell
        self.layers = [prepared_layer(cell) for cell in decoder.cell.cells]
        first, self.embeddings = self.layers[0], model.target_embedding.weight
        width = self.embeddings.shape[1]
        extra_width = 0 if encoding.extra is None else encoding.extra.shape[1]
        self.of_embedding, of_extra, of_context = first.input_weights.tensor_split(
            [width, width + extra_width]
        )
        self.table: Tensor | None = None
        if len(self.embeddings) <= ROWS_OF_A_TABLE * beams * len(encoding.encoder_output.outputs):
            self.table = addmm(first.biases, self.embeddings, self.of_embedding)
        self.constant: Tensor | None = None  # the bridge vector's part of the gates [B, 1, gates]
        if encoding.extra is not None:
            self.constant = (encoding.extra @ of_extra).unsqueeze(1)
        self.weights, self.biases = decoder.logits.weight.t(), decoder.logits.bias.detach()
        self.attention: PreparedAttention | None = None
        if encoding.memory is not None and isinstance(decoder, AttentionDecoder):
            self.mix_of_y, mix_of_context = (2.0 * decoder.mix.weight.t()).tensor_split(
                [decoder.cell.output_size]
            )
            self.mix_biases = 2.0 * decoder.mix.bias
            self.weights, self.biases = 2.0 * self.weights, self.biases - self.weights.sum(0)
            self.attention = PreparedAttention(
                decoder.attention, encoding.memory, beams, (of_context, mix_of_context)
            )

    def start(self) -> State:
        state = tuple(tensor.repeat_interleave(self.beams, dim=0) for tensor in self.encoding.state)
        if self.attention is None:
            return state
        return (*state, self.attention.start())

    def step(self, ids: Tensor, state: State) -> tuple[Tensor, State, Tensor | None]:
        if self.table is not None:
            projected = self.table.index_select(0, ids)
        else:
            first = self.layers[0]
            projected = addmm(first.biases, self.embeddings.index_select(0, ids), self.of_embedding)
        if self.constant is not None:
            projected.view(-1, self.beams, projected.shape[1]).add_(self.constant)
        if self.attention is None:
            y, state = self.run_layers(projected, state)
            return addmm(self.biases, y, self.weights), state, None
        cell_state, last = state[:-1], state[-1]
        projected = self.attention.add_context(0, projected, last)
        y, cell_state = self.run_layers(projected, cell_state)
        last, weights = self.attention(y)
        mix = self.attention.add_context(1, addmm(self.mix_biases, y, self.mix_of_y), last)
        return addmm(self.biases, mix.sigmoid_(), self.weights), (*cell_state, last), weights

    def run_layers(self, projected: Tensor, state: State) -> tuple[Tensor, State]:
        """Returns the top layer's output and the next state of the cell, for projected inputs."""
        states = self.cell.layer_states(state)
        y, new = self.layers[0].step(projected, states[0])
        for layer, layer_state in zip(self.layers[1:], states[1:], strict=True):
            y, layer_state = layer.step(addmm(layer.biases, y, layer.input_weights), layer_state)
            new += layer_state
        return y, new

    def select(self, sources: Tensor) -> "PreparedStepper":
        fewer = copy.copy(self)
        fewer.encoding = selected(self.encoding, sources)
        fewer.constant = None if self.constant is None else self.constant[sources]
        fewer.attention = None if self.attention is None else self.attention.select(sources)
        return fewer


class EnsembleStepper:
    """Averages the distributions of several steppers, whose states it has side by side.

    The logits are log probabilities. There are no weights: models that read the source in different
    orders have different positions.
    """

    def __init__(self, steppers: Sequence[Stepper]) -> None:
        self.steppers = steppers
        self.sizes: list[int] = []  # the number of tensors in the state of each

    def start(self) -> State:
        states = [stepper.start() for stepper in self.steppers]
        self.sizes = [len(state) for state in states]
        return tuple(tensor for state in states for tensor in state)

    def step(self, ids: Tensor, state: State) -> tuple[Tensor, State, None]:
        logits = []
        after: State = ()
        first = 0
        for stepper, size in zip(self.steppers, self.sizes, strict=True):
            of_model, new, _ = stepper.step(ids, state[first : first + size])
            logits.append(of_model)
            after += new
            first += size
        return mean_log_probs(logits), after, None

    def select(self, sources: Tensor) -> "EnsembleStepper":
        fewer = copy.copy(self)
        fewer.steppers = [stepper.select(sources) for stepper in self.steppers]
        return fewer


class Layer:
    """A layer of cells. Its step reads x `input_weights` + `biases` and may overwrite it."""

    def __init__(self, cell: Cell) -> None:
        self.cell, self.input_weights = cell, cell.input_weights.detach()
        self.biases = cell.project(self.input_weights.new_zeros(cell.input_size))

    def step(self, projected: Tensor, state: State) -> tuple[Tensor, State]:
        return self.cell.step(projected, state)


class LSTMLayer(Layer):
    """A layer of LSTM cells with one sigmoid for all gates.

    c' = sigmoid(f) c + sigmoid(i) (2 sigmoid(2 j) - 1)
    h' = sigmoid(o) (2 sigmoid(2 c') - 1)

    The weights of the candidate j are doubled beforehand.
    """

    def __init__(self, cell: Cell, recurrence: cell_loops.Recurrence) -> None:
        super().__init__(cell)
        input_weights, recurrent_weights, biases = recurrence.weights
        units = len(recurrent_weights)
        scale = torch.ones_like(biases)
        scale[units : 2 * units] = 2.0
        self.input_weights = input_weights * scale
        self.recurrent_weights = recurrent_weights * scale
        self.biases = biases * scale

    def step(self, projected: Tensor, state: State) -> tuple[Tensor, State]:
        c, h = state
        gates = addmm(projected, h, self.recurrent_weights, out=projected).sigmoid_()
        i, j, f, o = gates.chunk(4, dim=-1)
        c = (f * c).addcmul_(i, j, value=2.0).sub_(i)
        h = (2.0 * c).sigmoid_().mul_(o).mul_(2.0).sub_(o)
        return h, (c, h)


def prepared_layer(cell: Cell) -> Layer:
    """Returns the fastest layer for a cell."""
    recurrence = cell.recurrence()
    if recurrence is not None and recurrence.steps is cell_loops.LSTMSteps:
        return LSTMLayer(cell, recurrence)
    return Layer(cell)


class PreparedAttention:
    """Attention to a memory by the queries [B, K, H] of all hypotheses.

    Additive scores are v · tanh(k + W q) = 2 v · sigmoid(2 k + 2 W q) - v · 1. The last cancels
    in the softmax.

    A step needs the context only in products with two matrices W:
    context W = (weights values) W = weights (values W). If it pays to compute values W once, a call
    returns the weights [B * K, S] in place of the context [B * K, M].
    """

    def __init__(
        self, attention: Attention, memory: Memory, beams: int, matrices: Sequence[Tensor]
    ) -> None:
        self.beams, self.values, self.matrices = beams, memory.values, matrices
        self.projected_values: list[Tensor] | None = None
        if beams > 1 and memory.values.shape[1] * MEMORY_OVER_POSITIONS <= memory.values.shape[2]:
            self.projected_values = [memory.values @ matrix for matrix in matrices]
        self.biases, self.v, self.weight = memory.biases.unsqueeze(1), None, None
        if attention.v is None:
            self.keys = memory.keys.transpose(1, 2).contiguous()  # [B, H, S]
        else:
            self.v, self.weight = 2.0 * attention.v, 2.0 * attention.query.weight.t()
            self.keys = (2.0 * memory.keys).unsqueeze(1)  # [B, 1, S, A]

    def start(self) -> Tensor:
        """Returns what `__call__` would return for a context of zeros."""
        batch, positions, memory = self.values.shape
        width = memory if self.projected_values is None else positions
        return self.values.new_zeros(batch * self.beams, width)

    def __call__(self, query: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the argument of `add_context` and the weights [B * K, S], for queries [B * K, H].

        The first is the context [B * K, M], or the weights again if the values are projected.
        """
        if self.v is None or self.weight is None:
            scores = torch.baddbmm(
                self.biases, query.view(-1, self.beams, query.shape[1]), self.keys
            )
        else:
            projected = mm(query, self.weight).view(-1, self.beams, 1, self.weight.shape[1])
            scores = (self.keys + projected).sigmoid_() @ self.v + self.biases
        weights = torch.softmax(scores, dim=-1)
        last = weights @ self.values if self.projected_values is None else weights
        return last.flatten(0, 1), weights.flatten(0, 1)

    def add_context(self, k: int, to: Tensor, last: Tensor) -> Tensor:
        """Adds context W to a tensor [B * K, ...] in place, for W the matrix of index k."""
        if self.projected_values is None:
            return addmm(to, last, self.matrices[k], out=to)
        by_source = to.view(-1, self.beams, to.shape[1])
        by_source.baddbmm_(last.view(-1, self.beams, last.shape[1]), self.projected_values[k])
        return to

    def select(self, sources: Tensor) -> "PreparedAttention":
        fewer = copy.copy(self)
        fewer.values = self.values[sources]
        fewer.biases = self.biases[sources]
        fewer.keys = self.keys[sources]
        if self.projected_values is not None:
            fewer.projected_values = [values[sources] for values in self.projected_values]
        return fewer


def repeated(encoding: Encoding, times: int) -> Encoding:
    """Returns the encoding with each source `times` times in a row."""
    outputs = encoding.encoder_output.outputs
    sources = torch.arange(len(outputs), device=outputs.device)
    return selected(encoding, sources.repeat_interleave(times))


@overload
def selected(encoding: Encoding, sources: Tensor) -> Encoding: ...


@overload
def selected(encoding: AnyEncoding, sources: Tensor) -> AnyEncoding: ...


def selected(encoding: AnyEncoding, sources: Tensor) -> AnyEncoding:
    """Returns the encoding of some sources, given their indices."""
    if isinstance(encoding, Encodings):
        return Encodings(tuple(selected(each, sources) for each in encoding.members))

    def each(tensor: Tensor) -> Tensor:
        return tensor.index_select(0, sources)

    outputs, final_state, lengths = encoding.encoder_output
    return Encoding(
        EncoderOutput(each(outputs), tuple(map(each, final_state)), each(lengths)),
        tuple(map(each, encoding.state)),
        None if encoding.extra is None else each(encoding.extra),
        None if encoding.memory is None else Memory(*map(each, encoding.memory)),
    )
