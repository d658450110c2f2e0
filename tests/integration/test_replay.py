"""Real searches, replayed under their own settings: the decisions are those that were made."""

import sys
import time
import types
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray.cloudpickle

from s2s_search.hparams.configuration import Hparams
from s2s_search.spaces.load import load_space
from s2s_search.spaces.settings import Resources
from s2s_search.tuning import start
from s2s_search.whatif import replay
from s2s_search.whatif.curves import Record, load_record

pytestmark = pytest.mark.slow  # each test runs whole searches

ray.cloudpickle.register_pickle_by_value(
    sys.modules[__name__]
)  # the stand-in below reaches workers with its code

SPACE = """
model: BasicSeq2Seq
corpus: {{name: copy, train: 20, dev: 5, vocabulary: 5, min_length: 2, max_length: 5}}
search: {{method: grid}}
scheduler: {{name: {scheduler}, max_steps: 40, reduction_factor: 2{grace}}}
parameters: {{train.seed: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]}}
"""


def curves(hparams: Hparams, _corpus: object, _device: object, before: Any = None) -> Iterator[Any]:
    """Falls to a level, and as fast, as the seed says."""
    began, seed = time.perf_counter(), hparams["train.seed"]
    for step in range(5 if before is None else before["step"] + 5, 41, 5):
        time.sleep(0.005 * (1 + seed % 3))
        loss = (seed * 7 % 12) / 12 + 4 / (step + seed)
        status = "finished" if step == 40 else "running"
        numbers = {
            "step": step,
            "seconds": time.perf_counter() - began,
            "status": status,
            "evaluation_seconds": 0.0,
        }
        yield types.SimpleNamespace(
            metrics=numbers | {"dev.loss": loss},
            snapshot=lambda step=step: {"step": step},
            answers=lambda: None,
        )


def searched(folder: Path, scheduler: str, cpu: float, address: str) -> Record:
    grace = "" if scheduler == "hyperband" else ", grace_steps: 5"
    (folder / "space.yaml").write_text(SPACE.format(scheduler=scheduler, grace=grace))
    space = replace(load_space(folder / "space.yaml"), resources=Resources(cpu, 0))
    assert (
        start.run_search(space, out=folder / "run", train=curves, address=address).status
        == "finished"
    )
    return load_record(folder / "run")


@pytest.mark.parametrize("scheduler", ["asha", "median"])
def test_in_the_order_of_the_log_every_decision_is_made_again(
    address: str, tmp_path: Path, scheduler: str
) -> None:
    record = searched(tmp_path, scheduler, cpu=1, address=address)
    trials = record.history.trials.values()
    logged = {
        (trial.name, event["step"]): dict(event) for trial in trials for event in trial.decisions
    }
    assert sum(event["action"] == "stop" for event in logged.values()) >= 3
    made = replay.in_recorded_order(record)
    assert made.keys() == logged.keys()  # none about a trial that has ended by itself
    for place, event in logged.items():
        assert event == {
            "event": "decision",
            "time": event["time"],
            "trial": place[0],
            **made[place],
        }
    assert replay.made_again(record) == (len(logged), len(logged))


def ends(record: Record) -> dict[str, tuple[str, int]]:
    return {trial.name: (trial.status, trial.step) for trial in record.history.trials.values()}


def simulated_ends(simulation: replay.Simulation) -> dict[str, tuple[str, int]]:
    return {trial.trial_id: (trial.end, trial.reports[-1].step) for trial in simulation.trials}


def test_hyperbands_brackets_come_out_as_in_the_search(address: str, tmp_path: Path) -> None:
    """Who goes on does not depend on how many workers there are, as a bracket waits for all of its trials."""
    record = searched(tmp_path, "hyperband", cpu=1, address=address)
    assert sum(end == "stopped" for end, _ in ends(record).values()) == 3
    for workers in (1, 2, 5):
        simulation = replay.Simulation(record, record.space.scheduler, workers)
        assert simulation.run().unknown == {}
        assert simulated_ends(simulation) == ends(record)


def test_one_worker_after_another_comes_out_as_the_search_did(address: str, tmp_path: Path) -> None:
    """One trial at a time: the order of the reports follows from that of the trials."""

    record = searched(tmp_path, "asha", cpu=2, address=address)
    assert record.workers == 1
    simulation = replay.Simulation(record, record.space.scheduler, workers=1)
    outcome = simulation.run()
    assert simulated_ends(simulation) == ends(record)
    assert (outcome.unknown, outcome.regret) == ({}, 0)
    assert outcome.worker_seconds == pytest.approx(record.seconds)
