"""Several nodes with GPUs that are not there: where trials are placed, and what is refused."""

import os
import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray.cloudpickle
from ray.cluster_utils import Cluster

from s2s_search import results
from s2s_search.spaces import Space, load_space
from s2s_search.table import ConfigError
from s2s_search.tuning import run_search

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
pytestmark = pytest.mark.slow

SPACE = """
model: BasicSeq2Seq
corpus: {{name: copy, train: 20, dev: 5, vocabulary: 5, min_length: 2, max_length: 5}}
search: {{method: grid}}
scheduler: {{name: none, max_steps: 10, grace_steps: 10}}
resources: {{cpu: 0.25, gpu: {gpu}}}
parameters: {{train.seed: [0, 1, 2, 3]}}
"""
TOGETHER = 4  # trials that wait for each other


@pytest.fixture(scope="module")
def address(ray_folder: Path) -> Iterator[str]:
    """A head without processors, and two nodes with a GPU each."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        cluster.add_node(num_cpus=4, num_gpus=1)
    yield cluster.address
    cluster.shutdown()


def space(folder: Path, gpu: float) -> Space:
    (folder / "space.yaml").write_text(SPACE.format(gpu=gpu))
    return load_space(folder / "space.yaml")


def meeting(folder: Path) -> Any:
    """A stand-in for train() that tells where it runs, when all trials are running."""

    def train(hparams: Any, corpus: Any, device: str) -> Iterator[Any]:
        (folder / f"here-{hparams['train.seed']}").touch()
        until = time.monotonic() + 120
        while len(list(folder.glob("here-*"))) < TOGETHER and time.monotonic() < until:
            time.sleep(0.1)
        place = {
            "place": f"{ray.get_runtime_context().get_node_id()} {os.environ['CUDA_VISIBLE_DEVICES']}",
            "device": device,
            "together": len(list(folder.glob("here-*"))),
        }
        metrics = {"step": 10, "seconds": 1.0, "status": "finished", "parameters": 1, "dev.loss": 1.0}
        yield types.SimpleNamespace(metrics=metrics | place, snapshot=dict)

    return train


def test_half_gpus_are_shared_by_two_trials_each_on_every_node(address: str, tmp_path: Path) -> None:
    outcome = run_search(space(tmp_path, gpu=0.5), out=tmp_path / "run", address=address, train=meeting(tmp_path))
    found = results.load(outcome.folder)
    assert found.trials["status"].tolist() == ["finished"] * 4
    assert found.reports["together"].tolist() == [4] * 4
    assert found.reports["device"].tolist() == ["cuda"] * 4
    places = found.reports["place"].value_counts()
    assert places.tolist() == [2, 2]
    assert {place.split()[1] for place in places.index} == {"0"}


def test_more_gpus_than_any_node_has_are_refused(address: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"needs 0\.25 CPU and 2 GPU, and the largest node has 4 CPU and 1 GPU"):
        run_search(space(tmp_path, gpu=2), out=tmp_path / "run", address=address)
    assert not (tmp_path / "run").exists()
