"""Isolation: its test compared with all permutations, and how often it errs for equal values."""

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from s2s_search.errors import ConfigError
from s2s_search.results.isolation import chance, conclusion, isolated, isolation
from s2s_search.results.results import load
from tests.runs import write_run

Draw = Callable[[np.random.Generator, int], np.ndarray]


def normal(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.normal(size=n)


def lognormal(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.lognormal(size=n)


def trials(scores: np.ndarray, seeds: int = 1, minimize: bool = True) -> pd.DataFrame:
    """Returns trials with these scores, best first; `seeds` in a row share a configuration."""
    found = pd.DataFrame({"score": scores, "configuration": np.arange(len(scores)) // seeds})
    found["trial"] = [f"trial-{k:05d}" for k in range(len(scores))]
    return found.sort_values("score", ascending=minimize)


def wrongly_apart(a: int, b: int, draw: Draw, seeds: int = 1, times: int = 200) -> float:
    """Returns how often two equal values are told apart, one with `a` configurations, one with `b`.

    The seeds contribute a fifth of the deviation.
    """
    rng, wrong = np.random.default_rng(a * b), 0
    for _ in range(times):
        groups = []
        for name, n in (("a", a), ("b", b)):
            scores = np.repeat(draw(rng, n), seeds) + 0.2 * rng.normal(size=n * seeds) * (seeds > 1)
            groups.append((name, trials(scores, seeds)))
        wrong += "more than chance" in conclusion(isolation(groups, True), True)
    return wrong / times


@pytest.mark.slow
@pytest.mark.parametrize(
    "a, b, seeds, draw",
    [
        (16, 16, 1, normal),
        (5, 11, 1, lognormal),
        (8, 24, 1, normal),
        (5, 40, 1, lognormal),
        (40, 120, 1, normal),
        (8, 8, 3, normal),
    ],
)
def test_equal_values_are_told_apart_in_about_5_of_100_cases(
    a: int, b: int, seeds: int, draw: Draw
) -> None:
    assert (
        0.01 <= wrongly_apart(a, b, draw, seeds) <= 0.1
    )  # 5 % of 200, and three deviations of that


@pytest.mark.parametrize("minimize", [True, False])
def test_the_chance_is_the_share_of_all_ways_to_shuffle(minimize: bool) -> None:
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=5), rng.normal(size=8) + 0.8
    table = isolation(
        [("a", trials(a, minimize=minimize)), ("b", trials(b, minimize=minimize))], minimize, top=3
    )
    assert table["top"].tolist() == [3, 5]

    def apart(left: list[float], right: list[float]) -> float:
        best = [sorted(side, reverse=not minimize)[:top] for side, top in ((left, 3), (right, 5))]
        return abs(sum(best[0]) / 3 - sum(best[1]) / 5)

    every, observed, count = [*a, *b], apart(list(a), list(b)), []
    for chosen in itertools.combinations(range(13), 5):
        left = [every[k] for k in chosen]
        count.append(
            apart(left, [every[k] for k in range(13) if k not in chosen]) >= observed - 1e-12
        )
    expected = sum(count) / len(count)
    assert chance(table.iloc[0], table.iloc[1], minimize) == pytest.approx(expected, abs=0.03)


def test_the_seeds_of_a_configuration_count_once_by_their_mean() -> None:
    scores = np.array([1.0, 3.0, 2.0, 2.5, 0.5, 5.5])
    (row,) = isolation([("a", trials(scores, seeds=2))], True, top=2).to_dict("records")
    assert (row["n"], row["scores"], row["mean"], row["top"]) == (3, [2.0, 2.25, 3.0], 2.125, 2)
    assert (row["best"], row["trial"]) == (2.0, "trial-00000")


def test_an_isolation_of_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="top must be at least 1, but got 0"):
        isolated(load(write_run(tmp_path / "run", trials=4)), "encoder.type", 0)


def test_a_difference_is_found_and_said_with_its_numbers() -> None:
    rng = np.random.default_rng(0)
    groups = [
        (name, trials(rng.normal(size=n) + 3 * (name == "b")))
        for name, n in (("a", 20), ("b", 10), ("c", 0))
    ]
    said = conclusion(isolation(groups, True), True, lambda name: f"<{name}>")
    assert said.startswith("<a> -")
    assert "(the mean of the best 10 of 20), then <b>" in said
    assert "(the mean of the best 5 of 10); more than chance (p = 0.0005" in said
    assert "nothing to compare" in conclusion(isolation(groups[::2], True), True)
