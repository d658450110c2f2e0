"""Searches on a real Ray, with real processes and real signals."""

import contextlib
import ipaddress
import json
import math
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
import types
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray.cloudpickle
import torch
from ray.cluster_utils import Cluster

from s2s_search import tuning
from s2s_search.corpus.load import load_corpus
from s2s_search.errors import ConfigError
from s2s_search.hparams.configuration import resolve
from s2s_search.interrupts import Interrupt
from s2s_search.metrics import WORST
from s2s_search.nn.fast import native
from s2s_search.results import results
from s2s_search.runs.answers import load_answers
from s2s_search.runs.failures import error_message
from s2s_search.spaces.load import load_space
from s2s_search.spaces.settings import Resources
from s2s_search.spaces.space import Space
from s2s_search.training import process_memory
from s2s_search.training.trial import train
from s2s_search.tuning import cluster, search, worker
from tests.spaces import DROPOUT, RATES, space_text

ray.cloudpickle.register_pickle_by_value(
    sys.modules[__name__]
)  # the stand-ins below reach workers with their code

BRIDGES = {"zero": {"class": "ZeroBridge"}, "initial": {"class": "InitialStateBridge"}}
TINY = space_text(
    DROPOUT
    | RATES
    | {
        "attention.dim": 8,
        "attention.score_type": ["dot", "bahdanau"],
        "bridge_spec": {"choices": BRIDGES},
    },
    model=["BasicSeq2Seq", "AttentionSeq2Seq"],
    search={"method": "random", "trials": 6, "seed": 3},
    scheduler={"name": "asha", "max_steps": 30, "grace_steps": 10, "reduction_factor": 2},
)
# The stand-ins for train() do what the number of the seed says.
SEEDS = """
model: BasicSeq2Seq
corpus: {{name: copy, train: 20, dev: 5, vocabulary: 5, min_length: 2, max_length: 5}}
search: {{method: grid}}
scheduler: {{name: {scheduler}, max_steps: 40, grace_steps: 10, reduction_factor: 2}}
resources: {{cpu: {cpu}}}
parameters: {{train.seed: {seeds}}}
"""


def write_space(folder: Path, text: str) -> Space:
    (folder / "space.yaml").write_text(textwrap.dedent(text))
    return load_space(folder / "space.yaml")


def seeds(folder: Path, numbers: list[int], scheduler: str = "none", cpu: float = 1) -> Space:
    return write_space(folder, SEEDS.format(seeds=numbers, scheduler=scheduler, cpu=cpu))


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


# --- before Ray starts ---


def test_all_that_is_wrong_is_said_at_once_and_nothing_is_left(tmp_path: Path) -> None:
    text = TINY.replace("{name: copy", "{name: copy, seed: 1")
    space = write_space(tmp_path, text + "resources: {cpu: 4096, gpu: 512}\n")
    (tmp_path / "out").write_text("")
    with pytest.raises(ConfigError) as caught:
        tuning.run_search(space, out=tmp_path / "out", overrides={"optimizer.nmae": "SGD"})
    assert len(caught.value.problems) == 3
    for part in ("optimizer.nmae", "needs 4096 CPU and 512 GPU", "is a file"):
        assert part in str(caught.value)
    with pytest.raises(ConfigError, match="needs 4096 CPU"):
        tuning.run_search(space, out=tmp_path / "new" / "run")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "space.yaml"]
    assert not ray.is_initialized()


def test_a_run_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes").write_text("mine")
    with pytest.raises(ConfigError, match="never overwritten"):
        tuning.run_search(write_space(tmp_path, TINY), out=tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["notes"]


@pytest.mark.parametrize("out", ["/proc/run", "/dev/null/run"])
def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path, out: str) -> None:
    with pytest.raises(ConfigError, match=f"{out}: cannot be written"):
        tuning.run_search(write_space(tmp_path, TINY), out=Path(out))


@pytest.mark.parametrize(
    "address", ["ray://head:10001", "local", "head", "127.0.0.1:1", "127.0.0.1:99999", ":1"]
)
def test_an_address_where_no_cluster_is_is_refused(tmp_path: Path, address: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"address {address!r}")):
        tuning.run_search(write_space(tmp_path, TINY), out=tmp_path / "run", address=address)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "cpu, gpu, fits",
    [(2, 0, True), (3, 0, False), (0.5, 0.25, True), (1, 1, True), (1, 2, False), (2, 1, False)],
)
def test_a_trial_must_fit_on_one_node(cpu: float, gpu: float, fits: bool) -> None:
    nodes: list[dict[str, float]] = [{"CPU": 2}, {"CPU": 1, "GPU": 1}, {}]
    assert (not cluster.resource_problems(Resources(cpu, gpu), nodes)) is fits
    assert cluster.resource_problems(Resources(cpu, gpu), [])


# --- Ctrl-C ---


def test_the_first_interrupt_waits_for_a_good_moment_and_the_second_does_not() -> None:
    interrupt = Interrupt()
    with interrupt:
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            interrupt.check()
        signal.raise_signal(signal.SIGINT)  # what follows the first is not disturbed
    again = Interrupt()
    with again:
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


# --- the trainable, with a stand-in for Tune ---


class FakeTune:
    """Collects reports; stops the trial, as Tune does, after some."""

    def __init__(self, folder: Path, stop_after: int = 99, gpu: float = 0) -> None:
        self.folder, self.stop_after, self.gpu = folder, stop_after, gpu
        self.reports: list[dict[str, Any]] = []

    def get_context(self) -> Any:
        needs = types.SimpleNamespace(required_resources={"CPU": 1.0, "GPU": self.gpu})
        return types.SimpleNamespace(
            get_trial_name=lambda: "trial-00000",
            get_trial_dir=lambda: str(self.folder / "ray"),
            get_trial_resources=lambda: needs,
        )

    def report(self, metrics: dict[str, Any]) -> None:
        self.reports.append(metrics)
        if len(self.reports) == self.stop_after:
            sys.exit(0)


def run_trial(
    monkeypatch: pytest.MonkeyPatch, fake: FakeTune, losses: list[float], goal: str = "minimize"
) -> Path:
    def stand_in(*_: object) -> Iterator[Any]:
        yield from (report(10 * k, loss) for k, loss in enumerate(losses, 1))

    monkeypatch.setattr(worker, "tune", fake)
    threads = torch.get_num_threads()
    corpus: Any = object()
    try:
        worker.trainable({"model": "BasicSeq2Seq"}, corpus, fake.folder, goal=goal, train=stand_in)
    finally:
        torch.set_num_threads(threads)
    return fake.folder / "trial-00000"


@pytest.mark.parametrize("goal, best", [("minimize", 20), ("maximize", 10)])
def test_the_best_and_the_last_snapshot_are_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, goal: str, best: int
) -> None:
    folder = run_trial(monkeypatch, FakeTune(tmp_path), [3.0, 1.0, 2.0], goal)
    steps = {path.name: torch.load(path, weights_only=True)["step"] for path in folder.iterdir()}
    assert steps == {"best.pt": best, "last.pt": 30, "previous.pt": 20}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_metric_that_is_not_finite_ends_the_trial_with_the_worst_values(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, value: float
) -> None:
    fake = FakeTune(tmp_path)
    folder = run_trial(monkeypatch, fake, [3.0, value, 1.0])
    assert [row["status"] for row in fake.reports] == ["running", "diverged"]
    assert fake.reports[-1]["dev.loss"] == WORST["dev.loss"]
    assert torch.load(folder / "last.pt", weights_only=True)["step"] == 10


@pytest.mark.parametrize("end", [None, SystemExit, ValueError, ZeroDivisionError])
@pytest.mark.parametrize("loss", [1.0, math.nan])
def test_a_trial_that_ends_has_let_go_of_its_model(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, loss: float, end: type[BaseException] | None
) -> None:
    """However it ends: at its end, at a loss that is not finite, by the scheduler, or by an error, after another."""
    models: list[weakref.ref[torch.Tensor]] = []
    alive: list[bool] = []

    def stand_in(*_: object) -> Iterator[Any]:
        model = torch.zeros(10)
        models.append(weakref.ref(model))
        if end is ValueError:
            raise ValueError(len(model))
        if end is ZeroDivisionError:
            layer(model)
        for step in (10, 20):
            yield report(step, loss)

    def layer(model: torch.Tensor) -> float:
        of_layer = model * 2
        models.append(weakref.ref(of_layer))
        try:
            return float({}[len(of_layer)])
        except KeyError:
            return 1 / 0

    fake = FakeTune(tmp_path, stop_after=1 if end is SystemExit else 99)
    monkeypatch.setattr(worker, "tune", fake)
    monkeypatch.setattr(
        process_memory,
        "release_freed_memory",
        lambda: alive.extend(m() is not None for m in models),
    )
    corpus: Any = object()
    expected = RuntimeError if end in (ValueError, ZeroDivisionError) else end
    with pytest.raises(expected) if expected else contextlib.nullcontext():
        worker.trainable({"model": "BasicSeq2Seq"}, corpus, tmp_path, train=stand_in)
    assert alive
    assert not any(alive)


@pytest.mark.parametrize("given", [{}, {"PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:64"}])
@pytest.mark.parametrize(
    "share, fraction", [(0, None), (0.25, 0.24375), (0.01, 0.005), (1, None), (2, None)]
)
def test_a_trial_keeps_to_its_share_of_a_gpu(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    share: float,
    fraction: float | None,
    given: dict[str, str],
) -> None:
    """Of a card of 80 GB that others have filled: what is free now says nothing of a share."""
    calls: list[tuple[str, Any]] = []
    others = {name: value for name, value in os.environ.items() if not name.endswith("ALLOC_CONF")}
    monkeypatch.setattr(os, "environ", others | given)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (10**9, 80 * 10**9))
    monkeypatch.setattr(
        torch.cuda, "set_per_process_memory_fraction", lambda part: calls.append(("limit", part))
    )
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: calls.append(("empty", None)))
    monkeypatch.setattr(worker, "tune", FakeTune(tmp_path, gpu=share))

    def stand_in(hparams: object, corpus: object, device: str) -> Iterator[Any]:
        calls.append(("train", device))
        yield report(10, 1.0)

    corpus: Any = object()
    worker.trainable({"model": "BasicSeq2Seq"}, corpus, tmp_path, train=stand_in)
    trained = ("train", "cuda" if share else "cpu")
    if fraction is None:
        assert calls == [trained]
        assert "PYTORCH_ALLOC_CONF" not in os.environ
    else:
        assert calls == [("limit", pytest.approx(fraction)), trained, ("empty", None)]
        assert os.environ.get("PYTORCH_ALLOC_CONF") == (
            None if given else "expandable_segments:True"
        )


def test_the_message_of_a_traceback() -> None:
    try:
        raise ValueError("first line\n  second line")
    except ValueError:
        import traceback

        text = traceback.format_exc()
    assert error_message(text) == "ValueError: first line"
    assert error_message("The actor died.\n\tpid: 3\n") == "The actor died."
    assert error_message("\n") == "failed without a message"


# --- on a cluster that is joined ---


@pytest.fixture(scope="module")
def address(ray_folder: Path) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(
            "OMP_NUM_THREADS", "5"
        )  # what a machine says of threads is not what a trial has
        cluster = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False}
        )
    yield cluster.address
    cluster.shutdown()


def troubled(hparams: Any, corpus: Any, device: str, snapshot: Any = None) -> Iterator[Any]:
    kind = hparams["train.seed"]
    shared = not corpus.train.source_tokens.flags.owndata
    if kind == 1:
        raise ValueError("before the first report\nsecond line")
    for step in range(snapshot["step"] + 10 if snapshot else 10, 50, 10):
        yield report(
            step,
            math.nan if kind == 2 and step == 30 else 1 / step,
            process=os.getpid(),
            shared=shared,
        )
        if kind == 3:

            class OddError(Exception):
                def __init__(self, one: int, two: int) -> None:
                    super().__init__("cannot be copied")

            raise OddError(1, 2)
        if kind == 4:
            os._exit(7)


@pytest.fixture(scope="module")
def troubled_run(address: str, tmp_path_factory: pytest.TempPathFactory) -> results.Results:
    folder = tmp_path_factory.mktemp("troubled")
    outcome = tuning.run_search(
        seeds(folder, [0, 1, 2, 3, 4, 5, 6, 7]),
        out=folder / "run",
        address=address,
        train=troubled,
        command=["search"],
    )
    assert outcome == search.Outcome("finished", folder / "run")
    return results.load(folder / "run")


def test_no_trouble_of_a_trial_ends_the_search(troubled_run: results.Results) -> None:
    trials = troubled_run.trials
    assert trials["trial"].tolist() == [f"trial-{k:05d}" for k in range(8)]
    assert trials["train.seed"].tolist() == list(range(8))
    assert trials["status"].tolist() == [
        "finished",
        "failed",
        "diverged",
        "failed",
        "lost",
        *["finished"] * 3,
    ]
    assert trials["restarts"].tolist() == [0, 0, 0, 0, 3, 0, 0, 0]
    assert trials["step"].fillna(-1).tolist() == [
        40,
        -1,
        30,
        10,
        40,
        40,
        40,
        40,
    ]  # each worker of the fifth made ten
    assert trials["best.dev.loss"][2] == 1 / 20
    assert trials["last.dev.loss"][2] == WORST["dev.loss"]
    assert troubled_run.status == "finished"


def test_a_failed_trial_has_a_message_and_a_traceback(troubled_run: results.Results) -> None:
    messages = troubled_run.trials["message"]
    assert messages[1] == "ValueError: before the first report"
    assert messages[3].endswith("OddError: cannot be copied")
    assert "died" in messages[4]
    texts = [(troubled_run.folder / f"trial-{k:05d}" / "error.txt").read_text() for k in (1, 3, 4)]
    assert texts[0].startswith("Traceback")
    assert texts[0].endswith("second line\n")
    assert "\x1b" not in "".join(texts)
    assert "exit" in texts[2]
    assert not (troubled_run.folder / "trial-00000" / "error.txt").exists()


def test_processes_run_several_trials(troubled_run: results.Results) -> None:
    well = troubled_run.trials.loc[
        troubled_run.trials["status"].isin(["finished", "diverged"]), "trial"
    ]
    reports = troubled_run.reports
    assert reports.loc[reports["trial"].isin(well), "process"].nunique() < len(well)


def test_the_corpus_is_not_copied_into_each_process(troubled_run: results.Results) -> None:
    assert troubled_run.reports["shared"].dropna().all()


def test_the_run_folder_says_what_ran(troubled_run: results.Results) -> None:
    folder = troubled_run.folder
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["command"] == ["search"]
    assert environment["seed"] == 0
    assert environment["versions"]["ray"] == ray.__version__
    assert environment["compiled_loops"] == native.usable(torch.zeros(1))
    config = json.loads((folder / "trial-00005" / "config.json").read_text())
    assert config == resolve("BasicSeq2Seq", {"train.seed": 5, "train.max_steps": 40}).flat()
    assert (folder / "space.yaml").read_bytes() == (folder.parent / "space.yaml").read_bytes()
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    assert events[0]["event"] == "search"
    assert (events[-1]["event"], events[-1]["status"]) == ("status", "finished")
    assert events[-1]["driver"]["reports"] == sum(event["event"] == "report" for event in events)


def counting_threads(hparams: Any, corpus: Any, device: str) -> Iterator[Any]:
    def own_threads() -> int:
        """Those of this thread's name, which the ones that it starts inherit."""
        name = Path("/proc/thread-self/comm").read_text()
        return sum(path.read_text() == name for path in Path("/proc/self/task").glob("*/comm"))

    before = own_threads()
    matrix = torch.ones(1000, 1000, requires_grad=True)
    (matrix @ matrix).exp().sum().backward()  # large enough for as many threads as there may be
    yield report(40, 1.0, started=own_threads() - before)


@pytest.mark.slow
@pytest.mark.parametrize("cpu", [0.5, 1, 2])
def test_a_trial_has_a_thread_for_each_of_its_cpus(
    address: str, tmp_path: Path, cpu: float
) -> None:
    folder = tmp_path / "run"
    tuning.run_search(
        seeds(tmp_path, [0], cpu=cpu), out=folder, address=address, train=counting_threads
    )
    assert results.load(folder).reports["started"].tolist() == [max(1, int(cpu)) - 1]


def judged(hparams: Any, corpus: Any, device: str) -> Iterator[Any]:
    losses = {0: 1.0, 1: math.nan, 2: 0.5, 3: 5.0, 4: 0.25}
    for step in (10, 20, 30, 40):
        yield report(step, losses[hparams["train.seed"]])


def test_asha_stops_the_worse_and_a_nan_neither_wins_nor_blocks(
    address: str, tmp_path: Path
) -> None:
    space = seeds(
        tmp_path, [0, 1, 2, 3, 4], scheduler="asha", cpu=2
    )  # both processors: one after the other
    trials = results.load(
        tuning.run_search(space, out=tmp_path / "run", address=address, train=judged).folder
    ).trials
    assert trials["status"].tolist() == ["finished", "diverged", "finished", "stopped", "finished"]
    assert trials["step"].tolist() == [40, 10, 40, 10, 40]


def plateauing(hparams: Any, corpus: Any, device: str, snapshot: Any = None) -> Iterator[Any]:
    """A trial with a seed of 0 or 3 is among the best, and ends by itself at its second report."""
    kind = hparams["train.seed"]
    for step in range(snapshot["step"] + 10 if snapshot else 10, 50, 10):
        if kind in (0, 3) and step == 20:
            yield report(step, kind / 1000, status="plateaued")
            return
        yield report(step, kind / 1000 if kind in (0, 3) else kind / step)


@pytest.mark.parametrize("scheduler", ["hyperband", "pbt", "asha, variant: promote"])
def test_no_trial_waits_for_one_that_plateaued(
    address: str, tmp_path: Path, scheduler: str
) -> None:
    """With asha the best one is complete then, and no other needs to train to its end."""
    text = SEEDS.format(seeds=[0, 1, 2, 3], scheduler=scheduler, cpu=1)
    if scheduler == "hyperband":
        text = text.replace(" grace_steps: 10,", "")
    if scheduler == "pbt":
        text = text.replace("method: grid", "trials: 4")
        text += "  optimizer.learning_rate: {min: 1e-4, max: 1e-3}\n"
        text = text.replace("{train.seed: [0, 1, 2, 3]}", "\n  train.seed: [0, 1, 2, 3]")
        text = text.replace(", grace_steps: 10, reduction_factor: 2", ", interval_steps: 10")
    space = write_space(tmp_path, text)
    outcome = tuning.run_search(space, out=tmp_path / "run", address=address, train=plateauing)
    assert outcome.status == "finished"
    trials = results.load(tmp_path / "run").trials
    by_itself = trials["status"].eq("plateaued")
    assert by_itself.any()
    assert trials["step"][by_itself].eq(20).all()
    assert set(trials["status"]) <= {"plateaued", "finished", "stopped"}
    if scheduler.startswith("asha"):
        assert trials["status"].tolist() == ["plateaued", "stopped", "stopped", "plateaued"]
    else:
        assert trials["status"].eq("finished").any()


def test_a_search_with_patience_goes_on_after_a_kill_before_an_end_was_recorded(
    address: str, tmp_path: Path
) -> None:
    """Real trials judged by the error rate; one of them had sent its last report."""
    text = space_text(
        {"embedding.dim": 4, "optimizer.learning_rate": {"min": 1e-9, "max": 1e-8}}
        | {"train.patience": 2, "train.eval_every_steps": 3},
        model="BasicSeq2Seq",
        search={"trials": 2, "seed": 3},
        metric={"name": "dev.error_rate"},
        scheduler={"name": "none", "max_steps": 60},
    )
    tuning.run_search(write_space(tmp_path, text), out=tmp_path / "run", address=address)
    before = results.load(tmp_path / "run")
    assert before.metric == "dev.error_rate"
    assert before.trials["status"].tolist() == ["plateaued"] * 2
    assert before.trials["step"].tolist() == [9, 9]
    log = tmp_path / "run" / "events.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    ends = [k for k, line in enumerate(lines) if json.loads(line)["event"] == "status"]
    log.write_text("".join(lines[: ends[0]]))
    tuning.resume_search(tmp_path / "run", address=address)
    after = results.load(tmp_path / "run")
    assert after.trials["status"].tolist() == ["plateaued"] * 2
    assert after.trials["step"].tolist() == [9, 9]
    assert after.trials["best.dev.loss"].tolist() == before.trials["best.dev.loss"].tolist()


FIRST = space_text(
    RATES | {"embedding.dim": {"min": 4, "max": 16}, "attention.dim": {"min": 4, "max": 16}},
    model="AttentionSeq2Seq",
    search={"trials": 4, "seed": 3},
    scheduler={"name": "none", "max_steps": 10},
    constraints=["attention.dim <= embedding.dim", "parameters <= 2100"],
    first=[{"attention.dim": 9}, {"embedding.dim": 5, "attention.dim": 5}],
)


def as_from_before(folder: Path) -> None:
    """Makes the folder one of a version without some hyperparameters, none of them in the log."""
    new = ("optimizer.warmup_steps", "optimizer.weight_decay", "train.average_decay",
           "train.label_smoothing", "train.patience")  # fmt: skip
    assert not any(name in (folder / "events.jsonl").read_text() for name in new)
    for path in folder.glob("trial-*/config.json"):
        values = json.loads(path.read_text())
        path.write_text(json.dumps({key: values[key] for key in values.keys() - set(new)}))
    for path in folder.glob("trial-*/best.pt"):
        snapshot = torch.load(path, weights_only=True)
        for name in new:
            del snapshot["hparams"][name]
        torch.save(snapshot, path)


def test_first_and_constraints_hold_in_a_search_and_its_extension(
    address: str, tmp_path: Path
) -> None:
    space = write_space(tmp_path, FIRST)
    tuning.run_search(space, out=tmp_path / "run", address=address)
    as_from_before(tmp_path / "run")
    tuning.resume_search(tmp_path / "run", trials=6, address=address)
    run = results.load(tmp_path / "run")
    # Two trials run at once, so that they need not begin in the order of their numbers.
    trials = sorted(run.history().trials.values(), key=lambda trial: trial.number)
    configs = [trial.config for trial in trials]
    assert configs == space.trials(6)
    assert (configs[0]["embedding.dim"], configs[0]["attention.dim"]) == (16, 9)
    assert (configs[1]["embedding.dim"], configs[1]["attention.dim"]) == (5, 5)
    assert (run.trials["parameters"] <= 2100).all()
    assert (run.trials["attention.dim"] <= run.trials["embedding.dim"]).all()
    assert run.trials["status"].tolist() == ["finished"] * 6


def test_a_cluster_that_is_too_small_is_refused(address: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs 3 CPU and 0 GPU, and the largest node has 2 CPU"):
        tuning.run_search(seeds(tmp_path, [0], cpu=3), out=tmp_path / "run", address=address)
    assert not (tmp_path / "run").exists()
    assert not ray.is_initialized()


# --- on a Ray of its own, in a process of its own ---

PROGRAM = """
import sys, time, types
from pathlib import Path
from s2s_search.display.progress import Progress
from s2s_search.spaces import load_space
from s2s_search.tuning import run_search

def slow(hparams, corpus, device):
    for step in range(10, 1000, 10):
        metrics = {"step": step, "seconds": 1.0, "status": "running", "parameters": 1, "dev.loss": 1.0}
        yield types.SimpleNamespace(metrics=metrics, snapshot=dict, answers=lambda: None)
        time.sleep(3)

train = slow if sys.argv[3:] == ["slow"] else None
outcome = run_search(load_space(sys.argv[1]), out=Path(sys.argv[2]), progress=Progress(), train=train)
print(outcome.status)
"""


def own_ray() -> str:
    return os.environ["RAY_TMPDIR"] + "/own"


def start(space: Space, *arguments: str, program: str = PROGRAM) -> subprocess.Popen[str]:
    """Starts a search in the folder of its space file, which is its home too."""
    folder = Path(space.path).parent
    environment = os.environ | {"HOME": str(folder), "RAY_TMPDIR": own_ray()}
    command = [sys.executable, "-c", program, str(space.path), str(folder / "run"), *arguments]
    return subprocess.Popen(
        command,
        env=environment,
        text=True,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def processes_of_own_ray() -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            found += [line] if own_ray() in line else []
    return found


@pytest.fixture(scope="module")
def real_run(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Space, results.Results, str, str, Path]:
    folder = tmp_path_factory.mktemp("real")
    space = write_space(folder, TINY)
    with start(space) as process:
        out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    return space, results.load(folder / "run"), out, err, folder


Run = tuple[Space, results.Results, str, str, Path]


def test_trial_k_is_the_kth_configuration_of_the_space(real_run: Run) -> None:
    space, found, *_ = real_run
    for k, config in enumerate(space.trials()):
        flat = json.loads((found.folder / f"trial-{k:05d}" / "config.json").read_text())
        assert (
            flat
            == resolve(
                config["model"], {key: config[key] for key in config if key != "model"}
            ).flat()
        )
    assert len(found.trials) == 6
    assert set(found.trials["bridge_spec"]) == {"zero", "initial"}


def test_a_trial_reports_the_numbers_of_a_run_without_ray(real_run: Run) -> None:
    space, found, *_ = real_run
    corpus = load_corpus(space.corpus)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for k, config in enumerate(space.trials()):
        rows = found.reports[found.reports["trial"] == f"trial-{k:05d}"]
        hparams = resolve(config["model"], {key: config[key] for key in config if key != "model"})
        for (_, row), here in zip(rows.iterrows(), train(hparams, corpus), strict=False):
            same = [name for name in here.metrics if not name.endswith("seconds")]
            assert {name: row[name] for name in same} == {name: here.metrics[name] for name in same}
    torch.set_num_threads(threads)


def test_every_report_says_which_node_it_comes_from(real_run: Run) -> None:
    _, found, *_ = real_run
    (node,) = found.reports["node"].dropna().unique()
    assert found.reports["node"].notna().all()
    assert ipaddress.ip_address(node)


def test_the_seconds_of_a_trial_are_accounted_for_once(real_run: Run) -> None:
    _, found, *_ = real_run
    trials = found.trials
    spent = trials[["seconds", "start_seconds", "snapshot_seconds", "waiting_seconds"]]
    assert spent.notna().all(axis=None)
    assert (spent.sum(axis=1) <= trials["ended"] - trials["began"] + 0.01).all()
    assert found.driver["reports"] == len(found.reports)
    assert found.driver["processor_seconds"] > 0
    assert found.worker_seconds()["steps"] == pytest.approx(
        (trials["seconds"] - trials["evaluation_seconds"]).sum()
    )


def test_two_searches_of_one_process_have_one_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    tokens = []
    for _ in range(2):
        with cluster.ray_environment(None):
            tokens.append(os.environ["RAY_AUTH_TOKEN"])
        assert "RAY_AUTH_TOKEN" not in os.environ
    assert tokens[0] == tokens[1]


def test_snapshots_are_those_of_the_tables(real_run: Run) -> None:
    _, found, *_ = real_run
    for _, row in found.trials.iterrows():
        best = torch.load(found.folder / row["trial"] / "best.pt", weights_only=True)
        assert best["step"] == row["best.step"]
        assert best["report"]["dev.loss"] == best["best"] == row["best.dev.loss"]
        assert not (found.folder / row["trial"] / "last.pt").exists()  # it has ended


def test_answers_are_those_of_the_tables(real_run: Run) -> None:
    _, found, *_ = real_run
    for _, row in found.trials.iterrows():
        answers = load_answers(f"{found.folder}/{row['trial']}")
        assert answers is not None
        assert answers.step == row["best.step"]
        assert sum(answers.errors) / sum(answers.lengths) == row["best.dev.error_rate"]
        assert (
            sum(error > 0 for error in answers.errors) / len(answers.errors)
            == row["best.dev.word_error_rate"]
        )


def test_nothing_but_our_display_reaches_the_terminal(real_run: Run) -> None:
    *_, out, err, _ = real_run
    assert out == "finished\n"
    first, *lines = err.splitlines()
    assert first == "starting Ray"
    assert len(lines) >= 7
    assert [line for line in lines if not re.match(r"\[\d+:\d\d\] ", line)] == []


def test_ray_leaves_neither_processes_nor_files(real_run: Run) -> None:
    *_, folder = real_run
    assert sorted(path.name for path in folder.iterdir()) == ["run", "space.yaml"]
    assert (folder / "run" / "ray.log").read_text() == ""
    assert processes_of_own_ray() == []


@pytest.mark.slow
def test_a_process_can_search_twice(tmp_path: Path) -> None:
    again = (
        """print(run_search(load_space(sys.argv[1]), out=Path(sys.argv[2] + "-again")).status)"""
    )
    with start(write_space(tmp_path, TINY), program=PROGRAM + again) as process:
        out, err = process.communicate(timeout=240)
    assert out == "finished\nfinished\n", err
    assert results.load(tmp_path / "run-again").trials["status"].isin(["finished", "stopped"]).all()


def interrupt_at_the_second_report(
    folder: Path, signals: int, group: bool
) -> tuple[subprocess.Popen[str], str, float]:
    space = write_space(folder, TINY)
    with start(space, "slow") as process:
        log = folder / "run" / "events.jsonl"
        until = time.monotonic() + 120
        while not (log.exists() and log.read_text().count('"report"') >= 2):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < until
            time.sleep(0.1)
        assert results.load(folder / "run").trials["status"].eq("running").all()
        began = time.monotonic()
        for _ in range(signals):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGINT) if group else process.send_signal(
                    signal.SIGINT
                )
            time.sleep(0.1)
        out, err = process.communicate(timeout=60)
        assert out == "interrupted\n", err
        return process, err, time.monotonic() - began


@pytest.mark.slow
@pytest.mark.parametrize("signals, group", [(1, True), (10, False)])
def test_interrupts_end_a_search_within_seconds_with_its_tables(
    tmp_path: Path, signals: int, group: bool
) -> None:
    process, err, seconds = interrupt_at_the_second_report(tmp_path, signals, group)
    assert process.returncode == 0
    assert seconds < 15
    assert "Traceback" not in err
    found = results.load(tmp_path / "run")
    assert found.status == "interrupted"
    assert len(found.reports) >= 2
    trials = (tmp_path / "run" / "trials.csv").read_text().splitlines()
    assert len(trials) == len(found.trials) + 1
