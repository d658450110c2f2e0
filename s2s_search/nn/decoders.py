"""Decoders: target embeddings in, logits out, with or without attention.

B batch · S source positions · T target steps · X input units · H cell output units
M memory units · V target vocabulary

The state of a decoder is a flat tuple: the cell's state, and with attention the last context
[B, M] behind it. `stepping.PreparedStepper` has a state of the same type and another meaning.
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

# The share of real positions in a batch above which sorting its rows costs more than it saves.
LIVE_ENOUGH = 0.95


class DecoderOutput(NamedTuple):
    """Logits [B, T, V], and with attention its weights [B, T, S] and contexts [B, T, M].

    All are zero past a row's end.
    """

    logits: Tensor
    weights: Tensor | None = None
    contexts: Tensor | None = None


class Unrolled(NamedTuple):
    """The recurrent part of all steps, which is not defined past a row's end.

    The cell's outputs are [B, T, H], the contexts of attention [B, T, M] and its weights [B, T, S].
    """

    outputs: Tensor
    contexts: Tensor | None = None
    weights: Tensor | None = None


class Decoder(nn.Module):
    """Predicts target tokens step by step.

    The first state comes from a bridge. The memory is what attention reads, None without.
    """

    cell: StackedCell
    logits: nn.Linear
    mix: nn.Linear | None

    def remember(self, encoded: EncoderOutput) -> Memory | None:
        """Returns what the steps attend to, or None without attention."""
        raise NotImplementedError

    def start(self, state: State, memory: Memory | None) -> State:
        """Returns the decoder's state before the first step, given the cell's."""
        raise NotImplementedError

    def step(
        self, x: Tensor, state: State, memory: Memory | None
    ) -> tuple[Tensor, State, Tensor | None]:
        """Returns the logits [B, V], the next state and the weights [B, S] or None of one step.

        The input x is [B, X].
        """
        raise NotImplementedError

    def recur(self, x: Embedded, lengths: Tensor, state: State, memory: Memory | None) -> Unrolled:
        """Returns the recurrent part of all steps, for given inputs.

        Args:
            x: The inputs [B, T, X].
            lengths: The number of real steps of each row [B].
            state: The cell's state before the first step.
            memory: None without attention.
        """
        raise NotImplementedError

    def predict(self, outputs: Tensor, contexts: Tensor | None) -> Tensor:
        """Returns the logits [..., V] of cell outputs [..., H] and contexts [..., M]."""
        raise NotImplementedError

    def unroll(
        self, x: Embedded, lengths: Tensor, state: State, memory: Memory | None
    ) -> DecoderOutput:
        """Returns the predictions of all steps, for given inputs (teacher forcing).

        The arguments are those of `recur`.
        """
        outputs, contexts, weights = self.recur(x, lengths, state, memory)
        ended = ~positions_within(lengths, outputs.shape[1]).unsqueeze(-1)
        logits = self.predict(outputs, contexts).masked_fill(ended, 0.0)
        return DecoderOutput(
            logits, *(t if t is None else t.masked_fill(ended, 0.0) for t in (weights, contexts))
        )

    def loss(
        self,
        x: Embedded,
        targets: Tensor,
        lengths: Tensor,
        state: State,
        memory: Memory | None,
        label_smoothing: float = 0.0,
    ) -> Tensor:
        """Returns the cross-entropy in nats of target ids [B, T], summed over the real steps.

        `fast.loss.cross_entropy` defines it. The other arguments are those of `recur`.
        """
        outputs, contexts, _ = self.recur(x, lengths, state, memory)
        live = positions_within(lengths, targets.shape[1])
        rows = live_rows(lengths, targets.shape[1])
        index: Tensor | None = None  # of the real positions, where it pays to leave out the others
        if rows is not None:
            index = live.t().flatten().argsort(descending=True, stable=True)[: sum(rows)]

        def column(tensor: Tensor) -> Tensor:
            """Returns the positions [N, ...] of a tensor [B, T, ...], time first, as in memory."""
            tensor = tensor.transpose(0, 1).flatten(0, 1)
            return tensor if index is None else tensor.index_select(0, index)

        of_context = None if contexts is None else column(contexts)
        return cross_entropy(
            column(targets),
            column(live),
            column(outputs),
            of_context,
            self.mix,
            self.logits,
            label_smoothing,
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
    """Predicts from the cell's output and the context of attention (Bahdanau et al., 2015).

    y_t, s_t = cell([x_t, context_{t-1}], s_{t-1})
    context_t = attention(y_t, memory)
    logits_t = W tanh(W_mix [y_t, context_t] + b_mix) + b

    The first context is zero. The decoder's state is the cell's state, then the last context.
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
        """Returns the cell's output [B, H], the next state and the weights [B, S] of one step."""
        assert memory is not None
        cell_state, context = state[:-1], state[-1]
        y, cell_state = self.cell(torch.cat([x, context], dim=-1), cell_state)
        context, weights = self.attention(y, memory)
        return y, (*cell_state, context), weights

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
        """Returns the recurrent part of all steps, for any cell, by a loop in torch."""
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
        """Returns what `attend_all` returns, by the fast loop.

        On a CPU it leaves out the steps past the lengths, if they are many. The rows are then
        sorted by falling length first, since each step computes the first rows of the batch.
        """
        lookup = self.attention.lookup(memory)
        batch, time, _ = x.vectors.shape
        rows = live_rows(lengths, time) or [batch] * time
        position: Tensor | None = None  # of each row in the sorted batch
        if rows[-1] < batch and sorted(lengths.tolist(), reverse=True) != lengths.tolist():
            order = lengths.argsort(descending=True, stable=True)
            position, lookup = order.argsort(), lookup.reordered(order)
            x = Embedded(x.vectors[order], None if x.ids is None else x.ids[order], x.table)
            state = tuple(tensor[order] for tensor in state)
        vectors, layer_states = self.cell.dropped(x.vectors), self.cell.layer_states(state)
        tokens = x.tokens() if vectors is x.vectors else None
        masks = self.cell.masks(time, lookup.values[:, 0])
        results: tuple[Tensor, ...] = attend(
            recurrences, lookup, vectors.transpose(0, 1), layer_states, rows, masks, tokens
        )
        if position is not None:
            results = tuple(result[:, position] for result in results)
        return Unrolled(*(result.transpose(0, 1) for result in results))


def live_rows(lengths: Tensor, time: int) -> list[int] | None:
    """Returns the number of rows within their lengths at each step.

    Returns None where it does not pay to leave out the others, and on other devices than the CPU,
    where the host would wait for the counts.
    """
    if lengths.device.type != "cpu":
        return None
    live: list[int] = positions_within(lengths, time).sum(0).tolist()
    return live if sum(live) < LIVE_ENOUGH * len(lengths) * time else None
