"""In a training step the host waits for no value, and no tensor moves between devices but masks.

On the meta device tensors have no values, so that code that reads a value raises.
"""

from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from s2s_search.corpus import batches
from s2s_search.hparams.configuration import Hparams
from s2s_search.hparams.table import CELLS, ENCODERS
from s2s_search.nn.cells import dropout
from s2s_search.nn.fast.matmul import sum_rows, sums_by_product, sums_in_order
from s2s_search.training.optimizers import UPDATE_RULES, Optimizer, make_optimizer
from s2s_search.training.trial import training_step
from tests.models import BATCH, batch_of, make, small

MODELS = ("BasicSeq2Seq", "AttentionSeq2Seq")
ON_A_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
ATOMICS = {
    "index_add",
    "index_add_",
    "to_dense",
    "_to_dense",
    "scatter_reduce",
    "embedding_dense_backward",
}
WAITS = {
    "_local_scalar_dense",
    "is_nonzero",
    "equal",
    "nonzero",
    "masked_select",
    "_unique",
    "_unique2",
    "_coalesce",
}


class Operations(TorchDispatchMode):
    """Records the operations of torch, and those between two devices."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.between_devices: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.names.append(func.overloadpacket.__name__)
        tensors = [
            leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, torch.Tensor)
        ]
        if len({tensor.device for tensor in tensors}) > 1:
            self.between_devices.append(self.names[-1])
        return result


def step(hparams: Hparams, device: str) -> Operations:
    """Makes one training step."""
    model, batch = make(hparams).to(device), BATCH.to(device)
    optimizer = make_optimizer(model.parameters(), hparams)
    with Operations() as operations:
        loss, tokens = training_step(model, optimizer, batch, 0, hparams["train.label_smoothing"])
    assert loss.device.type == tokens.device.type == device
    return operations


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("model", MODELS)
def test_a_step_looks_at_no_value(model: str, encoder: str, cell: str) -> None:
    assert not step(
        small(model, cell, encoder__type=encoder, optimizer__name="SGD"), "meta"
    ).between_devices


SETTINGS = {
    "bahdanau": {"attention.score_type": "bahdanau"},
    "not reversed": {"source.reverse": False},
    "layers": {"encoder.rnn_cell.num_layers": 2, "decoder.rnn_cell.num_layers": 2},
    "residual": {"decoder.rnn_cell.num_layers": 2, "decoder.rnn_cell.residual_connections": True},
    "dropout": {
        "encoder.rnn_cell.dropout_input_keep_prob": 0.5,
        "decoder.rnn_cell.dropout_output_keep_prob": 0.5,
    },
    "initial state": {"bridge_spec": {"class": "InitialStateBridge"}},
    "outputs": {
        "bridge_spec": {"class": "ConcatInputBridge", "num_units": 3, "bridge_input": "outputs"}
    },
    "label smoothing": {"train.label_smoothing": 0.1},
    "weight decay": {"optimizer.weight_decay": 0.1},
    "never clipped": {"optimizer.clip_gradients": -1.0},
    **{rule: {"optimizer.name": rule} for rule in UPDATE_RULES},
}


@pytest.mark.parametrize("settings", SETTINGS)
def test_nor_does_it_with_other_settings(settings: str) -> None:
    """Only dropout copies: a mask of the encoder's inputs, and one of the decoder's outputs."""
    found = step(small(**{"optimizer.name": "SGD", **SETTINGS[settings]}), "meta").between_devices
    assert found == (["empty_like", "_to_copy"] * 2 if settings == "dropout" else [])


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("model", MODELS)
def test_masks_of_dropout_are_the_same_on_every_device(model: str, cell: str) -> None:
    """A step draws the same numbers of the CPU's generator, wherever the model is."""
    keep_probs = {
        f"{side}__rnn_cell__dropout_{place}_keep_prob": 0.5
        for side in ("encoder", "decoder")
        for place in ("input", "output")
    }
    states = []
    for device in ("cpu", "meta"):
        step(small(model, cell, optimizer__name="SGD", **keep_probs), device)
        states.append(torch.get_rng_state())
    assert torch.equal(*states)
    make(small(model, cell))  # draws the initial weights, and no mask
    assert not torch.equal(torch.get_rng_state(), states[0])


@pytest.mark.parametrize("keep_prob", [0.1, 0.35, 0.8, 0.999])
def test_dropout_draws_as_torch_does_on_a_cpu(keep_prob: float) -> None:
    for x in (torch.randn(7, 5, 16), torch.randn(5, 7, 16).transpose(0, 1), torch.randn(6, 128)):
        torch.manual_seed(3)
        expected = torch.nn.functional.dropout(x, 1.0 - keep_prob, training=True)
        torch.manual_seed(3)
        assert torch.equal(dropout(x, keep_prob, training=True), expected)


@pytest.mark.parametrize("rule", UPDATE_RULES)
@pytest.mark.parametrize("model", MODELS)
def test_an_update_waits_for_nothing(model: str, rule: str) -> None:
    """It uses no atomic additions either, whose order differs from run to run."""
    names = step(small(model, optimizer__name=rule), "meta").names
    assert not [name for name in names if name in WAITS]
    assert not [name for name in names if name in ATOMICS]


@pytest.mark.parametrize("rule", [rule for rule in UPDATE_RULES if rule != "Adam"])
def test_an_update_of_all_rows_is_that_of_the_looked_up_ones(rule: str) -> None:
    """The update of a GPU, on the CPU: the same values and slots; other rows stay bit for bit."""
    torch.manual_seed(0)
    embeddings = [nn.Embedding(6, 3, sparse=True).double() for _ in range(2)]
    embeddings[1].load_state_dict(embeddings[0].state_dict())
    rules = [UPDATE_RULES[rule]([embedding.weight]) for embedding in embeddings]
    for update, ids in enumerate([[0, 1, 1], [4, 1, 4], [5]]):
        weights, before = torch.randn(len(ids), 3).double(), embeddings[0].weight.detach().clone()
        for embedding, of_rule, way in zip(
            embeddings, rules, ("update_rows", "update_all_rows"), strict=True
        ):
            (embedding(torch.tensor(ids)) * weights).sum().backward()
            with mock.patch.object(of_rule, "update_rows", getattr(of_rule, way)):
                of_rule.step(update, 0.1)
            embedding.weight.grad = None
        found = [
            [embedding.weight, *(slot[0] for slot in of_rule.slots.values())]
            for embedding, of_rule in zip(embeddings, rules, strict=True)
        ]
        torch.testing.assert_close(*found, rtol=1e-14, atol=1e-14)
        others = sorted(set(range(6)) - set(ids))
        assert torch.equal(embeddings[1].weight[others], before[others])


@pytest.mark.parametrize("rows", [1, 6, 1024, 1025])
@pytest.mark.parametrize("way", [sum_rows, sums_by_product, sums_in_order])
def test_sums_of_rows_are_those_of_a_plain_loop(
    way: Callable[[Tensor, Tensor, int], Tensor], rows: int
) -> None:
    torch.manual_seed(0)
    for count in (0, 1, 40):
        values, ids = torch.randn(count, 3, dtype=torch.float64), torch.randint(rows, (count,))
        expected = torch.zeros(rows, 3, dtype=torch.float64)
        for row, value in zip(ids.tolist(), values, strict=True):
            expected[row] += value
        torch.testing.assert_close(way(values, ids, rows), expected, rtol=1e-12, atol=1e-12)


def test_a_batch_goes_to_a_device_in_one_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    copies: list[Tensor] = []

    def copied(tensor: Tensor, device: str) -> Tensor:
        copies.append(tensor)
        return tensor.clone()

    monkeypatch.setattr(batches, "moved", copied)
    for batch in (
        BATCH,
        batch_of([[]], [[]]),
        batch_of([[1], [2, 3]], [[], [4, 1, 2]], padding=(3, 2)),
    ):
        copies.clear()
        for there, here in zip(batch.to("meta"), batch, strict=True):
            assert torch.equal(there, here)
            assert there.is_contiguous()
            assert there.dtype == torch.int64
        assert len(copies) == 1


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=ON_A_GPU)])
@pytest.mark.parametrize("columns", [53, 1024, 1025, 8001])
def test_a_softmax_in_place_is_that_of_a_copy(columns: int, device: str) -> None:
    """loss.py relies on it. torch does not promise it, and its kernel depends on the columns."""
    torch.manual_seed(0)
    logits = torch.randn(640, columns, device=device) * 5
    expected = torch.log_softmax(logits.double(), dim=-1)
    torch.testing.assert_close(
        torch.log_softmax(logits, dim=-1, out=logits).double(), expected, rtol=1e-5, atol=1e-5
    )


@ON_A_GPU
@pytest.mark.parametrize("rule", UPDATE_RULES)
@pytest.mark.parametrize("model", MODELS)
def test_a_step_on_a_gpu_is_the_same_every_time_and_that_of_the_cpu(model: str, rule: str) -> None:
    found = []
    for device in ("cuda", "cuda", "cpu"):
        hparams = small(model, optimizer__name=rule)
        made, batch = make(hparams, dtype=torch.float32).to(device), BATCH.to(device)
        optimizer = make_optimizer(made.parameters(), hparams)
        losses = [training_step(made, optimizer, batch, update)[0] for update in range(5)]
        found.append([tensor.cpu() for tensor in (*losses, *made.parameters())])
    assert all(torch.equal(first, second) for first, second in zip(found[0], found[1], strict=True))
    torch.testing.assert_close(found[0], found[2], rtol=1e-4, atol=1e-4)


def test_adam_counts_steps_on_the_device() -> None:
    """torch's kernel for a GPU takes no number of steps from the host."""
    p = torch.nn.Parameter(torch.empty(2, 3, device="meta"))
    p.grad = torch.empty_like(p)
    with Operations() as operations:
        Optimizer([p], "Adam", lambda step: 0.1, clip=5.0).step(0)
    assert not operations.between_devices
