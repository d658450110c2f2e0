"""Searches that are battered: drivers, trials and nodes killed, checkpoints cut short, disks filled.

What comes out is compared with an undisturbed search of the same seed: no trial lost, no report doubled, and the same
numbers for every trial that both ran to the end.
"""

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd
import pytest
from ray.cluster_utils import Cluster

from s2s_search.cli import command_line
from s2s_search.results import results
from s2s_search.runs.answers import load_answers
from s2s_search.runs.log import read_events
from s2s_search.runs.state import load_history
from s2s_search.spaces.load import load_space
from s2s_search.spaces.rungs import asha_rungs
from s2s_search.tuning.start import run_search
from tests.spaces import COPY, DROPOUT, RATES, space_text

pytestmark = pytest.mark.slow  # each test runs whole searches

ROOT = Path(__file__).parents[2]
CELLS = {"encoder": "GRUCell", "decoder": "LSTMCell"}


def text_of(trials: int, steps: int, scheduler: Mapping[str, object], **search: object) -> str:
    sizes = {
        "embedding.dim": 16,
        "attention.dim": 16,
        "train.batch_size": 16,
        "inference.max_decode_length": 10,
    }
    sizes |= {
        f"{part}.rnn_cell.cell_spec": {"class": cell, "num_units": 24}
        for part, cell in CELLS.items()
    }
    return space_text(
        DROPOUT | RATES | sizes | {"train.eval_every_steps": 50},
        model=["BasicSeq2Seq", "AttentionSeq2Seq"],
        corpus=COPY | {"train": 400, "dev": 20, "vocabulary": 6, "max_length": 8},
        search={"method": "random", "trials": trials, "seed": 5, "retries": 100} | search,
        scheduler={"max_steps": steps} | dict(scheduler),
    )


def asha_text(trials: int = 6, steps: int = 600) -> str:
    asha = {"name": "asha", "grace_steps": steps // 4, "reduction_factor": 2}
    return text_of(trials, steps, asha)


def write_space(folder: Path, text: str = "") -> Path:
    path = folder / "space.yaml"
    path.write_text(text or asha_text())
    return path


class Driver:
    """A search in a process of its own, with a Ray of its own."""

    def __init__(self, *arguments: object) -> None:
        environment = os.environ | {"RAY_TMPDIR": os.environ["RAY_TMPDIR"] + "/own"}
        command = [sys.executable, str(ROOT / "run_search.py"), *map(str, arguments)]
        self.process = subprocess.Popen(
            command,
            env=environment,
            text=True,
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def wait(self, seconds: float = 240) -> str:
        out, _ = self.process.communicate(timeout=seconds)
        return out

    def kill(self) -> str:
        """The driver alone: Ray's processes are left to notice."""
        self.process.kill()
        return self.wait(60)

    def until_reports(self, folder: Path, count: int) -> bool:
        """Waits until the log holds so many reports; says whether the driver is still alive."""
        until = time.monotonic() + 120
        while self.process.poll() is None and time.monotonic() < until:
            if reports_in(folder) >= count:
                return True
            time.sleep(0.02)
        return self.process.poll() is None


def reports_in(folder: Path) -> int:
    log = folder / "events.jsonl"
    return log.read_bytes().count(b'"event": "report"') if log.exists() else 0


def workers() -> list[int]:
    """The processes that run trials of our own Rays; Ray's own agents take their node, and so the driver, with them."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            title, surroundings = (path / "cmdline").read_bytes(), (path / "environ").read_bytes()
            if (
                title.startswith((b"ray::ImplicitFunc", b"ray::IDLE"))
                and os.environ["RAY_TMPDIR"].encode() in surroundings
            ):
                found.append(int(path.name))
    return found


NUMBERS = (
    "step",
    "parameters",
    "learning_rate",
    "train.loss",
    "dev.loss",
    "dev.error_rate",
    "dev.bleu",
)


def numbers(found: results.Results, trial: str) -> list[tuple[object, ...]]:
    rows = found.reports[found.reports["trial"] == trial]
    return list(rows[list(NUMBERS)].itertuples(index=False, name=None))


def compare(battered: results.Results, calm: results.Results) -> int:
    """No trial lost, no report doubled, the same numbers; gives how many trials both ran to the end."""
    assert battered.status == calm.status == "finished"
    assert battered.trials["trial"].tolist() == calm.trials["trial"].tolist()
    assert battered.trials["status"].isin(["finished", "stopped"]).all()
    assert not battered.reports.duplicated(["trial", "step"]).any()
    both = 0
    for trial in calm.trials["trial"]:
        ours, theirs = numbers(battered, trial), numbers(calm, trial)
        shared = min(len(ours), len(theirs))
        assert ours[:shared] == theirs[:shared], trial
        both += len(ours) == len(theirs)
    return both


def check_decisions(folder: Path) -> int:
    """Every stop and every going on follows from the reports in the log, by the definition of a rung."""
    space = load_space(folder / "space.yaml")
    passed: dict[float, dict[str, float]] = {rung: {} for rung in asha_rungs(space.scheduler)}
    count = 0
    for event in read_events(folder)[0]:
        if event["event"] != "decision":
            continue
        count += 1
        others = passed[event["rung"]]
        assert event["trial"] not in others
        if event["cutoff"] is None:
            assert not others
        else:
            assert event["cutoff"] == pytest.approx(pd.Series(others.values()).quantile(0.5))
            assert (event["action"] == "stop") == (event["value"] > event["cutoff"])
        others[event["trial"]] = event["value"]
    return count


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> results.Results:
    folder = tmp_path_factory.mktemp("calm")
    out = Driver("search", write_space(folder), "--out", folder / "run").wait()
    found = results.load(folder / "run")
    assert found.status == "finished", out
    return found


def batter(
    folder: Path, text: str, reports: int, kills: int, seed: int
) -> tuple[Path, dict[str, int]]:
    """Runs a search and kills its driver at random moments, so many times; sometimes a worker, sometimes a file.

    An undisturbed search makes about as many reports as named.
    """
    rng, run = random.Random(seed), folder / "run"
    done = {"drivers": 0, "workers": 0, "checkpoints": 0}
    driver = Driver("search", write_space(folder, text), "--out", run)
    per_kill = 0.9 * reports / (kills + 1)
    while done["drivers"] < kills:
        if not driver.until_reports(run, int((done["drivers"] + rng.random()) * per_kill) + 1):
            break
        time.sleep(rng.random() * 0.3)
        if rng.random() < 0.5 and (alive := workers()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(rng.choice(alive), rng.choice([signal.SIGKILL, signal.SIGTERM]))
                done["workers"] += 1
            time.sleep(rng.random())
        if driver.process.poll() is not None:
            break
        driver.kill()
        done["drivers"] += 1
        time.sleep(rng.random() * 3)  # Ray's processes may still run
        kept = sorted(run.glob("trial-*/last.pt"))
        if kept and rng.random() < 0.5:
            victim = rng.choice(kept)
            os.truncate(victim, int(victim.stat().st_size * rng.random()))
            done["checkpoints"] += 1
        driver = Driver("resume", run)
    out = driver.wait(600)
    assert driver.process.returncode in (0, 2), out
    if driver.process.returncode == 2:  # it had ended before the kill
        assert "Traceback" not in out
    return run, done


def test_a_search_whose_driver_is_killed_again_and_again(
    calm: results.Results, tmp_path: Path
) -> None:
    run, done = batter(tmp_path, asha_text(), len(calm.reports), kills=3, seed=0)
    assert done["drivers"] >= 2
    found = results.load(run)
    assert compare(found, calm) >= 1
    for _, row in found.trials.iterrows():
        answers = load_answers(f"{run}/{row['trial']}")
        assert answers is not None
        assert answers.step == row["best.step"]
        assert sum(answers.errors) / sum(answers.lengths) == row["best.dev.error_rate"]
    assert check_decisions(run) >= 6


@pytest.mark.timeout(1500)
def test_a_long_search_whose_drivers_workers_and_checkpoints_are_killed(tmp_path: Path) -> None:
    """With SOAK=1 the driver of a longer search is killed ten times, else of a shorter one four times."""
    kills, trials, steps = (10, 12, 3000) if "SOAK" in os.environ else (4, 8, 900)
    (tmp_path / "calm").mkdir()
    text = asha_text(trials, steps)
    space = write_space(tmp_path / "calm", text)
    out = Driver("search", space, "--out", tmp_path / "calm" / "run").wait(600)
    calm = results.load(tmp_path / "calm" / "run")
    assert calm.status == "finished", out
    run, done = batter(tmp_path, text, len(calm.reports), kills, 1)
    found = results.load(run)
    both = compare(found, calm)
    print(
        f"\nkilled {done}, {found.trials['restarts'].sum()} restarts of trials; nothing lost, "
        "no report doubled;"
    )
    print(
        f"{both} of {trials} trials made as many reports as undisturbed, and all numbers of "
        "both are equal"
    )
    assert done["drivers"] >= 3
    assert check_decisions(run) >= trials


def calm_and_killed(
    folder: Path, text: str, kills: Sequence[float]
) -> tuple[results.Results, results.Results]:
    """The results of a space's search, and of one whose driver is killed after these shares of its reports."""
    for name in ("calm", "run"):
        (folder / f"{name}.yaml").write_text(text)
    driver = Driver("search", folder / "calm.yaml", "--out", folder / "calm")
    out = driver.wait()
    assert driver.process.returncode == 0, out
    calm, run = results.load(folder / "calm"), folder / "run"
    driver = Driver("search", folder / "run.yaml", "--out", run)
    for share in kills:
        assert driver.until_reports(run, int(share * len(calm.reports)))
        driver.kill()
        driver = Driver("resume", run)
    out = driver.wait()
    assert driver.process.returncode == 0, out
    return calm, results.load(run)


def test_hyperbands_brackets_go_on_after_kills(tmp_path: Path) -> None:
    """Its choices follow from values alone, so that a search killed at any moment makes those of an undisturbed one."""
    text = text_of(13, 200, {"name": "hyperband", "reduction_factor": 4})
    calm, found = calm_and_killed(tmp_path, text, (0.25, 0.5, 0.75))
    assert compare(found, calm) == 13
    assert found.trials["status"].tolist() == calm.trials["status"].tolist()
    assert 0 < (calm.trials["status"] == "stopped").sum() < 13


WAITING: list[dict[str, object]] = [
    {"name": "freeze_thaw"},
    {"name": "asha", "variant": "promote", "grace_steps": 50},
    {"name": "pasha", "grace_steps": 50, "reduction_factor": 2},
]


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("scheduler", WAITING, ids=lambda scheduler: scheduler["name"])
def test_waiting_trials_go_on_after_kills(tmp_path: Path, scheduler: dict[str, object]) -> None:
    """One trial trains at a time, so that a battered search has the trials and reports of a calm one.

    With SOAK=1 the search is longer, and its driver is killed ten times.
    """
    kills, trials, steps = (10, 16, 1200) if "SOAK" in os.environ else (1, 9, 400)
    text = text_of(trials, steps, scheduler, max_at_once=1)
    (tmp_path / "calm").mkdir()
    space = write_space(tmp_path / "calm", text)
    out = Driver("search", space, "--out", tmp_path / "calm" / "run").wait(600)
    calm = results.load(tmp_path / "calm" / "run")
    assert calm.status == "finished", out
    run, done = batter(tmp_path, text, len(calm.reports), kills, seed=2)
    print(f"\nkilled {done}")
    assert done["drivers"] == kills
    found = results.load(run)
    columns = ["trial", "step", "dev.loss", "dev.error_rate"]
    pd.testing.assert_frame_equal(found.reports[columns], calm.reports[columns])
    assert found.status == "finished"
    assert found.trials["status"].tolist() == calm.trials["status"].tolist()
    assert {"finished", "stopped"} <= set(calm.trials["status"])
    configs = [load_history(folder).trials for folder in (run, tmp_path / "calm" / "run")]
    assert [t.config for t in configs[0].values()] == [t.config for t in configs[1].values()]


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("scheduler", WAITING, ids=lambda scheduler: scheduler["name"])
def test_trials_of_two_workers_wait_through_kills(
    tmp_path: Path, scheduler: dict[str, object]
) -> None:
    """Each report comes once, with the numbers of a trial that trains alone and without a pause."""
    kills, trials, steps = (10, 16, 1200) if "SOAK" in os.environ else (1, 9, 400)
    text = text_of(trials, steps, scheduler, max_at_once=2)
    reports = trials * steps // 50 // 8  # every one of these schedulers makes more
    run, done = batter(tmp_path, text, reports, kills, seed=4)
    print(f"\nkilled {done}")
    assert done["drivers"] == kills
    found = results.load(run)
    assert found.status == "finished"
    assert found.trials["trial"].tolist() == [f"trial-{number:05d}" for number in range(trials)]
    assert set(found.trials["status"]) == {"finished", "stopped"}
    for number, trial in enumerate(found.trials["trial"]):
        made = found.reports[found.reports["trial"] == trial]["step"].tolist()
        assert made == [50 * (k + 1) for k in range(len(made))]
        assert command_line.main(["rerun", str(run), str(number), "--check"]) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_search_goes_on_and_one_in_use_is_left_alone(
    calm: results.Results, tmp_path: Path, number: int
) -> None:
    run = tmp_path / "run"
    driver = Driver("search", write_space(tmp_path), "--out", run)
    assert driver.until_reports(run, 4)
    second = Driver("resume", run)
    out = second.wait()
    assert second.process.returncode == 2
    assert (
        f"is in use: a run folder has one search at a time, and process {driver.process.pid} on"
        in out
    )
    driver.process.send_signal(number)
    out = driver.wait(60)
    assert driver.process.returncode == 130, out
    assert "interrupted" in out
    assert "Traceback" not in out
    assert results.load(run).status == "interrupted"
    driver = Driver("resume", run)
    out = driver.wait()
    assert driver.process.returncode == 0, out
    assert "resume " in out
    compare(results.load(run), calm)
    size = (run / "events.jsonl").stat().st_size
    again = Driver("resume", run)
    assert "nothing to do: all 6 trials have ended" in again.wait()
    assert again.process.returncode == 0
    assert (run / "events.jsonl").stat().st_size == size


def test_a_node_that_vanishes_costs_nothing(calm: results.Results, tmp_path: Path) -> None:
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
    )
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    run = tmp_path / "run"

    def remove() -> None:
        while reports_in(run) < 8:
            time.sleep(0.05)
        cluster.remove_node(nodes[1], allow_graceful=False)

    thread = threading.Thread(target=remove)
    thread.start()
    try:
        run_search(load_space(write_space(tmp_path)), out=run, address=cluster.address)
    finally:
        thread.join()
        cluster.shutdown()
    found = results.load(run)
    compare(found, calm)
    assert found.trials["restarts"].sum() >= 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 24 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", place], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("needs the right to mount a file system")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_a_full_disk_ends_nothing(calm: results.Results, tmp_path: Path, small_disk: Path) -> None:
    run = small_disk / "run"
    driver = Driver("search", write_space(tmp_path), "--out", run)
    assert driver.until_reports(run, 4)
    until = time.monotonic() + 4
    with open(small_disk / "filler", "wb", buffering=0) as filler:
        while time.monotonic() < until:  # what checkpoints free is taken at once
            with contextlib.suppress(OSError):
                filler.write(bytes(4096))
                continue
            time.sleep(0.001)
    assert (run / "events.jsonl").read_bytes().endswith(b"\n")
    (small_disk / "filler").unlink()
    out = driver.wait()
    assert driver.process.returncode == 0, out
    assert "No space left on device" in out
    assert "Traceback" not in out
    if results.load(run).status != "finished":  # it ended while the disk was full
        out = Driver("resume", run).wait()
    assert results.load(run).damaged == ()
    compare(results.load(run), calm)
