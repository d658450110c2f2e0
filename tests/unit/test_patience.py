"""A trial that plateaus: when it ends, and that it counts as one that finished."""

import json
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2s_search.corpus.corpus import Corpus
from s2s_search.corpus.load import load_corpus
from s2s_search.hparams.configuration import resolve
from s2s_search.metrics import REGISTRY
from s2s_search.results.compare import compare
from s2s_search.results.replicates import replicates
from s2s_search.results.scores import comparable
from s2s_search.runs.explain import explain
from s2s_search.runs.state import load_history
from s2s_search.spaces.settings import Scheduler
from s2s_search.training.patience import Patience
from s2s_search.training.trial import train
from s2s_search.whatif.courses import course
from tests.models import small
from tests.unit.test_scores import run, values

A_REPORT = st.sampled_from([0.1, 0.2, 0.3, 0.4])


@given(
    st.lists(A_REPORT, min_size=1, max_size=12),
    st.integers(1, 4),
    st.sampled_from(["minimize", "maximize"]),
    st.integers(0, 12),
)
def test_patience_ends_where_a_plain_loop_over_all_reports_does(
    made: list[float], most: int, goal: str, killed: int
) -> None:
    """The loop looks at every window of reports. A kill in between, with a snapshot, is no end."""
    better = min if goal == "minimize" else max
    expected = None
    for last in range(most, len(made)):
        before = made[: last - most + 1]
        if all(better([*before, value]) == better(before) for value in made[: last + 1]):
            expected = last
            break
    patience, found = Patience(most, "x", goal), None
    for number, value in enumerate(made):
        if number == killed:
            state = json.loads(json.dumps(patience.state()))
            patience = Patience(most, "x", goal)
            patience.restore(state)
        patience.hear({"x": value})
        if patience.is_over:
            found = number
            break
    assert found == expected


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return load_corpus(
        {"name": "reverse", "train": 90, "dev": 20, "test": 5, "vocabulary": 6, "max_length": 7}
    )


def numbers(reports: Any) -> list[dict[str, Any]]:
    times = ("seconds", "evaluation_seconds")
    return [
        {key: value for key, value in report.metrics.items() if key not in times}
        for report in reports
    ]


@pytest.mark.parametrize("metric", ["dev.loss", "dev.token_accuracy"])
def test_a_trial_makes_the_reports_of_one_without_patience_up_to_its_end(
    corpus: Corpus, metric: str
) -> None:
    """After each of them it may be killed, and ends as if it had not been."""
    settings = {
        "optimizer__learning_rate": 0.1,
        "train__max_steps": 40,
        "train__eval_every_steps": 1,
    }
    goal, most = REGISTRY[metric].goal, 3
    whole = numbers(train(small(**settings), corpus))
    sign = 1 if goal == "minimize" else -1
    costs = [sign * report[metric] for report in whole]
    expected = next(
        last
        for last in range(most, 40)
        if min(costs[last - most + 1 : last + 1]) >= min(costs[: last - most + 1])
    )
    assert expected < 39
    hparams = small(**settings, train__patience=most)
    made = numbers(train(hparams, corpus, metric=metric, goal=goal))
    assert made == [*whole[:expected], whole[expected] | {"status": "plateaued"}]
    for killed in (1, expected - 1, expected):
        reports = train(hparams, corpus, metric=metric, goal=goal)
        snapshot = next(islice(reports, killed, None)).snapshot()
        again = train(hparams, corpus, snapshot=snapshot, metric=metric, goal=goal)
        assert numbers(again) == made[killed + 1 :]


def test_the_last_step_is_an_end_like_any_other(corpus: Corpus) -> None:
    """Where both come together the trial has finished."""
    settings = {"optimizer__learning_rate": 1e-12, "train__max_steps": 3}
    hparams = small(**settings, train__eval_every_steps=1, train__patience=2)
    reports = numbers(train(hparams, corpus))
    assert [report["status"] for report in reports] == ["running", "running", "finished"]


A, B = {10: 0.5, 20: 0.3, 30: 0.2, 40: 0.1}, {10: 0.4, 20: 0.2, 30: 0.6}


def test_its_best_report_counts_beside_those_of_finished_trials(tmp_path: Path) -> None:
    found = run(tmp_path / "run", {"a": ("finished", A), "b": ("plateaued", B)})
    assert values(found) == [0.1, 0.2]
    assert comparable(found).step is None
    assert found.trials["status"].tolist() == ["finished", "plateaued"]
    assert replicates(found)["n"].tolist() == [2]


def test_it_counts_at_the_last_common_step_where_others_were_stopped(tmp_path: Path) -> None:
    stopped = {10: 0.9, 20: 0.8}
    trials = {"a": ("finished", A), "b": ("plateaued", B), "c": ("stopped", stopped)}
    assert values(run(tmp_path / "run", trials)) == [0.3, 0.2, 0.8]
    other = run(tmp_path / "other", {"a": ("finished", A), "b": ("plateaued", {10: 0.4, 25: 0.2})})
    assert values(other) == [0.5, 0.4]  # its reports were made at other steps


def test_compare_counts_it_as_finished(tmp_path: Path) -> None:
    trials = {"a": ("finished", A), "b": ("plateaued", B)}
    found = run(tmp_path / "run", trials, **{"train.batch_size": 1})
    said = list(compare([found.folder], "train.batch_size=0", "train.batch_size=1"))
    assert said[1].startswith("train.batch_size=1: 1 of 1 trial finished")


def test_explain_says_why(tmp_path: Path) -> None:
    folder = run(tmp_path / "run", {"a": ("plateaued", B)}).folder
    lines = list(explain(load_history(folder), 0))
    assert lines[0] == "trial-00000: plateaued after step 30"
    assert lines[-1] == "as many reports as train.patience says were no better than its best one"
    assert "audit" not in " ".join(lines)


@pytest.mark.parametrize("patience, reports", [(1, 2), (2, 3), (9, 8)])
def test_the_plan_knows_the_soonest_end(patience: int, reports: int) -> None:
    """The first report is the best one, and each further one is no better; 30 steps are 8 reports."""
    settings = {"train.max_steps": 30, "train.eval_every_steps": 4, "train.patience": patience}
    made = course(resolve("BasicSeq2Seq", settings), Scheduler("none", 30, 4, 3.0), 9)
    assert made.evaluations.least == reports
    assert made.steps.least == min(4 * reports, 30)
    assert (made.steps.most, made.evaluations.most) == (30, 8)
