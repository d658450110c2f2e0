"""Real searches, run again: replicates with other seeds, also killed, and a trial that gives the same numbers."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from s2s_search.cli import command_line
from s2s_search.errors import ConfigError, quantity
from s2s_search.results import results
from s2s_search.results.replicates import replicates
from s2s_search.runs.log import first_event
from s2s_search.spaces.load import load_space
from s2s_search.tuning.start import replicate_search, resume_search, run_search
from tests.spaces import COPY, DROPOUT, RATES, space_text

pytestmark = pytest.mark.slow  # each test runs whole searches

ROOT = Path(__file__).parents[2]
RATE = "optimizer.learning_rate"
SPACE = space_text(
    DROPOUT | RATES | {"attention.dim": 8},
    model="AttentionSeq2Seq",
    corpus=COPY | {"train": 200, "dev": 20, "max_length": 4},
    search={"trials": 4, "seed": 3},
    scheduler={"name": "asha", "max_steps": 40, "grace_steps": 10, "reduction_factor": 2},
)


@pytest.fixture(scope="module")
def searched(address: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a finished search."""
    folder = tmp_path_factory.mktemp("searched")
    (folder / "space.yaml").write_text(SPACE)
    assert (
        run_search(load_space(folder / "space.yaml"), out=folder / "run", address=address).status
        == "finished"
    )
    return folder / "run"


@pytest.fixture(scope="module")
def replicated(address: str, searched: Path) -> Path:
    out = searched.parent / "replicates"
    assert replicate_search(searched, top=2, seeds=2, out=out, address=address).status == "finished"
    return out


def test_the_best_run_again_with_other_seeds_to_the_end(
    searched: Path, replicated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    original, again = results.load(searched), results.load(replicated)
    assert (again.name, again.metric, len(again.trials)) == ("space-replicates", original.metric, 4)
    assert again.trials["status"].eq("finished").all()
    assert again.trials["step"].eq(40).all()
    best = original.best(2)[RATE].tolist()
    assert again.trials[RATE].tolist() == [best[0], best[0], best[1], best[1]]
    assert again.trials["seed"].tolist() == [4, 5, 4, 5]  # the search had 3
    assert again.trials["best.dev.loss"].nunique() == 4
    assert first_event(replicated)["replicates_of"] == str(searched)

    assert command_line.main(["results", str(replicated)]) == 0
    printed = capsys.readouterr().out
    assert "dev.loss over seeds" in printed
    for row in replicates(again).to_dict("records"):
        assert row["n"] == 2
        assert f"{row['mean']:.4g}" in printed
    assert command_line.main(["compare", str(replicated), "0", "2"]) == 0
    printed = capsys.readouterr().out
    assert "over 2 and 2 seeds" in printed
    assert "paired over 20 dev examples" in printed


def test_stopped_trials_are_trained_to_the_end(
    address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One trial at a time, and the last two learn nothing: asha stops them."""
    text = space_text(
        {RATE: [1e-2, 3e-3, 1e-6, 1e-7], "attention.dim": 8},
        model="AttentionSeq2Seq",
        corpus=COPY | {"train": 200, "dev": 20, "max_length": 4},
        search={"method": "grid"},
        scheduler={"name": "asha", "max_steps": 40, "grace_steps": 10, "reduction_factor": 2},
        resources={"cpu": 2},
    )
    (tmp_path / "space.yaml").write_text(text)
    searched = tmp_path / "run"
    run_search(load_space(tmp_path / "space.yaml"), out=searched, address=address)
    original = results.load(searched)
    stopped = original.trials[original.trials["status"] == "stopped"]
    assert {1e-6, 1e-7} <= set(stopped[RATE])
    out = tmp_path / "audit"
    count = len(stopped)
    outcome = replicate_search(searched, top=1, seeds=1, audit=count, out=out, address=address)
    assert outcome.status == "finished"
    audits = results.load(out)
    assert audits.name == "space-audit"
    assert audits.trials["status"].eq("finished").all()
    assert audits.trials["step"].eq(40).all()
    assert sorted(audits.trials[RATE]) == sorted(stopped[RATE])
    # Until its stop, each trial is the same as before.
    for _, row in stopped.iterrows():
        again = audits.trials["trial"][audits.trials[RATE] == row[RATE]].iloc[0]
        was, now = (
            table.reports[table.reports["trial"] == name].set_index("step")["dev.loss"]
            for table, name in ((original, row["trial"]), (audits, again))
        )
        assert now[was.index].tolist() == was.tolist()
    with pytest.raises(ConfigError, match=rf"of {count} trials that were stopped, 0 have not been"):
        replicate_search(searched, top=1, seeds=1, audit=1, address=address)
    assert command_line.main(["report", str(searched)]) == 0
    text = (searched / "report.md").read_text()
    assert f"Of {quantity(count, 'stopped trial')} trained to the end" in text
    capsys.readouterr()


def test_replicates_that_were_killed_go_on(
    address: str, searched: Path, replicated: Path, tmp_path: Path
) -> None:
    out = tmp_path / "replicates"
    command = [
        sys.executable,
        str(ROOT / "run_search.py"),
        "replicate",
        str(searched),
        "--out",
        str(out),
    ]
    driver = subprocess.Popen(
        [*command, "--top", "2", "--seeds", "3"],
        env=os.environ | {"RAY_TMPDIR": os.environ["RAY_TMPDIR"] + "/own"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until = time.monotonic() + 120
    log = out / "events.jsonl"
    while not (log.exists() and b'"report"' in log.read_bytes()) and time.monotonic() < until:
        time.sleep(0.02)
    driver.send_signal(signal.SIGKILL)
    driver.wait(60)
    assert results.load(out).status == "killed"
    with pytest.raises(ConfigError, match="replicates are not drawn; replicate again gives more"):
        resume_search(out, trials=9)
    assert resume_search(out, address=address).status == "finished"
    table = results.load(out)
    assert sorted(table.trials["seed"]) == [6, 6, 7, 7, 8, 8]  # `replicated` has 4 and 5
    assert table.trials["step"].eq(40).all()
    assert not table.reports.duplicated(["trial", "step"]).any()


def test_replicates_of_replicates_have_seeds_of_their_own(
    address: str, replicated: Path, tmp_path: Path
) -> None:
    assert (
        replicate_search(replicated, top=1, seeds=2, out=tmp_path / "again", address=address).status
        == "finished"
    )
    again = results.load(tmp_path / "again")
    assert again.name == "space-replicates"
    assert again.trials["seed"].tolist() == [6, 7]


def test_what_cannot_be_replicated_is_refused_without_a_trace(
    searched: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="--top 9: only 4 different configurations have a result"):
        replicate_search(searched, top=9, seeds=2, out=tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_search_with_replicates_says_what_they_come_to(
    address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(SPACE.replace("trials: 4,", "trials: 1, replicates: 3,"))
    assert (
        command_line.main(
            ["search", str(path), "--out", str(tmp_path / "run"), "--address", address]
        )
        == 0
    )
    assert "dev.loss over seeds" in capsys.readouterr().out
    table = results.load(tmp_path / "run")
    assert sorted(table.trials["seed"]) == [3, 4, 5]
    assert replicates(table)["trials"].tolist() == [3]


@pytest.mark.parametrize("trial", [0, 1, 2, 3])
def test_a_trial_gives_the_same_numbers_again(
    searched: Path, trial: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command_line.main(["rerun", str(searched), str(trial), "--check"]) == 0
    reports = results.load(searched).reports
    count = int((reports["trial"] == f"trial-{trial:05d}").sum())
    assert f"identical ({count} report" in capsys.readouterr().out


def test_a_trial_of_another_learning_rate_does_not(
    searched: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best = int(results.load(searched).best(1)["trial"][0][-5:])
    run = shutil.copytree(searched, tmp_path / "run", ignore=shutil.ignore_patterns("ray"))
    config = run / f"trial-{best:05d}" / "config.json"
    values = json.loads(config.read_text())
    late = {"optimizer.lr_decay_type": "exponential_decay", "optimizer.lr_start_decay_at": 25}
    config.write_text(
        json.dumps(values | late | {"optimizer.lr_decay_steps": 1, "optimizer.lr_decay_rate": 0.5})
    )
    assert command_line.main(["rerun", str(run), str(best), "--check"]) == 1
    printed = capsys.readouterr().out
    assert (
        "not identical: step 30: learning_rate was " in printed
    )  # the reports at 10 and 20 are as they were
    assert "everything before is equal (2 reports, 20 numbers)" in printed
    assert "optimizer.lr_decay_type:  in the log, exponential_decay in config.json" in printed
