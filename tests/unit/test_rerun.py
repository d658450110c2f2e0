"""Reports made again against those of a log, and what has changed since."""

import json
from pathlib import Path

import pytest
import torch

from s2s_search.corpus.load import load_corpus
from s2s_search.errors import ConfigError
from s2s_search.metrics import WORST
from s2s_search.nn.fast import native
from s2s_search.runs.environment import graphics, software
from s2s_search.runs.log import EventLog
from s2s_search.runs.manifest import Metrics, load_manifest
from s2s_search.whatif.rerun import changes as changes_of
from s2s_search.whatif.rerun import compare_reports

SPACE = """
model: BasicSeq2Seq
corpus: {name: copy, train: 20, dev: 5}
scheduler: {max_steps: 4}
parameters:
  embedding.dim: 4
  optimizer.learning_rate: [0.1, 0.01]
"""
CONFIG = {
    "model": "BasicSeq2Seq",
    "embedding.dim": 4,
    "optimizer.learning_rate": 0.1,
    "train.max_steps": 4,
}
CORPUS = {"name": "copy", "train": 20, "dev": 5}


def report(step: int, **metrics: object) -> Metrics:
    return {"step": step, "status": "running", "dev.loss": 0.1 + step, "seconds": 2.0, **metrics}


LOGGED = [report(10), report(20)]


def test_seconds_do_not_count_and_what_is_new_neither() -> None:
    logged = [
        {"event": "report", "time": 5.0, "trial": "trial-00000", "node": "n", **row}
        for row in LOGGED
    ]
    again = compare_reports(
        logged, [report(10, seconds=9.0, **{"dev.bleu": 1.0}), report(20, start_seconds=3.0)]
    )
    assert again.sentence() == "identical (2 reports, 4 numbers)"


def test_the_first_number_that_differs_in_its_last_bit() -> None:
    again = compare_reports(LOGGED, [report(10), report(20, **{"dev.loss": 20.1 + 2**-48})])
    assert again.difference is not None
    assert again.difference.startswith("step 20: dev.loss was 20.1 and is 20.10000000000000")
    assert again.sentence().endswith("; everything before is equal (1 report, 2 numbers)")


def test_other_statuses_missing_metrics_and_early_ends_are_differences() -> None:
    assert (
        compare_reports(LOGGED, [report(10, status="diverged")]).difference
        == "step 10: status was 'running' and is 'diverged'"
    )
    assert (
        compare_reports(LOGGED, [{"step": 10, "status": "running"}]).difference
        == "step 10: dev.loss is no longer reported"
    )
    assert (
        compare_reports(LOGGED, [report(10)]).difference
        == "it ends before step 20, which the log has"
    )


def test_what_stands_in_for_a_divergence_is_no_number_that_was_measured() -> None:
    """An earlier version wrote other values for a trial that diverged."""
    logged = [*LOGGED, report(30, status="diverged", **{"dev.loss": 1e6, "learning_rate": 0.1})]
    made = [report(10), report(20), report(30, status="diverged", **WORST, learning_rate=0.1)]
    assert compare_reports(logged, made).sentence() == "identical (3 reports, 6 numbers)"
    made[-1]["learning_rate"] = 0.2
    assert compare_reports(logged, made).difference == "step 30: learning_rate was 0.1 and is 0.2"
    made[-1]["status"] = "running"
    assert (
        compare_reports(logged, made).difference
        == "step 30: status was 'diverged' and is 'running'"
    )


def test_no_more_is_made_than_the_log_has() -> None:
    made = iter([report(10), report(20), report(30)])
    assert compare_reports(LOGGED, made).difference is None
    assert next(made)["step"] == 30


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of one trial, with all that its search writes beside the log."""
    corpus = load_corpus(CORPUS)
    (tmp_path / "space.yaml").write_text(SPACE)
    (tmp_path / "environment.json").write_text(
        json.dumps(software() | {"commit": "abc", "threads": 1})
    )
    (tmp_path / "trial-00000").mkdir()
    (tmp_path / "trial-00000" / "config.json").write_text(json.dumps(CONFIG))
    with EventLog(tmp_path) as log:
        search = {
            "event": "search",
            "name": "x",
            "metric": "dev.loss",
            "goal": "minimize",
            "searched": {},
        }
        log.append(search | {"corpus": {"fingerprint": corpus.fingerprint}})
        log.append({"event": "trial", "trial": "trial-00000", "settings": {}, "config": CONFIG})
        for step in (2, 4, 2):  # the last was said again
            log.append({"event": "report", "trial": "trial-00000", "step": step, "dev.loss": 1.0})
    return tmp_path


def changes(run: Path) -> list[str]:
    return changes_of(load_manifest(run, 0), load_corpus(CORPUS))


def environment(run: Path, **values: object) -> None:
    found = json.loads((run / "environment.json").read_text()) | values
    (run / "environment.json").write_text(json.dumps(found))


def test_nothing_has_changed(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s2s_search.runs.environment._commit", lambda: "abc")
    assert changes(run) == []
    monkeypatch.setattr("s2s_search.runs.environment._commit", lambda: "abc-dirty")
    environment(run, commit="abc-dirty")
    assert changes(run) == ["commit: uncommitted changes then and now, which are not recorded"]


GPU = {"device": "NVIDIA H200", "cuda": "1.0", "driver": "570.86.15", "tf32": False}
GONE = [f"cuda: 1.0 then, {torch.version.cuda} now", "driver: 570.86.15 then, None now"]


@pytest.mark.parametrize(
    "then, found",
    [
        (GPU, ["device: NVIDIA H200 then, no GPU now", *GONE]),
        (
            GPU | {"tf32": True},
            ["device: NVIDIA H200 then, no GPU now", *GONE, "tf32: True then, False now"],
        ),
        ({}, ["device: a GPU then, no GPU now"]),  # written by an older version
    ],
)
def test_a_trial_of_a_gpu_on_a_machine_without_one(
    run: Path, monkeypatch: pytest.MonkeyPatch, then: dict[str, object], found: list[str]
) -> None:
    monkeypatch.setattr("s2s_search.runs.environment._commit", lambda: "abc")
    monkeypatch.setattr("s2s_search.runs.environment.NVIDIA", run / "nothing")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    (run / "space.yaml").write_text(SPACE + "resources: {gpu: 0.5}\n")
    environment(run, **then)
    assert changes(run) == found


def test_the_gpus_of_a_machine_are_named(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s2s_search.runs.environment.NVIDIA", run)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert graphics()["device"] == "a GPU without a name"
    (run / "version").write_text(
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build\n"
    )
    for bus in ("0000:18:00.0", "0000:3b:00.0"):
        (run / "gpus" / bus).mkdir(parents=True)
        (run / "gpus" / bus / "information").write_text(
            "Model: \t\t NVIDIA H200\nIRQ:   \t\t 412\n"
        )
    assert graphics() == {
        "device": "NVIDIA H200",
        "cuda": torch.version.cuda,
        "driver": "570.86.15",
        "tf32": False,
    }
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    try:
        assert graphics()["tf32"] is True
    finally:
        torch.backends.cuda.matmul.fp32_precision = "ieee"
    assert "device" not in software()


def test_an_environment_says_whether_the_loops_are_compiled() -> None:
    assert software()["compiled_loops"] is (native.LIBRARY is not None)


def test_what_has_changed_is_named(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s2s_search.runs.environment._commit", lambda: "def")
    now = software()
    versions = {**now["versions"], "torch": "1.0"}  # type: ignore[dict-item]
    environment(run, processor="another", threads=3, compiled_loops=None, versions=versions)
    tampered = CONFIG | {"optimizer.learning_rate": 0.01}
    (run / "trial-00000" / "config.json").write_text(json.dumps(tampered))
    manifest = load_manifest(run, 0)
    assert manifest.hparams["optimizer.learning_rate"] == 0.01
    assert [row["step"] for row in manifest.reports] == [2, 4]
    other = load_corpus(CORPUS | {"seed": 9})
    assert set(changes_of(manifest, other)) == {
        "optimizer.learning_rate: 0.1 in the log, 0.01 in config.json",
        f"corpus: {manifest.fingerprint} then, {other.fingerprint} now",
        "commit: abc then, def now",
        f"compiled_loops: None then, {now['compiled_loops']} now",
        f"processor: another then, {now['processor']} now",
        "threads: 3 then, 1 now",
        f"torch: 1.0 then, {now['versions']['torch']} now",  # type: ignore[index]
    }


@pytest.mark.parametrize("damage", ["", "[1]", "\x00\ud7ff{"])
def test_files_that_are_damaged_are_done_without(run: Path, damage: str) -> None:
    (run / "trial-00000" / "config.json").write_text(damage)
    (run / "environment.json").write_text(damage)
    assert load_manifest(run, 0).hparams["embedding.dim"] == 4
    assert changes(run) == [
        "environment.json cannot be read: the versions and the machine are not known"
    ]


@pytest.mark.parametrize("versions", [None, [1], "x", {"torch": [3]}])
def test_an_environment_may_hold_anything(run: Path, versions: object) -> None:
    environment(run, versions=versions, processor=None, threads={})
    assert "processor: None then" in " ".join(changes(run))


def test_what_cannot_run_again_is_refused(run: Path) -> None:
    with pytest.raises(ConfigError, match="there is no trial-00003; there is trial-00000"):
        load_manifest(run, 3)
    (run / "trial-00000" / "config.json").write_text(json.dumps(CONFIG | {"embedding.dim": "wide"}))
    with pytest.raises(ConfigError, match=r"trial-00000: embedding.dim"):
        load_manifest(run, 0)
    with EventLog(run) as log:
        exploit = {"event": "exploit", "trial": "trial-00000", "source": "trial-00001"}
        log.append(exploit | {"settings": {}, "config": CONFIG})
    with pytest.raises(ConfigError, match="it cannot run again alone"):
        load_manifest(run, 0)
