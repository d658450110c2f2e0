"""The event log: one writer, whole lines, and what happens where there is no room."""

import concurrent.futures
import contextlib
import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from s2s_search.errors import ConfigError
from s2s_search.results import results
from s2s_search.runs import folder
from s2s_search.runs import log as run_log
from s2s_search.runs.folder import EVENTS, LOCK, check_writable, is_locked
from s2s_search.runs.log import EventLog, first_event, read_events
from s2s_search.runs.state import History

SEARCH = {"event": "search", "name": "x", "metric": "dev.loss", "goal": "minimize", "searched": {}}
HOLDER = """
import sys, time
from pathlib import Path
from s2s_search.runs.log import EventLog
log = EventLog(Path(sys.argv[1]))
print("open", flush=True)
time.sleep(60)
"""


def test_a_second_writer_is_refused_and_a_killed_one_is_no_hindrance(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        assert is_locked(tmp_path)
        with pytest.raises(ConfigError, match=f"is in use: .*process {holder.pid} on"):
            EventLog(tmp_path)
        holder.send_signal(signal.SIGKILL)
    assert not is_locked(tmp_path)
    with EventLog(tmp_path):
        assert is_locked(tmp_path)
        with pytest.raises(ConfigError, match=f"process {os.getpid()} on"):
            EventLog(tmp_path)
    assert not is_locked(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [EVENTS]


@pytest.mark.parametrize("torn", [b'{"event": "no', b"x" * 200_000])
def test_what_a_killed_writer_had_begun_is_cut_off(tmp_path: Path, torn: bytes) -> None:
    with EventLog(tmp_path) as log:
        log.append(SEARCH)
    whole = (tmp_path / EVENTS).read_bytes()
    (tmp_path / EVENTS).write_bytes(whole + torn)
    assert read_events(tmp_path)[1] == []
    with EventLog(tmp_path) as log:
        log.append({"event": "note", "message": "on"})
    events, damaged = read_events(tmp_path)
    assert [event["event"] for event in events] == ["search", "note"]
    assert damaged == []


@pytest.mark.parametrize("half", [True, False])
def test_events_wait_for_room_and_no_line_is_half(
    tmp_path: Path, half: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write

    def full(file: int, data: bytes) -> int:
        if half:
            return write(file, data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    with EventLog(tmp_path) as log:
        log.append(SEARCH)
        before = (tmp_path / EVENTS).read_bytes()
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            for k in range(3):
                log.append({"event": "note", "message": str(k)})
            assert log.full == "No space left on device"
            assert (tmp_path / EVENTS).read_bytes() == before
        log.flush()
        assert log.full == ""
    assert [event.get("message") for event in read_events(tmp_path)[0]] == [None, "0", "1", "2"]


LIMITED = """
import resource, sys
from pathlib import Path
from s2s_search.runs.log import EventLog
log = EventLog(Path(sys.argv[1]))
log.append({"event": "search", "name": "x", "metric": "dev.loss", "goal": "minimize", "searched": {}})
size, (_, most) = log._size, resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, most))  # room for one more, and the half of another
for k in range(3):
    log.append({"event": "note", "message": str(k)})
assert log.full, "there was room"
print((log.folder / "events.jsonl").read_bytes().count(b"note"), flush=True)
assert (log.folder / "events.jsonl").read_bytes().endswith(b"}\\n")
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
log.close()
"""


def test_a_file_that_may_not_grow_holds_whole_lines(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.returncode) == ("1\n", 0), done.stderr
    assert [event.get("message") for event in read_events(tmp_path)[0]] == [None, "0", "1", "2"]


@pytest.mark.parametrize("half", [r'"\ud800"', r'"\uDfff"', b'"\xed\xa0\x80"'])
def test_what_cannot_be_shown_is_left_out(tmp_path: Path, half: str | bytes) -> None:
    with EventLog(tmp_path) as log:
        log.append(SEARCH)
        log.append({"event": "note", "message": "a file named \udce9"})
    with (tmp_path / EVENTS).open("ab") as file:
        text = half.encode() if isinstance(half, str) else half
        file.write(b'{"event": "note", "time": 1, "message": ' + text + b"}\n")
        file.write(rb'{"event": "note", "time": 1, "message": "\ud83d\ude00"}' + b"\n")
    events, damaged = read_events(tmp_path)
    assert [event.get("message") for event in events] == [None, "a file named ?", "😀"]
    assert len(damaged) == 1
    assert "line 3: no event, left out" in damaged[0]


@pytest.mark.parametrize(
    "line",
    [
        '{"event": "note", "message": "no time"}',
        '{"event": "note", "message": 3, "time": 1}',
        '{"event": "trial", "trial": "../../x", "settings": {}, "config": {}, "time": 1}',
        '{"event": "trial", "trial": "trial-00000", "settings": [], "config": {}, "time": 1}',
        '{"event": "report", "trial": "trial-00000", "step": -1, "time": 1}',
        '{"event": "report", "trial": "trial-00000", "step": 1.5, "time": 1}',
        '{"event": "report", "trial": "trial-00000", "step": 1, "dev.loss": "1", "time": 1}',
        '{"event": "report", "trial": "trial-00000", "step": 1, "dev.loss": NaN, "time": 1}',
        '{"event": "decision", "trial": "trial-00000", "action": "stop", "step": 1, "value": null, "time": 1}',
        '{"event": "resume", "trials": 3, "scheduler": "asha", "time": 1}',
        '{"event": "resume", "trials": 3, "draws": -1, "time": 1}',
        '{"event": "resume", "trials": 1' + "0" * 5000 + ', "time": 1}',
        '["event"]',
        "[" * 100_000,
        "",
    ],
)
def test_a_line_that_is_no_event_is_named_by_its_number(tmp_path: Path, line: str) -> None:
    with EventLog(tmp_path) as log:
        log.append(SEARCH)
    with (tmp_path / EVENTS).open("a") as file:
        file.write(line + "\n")
    events, damaged = read_events(tmp_path)
    assert [event["event"] for event in events] == ["search"]
    assert len(damaged) == 1
    assert damaged[0].startswith(f"{tmp_path / EVENTS}: line 2: no event, left out: ")


def test_no_message_moves_a_terminals_cursor(tmp_path: Path) -> None:
    with contextlib.closing(EventLog(tmp_path)) as log:
        log.append({"event": "note", "message": "a\x1b[2Jb\r\nc ß"})
    line = (tmp_path / EVENTS).read_bytes()
    assert json.loads(line)["message"] == "a?[2Jb  c ß"
    (tmp_path / EVENTS).write_bytes(
        json.dumps(SEARCH | {"time": 1.0}).encode() + b"\n" + line.replace(b"a ", b"a\\u001b")
    )
    assert read_events(tmp_path)[0][1]["message"] == "a?[2Jb  c ß"


@pytest.mark.parametrize("configs", [[{}], [1], {}, [{"model": None}], None])
def test_a_list_of_configurations_names_their_models(tmp_path, configs):
    search = {
        "event": "search",
        "name": "x",
        "metric": "dev.loss",
        "goal": "minimize",
        "searched": {},
    }
    for name, listed in (("good", [{"model": "BasicSeq2Seq"}]), ("bad", configs)):
        (tmp_path / name).mkdir()
        with EventLog(tmp_path / name) as log:
            log.append(search | {"configs": listed})
    assert first_event(tmp_path / "good")["configs"] == [{"model": "BasicSeq2Seq"}]
    with pytest.raises(ConfigError, match="does not begin with a search event"):
        first_event(tmp_path / "bad")


def test_a_full_disk_does_not_keep_a_lock_from_being_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with EventLog(tmp_path):
        assert is_locked(tmp_path)


def test_a_look_at_the_lock_does_not_refuse_a_writer(tmp_path: Path) -> None:
    (tmp_path / LOCK).touch()
    look = os.open(tmp_path / LOCK, os.O_RDONLY)
    fcntl.flock(look, fcntl.LOCK_SH)  # what is_locked holds for a moment
    threading.Timer(0.05, os.close, [look]).start()
    EventLog(tmp_path).close()


def test_a_file_system_without_locks_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refused)
    with EventLog(tmp_path):
        assert not is_locked(tmp_path)
        assert "this file system has no locks" in caplog.text
        assert folder.holder_elsewhere(tmp_path) == ""
        assert (tmp_path / LOCK).read_text() == f"process {os.getpid()} on {socket.gethostname()}\n"


def test_locks_hold_where_there_is_no_fcntl(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows, where filelock locks by other means and a held lock file cannot be read."""
    EventLog(tmp_path).close()  # filelock is imported
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        read = os.read
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, "fcntl", None)
            patch.setattr(os, "read", lambda *_: read(-1, 1))  # an OSError
            assert is_locked(tmp_path)
            with pytest.raises(ConfigError, match="another process drives it"):
                EventLog(tmp_path)
        holder.kill()
    monkeypatch.setitem(sys.modules, "fcntl", None)
    assert not is_locked(tmp_path)
    EventLog(tmp_path).close()


def test_what_cannot_be_written_is_found_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "old.csv"
    old.write_text("kept")
    for good in (old, tmp_path / "new.csv"):
        check_writable(good)
    (tmp_path / "folder.csv").mkdir()
    for bad, law in (
        ("folder.csv", "a folder has this name"),
        ("none/new.csv", "No such file"),
        ("old.csv/x", "Not a"),
    ):
        with pytest.raises(ConfigError, match=f"cannot be written: {law}"):
            check_writable(tmp_path / bad)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.csv", "old.csv"]
    assert old.read_text() == "kept"

    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "touch", refused)
    with pytest.raises(ConfigError, match="cannot be written: Read-only file system"):
        check_writable(old)


# --- clocks ---


def test_a_clock_that_is_set_back_gives_no_negative_duration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock goes back by an hour while a search runs, and by two before it goes on."""
    wall = {"offset": 0.0}
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + wall["offset"])
    with EventLog(tmp_path) as log:
        log.append(SEARCH)
        log.append(
            {
                "event": "trial",
                "trial": "trial-00000",
                "settings": {},
                "config": {"model": "BasicSeq2Seq"},
            }
        )
        wall["offset"] = -3600.0
        log.append(
            {
                "event": "report",
                "trial": "trial-00000",
                "step": 10,
                "dev.loss": 1.0,
                "status": "running",
            }
        )
    monkeypatch.setattr(run_log, "_BEGAN", run_log._BEGAN - 7200.0)  # as another process sees it
    with EventLog(tmp_path) as log:
        log.append({"event": "resume", "trials": 1})
        log.append({"event": "start", "trial": "trial-00000"})
        log.append(
            {
                "event": "report",
                "trial": "trial-00000",
                "step": 20,
                "dev.loss": 1.0,
                "status": "running",
            }
        )
        log.append({"event": "status", "trial": "trial-00000", "status": "finished"})
    times = [event["time"] for event in read_events(tmp_path)[0]]
    assert times == sorted(times)
    assert times[-1] - times[0] < 60.0
    assert History(read_events(tmp_path)[0]).elapsed < 60.0


@pytest.mark.parametrize("kind", ["report", "resume"])
def test_a_log_whose_times_go_back_gives_no_negative_duration(tmp_path: Path, kind: str) -> None:
    trial = {"trial": "trial-00000"}
    rows = [
        SEARCH | {"time": 1000.0},
        {"event": "trial", "time": 1001.0, "settings": {}, "config": {"model": "BasicSeq2Seq"}}
        | trial,
        {"event": "report", "time": 1010.0, "step": 10, "dev.loss": 1.0, "status": "running"}
        | trial,
        {"event": "resume", "time": 7.0, "trials": 1}
        if kind == "resume"
        else {"event": "note", "time": 7.0, "message": ""},
        {"event": "report", "time": 12.0, "step": 20, "dev.loss": 1.0, "status": "running"} | trial,
        {"event": "status", "time": 13.0, "status": "finished"} | trial,
    ]
    (tmp_path / "events.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = results.load(tmp_path)
    assert found.reports["elapsed"].tolist() == [10.0, 15.0]
    assert found.trials[["began", "ended"]].values.tolist() == [[1.0, 16.0]]
    (tmp_path / "space.yaml").write_text(
        "model: BasicSeq2Seq\ncorpus: {name: copy}\nparameters: {train.seed: [0, 1]}\n"
    )
    (stored,) = found.to_optuna().trials
    assert stored.datetime_start is not None
    assert stored.datetime_complete is not None
    assert stored.datetime_complete >= stored.datetime_start


# --- new folders ---


def test_searches_that_begin_in_one_second_have_folders_of_their_own(tmp_path: Path) -> None:
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        made = list(pool.map(folder.new_folder_of_its_own, [tmp_path / "runs" / "toy"] * 20))
    assert {path.name for path in made} == {"toy", *(f"toy-{k}" for k in range(2, 21))}
    assert all((path / "events.jsonl").exists() for path in made)


def test_of_two_searches_in_one_folder_the_second_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        folder, "check_new", lambda folder: None
    )  # both have looked before either began
    folder.new_folder(tmp_path / "run")
    with pytest.raises(ConfigError, match="run: another search has just begun there"):
        folder.new_folder(tmp_path / "run")
