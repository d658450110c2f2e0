"""Rules between hyperparameters, which a configuration must obey besides the law of each value.

A rule takes the values of a configuration and returns the sentences of what is wrong with them.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from s2s_search.hparams.table import CELLS

Values = Mapping[str, Any]  # of a complete configuration or spec, each converted to its kind


def cell_output_size(spec: Values) -> int:
    """Returns the width of a cell's output: of its projection, or else its number of units."""
    return int(spec.get("num_proj") or spec.get("num_units") or spec["cell_size"])


def cell_state_sizes(spec: Values) -> tuple[int, ...]:
    """Returns the widths of a cell's state: those of c and h for an LSTM, else one width."""
    output = cell_output_size(spec)
    arguments = {argument.name: argument.default for argument in CELLS[spec["class"]]}
    if "forget_bias" not in arguments:
        return (output,)
    is_tuple = spec.get("state_is_tuple", arguments.get("state_is_tuple", True))
    units = spec["num_units"]
    return (units, output) if is_tuple else (units + output,)


# The nested structure of a state: the width of a tensor, or a tuple of structures. An LSTM's state
# of two tensors is ("LSTM", width of c, width of h).
Structure = int | str | tuple["Structure", ...]


def _cell_structure(spec: Values) -> Structure:
    sizes = cell_state_sizes(spec)
    if len(sizes) == 1:
        return sizes[0]
    return sizes if spec["class"] == "LSTMBlockCell" else ("LSTM", *sizes)


def state_structures(values: Values) -> tuple[Structure, Structure]:
    """Returns the structures of the encoder's final state and of the decoder's state.

    They are those of the original. One layer has the state of its cell, and several layers have a
    tuple of states. A bidirectional encoder has a pair of these, forward and backward. The stacked
    encoder has tuples of layers even when there is one layer.
    """
    kind = values["encoder.type"]
    encoder = _stack_structure("encoder", values, kind == "StackBidirectionalRNNEncoder")
    if kind != "UnidirectionalRNNEncoder":
        encoder = (encoder, encoder)
    return encoder, _stack_structure("decoder", values)


def _stack_structure(side: str, values: Values, always_tuple: bool = False) -> Structure:
    cell = _cell_structure(values[f"{side}.rnn_cell.cell_spec"])
    layers = values[f"{side}.rnn_cell.num_layers"]
    return (cell,) * layers if layers > 1 or always_tuple else cell


def _described(structure: Structure) -> str:
    """Returns a structure as a message shows it: 128, "LSTM(128, 128)", "(3 x 128)"."""
    if not isinstance(structure, tuple):
        return str(structure)
    if structure[0] == "LSTM":
        return f"LSTM{structure[1:]}"
    inner = _described(structure[0])  # all layers of a stack are alike
    if len(structure) > 2:
        return f"({len(structure)} x {inner})"
    return "(" + ", ".join(inner for _ in structure) + ")"


def passthrough_problems(values: Values) -> list[str]:
    """PassThroughBridge needs a final state of the encoder that fits the decoder's state."""
    encoder, decoder = state_structures(values)
    if values["bridge_spec"]["class"] != "PassThroughBridge" or encoder == decoder:
        return []
    return [
        "bridge_spec: PassThroughBridge needs an encoder whose final state "
        "is shaped as the decoder's state, "
        f"but encoder = {_described(encoder)} and decoder = {_described(decoder)}; "
        "InitialStateBridge fits any"
    ]


DECAY = ("decay_type", "start_decay_at", "stop_decay_at", "decay_steps", "decay_rate", "staircase")


def decay_problems(values: Values) -> list[str]:
    """Decay must keep the learning rate finite and positive, even when stop < start or rate > 1."""
    kind, start, stop, steps, rate, staircase = (values[f"optimizer.lr_{name}"] for name in DECAY)
    last = values["train.max_steps"]
    progress = (min(last, stop) - start) / steps if last > start else 0.0
    progress = math.floor(progress) if staircase else progress
    law = (
        f"{kind} must keep the learning rate finite and positive, "
        f"but rate = {rate:g} and p = {progress:g}"
    )
    growth = {"exponential_decay": progress * math.log(rate), "natural_exp_decay": -progress * rate}
    if growth.get(kind, 0) > 300:  # e^300 is far beyond float32, which ends at e^88
        return [f"optimizer.lr_decay_type: {law} give a factor of e^{growth[kind]:.4g}"]
    if kind == "inverse_time_decay" and 1 + rate * progress <= 0:
        return [f"optimizer.lr_decay_type: {law} give 1 + rate * p = {1 + rate * progress:g}"]
    return []


# Residual connections need no rule. All layers of a stack share one spec and so one output width,
# and an input of another width goes through a linear layer first.
RULES: tuple[Callable[[Values], list[str]], ...] = (passthrough_problems, decay_problems)
