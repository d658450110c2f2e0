"""A cluster as `ray start` makes it: two nodes with a token, joined by the command line from another process."""

import contextlib
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from s2s_search.results import results
from tests.spaces import space_text

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent
RAY = str(Path(sys.executable).parent / "ray")
SPACE = space_text(
    {"train.seed": [0, 1, 2, 3], "train.eval_every_steps": 200},
    model="BasicSeq2Seq",
    search={"method": "grid"},
    scheduler={"name": "none", "max_steps": 400, "grace_steps": 400},
)


@dataclass
class TokenCluster:
    """The address of a running cluster, and the environment of who may join it."""

    address: str
    environment: dict[str, str]


def outsider(home: Path, **variables: str) -> dict[str, str]:
    """An environment without a token, apart from `variables`."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    return (
        clean
        | {"HOME": str(home), "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}
        | variables
    )


def token_file(path: Path, letter: str) -> str:
    path.write_text(letter * 64)
    path.chmod(0o600)
    return str(path)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def mentioning(folder: str) -> list[str]:
    """The command lines of the processes that name a folder."""
    lines = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            lines.append(file.read_text().replace("\0", " "))
    return [line for line in lines if folder in line]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TokenCluster]:
    """A head and a node, with a processor each."""
    home = tmp_path_factory.mktemp("home")
    token = token_file(home / "token", "a")
    environment = outsider(home, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=token)
    folder, port = (
        tempfile.mkdtemp(prefix="s2s", dir="/tmp"),
        free_port(),
    )  # short, for the paths of sockets are limited
    address = f"127.0.0.1:{port}"
    common = [RAY, "start", "--block", "--num-cpus=1", "--object-store-memory=100000000"]
    commands = (
        [
            *common,
            "--head",
            f"--port={port}",
            "--include-dashboard=false",
            f"--temp-dir={folder}/head",
        ],
        [*common, f"--address={address}", f"--temp-dir={folder}/node"],
    )
    nodes: list[subprocess.Popen[bytes]] = []
    try:
        for command in commands:
            with open(home / f"node-{len(nodes)}.log", "wb") as log:
                nodes.append(
                    subprocess.Popen(
                        command, env=environment, stdout=log, stderr=log, start_new_session=True
                    )
                )
            await_node(home, address, environment, nodes[-1])
        yield TokenCluster(address, environment)
    finally:
        for node in nodes:
            os.killpg(node.pid, signal.SIGKILL)
            node.wait()
        until = time.monotonic() + 20
        while mentioning(folder) and time.monotonic() < until:
            time.sleep(0.2)
        left = mentioning(folder)
        shutil.rmtree(folder, ignore_errors=True)
    assert left == []


def await_node(
    home: Path, address: str, environment: dict[str, str], node: "subprocess.Popen[bytes]"
) -> None:
    """Waits until a node says that it runs, and the head answers."""
    log = sorted(home.glob("node-*.log"))[-1]
    until = time.monotonic() + 60
    while "Ray runtime started" not in log.read_text():
        assert node.poll() is None, log.read_text()
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.1)
    subprocess.run(
        [RAY, "health-check", "--address", address], env=environment, check=True, timeout=60
    )


def search(folder: Path, address: str, environment: dict[str, str]) -> "subprocess.Popen[str]":
    (folder / "space.yaml").write_text(SPACE)
    command = [sys.executable, str(ROOT / "run_search.py"), "search", str(folder / "space.yaml")]
    command += ["--address", address, "--out", str(folder / "run")]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_a_search_with_the_token_runs_on_both_nodes(cluster: TokenCluster, tmp_path: Path) -> None:
    joined = search(tmp_path, cluster.address, cluster.environment)
    said, complaints = joined.communicate(timeout=120)
    assert joined.returncode == 0, complaints
    assert "trial-00003" in said
    trials = results.load(tmp_path / "run").trials
    assert trials["status"].tolist() == ["finished"] * 4
    times = zip(trials["began"], trials["ended"], strict=True)
    overlaps = [a[0] < b[1] and b[0] < a[1] for a, b in itertools.combinations(times, 2)]
    assert any(overlaps)  # a trial takes all of a node


def test_who_has_no_token_or_another_is_refused(cluster: TokenCluster, tmp_path: Path) -> None:
    other = token_file(tmp_path / "token", "b")
    environments = {
        "other": outsider(tmp_path, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=other),
        "none": outsider(tmp_path, RAY_AUTH_MODE="token"),
        "no file": outsider(
            tmp_path, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(tmp_path / "missing")
        ),
        "unaware": outsider(tmp_path),
    }
    refused = {}
    for name, environment in environments.items():
        (tmp_path / name).mkdir()
        refused[name] = search(tmp_path / name, cluster.address, environment)
    for name, process in refused.items():
        said, complaints = process.communicate(timeout=120)
        assert process.returncode == 2, (name, complaints)
        assert "Traceback" not in said + complaints, name
        last = complaints.splitlines()[-1]
        assert last.startswith(f"address '{cluster.address}': no Ray cluster can be joined: "), name
        assert last.endswith(
            "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH to the file that holds it"
        ), name
        assert not (tmp_path / name / "run").exists()
