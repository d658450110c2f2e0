"""The wheel: built, installed and run from an empty folder."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("s2s_search", "search_spaces")
SMALL = "train.max_steps=20,train.eval_every_steps=10,train.eval_examples=50"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def run(folder: Path, *command: str | Path) -> str:
    names = ("PYTHONPATH", "VIRTUAL_ENV", "PYTHONHOME")  # nothing of this environment
    environment = {key: value for key, value in os.environ.items() if key not in names}
    result = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that the build leaves nothing in the tree."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in FOLDERS:
        ignored = shutil.ignore_patterns("__pycache__", "*.so")
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    pip = (sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation")
    run(folder, *pip, "--wheel-dir", folder, source)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def program(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The s2s-search of an environment that has the wheel and this environment's dependencies."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    variables = {"base": str(folder), "platbase": str(folder)}
    packages = Path(sysconfig.get_path("purelib", "venv", variables))
    run(
        folder,
        *(sys.executable, "-m", "pip", "--python", folder / "bin" / "python"),
        *("install", "--no-deps", "--no-index", wheel),
    )
    here = [path for path in sys.path if path.endswith("site-packages")]
    # Plain lines of a .pth file: Python does not read the .pth files of these folders, one of which
    # would lead to the package of this repository.
    (packages / "here.pth").write_text("\n".join(here))
    return folder / "bin" / "s2s-search"


def test_it_holds_the_whole_package(wheel: Path) -> None:
    inside = set()
    for path in (path for name in FOLDERS for path in (ROOT / name).rglob("*.*")):
        name = path.relative_to(ROOT).as_posix()
        if path.is_file() and path.suffix not in (".pyc", ".so"):
            inside.add(f"s2s_search/{name}" if name.startswith("search_spaces/") else name)
    assert len(inside) > 100
    assert inside <= set(zipfile.ZipFile(wheel).namelist())
    assert {name.partition("/")[0] for name in zipfile.ZipFile(wheel).namelist()} == {
        "s2s_search",
        "s2s_search-0.1.0.dist-info",
    }


def test_it_runs_in_an_empty_folder(program: Path, tmp_path: Path) -> None:
    place = run(
        tmp_path, program.parent / "python", "-c", "import s2s_search as s; print(s.__file__)"
    )
    assert Path(place).is_relative_to(program.parents[1])
    assert "britz_2017/attention: ok: " in run(tmp_path, program, "check", "britz_2017/attention")
    sampled = run(tmp_path, program, "sample", "britz_2017/attention", "-n", "2")
    assert "trial-00001" in sampled
    assert list(tmp_path.iterdir()) == []
    small = ("--hparams", SMALL)
    said = run(tmp_path, program, "search", "--trials", "2", *small, "--out", "quickstart")
    assert "more: s2s-search results " in said  # a command of this environment
    assert "trial-00001" in run(tmp_path, program, "results", "quickstart")
    run(tmp_path, program, "search", "cells", "--trials", "1", *small, "--out", "cells")
    assert "trial-00000" in run(tmp_path, program, "results", "cells")
