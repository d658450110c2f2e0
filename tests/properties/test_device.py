"""A training step leaves the device alone: the host waits for no value, and no tensor comes from or goes elsewhere.

On the meta device tensors have no values, so that whatever looks at one raises.
"""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from s2s_search.hparams import Hparams
from s2s_search.optim import RULES, make_optimizer
from s2s_search.table import CELLS, ENCODERS
from s2s_search.training import training_step
from tests.models import BATCH, make, small

MODELS = ("BasicSeq2Seq", "AttentionSeq2Seq")
WAITS = {"_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "_unique", "_unique2", "_coalesce"}


class Operations(TorchDispatchMode):
    """What torch is asked to do, and what of it concerns two devices."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.between_devices: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.names.append(func.overloadpacket.__name__)
        tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, torch.Tensor)]
        if len({tensor.device for tensor in tensors}) > 1:
            self.between_devices.append(self.names[-1])
        return result


def step(hparams: Hparams, device: str) -> Operations:
    """Makes one training step."""
    model, batch = make(hparams).to(device), BATCH.to(device)
    optimizer = make_optimizer(model.parameters(), hparams)
    with Operations() as operations:
        loss, tokens = training_step(model, optimizer, batch, 0)
    assert loss.device.type == tokens.device.type == device
    return operations


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("model", MODELS)
def test_a_step_looks_at_no_value(model: str, encoder: str, cell: str) -> None:
    assert not step(small(model, cell, encoder__type=encoder, optimizer__name="SGD"), "meta").between_devices


SETTINGS = {
    "bahdanau": {"attention.score_type": "bahdanau"},
    "not reversed": {"source.reverse": False},
    "layers": {"encoder.rnn_cell.num_layers": 2, "decoder.rnn_cell.num_layers": 2},
    "residual": {"decoder.rnn_cell.num_layers": 2, "decoder.rnn_cell.residual_connections": True},
    "dropout": {"encoder.rnn_cell.dropout_input_keep_prob": 0.5, "decoder.rnn_cell.dropout_output_keep_prob": 0.5},
    "initial state": {"bridge_spec": {"class": "InitialStateBridge"}},
    "outputs": {"bridge_spec": {"class": "ConcatInputBridge", "num_units": 3, "bridge_input": "outputs"}},
    "never clipped": {"optimizer.clip_gradients": -1.0},
    **{rule: {"optimizer.name": rule} for rule in RULES if rule != "Adam"},  # torch has no sparse Adam on this device
}


@pytest.mark.parametrize("settings", SETTINGS)
def test_nor_does_it_with_other_settings(settings: str) -> None:
    assert not step(small(**{"optimizer.name": "SGD", **SETTINGS[settings]}), "meta").between_devices


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("model", MODELS)
def test_an_update_waits_for_nothing_but_the_number_of_rows(model: str, rule: str) -> None:
    """Which rows of the two embeddings to update, each once, only the device knows; Adam updates all."""
    waits = [name for name in step(small(model, optimizer__name=rule), "cpu").names if name in WAITS]
    assert len(waits) == waits.count("_coalesce") <= (0 if rule == "Adam" else 2)
