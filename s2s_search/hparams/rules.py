"""Rules between hyperparameters: what a configuration must obey beyond the law of each value."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from s2s_search.hparams.table import CELLS

Values = Mapping[str, Any]  # complete, and each in its kind


def cell_output_size(spec: Values) -> int:
    """Returns the width of the cell's output: its projection's where it has one, else its number of units."""
    return int(spec.get("num_proj") or spec.get("num_units") or spec["cell_size"])


def cell_state_sizes(spec: Values) -> tuple[int, ...]:
    """Returns the widths of the tensors of the cell's state: (c, h) of an LSTM, else one."""
    output = cell_output_size(spec)
    arguments = {argument.name: argument.default for argument in CELLS[spec["class"]]}
    if "forget_bias" not in arguments:
        return (output,)
    is_tuple, units = (
        spec.get("state_is_tuple", arguments.get("state_is_tuple", True)),
        spec["num_units"],
    )
    return (units, output) if is_tuple else (units + output,)


Structure = (
    int | str | tuple["Structure", ...]
)  # a tensor's width, or a tuple; an LSTM's is ("LSTM", c, h)


def _cell_structure(spec: Values) -> Structure:
    sizes = cell_state_sizes(spec)
    if len(sizes) == 1:
        return sizes[0]
    return sizes if spec["class"] == "LSTMBlockCell" else ("LSTM", *sizes)


def state_structures(values: Values) -> tuple[Structure, Structure]:
    """Returns the structures of the encoder's final state and of the decoder's state, as in the original.

    One layer has its cell's state, several have a tuple of them; a bidirectional encoder has (fw, bw). The
    stacked one has a tuple of layers in each direction even when there is one layer.
    """
    stacks = []
    for side in ("encoder", "decoder"):
        spec, layers = values[f"{side}.rnn_cell.cell_spec"], values[f"{side}.rnn_cell.num_layers"]
        stacked = layers > 1 or (
            side == "encoder" and values["encoder.type"] == "StackBidirectionalRNNEncoder"
        )
        stacks.append((_cell_structure(spec),) * layers if stacked else _cell_structure(spec))
    encoder, decoder = stacks
    return encoder if values["encoder.type"] == "UnidirectionalRNNEncoder" else (
        encoder,
        encoder,
    ), decoder


def _described(structure: Structure) -> str:
    if not isinstance(structure, tuple):
        return str(structure)
    if structure[0] == "LSTM":
        return f"LSTM{structure[1:]}"
    inner = _described(structure[0])
    return (
        f"({len(structure)} x {inner})"
        if len(structure) > 2
        else "(" + ", ".join(inner for _ in structure) + ")"
    )


def passthrough_problems(values: Values) -> list[str]:
    """PassThroughBridge hands on the encoder's final state as it is: it must be shaped as the decoder's."""
    encoder, decoder = state_structures(values)
    if values["bridge_spec"]["class"] != "PassThroughBridge" or encoder == decoder:
        return []
    return [
        "bridge_spec: PassThroughBridge needs an encoder whose final state is shaped as the decoder's state, "
        f"but encoder = {_described(encoder)} and decoder = {_described(decoder)}; InitialStateBridge fits any"
    ]


DECAY = ("decay_type", "start_decay_at", "stop_decay_at", "decay_steps", "decay_rate", "staircase")


def decay_problems(values: Values) -> list[str]:
    """Decay must keep the learning rate finite and positive; it can grow when stop < start or rate > 1."""
    kind, start, stop, steps, rate, staircase = (values[f"optimizer.lr_{name}"] for name in DECAY)
    last = values["train.max_steps"]
    progress = (min(last, stop) - start) / steps if last > start else 0.0
    progress = math.floor(progress) if staircase else progress
    law = f"{kind} must keep the learning rate finite and positive, but rate = {rate:g} and p = {progress:g}"
    growth = {"exponential_decay": progress * math.log(rate), "natural_exp_decay": -progress * rate}
    if growth.get(kind, 0) > 300:  # e^300: float32 has long overflowed
        return [f"optimizer.lr_decay_type: {law} give a factor of e^{growth[kind]:.4g}"]
    if kind == "inverse_time_decay" and 1 + rate * progress <= 0:
        return [f"optimizer.lr_decay_type: {law} give 1 + rate * p = {1 + rate * progress:g}"]
    return []


# There is no rule for residual connections: all layers of a stack share one spec, hence one output width, and an
# input of another width goes through a linear layer first. Nothing can be unequal, projections included.
RULES: tuple[Callable[[Values], list[str]], ...] = (passthrough_problems, decay_problems)
