"""The three encoders: embedded source positions in, a memory for attention and a final state out.

B batch · S source positions · E embedding · M memory (encoder output) units
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from s2s_search.nn.cells import State
from s2s_search.nn.stacks import Embedded, StackedCell, positions_within


class EncoderOutput(NamedTuple):
    """The outputs [B, S, M], zero past a row's length, the flat final state, the lengths [B]."""

    outputs: Tensor
    final_state: State
    lengths: Tensor


class UnidirectionalRNNEncoder(nn.Module):
    """Reads the source from its first position to its last."""

    def __init__(self, cell: StackedCell) -> None:
        super().__init__()
        self.cell = cell
        self.output_size, self.state_sizes = cell.output_size, cell.state_sizes

    def forward(self, embedded: Embedded, lengths: Tensor) -> EncoderOutput:
        """Encodes embedded [B, S, E] of lengths [B]."""
        outputs, state = self.cell.unroll(embedded, lengths)
        return EncoderOutput(real(outputs, lengths), state, lengths)


class BidirectionalRNNEncoder(nn.Module):
    """Reads the source in both directions with two stacks.

    The outputs of both stand side by side. The final state is (forward, backward).
    """

    def __init__(self, forward_cell: StackedCell, backward_cell: StackedCell) -> None:
        super().__init__()
        self.forward_cell, self.backward_cell = forward_cell, backward_cell
        self.output_size = forward_cell.output_size + backward_cell.output_size
        self.state_sizes = forward_cell.state_sizes + backward_cell.state_sizes

    def forward(self, embedded: Tensor | Embedded, lengths: Tensor) -> EncoderOutput:
        """Encodes embedded [B, S, E] of lengths [B]."""
        forward, forward_state = self.forward_cell.unroll(embedded, lengths)
        backward, backward_state = self.backward_cell.unroll(embedded, lengths, reverse=True)
        outputs = real(torch.cat([forward, backward], dim=-1), lengths)
        return EncoderOutput(outputs, forward_state + backward_state, lengths)


class StackBidirectionalRNNEncoder(nn.Module):
    """Reads in both directions layer by layer: each layer reads both directions of the one below.

    `layers` are bidirectional encoders of one layer each. The final state is the forward states of
    all layers, then the backward states of all layers.
    """

    def __init__(self, layers: Sequence[BidirectionalRNNEncoder]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.output_size = layers[-1].output_size
        forward: tuple[int, ...] = ()
        backward: tuple[int, ...] = ()
        for layer in layers:
            forward += layer.forward_cell.state_sizes
            backward += layer.backward_cell.state_sizes
        self.state_sizes = forward + backward

    def forward(self, embedded: Embedded, lengths: Tensor) -> EncoderOutput:
        """Encodes embedded [B, S, E] of lengths [B]."""
        outputs: Tensor | Embedded = embedded
        forward: State = ()
        backward: State = ()
        for layer in self.layers:
            outputs, state, _ = layer(outputs, lengths)
            half = len(state) // 2
            forward, backward = forward + state[:half], backward + state[half:]
        assert isinstance(outputs, Tensor)
        return EncoderOutput(outputs, forward + backward, lengths)


def real(outputs: Tensor, lengths: Tensor) -> Tensor:
    """Returns the outputs [B, S, M] with zeros past each row's length."""
    return outputs.masked_fill(~positions_within(lengths, outputs.shape[1]).unsqueeze(-1), 0.0)


Encoder = UnidirectionalRNNEncoder | BidirectionalRNNEncoder | StackBidirectionalRNNEncoder
