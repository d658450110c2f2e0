"""Decoders: target embeddings in, logits out, with or without attention.

B batch · S source positions · T target steps · X input units · H cell output units · M memory units · V vocabulary
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from s2s_search.nn.attention import Attention, Memory
from s2s_search.nn.cells import State, linear
from s2s_search.nn.encoders import EncoderOutput
from s2s_search.nn.fast.attention_loops import attend
from s2s_search.nn.fast.cell_loops import Recurrence
from s2s_search.nn.fast.loss import cross_entropy
from s2s_search.nn.stacks import Embedded, StackedCell, positions_within

# Where more of the steps than this lie within their rows' lengths, to sort the rows costs more than it saves.
LIVE_ENOUGH = 0.95


class DecoderOutput(NamedTuple):
    """Logits [B, T, V]; with attention, its weights [B, T, S] and contexts [B, T, M]; all zero past a row's end."""

    logits: Tensor
    weights: Tensor | None = None
    contexts: Tensor | None = None


class Unrolled(NamedTuple):
    """The recurrent part of all steps: the cell's outputs [B, T, H]; with attention, its contexts [B, T, M] and weights
    [B, T, S]; not defined past a row's end."""

    outputs: Tensor
    contexts: Tensor | None = None
    weights: Tensor | None = None


class Decoder(nn.Module):
    """Predicts target tokens step by step, from a state that a bridge made and a memory, None without attention."""

    cell: StackedCell
    logits: nn.Linear
    mix: nn.Linear | None

    def remember(self, encoded: EncoderOutput) -> Memory | None:
        """What of the encoder's output the steps look at."""
        raise NotImplementedError

    def start(self, state: State, memory: Memory | None) -> State:
        """The decoder's state before the first step, from the cell's."""
        raise NotImplementedError

    def step(
        self, x: Tensor, state: State, memory: Memory | None
    ) -> tuple[Tensor, State, Tensor | None]:
        """Computes one step: input x [B, X] -> logits [B, V], the next state, attention weights [B, S] or None."""
        raise NotImplementedError

    def recur(self, x: Embedded, lengths: Tensor, state: State, memory: Memory | None) -> Unrolled:
        """Computes the recurrent part of all steps for given inputs x [B, T, X] of which `lengths` [B] are real."""
        raise NotImplementedError

    def predict(self, outputs: Tensor, contexts: Tensor | None) -> Tensor:
        """The logits [..., V] of cell outputs [..., H] and contexts [..., M]."""
        raise NotImplementedError

    def unroll(
        self, x: Embedded, lengths: Tensor, state: State, memory: Memory | None
    ) -> DecoderOutput:
        """Computes all steps for given inputs x [B, T, X] (teacher forcing) of which `lengths` [B] are real."""
        outputs, contexts, weights = self.recur(x, lengths, state, memory)
        ended = ~positions_within(lengths, outputs.shape[1]).unsqueeze(-1)
        logits = self.predict(outputs, contexts).masked_fill(ended, 0.0)
        return DecoderOutput(
            logits, *(t if t is None else t.masked_fill(ended, 0.0) for t in (weights, contexts))
        )

    def loss(
        self, x: Embedded, targets: Tensor, lengths: Tensor, state: State, memory: Memory | None
    ) -> Tensor:
        """The cross-entropy in nats of target ids [B, T] for inputs x [B, T, X], summed over the real steps."""
        outputs, contexts, _ = self.recur(x, lengths, state, memory)
        live, index = positions_within(lengths, targets.shape[1]), None
        if (rows := live_rows(lengths, targets.shape[1])) is not None:
            index = live.t().flatten().argsort(descending=True, stable=True)[: sum(rows)]

        def column(tensor: Tensor) -> Tensor:
            """Makes [N, ...] of [B, T, ...], time first, as it lies in memory."""
            tensor = tensor.transpose(0, 1).flatten(0, 1)
            return tensor if index is None else tensor.index_select(0, index)

        of_context = None if contexts is None else column(contexts)
        return cross_entropy(
            column(targets), column(live), column(outputs), of_context, self.mix, self.logits
        )


class BasicDecoder(Decoder):
    """Predicts from the cell's output alone: logits = W y + b."""

    def __init__(self, cell: StackedCell, vocabulary_size: int) -> None:
        super().__init__()
        self.cell = cell
        self.mix = None
        self.logits = linear(cell.output_size, vocabulary_size)

    def remember(self, encoded: EncoderOutput) -> None:
        return None

    def start(self, state: State, memory: Memory | None) -> State:
        return state

    def step(self, x: Tensor, state: State, memory: Memory | None) -> tuple[Tensor, State, None]:
        y, state = self.cell(x, state)
        return self.logits(y), state, None

    def recur(self, x: Embedded, lengths: Tensor, state: State, memory: Memory | None) -> Unrolled:
        return Unrolled(self.cell.unroll(x, lengths, state)[0])

    def predict(self, outputs: Tensor, contexts: Tensor | None) -> Tensor:
        logits: Tensor = self.logits(outputs)
        return logits


class AttentionDecoder(Decoder):
    """Predicts from the cell's output and the source positions that it attends to (Bahdanau et al., 2015).

    y_t, s_t = cell([x_t, context_{t-1}], s_{t-1}),  context_t = attention(y_t, memory),
    logits_t = W tanh(W_mix [y_t, context_t] + b_mix) + b

    The first context is zero. The decoder's state is the cell's state and the last context.
    """

    mix: nn.Linear

    def __init__(
        self, cell: StackedCell, attention: Attention, memory_size: int, vocabulary_size: int
    ) -> None:
        super().__init__()
        self.cell, self.attention = cell, attention
        self.mix = linear(cell.output_size + memory_size, cell.output_size)
        self.logits = linear(cell.output_size, vocabulary_size)

    def remember(self, encoded: EncoderOutput) -> Memory:
        return self.attention.precompute(encoded.outputs, encoded.lengths)

    def start(self, state: State, memory: Memory | None) -> State:
        assert memory is not None
        return (*state, memory.values.new_zeros(len(memory.values), memory.values.shape[-1]))

    def attend(
        self, x: Tensor, state: State, memory: Memory | None
    ) -> tuple[Tensor, State, Tensor]:
        """Computes the recurrent part of a step: the cell's output [B, H], the next state, the weights [B, S]."""
        assert memory is not None
        *cell_state, context = state
        y, cell_state_ = self.cell(torch.cat([x, context], dim=-1), tuple(cell_state))
        context, weights = self.attention(y, memory)
        return y, (*cell_state_, context), weights

    def predict(self, outputs: Tensor, contexts: Tensor | None) -> Tensor:
        assert contexts is not None
        logits: Tensor = self.logits(torch.tanh(self.mix(torch.cat([outputs, contexts], dim=-1))))
        return logits

    def step(self, x: Tensor, state: State, memory: Memory | None) -> tuple[Tensor, State, Tensor]:
        y, state, weights = self.attend(x, state, memory)
        return self.predict(y, state[-1]), state, weights

    def recur(self, x: Embedded, lengths: Tensor, state: State, memory: Memory | None) -> Unrolled:
        assert memory is not None
        recurrences = self.cell.recurrences()
        if recurrences is None:
            return self.attend_all(x.vectors, state, memory)
        return self.attend_all_fused(recurrences, x, lengths, state, memory)

    def attend_all(self, x: Tensor, state: State, memory: Memory) -> Unrolled:
        """The recurrent part of all steps, step by step."""
        state = self.start(state, memory)
        steps = []
        for x_t in x.unbind(1):
            y, state, weights = self.attend(x_t, state, memory)
            steps.append((y, state[-1], weights))
        return Unrolled(*(torch.stack(column, dim=1) for column in zip(*steps, strict=True)))

    def attend_all_fused(
        self,
        recurrences: Sequence[Recurrence],
        x: Embedded,
        lengths: Tensor,
        state: State,
        memory: Memory,
    ) -> Unrolled:
        """`attend_all` with a written-out backward; on a CPU it leaves out steps past the lengths, if they are many."""
        lookup, (batch, time, _) = self.attention.lookup(memory), x.vectors.shape
        rows, place = live_rows(lengths, time) or [batch] * time, None
        if rows[-1] < batch and sorted(lengths.tolist(), reverse=True) != lengths.tolist():
            order = lengths.argsort(descending=True, stable=True)
            place, lookup = order.argsort(), lookup.reordered(order)
            x = Embedded(x.vectors[order], None if x.ids is None else x.ids[order], x.table)
            state = tuple(tensor[order] for tensor in state)
        vectors, layer_states = self.cell.dropped(x.vectors), self.cell.layer_states(state)
        tokens = x.tokens() if vectors is x.vectors else None
        masks = self.cell.masks(time, lookup.values[:, 0])
        results = attend(
            recurrences, lookup, vectors.transpose(0, 1), layer_states, rows, masks, tokens
        )
        return Unrolled(
            *(r.transpose(0, 1) if place is None else r[:, place].transpose(0, 1) for r in results)
        )


def live_rows(lengths: Tensor, time: int) -> list[int] | None:
    """How many rows of falling lengths each step computes, where leaving out the others pays.

    None where it does not, and on other devices than the CPU, where one would have to wait for the counts.
    """
    if lengths.device.type != "cpu":
        return None
    live: list[int] = positions_within(lengths, time).sum(0).tolist()
    return live if sum(live) < LIVE_ENOUGH * len(lengths) * time else None
