"""A terminal that closes, nohup, and a temporary folder whose path is too long for sockets: real processes."""

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from s2s_search.results import results
from tests.spaces import space_text

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent


def search(folder: Path, steps: int) -> tuple[list[str], dict[str, str]]:
    """The command of a search of two trials, and an environment whose TMPDIR is long, as that of a Slurm job."""
    temporary = folder / ("job-" + "0" * 80)
    temporary.mkdir()
    text = space_text(
        {"train.seed": [0, 1], "train.eval_every_steps": 20},
        model="BasicSeq2Seq",
        search={"method": "grid"},
        scheduler={"name": "none", "max_steps": steps, "grace_steps": steps},
    )
    (folder / "space.yaml").write_text(text)
    command = [sys.executable, str(ROOT / "run_search.py"), "search", str(folder / "space.yaml")]
    environment = {key: value for key, value in os.environ.items() if key != "RAY_TMPDIR"}
    return [*command, "--out", str(folder / "run")], environment | {
        "TMPDIR": str(temporary),
        "TERM": "xterm",
    }


def await_reports(run: Path, count: int) -> None:
    until = time.monotonic() + 240
    log = run / "events.jsonl"
    while not log.exists() or log.read_bytes().count(b'"event": "report"') < count:
        assert time.monotonic() < until
        time.sleep(0.1)


def mentioning(text: str) -> list[str]:
    """The command lines of the processes that name a folder."""
    lines = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(file.read_text().replace("\0", " "))
        except OSError:
            continue
    return [line for line in lines if text in line]


def test_a_terminal_that_closes_ends_the_search_in_order(tmp_path: Path) -> None:
    """Its kernel sends SIGHUP to all processes in the terminal, Ray's too, and what is written there fails."""
    command, environment = search(tmp_path, steps=1_000_000)
    process, terminal = pty.fork()
    if process == 0:
        os.execve(command[0], command, environment)
    await_reports(tmp_path / "run", 4)
    short = {path for path in Path("/tmp").glob("s2s-*") if mentioning(str(path))}
    os.close(terminal)
    until, ended = time.monotonic() + 120, 0
    while not ended and time.monotonic() < until:
        ended, status = os.waitpid(process, os.WNOHANG)
        time.sleep(0.1)
    assert ended == process
    assert os.waitstatus_to_exitcode(status) == 130
    found = results.load(tmp_path / "run")
    assert found.status == "interrupted"
    assert len(found.reports) >= 4
    assert short
    assert not [
        path for path in short if path.exists() and str(path) in " ".join(mentioning(str(path)))
    ]


def test_a_search_goes_on_when_the_reader_of_its_output_has_closed_the_pipe(tmp_path: Path) -> None:
    """As in `search 2>&1 | head -1`."""
    command, environment = search(tmp_path, steps=60)
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert process.wait(timeout=240) == 0
    found = results.load(tmp_path / "run")
    assert found.status == "finished"
    assert len(found.reports) == 6


def test_under_nohup_a_search_lives_on(tmp_path: Path) -> None:
    command, environment = search(tmp_path, steps=200)
    with subprocess.Popen(
        ["nohup", *command],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as process:
        await_reports(tmp_path / "run", 1)
        os.killpg(process.pid, signal.SIGHUP)
        out, _ = process.communicate(timeout=240)
    assert process.returncode == 0, out.decode()
    assert results.load(tmp_path / "run").trials["status"].tolist() == ["finished", "finished"]
