"""The Ray on which a search runs: its own Ray, or a cluster that it joins.

This module also says whether trials fit on the nodes.
"""

import contextlib
import logging
import os
import re
import secrets
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import ray

from s2s_search.errors import ConfigError
from s2s_search.interrupts import Interrupt
from s2s_search.machine import usable_cores
from s2s_search.spaces.settings import Resources

AHEAD = 32  # the number of trials that Ray Tune has ready to start
# Variables of the environment that Ray 2.60 reads. tests/contracts/test_ray.py looks for their
# names in Ray's files.
RAY_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # a relative path means the same in a trial as in the driver
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # Ray 2.60: the new output prints even with verbose=0
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # Ray's own snapshots of the search are not needed: a search is resumed from its own log.
    "TUNE_GLOBAL_CHECKPOINT_S": "100000000",
    # With a limit the driver is faster: in Ray 2.60 each step looks at all trials that wait.
    "TUNE_MAX_PENDING_TRIALS_PG": str(AHEAD),
}
SECONDS_BETWEEN_LOOKS = 0.5  # the time between two checks for signals while tasks run
# The longest path of a socket below Ray's folder, and the bytes that the path of a Unix socket may
# have.
LONGEST_SOCKET = "ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
MOST_BYTES = 103 if sys.platform == "darwin" else 107
SHORT_FOLDER = "/tmp"
Shared = TypeVar("Shared")
Item = TypeVar("Item")
Result = TypeVar("Result")

# Ray 2.60 protects a cluster that it starts with a token, which it reads once in a process. When a
# token is given, Ray writes none to the home folder.
RAY_TOKEN = secrets.token_hex(32)
TOKEN = (
    "if it asks for a token, set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH to the file that "
    "holds it"
)


def ray_problems(resources: Resources, address: str | None) -> list[str]:
    """Returns the problems that are known before Ray is started or joined."""
    if ray.is_initialized():
        return [
            "this process has a Ray already: call ray.shutdown() first, or search from "
            "another process"
        ]
    if address is not None:
        return _address_problems(address)
    gpus = 0
    if resources.gpu > 0:
        import torch

        gpus = torch.cuda.device_count()
    problems = resource_problems(resources, [{"CPU": usable_cores(), "GPU": gpus}])
    if _is_too_long(temporary_folder()) and not os.access(SHORT_FOLDER, os.W_OK | os.X_OK):
        law = (
            f"Ray's sockets would have paths of more than {MOST_BYTES} bytes, and {SHORT_FOLDER} "
            "cannot be written"
        )
        problems.append(
            f"{temporary_folder()}: {law}; set RAY_TMPDIR to a folder with a short path"
        )
    return problems


def _address_problems(address: str) -> list[str]:
    host, _, port = address.rpartition(":")
    if address == "auto":
        return []
    is_port = re.fullmatch("[0-9]{1,5}", port) is not None and 0 < int(port) < 2**16
    if not host or "/" in host or not is_port:  # ray:// is for clients outside a cluster
        return [
            f"address {address!r}: must be auto, or the HOST:PORT of the cluster's head as "
            "its nodes see it"
        ]
    try:
        # This asks first, because Ray 2.60 would wait for minutes.
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except (OSError, ValueError) as error:  # a ValueError when the host is no valid name
        return [f"address {address!r}: no Ray cluster answers there: {error}"]
    return []


def resource_problems(resources: Resources, nodes: Sequence[Mapping[str, float]]) -> list[str]:
    """Returns one problem when no single node can ever hold a trial, and none otherwise."""
    if any(_trials_of(node, resources) for node in nodes):
        return []
    largest = max(nodes, key=lambda node: (node.get("GPU", 0), node.get("CPU", 0)), default={})
    return [
        "resources: a trial must fit on one node, but it needs "
        f"{_amounts(resources.cpu, resources.gpu)}, "
        f"and the largest node has {_amounts(largest.get('CPU', 0), largest.get('GPU', 0))}"
    ]


def _trials_of(node: Mapping[str, float], resources: Resources) -> int:
    """Returns the number of trials that a node holds at once."""
    return resources.fitting(node.get("CPU", 0), node.get("GPU", 0))


def _amounts(cpu: float, gpu: float) -> str:
    return f"{cpu:g} CPU and {gpu:g} GPU"


# --- Ray ---


@contextlib.contextmanager
def ray_environment(address: str | None) -> Iterator[None]:
    """Sets the variables that Ray reads from the environment, and restores them afterwards.

    A Ray of our own gets a short folder when the path of its usual folder is too long for sockets.
    """
    before, short_folder = dict(os.environ), ""
    os.environ.update(RAY_ENVIRONMENT | before)  # variables that the user has set stay
    if address is None:
        os.environ.setdefault("RAY_AUTH_TOKEN", RAY_TOKEN)
        if _is_too_long(temporary_folder()):
            short_folder = os.environ["RAY_TMPDIR"] = tempfile.mkdtemp(
                prefix="s2s-", dir=SHORT_FOLDER
            )
    try:
        yield
    finally:
        os.environ.update(before)
        for key in set(os.environ) - set(before):
            del os.environ[key]
        if short_folder:
            shutil.rmtree(short_folder, ignore_errors=True)


def temporary_folder() -> str:
    """Returns the folder in which Ray makes its own folder, by the rule of Ray."""
    return os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"


def _is_too_long(folder: str) -> bool:
    return len(os.fsencode(f"{folder}/{LONGEST_SOCKET}")) > MOST_BYTES


def join_ray(address: str | None, resources: Resources) -> None:
    """Starts a Ray of our own, or joins the Ray at an address.

    A Ray of our own has the cores that this process may use, unless RAY_OVERRIDE_RESOURCES or
    RAY_USE_MULTIPROCESSING_CPU_COUNT says otherwise. Ray 2.60 itself ignores the CPU affinity.

    Raises:
        ConfigError: Ray cannot be started or joined, or no node is large enough for a trial.
    """
    counts_itself = address is not None or "RAY_USE_MULTIPROCESSING_CPU_COUNT" in os.environ
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    try:
        with _hangups_later():
            ray.init(
                address=address or "local",
                num_cpus=None if counts_itself else usable_cores(),
                include_dashboard=None if address else False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    except Exception as error:
        if address is None:
            raise ConfigError(
                f"Ray cannot be started: {_first_line(error)}; {free_space()}"
            ) from None
        if not isinstance(error, ConnectionError | ray.exceptions.RayError):
            raise
        reason = getattr(error, "message", error)
        raise ConfigError(
            f"no Ray cluster can be joined: {reason}; {TOKEN}", f"address {address!r}"
        ) from None
    problems = resource_problems(resources, nodes())
    if problems:
        raise ConfigError(problems)


@contextlib.contextmanager
def _hangups_later() -> Iterator[None]:
    """Blocks SIGHUP for the processes that are started meanwhile.

    A terminal that closes sends SIGHUP to all processes at once. New processes inherit the block.
    This process gets its SIGHUP after the block, and ends the others in order. Windows has no
    SIGHUP.
    """
    if not hasattr(signal, "SIGHUP"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def room_for(what: str) -> Iterator[None]:
    """Raises a ConfigError with one sentence when Ray's object store has no room for `what`."""
    try:
        yield
    except (ray.exceptions.ObjectStoreFullError, ray.exceptions.OutOfDiskError):
        raise ConfigError(f"Ray's object store has no room for {what}; {free_space()}") from None


def free_space() -> str:
    """Returns a phrase about the free space in the two folders that Ray fills on this machine."""
    folders = {
        "/dev/shm": "objects",
        f"{temporary_folder()}/ray": "logs, and objects that find no room there",
    }
    parts = []
    for folder, use in folders.items():
        existing = Path(folder)
        while not existing.exists():
            existing = existing.parent
        parts.append(f"{shutil.disk_usage(existing).free / 1e6:,.0f} MB in {folder} ({use})")
    return f"free on this machine: {', '.join(parts)}"


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def leave_ray() -> None:
    with contextlib.suppress(KeyboardInterrupt):
        ray.shutdown()


def nodes() -> list[dict[str, float]]:
    """Returns the resources of the nodes that are alive."""
    found = ray.nodes()  # type: ignore[no-untyped-call]
    return [node["Resources"] for node in found if node["Alive"]]


def slots(resources: Resources) -> int:
    """Returns the number of trials that the nodes hold at once, when nothing else runs on them."""
    return sum(_trials_of(node, resources) for node in nodes())


def why_waiting(resources: Resources) -> str:
    """Returns a sentence that says why no trial runs now."""
    if problems := resource_problems(resources, nodes()):
        return f"waiting for a node: {problems[0]}"
    found = (ray.available_resources(), ray.cluster_resources())  # type: ignore[no-untyped-call]
    free, all_ = (_amounts(amounts.get("CPU", 0), amounts.get("GPU", 0)) for amounts in found)
    return (
        f"waiting: a trial needs {_amounts(resources.cpu, resources.gpu)} on one node; {free} of "
        f"{all_} are free"
    )


def each(
    function: Callable[[Shared, Item], Result],
    shared: Shared,
    arguments: Sequence[Item],
    resources: Resources,
    address: str | None = None,
) -> Iterator[tuple[int, Result]]:
    """Calls a function on Ray once for each of the arguments, and yields the results as they come.

    As many calls run at once as the nodes hold. Ray is started or joined for this. It is left at
    the end, also after Ctrl-C, a SIGTERM or a SIGHUP.

    Args:
        function: is called with `shared` and one of the arguments.
        shared: a value that all calls get. It is sent to each node once.
        arguments: the second arguments of the calls.
        resources: the cores and GPUs that one call takes.
        address: the address of a cluster; None stands for a Ray of our own.

    Yields:
        The position of an argument, and the result of its call.

    Raises:
        ConfigError: no Ray can be started or joined, no node is large enough, the function raised
            it, or a worker was lost for good.
    """
    if problems := ray_problems(resources, address):
        raise ConfigError(problems)
    interrupt = Interrupt()
    with contextlib.ExitStack() as stack:
        stack.enter_context(ray_environment(address))
        stack.enter_context(interrupt)
        stack.callback(leave_ray)
        join_ray(address, resources)
        interrupt.listen()
        task: Any = ray.remote(num_cpus=resources.cpu, num_gpus=resources.gpu)(function)
        with room_for("what the tasks share"):
            common = ray.put(shared)
        waiting = {
            task.remote(common, argument): position for position, argument in enumerate(arguments)
        }
        while waiting:
            interrupt.check()
            for done in ray.wait(list(waiting), timeout=SECONDS_BETWEEN_LOOKS)[0]:
                yield waiting.pop(done), _result(done)


def _result(done: "ray.ObjectRef[Any]") -> Any:
    try:
        return ray.get(done)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError as error:
        raise ConfigError(f"a worker was lost: {str(error).splitlines()[0]}") from None
