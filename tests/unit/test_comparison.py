"""Intervals and comparisons, against closed forms, tables and simulations."""

import math

import numpy as np
import pandas as pd
import pytest

from s2s_search.comparison import interval, student_quantile


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
    assert interval(values) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.05 * half)
    assert interval(values, level=0.6827) == pytest.approx(
        (values.mean() - half / 1.96, values.mean() + half / 1.96), abs=0.05 * half
    )


@pytest.mark.parametrize("n", [2, 3, 5, 20])
def test_intervals_hold_the_truth_as_often_as_they_say(n: int) -> None:
    rng, runs = np.random.default_rng(n), 400
    held = sum(low <= 5.0 <= high for low, high in (interval(rng.normal(5.0, 1.0, n)) for _ in range(runs)))
    assert 0.91 <= held / runs <= 0.98  # three deviations of a share of 0.95 are 0.033


def test_missing_values_are_left_out_and_fewer_than_two_tell_nothing() -> None:
    assert interval(pd.Series([1.0, None, 2.0, 4.0], dtype="Float64")) == interval([1.0, 2.0, 4.0])
    assert all(map(math.isnan, (*interval([]), *interval([1.0]), *interval([1.0, math.nan]))))


def test_an_interval_is_the_same_each_time() -> None:
    assert interval([1.0, 2.0, 4.0]) == interval([1.0, 2.0, 4.0])
    assert interval([3.0, 3.0, 3.0]) == (3.0, 3.0)
