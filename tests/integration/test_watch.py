"""A search in one process and its followers in others, each on a terminal of its own."""

import contextlib
import io
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator, Sequence
from fcntl import ioctl
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from s2s_search.cli.command_line import main
from s2s_search.display.progress import Progress
from s2s_search.display.watch import Follower
from s2s_search.results import results
from s2s_search.runs.folder import LOCK
from s2s_search.runs.log import new_events
from tests.spaces import RATES, space_text
from tests.terminal import Terminal

SHOW_CURSOR = "\x1b[?25h"
ROOT = Path(__file__).parents[2]
SPACE = space_text(
    RATES,
    model="BasicSeq2Seq",
    search={"trials": 5, "seed": 3},
    scheduler={"name": "asha", "max_steps": 60, "grace_steps": 20, "reduction_factor": 2},
)


class Program:
    """run_search.py on a terminal of its own, of which a thread reads what it writes."""

    def __init__(
        self, *arguments: object, width: int = 80, height: int = 24, **environ: str
    ) -> None:
        self.size, self.text = (width, height), ""
        self._terminal, inner = pty.openpty()
        ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
        environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
        self.process = subprocess.Popen(
            [sys.executable, ROOT / "run_search.py", *map(str, arguments)],
            env=environment | {"TERM": "xterm-256color", "PYTHONUTF8": "1"} | environ,
            **dict.fromkeys(("stdin", "stdout", "stderr"), inner),
            start_new_session=True,
            preexec_fn=lambda: ioctl(0, termios.TIOCSCTTY, 0),  # so that keys become signals
        )
        os.close(inner)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        data = b""
        with contextlib.suppress(OSError):  # the program has ended
            while more := os.read(self._terminal, 65536):
                data += more
                self.text = data.decode(errors="ignore").replace("\r\n", "\n")

    def press(self, keys: bytes) -> None:
        os.write(self._terminal, keys)

    def wait_for(self, pattern: str, seconds: float = 120) -> None:
        due = time.monotonic() + seconds
        while not re.search(pattern, self.text):
            assert time.monotonic() < due, self.text
            time.sleep(0.05)

    def wait(self) -> int:
        status = self.process.wait(timeout=240)
        self._reader.join()
        os.close(self._terminal)
        return status

    @property
    def screen(self) -> list[str]:
        """The last view, where it stands; after it the cursor is there again."""
        views, end, _ = self.text.partition(SHOW_CURSOR)
        assert end
        terminal = Terminal(*self.size)
        terminal.write(views)
        return terminal.screen

    @property
    def last_words(self) -> str:
        """What was written below the view, lines that the terminal broke as one."""
        return self.text.partition(SHOW_CURSOR)[2]


@contextlib.contextmanager
def searching(folder: Path, *arguments: object, **how: Any) -> Iterator[Program]:
    """A search that is ended at last, if it has not ended."""
    (folder / "space.yaml").write_text(SPACE)
    program = Program("search", folder / "space.yaml", "--out", folder / "run", *arguments, **how)
    due = time.monotonic() + 60
    while not (folder / "run" / "events.jsonl").exists() and time.monotonic() < due:
        time.sleep(0.05)
    try:
        yield program
    finally:
        program.process.terminate()


def write_log(folder: Path, events: Sequence[dict[str, Any]]) -> None:
    folder.mkdir(exist_ok=True)
    lines = [json.dumps({"time": 1000.0 + k} | event) + "\n" for k, event in enumerate(events)]
    (folder / "events.jsonl").write_text("".join(lines))


def begun(*events: dict[str, Any]) -> list[dict[str, Any]]:
    search = {
        "event": "search",
        "name": "toy",
        "metric": "dev.loss",
        "goal": "minimize",
        "searched": {},
        "trials": 2,
    }
    trial = {
        "event": "trial",
        "trial": "trial-00000",
        "settings": {},
        "config": {"train.max_steps": 100},
    }
    report = {
        "event": "report",
        "trial": "trial-00000",
        "step": 10,
        "dev.loss": 1.5,
        "status": "running",
    }
    return [search, trial, report, *events]


# --- a real search ---


@pytest.mark.slow
def test_a_search_and_its_followers_show_the_same(tmp_path: Path) -> None:
    with searching(tmp_path) as program:
        wide = Program("watch", tmp_path / "run", "--interval", 0.2)
        narrow = Program(
            "watch", tmp_path / "run", "--interval", 0.2, width=60, height=20, TERM="vt100"
        )
        plain = Program("watch", tmp_path / "run", "--interval", 0.2, NO_COLOR="1")
        assert [follower.wait() for follower in (wide, narrow, plain, program)] == [0, 0, 0, 0]
    best = results.load(tmp_path / "run").best(1).iloc[0]
    for follower in (wide, narrow):
        assert re.search(
            "trial-0000[0-4]  [▁-█]+ +[0-9.]+ +[0-9]+ of 60",
            re.sub(r"\x1b\[[\d;]*m", "", follower.text),
        )
        first, counts, third, *_ = follower.screen
        assert re.fullmatch(r"space · \d+:\d\d, finished", first)
        assert re.match("5 trials: [1-5] finished", counts)
        assert third.startswith(
            f"best dev.loss {best['best.dev.loss']:.4g} · {best['trial']} at step"
        )
        assert "run_search.py results" in follower.last_words
    assert wide.screen[:4] == program.screen[:4]
    assert "\x1b" not in plain.text
    ends = re.findall(
        r"^\[\d+:\d\d\] (trial-0000\d) (?:finished|stopped)", plain.text, re.MULTILINE
    )
    assert len(ends) == len(set(ends)) <= 5


@pytest.mark.slow
def test_a_search_that_is_killed_is_said_and_how_it_goes_on(tmp_path: Path) -> None:
    with searching(tmp_path, "--hparams", "train.max_steps=100000", "--trials", "2") as program:
        follower = Program("watch", tmp_path / "run", "--interval", 0.2)
        follower.wait_for("best")
        program.process.kill()
        program.wait()
        assert follower.wait() == 1
    assert follower.screen[0].endswith(", killed")
    assert (
        f"the driver was killed; to resume: python run_search.py resume {tmp_path}"
        in follower.last_words
    )


@pytest.mark.slow
def test_ctrl_c_leaves_the_search_alone(tmp_path: Path) -> None:
    with searching(tmp_path, "--hparams", "train.max_steps=100000", "--trials", "2") as program:
        follower = Program("watch", tmp_path / "run")
        follower.wait_for("best")
        follower.press(b"\x03")
        assert follower.wait() == 130
        size = (tmp_path / "run" / "events.jsonl").stat().st_size
        due = time.monotonic() + 60
        while (tmp_path / "run" / "events.jsonl").stat().st_size == size and time.monotonic() < due:
            time.sleep(0.1)
        assert (tmp_path / "run" / "events.jsonl").stat().st_size > size
        program.press(b"\x03")
        assert program.wait() == 130
    assert "the search still runs" in follower.last_words


# --- logs without a search ---


ENDS = {"finished": 0, "interrupted": 130, "out of budget": 0, "failed": 1}


@pytest.mark.parametrize("status", ENDS)
def test_it_ends_as_the_search_did(
    status: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_log(tmp_path / "run", begun({"event": "status", "status": status}))
    assert main(["watch", str(tmp_path / "run")]) == ENDS[status]
    out, err = capsys.readouterr()
    assert (
        f"[0:03] {status} · 2 trials: 1 running, 1 to start · best dev.loss 1.5 at step 10 "
        "(trial-00000)" in out
    )
    assert f"the ranking: python run_search.py results {tmp_path / 'run'}" in out
    assert ("resume" in err) == (status != "finished")


def test_a_folder_that_is_none_is_told_the_nearest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("attention", "cells"):
        write_log(tmp_path / name, begun())
    assert main(["watch", str(tmp_path / "atention")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert (
        "is no folder of a search: events.jsonl: No such file or directory; did you mean "
        f"'{tmp_path / 'attention'}'?" in err
    )


def test_a_folder_where_no_search_began(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("s2s_search.display.watch.SECONDS_OF_SILENCE", 0.1)
    (tmp_path / "events.jsonl").touch()
    assert main(["watch", str(tmp_path), "--interval", "0.1"]) == 2
    assert "is no log of a search" in capsys.readouterr().err


def test_a_lock_that_may_not_be_seen_is_given_more_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("s2s_search.display.watch.SECONDS_OF_SILENCE", 0.0)
    monkeypatch.setattr("s2s_search.runs.log.SECONDS_ELSEWHERE", 1.0)
    took = []
    for host in ("", "process 1 on a-machine-elsewhere\n"):
        write_log(tmp_path, [event | {"time": time.time()} for event in begun()])
        (tmp_path / LOCK).write_text(host)
        began = time.monotonic()
        assert main(["watch", str(tmp_path), "--interval", "0.05"]) == 1
        took.append(time.monotonic() - began)
    assert took[0] < 0.9 < 1.0 <= took[1]
    assert "the driver was killed" in capsys.readouterr().err


def test_a_log_that_is_shorter_than_it_was_is_read_anew(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text("process 1 on a-machine-elsewhere\n")
    write_log(tmp_path, begun({"event": "note", "message": "a message " * 99}))
    follower = Follower(tmp_path, Progress(Console(file=io.StringIO(), width=200)))
    assert follower.read() == "running"
    write_log(tmp_path, begun({"event": "status", "status": "finished"}))
    assert follower.read() == "finished"
    assert follower.progress.standing is not None
    assert follower.progress.standing.note == ""


def test_the_log_is_read_from_where_it_was_left_and_a_torn_line_waits(tmp_path: Path) -> None:
    write_log(tmp_path, begun())
    log = tmp_path / "events.jsonl"
    events, end = new_events(tmp_path, 0)
    assert [event["event"] for event in events] == ["search", "trial", "report"]
    line = (
        json.dumps({"event": "note", "time": 1.0, "message": "é"}, ensure_ascii=False).encode()
        + b"\n"
    )
    for cut in range(len(line)):
        with open(log, "ab") as file:
            file.write(line[:cut])
        assert new_events(tmp_path, end) == ([], end)
        os.truncate(log, end)  # as the writer that goes on does
    with open(log, "ab") as file:
        file.write(b"no event\n" + line + line[:9])
    events, after = new_events(tmp_path, end)
    assert events == [json.loads(line)]
    assert after == end + len(b"no event\n" + line)
    assert new_events(tmp_path, after) == ([], after)
