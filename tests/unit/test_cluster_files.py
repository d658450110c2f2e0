"""The files of cluster/: the one of ray up by Ray's schema, the RayJob by its fields, Slurm's script on stand-ins."""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from s2s_search.cli.command_line import make_parser

CLUSTER = Path(__file__).parent.parent.parent / "cluster"
NODE_OPTIONS = {
    "head": "--head --port=6379 --dashboard-host=127.0.0.1",
    "worker": "--address=$RAY_HEAD_IP:6379",
}


# --- ray up ---


@pytest.fixture
def ray_up() -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((CLUSTER / "ray-up.yaml").read_text())
    return config


def test_rays_launcher_takes_the_file(ray_up: dict[str, Any]) -> None:
    validate_config(prepare_config(ray_up))
    with pytest.raises(Exception, match="min_worker"):
        validate_config(prepare_config(ray_up | {"min_worker": 1}))


def test_a_search_can_start_when_the_nodes_are_up(ray_up: dict[str, Any]) -> None:
    workers = {
        name: kind
        for name, kind in ray_up["available_node_types"].items()
        if name != ray_up["head_node_type"]
    }
    assert all(
        0 < kind["min_workers"] <= kind["max_workers"] <= ray_up["max_workers"]
        for kind in workers.values()
    )


@pytest.mark.parametrize("node", ["head", "worker"])
def test_ray_up_starts_nodes_that_ask_for_the_token(ray_up: dict[str, Any], node: str) -> None:
    assert NODE_OPTIONS[node] in ray_up[f"{node}_start_ray_commands"][-1]
    assert ray_up["file_mounts"]["/home/ubuntu/.ray/auth_token"] == "~/.ray/auth_token"
    assert any(
        "RAY_AUTH_MODE=token" in command and "~/.bashrc" in command
        for command in ray_up["setup_commands"]
    )
    assert "chmod 600 ~/.ray/auth_token" in ray_up["setup_commands"]


# --- KubeRay ---


@pytest.fixture
def rayjob() -> dict[str, Any]:
    job: dict[str, Any] = next(yaml.safe_load_all((CLUSTER / "rayjob.yaml").read_text()))
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    return job["spec"]  # type: ignore[no-any-return]


def pods(spec: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = spec["rayClusterSpec"]
    return [group["template"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]


def test_kuberay_makes_a_token_for_a_ray_that_knows_one(rayjob: dict[str, Any]) -> None:
    cluster = rayjob["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    assert tuple(map(int, cluster["rayVersion"].split("."))) >= (2, 52, 0)


def test_every_pod_sees_the_folder_of_the_run(rayjob: dict[str, Any]) -> None:
    out = Path(shlex.split(rayjob["entrypoint"])[-1])
    for pod in pods(rayjob):
        (container,) = pod["spec"]["containers"]
        assert any(out.is_relative_to(mount["mountPath"]) for mount in container["volumeMounts"])
        assert {mount["name"] for mount in container["volumeMounts"]} == {
            v["name"] for v in pod["spec"]["volumes"]
        }


def test_trials_run_on_gpus_and_not_on_the_head(rayjob: dict[str, Any]) -> None:
    head, *workers = pods(rayjob)
    assert rayjob["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert all(
        int(pod["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"]) > 0
        for pod in workers
    )
    assert "nvidia.com/gpu" not in head["spec"]["containers"][0]["resources"]["limits"]


def test_the_policy_lets_pods_reach_each_other_and_the_operator_the_dashboard(
    rayjob: dict[str, Any],
) -> None:
    _, policy = yaml.safe_load_all((CLUSTER / "rayjob.yaml").read_text())
    selected = policy["spec"]["podSelector"]["matchLabels"]
    assert all(pod["metadata"]["labels"] == selected for pod in pods(rayjob))
    among, operator = policy["spec"]["ingress"]
    assert among == {"from": [{"podSelector": {"matchLabels": selected}}]}
    assert operator["ports"] == [{"port": 8265, "protocol": "TCP"}]


@pytest.mark.parametrize("exists", [False, True])
def test_an_attempt_after_the_first_goes_on(
    rayjob: dict[str, Any], tmp_path: Path, exists: bool
) -> None:
    out = tmp_path / "run"
    if exists:
        out.mkdir()
    commands = stand_ins(tmp_path, python='echo "$@"')
    entrypoint = rayjob["entrypoint"].replace("/shared/runs/britz-attention", str(out))
    said = subprocess.run(
        ["bash", "-c", entrypoint], env=commands, capture_output=True, text=True, check=True
    ).stdout
    space = "search_spaces/britz_2017/attention.yaml"
    search = f"search {space} --address auto --out {out}"
    assert said.strip() == "run_search.py " + (f"resume {out} --address auto" if exists else search)
    assert (CLUSTER.parent / space).exists()


# --- Slurm ---

LOGGED = 'echo "$(basename "$0") $*" >> "$LOG"\n'
FINISHES = 'until (( $(grep -c "^ray start" "$LOG") == (SLURM_JOB_NUM_NODES > 1) + 1 )); do sleep 0.05; done'
WAITS = f"exec {shlex.quote(sys.executable)} -c " + shlex.quote(
    "import os, signal, sys\n"
    "signal.signal(signal.SIGINT, lambda *_: sys.exit(130))\n"
    "open(os.environ['LOG'], 'a').write('waiting\\n')\n"
    "signal.pause()"
)


def stand_ins(folder: Path, **commands: str) -> dict[str, str]:
    """An environment in which each command is a shell script of the given text."""
    (folder / "bin").mkdir()
    for name, text in commands.items():
        (folder / "bin" / name).write_text(f"#!/bin/bash\n{text}\n")
        (folder / "bin" / name).chmod(0o755)
    return os.environ | {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}


def slurm(folder: Path, nodes: int, python: str) -> "subprocess.Popen[str]":
    """Starts the script as Slurm does in the job 31007 on nodes a1, a2, ...; what it calls is written to folder/log."""
    env = stand_ins(
        folder,
        scontrol=LOGGED + f'[[ $1 == show ]] && printf "a%s\\n" {{1..{nodes}}}; true',
        srun=LOGGED + 'while [[ $1 == --* ]]; do shift; done; exec "$@"',
        hostname="echo 10.0.0.7 10.9.0.7",
        ray=LOGGED + "[[ $1 == start ]] && exec sleep 60; true",
        python=LOGGED + python,
    )
    job = {"SLURM_JOB_ID": "31007", "SLURM_JOB_NUM_NODES": str(nodes), "SLURM_CPUS_PER_TASK": "16"}
    job |= {
        "SLURM_JOB_NODELIST": f"a[1-{nodes}]",
        "LOG": str(folder / "log"),
        "HOME": "/home/someone",
    }
    command = ["bash", str(CLUSTER / "slurm.sh"), "space.yaml", str(folder / "run")]
    return subprocess.Popen(command, env=env | job, start_new_session=True, text=True)


def calls(folder: Path) -> list[str]:
    return (folder / "log").read_text().splitlines()


@pytest.mark.parametrize("nodes", [1, 3])
def test_slurm_starts_a_node_of_ray_on_each_of_its_own(tmp_path: Path, nodes: int) -> None:
    assert slurm(tmp_path, nodes, FINISHES).wait(30) == 0
    start = "ray start --block --num-cpus=16 --temp-dir=/tmp/ray-31007"
    said = calls(tmp_path)
    head = f"{start} --head --node-ip-address=10.0.0.7 --port=21007 --dashboard-host=127.0.0.1"
    assert f"srun --nodes=1 --ntasks=1 --nodelist=a1 {head}" in said
    others = [call for call in said if call.startswith("srun") and "--exclude" in call]
    expected = f"srun --nodes=2 --ntasks=2 --exclude=a1 {start} --address=10.0.0.7:21007"
    assert others == ([expected] if nodes == 3 else [])
    assert (
        f"python run_search.py search space.yaml --address 10.0.0.7:21007 --out {tmp_path / 'run'}"
        in said
    )
    assert not any("requeue" in call for call in said)


def test_slurms_command_is_one_of_the_program(tmp_path: Path) -> None:
    slurm(tmp_path, 1, FINISHES).wait(30)
    (search,) = [call for call in calls(tmp_path) if call.startswith("python ")]
    assert make_parser().parse_args(search.split()[2:]).address == "10.0.0.7:21007"


def test_slurm_says_how_the_search_ended(tmp_path: Path) -> None:
    assert slurm(tmp_path, 1, "exit 2").wait(30) == 2


def test_a_requeued_job_goes_on(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    assert slurm(tmp_path, 1, FINISHES).wait(30) == 0
    assert f"python run_search.py resume {tmp_path / 'run'} --address 10.0.0.7:21007" in calls(
        tmp_path
    )


def test_slurms_notice_interrupts_the_search_and_requeues_the_job(tmp_path: Path) -> None:
    job = slurm(tmp_path, 1, WAITS)
    until = time.monotonic() + 30
    while "waiting" not in (calls(tmp_path) if (tmp_path / "log").exists() else []):
        assert time.monotonic() < until
        time.sleep(0.05)
    job.send_signal(signal.SIGTERM)
    assert job.wait(30) == 0
    assert calls(tmp_path)[-1] == "scontrol requeue 31007"


def test_slurm_asks_for_a_token_and_for_notice() -> None:
    text = (CLUSTER / "slurm.sh").read_text()
    assert "export RAY_AUTH_MODE=token" in text
    assert "export RAY_AUTH_TOKEN_PATH=${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}" in text
    for option in ("--signal=B:TERM@120", "--requeue", "--open-mode=append", "--gpus-per-node=4"):
        assert f"#SBATCH {option}\n" in text
