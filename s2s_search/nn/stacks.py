"""Cells in layers with dropout and residual connections, and their unrolling over a sequence.

B batch · S positions of the sequence · I input units · O output units
A state is a flat tuple of [B, ...] tensors, layer by layer.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from s2s_search.nn.cells import Cell, State, dropout, dropout_mask, linear, make_cell
from s2s_search.nn.fast import cell_loops


class Embedded(NamedTuple):
    """Inputs [B, S, I]; if they are rows of a table [V, I], the table and their ids [B, S] too."""

    vectors: Tensor
    ids: Tensor | None = None
    table: Tensor | None = None

    def tokens(self) -> cell_loops.TokenInputs | None:
        """Returns the ids and the table in the form that the fast loops take, or None without."""
        if self.ids is None or self.table is None:
            return None
        return cell_loops.TokenInputs(self.ids.t(), self.table.detach())


class StackedCell(nn.Module):
    """Layers of cells of one spec, with dropout before and after each layer.

    A layer computes y = dropout(cell(dropout(x))). With residual connections it passes on x + y.
    If x of the first layer then has another width than y, a linear `input_transform` maps x first.
    A single layer never has a residual connection, as in the original.
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
        self.input_keep_prob = dropout_input_keep_prob
        self.output_keep_prob = dropout_output_keep_prob
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
        """The cells, one for each layer, from the bottom."""
        return list(self.layers)  # type: ignore[arg-type]

    @property
    def state_sizes(self) -> tuple[int, ...]:
        return tuple(size for cell in self.cells for size in cell.state_sizes)

    def initial_state(self, batch_size: int, like: Tensor) -> State:
        """Returns a flat state of zeros, of the type and on the device of `like`."""
        return tuple(
            tensor for cell in self.cells for tensor in cell.initial_state(batch_size, like)
        )

    def layer_states(self, state: State) -> list[State]:
        """Returns the parts of a flat state, one for each layer."""
        tensors = iter(state)
        return [tuple(next(tensors) for _ in cell.state_sizes) for cell in self.cells]

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Returns the output [B, O] and the next state of one position, for x [B, I]."""
        if self.input_transform is not None:
            x = self.input_transform(x)
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
        """Computes all positions, layer by layer.

        Args:
            inputs: [B, S, I].
            lengths: The number of real positions of each row [B].
            state: The flat state before the first position, or None for zeros.
            reverse: True to read from the last position within a row's length to the first.

        Returns:
            The outputs [B, S, O], which are not defined past a row's length, and the last state.
        """
        if not isinstance(inputs, Embedded):
            inputs = Embedded(inputs)
        x = inputs.vectors
        if state is None:
            state = self.initial_state(len(x), x)
        if self.input_transform is not None:
            x = self.input_transform(x)
        states: list[Tensor] = []
        for cell, layer_state in zip(self.cells, self.layer_states(state), strict=True):
            dropped = self.dropped(x)
            # A layer may look its input up in the table only where the input is the table's rows.
            tokens = inputs.tokens() if dropped is inputs.vectors else None
            y, layer_state = unroll(cell, dropped, lengths, layer_state, reverse, tokens)
            states += layer_state
            x = self.joined(x, y)
        return x, tuple(states)

    def recurrences(self) -> list[cell_loops.Recurrence] | None:
        """Returns the layers in the form that the fast loops take; None if they do not know one."""
        if self.residual:
            return None
        found: list[cell_loops.Recurrence] = []
        for cell in self.cells:
            recurrence = cell.recurrence()
            if recurrence is None:
                return None
            found.append(recurrence)
        return found

    def masks(self, time: int, below: Tensor) -> list[Tensor | None]:
        """Returns dropout's masks [time, B, ...] for a loop over all layers at every step.

        The first mask is for `below` [B, M], an input of the first layer besides x. Each of the
        next is for the outputs of a layer. None stands for no dropout.
        """
        if not self.training:
            return [None] * (len(self.layers) + 1)
        # Two dropouts follow each other between two layers. A value passes both with the product of
        # their probabilities.
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
        """Returns a layer's input after dropout: x itself where nothing is dropped."""
        return dropout(x, self.input_keep_prob, self.training)

    def joined(self, x: Tensor, y: Tensor) -> Tensor:
        """Returns what a layer passes on, for its input x and its cell's output y."""
        y = dropout(y, self.output_keep_prob, self.training)
        return x + y if self.residual else y


def positions_within(lengths: Tensor, positions: int) -> Tensor:
    """Returns the mask [B, positions] of real positions: True before a row's length."""
    return torch.arange(positions, device=lengths.device) < lengths.unsqueeze(1)


def reverse_sequence(x: Tensor, lengths: Tensor) -> Tensor:
    """Returns x [B, S, ...] with each row reversed within its length; padding stays in place."""
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
    tokens: cell_loops.TokenInputs | None = None,
) -> tuple[Tensor, State]:
    """Runs a cell over all positions. It equals this loop:

        for t in reversed(range(S)) if reverse else range(S):
            outputs[:, t], new = cell(inputs[:, t], state)
            state = where(t < lengths, new, state)

    Args:
        cell: The cell.
        inputs: [B, S, I].
        lengths: The number of real positions of each row [B].
        state: The state before the first position, or None for zeros; zeros if `reverse`.
        reverse: True to go from the last position to the first.
        tokens: Where the inputs come from, if they are rows of a table.

    Returns:
        The outputs [B, S, O], which are not defined past a row's length, and the last state.
    """
    if state is None:
        state = cell.initial_state(len(inputs), inputs)
    recurrence = cell.recurrence()
    if recurrence is not None:
        outputs, state = cell_loops.unroll_layer(
            recurrence, inputs.transpose(0, 1), lengths, state, reverse, tokens
        )
        return outputs.transpose(0, 1), state
    return plain_unroll(cell, inputs, lengths, state, reverse)


def plain_unroll(
    cell: Cell, inputs: Tensor, lengths: Tensor, state: State, reverse: bool = False
) -> tuple[Tensor, State]:
    """Returns what `unroll` returns, for any cell, by a loop in torch."""
    within = positions_within(lengths, inputs.shape[1]).unsqueeze(-1).unbind(1)
    outputs = []
    order = -1 if reverse else 1
    for projected, live in list(zip(cell.project(inputs).unbind(1), within, strict=True))[::order]:
        output, new = cell.step(projected, state)
        state = tuple(torch.where(live, n, s) for n, s in zip(new, state, strict=True))
        outputs.append(output)
    return torch.stack(outputs[::order], dim=1), state
