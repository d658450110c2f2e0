"""The event log: one writer, whole lines, and what happens where there is no room."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from s2s_search.events import EVENTS, EventLog, is_locked, read_events
from s2s_search.table import ConfigError

SEARCH = {"event": "search", "name": "x", "metric": "dev.loss", "goal": "minimize", "searched": {}}
HOLDER = """
import sys, time
from pathlib import Path
from s2s_search.events import EventLog
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
def test_events_wait_for_room_and_no_line_is_half(tmp_path: Path, half: bool, monkeypatch: pytest.MonkeyPatch) -> None:
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
