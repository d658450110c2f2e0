"""A search replayed under other settings: against a plain loop, and where the outcome can be counted by hand."""

import json
import random
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from s2s_search.cli import command_line
from s2s_search.errors import ConfigError
from s2s_search.spaces.load import load_space
from s2s_search.spaces.settings import Scheduler
from s2s_search.spaces.space import Space
from s2s_search.tuning.schedulers import make_scheduler
from s2s_search.whatif import replay
from s2s_search.whatif.curves import Curve, CurvePoint, Record, load_record
from s2s_search.whatif.replay import Simulation

SPACE = """
model: BasicSeq2Seq
corpus: {{name: copy, train: 20, dev: 5, vocabulary: 5, min_length: 2, max_length: 5}}
metric: {{name: {metric}}}
search: {{method: grid}}
scheduler: {{name: {scheduler}, max_steps: 40, grace_steps: 10, reduction_factor: 2}}
parameters: {{train.seed: [0, 1, 2, 3, 4, 5, 6, 7]}}
"""


def make_space(folder: Path, scheduler: str = "none", metric: str = "dev.loss") -> Space:
    (folder / "space.yaml").write_text(SPACE.format(scheduler=scheduler, metric=metric))
    return load_space(folder / "space.yaml")


def curve(
    k: int, values: list[float], seconds: float = 1.0, is_cut: bool = False, end: str = "finished"
) -> Curve:
    """Reports every 10 steps, each after as many seconds."""
    reports = [
        CurvePoint(10 * i, value, seconds, "running") for i, value in enumerate(values, start=1)
    ]
    if not is_cut:
        reports[-1] = reports[-1]._replace(status=end)
    return Curve(f"trial-{k:05d}", tuple(reports), is_cut)


def record(space: Space, *curves: Curve, workers: int = 2) -> Record:
    history: Any = SimpleNamespace(events=[], trials={})
    return Record(space, history, curves, workers)


def run(
    known: Record, name: str = "none", factor: float = 2, grace: int = 10, last: int = 40
) -> replay.Replayed:
    return Simulation(known, Scheduler(name, last, grace, factor), known.workers).run()


# --- against a plain loop ---


def asha(
    curves: dict[str, list[tuple[int, float, float]]], workers: int, settings: Scheduler
) -> dict[str, Any]:
    """Asynchronous successive halving over (step, value, seconds): how many reports each trial makes, and the end."""
    rungs: dict[float, dict[str, float]] = {}
    rung = float(settings.grace_steps)
    while rung <= settings.max_steps:
        rungs[rung] = {}
        rung *= settings.reduction_factor
    waiting, due, made, now = list(curves), {}, dict.fromkeys(curves, 0), 0.0
    while waiting or due:
        while waiting and len(due) < workers:
            due[waiting[0]] = now + curves[waiting[0]][0][2]
            waiting.pop(0)
        trial = min(due, key=lambda name: due[name])
        now = due.pop(trial)
        step, value, _ = curves[trial][made[trial]]
        made[trial] += 1
        reached = max((rung for rung in rungs if rung <= step), default=None)
        goes_on = made[trial] < len(curves[trial])
        if reached is not None and trial not in rungs[reached]:
            before = list(rungs[reached].values())
            rungs[reached][trial] = value
            goes_on &= not before or value <= np.percentile(before, 100 / settings.reduction_factor)
        if goes_on:
            due[trial] = now + curves[trial][made[trial]][2]
    return {"made": made, "end": now}


@pytest.mark.parametrize("seed", range(40))
def test_asha_stops_what_a_plain_loop_stops(tmp_path: Path, seed: int) -> None:
    draw, space = random.Random(seed), make_space(tmp_path)
    settings = Scheduler("asha", 40, draw.choice([4, 5, 10, 13]), draw.choice([2, 3, 4]))
    every = draw.choice([1, 4, 10])
    steps = range(every, 41, every)
    curves = {
        f"trial-{k:05d}": [(step, draw.random(), draw.random()) for step in steps]
        for k in range(draw.randrange(1, 30))
    }
    known = record(
        space,
        *(
            Curve(
                name,
                tuple(
                    CurvePoint(*row, "finished" if row[0] == steps[-1] else "running")
                    for row in rows
                ),
                False,
            )
            for name, rows in curves.items()
        ),
    )
    workers = draw.randrange(1, 6)
    simulation = Simulation(known, settings, workers)
    outcome, expected = simulation.run(), asha(curves, workers, settings)
    assert {trial.trial_id: trial.made for trial in simulation.trials} == expected["made"]
    assert outcome.wall_seconds == pytest.approx(expected["end"])
    assert outcome.steps == every * sum(expected["made"].values())
    assert outcome.worker_seconds == pytest.approx(
        sum(
            seconds
            for name, rows in curves.items()
            for *_, seconds in rows[: expected["made"][name]]
        )
    )
    assert not outcome.unknown


# --- by hand ---


def test_without_a_scheduler_a_search_comes_out_as_it_was(tmp_path: Path) -> None:
    known = record(
        make_space(tmp_path),
        *(curve(k, [4 - k / 8, 3, 2, 1 + k / 8], seconds=k + 1) for k in range(4)),
    )
    outcome = run(known)
    assert (outcome.worker_seconds, outcome.steps, outcome.stopped) == (40, 160, 0)
    assert outcome.wall_seconds == 24  # one worker takes trials 0 and 2, the other 1 and 3
    assert (outcome.winner, outcome.best, outcome.regret) == ("trial-00000", 1.0, 0.0)


@pytest.mark.parametrize("workers, wall", [(1, 12), (2, 8), (3, 4), (9, 4)])
def test_workers_share_the_trials(tmp_path: Path, workers: int, wall: float) -> None:
    known = record(
        make_space(tmp_path), *(curve(k, [3, 2, 1, 1]) for k in range(3)), workers=workers
    )
    assert run(known).wall_seconds == wall


def test_a_late_winner_is_lost_and_the_regret_says_by_how_much(tmp_path: Path) -> None:
    early, late = curve(0, [2.0, 1.9, 1.8, 1.75]), curve(1, [3.0, 2.0, 1.0, 0.5], seconds=2)
    outcome = run(record(make_space(tmp_path), early, late), "asha")
    assert (outcome.winner, outcome.regret, outcome.stopped) == ("trial-00000", 1.25, 1)
    assert (outcome.steps, outcome.worker_seconds, outcome.wall_seconds) == (50, 6, 4)
    patient = run(record(make_space(tmp_path), early, late), "asha", grace=40)
    assert (patient.winner, patient.regret, patient.stopped) == ("trial-00001", 0.0, 0)


def test_where_more_is_better_the_goal_is_heeded(tmp_path: Path) -> None:
    space = make_space(tmp_path, metric="dev.bleu")
    outcome = run(
        record(space, curve(0, [20, 30, 40, 50]), curve(1, [10, 20, 30, 90], seconds=2)), "asha"
    )
    assert (outcome.winner, outcome.best, outcome.regret, outcome.stopped) == (
        "trial-00000",
        50,
        40,
        1,
    )


def test_beyond_its_record_a_trial_is_unknown(tmp_path: Path) -> None:
    known = record(
        make_space(tmp_path, "asha"), curve(0, [2, 1, 1, 1]), curve(1, [3, 2], is_cut=True)
    )
    assert run(known).unknown == {"trial-00001": 20}
    assert run(known).steps == 60
    assert run(known, "asha").unknown == {}
    assert run(known, "asha").stopped == 1
    never = record(make_space(tmp_path), curve(0, [2, 1, 1, 1]), Curve("trial-00001", (), True))
    assert run(never, "median").unknown == {"trial-00001": 0}


def test_a_trial_that_failed_fails_again(tmp_path: Path) -> None:
    failed = curve(1, [3, 2], end="running")
    outcome = run(
        record(
            make_space(tmp_path), curve(0, [2, 1, 1, 1]), failed, Curve("trial-00002", (), False)
        )
    )
    assert (outcome.unknown, outcome.stopped, outcome.steps) == ({}, 0, 60)


def test_fewer_steps_end_trials_sooner_and_more_are_unknown(tmp_path: Path) -> None:
    known = record(
        make_space(tmp_path), curve(0, [4, 3, 2, 1]), curve(1, [5, 4, 3, 2]), curve(2, [9, 9])
    )
    outcome = run(known, last=30)
    assert (outcome.steps, outcome.regret, outcome.unknown) == (80, 1.0, {})
    assert run(known, last=80).unknown == {
        "trial-00000": 40,
        "trial-00001": 40,
    }  # the third was given 20 steps


def test_a_trial_that_plateaued_ends_there_under_any_scheduler(tmp_path: Path) -> None:
    """It needs no more steps than it made, whatever it is given."""
    known = record(
        make_space(tmp_path), curve(0, [4, 3, 2, 1]), curve(1, [5, 2, 3], end="plateaued")
    )
    for last, steps in ((40, 70), (30, 60)):
        outcome = run(known, last=last)
        assert (outcome.steps, outcome.unknown, outcome.stopped) == (steps, {}, 0)
    assert run(known, last=80).unknown == {"trial-00000": 40}


def test_what_a_divergence_is_given_is_never_best(tmp_path: Path) -> None:
    diverged = curve(1, [5, 0], end="diverged")
    outcome = run(record(make_space(tmp_path), curve(0, [4, 3, 2, 1]), diverged))
    assert (outcome.winner, outcome.unknown) == ("trial-00000", {})


def test_median_stops_what_is_worse_than_the_others_means(tmp_path: Path) -> None:
    good = [curve(k, [2 + k / 9, 1, 1, 1]) for k in range(3)]
    known = record(make_space(tmp_path), *good, curve(3, [9, 9, 9, 9], seconds=1.5), workers=4)
    outcome = run(known, "median")
    assert (outcome.stopped, outcome.steps) == (1, 130)


def test_hyperband_halves_a_bracket_when_all_of_it_have_come(tmp_path: Path) -> None:
    """With 9 steps and factor 3 the first bracket has 3 trials and no halving.

    Of the second's 5 two pass step 3, of the third's 9 three pass step 1 and one step 3.
    """
    values = [5, 5, 5, 1, 9, 2, 8, 7, 30, 11, 31, 32, 10, 33, 12, 34, 35]
    curves = [
        Curve(
            f"trial-{k:05d}",
            tuple(
                CurvePoint(step, value, 1.0, "finished" if step == 9 else "running")
                for step in range(1, 10)
            ),
            False,
        )
        for k, value in enumerate(values)
    ]
    for workers in (1, 3, 17):
        simulation = Simulation(
            record(make_space(tmp_path), *curves), Scheduler("hyperband", 9, 1, 3), workers
        )
        outcome = simulation.run()
        assert [trial.made for trial in simulation.trials] == [
            9,
            9,
            9,
            9,
            3,
            9,
            3,
            3,
            1,
            3,
            1,
            1,
            9,
            1,
            3,
            1,
            1,
        ]
        assert (outcome.stopped, outcome.unknown, outcome.regret) == (11, {}, 0)


def test_hyperband_forgets_no_trial_whose_reports_lie_further_apart_than_its_rungs(
    tmp_path: Path,
) -> None:
    """The sixth bracket's first rung is step 1; a trial that is at step 10 then has passed the next three."""
    known = record(
        make_space(tmp_path), *(curve(k, [2 + k / 9, 2, 1, 1]) for k in range(60)), workers=8
    )
    simulation = Simulation(known, Scheduler("hyperband", 40, 10, 2), workers=8)
    simulation.run()
    assert {trial.end for trial in simulation.trials} == {"stopped", "finished"}


@pytest.mark.parametrize("number", range(12, 20))
def test_hyperband_waits_for_no_trial_that_failed(tmp_path: Path, number: int) -> None:
    """The third bracket halves at steps 10 and 20; one that passes the first as the best fails before the second."""
    curves = [curve(k, [2 + k / 9, 2, 1 + k / 9, 1]) for k in range(20)]
    best = curves[number].reports[0]._replace(value=0.5)
    curves[number] = replace(curves[number], reports=(best,), is_cut=False)
    simulation = Simulation(
        record(make_space(tmp_path), *curves), Scheduler("hyperband", 40, 10, 2), workers=9
    )
    simulation.run()
    assert simulation.trials[number].end == "failed"
    assert {trial.end for trial in simulation.trials} == {"stopped", "finished", "failed"}


def test_the_past_yields_to_no_trial_that_waits(tmp_path: Path) -> None:
    """Median asks Tune which trials wait, where there are few to compare."""
    watched = make_scheduler(make_space(tmp_path, "median"), dict)
    report = {"event": "report", "trial": "trial-00000", "step": 20, "dev.loss": 1.0}
    assert (
        watched.replay([{"event": "trial", "trial": "trial-00000"}, report])["trial-00000"][
            "action"
        ]
        == "continue"
    )


# --- settings ---


def test_settings_are_the_combinations_that_differ(tmp_path: Path) -> None:
    known = record(make_space(tmp_path, "asha"), curve(0, [4, 3, 2, 1]))
    assert replay.replay_schedulers(known, {}) == [Scheduler("asha", 40, 10, 2.0)]
    given = {
        "name": ["asha", "median", "none"],
        "reduction_factor": [2, 3],
        "grace_steps": [10, 20],
    }
    assert len(replay.replay_schedulers(known, given)) == 4 + 2 + 1
    assert len(replay.replay_schedulers(known, {}, grid=True)) == 1 + 3 + 3 * 3
    assert len(replay.replay_schedulers(known, {"grace_steps": [7]}, grid=True)) == 1 + 1 + 3
    assert {
        found.grace_steps
        for found in replay.replay_schedulers(known, {"max_steps": [20]}, grid=True)
    } == {10}
    assert (
        len(replay.replay_schedulers(known, {"name": ["none"], "max_steps": [10]})) == 1
    )  # asha's 10 do not matter


@pytest.mark.parametrize(
    "steps, last, expected",
    [
        (range(100, 1201, 100), 1200, (100, 200, 500)),
        ([20, 40, 60], 60, (20, 40)),
        ([40], 40, (40,)),
    ],
)
def test_a_grid_takes_steps_of_reports_in_equal_ratios(
    steps: Any, last: int, expected: tuple[int, ...]
) -> None:
    assert replay.graces(list(steps), last) == expected


def test_all_problems_of_settings_come_at_once(tmp_path: Path) -> None:
    known = record(make_space(tmp_path, "asha"), curve(0, [4, 3, 2, 1]))
    given = {"name": ["pbt", "none"], "reduction_factor": [3], "grace_steps": [50]}
    with pytest.raises(ConfigError) as raised:
        replay.replay_schedulers(known, given)
    assert len(raised.value.problems) == 3


def test_trials_end_where_they_reported(tmp_path: Path) -> None:
    """What they had between two reports nobody knows."""
    known = record(make_space(tmp_path), curve(0, [4, 3, 2, 1]))
    with pytest.raises(ConfigError) as raised:
        replay.replay_schedulers(known, {"max_steps": [5, 20, 25, 40, 50]})
    law = "--max-steps: must be a step at which trials reported, or one beyond the last, but got"
    assert raised.value.problems == (
        f"{law} 5; the nearest: 10",
        f"{law} 25; the nearest: 20 and 30",
    )


# --- tables and records ---


def test_the_table_has_means_over_orders(tmp_path: Path) -> None:
    """asha with one worker and two trials finds the better one, which is worse at first, when it comes first."""
    known = record(make_space(tmp_path), curve(0, [2, 2, 2, 2]), curve(1, [3, 1, 1, 1]), workers=1)
    schedulers = [Scheduler("none", 40, 10, 2), Scheduler("asha", 40, 10, 2)]
    table = replay.replay_table(known, schedulers, workers=1, orders=40)
    assert table["found"][0] == 1.0
    assert 0.2 < table["found"][1] < 0.8
    assert table["regret"][1] == pytest.approx(1 - table["found"][1])
    assert table["front"].tolist() == [True, True]
    one = replay.replay_table(known, schedulers, workers=1)
    assert one["found"].tolist() == [1.0, 0.0]
    assert one["share"].tolist() == [1.0, 5 / 8]
    assert one["winner"].tolist() == ["trial-00001", "trial-00000"]
    assert one["grace_steps"].isna().tolist() == [True, False]


def test_unknown_trials_keep_a_row_off_the_front(tmp_path: Path) -> None:
    known = record(make_space(tmp_path), curve(0, [2, 2, 2, 2]), curve(1, [3], is_cut=True))
    assert replay.replay_table(known, [Scheduler("none", 40, 10, 2)], workers=1)[
        "front"
    ].tolist() == [False]


def write_log(folder: Path, *events: dict[str, Any]) -> None:
    search = {
        "event": "search",
        "time": 0.0,
        "name": "toy",
        "metric": "dev.loss",
        "goal": "minimize",
        "searched": {},
    }
    lines = [search, *({"time": float(i), **event} for i, event in enumerate(events, start=1))]
    (folder / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def trial(k: int, **rest: object) -> dict[str, Any]:
    return {"event": "trial", "trial": f"trial-{k:05d}", "settings": {}, "config": {}, **rest}


def reported(
    k: int, step: int, loss: float, status: str = "running", **seconds: float
) -> dict[str, Any]:
    name = f"trial-{k:05d}"
    return {
        "event": "report",
        "trial": name,
        "step": step,
        "dev.loss": loss,
        "status": status,
        **seconds,
    }


def test_a_record_is_read_from_the_log(tmp_path: Path) -> None:
    make_space(tmp_path)
    write_log(
        tmp_path,
        trial(1),
        trial(0),
        reported(1, 10, 2.0, seconds=3.0, start_seconds=1.0),
        reported(1, 20, 1.0, seconds=5.0, start_seconds=1.0, snapshot_seconds=0.5),
        {"event": "restart", "trial": "trial-00001", "cause": "lost"},
        reported(1, 20, 1.0, seconds=5.0, start_seconds=0.0, snapshot_seconds=0.5),  # said again
        reported(1, 40, 0.5, "finished", seconds=9.0, start_seconds=2.0, snapshot_seconds=0.25),
        {"event": "status", "trial": "trial-00001", "status": "finished"},
        {"event": "status", "trial": "trial-00000", "status": "stopped"},
    )
    known = load_record(tmp_path)
    assert [(found.trial, found.is_cut, len(found.reports)) for found in known.curves] == [
        ("trial-00001", False, 3),
        ("trial-00000", True, 0),
    ]
    assert [report.seconds for report in known.curves[0].reports] == [4.0, 2.5, 5.0]
    assert (known.workers, known.best, known.steps) == (2, (0.5, "trial-00001"), [10, 20, 40])


def test_a_trial_whose_hours_were_over_is_stopped_again(tmp_path: Path) -> None:
    """Under the same limit its record is whole, and without the limit nobody knows more of it."""
    make_space(tmp_path)
    text = (tmp_path / "space.yaml").read_text()
    (tmp_path / "space.yaml").write_text(text.replace("grid}", "grid, trial_hours: 1}"))
    why = {"action": "stop", "step": 20, "value": 1.0, "reason": "trial_hours: 1 h are over"}
    write_log(
        tmp_path,
        trial(0),
        reported(0, 10, 2.0, seconds=3000.0),
        reported(0, 20, 1.0, seconds=4000.0),
        {"event": "decision", "trial": "trial-00000", **why},
        {"event": "status", "trial": "trial-00000", "status": "stopped"},
    )
    known = load_record(tmp_path)
    assert replay.made_again(known) == (1, 1)
    again = run(known)
    assert (again.stopped, again.unknown, again.steps) == (1, {}, 20)
    space = replace(known.space, search=replace(known.space.search, trial_hours=None))
    assert run(replace(known, space=space)).unknown == {"trial-00000": 20}


@pytest.mark.parametrize(
    "scheduler, events", [("pbt", [trial(0), reported(0, 10, 1.0)]), ("asha", [trial(0)])]
)
def test_what_cannot_be_replayed_is_refused(
    tmp_path: Path, scheduler: str, events: list[dict[str, Any]]
) -> None:
    make_space(tmp_path)
    text = (tmp_path / "space.yaml").read_text().replace("name: none", f"name: {scheduler}")
    (tmp_path / "space.yaml").write_text(
        text.replace("train.seed: [0,", "optimizer.learning_rate: [0.5,")
    )
    write_log(tmp_path, *events)
    with pytest.raises(ConfigError, match=r"pbt|reported"):
        load_record(tmp_path)


def test_the_verb_prints_a_row_for_each_setting(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_space(tmp_path)
    events = [
        event
        for k in range(3)
        for event in (trial(k), reported(k, 10, k + 1.0), reported(k, 20, 3.0 - k))
    ]
    write_log(tmp_path, *events)
    assert (
        command_line.main(
            [
                "replay",
                str(tmp_path),
                "--scheduler",
                "asha,none",
                "--grace-steps",
                "10,20",
                "--json",
            ]
        )
        == 0
    )
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["scheduler"], row["grace_steps"]) for row in rows] == [
        ("asha", 10),
        ("asha", 20),
        ("none", None),
    ]
    assert command_line.main(["replay", str(tmp_path), "--grid"]) == 0
    assert "what they would have reached is not known" in capsys.readouterr().out
    assert (
        command_line.main(
            ["replay", str(tmp_path), "--scheduler", "median", "--reduction-factor", "3"]
        )
        == 2
    )
    assert "only asha and hyperband have one" in capsys.readouterr().err
    assert command_line.main(["replay", str(tmp_path), "--reduction-factor", "2,1"]) == 2
    assert "must be a number at least 1.1, but got '1'" in capsys.readouterr().err
