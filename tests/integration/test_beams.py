"""Calls on a real Ray: of the settings of a beam, and of functions that fail or are interrupted."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import ray
import ray.cloudpickle

from s2s_search.cli import command_line
from s2s_search.errors import ConfigError
from s2s_search.spaces.settings import Resources
from s2s_search.tuning import cluster

pytestmark = pytest.mark.slow  # each test runs whole searches

ray.cloudpickle.register_pickle_by_value(
    sys.modules[__name__]
)  # the functions below reach workers with their code

SPACE = """
model: BasicSeq2Seq
corpus: {name: copy, train: 100, dev: 30, vocabulary: 5, min_length: 2, max_length: 5}
search: {method: grid}
scheduler: {name: none, max_steps: 30}
parameters:
  train.seed: [0, 1]
  embedding.dim: 8
  encoder.rnn_cell.cell_spec: {class: GRUCell, num_units: 8}
  decoder.rnn_cell.cell_spec: {class: GRUCell, num_units: 8}
  train.eval_every_steps: 30
  inference.max_decode_length: 8
"""


def power(base: int, exponent: int) -> int:
    if exponent < 0:
        raise ConfigError(f"must be at least 0, but got {exponent}", "exponent")
    return int(base**exponent)


def interrupting(driver: int, _: int) -> None:
    os.kill(driver, signal.SIGINT)
    time.sleep(60)


def test_a_function_is_called_with_each_argument(address: str) -> None:
    assert dict(cluster.each(power, 2, [5, 0, 3], Resources(1, 0), address)) == {0: 32, 1: 1, 2: 8}
    assert not ray.is_initialized()
    with pytest.raises(ConfigError, match=r"^exponent: must be at least 0, but got -1$"):
        list(cluster.each(power, 2, [1, -1], Resources(0.5, 0), address))
    assert not ray.is_initialized()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        list(cluster.each(interrupting, os.getpid(), [0], Resources(1, 0), address))
    assert time.monotonic() - began < 50
    assert not ray.is_initialized()
    with pytest.raises(ConfigError, match="must fit on one node"):
        list(cluster.each(power, 2, [1], Resources(10_000, 0), address))


def test_decoding_is_tuned_on_the_checkpoints_of_a_search(
    address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "space.yaml").write_text(SPACE)
    run, joined = tmp_path / "run", ["--address", address]
    assert (
        command_line.main(["search", str(tmp_path / "space.yaml"), "--out", str(run), *joined]) == 0
    )
    capsys.readouterr()
    assert (
        command_line.main(
            [
                "tune-decoding",
                str(run),
                "--top",
                "2",
                "--beams",
                "1,3",
                "--penalties",
                "0,1",
                "--json",
                *joined,
            ]
        )
        == 0
    )
    rows = pd.DataFrame([json.loads(line) for line in capsys.readouterr().out.splitlines()])
    assert len(rows) == 2 * (1 + 2)
    chosen = rows[rows["recommended"].astype(bool)]
    assert len(chosen) <= 1
    assert (chosen["behind.high"] <= max(0.02 * rows["dev.error_rate"].min(), 0.001)).all()
    assert (
        pd.read_csv(run / "decoding.csv")["dev.error_rate"].tolist()
        == rows["dev.error_rate"].tolist()
    )
    trials = pd.read_csv(run / "trials.csv").set_index("trial")
    greedy = rows[rows["beam_width"] == 1].set_index("trial")["dev.error_rate"]
    assert greedy.to_dict() == pytest.approx(trials["best.dev.error_rate"].to_dict())
    assert command_line.main(["tune-decoding", str(run), "--beams", "0"]) == 2
    (run / "trial-00000" / "best.pt").write_bytes(b"damaged")
    (run / "trial-00001" / "best.pt").write_bytes(b"damaged")
    assert command_line.main(["tune-decoding", str(run), "--beams", "1", *joined]) == 2
    assert "no checkpoint of a trial" in capsys.readouterr().err
    for trial in trials.index:
        (run / trial / "best.pt").unlink()
    assert command_line.main(["tune-decoding", str(run)]) == 2
    assert "no trial has a checkpoint" in capsys.readouterr().err
