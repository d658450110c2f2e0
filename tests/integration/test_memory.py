"""What a worker keeps of the trials that it has run: nothing."""

import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray.cloudpickle

from s2s_search.results import results
from s2s_search.spaces.load import load_space
from s2s_search.tuning.start import run_search

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])

TRIALS, WARM = 60, 5  # the latter of each worker
CELLS = ("BasicLSTMCell", "LSTMCell", "GRUCell", "LayerNormBasicLSTMCell")
SPACE = """
model: [BasicSeq2Seq, AttentionSeq2Seq]
corpus: {name: copy, train: 200, dev: 10, vocabulary: 1000, min_length: 2, max_length: 20}
scheduler: {name: asha, max_steps: 4, grace_steps: 2, reduction_factor: 2}
resources: {cpu: 1}
parameters:
  encoder.rnn_cell.cell_spec: [%s]
  decoder.rnn_cell.cell_spec: {same_as: encoder.rnn_cell.cell_spec}
  decoder.rnn_cell.dropout_input_keep_prob: [0.8, 1.0]
  embedding.dim: {min: 16, max: 128}
  optimizer.learning_rate: {min: 1e-4, max: 1e-1, log: true}
  train.batch_size: {min: 8, max: 100}
  train.eval_every_steps: 2
  inference.max_decode_length: 20
"""


def weighed(*arguments: Any) -> Iterator[Any]:
    """Trains, and adds to each report the process and the MB that it had before the trial began."""
    import os

    from s2s_search.training.trial import train

    pages = int(Path("/proc/self/statm").read_text().split()[1])
    for report in train(*arguments):
        report.metrics.update(
            {"train.worker": os.getpid(), "train.mb": pages * os.sysconf("SC_PAGE_SIZE") / 2**20}
        )
        yield report


@pytest.mark.slow
@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="other C libraries keep what they like"
)
def test_a_worker_does_not_grow_with_the_trials_that_it_has_run(
    address: str, tmp_path: Path
) -> None:
    cells = ", ".join(
        f"{{class: {cell}, num_units: {units}}}" for cell in CELLS for units in (32, 64, 128, 256)
    )
    (tmp_path / "space.yaml").write_text(SPACE % cells)
    space = load_space(tmp_path / "space.yaml")
    run = run_search(
        space, out=tmp_path / "run", trials=TRIALS, address=address, train=weighed
    ).folder
    found = results.load(run).reports.drop_duplicates("trial")
    assert len(found) == TRIALS
    for _, memory in found.groupby("train.worker")["train.mb"]:
        assert memory.iloc[WARM:].max() - memory.iloc[WARM] < 20
