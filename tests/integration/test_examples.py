"""The examples on what a real search leaves, and what that search told trackers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from nbclient import NotebookClient

from s2s_search.corpus.load import load_corpus
from s2s_search.results import results
from s2s_search.results.scores import comparable
from s2s_search.spaces.load import load_space
from tests.runs import write_run
from tests.spaces import RATES, distance, space_text
from tests.test_docs import ROOT
from tests.unit.test_trackers import mlflow_runs, scalars, sessions, wandb_runs

SPACE = space_text(
    RATES
    | {"attention.dim": 8, "attention.score_type": ["dot", "bahdanau"]}
    | {"encoder.type": ["UnidirectionalRNNEncoder", "BidirectionalRNNEncoder"]},
    model=["BasicSeq2Seq", "AttentionSeq2Seq"],
    search={"method": "random", "trials": 12, "seed": 3},
    scheduler={"name": "asha", "max_steps": 30, "grace_steps": 10, "reduction_factor": 2},
)

# The examples read a whole search.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def search(folder: Path, *more: str) -> Path:
    (folder / "tiny.yaml").write_text(SPACE)
    return run_search("search", "tiny.yaml", "--out", "run", *more, cwd=folder)


def run_search(*arguments: str, cwd: Path) -> Path:
    command = [sys.executable, str(ROOT / "run_search.py"), *arguments]
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return cwd / "run"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return search(tmp_path_factory.mktemp("examples"))


def example(run: Path, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "examples" / name), *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, cwd=run.parent, capture_output=True, text=True, check=False, env=environment
    )


def test_the_error_on_the_test_part_is_that_of_what_decode_answers(run: Path) -> None:
    """Counted here with plain loops, over the answers of another command to the test part's sources."""
    command = [sys.executable, str(ROOT / "run_search.py"), "evaluate", "run", "--split", "test"]
    shown = subprocess.run(
        [*command, "--json"], cwd=run.parent, capture_output=True, text=True, check=True
    )
    found = json.loads(shown.stdout)
    assert found["trial"] == str(results.load(run).best(1)["trial"][0])
    assert (found["fresh"], found["looks"]) == (False, 1)
    corpus = load_corpus(load_space(run.parent / "tiny.yaml").corpus)
    test = corpus.test
    assert test is not None
    pairs = [
        (
            " ".join(corpus.source_vocab.decode(test.source(i))),
            " ".join(corpus.target_vocab.decode(test.target(i))),
        )
        for i in range(len(test))
    ]
    command = [sys.executable, str(ROOT / "run_search.py"), "decode", "run"]
    given = "".join(f"{source}\n" for source, _ in pairs)
    answers = subprocess.run(
        command, cwd=run.parent, input=given, capture_output=True, text=True, check=True
    ).stdout
    targets = [target.split() for _, target in pairs]
    edits = [
        distance(answer.split(), target)
        for answer, target in zip(answers.splitlines(), targets, strict=True)
    ]
    assert found["test.error_rate"] == pytest.approx(sum(edits) / sum(map(len, targets)), rel=1e-3)
    assert found["test.word_error_rate"] == pytest.approx(
        sum(edit > 0 for edit in edits) / len(pairs), rel=1e-3
    )


def test_which_attention_says_what_the_trials_say(run: Path) -> None:
    shown = example(run, "which_attention.py", "run")
    assert shown.returncode == 0, shown.stderr
    assert comparable(results.load(run)).phrase in shown.stdout.splitlines()[0]
    trials = results.load(run).trials
    trials = trials.assign(score=comparable(results.load(run)).judged).dropna(subset="score")
    for value in ("dot", "bahdanau"):
        scores = trials[trials["attention.score_type"] == value]["score"].sort_values()
        half = scores.head((len(scores) + 1) // 2)
        lines = [line.split() for line in shown.stdout.splitlines()]
        (line,) = [line for line in lines if line[0] == value and line[1].isdigit()]
        assert line[1] == str(len(scores))
        assert float(line[2]) == pytest.approx(scores.min(), abs=1e-4)
        assert float(line[4]) == pytest.approx(half.mean(), abs=1e-4)
    assert "tell them apart" in shown.stdout or "(p = " in shown.stdout.splitlines()[-1]


def test_an_example_names_what_is_wrong(run: Path) -> None:
    for name, arguments in {
        "which_attention.py": ("run", "--key", "attention.score_typ"),
        "learning_curves.py": ("nowhere", "--out", "curves.csv"),
    }.items():
        shown = example(run, name, *arguments)
        assert shown.returncode == 1
        assert "Traceback" not in shown.stderr
        assert arguments[-1 if "key" in arguments[1] else 0] in shown.stderr


def test_curves_are_of_numbers(tmp_path: Path) -> None:
    shown = example(
        write_run(tmp_path / "run"),
        "learning_curves.py",
        "run",
        "--metric",
        "status",
        "--out",
        "c.csv",
    )
    assert (shown.returncode, shown.stdout) == (1, "")
    assert (
        shown.stderr
        == "--metric status: is no number; dev.error_rate is what the search optimizes\n"
    )


def test_learning_curves_as_csv_and_as_a_page(run: Path) -> None:
    table = example(
        run, "learning_curves.py", "run", "--out", "curves.csv", "--metric", "train.loss"
    )
    page = example(run, "learning_curves.py", "run", "--out", "curves.html")
    assert table.returncode == page.returncode == 0, table.stderr + page.stderr
    read = pd.read_csv(run.parent / "curves.csv", index_col="step")
    reports = results.load(run).reports
    for trial, curve in reports.groupby("trial"):
        assert read[f"run {trial}"].dropna().tolist() == pytest.approx(curve["train.loss"].tolist())
    text = (run.parent / "curves.html").read_text()
    assert all(trial in text for trial in reports["trial"].unique())
    assert '<script src="http' not in text


def test_the_notebook_runs(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNS", "run")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(ROOT / "examples" / "analysis.ipynb", as_version=4)
    NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(run.parent)}}
    ).execute()
    shown = "".join(
        output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", ())
    )
    assert "run | 12 trials | finished | dev.loss to minimize" in shown
    assert results.load(run).best(1)["trial"][0] in shown


def test_the_stored_notebook_says_nothing_of_the_machine_that_made_it() -> None:
    notebook = nbformat.read(ROOT / "examples" / "analysis.ipynb", as_version=4)
    text = nbformat.writes(notebook)
    assert not [
        word
        for word in ("/home", "/tmp", "/root", "/Users", "\\\\Users", "Traceback")
        if word in text
    ]
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    outputs = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
    assert all(outputs)
    assert all("execution" not in cell.metadata for cell in notebook.cells)


@pytest.mark.filterwarnings("default")  # the libraries' own
def test_a_search_tells_three_tools_what_its_tables_say(tmp_path: Path) -> None:
    folder = search(tmp_path, "--log", "tensorboard,mlflow,wandb")
    found = results.load(folder)
    curves = {name: list(curve.dropna().items()) for name, curve in found.curves().items()}
    assert len(curves) == 12
    runs, theirs = mlflow_runs(folder), wandb_runs(folder)
    assert {name: run.steps for name, run in runs.items()} == curves
    assert {name: run["steps"] for name, run in theirs.items()} == curves
    for row in found.trials.to_dict("records"):
        name = row["trial"]
        told = scalars(folder, name, "dev.loss")
        assert [step for step, _ in told] == [step for step, _ in curves[name]]
        assert [value for _, value in told] == pytest.approx(
            [value for _, value in curves[name]], rel=1e-6
        )
        rate = row["optimizer.learning_rate"]
        start = sessions(folder, name)["session_start_info"].session_start_info
        assert start.hparams["optimizer.learning_rate"].number_value == rate
        assert float(runs[name].data.params["optimizer.learning_rate"]) == rate
        assert theirs[name]["config"]["optimizer.learning_rate"] == rate
        assert runs[name].data.tags["status"] == row["status"]
    assert not [
        event for event in (folder / "events.jsonl").read_text().splitlines() if '"note"' in event
    ]
    before = set(theirs)
    assert (
        run_search("resume", "run", "--trials", "14", cwd=tmp_path) == folder
    )  # tells those that heard so far
    added = set(results.load(folder).trials["trial"]) - before
    assert len(added) == 2
    assert added <= set(mlflow_runs(folder)) & set(wandb_runs(folder))
    assert all(scalars(folder, name, "dev.loss") for name in added)
