"""Bridges: what of the encoder reaches the decoder besides attention.

B batch · S source positions · M encoder output units · X units of the vector appended to every decoder input
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s2s_search.nn.cells import ACTIVATIONS, State, linear
from s2s_search.nn.encoders import EncoderOutput


class Bridge(nn.Module):
    """Maps an encoder output to the decoder's initial state and a vector [B, X] for every decoder input, or None.

    `decoder_state_sizes` are the widths of the decoder's state tensors.
    """

    def __init__(self, decoder_state_sizes: Sequence[int], extra_size: int = 0) -> None:
        super().__init__()
        self.decoder_state_sizes, self.extra_size = tuple(decoder_state_sizes), extra_size

    def zero_state(self, encoded: EncoderOutput) -> State:
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
    """Starts the decoder from the encoder's final state, which must have the same structure and sizes."""

    def forward(self, encoded: EncoderOutput) -> tuple[State, Tensor | None]:
        return encoded.final_state, None


class ReadingBridge(Bridge):
    """A bridge of linear layers over what it reads: `input_width` values of the encoder's final state or outputs."""

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
        self.activation = ACTIVATIONS[activation_fn]
        self.layer_sizes = tuple(layer_sizes)
        self.layers = nn.ModuleList(linear(input_width, size) for size in layer_sizes)

    def resize(self, input_width: int) -> None:
        """Makes the layers anew for another number of values to read."""
        like = next(self.parameters())
        self.input_width = input_width
        self.layers = nn.ModuleList(linear(input_width, size) for size in self.layer_sizes).to(like)

    def read(self, encoded: EncoderOutput) -> list[Tensor]:
        """The layers' results [B, size] over the final state tensors side by side, or the outputs of all positions.

        The outputs have as many positions as the layers are wide: a shorter source is filled up with zeros, as its
        padding is, and of a longer one the first positions count.
        """
        if self.bridge_input == "final_state":
            x = torch.cat(encoded.final_state, dim=-1)
        else:
            x = encoded.outputs.flatten(1)
            x = F.pad(x, (0, self.input_width - x.shape[1]))
        return [self.activation(layer(x)) for layer in self.layers]


class InitialStateBridge(ReadingBridge):
    """Starts the decoder from one layer per state tensor over all that the bridge reads."""

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
    """Starts the decoder from zeros and appends to every input a vector [B, num_units], a layer over what it reads."""

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


BRIDGES: dict[str, type[Bridge]] = {
    bridge.__name__: bridge
    for bridge in (ZeroBridge, PassThroughBridge, InitialStateBridge, ConcatInputBridge)
}
