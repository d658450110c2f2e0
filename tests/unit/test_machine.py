"""What this process may use: held to folders written as Linux lays them out, and to a real process on one core."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from s2s_search import machine
from s2s_search.cli import command_line
from s2s_search.spaces.settings import Resources

UNLIMITED = {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}


def in_cgroup(folder: Path, patch: pytest.MonkeyPatch, own: str, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text + "\n")
    (folder / "own").write_text(own + "\n")
    patch.setattr(machine, "CGROUPS", folder)
    patch.setattr(machine, "OWN_CGROUPS", folder / "own")
    patch.setattr(os, "cpu_count", lambda: 16)
    patch.setattr(os, "sched_getaffinity", lambda process: set(range(12)), raising=False)


@pytest.mark.parametrize(
    "own, files, cores",
    [
        ("0::/", {}, 12),  # the affinity
        ("0::/", {"cpu.max": "max 100000"}, 12),
        ("0::/", {"cpu.max": "400000 100000"}, 4),  # a container of version 2
        ("0::/", {"cpu.max": "150000 100000"}, 1),
        ("0::/", {"cpu.max": "5000 100000"}, 1),
        ("0::/a/b", {"cpu.max": "max 100000", "a/cpu.max": "300000 100000", "a/b/cpu.max": "800000 100000"}, 3),
        ("0::/not/seen/here", {"cpu.max": "200000 100000"}, 2),  # the path that the host sees
        ("4:cpu,cpuacct:/docker/1\n1:name=systemd:/", UNLIMITED, 12),
        ("4:cpu,cpuacct:/docker/1", UNLIMITED | {"cpu/cpu.cfs_quota_us": "250000"}, 2),
        ("4:cpu,pu:/x", {"cpu,pu/x/cpu.cfs_quota_us": "700000", "cpu,pu/x/cpu.cfs_period_us": "100000"}, 7),
        ("4:cpuset:/\n0::/", {"cpu.max": "nonsense"}, 12),
        ("0::/", {"cpu.max": "0 0"}, 12),
    ],
)  # fmt: skip
def test_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str, files: dict[str, str], cores: int
) -> None:
    in_cgroup(tmp_path, monkeypatch, own, files)
    assert machine.usable_cores() == cores


def test_cores_where_there_is_neither_affinity_nor_cgroup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "OWN_CGROUPS", tmp_path / "missing")
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    for counted, cores in ((8, 8), (None, 1)):
        monkeypatch.setattr(os, "cpu_count", lambda counted=counted: counted)
        assert machine.usable_cores() == cores


@pytest.mark.parametrize(
    "own, files, limit",
    [
        ("0::/", {"memory.max": "max"}, math.inf),
        ("0::/a", {"memory.max": "max", "a/memory.max": "1000000"}, 1_000_000),
        ("9:memory:/x", {"memory/memory.limit_in_bytes": "9223372036854771712"}, math.inf),
        ("9:memory:/x", {"memory/x/memory.limit_in_bytes": "2000000"}, 2_000_000),
    ],
)
def test_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str, files: dict[str, str], limit: float
) -> None:
    in_cgroup(tmp_path, monkeypatch, own, files)
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert machine.usable_memory() == min(limit, there)


def test_memory_of_a_process_with_a_limit() -> None:
    code = "from s2s_search.machine import usable_memory; print(usable_memory())"
    command = ["bash", "-c", f"ulimit -v 1000000; {sys.executable} -c '{code}'"]
    assert (
        subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        == "1024000000"
    )
    assert machine.usable_memory(2) == machine.usable_memory()  # processes share what is there


def test_cores_that_others_keep_busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two looks core 0 works 30 of 100 ticks, core 2 all, and core 1 is not for this process."""
    looks = [
        "cpu 9 9 9 9\ncpu0 10 0 0 50 5 0 0 0 9 9\ncpu1 0 0 0 0 0 0 0 0 0 0\ncpu2 7 7 7 7 7 7 "
        "7 7 7 7\nintr 1\n",
        "cpu 9 9 9 9\ncpu0 20 5 5 110 15 5 3 2 9 9\ncpu1 99 0 0 0 0 0 0 0 0 0\ncpu2 7 7 107 "
        "7 7 7 7 7 7 7\nintr 1\n",
    ]
    file = tmp_path / "stat"
    monkeypatch.setattr(machine, "CORE_TIMES", file)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 2}, raising=False)
    file.write_text(looks[0])
    monkeypatch.setattr(machine.time, "sleep", lambda seconds: file.write_text(looks[1]))
    assert machine.busy_cores() == pytest.approx(0.3 + 1.0)
    file.unlink()
    monkeypatch.setattr(machine.time, "sleep", lambda seconds: None)
    assert machine.busy_cores() is None


@pytest.mark.parametrize(
    "cpu, gpu, cpus, gpus, fit",
    [
        (1, 0, 4, 0, 4),
        (2, 0, 1, 0, 0),
        (1 / 49, 0, 1, 0, 49),
        (1, 0.3, 64, 4, 12),  # three on each of four cards, and no trial on what is left of all
        (1, 0.3, 10, 4, 10),
        (1, 2, 64, 5, 2),
        (1, 0.25, 64, 0, 0),
        (1, 1, math.inf, 8, 8),
    ],
)
def test_trials_that_fit_on_a_node(
    cpu: float, gpu: float, cpus: float, gpus: float, fit: int
) -> None:
    assert Resources(cpu, gpu).fitting(cpus, gpus) == fit


SPACE = """
model: BasicSeq2Seq
corpus: {name: copy, train: 20, dev: 4, test: 4, vocabulary: 5, min_length: 2, max_length: 5}
search: {trials: 2}
scheduler: {name: none, max_steps: 2}
resources: {cpu: CPU}
parameters: {embedding.dim: [8, 9], train.eval_every_steps: 2}
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
@pytest.mark.parametrize("cpu, status", [(1, 0), (2, 2)])
def test_a_plan_on_one_core(tmp_path: Path, cpu: int, status: int) -> None:
    """A real process that may use one core, whatever this machine has."""
    space = tmp_path / "space.yaml"
    space.write_text(SPACE.replace("CPU", str(cpu)))
    code = (
        "import os, sys; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); from "
        "s2s_search.cli import main; "
    )
    command = [
        sys.executable,
        "-c",
        f"{code} sys.exit(main(sys.argv[1:]))",
        "plan",
        str(space),
        "--no-probe",
    ]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == status, ran.stderr
    assert f"at once      {cpu % 2} on this machine" in ran.stdout
    if status:
        assert (
            "resources: a trial needs 2 CPU and 0 GPU, but this process may use 1 CPU and 0 GPU"
            in ran.stderr
        )


def test_threads_of_a_debug_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    seen: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", seen.append)
    space = tmp_path / "space.yaml"
    for cpu, cores, threads in ((2, 4, 2), (4, 2, 2), (1, 1, 1)):
        monkeypatch.setattr("s2s_search.cli.debug.usable_cores", lambda cores=cores: cores)
        space.write_text(SPACE.replace("CPU", str(cpu)))
        assert command_line.main(["debug", "--space", str(space), "--json"]) == 0
        assert seen.pop() == threads
        assert ("may use only 2 cores" in capsys.readouterr().err) == (cpu > cores)
