"""Where a search stands, and how long it will take."""

import random
from collections import Counter
from typing import Any

import pytest

from s2s_search.display import time_left
from s2s_search.display.standing import POINTS, Standing
from s2s_search.display.time_left import IDEAL, Survival, ideal_ends
from s2s_search.display.view import view
from s2s_search.spaces.settings import OURS, PROMOTE, SHARE

SEARCH = {
    "event": "search",
    "time": 100.0,
    "name": "toy",
    "metric": "dev.loss",
    "goal": "minimize",
    "trials": 4,
}
ASHA = {"name": "asha", "grace_steps": 100, "max_steps": 900, "reduction_factor": 3}


def trial(k: int, steps: int = 100) -> dict[str, Any]:
    settings = {"encoder.type": "A", "optimizer.learning_rate": 0.0012345}
    config = settings | {"train.max_steps": steps}
    return {
        "event": "trial",
        "time": 100.0,
        "trial": f"trial-{k:05d}",
        "settings": settings,
        "config": config,
    }


def report(k: int, step: int, loss: float | None, **others: Any) -> dict[str, Any]:
    event = {
        "event": "report",
        "time": 110.0,
        "trial": f"trial-{k:05d}",
        "step": step,
        "dev.loss": loss,
    }
    return event | others


def status(k: int | None, status: str, message: str | None = None) -> dict[str, Any]:
    trial = {} if k is None else {"trial": f"trial-{k:05d}"}
    return {"event": "status", "time": 130.0, "status": status, "message": message, **trial}


def after(*events: dict[str, Any], **search: Any) -> Standing:
    standing = Standing(SEARCH | search)
    for event in events:
        standing.add(event)
    return standing


def test_counts_best_and_settings() -> None:
    reports = (report(0, 50, 2.0), report(1, 50, 1.0), report(1, 100, 1.5))
    standing = after(trial(0), trial(1), *reports, status(1, "finished"))
    assert standing.counts() == "1 running, 2 to start, 1 finished"
    assert standing.best == report(1, 50, 1.0)
    assert standing.best_settings == {"encoder.type": "A", "optimizer.learning_rate": 0.0012345}


@pytest.mark.parametrize("goal, best", [("minimize", 1.0), ("maximize", 3.0)])
def test_best_follows_the_goal_and_passes_over_missing_values(goal: str, best: float) -> None:
    losses = (None, 2.0, 1.0, 3.0, None)
    standing = after(
        trial(0), *(report(0, step, loss) for step, loss in enumerate(losses, 1)), goal=goal
    )
    assert standing.best is not None
    assert standing.best["dev.loss"] == best


def test_what_a_diverged_trial_reports_is_no_value() -> None:
    standing = after(trial(0), report(0, 10, 2.0), report(0, 20, 0.0, status="diverged"))
    assert standing.best == report(0, 10, 2.0)
    assert standing.curves["trial-00000"] == [(10, 2.0)]


def test_the_settings_of_the_best_are_those_of_its_report() -> None:
    taken = trial(0) | {
        "event": "exploit",
        "source": "trial-00001",
        "settings": {"encoder.type": "B"},
    }
    standing = after(trial(0), report(0, 10, 2.0), taken, report(0, 5, 3.0))
    assert standing.best_settings["encoder.type"] == "A"
    assert standing.settings("trial-00000") == {"encoder.type": "B"}
    assert standing.curves["trial-00000"] == [
        (5, 3.0)
    ]  # another's weights, from an earlier step on


def test_a_trial_keeps_its_place_until_another_starts_there() -> None:
    standing = after(
        trial(0), trial(1), trial(2), report(1, 10, 1.0), report(2, 10, 2.0), status(1, "stopped")
    )
    assert standing.places == ["trial-00000", "trial-00001", "trial-00002"]
    for event in (status(2, "stopped"), trial(3), trial(4), trial(5)):
        standing.add(event)
    assert standing.places == ["trial-00000", "trial-00003", "trial-00004", "trial-00005"]
    assert set(standing.curves) == {*standing.places, "trial-00001"}  # the best


def test_a_paused_trial_gives_its_place_up_until_it_runs_again() -> None:
    pause = {"event": "pause", "trial": "trial-00000", "time": 115.0}
    standing = after(trial(0), report(0, 10, 2.0), trial(1), report(1, 10, 3.0), pause)
    assert standing.counts() == "1 running, 1 paused, 2 to start"
    assert [line.plain for line in view(standing, 120.0, 80, 24) if "paused at 10" in line.plain]
    for event in (trial(2), report(2, 10, 1.0), status(1, "stopped"), pause | {"event": "start"}):
        standing.add(event)
    assert standing.counts() == "2 running, 1 to start, 1 stopped"
    assert standing.places == ["trial-00002", "trial-00000"]
    standing.add(report(0, 20, 1.5))
    assert standing.curves["trial-00000"][-1] == (20, 1.5)


def test_curves_of_thousands_of_trials_and_reports_stay_small() -> None:
    standing = Standing(SEARCH)
    for k in range(3000):
        for event in (
            trial(k),
            *(report(k, step, k - step) for step in (1, 2)),
            status(k, "stopped"),
        ):
            standing.add(event)
    assert len(standing.curves) <= 2
    standing.add(trial(3000))
    for step in range(1, 5000):
        standing.add(report(3000, step, 5.0 * step))
    curve = standing.curves["trial-03000"]
    assert len(curve) <= POINTS
    assert curve[-1] == (4999, 5.0 * 4999)
    assert curve == sorted(curve)


def test_a_trial_is_ahead_when_it_is_better_than_the_best_was_after_as_many_steps() -> None:
    best = (report(0, 10, 5.0), report(0, 20, 4.0), report(0, 30, 1.0))
    standing = after(
        trial(0), *best, trial(1), trial(2), trial(3), report(1, 20, 3.0), report(2, 20, 4.5)
    )
    assert [standing.is_ahead(f"trial-0000{k}") for k in (1, 2, 3)] == [True, False, False]


def test_failures_are_counted_by_cause_until_they_run_again() -> None:
    ends = (
        status(0, "failed", "ValueError: 3"),
        status(1, "lost"),
        status(2, "failed", "ValueError: 4"),
    )
    standing = after(trial(0), trial(1), trial(2), *ends)
    trials = ["trial-00000", "trial-00002"]
    assert standing.causes() == [("failed", trials, "ValueError: 3"), ("lost", ["trial-00001"], "")]
    standing.add({"event": "restart", "time": 140.0, "trial": "trial-00000", "cause": "run again"})
    standing.add({"event": "restart", "time": 140.0, "trial": "trial-00001", "cause": "run again"})
    assert standing.causes() == [("failed", ["trial-00002"], "ValueError: 4")]
    assert (
        standing.counts() == "3 to start, 1 failed, 2 restarts"
    )  # of four; two of them wait for a worker
    standing.add({"event": "start", "time": 141.0, "trial": "trial-00000"})
    assert standing.counts() == "1 running, 2 to start, 1 failed, 2 restarts"


def test_why_nothing_runs_holds_until_something_does() -> None:
    standing = after({"event": "wait", "time": 120.0, "message": "waiting for a node"})
    assert standing.waiting == "waiting for a node"
    standing.add(trial(0))
    assert standing.waiting == ""


def test_what_a_damaged_log_says_of_unknown_trials_is_passed_over() -> None:
    standing = after(
        report(7, 10, 1.0),
        status(8, "finished"),
        {"event": "restart", "trial": "trial-00009", "time": 1.0},
    )
    assert standing.best is None
    assert not standing.running


def test_elapsed_leaves_out_the_time_between_a_kill_and_resume_and_stands_still_at_the_end() -> (
    None
):
    standing = after(trial(0), report(0, 10, 1.0), {"event": "resume", "time": 1110.0, "trials": 6})
    assert standing.elapsed(1120.0) == 20.0
    assert standing.trials == 6
    standing.add(status(None, "finished") | {"time": 1130.0})
    assert standing.elapsed(5000.0) == 30.0


# --- time left ---


@pytest.mark.parametrize("seed", range(20))
def test_without_running_trials_the_steps_left_are_a_mean(seed: int) -> None:
    draw = random.Random(seed)
    ends = [draw.choice((0, 10, 20, 40, 100)) for _ in range(12)] + [100]
    survival = Survival(Counter(ends), [], 100)
    assert survival.left(0) == pytest.approx(sum(ends) / len(ends))
    for step in (5, 10, 39, 99):
        beyond = [end - step for end in ends if end > step]
        assert survival.left(step) == pytest.approx(sum(beyond) / len(beyond))
    assert survival.left(100) == 0


def test_running_trials_count_as_long_as_they_have_come() -> None:
    """Of four trials, two end at 10, and one runs at 10 and has passed it.

    The fourth is at 5, and does not count at 10.
    """
    survival = Survival({10: 2, 30: 1}, [10, 5], 30)
    assert survival.left(0) == pytest.approx(10 + 20 * (1 - 2 / 4))
    assert survival.left(10) == 20


def test_where_trials_end_ideally() -> None:
    assert dict(ideal_ends(ASHA, 900, 4)) == pytest.approx(
        {100: IDEAL * 2 / 3, 300: IDEAL * 2 / 9, 900: IDEAL / 9}
    )
    assert list(dict(ideal_ends(ASHA, 50, 4))) == [50]
    assert dict(ideal_ends({"name": "none", "max_steps": 9}, 9, 4)) == {9: 1.0}
    assert dict(ideal_ends({}, 9, 4)) == {9: 1.0}


def test_time_left_is_that_of_the_steps_left_at_the_pace_so_far() -> None:
    standing = after(trial(0), trial(1))
    assert standing.seconds_left(130.0) is None
    standing.add(report(0, 60, 1.0))
    standing.add(report(1, 40, 1.0))
    assert standing.seconds_left(130.0) == pytest.approx((40 + 60 + 2 * 100) * 30 / 100)


def test_time_left_learns_from_where_trials_end() -> None:
    """Of 103 trials 100 were stopped at 10 of 1000 steps: those to come will be as well."""
    standing = Standing(SEARCH | {"trials": 203})
    for k in range(100):
        for event in (trial(k, 1000), report(k, 10, 1.0), status(k, "stopped")):
            standing.add(event | {"time": 100.0})  # the times of a log never go back
    left = standing.seconds_left(200.0)
    assert left is not None
    assert 100.0 < left < 100.0 * 2.2  # one in 101 is thought to go on


def test_the_slowest_trial_is_waited_for() -> None:
    standing = after(
        trial(0),
        trial(1),
        report(0, 90, 1.0, seconds=9.0),
        report(1, 10, 1.0, seconds=30.0),
        trials=2,
    )
    assert standing.seconds_left(130.0) == pytest.approx(90 * 3.0)


def test_a_budget_of_hours_ends_everything() -> None:
    standing = after(trial(0), report(0, 1, 1.0), hours=0.01)
    assert standing.seconds_left(130.0) == pytest.approx(6.0)
    standing.add({"event": "resume", "time": 110.0, "trials": 4, "hours": 0.02})
    assert standing.seconds_left(130.0) == pytest.approx(42.0)


# --- trials that wait until the search ends ---


def paused(count: int) -> list[dict[str, Any]]:
    """So many trials that made 100 steps and wait, all at the time of the search event."""
    events = []
    for k in range(count):
        pause = {"event": "pause", "trial": f"trial-{k:05d}"}
        events += [trial(k, 900), report(k, 100, 1.0), pause]
    return [event | {"time": 100.0} for event in events]


def again(k: int) -> dict[str, Any]:
    return {"event": "start", "time": 110.0, "trial": f"trial-{k:05d}"}


def searched(name: str, **more: Any) -> dict[str, Any]:
    return ASHA | {"name": name} | more


def test_steps_left_of_trials_that_wait_are_a_share_of_all() -> None:
    """Of 27 trials a third ideally passes each rung: 27 x 100, 9 x 200 and 3 x 600 steps.

    Twenty have begun. One has finished, which says nothing about the others.
    """
    grown = [again(0), report(0, 300, 0.5), report(0, 900, 0.4), status(0, "finished")]
    ideal = 27 * 100 + 9 * 200 + 3 * 600
    for scheduler in (searched("asha", variant="promote"), searched("pasha")):
        standing = after(*paused(20), *grown, trials=27, scheduler=scheduler)
        pace = 30 / (20 * 100 + 800)
        assert standing.seconds_left(130.0) == pytest.approx(pace * (ideal - 2800))
        standing.add(trial(20, 900) | {"time": 130.0})
        assert standing.counts() == "1 running, 19 paused, 6 to start, 1 finished"
        assert standing.seconds_left(130.0) == pytest.approx(pace * (ideal - 2800))


def test_first_reports_trains_all_for_a_while_and_a_few_to_the_end() -> None:
    scheduler = searched("first_reports", keep=2)
    standing = after(*paused(8), trials=10, scheduler=scheduler)
    assert standing.seconds_left(130.0) == pytest.approx(30 / 800 * (2 * 100 + 2 * 800))
    standing.add(again(3))
    standing.add(report(3, 500, 1.0))
    assert standing.seconds_left(130.0) == pytest.approx(30 / 1200 * (2 * 100 + 800 + 400))


@pytest.mark.parametrize("total, budget", [(None, 10 * 900 / 4), (1500, 1500)])
def test_freeze_thaw_has_a_budget_of_steps(total: int | None, budget: float) -> None:
    scheduler = searched("freeze_thaw", total_steps=total)
    standing = after(*paused(8), trials=10, scheduler=scheduler)
    assert standing.seconds_left(130.0) == pytest.approx(30 / 800 * (budget - 800))
    # No trial takes longer than the rest of the budget.
    standing.add(again(3))
    standing.add(report(3, 100 + budget - 800 - 10, 1.0, seconds=budget))
    left = standing.seconds_left(130.0)
    assert left is not None
    assert 0 < left <= 10 * budget / (budget - 710)
    standing.add(report(3, 110 + budget - 800, 1.0))
    assert standing.seconds_left(130.0) == 0


def test_the_schedulers_that_let_trials_wait_are_those_of_a_space() -> None:
    assert (time_left.OURS, time_left.PROMOTE, time_left.SHARE) == (OURS, PROMOTE, SHARE)


def test_what_a_damaged_log_says_of_such_a_scheduler_is_no_number() -> None:
    for name in ("pasha", "first_reports", "freeze_thaw"):
        broken = {"name": name, "grace_steps": "x", "reduction_factor": None, "keep": []}
        standing = after(*paused(1), trials=0, scheduler=broken | {"max_steps": -1})
        assert standing.seconds_left(130.0) is not None
