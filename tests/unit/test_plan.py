"""The plan of a search, compared with real models, saved snapshots and plain loops."""

import contextlib
import io
import json
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from ray.tune.schedulers import HyperBandScheduler

from s2s_search.cli import command_line
from s2s_search.corpus.load import load_corpus
from s2s_search.errors import ConfigError
from s2s_search.hparams.configuration import resolve
from s2s_search.machine import usable_cores
from s2s_search.nn.models import build_model
from s2s_search.spaces import rungs
from s2s_search.spaces.load import load_space
from s2s_search.spaces.settings import CheckpointSettings, Resources, Scheduler
from s2s_search.training import footprint, size
from s2s_search.training.optimizers import UPDATE_RULES
from s2s_search.training.trial import Trial
from s2s_search.tuning import disk
from s2s_search.whatif import courses, plan, probes
from s2s_search.whatif.courses import Span
from s2s_search.whatif.curves import Curve, CurvePoint
from s2s_search.whatif.plan import Plan, make_plan
from s2s_search.whatif.probes import Probe
from s2s_search.whatif.replay import Simulation
from tests.unit.test_replay import make_space, record

SPACE = """
model: [BasicSeq2Seq, AttentionSeq2Seq]
corpus: {name: copy, train: 60, dev: 8, test: 4, vocabulary: 5, min_length: 2, max_length: 5}
metric: {name: dev.error_rate, goal: minimize}
search: {method: random, trials: 18, seed: 3}
scheduler: {name: asha, max_steps: 100, grace_steps: 10, reduction_factor: 3}
checkpoints: {best: 4}
parameters:
  embedding.dim: [8, 12, 40]
  encoder.rnn_cell.cell_spec: {class: GRUCell, num_units: 8}
  decoder.rnn_cell.cell_spec: {class: GRUCell, num_units: 8}
  train.eval_every_steps: 10
  optimizer.learning_rate: {min: 1e-3, max: 1e-1, log: true}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "space.yaml"
    path.write_text(SPACE)
    return path


def planned(path: Path, text: str = SPACE, **options: object) -> Plan:
    path.write_text(text)
    space = load_space(path)
    return make_plan(
        space, load_corpus(space.corpus), space.trials(), **{"probed": False} | options
    )  # type: ignore[arg-type]


def test_rungs_and_steps_of_ideal_halving(path: Path) -> None:
    """18 trials reach step 10, 6 reach step 30, 2 reach step 90.

    The best third of these, but at least one, reach step 100.
    """
    made = planned(path)
    assert [(rung.step, pytest.approx(rung.trials)) for rung in made.rungs] == [
        (10, 18),
        (30, 6),
        (90, 2),
        (100, 1),
    ]
    assert made.steps.least == pytest.approx(18 * 10 + 6 * 20 + 2 * 60 + 1 * 10)
    assert made.steps.most == 18 * 100


@pytest.mark.parametrize(
    "every, reports",
    [
        (7, [14, 35, 91, 100]),  # a rung counts at the next report
        (
            40,
            [40, 100],
        ),  # one report passes two rungs, and the trial has ended when the third would count
        (100, [100]),
    ],
)
def test_rungs_count_at_reports(path: Path, every: int, reports: list[int]) -> None:
    made = planned(path, SPACE.replace("eval_every_steps: 10", f"eval_every_steps: {every}"))
    assert [rung.step for rung in made.rungs] == reports


def test_trials_of_different_lengths_share_one_end(path: Path) -> None:
    """Half of the trials end at step 100; the others end at step 20, before the second rung.

    A third of these others reach their end.
    """
    made = planned(
        path, SPACE.replace("method: random, trials: 18, seed: 3", "method: grid")
        .replace("{min: 1e-3, max: 1e-1, log: true}", "0.1")
        .replace("embedding.dim: [8, 12, 40]", "train.max_steps: [20, 100]")
    )  # fmt: skip
    assert made.trials == 4
    assert [rung.step for rung in made.rungs] == [10, 30, 90, 100]
    assert [rung.trials for rung in made.rungs] == pytest.approx([4, 2 / 3, 2 / 4, 2 / 3 + 2 / 4])


@pytest.mark.parametrize("name, least", [("none", 1800), ("pbt", 1800), ("median", 18 * 10 + 90)])
def test_steps_of_other_schedulers(name: str, least: int) -> None:
    hparams = resolve("BasicSeq2Seq", {"train.max_steps": 100, "train.eval_every_steps": 10})
    made_courses = courses.make_courses([hparams] * 18, Scheduler(name, 100, 10, 3.0))
    assert sum(one.steps.least for one in made_courses) == pytest.approx(least)
    assert sum(one.steps.most for one in made_courses) == 1800


@pytest.mark.parametrize("steps", [1, 2, 8, 81, 900, 1000, 20_000])
@pytest.mark.parametrize("factor", [1.5, 2.0, 3.0, 4.0])
@pytest.mark.parametrize("trials", [1, 7, 64, 700])
def test_brackets_are_those_that_tune_fills(steps: int, factor: float, trials: int) -> None:
    tune = HyperBandScheduler("step", "dev.loss", "min", max_t=steps, reduction_factor=factor)
    for k in range(trials):
        tune.on_trial_add(None, k)  # type: ignore[arg-type]
    theirs = [bracket for band in tune._hyperbands for bracket in band if bracket is not None]
    made = list(rungs.brackets(Scheduler("hyperband", steps, 1, factor), trials))
    assert [(one[0].trials, one[0].step) for one in made] == [
        (len(one._all_trials), one._r0) for one in theirs
    ]
    assert [len(one) - 1 for one in made] == [one._halves for one in theirs]


@pytest.mark.parametrize(
    "steps, factor, trials, every",
    [(900, 3, 30, 100), (900, 3, 64, 10), (900, 3, 64, 400), (64, 2, 99, 1)],
)
def test_steps_of_hyperband_are_those_that_tune_makes(
    tmp_path: Path, steps: int, factor: int, trials: int, every: int
) -> None:
    """Reports that are close or pass several rungs, and a bracket that ends at step 891."""
    ends = [*range(every, steps, every), steps]
    curves = [
        Curve(
            f"trial-{k:05d}",
            tuple(CurvePoint(step, float(k), 1.0, "running") for step in ends),
            is_cut=False,
        )
        for k in range(trials)
    ]
    settings = Scheduler("hyperband", steps, 1, factor)
    made = Simulation(record(make_space(tmp_path), *curves), settings, workers=2).run()
    hparams = resolve("BasicSeq2Seq", {"train.max_steps": steps, "train.eval_every_steps": every})
    made_courses = courses.make_courses([hparams] * trials, settings)
    assert sum(one.steps.least for one in made_courses) == pytest.approx(made.steps)


@pytest.mark.parametrize("name", ["asha", "hyperband", "median", "none"])
def test_schedulers_that_pause_are_those_that_leave_trials_waiting(
    tmp_path: Path, name: str
) -> None:
    """30 trials by 2 workers under Tune's own class."""
    curves = [
        Curve(
            f"trial-{k:05d}",
            tuple(CurvePoint(step, 1 / (step + k), 1.0, "running") for step in range(1, 10)),
            False,
        )
        for k in range(30)
    ]
    settings = Scheduler(name, 9, 1, 3)
    simulation, waiting = (
        Simulation(record(make_space(tmp_path), *curves), settings, workers=2),
        set[str](),
    )
    choose = simulation.scheduler.choose_trial_to_run

    def watched(controller: object) -> object:
        waiting.update(trial.trial_id for trial in simulation.trials if trial.status == "PAUSED")
        return choose(controller)

    simulation.scheduler.choose_trial_to_run = watched  # type: ignore[method-assign]
    simulation.run()
    assert bool(waiting) == settings.pauses


def test_the_plan_of_hyperband_is_by_brackets(path: Path) -> None:
    text = SPACE.replace(
        "name: asha, max_steps: 100, grace_steps: 10", "name: hyperband, max_steps: 900"
    )
    made = planned(
        path, text.replace("eval_every_steps: 10", "eval_every_steps: 100").replace("18", "30")
    )
    lines = dict(made.lines())
    assert lines["brackets"] == "7 from step 900, 11 from step 300, 12 from step 100"
    assert (
        lines["rungs"] == "ideally reached: step 100 by 12, step 300 by 18, "
        "the end (at most step 900) by 14 trials"
    )
    assert lines["steps"].startswith("16,400 ")
    assert "always pass" not in " ".join(lines.values())


def test_a_course_is_the_mean_of_what_trials_run() -> None:
    """A loop counts nine trials: each third that continues runs to the next end.

    A trial evaluates at every fourth step.
    """
    hparams = resolve("BasicSeq2Seq", {"train.max_steps": 30, "train.eval_every_steps": 4})
    course = courses.course(hparams, Scheduler("asha", 30, 4, 3.0), 9)
    ends = [4] * 6 + [12] * 2 + [30]
    assert course.steps.least * 9 == pytest.approx(sum(ends))
    evaluations = [
        len([step for step in range(1, end + 1) if step % 4 == 0 or step == 30]) for end in ends
    ]
    assert course.evaluations.least * 9 == pytest.approx(sum(evaluations))
    assert course.evaluations.most == 8


def test_parameters_are_those_of_built_models(path: Path) -> None:
    space = load_space(path)
    corpus = load_corpus(space.corpus)
    made = planned(path)
    assert made.models == {
        name: sum(flat["model"] == name for flat in space.trials()) for name in space.models
    }
    for trial, flat in enumerate(space.trials()):
        model = build_model(
            resolve(str(flat["model"]), flat), len(corpus.source_vocab), len(corpus.target_vocab)
        )
        assert made.parameters[trial] == sum(p.numel() for p in model.parameters())
    assert len(set(made.parameters.values())) > 2


def test_of_many_trials_a_sample_is_counted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "SAMPLE_SIZE", 5)
    monkeypatch.setattr(probes, "probe", lambda trial, *_: Probe(trial, "cpu", 1.0, 0.0, None))
    made = planned(path, probed=True)
    assert len(made.parameters) == 5
    assert made.worker_hours is not None
    assert made.worker_hours.most == pytest.approx(18 * 100 / 3600)
    assert made.trials == 18
    assert "of 5 trials" in dict(made.lines())["parameters"]


@pytest.mark.parametrize("average_decay", [0.0, 0.9])
@pytest.mark.parametrize("name", UPDATE_RULES)
@pytest.mark.parametrize("units", [8, 128])
def test_checkpoint_bytes_are_those_of_a_saved_snapshot(
    name: str, units: int, average_decay: float
) -> None:
    corpus = load_corpus({"name": "copy", "train": 9, "dev": 2, "test": 1})
    spec = {"class": "LSTMCell", "num_units": units}
    sizes = {
        "encoder.rnn_cell.cell_spec": spec,
        "decoder.rnn_cell.cell_spec": spec,
        "embedding.dim": units,
        "train.average_decay": average_decay,
    }
    hparams = resolve("AttentionSeq2Seq", {**sizes, "optimizer.name": name})
    trial = Trial(hparams, corpus, torch.device("cpu"))
    file = io.BytesIO()
    torch.save(trial.snapshot(), file)
    parameters = sum(p.numel() for p in trial.model.parameters())
    assert size.checkpoint_bytes(parameters, hparams) == pytest.approx(
        len(file.getvalue()), rel=0.15 if units == 8 else 0.02
    )


def test_disk(path: Path) -> None:
    space = load_space(path)
    assert disk.disk_needed(1000, at_once=2, trials=18, space=space) == 10 * 1000
    assert disk.disk_needed(1000, at_once=2, trials=3, space=space) == 9 * 1000
    assert disk.disk_problems(10**9, 10**9, CheckpointSettings(disk_gb=1.0)) == []
    allowed, free = disk.disk_problems(2 * 10**9, 10**9, CheckpointSettings(best=7, disk_gb=1.5))
    for word in ("checkpoints.disk_gb", "2 GB", "1.5", "best = 7"):
        assert word in allowed
    assert "1 GB are free" in free


@pytest.mark.parametrize(
    "name, alive", [("asha", 2), ("none", 2), ("median", 2), ("hyperband", 18), ("pbt", 18)]
)
def test_trials_that_wait_keep_their_checkpoints(
    path: Path, monkeypatch: pytest.MonkeyPatch, name: str, alive: int
) -> None:
    """What the plan counts and what a search is refused for are the same."""
    for module in (plan, disk):
        monkeypatch.setattr(module, "checkpoint_bytes", lambda parameters, hparams: 10**6)
    monkeypatch.setattr(plan, "usable_cores", lambda: 2)
    text = SPACE.replace(
        "name: asha, max_steps: 100, grace_steps: 10", f"name: {name}, max_steps: 100"
    )
    needed = (3 * alive + 4) * 10**6
    assert planned(path, text).disk_bytes == needed
    for allowed in (needed, needed - 1):
        path.write_text(text.replace("best: 4", f"best: 4, disk_gb: {allowed / 1e9}"))
        space, refused = load_space(path), allowed < needed
        assert bool(planned(path, path.read_text()).problems) == refused
        with pytest.raises(ConfigError, match="disk_gb") if refused else contextlib.nullcontext():
            disk.check_disk(space, load_corpus(space.corpus), space.trials(), at_once=2)


@pytest.mark.parametrize(
    "cpu, gpu, gpus, fit",
    [
        (1, 0, None, 6),
        (0.1, 0, None, 60),
        (4, 0, None, 1),
        (7, 0, None, 0),
        (1, 0, 8, 6),  # trials that take no GPU run on the CPUs
        (1, 0.25, 8, 32),
        (1, 0.4, 8, 16),  # a fraction is of one GPU
        (1, 3, 8, 2),
        (1, 9, 8, 0),
        (1, 0.5, None, 2),
        (4, 0.5, None, 1),
    ],
)
def test_trials_at_once(
    monkeypatch: pytest.MonkeyPatch, cpu: float, gpu: float, gpus: int | None, fit: int
) -> None:
    monkeypatch.setattr(plan, "usable_cores", lambda: 6)
    monkeypatch.setattr(plan, "local_gpus", lambda: 1)
    assert plan.trials_at_once(Resources(cpu, gpu), gpus) == fit
    assert bool(plan.room_problems(Resources(cpu, gpu), gpus)) == (fit == 0)


@pytest.mark.parametrize("most, at_once", [(2, 2), (12, 12), (99, 12)])
def test_no_more_trials_at_once_than_the_space_allows(
    path: Path, monkeypatch: pytest.MonkeyPatch, most: int, at_once: int
) -> None:
    processes: list[int] = []

    def probed(chosen: Mapping[int, object], *rest: Any) -> list[Probe]:
        processes.append(rest[-1])
        return [Probe(trial, "cpu", 1.0, 0.0, None) for trial in chosen]

    monkeypatch.setattr(plan, "run_probes", probed)
    monkeypatch.setattr(plan, "usable_cores", lambda: 12)
    made = planned(path, SPACE.replace("seed: 3", f"seed: 3, max_at_once: {most}"), probed=True)
    assert made.trials_at_once == at_once
    assert processes == [at_once]
    said = dict(made.lines())["at once"]
    assert ("2, as many as search.max_at_once allows; each takes 1 CPU" in said) == (most == 2)
    assert made.worker_hours is not None
    assert made.wall_hours is not None
    assert made.wall_hours.most == pytest.approx(made.worker_hours.most / at_once)


def test_no_trial_takes_longer_than_its_hours(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step takes a second: 100 seconds without a limit."""
    monkeypatch.setattr(probes, "probe", lambda trial, *_: Probe(trial, "cpu", 1.0, 0.0, None))
    text = SPACE.replace("seed: 3", f"seed: 3, trial_hours: {40 / 3600}")
    made = planned(path, text, probed=True)
    assert made.worker_hours is not None
    assert made.worker_hours.most == pytest.approx(18 * 40 / 3600)
    assert made.worker_hours.least < made.worker_hours.most


def test_trials_that_share_a_cpu_take_turns(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "probe", lambda trial, *_: Probe(trial, "cpu", 1.0, 0.0, None))
    monkeypatch.setattr(plan, "usable_cores", lambda: 3)
    made = planned(path, SPACE + "resources: {cpu: 0.25}\n", probed=True)
    assert made.trials_at_once == 12
    assert made.worker_hours == Span(pytest.approx(430 / 3600), 0.5)
    assert made.wall_hours is not None
    assert made.wall_hours.most == pytest.approx(0.5 / 3)


@pytest.mark.parametrize(
    "gpu, device, words",
    [
        (0, "cpu", "if all do"),
        (1, "cpu", "not on a GPU"),
        (0.5, "cuda", "share a GPU"),
        (1, "cuda", "if all do"),
    ],
)
def test_hours_say_what_they_were_measured_on(
    path: Path, monkeypatch: pytest.MonkeyPatch, gpu: float, device: str, words: str
) -> None:
    monkeypatch.setattr(
        plan, "run_probes", lambda chosen, *_: [Probe(k, device, 1.0, 0.0, None) for k in chosen]
    )
    made = planned(path, SPACE + f"resources: {{gpu: {gpu}}}\n", probed=True, gpus=2)
    text = dict(made.lines())["wall time"]
    assert words in text
    assert text.endswith("if all do") == (words == "if all do")


def test_wall_hours() -> None:
    assert plan.wall_hours(Span(6, 12), busy=3, longest=1) == Span(2, 4)
    assert plan.wall_hours(Span(6, 12), busy=12, longest=1) == Span(1, 1)


def test_the_hours_follow_from_the_probes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds that are linear in the parameters are interpolated exactly: a plain sum agrees."""

    def probe(trial: int, *_: object) -> Probe:
        return Probe(trial, "cpu", 0.001 * whole.parameters[trial], 2.0, 10**6)

    whole = planned(path)
    monkeypatch.setattr(probes, "probe", probe)
    monkeypatch.setattr(plan, "usable_cores", lambda: 4)
    made = planned(path, probed=True)
    assert len(made.probes) == 3
    assert made.worker_hours is not None
    assert made.wall_hours is not None
    steps = sum(100 * 0.001 * n for n in whole.parameters.values())
    assert made.worker_hours.most == pytest.approx((steps + 18 * 10 * 2.0) / 3600)
    steps = sum(430 / 18 * 0.001 * n for n in whole.parameters.values())
    assert made.worker_hours.least == pytest.approx((steps + 43 * 2.0) / 3600)
    assert made.wall_hours.most == pytest.approx(made.worker_hours.most / 4)
    longest = (100 * 0.001 * max(whole.parameters.values()) + 20) / 3600
    assert made.wall_hours.least == pytest.approx(max(made.worker_hours.least / 4, longest))


@pytest.mark.parametrize("cpu, threads", [(0.25, 1), (1, 1), (2.5, 2)])
def test_a_probe_computes_with_the_threads_of_a_trial(
    path: Path, monkeypatch: pytest.MonkeyPatch, cpu: float, threads: int
) -> None:
    seen: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", seen.append)
    space = load_space(path)
    flat = space.trials()[0]
    found = probes.measured(
        str(flat["model"]), flat, space.corpus, Resources(cpu, 0), 0.1, process=0
    )
    assert seen == [threads]
    assert found.step_seconds > 0


@pytest.mark.slow
def test_a_probe_measures(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "PROBE_SECONDS", 0.3)
    made = planned(path, probed=True)
    ranked = sorted(made.parameters, key=lambda trial: made.parameters[trial])
    assert {made.parameters[one.trial] for one in made.probes} >= {
        made.parameters[ranked[k]] for k in (0, -1)
    }
    for one in made.probes:
        assert one.at_once == min(usable_cores(), 18)
        assert one.step_seconds > 0
        assert one.evaluation_seconds > 0
        assert one.memory_bytes is None or one.memory_bytes > 10**7


def test_a_long_evaluation_is_measured_on_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def evaluate(model: object, split: object, corpus: object, hparams: dict[str, int]) -> None:
        seen.append(hparams["train.eval_examples"])

    monkeypatch.setattr("s2s_search.training.evaluation.evaluate", evaluate)
    monkeypatch.setattr(probes, "elapsed", lambda run, *arguments: run(*arguments) or 3.0)
    corpus = load_corpus({"name": "copy", "train": 9, "dev": 1000, "test": 1})
    for examples, wanted in ((0, 1000), (500, 500), (5000, 1000)):
        hparams = resolve("BasicSeq2Seq", {"train.eval_examples": examples})
        trial = Trial(hparams, corpus, torch.device("cpu"))
        assert probes.evaluation_seconds(trial, limit=1.0) == pytest.approx(3.0 * wanted / 200)
        assert probes.evaluation_seconds(trial, limit=100.0) == 3.0
    assert seen == [200, 200, 1000, 200, 200, 500, 200, 200, 1000]


def test_a_model_larger_than_the_memory_is_not_tried(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (plan, footprint):
        monkeypatch.setattr(module, "device_memory", lambda device, processes: 1000)
    with pytest.raises(ConfigError, match="--no-probe") as error:
        planned(path, probed=True)
    assert "trial-000" in str(error.value)
    (problem,) = planned(path, probed=False).problems
    assert "memory: trial-00000 takes at least" in problem
    assert (
        planned(path, SPACE + "resources: {gpu: 1}\n", gpus=2).problems == ()
    )  # of cards that are not here


@pytest.mark.parametrize("cpu, at_once, fits", [(1, 4, False), (2, 2, True)])
def test_trials_that_fit_alone_must_fit_at_once(
    path: Path, monkeypatch: pytest.MonkeyPatch, cpu: int, at_once: int, fits: bool
) -> None:
    """A trial of 300 MB in 1 GB."""
    monkeypatch.setattr(plan, "usable_cores", lambda: 4)
    monkeypatch.setattr(plan, "device_memory", lambda device, processes: 10**9)
    monkeypatch.setattr(
        probes, "probe", lambda trial, *_: Probe(trial, "cpu", 1.0, 0.0, 300 * 10**6)
    )
    made = planned(path, SPACE + f"resources: {{cpu: {cpu}}}\n", probed=True)
    assert made.trials_at_once == at_once
    assert (made.problems == ()) == fits
    if not fits:
        law = "takes 300 MB, and 4 such trials at once take 1.2 GB, but only 1 GB are usable"
        assert law in made.problems[0]


@pytest.mark.parametrize(
    "cores, cpu, trials, processes", [(4, 1, 18, 4), (4, 2, 18, 2), (4, 0.1, 18, 4), (1, 2, 18, 1)]
)
def test_as_many_processes_probe_as_a_search_runs(
    path: Path, monkeypatch: pytest.MonkeyPatch, cores: int, cpu: float, trials: int, processes: int
) -> None:
    seen: list[int] = []

    def probe(
        trial: int, hparams: object, spec: object, resources: object, at_once: int, seconds: float
    ) -> Probe:
        seen.append(at_once)
        return Probe(trial, "cpu", 1.0, 0.0, None, at_once)

    monkeypatch.setattr(plan, "usable_cores", lambda: cores)
    monkeypatch.setattr(probes, "probe", probe)
    made = planned(path, SPACE + f"resources: {{cpu: {cpu}}}\n", probed=True)
    assert set(seen) == {processes}
    said = " ".join(text for _, text in made.lines())
    assert (f", {processes} at once" in said) == (processes > 1)


def killed(*arguments: object) -> None:
    """What the system does to a process when memory ends, to the second one."""
    if arguments[-1] == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    probes.MEETING.wait()


def without_memory(*arguments: object) -> None:
    if arguments[-1] == 1:
        probes.MEETING.leave()
        raise MemoryError("no more")
    probes.MEETING.wait()


def broken(*arguments: object) -> None:
    probes.MEETING.leave()
    raise ZeroDivisionError("a fault of the program")


@pytest.mark.slow
@pytest.mark.parametrize(
    "what, error, message",
    [
        (
            killed,
            ConfigError,
            "trial-00003: out of memory when probed, 2 at once: the system killed a process",
        ),
        (
            without_memory,
            ConfigError,
            "trial-00003: out of memory when probed, 2 at once: MemoryError: no more",
        ),
        (broken, ZeroDivisionError, "a fault of the program"),
    ],
)
def test_a_probe_that_fails(
    monkeypatch: pytest.MonkeyPatch, what: Callable[..., None], error: type[Exception], message: str
) -> None:
    """Real processes, of which none waits for one that is gone."""
    monkeypatch.setattr(probes, "measured", what)
    hparams = resolve("BasicSeq2Seq", {})
    with pytest.raises(error, match=message):
        probes.probe(3, hparams, {"name": "copy"}, Resources(1, 0), 2, 1.0)


def test_busy_cores_are_said(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "probe", lambda trial, *_: Probe(trial, "cpu", 1.0, 0.0, None))
    for busy, said in ((0.0, False), (0.29, False), (1.5, True), (None, False)):
        monkeypatch.setattr(plan, "busy_cores", lambda busy=busy: busy)
        words = [
            text for _, text in planned(path, probed=True).lines() if "busy with other work" in text
        ]
        assert bool(words) == said
        assert not said or words[0].startswith("1.5 of ")


def test_the_verb(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "PROBE_SECONDS", 0.3)
    assert (
        command_line.main(["plan", str(path), "--trials", "9", "--hparams", "embedding.dim=16"])
        == 0
    )
    lines = capsys.readouterr().out.splitlines()
    command = f"python run_search.py search {path} --trials 9 --hparams embedding.dim=16"
    assert lines[0].startswith("trials       9 by random search: ")
    assert lines[-1] == f"start        {command}"
    assert command_line.main(["plan", str(path), "--no-probe", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["command"] == f"python run_search.py search {path}"
    assert made["steps"] == {"least": pytest.approx(430), "most": 1800}
    assert made["worker_hours"] is None


def test_the_free_disk_of_this_machine_is_not_a_clusters(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "checkpoint_bytes", lambda parameters, hparams: 10**18)
    assert "disk: " in " ".join(planned(path).problems)
    assert planned(path, gpus=2).problems == ()


def test_what_would_be_refused_ends_with_status_2(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path.write_text(SPACE + "resources: {cpu: 1, gpu: 4}\n")
    assert command_line.main(["plan", str(path), "--no-probe", "--gpus", "3"]) == 2
    out, err = capsys.readouterr()
    assert out.splitlines()[-1].endswith("--address auto")
    assert "resources.gpu: a trial needs 1 CPU and 4 GPU, but --gpus = 3" in err
    path.write_text(SPACE.replace("18", "no"))
    assert command_line.main(["plan", str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "search.trials" in err
