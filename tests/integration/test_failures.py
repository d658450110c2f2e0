"""What becomes of trials that fail, of budgets, checkpoints and schedulers: on a real Ray, mostly with stand-ins."""

import io
import math
import os
import shutil
import subprocess
import sys
import types
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray.cloudpickle
import torch
from ray.cluster_utils import Cluster
from ray.tune.trainable import FunctionTrainable
from rich.console import Console

from s2s_search.cli import command_line
from s2s_search.display.progress import Progress
from s2s_search.errors import ConfigError
from s2s_search.results import results
from s2s_search.results.pareto import pareto
from s2s_search.runs.answers import load_answers
from s2s_search.runs.checkpoints import read_snapshot
from s2s_search.runs.log import read_events
from s2s_search.spaces.load import load_space
from s2s_search.spaces.space import Space
from s2s_search.tuning import cluster, start
from tests.spaces import DROPOUT, RATES, space_text

pytestmark = pytest.mark.slow  # each test runs whole searches

ray.cloudpickle.register_pickle_by_value(
    sys.modules[__name__]
)  # the stand-ins reach workers with their code

SEEDS = """
model: BasicSeq2Seq
corpus: {{name: copy, train: 20, dev: 5, vocabulary: 5, min_length: 2, max_length: 5}}
search: {{method: grid{search}}}
scheduler: {{name: none, max_steps: 40, grace_steps: 10}}
resources: {{cpu: 1}}
{more}
parameters: {{train.seed: {seeds}}}
"""


def write_space(folder: Path, text: str) -> Space:
    folder.mkdir(exist_ok=True)
    (folder / "space.yaml").write_text(text)
    return load_space(folder / "space.yaml")


def seeds(folder: Path, count: int, search: str = "", more: str = "") -> Space:
    return write_space(folder, SEEDS.format(seeds=list(range(count)), search=search, more=more))


def real(
    folder: Path,
    scheduler: str,
    trials: int,
    steps: int = 40,
    method: str = "random",
    more: str = "",
) -> Space:
    grace = {} if scheduler == "hyperband" else {"grace_steps": 10}
    text = space_text(
        DROPOUT | RATES,
        model="BasicSeq2Seq",
        search={"method": method, "trials": trials, "seed": 3},
        scheduler={"name": scheduler, "max_steps": steps, "reduction_factor": 3} | grace,
    )
    return write_space(folder, text + more)


def report(step: int, loss: float, **metrics: Any) -> Any:
    numbers = {
        "step": step,
        "seconds": step / 10,
        "status": "finished" if step == 40 else "running",
        "parameters": 7,
    }
    metrics = numbers | {"dev.loss": loss} | metrics
    return types.SimpleNamespace(
        metrics=metrics, snapshot=lambda: {"step": step}, answers=lambda: None
    )


@pytest.fixture(scope="module")
def address(ray_folder: Path) -> Iterator[str]:
    nodes = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False}
    )
    yield nodes.address
    nodes.shutdown()


# --- failures ---


def broken(hparams: Any, corpus: Any, device: str) -> Iterator[Any]:
    raise ValueError(f"no such thing as seed {hparams['train.seed']}")
    yield


def test_a_search_whose_first_trials_all_fail_alike_ends_early(
    address: str, tmp_path: Path
) -> None:
    outcome = start.run_search(
        seeds(tmp_path, 40), out=tmp_path / "run", address=address, train=broken
    )
    assert outcome.status == "failed"
    assert "first trials all failed alike: ValueError: no such thing as seed" in str(
        outcome.message
    )
    trials = results.load(tmp_path / "run").trials
    assert 3 <= (trials["status"] == "failed").sum() < 10


def short_of_memory(hparams: Any, corpus: Any, device: str) -> Iterator[Any]:
    yield report(10, 1.0)
    if hparams["train.seed"] == 0:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    if hparams["train.seed"] == 1:
        torch.empty(2**60)
    if hparams["train.seed"] == 2:
        raise MemoryError
    yield report(40, 0.5)


def test_out_of_memory_is_no_bug_and_not_tried_again(address: str, tmp_path: Path) -> None:
    start.run_search(
        seeds(tmp_path, 4), out=tmp_path / "run", address=address, train=short_of_memory
    )
    trials = results.load(tmp_path / "run").trials
    assert trials["status"].tolist() == ["out_of_memory"] * 3 + ["finished"]
    assert trials["restarts"].tolist() == [0, 0, 0, 0]


def deadly(hparams: Any, corpus: Any, device: str, snapshot: Any = None) -> Iterator[Any]:
    """The worker of the first two trials dies when Tune wants it for the next one."""
    if hparams["train.seed"] < 2:
        classes: list[type] = [FunctionTrainable]
        for each in classes:  # Ray gives a worker's class all that it inherits
            classes += each.__subclasses__()
            each.reset_config = lambda self, config: os._exit(1)  # type: ignore[attr-defined]
    for step in range(snapshot["step"] + 10 if snapshot else 10, 50, 10):
        yield report(step, 1 / step)


@pytest.mark.parametrize(
    "scheduler",
    [
        "none",
        "pbt",
        "asha",
        "median",
        "hyperband",
    ],
)
def test_a_trial_that_is_lost_before_it_runs_takes_its_turn_again(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheduler: str
) -> None:
    monkeypatch.setenv(
        "TUNE_MAX_PENDING_TRIALS_PG", "100"
    )  # Tune looks at all that wait, not at the first alone
    space = seeds(tmp_path, 6, search=", retries: 20")
    space = replace(space, scheduler=replace(space.scheduler, name=scheduler))
    outcome = start.run_search(space, out=tmp_path / "run", address=address, train=deadly)
    assert outcome.status == "finished"
    trials = results.load(tmp_path / "run").trials
    assert set(trials["status"]) <= {"finished", "stopped"}
    assert trials["restarts"].sum() >= 2
    reports = results.load(tmp_path / "run").reports
    assert (
        scheduler == "pbt" or not reports.duplicated(["trial", "step"]).any()
    )  # pbt goes back to another's step
    steps = reports.groupby("trial")["step"]
    assert all(steps.is_monotonic_increasing)
    assert (steps.max() == 40)[(trials["status"] == "finished").tolist()].all()


def sick(cure: Path) -> Any:
    def train(hparams: Any, corpus: Any, device: str, snapshot: Any = None) -> Iterator[Any]:
        for step in range(snapshot["step"] + 10 if snapshot else 10, 50, 10):
            if step == 30 and hparams["train.seed"] in (1, 3) and not cure.exists():
                raise KeyError("sick")
            yield report(step, 1 / step)

    return train


def test_failed_trials_are_run_again_when_asked_to_and_no_others(
    address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, train = tmp_path / "run", sick(tmp_path / "cure")
    start.run_search(seeds(tmp_path, 4), out=run, address=address, train=train)
    before = results.load(run)
    assert before.trials["status"].tolist() == ["finished", "failed", "finished", "failed"]
    assert command_line.main(["results", str(run)]) == 0
    shown = capsys.readouterr().out
    assert "failed, 2 trials: KeyError: 'sick'" in shown
    assert f"debug --run {run} --trial 1" in shown
    (tmp_path / "cure").touch()
    said: list[str] = []
    outcome = start.resume_search(
        run, again=["failed"], address=address, train=train, say=said.append
    )
    assert outcome.status == "finished"
    assert said == [
        "kept 2 trials that had ended",
        "resume 2: trial-00001 at step 20, trial-00003 at step 20",
        "new: 0",
    ]
    after = results.load(run)
    assert after.trials["status"].tolist() == ["finished"] * 4
    assert after.trials["restarts"].tolist() == [0, 1, 0, 1]
    assert after.reports.groupby("trial")["step"].apply(list).tolist() == [[10, 20, 30, 40]] * 4
    size = (run / "events.jsonl").stat().st_size
    assert (
        start.resume_search(run, again=["failed"], address=address, say=said.append).status
        == "finished"
    )
    assert "nothing to do" in said[-1]
    assert (run / "events.jsonl").stat().st_size == size


# --- budgets ---


def slow(hparams: Any, corpus: Any, device: str, snapshot: Any = None) -> Iterator[Any]:
    import time

    for step in range(snapshot["step"] + 10 if snapshot else 10, 50, 10):
        time.sleep(0.3)
        yield report(step, 1 / step)


def test_a_budget_of_hours_ends_a_search_in_order_and_a_larger_one_lets_it_go_on(
    address: str, tmp_path: Path
) -> None:
    space = seeds(tmp_path, 12, search=", hours: 0.0015")
    outcome = start.run_search(space, out=tmp_path / "run", address=address, train=slow)
    assert outcome.status == "out of budget"
    assert "search.hours" in str(outcome.message)
    assert len(results.load(tmp_path / "run").trials) < 12
    assert (
        start.resume_search(tmp_path / "run", hours=1, address=address, train=slow).status
        == "finished"
    )
    found = results.load(tmp_path / "run")
    assert found.trials["status"].tolist() == ["finished"] * 12
    assert len(found.reports) == 48


def levels(hparams: Any, corpus: Any, device: str, snapshot: Any = None) -> Iterator[Any]:
    """Every trial has a level of its own, so that any order of the trials gives the same ranks.

    A report names its process, as a number that the tables keep.
    """
    for step in range(snapshot["step"] + 10 if snapshot else 10, 50, 10):
        loss = 1 + hparams["train.seed"] * 7 % 9 + 1 / step
        yield report(step, loss, process_seconds=os.getpid())


@pytest.mark.parametrize(
    "scheduler, method",
    [
        ("none", "tpe"),
        ("asha", "grid"),
        ("hyperband", "grid"),
        ("hyperband", "tpe"),
        ("pbt", "grid"),
    ],
)
def test_no_more_trials_than_max_at_once_run_at_once(
    address: str, tmp_path: Path, scheduler: str, method: str
) -> None:
    space = seeds(tmp_path, 9, search=", max_at_once: 1")
    settings = replace(space.scheduler, name=scheduler, interval_steps=10)
    search = replace(space.search, method=method, trials=9)
    space = replace(space, scheduler=settings, search=search)
    run = start.run_search(space, out=tmp_path / "run", address=address, train=levels).folder
    found = results.load(run)
    assert found.status == "finished"
    assert found.workers == 1
    assert len(found.trials) == 9
    assert found.reports["process_seconds"].nunique() == 1  # a pause does not end the process
    assert set(found.trials["status"]) <= {"finished", "stopped"}
    events = read_events(run)[0]
    paused = [event["trial"] for event in events if event["event"] == "pause"]
    if scheduler in ("none", "asha"):
        assert not paused
    elif scheduler == "pbt":  # the trials take turns, after each interval
        assert all(paused.count(name) >= 2 for name in found.trials["trial"])
    elif method == "grid":
        assert paused
        free = replace(space, search=replace(search, max_at_once=None))
        other = start.run_search(free, out=tmp_path / "free", address=address, train=levels)
        ends = [results.load(folder).trials[["status", "step"]] for folder in (run, other.folder)]
        assert ends[0].to_dict() == ends[1].to_dict()


def test_a_killed_search_with_max_at_once_goes_on_with_as_many(
    address: str, tmp_path: Path
) -> None:
    space = seeds(tmp_path, 6, search=", max_at_once: 1, hours: 0.0002")
    for scheduler in ("none", "hyperband"):
        folder = tmp_path / scheduler
        limited = replace(space, scheduler=replace(space.scheduler, name=scheduler))
        outcome = start.run_search(limited, out=folder, address=address, train=slow)
        assert outcome.status == "out of budget"
        (folder / "space.yaml").write_text(space.text.replace("name: none", f"name: {scheduler}"))
        if scheduler == "hyperband":
            text = (folder / "space.yaml").read_text().replace(", grace_steps: 10", "")
            (folder / "space.yaml").write_text(text)
        outcome = start.resume_search(folder, hours=1, address=address, train=slow)
        assert outcome.status == "finished"
        found = results.load(folder)
        assert found.workers == 1
        assert len(found.trials) == 6
        assert not found.reports.duplicated(["trial", "step"]).any()


@pytest.mark.parametrize("scheduler", ["asha", "hyperband", "pbt"])
def test_a_trial_whose_hours_are_over_is_stopped_at_its_next_report(
    address: str, tmp_path: Path, scheduler: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A trial reports step / 10 seconds; 2.5 seconds are over at step 30."""
    space = seeds(tmp_path, 3, search=f", trial_hours: {2.5 / 3600}")
    settings = replace(space.scheduler, name=scheduler, interval_steps=10)
    space = replace(space, scheduler=settings)
    run = start.run_search(space, out=tmp_path / "run", address=address, train=slow).folder
    found = results.load(run)
    assert found.status == "finished"
    assert found.reports["step"].max() == 30
    over = found.trials[found.trials["step"] == 30]
    assert len(over)
    assert set(over["status"]) == {"stopped"}
    why = f"trial_hours: {2.5 / 3600:g} h are over"
    assert set(over["message"]) == {why}
    assert command_line.main(["explain", str(run), over["trial"].iloc[0]]) == 0
    explained = capsys.readouterr().out
    assert f"step 30: dev.loss 0.03333: stopped; {why}" in explained
    assert explained.count(why) == 1
    assert command_line.main(["results", str(run)]) == 0
    assert f": {why}\n  trial-0000" in capsys.readouterr().out


HOLDER = """
import sys, time, ray
ray.init(address=sys.argv[1], logging_level="ERROR", log_to_driver=False)

@ray.remote(num_cpus=2)
def hold():
    time.sleep(20)

done = hold.remote()
print("held", flush=True)
ray.get(done)
"""


def test_a_search_that_waits_for_others_says_why(address: str, tmp_path: Path) -> None:
    """Another user holds all processors for twenty seconds."""
    command = [sys.executable, "-c", HOLDER, address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        terminal = io.StringIO()
        progress = Progress(Console(file=terminal, width=200))
        space = seeds(tmp_path, 2)
        outcome = start.run_search(
            space, out=tmp_path / "run", address=address, train=valued, progress=progress
        )
    assert outcome.status == "finished"
    why = (
        "waiting: a trial needs 1 CPU and 0 GPU on one node; 0 CPU and 0 GPU of 2 CPU and 0 GPU "
        "are free"
    )
    assert why in terminal.getvalue()


# --- checkpoints ---


def weights(run: Path) -> list[str]:
    return sorted(path.parent.name + "/" + path.name for path in run.glob("trial-*/*.pt"))


def valued(hparams: Any, corpus: Any, device: str) -> Iterator[Any]:
    for step in (10, 20, 30, 40):
        yield report(step, [3.0, 1.0, 2.0, 5.0, 4.0][hparams["train.seed"]] + step / 100)


def test_only_the_best_trials_keep_their_weights(address: str, tmp_path: Path) -> None:
    space = seeds(tmp_path, 5, more="checkpoints: {best: 2}")
    start.run_search(space, out=tmp_path / "run", address=address, train=valued)
    assert weights(tmp_path / "run") == ["trial-00001/best.pt", "trial-00002/best.pt"]


def test_checkpoints_can_lie_below_a_url(address: str, tmp_path: Path) -> None:
    storage = tmp_path / "elsewhere"
    space = real(tmp_path, "none", trials=2)
    start.run_search(space, out=tmp_path / "run", address=address, storage=f"file://{storage}")
    assert weights(tmp_path / "run") == []
    assert weights(storage) == ["trial-00000/best.pt", "trial-00001/best.pt"]
    errors = results.load(tmp_path / "run").trials["best.dev.error_rate"].tolist()
    answers = [load_answers(f"file://{storage}/trial-0000{k}") for k in range(2)]
    assert [sum(each.errors) / sum(each.lengths) for each in answers if each] == errors
    start.resume_search(tmp_path / "run", trials=3, address=address)
    assert weights(storage)[-1] == "trial-00002/best.pt"
    with pytest.raises(ConfigError, match="--storage nowhere://x: cannot be used"):
        start.run_search(space, out=tmp_path / "other", address=address, storage="nowhere://x")
    for url in ("s3://me:SECRET@bucket/x", "s3://bucket/x?secret_key=SECRET"):
        with pytest.raises(ConfigError, match="must hold no password or key") as caught:
            start.run_search(space, out=tmp_path / "other", address=address, storage=url)
        assert "SECRET" not in str(caught.value)
    assert not (tmp_path / "other").exists()


def test_a_search_whose_checkpoints_may_not_have_the_disk_is_refused(
    address: str, tmp_path: Path
) -> None:
    space = real(tmp_path, "none", trials=2, more="checkpoints: {disk_gb: 0.0001}")
    with pytest.raises(
        ConfigError,
        match=r"checkpoints\.disk_gb: the checkpoints can take .* but disk_gb = 0\.0001",
    ):
        start.run_search(space, out=tmp_path / "run", address=address)
    assert not (tmp_path / "run").exists()


def test_no_token_reaches_the_run_folder(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "SECRET-OF-MINE")
    start.run_search(
        seeds(tmp_path, 2), out=tmp_path / "run", address=address, train=broken, command=["search"]
    )
    for path in (tmp_path / "run").rglob("*"):
        if path.is_file() and "ray" not in path.relative_to(tmp_path / "run").parts[0]:
            content = path.read_bytes()
            assert b"SECRET-OF-MINE" not in content
            assert cluster.RAY_TOKEN.encode() not in content


def test_a_corpus_that_changed_is_refused(address: str, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text("1 2\n2 1\n")
    text = "model: BasicSeq2Seq\ncorpus: {train: [a, b], dev: [a, b]}\nsearch: {method: grid}\n"
    space = write_space(
        tmp_path,
        text + "scheduler: {name: none, max_steps: 40}\nparameters: {train.seed: [0, 1]}\n",
    )
    start.run_search(space, out=tmp_path / "run", address=address, train=slow)
    with pytest.raises(
        ConfigError, match="the search has 2 already; a search can only be extended"
    ):
        start.resume_search(tmp_path / "run", trials=1, address=address)
    (tmp_path / "a").write_text("1 2\n2 2\n")
    with pytest.raises(
        ConfigError, match="the corpus is not the one that the search was made with"
    ):
        start.resume_search(tmp_path / "run", address=address)


# --- schedulers and samplers ---


def curves(found: results.Results) -> dict[str, list[tuple[object, ...]]]:
    numbers = found.reports[["trial", "step", "train.loss", "dev.loss", "dev.error_rate"]]
    return {
        str(trial): list(rows.itertuples(index=False, name=None))
        for trial, rows in numbers.groupby("trial")
    }


def test_hyperband_pauses_trials_that_go_on_as_if_undisturbed(address: str, tmp_path: Path) -> None:
    for name in ("none", "hyperband"):
        space = real(tmp_path / name, name, trials=9, steps=90)
        start.run_search(space, out=tmp_path / name / "run", address=address)
    calm, paused = (results.load(tmp_path / name / "run") for name in ("none", "hyperband"))
    whole, parts = curves(calm), curves(paused)
    assert all(parts[trial] == whole[trial][: len(parts[trial])] for trial in whole)
    assert paused.trials["status"].isin(["finished", "stopped"]).all()
    assert (paused.trials["status"] == "stopped").any()
    starts = paused.reports.groupby("trial")["start_seconds"].nunique()
    assert (starts > 1).any()  # it was paused
    assert paused.workers == 2
    assert min(paused.worker_seconds().values()) >= 0
    events, _ = read_events(tmp_path / "hyperband" / "run")
    assert any(event["event"] == "pause" for event in events)


def test_pbt_gives_the_worse_the_weights_of_the_better(address: str, tmp_path: Path) -> None:
    space = real(tmp_path, "pbt", trials=4, steps=120)
    assert start.run_search(space, out=tmp_path / "run", address=address).status == "finished"
    found = results.load(tmp_path / "run")
    assert found.trials["status"].tolist() == ["finished"] * 4
    events, _ = read_events(tmp_path / "run")
    assert any(
        "optimizer.learning_rate" in event["message"]
        for event in events
        if event["event"] == "note"
    )
    exploits = [event for event in events if event["event"] == "exploit"]
    assert exploits
    for event in exploits:
        before = [
            other
            for other in events
            if other.get("trial") == event["trial"] and other["time"] <= event["time"]
        ]
        began = next(other for other in before if other["event"] == "trial")
        same = [key for key in began["config"] if key != "optimizer.learning_rate"]
        assert {key: event["config"][key] for key in same} == {
            key: began["config"][key] for key in same
        }
        assert event["source"] != event["trial"]
    last = {event["trial"]: event["config"]["optimizer.learning_rate"] for event in exploits}
    for trial, rate in last.items():
        row = found.trials.set_index("trial").loc[trial]
        assert row["optimizer.learning_rate"] == pytest.approx(rate)
        assert row["last.learning_rate"] == pytest.approx(rate)
    for trial in found.trials[
        "trial"
    ]:  # whatever it took over, its best and the answers of its best are its own
        best = read_snapshot(f"{found.folder}/{trial}/best.pt")
        answers = load_answers(f"{found.folder}/{trial}")
        assert answers is not None
        assert answers.step == best["step"]
        assert sum(answers.errors) / sum(answers.lengths) == best["report"]["dev.error_rate"]


def test_tpe_learns_several_objectives_is_extended_and_learns_from_an_earlier_run(
    address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = "objectives: [parameters]"
    space = real(tmp_path, "none", trials=12, steps=10, method="tpe", more=more)
    assert start.run_search(space, out=tmp_path / "run", address=address).status == "finished"
    assert start.resume_search(tmp_path / "run", trials=14, address=address).status == "finished"
    found = results.load(tmp_path / "run")
    assert len(found.trials) == 14
    assert found.trials["optimizer.learning_rate"].is_unique
    values = found.trials[["best.dev.loss", "parameters"]].to_numpy().tolist()
    assert found.pareto()["trial"].tolist() == [
        trial
        for trial, best in zip(found.trials["trial"], pareto(values, ["minimize"] * 2), strict=True)
        if best
    ]
    assert command_line.main(["results", str(tmp_path / "run")]) == 0
    assert "Pareto front" in capsys.readouterr().out
    again = real(tmp_path / "again", "none", trials=2, steps=10, method="tpe", more=more)
    start.run_search(again, out=tmp_path / "warm", address=address, warm_start=tmp_path / "run")
    notes = [
        event["message"] for event in read_events(tmp_path / "warm")[0] if event["event"] == "note"
    ]
    assert any("14 trials taken, 0 do not fit" in note for note in notes)
    rates = found.trials.sort_values("best.dev.loss")["optimizer.learning_rate"].tolist()
    warm = results.load(tmp_path / "warm").trials
    assert warm["optimizer.learning_rate"].tolist() == rates[:2]


def test_a_warm_start_survives_a_kill_and_the_end_of_its_folders(
    address: str, tmp_path: Path
) -> None:
    for name, metric in (("a", 1), ("b", 2)):
        space = seeds(tmp_path / name, 3 * metric)
        start.run_search(space, out=tmp_path / name / "run", address=address, train=levels)
    best = sorted(range(6), key=lambda seed: seed * 7 % 9)[:3]  # as `levels` has it
    space = seeds(tmp_path, 9, search=", hours: 0.0002")
    runs = [tmp_path / name / "run" for name in ("a", "b")]
    outcome = start.run_search(
        space, out=tmp_path / "run", address=address, train=slow, warm_start=runs
    )
    assert outcome.status == "out of budget"
    for name in ("a", "b"):
        shutil.rmtree(tmp_path / name)
    start.resume_search(tmp_path / "run", hours=1, address=address, train=slow)
    found = results.load(tmp_path / "run")
    assert found.status == "finished"
    rest = [seed for seed in range(9) if seed not in best]
    assert found.trials["train.seed"].tolist() == [*best, *rest]


def partly_nan(hparams: Any, corpus: Any, device: str, snapshot: Any = None) -> Iterator[Any]:
    for step in (10, 20, 30, 40):
        yield report(step, math.nan if hparams["train.seed"] % 2 else 1.0 + hparams["train.seed"])


@pytest.mark.parametrize("scheduler", ["asha", "hyperband", "median"])
def test_a_nan_neither_wins_nor_blocks(address: str, tmp_path: Path, scheduler: str) -> None:
    text = SEEDS.format(seeds=list(range(6)), search="", more="").replace(
        "name: none", f"name: {scheduler}"
    )
    if scheduler == "hyperband":
        text = text.replace(", grace_steps: 10", "")
    space = write_space(tmp_path, text)
    found = results.load(
        start.run_search(space, out=tmp_path / "run", address=address, train=partly_nan).folder
    )
    assert found.status == "finished"
    assert found.trials["status"].tolist()[1::2] == ["diverged"] * 3
    assert found.best(1)["trial"].tolist() == ["trial-00000"]
