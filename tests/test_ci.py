"""The hosted runner, pre-commit and the gate do the same checks."""

import re
import subprocess
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
GATE = (ROOT / ".ci" / "run").read_text()


def test_pre_commit_has_the_linters_of_the_gate() -> None:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    entries = [hook["entry"] for hook in repository["hooks"]]
    assert entries == re.findall("^(?:ruff|mypy).*$", GATE, re.MULTILINE)


def test_the_hosted_runner_calls_scripts_that_are_there() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    lines = [
        step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step
    ]
    assert lines == ["bash .ci/run", "bash .ci/lowest"]
    for line in lines:
        subprocess.run(["bash", "-n", ROOT / line.removeprefix("bash ")], check=True)


def test_every_dependency_has_a_lowest_version() -> None:
    """`.ci/lowest` installs these versions."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for dependency in project["dependencies"]:
        assert re.match(r"[\w-]+(\[\w+\])?>=[\d.]+(,<[\d.]+)?$", dependency), dependency
