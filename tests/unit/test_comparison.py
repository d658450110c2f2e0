"""Intervals and comparisons, against SciPy, tables and simulations."""

import math
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from s2s_search.results.replicates import replicates
from s2s_search.results.results import load
from s2s_search.results.statistics import (
    Comparison,
    better_or_worse,
    difference_interval,
    interval,
    mean_interval,
    number_needed,
    rate_difference_interval,
    share_interval,
    student_quantile,
    superiority_interval,
    violation,
)
from s2s_search.runs.log import EventLog


@pytest.mark.parametrize(
    "degrees, tabled", [(1, 12.706), (2, 4.303), (4, 2.776), (9, 2.262), (30, 2.042), (1000, 1.962)]
)
def test_students_quantiles_are_those_of_the_tables(degrees: int, tabled: float) -> None:
    assert student_quantile(0.975, degrees) == pytest.approx(tabled, abs=6e-4)


def test_students_quantile_at_half_is_zero() -> None:
    assert student_quantile(0.5, 3) == 0.0


@pytest.mark.parametrize("level", [0.95, 0.6827])
def test_the_interval_is_students(level: float) -> None:
    values = np.random.default_rng(1).normal(3.0, 2.0, 7)
    expected = stats.ttest_1samp(values, 0).confidence_interval(level)
    assert interval(values, level) == pytest.approx(tuple(expected))


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


@pytest.mark.parametrize("n, m, deviation", [(5, 5, 1.0), (3, 30, 0.1), (3, 30, 9.0), (30, 4, 1.0)])
def test_the_interval_of_a_difference_is_the_wider_of_students_and_welchs(
    n: int, m: int, deviation: float
) -> None:
    rng = np.random.default_rng(2)
    a, b = rng.normal(3.0, deviation, n), rng.normal(2.0, 1.0, m)
    both = [stats.ttest_ind(a, b, equal_var=is_equal) for is_equal in (True, False)]
    low, high = max(
        (test.confidence_interval(0.95) for test in both), key=lambda ends: ends.high - ends.low
    )
    assert difference_interval(a.tolist(), b.tolist()) == pytest.approx((low, high))


@pytest.mark.parametrize(
    "n, m", [(2, 2), (3, 3), (5, 5), (3, 8), (2, 10), (2, 30), (30, 3), (5, 40), (40, 40)]
)
@pytest.mark.parametrize("law", ["normal", "exponential", "rounded"])
def test_equals_are_seldom_told_apart(n: int, m: int, law: str) -> None:
    """At most 5 of 100 cases; three deviations of a share of 400 are 3.3 of 100."""
    rng, runs, told = np.random.default_rng(n + m), 400, 0
    for _ in range(runs):
        values = rng.exponential(1, n + m) if law == "exponential" else rng.normal(5, 1, n + m)
        if law == "rounded":
            values = values.round()
        text = sentence(values[:n].tolist(), values[n:].tolist())
        told += " is better than " in text or " is worse than " in text
    assert told / runs <= 0.083


@pytest.mark.parametrize("n", [2, 3, 8, 40])
def test_equal_pairs_are_seldom_told_apart(n: int) -> None:
    rng, runs, told = np.random.default_rng(n), 400, 0
    for _ in range(runs):
        draws = rng.normal(0, 3, n)
        a, b = (draws + rng.exponential(1, n) for _ in range(2))
        text = Comparison(
            ("A", "B"), (a.tolist(), b.tolist()), "dev.loss", "minimize", "draw", True
        ).sentence()
        told += " is better than " in text or " is worse than " in text
    assert told / runs <= 0.083


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
    assert (low, high) == pytest.approx((apart.mean() - half, apart.mean() + half), abs=1e-3 * half)
    unpaired = 1.96 * math.sqrt(a.var() + b.var()) / length / math.sqrt(4000)
    assert high - low < unpaired  # what the pairing is for


def test_rates_are_edits_by_tokens() -> None:
    difference, *_ = rate_difference_interval(([1, 3], [2, 6]), ([0, 0], [4, 4]))
    assert difference == 4 / 8


def test_of_references_of_several_lengths_the_interval_is_that_of_resamples() -> None:
    rng = np.random.default_rng(4)
    lengths = rng.integers(1, 12, 1000)
    a = rng.binomial(lengths, 0.2)
    b = np.maximum(a - (rng.random(1000) < 0.1), 0)
    _, *ends = rate_difference_interval(
        (a.tolist(), lengths.tolist()), (b.tolist(), lengths.tolist())
    )
    resampled = []
    for _ in range(4000):
        picked = rng.integers(0, 1000, 1000)
        resampled.append((a[picked] - b[picked]).sum() / lengths[picked].sum())
    assert ends == pytest.approx(np.quantile(resampled, [0.025, 0.975]).tolist(), rel=0.05)


@pytest.mark.parametrize("n", [10, 30])
def test_equal_models_are_seldom_told_apart_on_few_examples(n: int) -> None:
    rng, runs, told = np.random.default_rng(n), 400, 0
    for _ in range(runs):
        hard = rng.poisson(1.0, n)
        sides = [((hard + rng.poisson(0.5, n)).tolist(), [5] * n) for _ in range(2)]
        _, low, high = rate_difference_interval(*sides)
        told += low > 0 or high < 0
    assert told / runs <= 0.083


@pytest.mark.parametrize("is_paired", [False, True])
@pytest.mark.parametrize("ratio", [1.0, 2.1, 3.0, 3.3, 6.0])
def test_so_many_seeds_find_a_difference_in_80_of_100_cases(ratio: float, is_paired: bool) -> None:
    """A simulated comparison agrees. With 2 seeds it would find the last one half of the time."""
    n, rng, runs, found = (
        int(number_needed(ratio, 1.0, is_paired)),
        np.random.default_rng(5),
        400,
        0,
    )
    for _ in range(runs):
        if is_paired:
            low, _ = interval(rng.normal(ratio, 1.0, n))
        else:
            low, _ = difference_interval(rng.normal(ratio, 1.0, n), rng.normal(0.0, 1.0, n))
        found += low > 0
    assert found / runs >= 0.72  # 0.76 or more of 1,000; two deviations of a share of 400 are 0.04
    assert n < 5 or found / runs <= 0.88  # of 3 and 4 one fewer would be too few


def test_of_many_seeds_the_normal_theory_says_how_many() -> None:
    assert number_needed(1e-9, 1.0) == pytest.approx(2 * (2.8016 / 1e-9) ** 2, rel=1e-3)
    assert number_needed(0.03, 1.0) == pytest.approx(2 * (2.8016 / 0.03) ** 2, abs=3)
    assert number_needed(0.03, 1.0, True) == pytest.approx((2.8016 / 0.03) ** 2, abs=3)


def test_no_number_of_seeds_shows_no_difference_and_three_show_a_sure_one() -> None:
    assert number_needed(0.0, 1.0) == math.inf
    assert number_needed(0.1, 0.0) == 3
    assert number_needed(-1.0, 1.0) == number_needed(1.0, 1.0)


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
    assert sentence(LOW, HIGH).endswith(" over 3 and 3 seeds")  # a claim needs no more seeds


def test_what_is_not_distinguishable_needs_as_many_seeds_as_the_ends_of_its_interval() -> None:
    a, b = [1.0, 2.0, 3.0], [1.5, 2.5, 3.5]
    text = sentence(a, b)
    assert text.startswith(
        "A and B are not distinguishable by these results: dev.loss 2 against 2.5, difference -0.5 "
    )
    numbers = sorted(number_needed(end, 1.0) for end in difference_interval(a, b))
    assert numbers == [4, 7]  # of -2.77 and of 1.77 deviations
    assert text.endswith(
        "; 4 to 7 seeds each would show differences as large as the ends of the interval in 80 of "
        "100 cases, and smaller ones may never show"
    )
    many = sentence(a * 4, b * 4)
    assert "; 13 to 233 seeds each" in many  # more than there are


@pytest.mark.parametrize("sides", [([0.25] * 2, [0.251] * 2), ([0.1] * 3, [0.1] * 3)])
def test_without_a_deviation_nothing_is_claimed(sides: tuple[list[float], list[float]]) -> None:
    assert sentence(*sides).endswith(
        "all values of a side are equal, which does not tell how far chance moves them, so nothing "
        "can be said"
    )
    a, b = [0.1, 0.2, 0.4], [0.101, 0.201, 0.401]
    paired = Comparison(("A", "B"), (a, b), "dev.loss", "minimize", "draw", True).sentence()
    assert "over 3 draws: all differences are equal" in paired


# --- pairs ---


def test_pairs_are_compared_within_draws() -> None:
    """A difference that the draws hide: the audit's grid, whose draws differ by a deviation of 1."""
    rng, found = np.random.default_rng(9), []
    for is_paired in (False, True):
        found.append(0)
        for _ in range(100):
            draws = rng.normal(0, 1, 8)
            a, b = draws + rng.normal(0, 0.2, 8), draws + 0.4 + rng.normal(0, 0.2, 8)
            text = Comparison(
                ("A", "B"), (a.tolist(), b.tolist()), "dev.loss", "minimize", "draw", is_paired
            ).sentence()
            found[-1] += text.startswith("A is better than B: ")
    assert found[0] <= 10
    assert found[1] >= 90


def test_of_pairs_only_whole_ones_count() -> None:
    a, b = [1.0, 2.0, math.nan, 4.0], [1.1, math.nan, 3.1, 4.3]
    text = Comparison(("A", "B"), (a, b), "dev.loss", "minimize", "configuration", True).sentence()
    low, high = interval([-0.1, -0.3])
    assert "dev.loss 2.5 against 2.7, difference -0.2" in text
    assert f"({'95 % interval'} {low:+.3g} to {high:+.3g})" in text
    assert "paired over 2 configurations of the other hyperparameters" in text


def pairs(a: list[float], b: list[float], goal: str = "minimize", is_paired: bool = False) -> str:
    (line,) = Comparison(("A", "B"), (a, b), "dev.loss", goal, "seed", is_paired).pairs()
    return line


def test_what_broke_is_worse_than_everything_else() -> None:
    nan = math.nan
    text = pairs([1.0, nan], [2.0, 3.0, nan])
    # 1.0 beats three of three; NaN loses against two, and ties with the third
    low, high = superiority_interval(3.5 / 6, 2, 3)
    assert text == (
        "A is better in 3.5 of 6 pairs of a seed each, where what diverged or failed is worse: in "
        f"{100 * low:.0f} to {100 * high:.0f} of 100 such pairs (95 % interval)"
    )
    assert pairs([1.0, nan], [2.0, nan], "maximize").startswith("A is better in 1.5 of 4 pairs")
    text = pairs([1.0, 2.0, nan, 4.0], [2.0, 2.0, 1.0, nan], is_paired=True)
    low, high = share_interval(2.5, 4)
    assert text.startswith("A is better in 2.5 of 4 pairs, where")
    assert f" in {100 * low:.0f} to {100 * high:.0f} of 100 " in text
    assert list(Comparison(("A", "B"), ([1.0], [2.0]), "x", "minimize", "seed").pairs()) == []


@pytest.mark.parametrize("n, m", [(2, 2), (3, 3), (5, 5), (3, 30), (20, 20)])
@pytest.mark.parametrize("shift", [0.0, 1.0, 2.0])
def test_the_interval_of_pairs_holds_the_probability(n: int, m: int, shift: float) -> None:
    rng, runs, held = np.random.default_rng(n + m), 400, 0
    truth = stats.norm.cdf(shift / math.sqrt(2))
    for _ in range(runs):
        share = np.less.outer(rng.normal(0, 1, n), rng.normal(shift, 1, m)).mean()
        low, high = superiority_interval(share, n, m)
        held += low <= truth <= high
    assert held / runs >= 0.917


@pytest.mark.parametrize("count, n", [(0, 3), (3, 3), (7, 8), (20, 40)])
def test_the_interval_of_a_share_is_the_exact_one(count: int, n: int) -> None:
    expected = stats.binomtest(count, n).proportion_ci(0.95, "exact")
    assert share_interval(count, n) == pytest.approx((expected.low, expected.high))


# --- margins ---


def within(a: list[float], b: list[float], margin: float) -> str:
    return Comparison(("A", "B"), (a, b), "dev.loss", "minimize", "seed", margin=margin).sentence()


def test_sides_are_equivalent_if_both_one_sided_tests_say_so() -> None:
    rng = np.random.default_rng(10)
    a, b = rng.normal(1.0, 0.01, 12), rng.normal(1.0, 0.01, 12)
    for margin in (0.004, 0.007, 0.01, 0.02):
        below = stats.ttest_ind(a, b + margin, alternative="less").pvalue
        above = stats.ttest_ind(a, b - margin, alternative="greater").pvalue
        text = within(a.tolist(), b.tolist(), margin)
        said = f"A and B are equivalent within {margin:g}: " in text
        assert said == (max(below, above) < 0.05)
        assert said == ("would show" not in text)
        assert "90 % interval" in text
    assert "by these results, nor shown to be equivalent within 0.001: " in within(
        a.tolist(), b.tolist(), 0.001
    )
    assert within(LOW, HIGH, 2.0).startswith("A is better than B by less than 2: ")
    assert within(LOW, HIGH, 0.1).startswith("A is better than B: ")


def test_what_differs_by_the_margin_is_seldom_called_equivalent() -> None:
    rng, runs, said = np.random.default_rng(11), 400, 0
    for _ in range(runs):
        a, b = rng.normal(0.0, 1.0, 30), rng.normal(1.0, 1.0, 30)
        text = within(a.tolist(), b.tolist(), 1.0)
        said += "are equivalent within 1:" in text or "by less than 1:" in text
    assert said / runs <= 0.083


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
    assert [better_or_worse("A", "B", ends, goal)[1] for goal in ("minimize", "maximize")] == [
        False,
        False,
    ]


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


@pytest.mark.parametrize("n", [5, 8, 20])
@pytest.mark.parametrize("skew", [-1, 0, 1])
def test_the_interval_of_a_mean_holds_it_for_skewed_values_too(n: int, skew: int) -> None:
    rng, runs, held = np.random.default_rng(n + skew), 600, 0
    for _ in range(runs):
        values = skew * (rng.exponential(size=n) - 1) if skew else rng.normal(size=n)
        low, high = mean_interval(values)
        held += low <= 0 <= high
    # three standard errors of 600 runs around 92 and 98 of 100
    assert 0.89 <= held / runs <= 0.99


def test_the_interval_of_a_skewed_mean_solves_the_cubic_of_hall() -> None:
    values = [0.1, 0.2, 0.3, 0.5, 2.0]
    mean, deviation, skewness = (
        np.mean(values),
        np.std(values, ddof=1),
        stats.skew(values, bias=False),
    )
    low, high = mean_interval(values)
    quantile = stats.t.ppf(0.975, 4) / math.sqrt(5)
    u = (mean - high) / deviation
    cubic = u + skewness * u**2 / 3 + skewness**2 * u**3 / 27 + skewness / 30
    assert cubic == pytest.approx(-quantile)
    assert low == pytest.approx(interval(values)[0])  # Student's is the wider one at this end
    symmetric = [1.0, 2.0, 3.0, 4.0, 5.0]
    assert mean_interval(symmetric) == pytest.approx(interval(symmetric))
    assert mean_interval(values[:4]) == interval(values[:4])


def test_almost_stochastic_order_integrates_over_the_quantiles() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.normal(0, 1, 12), rng.normal(0.5, 2, 15)
    against = total = 0.0
    for k in range(60):  # 60 is a multiple of 12 and of 15
        difference = np.sort(a)[k * 12 // 60] - np.sort(b)[k * 15 // 60]
        total += difference**2
        against += difference**2 * (difference > 0)
    assert violation(a, b) == pytest.approx(against / total)
    assert violation(a, a + 1) == 0
    assert violation(a + 1, a) == 1
    comparison = Comparison(("A", "B"), (list(a), list(b)), "dev.loss", "minimize", "seed")
    _, order = comparison.pairs()
    assert order.startswith(f"almost stochastic order: {100 * against / total:.0f} % of the")
    assert len(list(Comparison(("A", "B"), (a[:9], b), "x", "minimize", "seed").pairs())) == 1
