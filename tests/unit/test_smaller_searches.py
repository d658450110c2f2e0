"""What a report says of smaller searches, of early reports and of the winner's luck, against plain loops and truth."""

import json
import math
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from s2s_search.report.contents import write_report
from s2s_search.results.early import (
    audited,
    predictions,
    rank_correlation,
    sentence,
)
from s2s_search.results.expected import best_of, expected_best, sentences
from s2s_search.results.optimism import by_halves, optimism
from s2s_search.results.results import load
from s2s_search.results.statistics import rate_half_width, share_interval
from tests.runs import write_run

NO_SCHEDULER = """
model: AttentionSeq2Seq
corpus: {name: copy}
metric: {name: dev.error_rate}
search: {trials: 40, seed: 1}
parameters:
  encoder.type: [UnidirectionalRNNEncoder, BidirectionalRNNEncoder]
  optimizer.learning_rate: {min: 1e-4, max: 1e-2, log: true}
"""


@pytest.mark.parametrize("minimize", [True, False])
def test_the_expected_best_is_the_mean_over_all_subsets(minimize: bool) -> None:
    scores, choose = np.random.default_rng(0).normal(size=9), min if minimize else max
    for n in range(1, 10):
        plain = np.mean([choose(subset) for subset in combinations(scores, n)])
        assert best_of(scores, n, minimize)[0] == pytest.approx(plain, abs=1e-12)


def test_the_standard_error_is_that_of_leaving_out_one_score() -> None:
    scores, n = np.random.default_rng(1).normal(size=12), 3
    left = [best_of(np.delete(scores, k), n, True)[0] for k in range(12)]
    error = math.sqrt(11 / 12 * sum((each - np.mean(left)) ** 2 for each in left))
    mean, low, high = best_of(scores, n, True)
    tabled = 3.182  # Student's t at 0.975 with 12 / 3 - 1 degrees of freedom
    assert (high - mean, mean - low) == pytest.approx([tabled * error] * 2, rel=1e-3)
    assert all(map(math.isnan, best_of(scores, 4, True)[1:]))  # 12 is less than 4 times 4


@pytest.mark.slow
@pytest.mark.parametrize("count, n", [(16, 4), (32, 2), (64, 16), (200, 16)])
@pytest.mark.parametrize("kind", ["normal", "lognormal"])
def test_the_interval_holds_the_mean_of_smaller_searches(kind: str, count: int, n: int) -> None:
    rng, runs = np.random.default_rng(count + n), 600
    draw = getattr(rng, kind)
    truth = draw(size=(100_000, n)).min(axis=1).mean()
    held = 0
    for _ in range(runs):
        _, low, high = best_of(draw(size=count), n, True)
        held += low <= truth <= high
    assert 0.92 <= held / runs <= 0.99


def test_a_configuration_without_a_result_is_as_bad_as_the_worst(tmp_path: Path) -> None:
    """Every thirteenth trial of `write_run` fails."""
    found = load(write_run(tmp_path / "run", text=NO_SCHEDULER))
    values = found.trials["best.dev.error_rate"].astype(float)
    assert values.isna().sum() > 0
    table = expected_best(found).set_index("n")
    assert list(table.index) == list(range(2, 41))
    assert table["mean"][40] == values.min()
    filled = values.fillna(values.max())
    assert table["mean"][2] == pytest.approx(np.mean([min(p) for p in combinations(filled, 2)]))
    assert table["low"].notna().sum() == 9  # up to a quarter of 40
    said = " ".join(sentences(expected_best(found), "dev.error_rate"))
    assert "Searches of 10 configurations like these 40 would reach dev.error_rate" in said
    assert f"and all 40 reached {values.min():.4g}" in said
    assert expected_best(load(write_run(tmp_path / "few", trials=9, text=NO_SCHEDULER))).empty


# --- early reports ---


@pytest.mark.slow
@pytest.mark.parametrize("n, rho", [(10, 0.0), (16, 0.6), (32, 0.9), (64, 0.95)])
def test_the_interval_of_a_rank_correlation_holds_it(n: int, rho: float) -> None:
    rng, runs = np.random.default_rng(n), 500
    truth = 6 / math.pi * math.asin(rho / 2)  # of ranks, for normal values with correlation rho
    held = 0
    for _ in range(runs):
        x = rng.normal(size=n)
        y = rho * x + math.sqrt(1 - rho**2) * rng.normal(size=n)
        _, low, high = rank_correlation(x, y)
        held += low <= truth <= high
    assert 0.92 <= held / runs <= 0.98


def test_ranks_that_agree_have_an_interval_with_a_width() -> None:
    x = np.arange(12.0)
    assert rank_correlation(x, x**3)[0] == 1.0
    assert 0.9 < rank_correlation(x, x**3)[1] < rank_correlation(x, x**3)[2] < 1
    assert all(map(math.isnan, rank_correlation(x[:9], x[:9])))
    assert all(map(math.isnan, rank_correlation(x, np.ones(12))))


def test_only_finished_trials_predict_the_end(tmp_path: Path) -> None:
    found = load(write_run(tmp_path / "run"))
    table = predictions(found, [100.0, 150.0])
    finished = int(found.trials["status"].eq("finished").sum())
    assert table["n"].tolist() == [finished, 0]
    assert table["correlation"][0] == pytest.approx(1.0)  # each curve is a multiple of one curve
    assert math.isnan(table["correlation"][1])
    assert "no sign that this is too early" in sentence(table.iloc[0], "the first rung", True)
    assert "150, the first rung, 0 finished trials" in sentence(
        table.iloc[1], "the first rung", True
    )


@pytest.mark.parametrize(
    "low, high, kept, said",
    [
        (0.5, 0.9, False, "no sign"),
        (0.1, 0.49, False, "That is low"),
        (0.1, 0.49, True, "replicate DIR --audit N"),
        (0.1, 0.6, False, "too few"),
    ],
)
def test_a_low_correlation_is_no_claim_where_rungs_chose_the_trials(
    low: float, high: float, kept: bool, said: str
) -> None:
    row = pd.Series({"step": 50.0, "n": 20.0, "correlation": 0.4, "low": low, "high": high})
    assert said in sentence(row, "the first rung", kept)


@pytest.mark.parametrize(
    "count, every, low, high",
    [(0, 8, 0.0, 0.369), (1, 8, 0.003, 0.527), (8, 8, 0.631, 1.0), (5, 10, 0.187, 0.813)],
)
def test_exact_intervals_are_those_of_the_tables(
    count: int, every: int, low: float, high: float
) -> None:
    assert share_interval(count, every) == pytest.approx((low, high), abs=6e-4)


def test_it_is_counted_how_many_stopped_trials_would_have_been_good(tmp_path: Path) -> None:
    found = load(write_run(tmp_path / "run", text=NO_SCHEDULER))
    ends = found.trials["best.dev.error_rate"]
    finished = found.trials["status"].eq("finished")
    best, middle, worst = ends[finished].min(), ends[finished].median(), ends[finished].max()
    audits = load(write_run(tmp_path / "audit", trials=4, text=NO_SCHEDULER))
    values = pd.array([best - 0.01, (best + middle) / 2, worst, None], "Float64")
    status = pd.array(["finished", "finished", "finished", "diverged"], "string")
    table = audits.trials.assign(**{"best.dev.error_rate": values}, status=status)
    said = audited(found, replace(audits, trials=table))
    assert said == (
        "Of 4 stopped trials trained to the end, 1 became better than the best of the search "
        f"(95 % interval 1% to 81%) and 2 became better than the middle one of the {finished.sum()} that "
        "finished (95 % interval 7% to 93%)."
    )


# --- the winner's luck ---


@pytest.mark.slow
@pytest.mark.parametrize("trials, spread", [(8, 0.0), (32, 0.0), (32, 0.08), (64, 0.4)])
def test_the_optimism_of_the_best_is_about_the_true_one(trials: int, spread: float) -> None:
    """The truth is how much better the best is on these examples than on many others, next to all trials."""
    rng, found, true = np.random.default_rng(trials), [], []
    for _ in range(60):
        skill = spread * rng.normal(size=trials)
        wrong = _wrong(rng, 300, skill)
        rates = rng.binomial(6, wrong).sum(axis=1) / (6 * 300)
        elsewhere = _wrong(rng, 10_000, skill).mean(axis=1)
        best = rates.argmin()
        true.append(elsewhere[best] - rates[best] - (elsewhere - rates).mean())
        errors = rng.binomial(6, wrong).astype(float)
        found.append(by_halves(errors, np.full(errors.shape, 6.0)))
    assert np.mean(found) == pytest.approx(np.mean(true), abs=0.25 * np.mean(true) + 0.0015)


def _wrong(
    rng: np.random.Generator, examples: int, skill: "np.ndarray[tuple[int], np.dtype[np.float64]]"
) -> "np.ndarray[tuple[int, int], np.dtype[np.float64]]":
    """The probability of an error of each trial in each example, some of which are harder."""
    hard = rng.beta(1, 6, examples)
    odds = np.log(hard / (1 - hard)) + skill[:, None]
    return np.asarray(1 / (1 + np.exp(-odds)))


@pytest.mark.parametrize("count, level", [(20, 0.6), (100, 0.3), (500, 0.05)])
def test_the_half_width_of_an_error_rate_holds_the_rate_of_other_examples(
    count: int, level: float
) -> None:
    """Words of 2 to 8 letters, some of which are harder; each is a draw of its own."""
    rng, held, runs = np.random.default_rng(count), 0, 500
    for _ in range(runs):
        lengths = rng.integers(2, 9, count)
        wrong = rng.binomial(lengths, rng.beta(4 * level, 4 * (1 - level), count))
        half = rate_half_width(wrong.tolist(), lengths.tolist())
        held += abs(wrong.sum() / lengths.sum() - level) <= half
    assert 0.92 <= held / runs <= 0.98


def test_the_ranking_says_how_much_luck_is_in_its_first_value(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    assert optimism(load(folder)) is None
    rng = np.random.default_rng(0)
    for trial in folder.glob("trial-*"):
        answers = {"step": 100, "errors": rng.integers(0, 4, 50).tolist(), "lengths": [5] * 50}
        (trial / "answers.json").write_text(json.dumps(answers | {"examples": []}))
    found = optimism(load(folder))
    assert found is not None
    assert found.examples == 50
    page = write_report([folder])[1].read_text()
    assert f"The error rate of the best trial is about {found.value:.2g} too low" in page
    assert "makes its error rate less than 0.0001 too low" in replace(found, value=0.0).sentence()
    best = load(folder).best(1)["trial"][0]
    answers = json.loads((folder / best / "answers.json").read_text())
    rate, changes = sum(answers["errors"]) / 250, []
    for errors in answers["errors"]:
        changes.append(50 * (errors - 5 * rate) / 250)
    half = 2.00958 * np.std(changes, ddof=1) / math.sqrt(50)  # Student's t at 0.975, 49 degrees
    assert found.half == pytest.approx(half, rel=1e-5)
    assert (
        f"Its 50 dev examples alone leave this rate uncertain by ±{half:.2g} (95 % interval)."
        in page
    )
    (folder / best / "answers.json").unlink()
    others = optimism(load(folder))
    assert others is not None
    assert "uncertain" not in others.sentence()
    assert "## Fewer trials" in page
