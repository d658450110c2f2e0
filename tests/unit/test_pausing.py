"""Schedulers of methods in front of Ray Tune: what it is told, and what a log restores."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from s2s_search.methods.halving import Promotion
from s2s_search.methods.pausing import ENDED, TRAINS, WAITS
from s2s_search.runs.explain import explain
from s2s_search.runs.recorder import Recorder
from s2s_search.runs.state import load_history
from s2s_search.spaces.load import load_space
from s2s_search.spaces.settings import OURS, Scheduler
from s2s_search.statuses import WAITED
from s2s_search.tuning.pausing import PausingScheduler
from s2s_search.whatif.courses import make_courses
from tests.runs import CORPUS, ENVIRONMENT, write_run


class TuneTrial(SimpleNamespace):
    """The part of a trial of Ray Tune that schedulers read."""

    def __init__(self, number: int) -> None:
        name = f"trial-{number:05d}"
        super().__init__(trial_id=name, number=number, status="PENDING", hparams={})

    def update_last_result(self, result: dict[str, Any]) -> None:
        self.last_result = result

    def set_status(self, status: str) -> None:
        self.status = status


class Tune:
    """A stand-in for Ray Tune's controller."""

    def __init__(self, scheduler: PausingScheduler) -> None:
        self.scheduler, self.stopped = scheduler, list[int]()

    def stop_trial(self, trial: Any) -> None:
        self.stopped.append(trial.number)
        self.scheduler.on_trial_remove(self, trial)


def made(trial_hours: float | None = None, slots: int = 2) -> tuple[PausingScheduler, Tune]:
    settings = Scheduler("asha", 90, 10, 3.0, variant="promote")
    scheduler = PausingScheduler(Promotion(settings, True), "asha", "dev.loss", trial_hours)
    scheduler.slots = lambda: slots
    return scheduler, Tune(scheduler)


def result(
    step: int, value: float, status: str = "running", seconds: float = 1.0
) -> dict[str, Any]:
    return {"step": step, "dev.loss": value, "status": status, "seconds": seconds}


def test_a_new_trial_is_wanted_while_a_worker_is_free() -> None:
    scheduler, tune = made()
    assert scheduler.wants_new()
    trials = [TuneTrial(number) for number in range(2)]
    scheduler.on_trial_add(tune, trials[0])
    assert not scheduler.wants_new(), "the first has not got its worker"
    assert scheduler.choose_trial_to_run(tune) is trials[0]
    trials[0].status = "RUNNING"
    assert scheduler.wants_new()
    scheduler.on_trial_add(tune, trials[1])
    trials[1].status = "RUNNING"
    assert not scheduler.wants_new()
    assert scheduler.choose_trial_to_run(tune) is None
    assert scheduler.on_trial_result(tune, trials[0], result(10, 0.5)) == "PAUSE"
    assert scheduler.on_trial_result(tune, trials[0], result(10, 0.5)) == "CONTINUE", "sent again"
    assert scheduler.decisions["trial-00000"] == {
        "action": "pause",
        "step": 10,
        "value": 0.5,
        "reason": "1 of 1 so far at rung 10",
    }
    assert scheduler.wants_new()


def test_waiting_trials_are_stopped_when_nothing_is_left() -> None:
    scheduler, tune = made()
    trials = [TuneTrial(number) for number in range(3)]
    for trial, value in zip(trials, (0.3, 0.2, 0.1), strict=True):
        scheduler.on_trial_add(tune, trial)
        trial.status = "RUNNING"
        assert scheduler.on_trial_result(tune, trial, result(10, value)) == (
            "CONTINUE" if value == 0.1 else "PAUSE"
        )
        trial.status = "RUNNING" if value == 0.1 else "PAUSED"
    scheduler.has_new = lambda: False
    assert not scheduler.is_over()
    assert scheduler.on_trial_result(tune, trials[2], result(30, 0.05)) == "CONTINUE"
    assert scheduler.on_trial_result(tune, trials[2], result(90, 0.04, "finished")) == "STOP"
    assert scheduler.is_over()
    assert scheduler.choose_trial_to_run(tune) is None
    assert tune.stopped == [0, 1]


def test_a_trial_is_stopped_by_the_first_report_after_its_hours() -> None:
    scheduler, tune = made(trial_hours=0.5)
    trial = TuneTrial(0)
    scheduler.on_trial_add(tune, trial)
    assert scheduler.on_trial_result(tune, trial, result(5, 1.0, seconds=1800)) == "CONTINUE"
    assert scheduler.on_trial_result(tune, trial, result(6, 0.9, seconds=1801)) == "STOP"
    assert scheduler.decisions["trial-00000"]["reason"] == "trial_hours: 0.5 h are over"


def event(kind: str, number: int, **more: object) -> dict[str, Any]:
    return {"event": kind, "trial": f"trial-{number:05d}", **more}


def test_a_log_restores_who_waits() -> None:
    events = [
        event("trial", 0, config={}),
        event("report", 0, step=10, **{"dev.loss": 0.5}),
        event("pause", 0),
        event("trial", 1, config={}),
        event("report", 1, step=10, **{"dev.loss": 0.4}),  # the pause was not recorded
        event("trial", 2, config={}),
        event("restart", 0, cause="resume"),  # it waits on after a first resume
        event("restart", 2, cause="resume"),
        event("trial", 3, config={}),
        event("report", 3, step=90, status="finished", **{"dev.loss": 0.1}),
        event("trial", 4, config={}),
        event("report", 4, step=10, **{"dev.loss": 0.2}),
        event("start", 4),
        event("restart", 4, cause="lost"),
    ]
    scheduler, tune = made()
    scheduler.replay(events)
    states = {number: trial.state for number, trial in scheduler.inner.trials.items()}
    assert states == {0: WAITS, 1: WAITS, 2: TRAINS, 3: ENDED, 4: TRAINS}
    trials = [TuneTrial(number) for number in (0, 1, 2, 4)]
    for trial in trials:
        scheduler.on_trial_add(tune, trial)
    assert [trial.status for trial in trials] == ["PAUSED", "PAUSED", "PENDING", "PENDING"]
    assert trials[0].last_result == {"step": 10, "status": "running"}
    assert scheduler.choose_trial_to_run(tune) is trials[2]


@pytest.mark.parametrize("name", OURS)
def test_plans_know_the_schedulers(tmp_path: Path, name: str) -> None:
    hparams: Any = {"train.eval_every_steps": 10, "train.max_steps": 90, "train.patience": 0}
    settings = Scheduler(name, 90, 10, 3.0)
    courses = make_courses([hparams] * 12, settings)
    steps = sum(
        share * (step - before)
        for course in courses
        for step, before, share in zip(course.ends, (0, *course.ends), course.shares, strict=False)
    )
    if name == "freeze_thaw":
        assert steps == 12 * math.ceil(settings.steps_of_all(12) / 12)
    if name == "first_reports":
        assert steps == pytest.approx(12 * 10 + 4 * 80)


@pytest.mark.parametrize("action", ["pause", "stop"])
def test_the_reason_of_a_pause_is_not_that_of_the_end(tmp_path: Path, action: str) -> None:
    """A trial that waits is stopped when the search ends; what was said of it is old by then."""
    folder = write_run(tmp_path / "run", trials=3)
    (folder / "events.jsonl").unlink()
    recorder = Recorder(load_space(tmp_path / "run.yaml"), folder)
    recorder.begin(1, ENVIRONMENT | CORPUS)
    recorder.begin_trial("trial-00000", {"model": "BasicSeq2Seq"})
    recorder.report("trial-00000", {"step": 10, "dev.error_rate": 0.5, "status": "running"})
    decided = {"action": action, "step": 10, "value": 0.5, "reason": "old news"}
    recorder.decision("trial-00000", decided)
    recorder.end_trial("trial-00000", "stopped")
    recorder.end("finished")
    recorder.close()
    trial = load_history(folder).trials["trial-00000"]
    assert trial.message == (WAITED if action == "pause" else "old news")
    lines = list(explain(load_history(folder), 0))
    assert sum(WAITED in line for line in lines) == (action == "pause")
