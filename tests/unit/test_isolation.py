"""Isolation: its test held to all permutations, and how often it errs for equal values."""

import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import rankdata

from s2s_search.errors import ConfigError
from s2s_search.results.draws import draws_of
from s2s_search.results.isolation import (
    better_half,
    chance,
    conclusion,
    isolated,
    isolation,
    verdict,
)
from s2s_search.results.results import load
from tests.runs import SPACE, write_run

Draw = Callable[[np.random.Generator, int], np.ndarray]


def normal(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.normal(size=n)


def lognormal(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.lognormal(size=n)


def cliff(rng: np.random.Generator, n: int) -> np.ndarray:
    """A third of the configurations fails to learn."""
    return 3.0 * (rng.random(n) < 1 / 3) + 0.3 * rng.normal(size=n)


def trials(
    scores: np.ndarray, seeds: int = 1, minimize: bool = True, paired: bool = False
) -> pd.DataFrame:
    """Returns trials with these scores, best first; `seeds` in a row share a configuration."""
    found = pd.DataFrame({"score": scores, "configuration": np.arange(len(scores)) // seeds})
    found["trial"] = [f"trial-{k:05d}" for k in range(len(scores))]
    if paired:
        found["block"] = np.arange(len(scores)) // seeds
    return found.sort_values("score", ascending=minimize)


def said_of(groups: Sequence[np.ndarray], seeds: int = 1, paired: bool = False) -> str:
    named = [
        (name, trials(g, seeds, paired=paired)) for name, g in zip("abcdef", groups, strict=False)
    ]
    return conclusion(isolation(named, True), True)


def wrongly_apart(sizes: Sequence[int], draw: Draw, seeds: int, paired: bool) -> float:
    """Returns how often equal values are told apart, in 200 searches.

    The seeds contribute a fifth of the deviation, and the blocks three times as much.
    """
    rng, wrong = np.random.default_rng(sum(sizes)), 0
    for _ in range(200):
        blocks = 3 * rng.normal(size=sizes[0]) if paired else 0.0
        groups = []
        for n in sizes:
            noise = 0.2 * rng.normal(size=n * seeds) * (seeds > 1)
            groups.append(np.repeat(draw(rng, n) + blocks, seeds) + noise)
        wrong += "more than chance" in said_of(groups, seeds, paired)
    return wrong / 200


# 5 % of 200, and three and a half deviations of that, because there are 27 cases.
MOST_WRONG = 0.05 + 3.5 * 0.0154


@pytest.mark.slow
@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("draw", [normal, lognormal, cliff])
@pytest.mark.parametrize(
    "sizes, seeds", [((16, 16), 1), ((8, 8), 3), ((8, 8, 8), 1), ((16,) * 6, 1)]
)
def test_equal_values_are_told_apart_in_at_most_5_of_100_searches(
    sizes: Sequence[int], seeds: int, draw: Draw, paired: bool
) -> None:
    assert wrongly_apart(sizes, draw, seeds, paired) <= MOST_WRONG


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(5, 40), (4, 4), (5, 10, 20, 5)])
def test_so_are_equal_values_of_different_n(sizes: Sequence[int]) -> None:
    assert wrongly_apart(sizes, lognormal, 1, False) <= MOST_WRONG


def places(scores: Sequence[float]) -> list[float]:
    return [math.sqrt(rank) for rank in rankdata(scores)]


def test_the_chance_is_the_share_of_all_ways_to_shuffle() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=5), rng.normal(size=8) + 0.8
    every = places([*a, *b])

    def apart(chosen: Sequence[int]) -> float:
        others = [every[k] for k in range(13) if k not in chosen]
        return abs(sum(every[k] for k in chosen) / 5 - sum(others) / 8)

    observed = apart(range(5))
    count = [apart(chosen) >= observed - 1e-12 for chosen in itertools.combinations(range(13), 5)]
    assert chance([a, b], False) == pytest.approx(sum(count) / len(count), abs=0.03)


def test_within_blocks_the_chance_is_the_share_of_all_swaps() -> None:
    rng = np.random.default_rng(4)
    block = 5 * rng.normal(size=7)
    a, b = block + rng.normal(size=7), block + rng.normal(size=7) + 0.7
    every = places([*(a - (a + b) / 2), *(b - (a + b) / 2)])

    def apart(swaps: Sequence[int]) -> float:
        total = 0.0
        for k, swap in enumerate(swaps):
            total += (1 if swap else -1) * (every[k] - every[k + 7])
        return abs(total)

    observed = apart([0] * 7)
    count = [apart(swaps) >= observed - 1e-12 for swaps in itertools.product((0, 1), repeat=7)]
    assert chance([a, b], True) == pytest.approx(sum(count) / len(count), abs=0.03)


def test_an_effect_within_draws_is_found_although_the_draws_differ_more() -> None:
    rng = np.random.default_rng(1)
    draw = 10 * rng.normal(size=8)
    worse, better = draw + 0.3 + 0.1 * rng.normal(size=8), draw + 0.1 * rng.normal(size=8)
    assert "no sign" in said_of([worse, better])
    said = said_of([worse, better], paired=True)
    assert "b is better than a" in said
    assert "in 8 of 8 pairs of the same draw, by 0.3" in said


def test_equal_scores_are_never_apart() -> None:
    """Whatever their number, and however their mean is rounded."""
    for a, b in itertools.product(range(2, 14), repeat=2):
        table = isolation([("a", trials(np.full(a, 0.1))), ("b", trials(np.full(b, 0.1)))], True)
        assert verdict(table, True).chances[1] == 1
    same = np.linspace(0.1, 0.7, 9)
    table = isolation([("a", trials(same)), ("b", trials(same + 1e-16))], True)
    assert verdict(table, True).chances[1] == 1


def test_the_worst_of_several_values_is_named() -> None:
    rng = np.random.default_rng(2)
    groups = [rng.normal(size=12) for _ in range(3)] + [rng.normal(size=12) + 4]
    said = said_of(groups)
    assert said.startswith("d (")
    assert "is worse than" in said
    assert "no sign that" in said


def test_two_good_values_beside_a_bad_one_are_told_apart() -> None:
    """The bad value does not hide the difference of the others."""
    rng = np.random.default_rng(5)
    groups = [rng.normal(size=15), rng.normal(size=15) + 2, rng.normal(size=15) + 50]
    assert "a is better than the other 2 values" in said_of(groups)


def test_too_few_configurations_are_said_to_be_too_few() -> None:
    assert "too few to tell them apart" in said_of([np.array([1.0, 2, 3]), np.array([7.0, 8, 9])])
    assert "too few" not in said_of([np.arange(4.0), np.arange(4.0) + 9])


def test_p_is_that_of_all_scientific_keys() -> None:
    rng = np.random.default_rng(7)
    table = isolation([("a", trials(rng.normal(size=9))), ("b", trials(rng.normal(size=9)))], True)
    alone = verdict(table, True).chances[1]
    assert f"(p = {min(3 * alone, 1):.2g})" in conclusion(table, True, keys=3)


def test_the_seeds_of_a_configuration_count_once_by_their_mean() -> None:
    scores = np.array([1.0, 3.0, 2.0, 2.5, 0.5, 5.5])
    (row,) = isolation([("a", trials(scores, seeds=2))], True).to_dict("records")
    assert (row["n"], row["scores"], row["mean"], row["top"]) == (3, [2.0, 2.25, 3.0], 2.125, 2)
    assert (row["best"], row["trial"]) == (2.0, "trial-00000")


def test_the_interval_of_the_better_half_holds_its_mean() -> None:
    """In 92 to 98 of 100 samples of normal and of skewed scores."""
    for draw, mean in ((normal, -math.sqrt(2 / math.pi)), (lognormal, None)):
        rng = np.random.default_rng(0)
        if mean is None:
            every = np.sort(draw(rng, 1_000_001))
            mean = every[:500_001].mean()
        inside = 0
        for _ in range(600):
            low, high = better_half(sorted(draw(rng, 30)))
            inside += low <= mean <= high
        assert 0.92 <= inside / 600 <= 0.985
    assert math.isnan(better_half([1.0, 2.0, 3.0])[0])


def test_a_column_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown column"):
        isolated(load(write_run(tmp_path / "run", trials=4)), "encoder.typ")


def test_stopped_trials_are_compared_at_the_step_where_all_were(tmp_path: Path) -> None:
    """write_run's curves begin at twice their last value, and a third is stopped at step 100."""
    run = load(write_run(tmp_path / "run"))
    table = isolated(run, "encoder.type").set_index("value")
    first = run.reports[run.reports["step"] == 100].set_index("trial")["dev.error_rate"]
    for value, row in table.iterrows():
        named = run.trials[run.trials["encoder.type"] == value]["trial"]
        assert row["scores"] == pytest.approx(sorted(first.reindex(named).dropna()))


def test_grids_are_crossed_with_draws(tmp_path: Path) -> None:
    text = SPACE.replace("{choices: [Uni", "{grid: [Uni").replace("asha", "none")
    text = text.replace(", grace_steps: 100, reduction_factor: 2", "")
    run = load(write_run(tmp_path / "run", text=text, trials=16))
    draws = draws_of(run)
    assert draws.crossed == {"encoder.type"}
    assert draws.numbers.nunique() == len(run.trials) // 2
    assert draws.blocks("optimizer.learning_rate") is None
    blocks = draws.blocks("encoder.type")
    assert blocks is not None
    for _, block in run.trials.groupby(blocks):
        assert block["optimizer.learning_rate"].nunique() == 1
        assert block["encoder.type"].nunique() == len(block)


def test_a_draw_counts_once_where_draws_are_compared(tmp_path: Path) -> None:
    """Two encoders for each draw are no two values of its learning rate."""
    text = SPACE.replace("{choices: [Uni", "{grid: [Uni")
    run = load(write_run(tmp_path / "run", text=text, trials=16))
    table = isolated(run, "attention.dim")
    draws = draws_of(run)
    scored = run.trials.dropna(subset=["attention.dim", "best.dev.error_rate"])
    assert table["n"].sum() == draws.numbers[scored.index].nunique() < len(scored)


def test_a_difference_is_found_and_said_with_its_numbers() -> None:
    rng = np.random.default_rng(0)
    groups = [
        (name, trials(rng.normal(size=n) + 3 * (name == "b")))
        for name, n in (("a", 20), ("b", 10), ("c", 0))
    ]
    said = conclusion(isolation(groups, True), True, lambda name: f"<{name}>")
    assert said.startswith("<a> is better than <b>, -")
    assert "(the best 10 of 20) against " in said
    assert "(the best 5 of 10); more than chance (p = 0.0005" in said
    assert "nothing to compare" in conclusion(isolation(groups[::2], True), True)
