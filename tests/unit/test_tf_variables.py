"""Weights by the original's names, read and written; tests/golden compares the values."""

import numpy as np
import pytest
import torch

from s2s_search.errors import ConfigError
from s2s_search.nn.models import build_model
from s2s_search.tf_variables import export_variables, load_variables
from tests.models import BATCH, SOURCE_SIZE, TARGET_SIZE, make, small


def test_all_problems_are_named_and_nothing_is_changed() -> None:
    model = make(small())
    arrays = export_variables(model)
    before = export_variables(model)
    prefix = "model/att_seq2seq/"
    arrays[prefix + "attention/att_key/weights"] = arrays.pop(prefix + "attention/att_keys/weights")
    arrays[prefix + "source_embedding"] = np.zeros((2, 2))
    with pytest.raises(ConfigError) as error:
        load_variables(model, arrays)
    assert len(error.value.problems) == 3
    assert "no value for variable 'model/att_seq2seq/attention/att_keys/weights'" in str(
        error.value
    )
    assert "did you mean 'model/att_seq2seq/attention/att_keys/weights'?" in str(error.value)
    assert "shape is (9, 4), but the given array has (2, 2)" in str(error.value)
    after = export_variables(model)
    for name, array in before.items():
        np.testing.assert_array_equal(array, after[name])


def test_an_export_does_not_change_with_the_model() -> None:
    model = make(small())
    exported = export_variables(model)
    name = "model/att_seq2seq/source_embedding"
    kept = exported[name].copy()
    model.source_embedding.weight.data.zero_()
    np.testing.assert_array_equal(exported[name], kept)


@pytest.mark.parametrize(
    "bridge", [{"class": "InitialStateBridge"}, {"class": "ConcatInputBridge", "num_units": 3}]
)
def test_a_bridge_over_outputs_becomes_as_long_as_the_given_one(bridge: dict[str, object]) -> None:
    """The original's bridge had the length of its batches, which no hyperparameter states."""
    hparams = small(bridge_spec=bridge | {"bridge_input": "outputs"})
    short, long = (
        build_model(hparams, SOURCE_SIZE, TARGET_SIZE, source_length=n).eval() for n in (6, 9)
    )
    load_variables(long, export_variables(short))
    torch.testing.assert_close(long(BATCH), short(BATCH), rtol=0, atol=0)
    bad = {
        name: array[:-1] if "_bridge/" in name else array
        for name, array in export_variables(short).items()
    }
    with pytest.raises(ConfigError, match="_bridge/fully_connected/weights: shape is"):
        load_variables(long, bad)
