"""Intervals over seeds and examples: against plain loops, and how often they hold the truth."""

import math
import random
import statistics

import numpy as np
import pytest
from scipy.stats import t as student

from s2s_search import metrics
from s2s_search.results.evaluations import sides, with_intervals
from s2s_search.results.two_way import OverSeeds, paired_interval, resampled_sums

Rng = np.random.Generator


def answered(rng: Rng, models: int, sources: int, spread: float = 0.4) -> list[np.ndarray]:
    """Sums of models whose answers are wrong where the source is hard, the model bad, or by chance."""
    hard, found = rng.normal(0, 1, sources), []
    length = rng.integers(3, 9, sources)
    for bad in rng.normal(0, spread, models):
        share = 1 / (1 + np.exp(1 - hard - bad - rng.normal(0, 0.5, sources)))
        sums = np.zeros((sources, len(metrics.SUMS)))
        named = dict(zip(metrics.SUMS, sums.T, strict=True))
        named["errors"][:] = rng.binomial(length, share)
        named["length"][:], named["sources"][:], named["tokens"][:] = length, 1, length
        named["wrong"][:] = named["errors"] > 0
        found.append(sums)
    return found


def test_the_interval_is_that_of_a_plain_double_loop() -> None:
    """Over seeds and, within each of them, over examples, as the docstring of `interval_of` says it."""
    models, sources = answered(np.random.default_rng(3), 4, 60), 60
    draw, rates = random.Random(0), list[list[float]]()
    pairs = [[(row[3], row[4]) for row in sums.tolist()] for sums in models]
    for _ in range(4000):
        picked = draw.choices(range(sources), k=sources)
        rates.append([])
        for of_model in pairs:
            errors = length = 0.0
            for k in picked:
                errors, length = errors + of_model[k][0], length + of_model[k][1]
            rates[-1].append(errors / length)
    values = [sum(e for e, _ in each) / sum(n for _, n in each) for each in pairs]
    mean = statistics.fmean(values)
    by_model = list(zip(*rates, strict=True))
    shared = statistics.fmean(
        statistics.covariance(list(by_model[a]), list(by_model[b]))
        for a in range(4)
        for b in range(a)
    )
    deviations = [statistics.fmean(row) - mean for row in rates]
    stretch = math.sqrt(shared / statistics.pvariance(deviations))
    error = statistics.stdev(values) / 2  # of the mean of 4
    noise = student(3).rvs(len(rates), random_state=np.random.default_rng(1))
    whole = [mean + d * stretch + error * x for d, x in zip(deviations, noise, strict=True)]
    low, high = np.quantile(whole, [0.025, 0.975])
    found = with_intervals(models, "test")["test.error_rate"]
    assert found.value == pytest.approx(mean)
    assert found.low == pytest.approx(low, abs=0.05 * (high - low))
    assert found.high == pytest.approx(high, abs=0.05 * (high - low))
    alone = with_intervals(models[:1], "test")["test.error_rate"]
    low, high = np.quantile([row[0] for row in rates], [0.025, 0.975])
    assert alone.low == pytest.approx(low, abs=0.05 * (high - low))
    assert alone.high == pytest.approx(high, abs=0.05 * (high - low))


def test_resamples_are_the_same_for_all_models() -> None:
    first, second = answered(np.random.default_rng(0), 2, 30)
    both = resampled_sums(np.concatenate([first, second], axis=1))
    assert (both == np.concatenate([resampled_sums(first), resampled_sums(second)], axis=1)).all()
    assert (resampled_sums(np.ones((30, 1))) == 30).all()


@pytest.mark.parametrize("sources", [9, 20])
def test_no_interval_without_evidence(sources: int) -> None:
    """Fewer than ten examples, or none that makes a difference."""
    same = answered(np.random.default_rng(0), 1, sources)[0]
    same[:, 3:6] = [0, 4, 0]
    found = with_intervals([same] * 3, "dev")
    assert found["dev.error_rate"].value == 0
    assert {found["dev.error_rate"].low, found["dev.word_error_rate"].high} == {None}
    varied = with_intervals(answered(np.random.default_rng(0), 3, sources), "dev")
    assert (varied["dev.error_rate"].low is None) == (sources < 10)


def test_a_difference_is_paired_over_the_examples() -> None:
    """What is hard for both sides says nothing about their difference."""
    rng = np.random.default_rng(5)
    models = answered(rng, 12, 300, spread=0.02)
    a, b = (sides(models[part], "dev")["dev.error_rate"] for part in (slice(6), slice(6, 12)))
    low, high = paired_interval(a, b)
    assert low < a.mean - b.mean < high
    unpaired = paired_interval(a, OverSeeds(b.values, rng.permutation(b.resampled), 300))
    assert high - low < 0.9 * (unpaired[1] - unpaired[0])


@pytest.mark.slow
@pytest.mark.parametrize("models", [3, 5, 10])
@pytest.mark.parametrize(
    "of_seed, of_example, of_both",
    [(0.0, 1.0, 0.5), (0.3, 1.0, 1.0), (1.0, 1.0, 0.5), (1.0, 0.2, 0.0)],
)
def test_intervals_hold_the_truth_in_95_of_100(
    of_seed: float, of_example: float, of_both: float, models: int
) -> None:
    """Simulated with known variances, in the limit of many examples: means, and differences of equals."""
    rng, runs, resamples = np.random.default_rng(models), 600, 400
    held = equal = 0

    def side(example: float, examples: np.ndarray) -> OverSeeds:
        values = example + rng.normal(0, of_seed, models) + rng.normal(0, of_both, models)
        both = rng.normal(0, of_both, (resamples, models))
        return OverSeeds(values, values + examples[:, None] + both, 1000)

    for run in range(runs):
        example, examples = rng.normal(0, of_example), rng.normal(0, of_example, resamples)
        a, b = side(example, examples), side(example, examples)
        low, high = a.interval(seed=run)
        held += low <= 0 <= high
        low, high = paired_interval(a, b, seed=run)
        equal += low <= 0 <= high
    assert 0.92 * runs <= held <= 0.985 * runs
    assert 0.92 * runs <= equal <= 0.985 * runs
