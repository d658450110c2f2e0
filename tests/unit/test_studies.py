"""Importance and Optuna studies of runs with results by hand, for which what mattered is known."""

import datetime
import json
import math
import random
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
from scipy.stats import mannwhitneyu

from s2s_search.errors import ConfigError
from s2s_search.results.importance import importance, possible_reversals, reversals
from s2s_search.results.many import load_many
from s2s_search.results.results import Results, load
from s2s_search.results.scores import Scores
from s2s_search.runs.recorder import NEEDED_TO_RESUME, Recorder
from s2s_search.spaces.load import load_space

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

CONSTANTS = """
model: {model}
metric: {{name: {metric}}}
parameters:
  optimizer.learning_rate: {{min: {low}, max: 1e-2, log: true}}
  optimizer.lr_decay_type: {decay}
  encoder.rnn_cell.cell_spec: {{class: GRUCell, num_units: 16}}
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
    text: str = SPACE,
    **words: str,
) -> Results:
    """Writes a run with the space's draws, each with two reports of which the second is better."""
    folder.mkdir(parents=True)
    (folder / "space.yaml").write_text(text.format(metric=metric, low=low, **words))
    space = load_space(folder / "space.yaml")
    recorder = Recorder(space, folder)
    known = {"overrides": dict(overrides or {}), "space": str(space.path), "corpus": {}}
    recorder.begin(trials, dict.fromkeys(NEEDED_TO_RESUME) | known)
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
    assert table["importance"][0] > 0.6
    assert table["p"][0] <= 0.001
    assert (table["importance"][1:] < 0.1).all()
    assert (table["chance"] < 0.1).all()
    assert sorted(table["hyperparameter"]) == sorted(load(tmp_path / "run").searched)


def test_what_decides_everything_is_named_although_others_depend_on_it(tmp_path: Path) -> None:
    """Half of the trials have a model with a key of its own, and only the model matters."""

    def loss(config: Config) -> float:
        noise = random.Random(repr(config)).gauss(0, 0.004)
        return 0.2 - 0.1 * (config["model"] == "AttentionSeq2Seq") + noise

    table = record(tmp_path / "run", loss, 30).importance()
    assert table["hyperparameter"][0] == "model"
    assert table["importance"][0] > 0.5
    assert (table["p"][1:] > 0.05).all()


def test_chance_is_named_beside_the_importance_of_chance(tmp_path: Path) -> None:
    """Equal results explain nothing; of noise no key stands out, and its share is that of chance."""
    equal = record(tmp_path / "equal", lambda config: 0.2, 30).importance()
    assert (equal["importance"] == 0).all()
    assert (equal["p"] == 1).all()
    noise = record(tmp_path / "noise", lambda c: random.Random(repr(c)).random(), 60).importance()
    assert (noise["p"] > 0.05).all()
    assert (noise["chance"] > 0.03).all()


def test_draws_count_once_beside_a_grid(tmp_path: Path) -> None:
    """Each learning rate is run with both encoders: the draws differ by more than the encoders."""
    text = SPACE.replace("encoder.type: [Uni", "encoder.type: {{grid: [Uni")
    text = text.replace("Encoder]", "Encoder]}}").replace("model: [BasicSeq2Seq, A", "model: [A")

    def loss(config: Config) -> float:
        draw = {key: value for key, value in config.items() if key != "encoder.type"}
        noise = random.Random(repr(draw)).gauss(0, 1) + random.Random(repr(config)).gauss(0, 0.1)
        return 0.5 * config["encoder.type"].startswith("Uni") + noise

    table = record(tmp_path / "run", loss, 12, text=text).importance()
    assert table["hyperparameter"][0] == "encoder.type"
    assert table["p"][0] <= 0.05
    assert (table["p"][1:] > 0.05).all()


def test_a_value_that_depends_on_another_is_named_and_a_larger_effect_is_not(
    tmp_path: Path,
) -> None:
    def noise(config: Config) -> float:
        return random.Random(repr(config)).gauss(0, 0.3)

    def reversed_(config: Config) -> float:
        is_bi, is_large = config["encoder.type"].startswith("Bi"), config["embedding.dim"] > 32
        return 1.0 * (is_bi == is_large) + noise(config)

    def larger(config: Config) -> float:
        is_bi, is_large = config["encoder.type"].startswith("Bi"), config["embedding.dim"] > 32
        return (3.0 if is_large else 1.0) * is_bi + noise(config)

    first, *_ = reversals(record(tmp_path / "reversed", reversed_, 100))
    assert {first.key, first.other} == {"encoder.type", "embedding.dim"}
    assert len(set(first.better)) == 2
    assert reversals(record(tmp_path / "larger", larger, 100)) == []


def test_the_clearest_of_the_possible_reversals_comes_first(tmp_path: Path) -> None:
    """Its p is that of plain loops; three keys of two values, or halves, are six tests."""
    text = SPACE.replace("model: [BasicSeq2Seq, AttentionSeq2Seq]", "model: BasicSeq2Seq")
    text = re.sub(r"  (attention|optimizer.lr|embedding).*\n", "", text)

    def loss(config: Config) -> float:
        is_bi = config["encoder.type"].startswith("Bi")
        is_small = config["encoder.rnn_cell.cell_spec"]["num_units"] == 16
        return 0.3 * (is_bi == is_small) + random.Random(repr(config)).random()

    found = record(tmp_path / "run", loss, 60, text=text)
    possible = possible_reversals(found)
    assert len(possible) == 6
    assert possible == sorted(possible, key=lambda each: each.p)
    trials = found.trials.assign(place=found.trials["best.dev.loss"].rank())
    chances, sides = [], []
    for _, under in trials.groupby("encoder.type"):
        small = under["encoder.rnn_cell.cell_spec"] == "small"
        a, b = under["place"][small], under["place"][~small]
        is_small = np.sqrt(a).mean() <= np.sqrt(b).mean()
        sides.append(is_small)
        side = "less" if is_small else "greater"
        chances.append(mannwhitneyu(a, b, alternative=side).pvalue)
    of_one = max(chances) if sides[0] != sides[1] else 1.0
    (mine,) = (
        each
        for each in possible
        if (each.key, each.other) == ("encoder.rnn_cell.cell_spec", "encoder.type")
    )
    assert 0.05 < mine.p < 1
    assert mine.p == pytest.approx(max(2 * 6 * of_one**2, 5 * of_one))


@pytest.mark.slow
@pytest.mark.parametrize("n", [12, 16, 32])
def test_chance_names_a_key_in_at_most_5_of_100_searches(tmp_path: Path, n: int) -> None:
    """The scores of one search, drawn again 150 times."""
    run = record(tmp_path / "run", by_rate, n)
    rng, wrong = np.random.default_rng(n), 0
    for _ in range(150):
        values = pd.Series(pd.array(rng.normal(size=n), "Float64"), run.trials.index)
        scores = Scores(values, None, pd.Series(False, run.trials.index), True)
        wrong += bool((importance(run, scores=scores)["p"] <= 0.05).any())
    assert wrong / 150 <= 0.05 + 3 * 0.0178  # 5 % of 150, and three deviations of that


def test_it_is_the_better_side_that_counts(tmp_path: Path) -> None:
    """BLEU is best above 1e-3, by a little; below 1e-3 the values of BLEU differ much."""

    def bleu(config: Config) -> float:
        return (
            50.0
            if config["encoder.type"].startswith("Bi")
            else random.Random(repr(config)).uniform(0, 40)
        )

    run = record(tmp_path / "run", bleu, 100, "dev.bleu")
    assert run.importance()["hyperparameter"][0] == "encoder.type"
    assert run.importance("best.dev.bleu").equals(run.importance())
    assert run.minimizes("dev.loss")
    assert not run.minimizes("dev.bleu")


def test_a_conditional_key_counts_where_it_takes_part(tmp_path: Path) -> None:
    def loss(config: Config) -> float:
        return (
            1.0
            if config.get("attention.score_type") == "dot"
            else 2.0 + random.Random(repr(config)).random()
        )

    run = record(tmp_path / "run", loss, 200)
    table = run.importance().set_index("hyperparameter")
    assert table.index[:2].tolist() == ["attention.score_type", "model"]
    active = run.trials["attention.score_type"].notna().sum()
    assert 0 < active < 200
    assert table.loc["attention.score_type", "trials"] == active
    assert table.loc["model", "trials"] == 200
    assert table.loc["optimizer.learning_rate", "importance"] < 0.1


def test_a_divergence_is_as_bad_as_the_worst_and_a_failure_counts_for_nothing(
    tmp_path: Path,
) -> None:
    """All rates are as good as each other, but the higher ones diverge."""

    def loss(config: Config) -> float:
        return random.Random(repr(config)).random()

    space = record(tmp_path / "a", loss, 100).trials
    high = {k: "diverged" for k, rate in enumerate(space["optimizer.learning_rate"]) if rate > 5e-4}
    run = record(tmp_path / "b", loss, 100, statuses=high | {0: "failed", 1: "failed"})
    table = run.importance().set_index("hyperparameter")
    assert table.index[0] == "optimizer.learning_rate"
    assert table.loc["embedding.dim", "trials"] == 98


def test_one_good_trial_does_not_make_a_conditional_key_important(tmp_path: Path) -> None:
    """The five best but one have no decay, so what they say of its rate is what one trial says."""
    drawn = record(tmp_path / "drawn", by_rate, 40).trials["optimizer.lr_decay_type"]
    best = [*drawn[drawn == ""].index[:4], drawn[drawn != ""].index[0]]
    losses = {
        repr(config): 1.0
        for k, config in enumerate(load(tmp_path / "drawn").space().trials(40))
        if k in best
    }

    def loss(config: Config) -> float:
        return losses.get(repr(config), 2.0 + random.Random(repr(config)).random())

    table = record(tmp_path / "run", loss, 40).importance().set_index("hyperparameter")
    assert table.loc["optimizer.lr_decay_rate", "p"] > 0.05


def test_few_trials_say_nothing_and_the_reason_is_given(tmp_path: Path) -> None:
    run = record(tmp_path / "run", by_rate, 12, statuses=dict.fromkeys(range(3), "failed"))
    table = run.importance()
    assert table.empty
    assert table.dtypes.astype(str).to_dict() == {
        "hyperparameter": "string",
        "importance": "Float64",
        "chance": "Float64",
        "p": "Float64",
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


# --- a study ---


def test_a_study_has_what_the_tables_have(tmp_path: Path) -> None:
    statuses = {1: "stopped", 2: "failed", 3: "diverged", 4: "out_of_memory", 5: "running"}
    statuses |= {6: "plateaued"}
    run = record(tmp_path / "run", by_rate, 8, statuses=statuses)
    study = run.to_optuna()
    assert study.study_name == "run"
    states = [trial.state.name for trial in study.trials]
    assert states == [
        "COMPLETE",
        "PRUNED",
        "FAIL",
        "FAIL",
        "FAIL",
        "RUNNING",
        "COMPLETE",
        "COMPLETE",
    ]
    for trial, row in zip(study.trials, run.trials.to_dict("records"), strict=True):
        active = {
            key: row[key] for key in run.searched if row[key] == row[key] and row[key] is not None
        }
        assert trial.params == {key: value for key, value in active.items() if str(value) != "<NA>"}
        assert trial.user_attrs["trial"] == row["trial"]
        assert trial.user_attrs["status"] == row["status"]
        if trial.state.name == "COMPLETE":
            assert trial.values == [row["best.dev.loss"]]
            assert trial.intermediate_values == {
                10: row["best.dev.loss"] + 1,
                20: row["best.dev.loss"],
            }
    assert study.trials[3].intermediate_values == {}
    assert study.best_trial.user_attrs["trial"] in set(run.best(3)["trial"])
    assert abs(study.trials[0].datetime_start - datetime.datetime.now()) < datetime.timedelta(
        minutes=5
    )


def test_a_trial_of_a_study_began_and_ended_by_the_clock(tmp_path: Path) -> None:
    """The search lay still for an hour between the first two trials and the others."""
    record(tmp_path / "run", by_rate, 4)
    log = tmp_path / "run" / "events.jsonl"
    events = [json.loads(line) for line in log.read_text().splitlines()]
    late = next(i for i, event in enumerate(events) if event.get("trial") == "trial-00002")
    for event in events[late:]:
        event["time"] += 3600
    events.insert(late, {"event": "resume", "time": events[late]["time"], "trials": 4})
    log.write_text("".join(json.dumps(event) + "\n" for event in events))
    for trial in load(tmp_path / "run").to_optuna().trials:
        own = [event for event in events if event.get("trial") == trial.user_attrs["trial"]]
        assert trial.datetime_start.timestamp() == pytest.approx(own[0]["time"])
        assert trial.datetime_complete.timestamp() == pytest.approx(own[-1]["time"])


def test_distributions_are_those_of_the_space(tmp_path: Path) -> None:
    study = record(tmp_path / "run", by_rate, 40).to_optuna()
    found = {key: value for trial in study.trials for key, value in trial.distributions.items()}
    assert found == {
        "model": optuna.distributions.CategoricalDistribution(["BasicSeq2Seq", "AttentionSeq2Seq"]),
        "attention.score_type": optuna.distributions.CategoricalDistribution(["bahdanau", "dot"]),
        "encoder.type": optuna.distributions.CategoricalDistribution(
            ["UnidirectionalRNNEncoder", "BidirectionalRNNEncoder"]
        ),
        "optimizer.learning_rate": optuna.distributions.FloatDistribution(1e-4, 1e-2, log=True),
        "optimizer.lr_decay_type": optuna.distributions.CategoricalDistribution(
            ["", "exponential_decay"]
        ),
        "optimizer.lr_decay_rate": optuna.distributions.FloatDistribution(0.5, 0.7, step=0.1),
        "embedding.dim": optuna.distributions.IntDistribution(16, 64, log=True),
        "encoder.rnn_cell.cell_spec": optuna.distributions.CategoricalDistribution(
            ["small", "large"]
        ),
    }
    for trial in study.trials:
        assert ("attention.score_type" in trial.params) == (
            trial.params["model"] == "AttentionSeq2Seq"
        )
        assert ("optimizer.lr_decay_rate" in trial.params) == bool(
            trial.params["optimizer.lr_decay_type"]
        )


def test_what_the_command_line_fixed_is_no_parameter(tmp_path: Path) -> None:
    run = record(tmp_path / "run", by_rate, 12, overrides={"embedding.dim": 200})
    assert all("embedding.dim" not in trial.params for trial in run.to_optuna().trials)
    assert run.importance().set_index("hyperparameter").loc["embedding.dim", "importance"] == 0


def test_a_study_in_a_storage_is_read_back(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/study.db"
    run = record(tmp_path / "run", by_rate, 8, statuses={1: "stopped", 2: "failed", 5: "running"})
    run.to_optuna(storage)
    read, made = optuna.load_study(study_name="run", storage=storage), run.to_optuna()
    assert read.metric_names == ["dev.loss"]
    for ours, theirs in zip(made.trials, read.trials, strict=True):
        for name in (
            "state",
            "values",
            "params",
            "distributions",
            "intermediate_values",
            "user_attrs",
        ):
            assert getattr(ours, name) == getattr(theirs, name), name
    with pytest.raises(ConfigError, match="already has a study 'run'"):
        run.to_optuna(storage)


@pytest.mark.parametrize(
    "storage", ["nonsense", "sqlite:////missing/folder/study.db", "oracle://x"]
)
def test_a_storage_that_cannot_be_used_is_named(tmp_path: Path, storage: str) -> None:
    with pytest.raises(ConfigError, match=storage):
        record(tmp_path / "run", by_rate, 4).to_optuna(storage)


def test_several_runs_are_one_study_with_ranges_wide_enough_for_all(tmp_path: Path) -> None:
    record(tmp_path / "a", by_rate, 20, low="1e-4")
    record(tmp_path / "b", by_rate, 20, low="1e-3", overrides={"embedding.dim": 200})
    runs = load_many([tmp_path / "a", tmp_path / "b"])
    study = runs.to_optuna()
    assert study.study_name == "a + b"
    assert [(t.user_attrs["run"], t.user_attrs["trial"]) for t in study.trials[19:21]] == [
        ("a", "trial-00019"),
        ("b", "trial-00000"),
    ]
    assert study.trials[-1].params["embedding.dim"] == 200
    assert study.trials[0].distributions == study.trials[0].distributions | {
        "optimizer.learning_rate": optuna.distributions.FloatDistribution(1e-4, 1e-2, log=True),
        "embedding.dim": optuna.distributions.IntDistribution(16, 200, log=True),
    }
    assert runs.importance()["hyperparameter"][0] == "optimizer.learning_rate"
    assert runs.importance()["trials"].max() == 40


def test_a_run_without_a_trial_yet_adds_none(tmp_path: Path) -> None:
    for name in ("begun", "whole"):
        record(tmp_path / name, by_rate, 3)
    log = tmp_path / "begun" / "events.jsonl"
    log.write_text(log.read_text().splitlines(keepends=True)[0])
    study = load_many([tmp_path / "begun", tmp_path / "whole"]).to_optuna()
    assert [t.user_attrs["run"] for t in study.trials] == ["whole"] * 3


def test_what_a_run_held_constant_comes_from_its_configurations(tmp_path: Path) -> None:
    """A default, a given value, a spec by the other run's label.

    NA by the conditions of the other run, and by its models.
    """
    record(tmp_path / "wide", by_rate, 8)
    record(tmp_path / "basic", by_rate, 2, text=CONSTANTS, model="BasicSeq2Seq", decay='""')
    record(
        tmp_path / "attention",
        by_rate,
        2,
        text=CONSTANTS,
        model="AttentionSeq2Seq",
        decay="exponential_decay",
    )
    runs = load_many([tmp_path / name for name in ("wide", "basic", "attention")])
    assert runs.searched == load(tmp_path / "wide").searched
    firsts = runs.trials.groupby("run", sort=False).nth(0).set_index("run")
    basic, attention = firsts.loc["basic"].dropna(), firsts.loc["attention"].dropna()
    expected = {
        "model": "BasicSeq2Seq",
        "encoder.type": "UnidirectionalRNNEncoder",
        "embedding.dim": 100,
    }
    expected |= {"optimizer.lr_decay_type": "", "encoder.rnn_cell.cell_spec": "small"}
    assert {
        key: basic[key] for key in runs.searched if key in basic and "rate" not in key
    } == expected
    assert "optimizer.lr_decay_rate" not in basic
    assert (attention["attention.score_type"], attention["optimizer.lr_decay_rate"]) == (
        "dot",
        0.99,
    )
    wide = load(tmp_path / "wide").trials
    assert (
        runs.trials[list(runs.searched)].dtypes.to_dict()
        == wide[list(runs.searched)].dtypes.to_dict()
    )
