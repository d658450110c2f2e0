"""A decoder's step for many steps in a row, without gradients: what does not change from step to step is computed once.

B sources · K hypotheses of each · S source positions · M memory units · H cell output units · A attention units ·
V vocabulary. Rows are the B * K hypotheses, those of one source side by side.
"""

import copy
from typing import Protocol

import torch
from torch import Tensor

from s2s_search.nn.attention import Attention, Memory
from s2s_search.nn.cells import StackedCell, State
from s2s_search.nn.decoders import AttentionDecoder, BasicDecoder
from s2s_search.nn.encoders import EncoderOutput
from s2s_search.nn.models import Encoding, Seq2Seq

# A table pays when the vocabulary is not much larger than the rows of a step: they look up a few tens of times.
ROWS_OF_A_TABLE = 10


class Stepper(Protocol):
    """Decodes B sources with K hypotheses each, step by step."""

    def start(self) -> State:
        """The state [B * K, ...] before the first step."""

    def step(self, ids: Tensor, state: State) -> tuple[Tensor, State, Tensor | None]:
        """Computes logits [B * K, V], the next state and weights [B * K, S] or None from target ids [B * K]."""

    def select(self, sources: Tensor) -> "Stepper":
        """A stepper for some of the sources, by their indices."""


def make_stepper(model: Seq2Seq, encoding: Encoding, beams: int) -> Stepper:
    """The fastest stepper that the decoder's configuration allows; all compute what PlainStepper does."""
    if model.decoder.cell.residual:
        return PlainStepper(model, encoding, beams)
    return PreparedStepper(model, encoding, beams)


class PlainStepper:
    """Steps as the decoder defines it."""

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
    """Steps with all that never changes prepared; not for residual connections.

    The hypotheses of a source share its memory. The first layer's input is [embedding, bridge vector, context], so its
    projection is a sum of three: the first is looked up in a table, the second is the same at every step.
    """

    def __init__(self, model: Seq2Seq, encoding: Encoding, beams: int) -> None:
        self.model, self.encoding, self.beams = model, encoding, beams
        self.cell: StackedCell = model.decoder.cell
        first, embeddings = self.cell.cells[0], model.target_embedding.weight
        width, extra_width = embeddings.shape[1], 0 if encoding.extra is None else encoding.extra.shape[1]
        of_embedding, of_extra, self.of_context = torch.split(
            first.input_weights, [width, extra_width, first.input_size - width - extra_width]
        )
        self.bias = first.project(embeddings.new_zeros(1, first.input_size))
        self.embeddings, self.of_embedding, self.table = embeddings, of_embedding, None
        if len(embeddings) <= ROWS_OF_A_TABLE * beams * len(encoding.encoder_output.outputs):
            self.table = torch.addmm(self.bias, embeddings, of_embedding)
        self.constant = None if encoding.extra is None else (encoding.extra @ of_extra).repeat_interleave(beams, dim=0)
        self.attention: PreparedAttention | None = None
        if encoding.memory is not None and isinstance(model.decoder, AttentionDecoder):
            self.attention = PreparedAttention(model.decoder.attention, encoding.memory)

    def start(self) -> State:
        state = tuple(tensor.repeat_interleave(self.beams, dim=0) for tensor in self.encoding.state)
        if self.attention is None:
            return state
        return (*state, state[0].new_zeros(len(state[0]), self.attention.values.shape[-1]))

    def step(self, ids: Tensor, state: State) -> tuple[Tensor, State, Tensor | None]:
        if self.table is not None:
            projected = self.table.index_select(0, ids)
        else:
            projected = torch.addmm(self.bias, self.embeddings.index_select(0, ids), self.of_embedding)
        if self.constant is not None:
            projected = projected + self.constant
        decoder = self.model.decoder
        if self.attention is None:
            y, state = self.run_layers(projected, state)
            assert isinstance(decoder, BasicDecoder)
            return decoder.logits(y), state, None
        y, cell_state = self.run_layers(torch.addmm(projected, state[-1], self.of_context), state[:-1])
        context, weights = self.attention(y.view(-1, self.beams, y.shape[1]))
        context = context.view(len(y), -1)
        assert isinstance(decoder, AttentionDecoder)
        return decoder.predict(y, context), (*cell_state, context), weights.view(len(y), -1)

    def run_layers(self, projected: Tensor, state: State) -> tuple[Tensor, State]:
        first, *others = zip(self.cell.cells, self.cell.layer_states(state), strict=True)
        y, states = first[0].step(projected, first[1])
        for cell, layer_state in others:
            y, layer_state = cell(y, layer_state)
            states += layer_state
        return y, states

    def select(self, sources: Tensor) -> "PreparedStepper":
        fewer = copy.copy(self)
        fewer.encoding = selected(self.encoding, sources)
        if self.constant is not None:
            rows = torch.arange(len(self.constant), device=sources.device).view(-1, self.beams)[sources].flatten()
            fewer.constant = self.constant[rows]
        if self.attention is not None:
            fewer.attention = self.attention.select(sources)
        return fewer


class PreparedAttention:
    """Attention whose scores take a query [B, K, H] as it is.

    dot       k · (W q + b) = (W' k) · q + k · b
    bahdanau  v · tanh(k + W q + b) = 2 v · sigmoid(2 k + 2 b + 2 W q) - v · 1, of which the last cancels in the softmax
    """

    def __init__(self, attention: Attention, memory: Memory) -> None:
        weight, bias = attention.query.weight, attention.query.bias
        self.values = memory.values
        self.padding = torch.zeros_like(memory.keys[..., 0]).masked_fill(~memory.mask, -torch.inf).unsqueeze(1)
        self.v = self.weight = None
        if attention.v is None:
            self.padding = self.padding + (memory.keys @ bias).unsqueeze(1)
            self.keys = (memory.keys @ weight).transpose(1, 2).contiguous()  # [B, H, S]
        else:
            self.v, self.weight = 2 * attention.v, 2 * weight.T
            self.keys = (2 * (memory.keys + bias)).unsqueeze(1)  # [B, 1, S, A]

    def __call__(self, query: Tensor) -> tuple[Tensor, Tensor]:
        """Returns contexts [B, K, M] and weights [B, K, S]."""
        if self.v is None or self.weight is None:
            scores = torch.baddbmm(self.padding, query, self.keys)
        else:
            scores = torch.sigmoid(self.keys + (query @ self.weight).unsqueeze(2)) @ self.v + self.padding
        weights = torch.softmax(scores, dim=-1)
        return weights @ self.values, weights

    def select(self, sources: Tensor) -> "PreparedAttention":
        fewer = copy.copy(self)
        fewer.values, fewer.padding, fewer.keys = self.values[sources], self.padding[sources], self.keys[sources]
        return fewer


def repeated(encoding: Encoding, times: int) -> Encoding:
    """The encoding with each source `times` times in a row."""
    count = len(encoding.encoder_output.outputs)
    return selected(
        encoding, torch.arange(count, device=encoding.encoder_output.outputs.device).repeat_interleave(times)
    )


def selected(encoding: Encoding, sources: Tensor) -> Encoding:
    """The encoding of some sources, by their indices."""

    def each(tensor: Tensor) -> Tensor:
        return tensor.index_select(0, sources)

    outputs, final_state, lengths = encoding.encoder_output
    return Encoding(
        EncoderOutput(each(outputs), tuple(map(each, final_state)), each(lengths)),
        tuple(map(each, encoding.state)),
        None if encoding.extra is None else each(encoding.extra),
        None if encoding.memory is None else Memory(*map(each, encoding.memory)),
    )
