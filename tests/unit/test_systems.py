"""Commands that only read work on Windows and macOS, as far as Linux can tell.

The tests take away the modules and functions that Linux has and the others lack.
"""

import ast
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import s2s_search
from s2s_search.tuning import cluster
from tests.runs import write_run

MISSING = ("fcntl", "grp", "pty", "pwd", "resource", "termios", "tty")  # on Windows
PROGRAM = f"""
import importlib, json, os, signal, sys, time
for module in {MISSING}:
    sys.modules[module] = None
for module in {MISSING}:
    try:
        importlib.import_module(module)
    except ImportError:
        continue
    raise AssertionError(module)
for name in ("fdatasync", "pread", "pwrite", "sched_getaffinity", "set_blocking", "sysconf"):
    delattr(os, name)
del os.sysconf_names
for name in ("SIGHUP", "SIGKILL", "pthread_sigmask"):
    delattr(signal, name)
for name in ("CLOCK_BOOTTIME", "clock_gettime"):
    delattr(time, name)
from s2s_search.cli import main
for command in json.loads(sys.argv[1]):
    try:
        code = main(command)
    except SystemExit as end:  # of --help
        code = end.code
    if code:
        sys.exit(f"{{command}} ended with {{code}}")
"""
COMMANDS = ("check", "sample", "results", "report", "watch", "compare", "replay")


def run(*commands: list[str]) -> str:
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(commands)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def imports_at_the_top(statements: list[ast.stmt]) -> Iterator[str]:
    """Returns the modules that are imported with a module, also under if, try and with."""
    for statement in statements:
        if isinstance(statement, ast.Import):
            yield from (alias.name for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom):
            yield statement.module or ""
        elif not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            for field in ("body", "orelse", "handlers", "finalbody"):
                inner = getattr(statement, field, [])
                yield from imports_at_the_top(inner if isinstance(inner, list) else [])


def test_no_module_imports_at_its_top_what_only_posix_has() -> None:
    found = {
        (path.name, name)
        for path in Path(s2s_search.__file__).parent.rglob("*.py")
        for name in imports_at_the_top(ast.parse(path.read_text()).body)
        if name in MISSING
    }
    assert found == set()


def test_spaces_are_read_without_the_modules_of_posix() -> None:
    space = "search_spaces/quickstart.yaml"
    said = run(["check", space], ["sample", space, "-n", "2"], *([x, "--help"] for x in COMMANDS))
    assert said.count("usage: ") == len(COMMANDS)


def test_runs_are_read_without_the_modules_of_posix(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", trials=8)
    values = ["encoder.type=UnidirectionalRNNEncoder", "encoder.type=BidirectionalRNNEncoder"]
    run(
        ["results", str(folder)],
        ["watch", str(folder)],
        ["compare", str(folder), *values],
        ["report", str(folder)],
    )
    assert (folder / "report.html").exists()


def test_a_search_on_another_machine_is_seen_without_the_modules_of_posix(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", trials=8)
    *lines, end = (folder / "events.jsonl").read_bytes().splitlines(keepends=True)
    assert b'"finished"' in end
    (folder / "events.jsonl").write_bytes(b"".join(lines))
    (folder / "driver.lock").write_text("process 1 on another-machine\n")
    assert "process 1 on another-machine" in run(["results", str(folder)])


def test_ray_is_started_without_the_signals_of_posix(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SIGHUP", "pthread_sigmask"):
        monkeypatch.delattr(signal, name)
    with cluster._hangups_later():
        pass
