"""Several nodes with GPUs that are not there: where trials are placed, and what is refused."""

import os
import sys
import time
import types
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray.cloudpickle
from ray.cluster_utils import Cluster

from s2s_search.errors import ConfigError
from s2s_search.results import results
from s2s_search.spaces.load import load_space
from s2s_search.spaces.space import Space
from s2s_search.tuning.start import resume_search, run_search

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
pytestmark = pytest.mark.slow

SPACE = """
model: BasicSeq2Seq
corpus: {{name: copy, train: 20, dev: 5, vocabulary: 5, min_length: 2, max_length: 5}}
search: {{method: grid}}
scheduler: {{name: none, max_steps: 10, grace_steps: 10}}
resources: {{cpu: 0.25, gpu: {gpu}}}
parameters: {{train.seed: {seeds}}}
"""
GPUS = 2  # of a node


@pytest.fixture(scope="module")
def cluster(ray_folder: Path) -> Iterator[Cluster]:
    """A head without processors, and two nodes with two GPUs each."""
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
    )
    for _ in range(2):
        cluster.add_node(num_cpus=4, num_gpus=GPUS)
    yield cluster
    cluster.shutdown()


def space(folder: Path, gpu: float, trials: int = 4) -> Space:
    (folder / "space.yaml").write_text(SPACE.format(gpu=gpu, seeds=list(range(trials))))
    return load_space(folder / "space.yaml")


def meeting(folder: Path, together: int) -> Any:
    """A stand-in for train() that tells where it runs, when `together` trials are running."""

    def train(hparams: Any, corpus: Any, device: str) -> Iterator[Any]:
        (folder / f"here-{hparams['train.seed']}").touch()
        until = time.monotonic() + 120
        while len(list(folder.glob("here-*"))) < together and time.monotonic() < until:
            time.sleep(0.1)
        place = {
            "place": f"{ray.get_runtime_context().get_node_id()} {os.environ['CUDA_VISIBLE_DEVICES']}",
            "device": device,
            "together": len(list(folder.glob("here-*"))),
        }
        metrics = {
            "step": 10,
            "seconds": 1.0,
            "status": "finished",
            "parameters": 1,
            "dev.loss": 1.0,
        }
        yield types.SimpleNamespace(metrics=metrics | place, snapshot=dict, answers=lambda: None)

    return train


def places(folder: Path, space: Space, together: int, cluster: Cluster) -> list[tuple[str, str]]:
    """Runs a search whose trials must all run at once, and gives the node and the visible GPUs of each."""
    train = meeting(folder, together)
    found = results.load(
        run_search(space, out=folder / "run", address=cluster.address, train=train).folder
    )
    assert found.trials["status"].tolist() == ["finished"] * together
    assert found.reports["together"].tolist() == [together] * together
    assert found.reports["device"].tolist() == ["cuda"] * together
    return [tuple(place.split()) for place in found.reports["place"]]


def test_half_gpus_are_shared_by_two_trials_each_on_every_node(
    cluster: Cluster, tmp_path: Path
) -> None:
    found = Counter(places(tmp_path, space(tmp_path, gpu=0.5, trials=8), 8, cluster))
    assert list(found.values()) == [2] * (2 * GPUS)
    assert {gpu for _, gpu in found} == {"0", "1"}
    assert len({node for node, _ in found}) == 2


def test_half_gpus_are_packed_on_a_card_and_spread_over_nodes(
    cluster: Cluster, tmp_path: Path
) -> None:
    found = Counter(places(tmp_path, space(tmp_path, gpu=0.5), 4, cluster))
    assert list(found.values()) == [2, 2]
    assert len({node for node, _ in found}) == 2


def test_more_gpus_than_any_node_has_are_refused(cluster: Cluster, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"needs 0\.25 CPU and 3 GPU, and the largest node has 4 CPU and 2 GPU"
    ):
        run_search(space(tmp_path, gpu=3), out=tmp_path / "run", address=cluster.address)
    assert not (tmp_path / "run").exists()


def test_a_node_that_comes_during_the_search_gets_trials(cluster: Cluster, tmp_path: Path) -> None:
    """Three trials that take a node each and wait for each other: on the two nodes alone they would never meet."""
    with ThreadPoolExecutor() as pool:  # Ray starts nodes in the main thread only
        search = pool.submit(places, tmp_path, space(tmp_path, gpu=GPUS, trials=3), 3, cluster)
        while len(list(tmp_path.glob("here-*"))) < 2 and not search.done():
            time.sleep(0.1)
        node = cluster.add_node(num_cpus=4, num_gpus=GPUS)
        found = search.result()
    assert {gpus for _, gpus in found} == {"0,1"}
    assert len({name for name, _ in found}) == 3
    assert node.node_id in {name for name, _ in found}


def one_second(hparams: Any, corpus: Any, device: str, snapshot: Any = None) -> Iterator[Any]:
    time.sleep(1)
    metrics = {"step": 10, "seconds": 1.0, "status": "finished", "parameters": 1, "dev.loss": 1.0}
    yield types.SimpleNamespace(
        metrics=metrics, snapshot=lambda: {"step": 10}, answers=lambda: None
    )


def test_a_budget_of_gpu_hours_counts_gpus_and_a_larger_one_lets_the_search_go_on(
    cluster: Cluster, tmp_path: Path
) -> None:
    """Forty trials of a second need eighty GPU seconds and more; sixty are granted.

    On a busy machine sixty may end before the first trial does.
    """
    asked = space(tmp_path, gpu=GPUS, trials=40)
    asked = replace(asked, search=replace(asked.search, gpu_hours=60 / 3600))
    outcome = run_search(asked, out=tmp_path / "run", address=cluster.address, train=one_second)
    assert outcome.status == "out of budget"
    assert "search.gpu_hours" in str(outcome.message)
    statuses = results.load(tmp_path / "run").trials["status"]
    assert len(statuses) > 0
    assert (statuses == "finished").sum() < 40
    again = resume_search(tmp_path / "run", gpu_hours=1, address=cluster.address, train=one_second)
    assert again.status == "finished"
    assert (results.load(tmp_path / "run").trials["status"] == "finished").sum() == 40
