"""A trial as a file to paste, and the folder of a debug run in the same tables as a search."""

import json
from pathlib import Path
from typing import Any

import pytest

from s2s_search.cli import command_line
from s2s_search.hparams.configuration import resolve
from s2s_search.results import results
from s2s_search.spaces.load import load_space
from tests.runs import write_run
from tests.spaces import DROPOUT, RATES, space_text

SPACE = space_text(
    DROPOUT | RATES | {"attention.dim": 8, "encoder.rnn_cell.cell_spec": {"choices": {"a": {"class": "GRUCell",
     "num_units": 8}, "b": {"class": "LSTMCell", "num_units": 8, "proj_clip": None, "num_proj": None}}}},
    model=["BasicSeq2Seq", "AttentionSeq2Seq"],
    metric={"name": "dev.error_rate"},
    search={"trials": 4, "seed": 3},
    scheduler={"name": "none", "max_steps": 6},
    resources={"cpu": 1},
)  # fmt: skip


def run(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str, str]:
    status = command_line.main([str(a) for a in argv])
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return status, out, err


def reports(text: str) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in text.splitlines()]
    return [
        {key: value for key, value in row.items() if not key.endswith("seconds")} for row in rows
    ]


@pytest.mark.parametrize("number", range(4))
def test_the_file_of_a_trial_runs_to_the_same_numbers_anywhere(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From one folder with files of its own, by relative paths, to another; what the defaults are does not matter."""
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    monkeypatch.chdir(here)
    for name in ("train", "dev"):
        Path(f"{name} é.tsv").write_text("a b\t1 2\nb\t2\nno\tnull\n" * 4)
    files = "{train: 'train é.tsv', dev: 'dev é.tsv', source_delimiter: '', target_delimiter: ' '}"
    Path("space.yaml").write_text(SPACE.replace(SPACE[SPACE.index("corpus:"):SPACE.index("\n", SPACE.index("corpus:"))],
                                                f"corpus: {files}"))  # fmt: skip
    status, out, _ = run(
        capsys, "debug", "--space", "space.yaml", "--trial", number, "--out", "run", "--json"
    )
    assert status == 0
    expected = reports(out)
    status, text, _ = run(capsys, "results", "run", "--best", "--yaml")
    assert status == 0
    monkeypatch.chdir(there)
    Path("pasted.yaml").write_text(text)
    assert run(capsys, "check", "pasted.yaml")[0] == 0
    status, out, _ = run(capsys, "debug", "--space", "pasted.yaml", "--json")
    assert (status, reports(out)) == (0, expected)
    space, (config,) = load_space("pasted.yaml"), load_space("pasted.yaml").trials()
    original = load_space(here / "space.yaml")
    assert resolve(str(config["model"]), config) == resolve(*_model_and(original.trials()[number]))
    assert (space.corpus, space.metric, space.resources) == (
        original.corpus,
        original.metric,
        original.resources,
    )


def _model_and(config: dict[str, object]) -> tuple[str, dict[str, object]]:
    return str(config["model"]), config


def test_the_file_of_a_searchs_trial_is_its_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_run(tmp_path / "run", trials=9)
    table = results.load(folder)
    every = load_space(folder.with_suffix(".yaml")).trials(9)
    best = str(table.best(1)["trial"][0])
    for arguments, name in (([], best), (["--best"], best), (["--trial", "trial-00003"], "trial-00003"),
                            (["--trial", "3", "--sort", "seconds"], "trial-00003")):  # fmt: skip
        status, text, _ = run(capsys, "results", folder, "--yaml", *arguments)
        assert status == 0
        assert text.startswith(f"# {name} of ")
        (tmp_path / "one.yaml").write_text(text)
        (config,) = load_space(tmp_path / "one.yaml").trials()
        wanted = every[int(name.removeprefix("trial-"))]
        assert resolve(*_model_and(config)) == resolve(*_model_and(wanted))
    page = (run(capsys, "report", folder)[0], (folder / "report.md").read_text())
    assert page[0] == 0
    text = page[1].split("check and debug --space:\n\n```\n")[1].split("\n```")[0]
    (tmp_path / "one.yaml").write_text(text)
    (config,) = load_space(tmp_path / "one.yaml").trials()
    assert resolve(*_model_and(config)) == resolve(
        *_model_and(every[int(best.removeprefix("trial-"))])
    )


def test_what_gives_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_run(tmp_path / "run", trials=2)
    for arguments, law in ((["--top", 2], "--yaml prints one configuration, but got --top 2"),
                           (["--trial", 7], "there is no trial-00007; there are trial-00000 to trial-00001"),
                           (["--trial", 0, "--best"], "not allowed with"),
                           (["--json"], "not allowed with")):  # fmt: skip
        status, out, err = run(capsys, "results", folder, "--yaml", *arguments)
        assert (status, out) == (2, "")
        assert law in err
    none = write_run(tmp_path / "none", trials=1)
    first = (none / "events.jsonl").read_text().splitlines()[0]
    (none / "events.jsonl").write_text(first + "\n")
    assert (
        run(capsys, "results", none, "--best", "--yaml")[2]
        == f"{none}: no trial has a result yet\n"
    )


def test_one_trial_of_a_ranking(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_run(tmp_path / "run", trials=4)
    status, out, _ = run(capsys, "results", folder, "--trial", "trial-00002", "--json")
    assert [json.loads(line)["trial"] for line in out.splitlines()] == ["trial-00002"]
    assert status == 0
    status, out, _ = run(capsys, "results", folder, "--trial", 2)
    assert "trial-00002" in out
    assert "trial-00001" not in out


def test_a_debug_run_is_a_search_of_one_trial(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space, folder = tmp_path / "space.yaml", tmp_path / "run"
    space.write_text(SPACE.replace("eval_every_steps: 10", "eval_every_steps: 2"))
    said = reports(
        run(capsys, "debug", "--space", space, "--trial", 1, "--out", folder, "--json")[1]
    )
    table = results.load(folder)
    assert (table.metric, table.goal, table.status, len(table.trials)) == (
        "dev.error_rate",
        "minimize",
        "finished",
        1,
    )
    assert table.reports["step"].tolist() == [2, 4, 6]
    assert table.reports["dev.loss"].tolist() == [report["dev.loss"] for report in said]
    best = min(said, key=lambda report: report["dev.error_rate"])
    row = table.best(1).iloc[0]
    assert (row["best.step"], row["best.dev.error_rate"]) == (best["step"], best["dev.error_rate"])
    status, out, _ = run(capsys, "results", folder)
    assert status == 0
    assert "trial-00000" in out
    assert "worker seconds" not in out


def test_a_debug_run_of_before_and_one_that_is_damaged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a space.yaml dev.loss ranks; lines that are no reports are named and left out."""
    good = [
        {"step": 10 * k, "status": "running", "seconds": 1.0 * k, "dev.loss": 3.0 - k}
        for k in (1, 2)
    ]
    lines = [
        json.dumps(good[0]),
        "{",
        "[]",
        '{"step": 1, "status": "\\u001b[31m", "seconds": 1}',
        json.dumps(good[1]),
        '{"st',
    ]
    (tmp_path / "config.json").write_text('{"model": "BasicSeq2Seq"}')
    (tmp_path / "reports.jsonl").write_text("\n".join(lines))
    table = results.load(tmp_path)
    assert (table.metric, table.trials["best.step"].tolist(), table.trials["status"].tolist()) == (
        "dev.loss",
        [20],
        ["running"],
    )
    assert [problem.partition(": ")[2] for problem in table.damaged] == [
        f"line {k}: no report, left out" for k in (2, 3, 4, 6)
    ]
    status, _, err = run(capsys, "results", tmp_path, "--yaml")
    assert status == 2
    assert "space.yaml" in err
    (tmp_path / "config.json").write_text("[]")
    assert run(capsys, "results", tmp_path)[0] == 2
    (tmp_path / "reports.jsonl").write_text("")
    (tmp_path / "config.json").write_text("{}")
    assert run(capsys, "results", tmp_path)[0] == 0
