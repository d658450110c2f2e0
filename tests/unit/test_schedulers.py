"""Which trial starts next, how asha counts ranks, and what is known after a kill, against plain loops and Tune."""

import random
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.schedulers import FIFOScheduler, PopulationBasedTraining

from s2s_search.hparams.configuration import resolve
from s2s_search.spaces.settings import OURS, Scheduler
from s2s_search.spaces.yaml_file import SECTIONS
from s2s_search.tuning.schedulers import Past, RungValues, Watched, _inner
from s2s_search.whatif.courses import make_courses


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("minimize", [True, False])
def test_a_rank_is_one_more_than_how_many_are_better(seed: int, minimize: bool) -> None:
    draw, rung = random.Random(seed), RungValues(1)
    before: list[float] = []
    for k in range(40):
        value = draw.choice([draw.random(), float(draw.randrange(4))])
        better = [other for other in before if (other < value if minimize else other > value)]
        assert rung.add(str(k), value, minimize) == len(better) + 1
        before.append(value)


@pytest.mark.parametrize("seed", range(20))
def test_the_next_trial_is_the_one_that_tune_would_take(seed: int) -> None:
    draw = random.Random(seed)
    settings = Scheduler(name="none", max_steps=9, grace_steps=1, reduction_factor=3)
    watched, plain = Watched(FIFOScheduler(), settings, "dev.loss", True), FIFOScheduler()
    trials: list[Any] = []
    tune: Any = SimpleNamespace(get_trials=lambda: trials)

    def of(status: str) -> list[Any]:
        return [trial for trial in trials if trial.status == status]

    for k in range(200):
        what = draw.randrange(4)
        if what == 0:
            trials.append(SimpleNamespace(trial_id=str(k), status="PENDING"))
            watched.on_trial_add(tune, trials[-1])
        elif what == 1 and of("PENDING"):
            draw.choice(of("PENDING")[:3]).status = draw.choice(["RUNNING", "ERROR"])
        elif what == 2 and of("RUNNING"):
            draw.choice(of("RUNNING")).status = "TERMINATED"
        elif of("RUNNING"):  # lost: Tune puts it at the end
            lost = draw.choice(of("RUNNING"))
            lost.status = "PENDING"
            trials.remove(lost)
            trials.append(lost)
            watched.on_trial_add(tune, lost)
        assert watched.choose_trial_to_run(tune) is plain.choose_trial_to_run(tune)


class Alone(Past):
    """Equal to itself alone, as Tune's trials are among each other."""

    __eq__, __hash__ = object.__eq__, object.__hash__  # type: ignore[assignment]


class Population:
    """Watched pbt, with trials that only report: what it knows of each, and the log that it leaves."""

    def __init__(self, minimize: bool) -> None:
        inner: Any = PopulationBasedTraining(
            time_attr="step", perturbation_interval=20, custom_explore_fn=dict
        )
        inner.set_search_properties("dev.loss", "min" if minimize else "max")
        inner._checkpoint_or_exploit = lambda *_: (
            None
        )  # what is done with weights is Tune's and the trial's
        settings = Scheduler(name="pbt", max_steps=99, grace_steps=20, reduction_factor=3)
        self.watched, self.trials = Watched(inner, settings, "dev.loss", minimize), []
        self.log: list[dict[str, Any]] = []

    def add(self, name: str, kind: type[Past] = Past) -> Any:
        manager = SimpleNamespace(checkpoint_config=SimpleNamespace(num_to_keep=None))
        trial = kind(name)
        trial.experiment_tag, trial.run_metadata = name, SimpleNamespace(checkpoint_manager=manager)
        trial.is_finished = lambda: False
        self.watched.on_trial_add(SimpleNamespace(search_alg=None), trial)
        self.trials.append(trial)
        return trial

    def report(self, trial: Any, step: int, value: float) -> None:
        result = {"step": step, "dev.loss": value, "status": "running"}
        tune: Any = SimpleNamespace(get_trials=lambda: self.trials)
        self.watched.on_trial_result(tune, trial, result)
        self.log.append({"event": "report", "trial": trial.trial_id} | result)

    def known(self) -> list[tuple[object, ...]]:
        states = (self.watched.inner._trial_state[trial] for trial in self.trials)
        return [(s.last_score, s.last_perturbation_time, s.last_train_time) for s in states]


@pytest.mark.parametrize("minimize", [True, False])
def test_pbt_knows_after_a_kill_what_it_knew(minimize: bool) -> None:
    draw, before, after = random.Random(1), Population(minimize), Population(minimize)
    for k in range(4):
        trial, step = before.add(f"trial-0000{k}"), 0
        for _ in range(draw.randrange(1, 9)):
            step += draw.choice([5, 10, 20])
            before.report(trial, step, draw.random())
    after.watched.replay(before.log)
    for trial in before.trials:
        after.add(trial.trial_id)
    assert after.known() == before.known()
    assert len(set(before.known())) > 1


def watched(name: str, **settings: Any) -> Watched:
    scheduler = Scheduler(
        **{"name": name, "max_steps": 90, "grace_steps": 10, "reduction_factor": 3} | settings
    )
    inner = _inner(scheduler, dict)
    inner.set_search_properties("dev.loss", "min")
    return Watched(inner, scheduler, "dev.loss", minimize=True)


@pytest.mark.parametrize("seed", range(10))
def test_the_reasons_of_median_are_those_of_its_decisions(seed: int) -> None:
    draw, scheduler = random.Random(seed), watched("median")
    tune: Any = SimpleNamespace()
    live = [Past(f"trial-{k:05d}") for k in range(12)]
    for trial in live:
        scheduler.on_trial_add(tune, trial)
    stopped = 0
    while live:
        trial = draw.choice(live)
        step = trial.last_result.get("step", 0) + 10
        trial.last_result = {
            "step": step,
            "dev.loss": draw.random() + 1 / step,
            "status": "running",
        }
        action = scheduler.on_trial_result(tune, trial, trial.last_result)
        reason = scheduler.decisions.pop(trial.trial_id)
        is_worse = reason["cutoff"] is not None and reason["value"] > reason["cutoff"]
        assert (action, reason["action"]) == (
            ("STOP", "stop") if is_worse else ("CONTINUE", "continue")
        )
        stopped += is_worse
        if action == "STOP" or step == 90:
            live.remove(trial)
            scheduler.on_trial_complete(tune, trial, trial.last_result)
    assert stopped > 2


def test_a_trial_has_the_results_of_the_one_of_its_name_that_tune_gave_up() -> None:
    scheduler, tune = watched("median"), SimpleNamespace()
    lost, again, *others = [Alone(f"trial-0000{k}") for k in (0, 0, 1, 2, 3)]
    for trial in (lost, *others):
        scheduler.on_trial_add(tune, trial)
        for step in (10, 20) if trial is lost else (10, 20, 30):
            scheduler.on_trial_result(
                tune, trial, {"step": step, "dev.loss": 1.0, "status": "running"}
            )
    scheduler.give_up(lost)
    scheduler.on_trial_add(tune, again)
    scheduler.on_trial_result(tune, again, {"step": 30, "dev.loss": 2.0, "status": "running"})
    decision = scheduler.decisions["trial-00000"]
    assert decision["value"] == 1.0  # the best, of before
    assert decision["of"] == 4  # compared with the three others


def test_pbt_knows_of_a_trial_what_it_knew_of_the_one_that_tune_gave_up() -> None:
    population = Population(minimize=True)
    first, lost, last = [population.add(f"trial-0000{k}", Alone) for k in range(3)]
    for k, trial in enumerate((first, lost, last)):
        population.report(trial, 20, float(k))
    known = population.known()
    population.watched.give_up(lost)
    again = population.add("trial-00001", Alone)
    population.trials = [first, again, last]
    assert population.known() == known
    assert list(population.watched.inner._trial_state) == [first, last, again]


def test_nothing_is_decided_about_a_trial_that_has_ended_by_itself() -> None:
    scheduler, tune = watched("asha"), SimpleNamespace()
    for k in range(4):
        trial = Past(f"trial-{k:05d}")
        scheduler.on_trial_add(tune, trial)
        for step, status in ((10, "running"), (90, "finished")):
            scheduler.on_trial_result(
                tune, trial, {"step": step, "dev.loss": 9.0 - k, "status": status}
            )
            assert bool(scheduler.decisions.pop(trial.trial_id, None)) == (status == "running")


def test_a_failed_trial_of_hyperband_that_is_run_again_waits_for_a_bracket() -> None:
    name = {"trial": "trial-00000"}
    events: list[dict[str, Any]] = [
        {"event": "queued", **name},
        {"event": "trial", **name},
        {"event": "status", **name, "status": "failed"},
    ]
    assert watched("hyperband").replay(events) == {"trial-00000": {"action": "stop"}}
    assert (
        watched("hyperband").replay([*events, {"event": "restart", **name, "cause": "run again"}])
        == {}
    )


def limited(name: str, **limits: Any) -> Watched:
    settings = Scheduler(name, 90, 10, 3.0, 10 if name == "pbt" else None)
    inner = _inner(settings, dict)
    inner.set_search_properties("dev.loss", "min")
    return Watched(inner, settings, "dev.loss", minimize=True, **limits)


def timed(step: int, seconds: float | None, status: str = "running") -> dict[str, Any]:
    return {"step": step, "dev.loss": 1 / step, "status": status, "seconds": seconds}


NAMES = next(argument for argument in SECTIONS["scheduler"] if argument.name == "name").choices
OF_TUNE = [name for name in NAMES if name not in OURS]


@pytest.mark.parametrize("name", OF_TUNE)
def test_a_trial_is_stopped_by_the_first_report_after_its_hours(name: str) -> None:
    scheduler, trial = limited(name, trial_hours=0.5), Past("trial-00000")
    tune: Any = SimpleNamespace(get_trials=list, search_alg=None)
    trial.run_metadata = SimpleNamespace(
        checkpoint_manager=SimpleNamespace(checkpoint_config=SimpleNamespace(num_to_keep=None))
    )
    trial.experiment_tag = ""
    scheduler.on_trial_add(tune, trial)
    trial.status = "RUNNING"
    for step, seconds in ((1, None), (2, 1000.0), (3, 1800.0)):
        assert scheduler.on_trial_result(tune, trial, timed(step, seconds)) == "CONTINUE"
    scheduler.decisions.clear()
    assert scheduler.on_trial_result(tune, trial, timed(4, 1800.1)) == "STOP"
    why = "trial_hours: 0.5 h are over"
    stop = {"action": "stop", "step": 4, "value": 0.25, "reason": why}
    assert scheduler.decisions.pop("trial-00000") == stop
    scheduler.on_trial_result(tune, trial, timed(5, 9999.0, "finished"))
    assert not scheduler.decisions  # it has ended by itself


def test_asha_counts_a_trial_whose_hours_are_over_at_its_rung() -> None:
    scheduler, tune = limited("asha", trial_hours=0.5), SimpleNamespace()
    for k, seconds in enumerate((9999.0, 1.0)):
        trial = Past(f"trial-{k:05d}")
        scheduler.on_trial_add(tune, trial)
        scheduler.on_trial_result(tune, trial, timed(10 + k, seconds))
    assert scheduler.decisions["trial-00000"]["reason"] == "trial_hours: 0.5 h are over"
    assert scheduler.decisions["trial-00001"]["of"] == 2
    # A trial that the rung stops is stopped by the rung.
    worse = Past("trial-00002")
    scheduler.on_trial_add(tune, worse)
    scheduler.on_trial_result(tune, worse, timed(10, 9999.0) | {"dev.loss": 5.0})
    assert scheduler.decisions["trial-00002"].items() >= {"action": "stop", "rung": 10}.items()
    assert "reason" not in scheduler.decisions["trial-00002"]


@pytest.mark.parametrize("name", ["none", "asha", "median", "hyperband"])
def test_after_a_kill_it_is_known_whose_hours_were_over(name: str) -> None:
    of = {"trial": "trial-00000"}
    events: list[dict[str, Any]] = [
        {"event": "queued", **of},
        {"event": "trial", **of},
        {"event": "report", **of, **timed(5, 1.0)},
        {"event": "report", **of, **timed(6, 7200.1)},
    ]
    decided = limited(name, trial_hours=2).replay(events)["trial-00000"]
    assert (decided["action"], decided["reason"]) == ("stop", "trial_hours: 2 h are over")
    assert limited(name).replay(events).get("trial-00000", {}).get("action") != "stop"


class Tuned(Past):
    """A trial as Tune has it: it has a status that others set."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        manager = SimpleNamespace(checkpoint_config=SimpleNamespace(num_to_keep=None))
        self.experiment_tag, self.run_metadata = name, SimpleNamespace(checkpoint_manager=manager)

    def set_status(self, status: str) -> None:
        self.status = status


@pytest.mark.parametrize("name", ["hyperband", "pbt"])
@pytest.mark.parametrize("seed", range(10))
def test_no_scheduler_that_pauses_names_a_trial_that_is_one_too_many(name: str, seed: int) -> None:
    """Tune starts what is pending, and what the scheduler names; each trial pauses at random."""
    draw, scheduler = random.Random(seed), limited(name, max_at_once=2)
    trials = [Tuned(f"trial-{k:05d}") for k in range(5)]  # of one bracket
    tune: Any = SimpleNamespace(
        search_alg=None, get_trials=lambda: trials, get_live_trials=lambda: trials
    )
    for trial in trials:
        scheduler.on_trial_add(tune, trial)
    assert {trial.status for trial in trials} == {"PAUSED"}
    ran: set[str] = set()
    for _ in range(100):
        trial = scheduler.choose_trial_to_run(tune)
        if trial is not None:
            trial.set_status(draw.choice(["PENDING", "RUNNING"]))
            ran.add(trial.trial_id)
        busy = [trial for trial in trials if trial.status != "PAUSED"]
        assert len(busy) <= 2
        assert (trial is None) <= (len(busy) == 2)  # a free place is not left free
        if len(busy) == 2:
            left = draw.choice(busy)
            left.set_status("PAUSED")
            if name == "pbt":
                scheduler.inner._trial_state[left].last_train_time += 1
            else:
                scheduler.inner._trial_info[left][0].trials_to_unpause.add(left)
                bracket = scheduler.inner._trial_info[left][0]
                bracket._live_trials[left] = bracket._live_trials.pop(left)  # the last in line
    assert len(ran) == 5
    # A trial whose worker was lost stays pending: Tune has its status in books of its own.
    lost = draw.choice(trials)
    lost.set_status("PENDING")
    scheduler.on_trial_error(tune, lost)
    scheduler.on_trial_add(tune, lost)
    assert lost.status == "PENDING"


@pytest.mark.parametrize("name", NAMES)
def test_every_scheduler_has_code(name: str) -> None:
    settings = Scheduler(name, 90, 10, 3.0)
    if name in OF_TUNE:
        assert (type(_inner(settings, dict)) is FIFOScheduler) == (name == "none")
    hparams = resolve("BasicSeq2Seq", {"train.max_steps": 90, "train.eval_every_steps": 10})
    assert len(make_courses([hparams] * 5, settings)) == 5


def test_an_unknown_scheduler_is_not_passed_over() -> None:
    settings = Scheduler("ahsa", 90, 10, 3.0)
    with pytest.raises(ValueError, match="no scheduler is called 'ahsa'"):
        _inner(settings, dict)
    hparams = resolve("BasicSeq2Seq", {"train.max_steps": 90, "train.eval_every_steps": 10})
    with pytest.raises(ValueError, match="no scheduler is called 'ahsa'"):
        make_courses([hparams], settings)
