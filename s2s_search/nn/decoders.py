"""Decoders: target embeddings in, logits out, with or without attention.

B batch · S source positions · T target steps · X input units · H cell output units · M memory units · V vocabulary
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from s2s_search.nn import fused, fused_attention
from s2s_search.nn.attention import Attention, Memory
from s2s_search.nn.cells import StackedCell, State, linear, positions_within
from s2s_search.nn.encoders import EncoderOutput

# Where more of the steps than this lie within their rows' lengths, to sort the rows costs more than it saves.
LIVE_ENOUGH = 0.95


class DecoderOutput(NamedTuple):
    """Logits [B, T, V]; with attention, its weights [B, T, S] and contexts [B, T, M]; all zero past a row's end."""

    logits: Tensor
    weights: Tensor | None = None
    contexts: Tensor | None = None


class Decoder(nn.Module):
    """Predicts target tokens step by step, from a state that a bridge made and a memory, None without attention."""

    cell: StackedCell

    def remember(self, encoded: EncoderOutput) -> Memory | None:
        """What of the encoder's output the steps look at."""
        raise NotImplementedError

    def start(self, state: State, memory: Memory | None) -> State:
        """The decoder's state before the first step, from the cell's."""
        raise NotImplementedError

    def step(self, x: Tensor, state: State, memory: Memory | None) -> tuple[Tensor, State, Tensor | None]:
        """Computes one step: input x [B, X] -> logits [B, V], the next state, attention weights [B, S] or None."""
        raise NotImplementedError

    def unroll(self, x: Tensor, lengths: Tensor, state: State, memory: Memory | None) -> DecoderOutput:
        """Computes all steps for given inputs x [B, T, X] (teacher forcing) of which `lengths` [B] are real."""
        raise NotImplementedError


class BasicDecoder(Decoder):
    """Predicts from the cell's output alone: logits = W y + b."""

    def __init__(self, cell: StackedCell, vocabulary_size: int) -> None:
        super().__init__()
        self.cell = cell
        self.logits = linear(cell.output_size, vocabulary_size)

    def remember(self, encoded: EncoderOutput) -> None:
        return None

    def start(self, state: State, memory: Memory | None) -> State:
        return state

    def step(self, x: Tensor, state: State, memory: Memory | None) -> tuple[Tensor, State, None]:
        y, state = self.cell(x, state)
        return self.logits(y), state, None

    def unroll(self, x: Tensor, lengths: Tensor, state: State, memory: Memory | None) -> DecoderOutput:
        outputs, _ = self.cell.unroll(x, lengths, state)
        ended = ~positions_within(lengths, x.shape[1]).unsqueeze(-1)
        return DecoderOutput(self.logits(outputs).masked_fill(ended, 0.0))


class AttentionDecoder(Decoder):
    """Predicts from the cell's output and the source positions that it attends to (Bahdanau et al., 2015).

    y_t, s_t = cell([x_t, context_{t-1}], s_{t-1}),  context_t = attention(y_t, memory),
    logits_t = W tanh(W_mix [y_t, context_t] + b_mix) + b

    The first context is zero. The decoder's state is the cell's state and the last context.
    """

    def __init__(self, cell: StackedCell, attention: Attention, memory_size: int, vocabulary_size: int) -> None:
        super().__init__()
        self.cell, self.attention = cell, attention
        self.mix = linear(cell.output_size + memory_size, cell.output_size)
        self.logits = linear(cell.output_size, vocabulary_size)

    def remember(self, encoded: EncoderOutput) -> Memory:
        return self.attention.precompute(encoded.outputs, encoded.lengths)

    def start(self, state: State, memory: Memory | None) -> State:
        assert memory is not None
        return (*state, memory.values.new_zeros(len(memory.values), memory.values.shape[-1]))

    def attend(self, x: Tensor, state: State, memory: Memory | None) -> tuple[Tensor, State, Tensor]:
        """Computes the recurrent part of a step: the cell's output [B, H], the next state, the weights [B, S]."""
        assert memory is not None
        *cell_state, context = state
        y, cell_state_ = self.cell(torch.cat([x, context], dim=-1), tuple(cell_state))
        context, weights = self.attention(y, memory)
        return y, (*cell_state_, context), weights

    def predict(self, outputs: Tensor, contexts: Tensor) -> Tensor:
        """The logits [..., V] of cell outputs [..., H] and contexts [..., M]."""
        logits: Tensor = self.logits(torch.tanh(self.mix(torch.cat([outputs, contexts], dim=-1))))
        return logits

    def step(self, x: Tensor, state: State, memory: Memory | None) -> tuple[Tensor, State, Tensor]:
        y, state, weights = self.attend(x, state, memory)
        return self.predict(y, state[-1]), state, weights

    def unroll(self, x: Tensor, lengths: Tensor, state: State, memory: Memory | None) -> DecoderOutput:
        # What is not fed back, the mix and the logits, is computed for all steps at once.
        assert memory is not None
        recurrences = self.cell.recurrences()
        loop = self.attend_all if recurrences is None else partial(self.attend_all_fused, recurrences, lengths)
        outputs, contexts, weights = loop(x, state, memory)
        logits = self.predict(outputs, contexts)
        ended = ~positions_within(lengths, x.shape[1]).unsqueeze(-1)
        return DecoderOutput(*(t.masked_fill(ended, 0.0) for t in (logits, weights, contexts)))

    def attend_all(self, x: Tensor, state: State, memory: Memory) -> tuple[Tensor, Tensor, Tensor]:
        """The recurrent part of all steps: outputs [B, T, H], contexts [B, T, M] and weights [B, T, S]."""
        state = self.start(state, memory)
        steps = []
        for x_t in x.unbind(1):
            y, state, weights = self.attend(x_t, state, memory)
            steps.append((y, state[-1], weights))
        outputs, contexts, all_weights = (torch.stack(column, dim=1) for column in zip(*steps, strict=True))
        return outputs, contexts, all_weights

    def attend_all_fused(
        self, recurrences: Sequence[fused.Recurrence], lengths: Tensor, x: Tensor, state: State, memory: Memory
    ) -> tuple[Tensor, Tensor, Tensor]:
        """`attend_all` with a written-out backward; on a CPU it leaves out steps past the lengths, if they are many."""
        lookup, (batch, time, _) = self.attention.lookup(memory), x.shape
        rows, place = [batch] * time, None
        if lengths.device.type == "cpu":  # elsewhere the counts would have to be waited for
            falling, order = lengths.sort(descending=True, stable=True)
            live = positions_within(falling, time).sum(0).tolist()
            if sum(live) < LIVE_ENOUGH * sum(rows):
                rows, place = live, order.argsort()
                x, state = x[order], tuple(tensor[order] for tensor in state)
                lookup = lookup.reordered(order)
        results = fused_attention.attend(recurrences, lookup, x.transpose(0, 1), self.cell.layer_states(state), rows)
        outputs, contexts, weights = (
            r.transpose(0, 1) if place is None else r[:, place].transpose(0, 1) for r in results
        )
        return outputs, contexts, weights
