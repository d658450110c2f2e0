"""Cells in layers, with dropout around and residual connections over each, and their unrolling over a sequence.

B batch · S positions of the unrolled sequence · I input units · O output units
A state is a flat tuple of [B, ...] tensors, layer by layer.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from s2s_search.nn.cells import Cell, State, dropout, linear, make_cell
from s2s_search.nn.fast import cell_loops


def dropout_mask(like: Tensor, keep_prob: float) -> Tensor | None:
    """Draws what `dropout` multiplies by in training: 1 / keep_prob with probability keep_prob, or else 0."""
    return torch.empty_like(like).bernoulli_(keep_prob).div_(keep_prob) if keep_prob < 1.0 else None


class Embedded(NamedTuple):
    """Inputs [B, S, I]; where they were looked up as they are, the ids [B, S] and the table [V, I]."""

    vectors: Tensor
    ids: Tensor | None = None
    table: Tensor | None = None

    def tokens(self) -> cell_loops.Tokens | None:
        """What a loop over time can make of it."""
        return (
            None
            if self.ids is None or self.table is None
            else cell_loops.Tokens(self.ids.t(), self.table.detach())
        )


class StackedCell(nn.Module):
    """Layers of cells of one spec, with dropout around and residual connections over each layer.

    A layer computes  y = dropout(cell(dropout(x)))  and with residual connections passes on  x + y. If then x of the
    first layer has another width than y, one linear `input_transform` comes before. One layer never has residuals.
    """

    def __init__(
        self,
        spec: Mapping[str, object],
        input_size: int,
        num_layers: int = 1,
        dropout_input_keep_prob: float = 1.0,
        dropout_output_keep_prob: float = 1.0,
        residual_connections: bool = False,
    ) -> None:
        super().__init__()
        self.input_keep_prob, self.output_keep_prob = (
            dropout_input_keep_prob,
            dropout_output_keep_prob,
        )
        self.residual = residual_connections and num_layers > 1
        self.input_transform = None
        first = make_cell(spec, input_size)
        if self.residual and input_size != first.output_size:
            self.input_transform = linear(input_size, first.output_size)
            first = make_cell(spec, first.output_size)
        others = [make_cell(spec, first.output_size) for _ in range(num_layers - 1)]
        self.layers = nn.ModuleList([first, *others])
        self.input_size, self.output_size = input_size, first.output_size

    @property
    def cells(self) -> list[Cell]:
        return list(self.layers)  # type: ignore[arg-type]

    @property
    def state_sizes(self) -> tuple[int, ...]:
        return tuple(size for cell in self.cells for size in cell.state_sizes)

    def initial_state(self, batch_size: int, like: Tensor) -> State:
        return tuple(
            tensor for cell in self.cells for tensor in cell.initial_state(batch_size, like)
        )

    def layer_states(self, state: State) -> list[State]:
        """Cuts the flat state into one state a layer."""
        tensors = iter(state)
        return [tuple(next(tensors) for _ in cell.state_sizes) for cell in self.cells]

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Computes one position: x [B, I] -> output [B, O]."""
        x = x if self.input_transform is None else self.input_transform(x)
        states: list[Tensor] = []
        for cell, layer_state in zip(self.cells, self.layer_states(state), strict=True):
            y, layer_state = cell(self.dropped(x), layer_state)
            states += layer_state
            x = self.joined(x, y)
        return x, tuple(states)

    def unroll(
        self,
        inputs: Tensor | Embedded,
        lengths: Tensor,
        state: State | None = None,
        reverse: bool = False,
    ) -> tuple[Tensor, State]:
        """Computes all positions, layer by layer: inputs [B, S, I], lengths [B] -> outputs [B, S, O], the last state.

        In reverse it reads from the last position within a row's length to the first. Outputs past it are not defined.
        """
        inputs = inputs if isinstance(inputs, Embedded) else Embedded(inputs)
        x, tokens = inputs.vectors, inputs.tokens()
        layer_states = self.layer_states(self.initial_state(len(x), x) if state is None else state)
        x = x if self.input_transform is None else self.input_transform(x)
        states: list[Tensor] = []
        for cell, layer_state in zip(self.cells, layer_states, strict=True):
            dropped = self.dropped(x)
            y, layer_state = unroll(
                cell,
                dropped,
                lengths,
                layer_state,
                reverse,
                tokens if dropped is inputs.vectors else None,
            )
            states += layer_state
            x = self.joined(x, y)
        return x, tuple(states)

    def recurrences(self) -> list[cell_loops.Recurrence] | None:
        """The layers for a loop over all of them at every step; None if it does not know their equations."""
        found = [recurrence for cell in self.cells if (recurrence := cell.recurrence()) is not None]
        return found if len(found) == len(self.cells) and not self.residual else None

    def masks(self, time: int, below: Tensor) -> list[Tensor | None]:
        """Draws the dropout of such a loop, whose first layer takes something like `below` [B, M] besides x.

        Masks [T, B, ...] for that, for the outputs of each layer that the next one takes, and for those of the last.
        """
        if not self.training:
            return [None] * (len(self.layers) + 1)
        # Between two layers dropout comes twice; of two draws in a row both are kept with the product's probability.
        between = self.input_keep_prob * self.output_keep_prob
        keep_probs = [
            self.input_keep_prob,
            *[between] * (len(self.layers) - 1),
            self.output_keep_prob,
        ]
        units = [below.shape[1], *(cell.output_size for cell in self.cells)]
        return [
            dropout_mask(below.new_empty(time, len(below), size), keep_prob)
            for size, keep_prob in zip(units, keep_probs, strict=True)
        ]

    def dropped(self, x: Tensor) -> Tensor:
        return dropout(x, self.input_keep_prob, self.training)

    def joined(self, x: Tensor, y: Tensor) -> Tensor:
        y = dropout(y, self.output_keep_prob, self.training)
        return x + y if self.residual else y


def positions_within(lengths: Tensor, positions: int) -> Tensor:
    """The mask [B, positions] of real positions: True before a row's length."""
    return torch.arange(positions, device=lengths.device) < lengths.unsqueeze(1)


def reverse_sequence(x: Tensor, lengths: Tensor) -> Tensor:
    """Reverses each row of x [B, S, ...] within its length; what stands behind stays where it is."""
    position = torch.arange(x.shape[1], device=x.device)
    last = lengths.unsqueeze(1) - 1
    index = torch.where(position <= last, last - position, position)
    return x.gather(1, index.view(*index.shape, *[1] * (x.dim() - 2)).expand_as(x))


def unroll(
    cell: Cell,
    inputs: Tensor,
    lengths: Tensor,
    state: State | None = None,
    reverse: bool = False,
    tokens: cell_loops.Tokens | None = None,
) -> tuple[Tensor, State]:
    """Runs a cell over inputs [B, S, I]; past a row's length its state stays and its outputs are not defined.

    Equals this loop, with the inputs' projection computed for all positions at once; `tokens` may say where the inputs
    come from. In reverse the state must be zeros.

        for t in reversed(range(S)) if reverse else range(S):
            outputs[:, t], new = cell(inputs[:, t], state)
            state = where(t < lengths, new, state)
    """
    state = cell.initial_state(len(inputs), inputs) if state is None else state
    recurrence = cell.recurrence()
    if recurrence is not None:
        outputs, state = cell_loops.unroll(
            recurrence, inputs.transpose(0, 1), lengths, state, reverse, tokens
        )
        return outputs.transpose(0, 1), state
    return plain_unroll(cell, inputs, lengths, state, reverse)


def plain_unroll(
    cell: Cell, inputs: Tensor, lengths: Tensor, state: State, reverse: bool = False
) -> tuple[Tensor, State]:
    """`unroll` for any cell."""
    within = positions_within(lengths, inputs.shape[1]).unsqueeze(-1).unbind(1)
    outputs = []
    order = -1 if reverse else 1
    for projected, live in list(zip(cell.project(inputs).unbind(1), within, strict=True))[::order]:
        output, new = cell.step(projected, state)
        state = tuple(torch.where(live, n, s) for n, s in zip(new, state, strict=True))
        outputs.append(output)
    return torch.stack(outputs[::order], dim=1), state
