"""Bridges: how the encoder's result reaches the decoder besides attention.

B batch · S source positions · M encoder output units
X units of the vector that is appended to every decoder input
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s2s_search.nn.cells import ACTIVATION_FUNCTIONS, State, linear
from s2s_search.nn.encoders import EncoderOutput


class Bridge(nn.Module):
    """Maps an encoder output to the decoder's initial state and an extra vector.

    The vector [B, X] is appended to every decoder input; it is None if X is 0.
    `decoder_state_sizes` are the widths of the tensors of the decoder's state.
    """

    def __init__(self, decoder_state_sizes: Sequence[int], extra_size: int = 0) -> None:
        super().__init__()
        self.decoder_state_sizes, self.extra_size = tuple(decoder_state_sizes), extra_size

    def zero_state(self, encoded: EncoderOutput) -> State:
        """Returns a decoder state of zeros."""
        return tuple(
            encoded.outputs.new_zeros(len(encoded.outputs), size)
            for size in self.decoder_state_sizes
        )

    def forward(self, encoded: EncoderOutput) -> tuple[State, Tensor | None]:
        raise NotImplementedError


class ZeroBridge(Bridge):
    """Starts the decoder from zeros."""

    def forward(self, encoded: EncoderOutput) -> tuple[State, Tensor | None]:
        return self.zero_state(encoded), None


class PassThroughBridge(Bridge):
    """Starts the decoder from the encoder's final state, which must have the decoder's sizes."""

    def forward(self, encoded: EncoderOutput) -> tuple[State, Tensor | None]:
        return encoded.final_state, None


class ReadingBridge(Bridge):
    """A bridge of linear layers over the encoder's final state or outputs, `input_width` values."""

    def __init__(
        self,
        decoder_state_sizes: Sequence[int],
        input_width: int,
        layer_sizes: Sequence[int],
        bridge_input: str,
        activation_fn: str,
        extra_size: int = 0,
    ) -> None:
        super().__init__(decoder_state_sizes, extra_size)
        self.input_width, self.bridge_input = input_width, bridge_input
        self.activation = ACTIVATION_FUNCTIONS[activation_fn]
        self.layer_sizes = tuple(layer_sizes)
        self.layers = nn.ModuleList(linear(input_width, size) for size in layer_sizes)

    def resize(self, input_width: int) -> None:
        """Replaces the layers by new ones that read another number of values."""
        like = next(self.parameters())
        self.input_width = input_width
        self.layers = nn.ModuleList(linear(input_width, size) for size in self.layer_sizes).to(like)

    def read(self, encoded: EncoderOutput) -> list[Tensor]:
        """Returns the result [B, size] of each layer, over the final state or over all outputs.

        The tensors of the final state stand side by side, and so do the outputs of all positions.
        A source with fewer positions than the layers read is filled up with zeros. Of a source
        with more, the first positions are read.
        """
        if self.bridge_input == "final_state":
            x = torch.cat(encoded.final_state, dim=-1)
        else:
            x = encoded.outputs.flatten(1)
            x = F.pad(x, (0, self.input_width - x.shape[1]))
        return [self.activation(layer(x)) for layer in self.layers]


class InitialStateBridge(ReadingBridge):
    """Starts the decoder from one layer for each tensor of its state."""

    def __init__(
        self,
        decoder_state_sizes: Sequence[int],
        input_width: int,
        bridge_input: str = "final_state",
        activation_fn: str = "identity",
    ) -> None:
        super().__init__(
            decoder_state_sizes, input_width, decoder_state_sizes, bridge_input, activation_fn
        )

    def forward(self, encoded: EncoderOutput) -> tuple[State, Tensor | None]:
        return tuple(self.read(encoded)), None


class ConcatInputBridge(ReadingBridge):
    """Starts the decoder from zeros, and appends a layer's result [B, num_units] to each input."""

    def __init__(
        self,
        decoder_state_sizes: Sequence[int],
        input_width: int,
        num_units: int,
        bridge_input: str = "final_state",
        activation_fn: str = "identity",
    ) -> None:
        super().__init__(
            decoder_state_sizes, input_width, (num_units,), bridge_input, activation_fn, num_units
        )

    def forward(self, encoded: EncoderOutput) -> tuple[State, Tensor | None]:
        (vector,) = self.read(encoded)
        return self.zero_state(encoded), vector


BRIDGE_CLASSES: dict[str, type[Bridge]] = {
    bridge.__name__: bridge
    for bridge in (ZeroBridge, PassThroughBridge, InitialStateBridge, ConcatInputBridge)
}
