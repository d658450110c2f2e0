"""Every trial of every shipped space builds a model."""

from pathlib import Path

import pytest
import torch

from s2s_search.hparams.configuration import resolve
from s2s_search.nn.models import build_model
from s2s_search.spaces.load import load_space
from tests.models import BATCH, SOURCE_SIZE, TARGET_SIZE

FOLDER = Path(__file__).parent.parent.parent / "search_spaces"


@pytest.mark.parametrize(
    "path", sorted(FOLDER.rglob("*.yaml")), ids=lambda path: str(path.relative_to(FOLDER))
)
def test_every_trial_builds(path: Path) -> None:
    trials = load_space(path).trials()
    assert len(trials) >= 12
    with torch.device("meta"):
        for config in trials:
            model = build_model(resolve(str(config["model"]), config), SOURCE_SIZE, TARGET_SIZE)
        assert model(BATCH.to("meta")).shape == (3, BATCH.target_ids.shape[1] - 1, TARGET_SIZE)
