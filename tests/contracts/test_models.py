"""Every encoder with every cell, bridge and model: it builds, learns, decodes, and comes back from its variables."""

import inspect
import itertools

import pytest
import torch

from s2s_search import errors
from s2s_search.hparams import table
from s2s_search.hparams.arguments import REQUIRED, Argument
from s2s_search.hparams.rules import cell_output_size, cell_state_sizes
from s2s_search.nn import bridges, cells
from s2s_search.nn.generate import beam_search, greedy
from s2s_search.nn.models import build_model
from s2s_search.tf_variables import export_variables, load_variables
from s2s_search.training.optimizers import DECAY_FUNCTIONS, UPDATE_RULES, make_optimizer
from s2s_search.training.trial import training_step
from tests.models import BATCH, SOURCE_SIZE, TARGET_SIZE, make, small

SHAPED_ALIKE = {
    "UnidirectionalRNNEncoder": 1,
    "BidirectionalRNNEncoder": 2,
}  # encoder -> decoder layers for PassThroughBridge
BRIDGE_SPECS = {
    "ZeroBridge": {"class": "ZeroBridge"},
    "PassThroughBridge": {"class": "PassThroughBridge"},
    "InitialStateBridge": {"class": "InitialStateBridge", "bridge_input": "outputs"},
    "ConcatInputBridge": {"class": "ConcatInputBridge", "num_units": 3, "activation_fn": "relu"},
}
PRODUCT = list(itertools.product(table.MODELS, table.ENCODERS, table.CELLS, table.BRIDGES))


@pytest.mark.parametrize("model_name, encoder, cell, bridge", PRODUCT)
def test_every_combination_learns_and_decodes(
    model_name: str, encoder: str, cell: str, bridge: str
) -> None:
    overrides = {
        "encoder__type": encoder,
        "bridge_spec": BRIDGE_SPECS[bridge],
        "optimizer__learning_rate": 0.03,
    }
    if bridge == "PassThroughBridge":
        if encoder not in SHAPED_ALIKE:
            with pytest.raises(errors.ConfigError, match="PassThroughBridge needs"):
                small(model_name, cell, **overrides)
            return
        overrides["decoder__rnn_cell__num_layers"] = SHAPED_ALIKE[encoder]
    hparams = small(model_name, cell, **overrides)
    model = make(hparams, dtype=torch.float32)
    optimizer = make_optimizer(model.parameters(), hparams)
    losses = [float(training_step(model, optimizer, BATCH, step)[0]) for step in range(25)]
    assert losses[-1] < 0.9 * losses[0]
    model.eval()
    best = greedy(model, BATCH.source_ids, BATCH.source_lengths, 5)
    beam = beam_search(model, BATCH.source_ids, BATCH.source_lengths, 5, beam_width=3)
    assert best.ids.shape[0] == beam.ids.shape[0] == 3
    assert (best.lengths >= 1).all()
    assert (beam.lengths <= 5).all()
    twin = build_model(hparams, SOURCE_SIZE, TARGET_SIZE, source_length=6).eval()
    load_variables(twin, export_variables(model))
    torch.testing.assert_close(twin(BATCH), model(BATCH), rtol=0, atol=0)


@pytest.mark.parametrize("name", table.CELLS)
def test_the_table_declares_what_a_cell_takes(name: str) -> None:
    assert declared(table.CELLS[name]) == taken(cells.CELL_CLASSES[name], first=1)


@pytest.mark.parametrize("name", table.BRIDGES)
def test_the_table_declares_what_a_bridge_takes(name: str) -> None:
    reads = name in ("InitialStateBridge", "ConcatInputBridge")
    arguments = declared(table.BRIDGES[name])
    if reads:
        assert arguments == taken(bridges.BRIDGE_CLASSES[name], first=2)
    else:
        assert not arguments


def declared(arguments: tuple[Argument, ...]) -> dict[str, object]:
    return {
        a.name: inspect.Parameter.empty if a.default is REQUIRED else a.default for a in arguments
    }


def taken(constructor: type, first: int) -> dict[str, object]:
    """The constructor's arguments and defaults, without the `first` that the model itself gives."""
    parameters = list(inspect.signature(constructor).parameters.values())
    return {p.name: p.default for p in parameters[first:]}


def test_every_name_of_the_table_has_its_code() -> None:
    assert set(cells.CELL_CLASSES) == set(table.CELLS)
    assert set(bridges.BRIDGE_CLASSES) == set(table.BRIDGES)
    assert set(cells.ACTIVATION_FUNCTIONS) == set(table.ACTIVATIONS)
    assert set(UPDATE_RULES) == set(table.OPTIMIZERS)
    assert {"", *DECAY_FUNCTIONS} == set(table.DECAYS)


@pytest.mark.parametrize("cell", table.CELLS)
def test_state_sizes_of_the_rules_are_those_of_the_cells(cell: str) -> None:
    for more in ({}, {"num_proj": 3}, {"state_is_tuple": True}, {"state_is_tuple": False}):
        if set(more) <= {argument.name for argument in table.CELLS[cell]}:
            spec = {
                "class": cell,
                "cell_size" if cell == "GRUBlockCell" else "num_units": 4,
                **more,
            }
            built = cells.make_cell(spec, 2)
            assert built.state_sizes == cell_state_sizes(spec)
            assert built.output_size == cell_output_size(spec)


@pytest.mark.slow
@pytest.mark.parametrize("encoder", table.ENCODERS)
@pytest.mark.parametrize(
    "model_name, more",
    [
        ("BasicSeq2Seq", {}),
        ("AttentionSeq2Seq", {"attention__score_type": "dot"}),
        ("AttentionSeq2Seq", {"attention__score_type": "bahdanau"}),
    ],
)
def test_nothing_is_born_on_the_wrong_device(
    encoder: str, model_name: str, more: dict[str, str]
) -> None:
    """On torch's meta device an operation with a tensor from another device raises."""
    for cell, bridge in itertools.product(
        table.CELLS, ("ZeroBridge", "InitialStateBridge", "ConcatInputBridge")
    ):
        hparams = small(
            model_name, cell, encoder__type=encoder, bridge_spec=BRIDGE_SPECS[bridge], **more
        )
        model = make(hparams, dtype=torch.float32).to("meta").train()
        batch = BATCH.to("meta")
        from s2s_search.training.loss import token_losses

        loss = token_losses(model(batch), batch).sum()
        assert loss.device.type == "meta"
        loss.backward()
