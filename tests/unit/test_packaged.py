"""The search spaces that come with the package, by name, and what the installed package holds."""

import tomllib
from pathlib import Path

import pytest

from s2s_search.cli import main
from s2s_search.errors import ConfigError
from s2s_search.spaces.load import load_space
from s2s_search.spaces.packaged import packaged_spaces

ROOT = Path(__file__).parents[2]


def test_every_file_of_search_spaces_has_a_name() -> None:
    files = sorted((ROOT / "search_spaces").rglob("*.yaml"))
    assert len(files) > 10
    assert [path.resolve() for path in packaged_spaces().values()] == files
    assert packaged_spaces()["quickstart"].samefile(ROOT / "search_spaces" / "quickstart.yaml")


def test_a_name_is_looked_up_where_there_is_no_such_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cells").mkdir()  # a folder is no file
    for name in ("britz_2017/attention", "cells"):
        file = ROOT / "search_spaces" / f"{name}.yaml"
        assert load_space(name).text == file.read_text()
        assert load_space(name).name == file.stem
    for command in (["check"], ["sample", "-n", "1"], ["plan", "--no-probe"]):
        assert main([command[0], "britz_2017/attention", *command[1:]]) == 0
    assert main(["debug", "--space", "tpe", "--steps", "1", "--corpus", "copy"]) == 0
    assert "britz_2017/attention: ok: " in capsys.readouterr().out
    (tmp_path / "cells").rmdir()
    (tmp_path / "cells").write_text("model: BasicSeq2Seq\n")
    assert load_space("cells").text == "model: BasicSeq2Seq\n"


@pytest.mark.parametrize(
    "asked, nearest",
    [
        ("britz_2017/atention", "britz_2017/attention"),
        ("britz/attention", "britz_2017/attention"),
        ("quickstrat", "quickstart"),
        ("depth", "britz_2017/depth"),
        ("quickstart.yaml", "quickstart"),
    ],
)
def test_the_nearest_name_is_told(
    asked: str, nearest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as raised:
        load_space(asked)
    law = "cannot be read: No such file or directory"
    assert str(raised.value) == f"{asked}: {law}; did you mean '{nearest}'?"


def test_all_packages_are_installed() -> None:
    """They are listed one by one, because two of them lie outside the package's folder."""
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    code = {path.parent for path in (ROOT / "s2s_search").rglob("*.py")}
    spaces = {path.parent for path in (ROOT / "search_spaces").rglob("*.yaml")}
    packages = {".".join(path.relative_to(ROOT).parts) for path in code}
    packages |= {".".join(("s2s_search", *path.relative_to(ROOT).parts)) for path in spaces}
    assert sorted(setuptools["packages"]) == sorted(packages)
    others = {path for path in (ROOT / "s2s_search").rglob("*.*") if path.is_file()}
    others -= {path for path in others if path.suffix in (".py", ".pyc", ".so", ".c", ".h")}
    named = setuptools["package-data"]
    for path in others:
        package = ".".join(path.relative_to(ROOT).parts[:-1])
        assert path.name in named[package], f"{path} is not installed"
