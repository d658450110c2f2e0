"""Importance and Optuna's studies, from runs whose results are written by hand: what mattered is known."""

import math
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from s2s_search.recorder import KEPT, Recorder
from s2s_search.results import Results, load
from s2s_search.spaces import load_space
from s2s_search.table import ConfigError

SPACE = """
model: [BasicSeq2Seq, AttentionSeq2Seq]
corpus: {{name: cmudict}}
metric: {{name: {metric}}}
search: {{trials: 8}}
parameters:
  attention.score_type: [bahdanau, dot]
  encoder.type: [UnidirectionalRNNEncoder, BidirectionalRNNEncoder]
  optimizer.learning_rate: {{min: {low}, max: 1e-2, log: true}}
  optimizer.lr_decay_type: ["", exponential_decay]
  optimizer.lr_decay_rate: {{min: 0.5, max: 0.75, step: 0.1, when: {{optimizer.lr_decay_type: exponential_decay}}}}
  embedding.dim: {{min: 16, max: 64, log: true}}
  encoder.rnn_cell.cell_spec:
    choices:
      small: {{class: GRUCell, num_units: 16}}
      large: {{class: GRUCell, num_units: 32}}
"""

Config = Mapping[str, Any]


def record(
    folder: Path,
    loss: Callable[[Config], float],
    trials: int,
    metric: str = "dev.loss",
    low: str = "1e-4",
    statuses: Mapping[int, str] | None = None,
    overrides: Mapping[str, object] | None = None,
) -> Results:
    """Writes a run of a space's own draws, each with two reports, the second the better one; loads it."""
    folder.mkdir(parents=True)
    (folder / "space.yaml").write_text(SPACE.format(metric=metric, low=low))
    space = load_space(folder / "space.yaml")
    recorder = Recorder(space, folder)
    known = {"overrides": dict(overrides or {}), "space": str(space.path), "corpus": {}}
    recorder.begin(trials, dict.fromkeys(KEPT) | known)
    for k, config in enumerate(space.trials(trials, overrides=overrides)):
        name, value, status = f"trial-{k:05d}", loss(config), (statuses or {}).get(k, "finished")
        recorder.begin_trial(name, config)
        worse = value + (1 if space.metric.goal == "minimize" else -1)
        if status == "diverged":
            recorder.report(name, {"step": 10, "status": "diverged", metric: 1e6})
        elif status != "failed":
            recorder.report(name, {"step": 10, "status": "running", metric: worse})
            recorder.report(name, {"step": 20, "status": "running", metric: value})
        recorder.end_trial(name, status)
    recorder.end("finished")
    recorder.close()
    return load(folder)


def by_rate(config: Config) -> float:
    """Best in the middle of the rates; nothing else matters."""
    return abs(math.log10(config["optimizer.learning_rate"]) + 3)


def test_what_decides_the_result_is_most_important(tmp_path: Path) -> None:
    table = record(tmp_path / "run", by_rate, 200).importance()
    assert table["hyperparameter"][0] == "optimizer.learning_rate"
    assert table["importance"][0] > 0.8
    assert table["importance"].sum() == pytest.approx(1)
    assert sorted(table["hyperparameter"]) == sorted(load(tmp_path / "run").searched)


def test_it_is_the_better_side_that_counts(tmp_path: Path) -> None:
    """Rates above 1e-3 are the best ones by a little, rates below 1e-3 differ wildly among each other: of BLEU."""

    def bleu(config: Config) -> float:
        return 50.0 if config["encoder.type"].startswith("Bi") else random.Random(repr(config)).uniform(0, 40)

    run = record(tmp_path / "run", bleu, 100, "dev.bleu")
    assert run.importance()["hyperparameter"][0] == "encoder.type"
    assert run.minimizes("dev.loss")
    assert not run.minimizes("dev.bleu")


def test_a_conditional_key_counts_where_it_takes_part(tmp_path: Path) -> None:
    def loss(config: Config) -> float:
        return 1.0 if config.get("attention.score_type") == "dot" else 2.0 + random.Random(repr(config)).random()

    run = record(tmp_path / "run", loss, 200)
    table = run.importance().set_index("hyperparameter")
    assert table.index[:2].tolist() == ["attention.score_type", "model"]
    active = run.trials["attention.score_type"].notna().sum()
    assert 0 < active < 200
    assert table.loc["attention.score_type", "trials"] == active
    assert table.loc["model", "trials"] == 200
    assert table.loc["optimizer.learning_rate", "importance"] < 0.1


def test_a_divergence_is_as_bad_as_the_worst_and_a_failure_counts_for_nothing(tmp_path: Path) -> None:
    """All rates are as good as each other, but the higher ones diverge."""

    def loss(config: Config) -> float:
        return random.Random(repr(config)).random()

    space = record(tmp_path / "a", loss, 100).trials
    high = {k: "diverged" for k, rate in enumerate(space["optimizer.learning_rate"]) if rate > 5e-4}
    run = record(tmp_path / "b", loss, 100, statuses=high | {0: "failed", 1: "failed"})
    table = run.importance().set_index("hyperparameter")
    assert table.index[0] == "optimizer.learning_rate"
    assert table.loc["embedding.dim", "trials"] == 98


def test_few_trials_say_nothing_and_the_reason_is_given(tmp_path: Path) -> None:
    run = record(tmp_path / "run", by_rate, 12, statuses=dict.fromkeys(range(3), "failed"))
    table = run.importance()
    assert table.empty
    assert table.dtypes.astype(str).to_dict() == {
        "hyperparameter": "string",
        "importance": "Float64",
        "trials": "Int64",
    }
    assert "at least 10" in table.attrs["reason"]
    assert "9 of 12" in table.attrs["reason"]


@pytest.mark.parametrize("metric", ["dev.los", "encoder.type"])
def test_what_is_no_metric_is_refused(tmp_path: Path, metric: str) -> None:
    run = record(tmp_path / "run", by_rate, 10)
    with pytest.raises(ConfigError, match=metric):
        run.importance(metric)


def test_a_run_without_its_space_says_so(tmp_path: Path) -> None:
    run = record(tmp_path / "run", by_rate, 10)
    (tmp_path / "run" / "space.yaml").unlink()
    with pytest.raises(ConfigError, match=r"space\.yaml"):
        run.importance()
