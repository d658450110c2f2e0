"""README's commands in their order, with smaller budgets, and its scripts on what they leave."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_docs import ROOT, blocks

SMALLER = [
    "--trials",
    "2",
    "--hparams",
    "train.max_steps=20,train.eval_every_steps=10,train.eval_examples=50",
]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def run(folder: Path, *argv: str, given: str = "") -> str:
    command = [sys.executable, str(ROOT / "run_search.py"), *argv]
    result = subprocess.run(
        command, cwd=folder, input=given, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    return result.stdout


def test_the_readme_from_search_to_analysis(tmp_path: Path) -> None:
    os.symlink(ROOT / "search_spaces", tmp_path / "search_spaces")
    assert "ok: 16 trials" in run(tmp_path, "check", "search_spaces/quickstart.yaml")
    assert len(run(tmp_path, "sample", "search_spaces/attention.yaml", "-n", "5").splitlines()) == 6
    ranking = run(
        tmp_path, "search", "search_spaces/attention.yaml", "--out", "runs/attention", *SMALLER
    )
    assert "trial-00000" in ranking
    assert "trial-00001" in ranking
    assert (
        len(run(tmp_path, "results", "runs/attention", "--top", "5", "--csv").splitlines())
        == 1 + 2 * 2
    )  # two draws, a grid of two
    assert (
        run(tmp_path, "decode", "runs/attention", "--beam", "5", given="pronounce\n").count("\n")
        == 1
    )
    (script,) = [block for block in blocks(ROOT / "README.md", "python") if "results.load" in block]
    shown = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    assert "attention.score_type" in shown
    assert re.search(r"^20 ", shown, re.MULTILINE)  # the curves' last step


def test_the_trial_of_a_search_and_of_debug_report_the_same(tmp_path: Path) -> None:
    """Through both command lines, processes and all."""
    import json

    from s2s_search.results import results

    space = tmp_path / "space.yaml"
    text = (ROOT / "search_spaces" / "quickstart.yaml").read_text()
    space.write_text(text)
    run(tmp_path, "search", "space.yaml", "--out", "run", *SMALLER)
    table = results.load(tmp_path / "run").reports
    for k in range(2):
        lines = run(
            tmp_path, "debug", "--space", "space.yaml", "--trial", str(k), "--json", *SMALLER[2:]
        ).splitlines()
        of_search = table[table.trial == f"trial-{k:05d}"].to_dict("records")
        assert len(lines) == len(of_search) == 2
        for line, row in zip(lines, of_search, strict=True):
            report = json.loads(line)
            for name, value in report.items():
                if not name.endswith("seconds"):
                    assert row[name] == value, name
