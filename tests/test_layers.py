"""Imports point down: each layer works where the packages above it are missing."""

import subprocess
import sys

import pytest

WITHOUT = {
    "table": ("torch", "ray", "pandas", "numpy", "rich", "yaml"),
    "hparams": ("torch", "ray", "pandas", "numpy", "rich", "yaml"),
    "text_files": ("torch", "ray", "pandas", "numpy", "rich", "yaml"),
    "cache": ("torch", "ray", "pandas", "numpy", "rich", "yaml"),
    "input_warning": ("torch", "ray", "pandas", "numpy", "rich", "yaml"),
    "text_warnings": ("torch", "ray", "pandas", "numpy", "rich", "yaml"),
    "space_warnings": ("torch", "ray", "pandas", "numpy", "rich"),
    "vocabulary": ("torch", "ray", "pandas", "numpy", "rich", "yaml"),
    "corpus": ("torch", "ray", "pandas", "numpy", "rich", "yaml"),
    "space_files": ("torch", "ray", "pandas", "numpy", "rich"),
    "spaces": ("torch", "ray", "pandas", "numpy", "rich"),
    "samplers": ("torch", "ray", "pandas", "numpy", "rich", "optuna"),
    "metrics": ("torch", "ray", "pandas", "rich"),
    "footprint": ("torch", "ray", "pandas", "numpy", "rich", "yaml"),
    "machine": ("torch", "ray", "pandas", "numpy", "rich", "yaml"),
    "probes": ("torch", "ray", "pandas", "numpy", "rich"),
    "plan": ("torch", "ray", "pandas", "numpy", "rich"),
    "cli": ("torch", "ray", "pandas", "numpy", "rich"),
    "nn.cells": ("ray", "pandas", "rich"),
    "nn.stacks": ("ray", "pandas", "rich"),
    "nn.fused_attention": ("ray", "pandas", "rich"),
    "nn.generate": ("ray", "pandas", "rich"),
    "tf_variables": ("ray", "pandas", "rich"),
    "optim": ("ray", "pandas", "rich"),
    "training": ("ray", "pandas", "rich"),
    "decoding": ("ray", "pandas", "rich"),
    "events": ("torch", "ray", "pandas", "numpy", "rich", "yaml"),
    "failures": ("torch", "ray", "pandas", "numpy", "rich", "yaml"),
    "history": ("torch", "ray", "pandas", "numpy", "rich"),
    "answers": ("torch", "ray", "pandas", "numpy", "rich", "yaml", "pyarrow"),
    "checkpoints": ("torch", "ray", "pandas", "rich"),
    "comparison": ("ray", "torch", "rich"),
    "isolation": ("ray", "torch", "rich", "optuna"),
    "sides": ("ray", "torch", "rich"),
    "rerun": ("ray", "torch"),
    "trial_files": ("torch", "ray", "pandas", "numpy", "rich"),
    "debug_runs": ("torch", "ray", "pandas", "numpy", "rich"),
    "report.axes": ("ray", "torch", "optuna"),
    "report.figures": ("ray", "torch", "optuna"),
    "report.page": ("ray", "torch", "pandas"),
    "ranking": ("ray", "torch"),
    "report.runs": ("ray", "torch", "optuna"),
    "report.conclusions": ("ray", "torch", "optuna"),
    "report.contents": ("ray", "torch", "optuna"),
    "run_tables": ("ray", "torch", "rich", "optuna"),
    "results": ("ray", "torch", "rich", "optuna"),
    "studies": ("ray", "torch", "rich"),
    "kept": ("ray", "torch", "rich"),
    "beams": ("ray", "torch", "rich"),
    "curves": ("torch", "ray", "pandas", "rich"),
    "replay": ("torch", "rich"),
    "display.standing": ("torch", "ray", "pandas", "numpy", "rich", "yaml"),
    "display.view": ("torch", "ray", "pandas", "numpy", "yaml"),
    "display.progress": ("torch", "ray", "pandas", "numpy", "yaml"),
    "display.watch": ("torch", "ray", "pandas", "numpy", "yaml"),
    "loggers": ("ray", "torch", "pandas", "tensorboard", "mlflow", "wandb"),
    "recorder": ("ray", "torch"),
}

SEARCH = ("cluster.py", "listener.py", "schedulers.py", "trainable.py", "tune_trials.py", "tuning.py")

BLOCK = """
import sys
for name in {packages}:
    sys.modules[name] = None  # an import of it now raises
import s2s_search.{module}
"""


@pytest.mark.parametrize("module", WITHOUT)
def test_a_module_needs_no_package_of_the_layers_above(module: str) -> None:
    code = BLOCK.format(packages=WITHOUT[module], module=module)
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_a_debug_run_does_not_pay_for_torchs_compiler() -> None:
    """torch._dynamo takes a second to import; torch.optim's classes and others import it when they are used."""
    code = "from s2s_search.cli import main; import sys; main(sys.argv[1:]); assert 'torch._dynamo' not in sys.modules"
    command = [sys.executable, "-c", code, "debug", "--corpus", "{name: copy, train: 9}", "--steps", "2"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_ray_is_imported_where_a_search_runs() -> None:
    from pathlib import Path

    import s2s_search

    files = Path(s2s_search.__file__).parent.rglob("*.py")
    found = [f.name for f in files if "import ray" in f.read_text() or "from ray" in f.read_text()]
    assert sorted(found) == sorted(SEARCH)
