"""Intervals and comparisons, against closed forms, tables and simulations."""

import math
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from s2s_search.results import statistics
from s2s_search.results.replicates import replicates
from s2s_search.results.results import load
from s2s_search.results.statistics import (
    Comparison,
    difference_interval,
    interval,
    rate_difference_interval,
    seeds_needed,
    student_quantile,
    verdict,
)
from s2s_search.runs.log import EventLog


@pytest.mark.parametrize(
    "degrees, tabled", [(1, 12.706), (2, 4.303), (4, 2.776), (9, 2.262), (30, 2.042), (1000, 1.962)]
)
def test_students_quantiles_are_those_of_the_tables(degrees: int, tabled: float) -> None:
    assert student_quantile(0.975, degrees) == pytest.approx(tabled, abs=6e-4)


def test_students_quantile_at_half_is_zero() -> None:
    assert student_quantile(0.5, 3) == 0.0


def test_the_interval_of_many_values_is_the_normal_theorys() -> None:
    values = np.random.default_rng(1).normal(3.0, 2.0, 2000)
    half = 1.96 * values.std(ddof=1) / math.sqrt(len(values))
    assert interval(values) == pytest.approx(
        (values.mean() - half, values.mean() + half), abs=0.05 * half
    )
    assert interval(values, level=0.6827) == pytest.approx(
        (values.mean() - half / 1.96, values.mean() + half / 1.96), abs=0.05 * half
    )


@pytest.mark.parametrize("n", [2, 3, 5, 20])
def test_intervals_hold_the_truth_as_often_as_they_say(n: int) -> None:
    rng, runs = np.random.default_rng(n), 400
    held = sum(
        low <= 5.0 <= high for low, high in (interval(rng.normal(5.0, 1.0, n)) for _ in range(runs))
    )
    assert 0.91 <= held / runs <= 0.98  # three deviations of a share of 0.95 are 0.033


def test_missing_values_are_left_out_and_fewer_than_two_tell_nothing() -> None:
    assert interval(pd.Series([1.0, None, 2.0, 4.0], dtype="Float64")) == interval([1.0, 2.0, 4.0])
    assert all(map(math.isnan, (*interval([]), *interval([1.0]), *interval([1.0, math.nan]))))


def test_an_interval_is_the_same_each_time() -> None:
    assert interval([1.0, 2.0, 4.0]) == interval([1.0, 2.0, 4.0])
    assert interval([3.0, 3.0, 3.0]) == (3.0, 3.0)


def test_the_difference_of_many_values_is_the_normal_theorys() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.normal(3.0, 2.0, 1500), rng.normal(2.0, 0.5, 500)
    half = 1.96 * math.sqrt(a.var() / 1500 + b.var() / 500)
    difference = a.mean() - b.mean()
    assert difference_interval(a, b) == pytest.approx(
        (difference - half, difference + half), abs=0.05 * half
    )


@pytest.mark.parametrize("n, m", [(2, 2), (3, 3), (5, 5), (3, 8)])
def test_equals_are_seldom_told_apart(n: int, m: int) -> None:
    rng, runs = np.random.default_rng(n + m), 400
    intervals = [difference_interval(rng.normal(5, 1, n), rng.normal(5, 1, m)) for _ in range(runs)]
    assert sum(low > 0 or high < 0 for low, high in intervals) / runs <= 0.09


def test_one_seed_tells_nothing() -> None:
    assert all(map(math.isnan, difference_interval([1.0], [2.0, 3.0])))


def test_the_paired_interval_is_the_normal_theorys() -> None:
    """With references of one length, rates are means, and their difference is a paired one."""
    rng, length = np.random.default_rng(3), 5
    a = rng.poisson(1.0, 4000)
    b = np.maximum(
        a - (rng.random(4000) < 0.05), 0
    )  # nearly the same errors, as of two models on the same words
    apart = (a - b) / length
    half = 1.96 * apart.std(ddof=1) / math.sqrt(4000)
    lengths = [length] * 4000
    difference, low, high = rate_difference_interval((a.tolist(), lengths), (b.tolist(), lengths))
    assert difference == pytest.approx(apart.mean())
    assert (low, high) == pytest.approx((apart.mean() - half, apart.mean() + half), abs=0.1 * half)
    unpaired = 1.96 * math.sqrt(a.var() + b.var()) / length / math.sqrt(4000)
    assert high - low < unpaired  # what the pairing is for


def test_rates_are_edits_by_tokens() -> None:
    difference, *_ = rate_difference_interval(([1, 3], [2, 6]), ([0, 0], [4, 4]))
    assert difference == 4 / 8


@pytest.mark.parametrize("ratio", [1.0, 2.1, 3.0, 3.3, 6.0])
def test_so_many_seeds_find_a_difference_in_80_of_100_cases(
    ratio: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A simulated comparison agrees. With 2 seeds it would find the last one half of the time."""
    monkeypatch.setattr(statistics, "RESAMPLES", 1000)
    n, rng, runs = int(seeds_needed(ratio, 1.0)), np.random.default_rng(5), 400
    intervals = [
        difference_interval(rng.normal(ratio, 1.0, n), rng.normal(0.0, 1.0, n)) for _ in range(runs)
    ]
    found = sum(low > 0 for low, _ in intervals) / runs
    assert found >= 0.72  # 0.76 or more of 1,000; two deviations of a share of 400 are 0.04
    assert n < 5 or found <= 0.86  # of 3 and 4 one fewer would be too few


def test_of_many_seeds_the_normal_theory_says_how_many() -> None:
    assert seeds_needed(1e-9, 1.0) == pytest.approx(2 * (2.8016 / 1e-9) ** 2, rel=1e-3)
    assert seeds_needed(0.03, 1.0) == pytest.approx(2 * (2.8016 / 0.03) ** 2, abs=3)


def test_no_number_of_seeds_shows_no_difference_and_three_show_a_sure_one() -> None:
    assert seeds_needed(0.0, 1.0) == math.inf
    assert seeds_needed(0.1, 0.0) == 3
    assert seeds_needed(-1.0, 1.0) == seeds_needed(1.0, 1.0)


# --- sentences ---


def sentence(a: list[float], b: list[float], goal: str = "minimize", unit: str = "seed") -> str:
    return Comparison(("A", "B"), (a, b), "dev.loss", goal, unit).sentence()


LOW, HIGH = [1.0, 1.1, 0.9], [2.0, 2.1, 1.9]


def test_better_and_worse_follow_the_goal() -> None:
    assert sentence(LOW, HIGH).startswith(
        "A is better than B: dev.loss 1 against 2, difference -1 (95 % interval -1."
    )
    assert sentence(HIGH, LOW).startswith("A is worse than B: ")
    assert sentence(LOW, HIGH, "maximize").startswith("A is worse than B: ")
    assert sentence(HIGH, LOW, "maximize").startswith("A is better than B: ")
    assert "over 3 and 3 seeds; 3 seeds each would show such a difference" in sentence(LOW, HIGH)


def test_what_is_not_distinguishable_needs_more_seeds_than_there_are() -> None:
    text = sentence([1.0, 2.0, 3.0], [1.5, 2.5, 3.5])
    assert text.startswith(
        "A and B are not distinguishable at this budget: dev.loss 2 against 2.5, difference -0.5 "
    )
    assert "; 64 seeds each would show" in text  # 2 ((1.98 + 0.84) / 0.5)^2 = 63.7
    assert "; no number of seeds would show" in sentence([1.0, 2.0], [1.0, 2.0])
    two = sentence([1.0, 1.2], [1.5, 1.8])
    assert "not distinguishable" in two
    assert "; 4 seeds each would show" in two


def test_too_little_to_say_anything() -> None:
    assert sentence([1.0], HIGH).endswith(
        "over 1 and 3 seeds: at least 2 seeds each are needed to say anything"
    )
    assert sentence([1.0], [2.0], unit="configuration").endswith(
        "at least 2 configurations each are needed to say anything"
    )
    assert (
        sentence([], HIGH) == "A against B: no finished trial on one side, so nothing can be said"
    )


@pytest.mark.parametrize("ends", [(0.0, 1.0), (-1.0, 1.0), (-1.0, 0.0)])
def test_an_interval_with_zero_in_it_says_nothing(ends: tuple[float, float]) -> None:
    assert [verdict("A", "B", ends, goal)[1] for goal in ("minimize", "maximize")] == [False, False]


# --- replicates ---

SEARCHED = {"encoder.type": "string", "attention.dim": "Int64", "train.seed": "Int64"}


def write_run(
    folder: Path, rows: list[tuple], searched: dict[str, str] = SEARCHED, goal: str = "minimize"
) -> None:
    """A log with a trial a row: settings, seed, status, value at its best; its newest is worse."""
    folder.mkdir(exist_ok=True)
    worse = 1.0 if goal == "minimize" else -1.0
    with EventLog(folder) as log:
        search = {
            "event": "search",
            "name": "x",
            "metric": "dev.loss",
            "goal": goal,
            "searched": searched,
        }
        log.append(search | {"trials": len(rows)})
        for k, (settings, seed, status, value) in enumerate(rows):
            name = {"trial": f"trial-{k:05d}"}
            log.append(
                {
                    "event": "trial",
                    **name,
                    "settings": settings,
                    "config": settings | {"train.seed": seed},
                }
            )
            for step, loss in ((10, value), (20, value and value + worse)):
                log.append(
                    {"event": "report", **name, "step": step, "status": "running", "dev.loss": loss}
                )
            log.append({"event": "status", **name, "status": status})


@pytest.mark.parametrize("goal", ["minimize", "maximize"])
def test_replicates_are_equal_in_everything_but_the_seed(tmp_path: Path, goal: str) -> None:
    rng = np.random.default_rng(6)
    settings = [
        {"encoder.type": "A"},
        {"encoder.type": "A", "attention.dim": 8},
        {"encoder.type": "B"},
        {},
    ]
    rows = [
        (
            held | {"train.seed": seed},
            seed,
            rng.choice(["finished", "finished", "stopped"]),
            float(rng.random()),
        )
        for seed, held in product(range(4), settings)
    ]
    write_run(tmp_path / "run", rows, goal=goal)
    table = replicates(load(tmp_path / "run"))
    assert list(table) == [
        "encoder.type", "attention.dim", "trials", "n", "mean", "std", "low", "high", "best", "seed", "trial",
    ]  # fmt: skip
    assert len(table) == 4
    assert table["mean"].tolist() == sorted(table["mean"], reverse=goal == "maximize")
    for row in table.to_dict("records"):
        held = {key: row[key] for key in ("encoder.type", "attention.dim") if not pd.isna(row[key])}
        same = [r for r in rows if {k: v for k, v in r[0].items() if k != "train.seed"} == held]
        values = [value for *_, status, value in same if status == "finished"]
        assert (row["trials"], row["n"]) == (4, len(values))
        assert row["mean"] == pytest.approx(np.mean(values))
        assert row["std"] == pytest.approx(np.std(values, ddof=1))
        assert (row["low"], row["high"]) == pytest.approx(interval(values))
        best = (min if goal == "minimize" else max)(values)
        assert row["best"] == best
        found = next(k for k, r in enumerate(rows) if r[3] == best)
        assert (row["seed"], row["trial"]) == (rows[found][1], f"trial-{found:05d}")


def test_replicates_without_a_finished_trial_come_last_and_say_so(tmp_path: Path) -> None:
    rows = [({"encoder.type": "A"}, 0, "stopped", 0.1), ({"encoder.type": "B"}, 0, "finished", 0.5)]
    write_run(tmp_path / "run", [*rows, ({"encoder.type": "A"}, 1, "failed", None)])
    table = replicates(load(tmp_path / "run"))
    assert table["encoder.type"].tolist() == ["B", "A"]
    last = table.iloc[1]
    assert (last["trials"], last["n"]) == (2, 0)
    assert last[["mean", "std", "low", "high", "best", "seed", "trial"]].isna().all()


def test_a_search_of_nothing_but_seeds_is_one_configuration(tmp_path: Path) -> None:
    write_run(
        tmp_path / "run", [({}, seed, "finished", float(seed)) for seed in range(3)], searched={}
    )
    (row,) = replicates(load(tmp_path / "run")).to_dict("records")
    assert (row["n"], row["mean"], row["std"], row["seed"]) == (3, 1.0, 1.0, 0)


def test_the_dtypes_of_replicates_do_not_depend_on_the_rows(tmp_path: Path) -> None:
    write_run(tmp_path / "none", [])
    write_run(tmp_path / "some", [({"encoder.type": "A"}, 0, "finished", 0.5)])
    tables = [replicates(load(tmp_path / name)) for name in ("none", "some")]
    assert tables[0].dtypes.astype(str).to_dict() == tables[1].dtypes.astype(str).to_dict()
    assert str(tables[1]["mean"].dtype) == "Float64"
