"""A run folder that changes while it is read: all that is said of it is of one moment."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from s2s_search.cli.command_line import main
from s2s_search.errors import ConfigError
from s2s_search.report import runs as report_runs
from s2s_search.report.contents import write_report
from s2s_search.results import many, results
from s2s_search.runs.explain import explain
from s2s_search.runs.folder import LOCK
from s2s_search.runs.log import EventLog, open_log
from s2s_search.runs.state import History, load_history
from tests import runs

SEARCH = {
    "event": "search",
    "name": "x",
    "metric": "dev.loss",
    "goal": "minimize",
    "searched": {},
    "trials": 9,
}
ENDED = {"event": "status", "status": "finished"}
ELSEWHERE = "process 7 on a-machine-elsewhere\n"
WRITER = """
import sys
from pathlib import Path
from s2s_search.runs.log import EventLog
from s2s_search.runs.tables import write_tables
folder = Path(sys.argv[1])
with EventLog(folder) as log:
    print("begun", flush=True)
    for k in range(400):
        name = f"trial-{k:05d}"
        log.append({"event": "trial", "trial": name, "settings": {}, "config": {}})
        log.append({"event": "report", "trial": name, "step": 1, "dev.loss": 1.0})
        if k % 50 == 0:
            write_tables(folder)
    log.append({"event": "status", "status": "finished"})
"""


def begin(trial: int) -> dict[str, Any]:
    return {
        "event": "trial",
        "trial": f"trial-{trial:05d}",
        "settings": {},
        "config": {"model": "BasicSeq2Seq"},
    }


def append(folder: Path, *events: dict[str, Any]) -> None:
    with EventLog(folder) as log:
        for event in events:
            log.append(event)


def test_what_a_process_writes_meanwhile(tmp_path: Path) -> None:
    append(tmp_path, SEARCH)
    command, seen = [sys.executable, "-c", WRITER, str(tmp_path)], set()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        status = "running"
        while status == "running":
            run = results.load(tmp_path)
            status = run.status
            assert set(run.trials["trial"]) == set(run.history().trials)
            assert status == run.history().status
            seen.add(len(run.trials))
    assert len(seen) > 1
    assert len(run.trials) == 400


@pytest.mark.parametrize("change", ["ends", "goes on"])
def test_a_search_that_changes_while_it_is_looked_at(
    tmp_path: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(tmp_path, SEARCH, begin(0))
    log = EventLog(tmp_path) if change == "ends" else None
    read = results.read_tables

    def read_and_change(*arguments: Any) -> object:
        nonlocal log
        found = read(*arguments)
        if log is None:
            log = EventLog(tmp_path)
        else:
            log.append(ENDED)
            log.close()
        return found

    with monkeypatch.context() as patch:
        patch.setattr(results, "read_tables", read_and_change)
        run = results.load(tmp_path)
    assert run.status == "running"
    assert run.history().status == "running"
    assert log is not None
    assert results.load(tmp_path).status == ("finished" if change == "ends" else "running")
    if change == "goes on":
        log.close()
        assert results.load(tmp_path).status == "killed"


def test_a_trial_begins_while_a_report_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = runs.write_run(tmp_path / "run", trials=12)
    numbers, load = iter(range(20, 90)), report_runs.load

    def load_between_others(path: Path) -> results.Results:
        append(folder, begin(next(numbers)))
        found = load(path)
        append(folder, begin(next(numbers)))
        return found

    monkeypatch.setattr(report_runs, "load", load_between_others)
    page = write_report([folder], tmp_path)[1].read_text()
    assert "trial-00020" in page
    assert "trial-00021" not in page


def test_what_is_read_later_is_of_the_same_moment(tmp_path: Path) -> None:
    folder = runs.write_run(tmp_path / "run", trials=12)
    run = results.load(folder)
    key = "decoder.rnn_cell.dropout_input_keep_prob"
    before = (
        run.takes_part("attention.dim").tolist(),
        len(run.to_optuna().trials),
        list(run.history().trials),
    )
    append(
        folder,
        {
            **begin(0),
            "event": "exploit",
            "source": "trial-00001",
            "settings": {"attention.dim": None},
        },
    )
    append(folder, begin(13))
    assert (
        run.takes_part("attention.dim").tolist(),
        len(run.to_optuna().trials),
        list(run.history().trials),
    ) == before
    assert run.takes_part(key).all()


def aged(folder: Path, seconds: float) -> None:
    """A log whose newest event is as old, of a search that another machine drives, or drove."""
    append(folder, SEARCH, begin(0))
    log = folder / "events.jsonl"
    age = time.time() - seconds
    lines = log.read_text().splitlines()
    log.write_text(
        "".join(
            line.split('"time": ')[0] + f'"time": {age}, ' + line.split(", ", 2)[2] + "\n"
            for line in lines
        )
    )
    (folder / LOCK).write_text(ELSEWHERE)


@pytest.mark.parametrize(
    "seconds, status", [(30.0, "running"), (-30.0, "running"), (700.0, "killed")]
)
def test_a_search_that_another_machine_drives(
    tmp_path: Path, seconds: float, status: str, capsys: pytest.CaptureFixture[str]
) -> None:
    aged(tmp_path, seconds)
    assert results.load(tmp_path).status == status
    assert load_history(tmp_path).is_running == (status == "running")
    assert main(["results", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert ("runs on another machine, in process 7 on a-machine-elsewhere" in shown) == (
        status == "running"
    )
    assert ("the driver was killed" in shown) == (status == "killed")


def test_a_line_that_is_no_event_is_no_sign_of_life(tmp_path: Path) -> None:
    aged(tmp_path, 700.0)
    with (tmp_path / "events.jsonl").open("a") as file:
        file.write("no event\n")
        file.write('{"event": "note", "message": "torn", "time": ' + str(time.time()))
    assert results.load(tmp_path).status == "killed"


@pytest.mark.parametrize(
    "holder, end, line",
    [
        ("", (), "the search ended before it (killed); resume continues it"),
        ("", (ENDED,), "the search ended before it (finished); resume continues it"),
        (ELSEWHERE, (), None),
    ],
)
def test_explain_says_that_a_search_was_killed(
    tmp_path: Path, holder: str, end: tuple[dict[str, Any], ...], line: str | None
) -> None:
    append(tmp_path, SEARCH, begin(0), *end)
    (tmp_path / LOCK).write_text(holder)
    said = list(explain(load_history(tmp_path), 0))
    assert [text for text in said if text.startswith("the search ended")] == (
        [line] if line else []
    )


def test_a_search_that_runs_is_not_replayed_and_compared_with_a_caution(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = runs.write_run(tmp_path / "run", trials=12)
    append(folder, {"event": "resume", "trials": 13})
    (folder / LOCK).write_text(ELSEWHERE)
    assert main(["replay", str(folder)]) == 2
    assert "a search writes this folder now" in capsys.readouterr().err
    assert main(["compare", str(folder), "0", "2"]) == 0
    assert f"{folder} is still running" in capsys.readouterr().out


def test_several_runs_have_no_one_log(tmp_path: Path) -> None:
    folders = [runs.write_run(tmp_path / name, trials=3) for name in ("a", "b")]
    with pytest.raises(ConfigError, match="has no log of a search"):
        many.load_many(folders).history()


def test_a_log_that_grows_is_read_up_to_its_size(tmp_path: Path) -> None:
    append(tmp_path, SEARCH, begin(0))
    log = open_log(tmp_path)
    append(tmp_path, begin(1), ENDED)
    made: Callable[[], History] = lambda: History(log.read()[0])  # noqa: E731
    assert list(made().trials) == ["trial-00000"]
    assert log.status(made().status) == "killed"
