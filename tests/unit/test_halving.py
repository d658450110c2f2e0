"""Schedulers that make trials wait: against plain loops over what has been reported."""

import random

import pytest

from s2s_search.methods.halving import FirstReports, Halving, Progressive, Promotion
from s2s_search.methods.pausing import ENDED, NEW, TRAINS, WAITS
from s2s_search.methods.reading import Reading
from s2s_search.spaces.settings import Scheduler

RUNGS = [10, 30, 90]


def settings(name: str = "asha", keep: int = 2) -> Scheduler:
    return Scheduler(name, 270, 10, 3.0, variant="promote", keep=keep)


def drive(scheduler: Halving, curves: list[list[float]], workers: int, seed: int) -> list[int]:
    """Runs a search whose trials report every 10 steps in a random order; returns the order of starts."""
    rng, training, started, ends = random.Random(seed), [], [], 27
    while True:
        while len(training) < workers:
            has_new = len(scheduler.trials) < len(curves)
            number = scheduler.choose(has_new)
            assert number == scheduler.choose(has_new), "choosing changes nothing"
            if number is None:
                break
            number = len(scheduler.trials) if number == NEW else number
            scheduler.begin(number, {})
            training.append(number)
            started.append(number)
        if not training:
            return started
        number = training.pop(rng.randrange(len(training)))
        made = len(scheduler.trials[number].steps)
        if made + 1 == ends:
            scheduler.hear(number, Reading(10 * ends, curves[number][made]))
            scheduler.end(number)
        elif scheduler.report(number, Reading(10 * (made + 1), curves[number][made]), has_new=True):
            training.append(number)
        else:
            assert scheduler.trials[number].state == WAITS


def flat(values: list[float]) -> list[list[float]]:
    return [[value] * 27 for value in values]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("minimize", [True, False])
def test_promotion_lets_the_best_third_of_each_rung_go_on(seed: int, minimize: bool) -> None:
    rng = random.Random(seed)
    values = [rng.random() for _ in range(27)]
    scheduler = Promotion(settings(), minimize)
    drive(scheduler, flat(values), rng.choice([1, 4]), seed)
    ranked = sorted(range(27), key=lambda k: values[k] if minimize else -values[k])
    # When all have come, the best third has been promoted from each rung, and perhaps others early.
    assert set(ranked[:9]) <= set(scheduler.rungs[30])
    assert set(ranked[:1]) <= {n for n, t in scheduler.trials.items() if t.state == ENDED}
    for lower, upper in ((10, 30), (30, 90)):
        assert len(scheduler.rungs[upper]) >= len(scheduler.rungs[lower]) // 3
        assert set(scheduler.rungs[upper]) <= set(scheduler.rungs[lower])
    assert scheduler.dropped(has_new=False) == scheduler.of(WAITS)


def test_promotion_in_order_by_hand() -> None:
    """Of three trials at the first rung the best goes on, before a fourth begins."""
    scheduler = Promotion(settings(), True)
    for number, value in enumerate([0.5, 0.3, 0.4]):
        assert scheduler.choose(True) == NEW
        scheduler.begin(number, {})
        scheduler.hear(number, Reading(10, value))
    assert scheduler.choose(True) == 1
    scheduler.begin(1, {})
    assert scheduler.choose(True) == NEW
    assert scheduler.report(1, Reading(20, 0.2), True), "between two rungs nothing is compared"
    assert not scheduler.report(1, Reading(30, 0.2), True), "alone at its rung it waits"
    assert scheduler.dropped(has_new=False) == []
    assert scheduler.choose(False) == 1, "the best of the highest rung trains to its end"
    scheduler.begin(1, {})
    scheduler.end(1)
    assert scheduler.dropped(has_new=False) == [0, 2]


def test_of_two_trials_the_better_one_trains_to_its_end() -> None:
    scheduler = Promotion(settings(), True)
    drive(scheduler, flat([0.5, 0.3]), 2, 0)
    assert [trial.state for trial in scheduler.trials.values()] == [WAITS, ENDED]


def test_first_reports_ranks_all_trials_at_one_step() -> None:
    values = [0.5, 0.1, 0.4, 0.2, 0.3]
    scheduler = FirstReports(settings("first_reports"), True)
    started = drive(scheduler, flat(values), 2, 0)
    assert started == [0, 1, 2, 3, 4, 1, 3]
    assert [n for n, t in scheduler.trials.items() if t.state == ENDED] == [1, 3]


def test_pasha_needs_no_high_rung_while_the_ranking_is_stable() -> None:
    values = [k / 30 for k in range(27)]
    scheduler = Progressive(settings("pasha"), True)
    drive(scheduler, flat(values), 1, 0)
    assert list(scheduler.rungs[90]) == [0], "only the winner trains beyond the second rung"
    assert scheduler.trials[0].state == ENDED


def test_pasha_adds_a_rung_when_the_ranking_changes() -> None:
    curves = [[value] * 2 + [1 - value] * 25 for value in (k / 30 for k in range(27))]
    scheduler = Progressive(settings("pasha"), True)
    drive(scheduler, curves, 1, 0)
    assert len(scheduler.rungs[90]) > 1


def test_equal_values_and_broken_trials_end() -> None:
    for scheduler in (Promotion(settings(), True), Progressive(settings("pasha"), True)):
        drive(scheduler, flat([0.5] * 27), 3, 1)
        assert not scheduler.of(TRAINS)
    scheduler = Promotion(settings(), True)
    for number in range(4):
        scheduler.begin(number, {})
        scheduler.end(number)
    assert scheduler.choose(False) is None


def test_pasha_takes_for_noise_what_separates_pairs_that_cross_twice() -> None:
    scheduler = Progressive(settings("pasha"), True)
    curves = {0: [0.5, 0.4, 0.5], 1: [0.4, 0.5, 0.3], 2: [0.45, 0.2, 0.1], 3: [0.4, 0.5, 0.46]}
    for number, costs in curves.items():
        scheduler.begin(number, {})
        scheduler.trials[number].costs = costs
    # 0 and 1, 0 and 3 cross twice, and end 0.2 and 0.04 apart; all others cross once at most
    assert scheduler._noise([0, 1, 2, 3]) == pytest.approx(0.04 + 0.9 * (0.2 - 0.04))
    assert scheduler._noise([0, 1]) == pytest.approx(0.2)
    assert scheduler._noise([1, 2]) == 0
