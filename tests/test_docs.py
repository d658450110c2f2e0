"""README and docs: every command is valid, every example works, every file is named."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from s2s_search.cli import command_line
from s2s_search.cli.debug import debug_configuration
from s2s_search.spaces.load import load_space

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


def commands(page: Path) -> list[list[str]]:
    """The arguments of each call of run_search.py in the page's shell blocks."""
    calls = []
    for block in blocks(page, "bash"):
        words = shlex.split(block, comments=True)
        for i, word in enumerate(words):
            if word == "run_search.py":
                end = next(
                    (k for k in range(i, len(words)) if words[k] in ("&&", "|", "python", "echo")),
                    len(words),
                )
                calls.append(words[i + 1 : end])
    return calls


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_is_one(page: Path) -> None:
    parser = command_line.make_parser()
    for command in commands(page):
        args = parser.parse_args(command)  # exits when it is none
        assert args.verb is not None
        for word in command:
            if word.startswith("search_spaces/"):
                assert list(ROOT.glob(word)), word


def test_the_main_job_and_the_tests_come_first() -> None:
    first, second, *_ = blocks(ROOT / "README.md", "bash")
    assert first.strip() == "pip install -e . && python run_search.py search"
    assert second.strip() == "pip install -e '.[dev]' && pytest"
    assert len(commands(ROOT / "README.md")) >= 8


def test_configurations_of_the_commands_resolve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    parser = command_line.make_parser()
    debugs = [
        args
        for args in map(parser.parse_args, commands(ROOT / "README.md"))
        if args.verb == "debug" and not args.of
    ]
    assert len(debugs) >= 3
    for args in debugs:
        hparams, corpus, _ = debug_configuration(args)
        assert hparams["train.max_steps"] == (args.steps or hparams["train.max_steps"])
        assert corpus["name"] in ("cmudict", "reverse")


def test_the_example_space_is_one(tmp_path: Path) -> None:
    (example,) = blocks(ROOT / "README.md", "yaml")
    path = tmp_path / "example.yaml"
    path.write_text(example)
    space = load_space(path)
    assert len(space.trials()) == 32
    assert set(space.searched) == set(yaml.safe_load(example)["parameters"])


def test_the_architecture_names_every_file() -> None:
    tree = (ROOT / "ARCHITECTURE.md").read_text().split("## The files")[1].split("```")[1]
    package = ROOT / "s2s_search"
    files = [
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if path.name != "__init__.py"
    ]
    assert sorted(re.findall(r"^([\w/]+\.py) +\w", tree, re.MULTILINE)) == sorted(files)


def test_the_tree_names_every_room() -> None:
    tree = (ROOT / "README.md").read_text().split("## The tree")[1].split("```")[1]
    rooms = [path.parent.name for path in (ROOT / "s2s_search").glob("*/__init__.py")]
    assert sorted(re.findall(r"^  (\w+)/", tree, re.MULTILINE)) == sorted(rooms)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target


BENCHMARKS = [
    path.stem
    for path in (ROOT / "benchmarks").glob("*.py")
    if path.stem not in ("measure", "side_by_side")
] + ["search_efficiency"]


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(BENCHMARKS))
def test_every_benchmark_is_a_command(name: str) -> None:
    command = [sys.executable, "-m", f"benchmarks.{name}", "--help"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert f"benchmarks.{name}" in result.stdout


@pytest.mark.slow
def test_the_benchmark_of_results_runs(tmp_path: Path) -> None:
    small = ["--trials", "3", "--reports", "2", "--rounds", "1", "--json", str(tmp_path / "rows")]
    command = [sys.executable, "-m", "benchmarks.results", *small]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "results.load, stored tables" in result.stdout
