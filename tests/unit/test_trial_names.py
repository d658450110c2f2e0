"""A trial is named as the tables print it, or by its number, in every verb, and one that is not there in one sentence.

What a verb prints to be typed is what a shell takes.
"""

import shlex
from collections.abc import Sequence
from pathlib import Path

import pytest

from s2s_search.cli import command_line
from s2s_search.errors import command
from tests.runs import SPACE, write_run

ROW = "trial-00002"
ARGUMENTS = {
    "explain": ("explain", "DIR", "TRIAL"),
    "rerun": ("rerun", "DIR", "TRIAL"),
    "debug --run": ("debug", "--run", "DIR", "--trial", "TRIAL"),
    "debug --space": ("debug", "--space", "SPACE", "--trials", "3", "--trial", "TRIAL"),
    "decode": ("decode", "DIR", "--trial", "TRIAL"),
    "compare": ("compare", "DIR", "TRIAL", "0"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "run", trials=3)


def arguments(verb: str, folder: Path, trial: str) -> list[str]:
    places = {"DIR": str(folder), "SPACE": str(folder.with_suffix(".yaml")), "TRIAL": trial}
    return [places.get(word, word) for word in ARGUMENTS[verb]]


@pytest.mark.parametrize("verb", ARGUMENTS)
def test_a_name_and_a_number_name_the_same_trial(verb: str, folder: Path) -> None:
    parser = command_line.make_parser()
    parsed = [
        parser.parse_args(arguments(verb, folder, text)) for text in (ROW, "2", "00002", "trial-2")
    ]
    if verb == "compare":  # the side's text is read with the trials
        return
    assert {args.trial for args in parsed} == {2}


@pytest.mark.parametrize("verb", ARGUMENTS)
def test_a_trial_that_is_not_there_is_one_sentence(
    verb: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for text in ("trial-00007", "7", "00007"):
        assert command_line.main(arguments(verb, folder, text)) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert "there is no trial-00007; there are trial-00000 to trial-00002" in err
        assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    "text", ["trial-", "-1", "2.0", "trial-²", "٣", "9" * 5000, "trial_00002", "Trial-00002"]
)
def test_what_names_no_trial(text: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("explain", "rerun", "decode"):
        assert command_line.main(arguments(verb, folder, text)) == 2
    err = capsys.readouterr().err
    assert "Traceback" not in err
    if text != "-1":  # an option to argparse
        assert (
            "must be a trial's name or its number from 0, such as trial-00005 or 5, but got" in err
        )


def test_names_compare_as_numbers_do(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = []
    for a, b in (("trial-00002", "trial-00000"), ("2", "0"), ("00002", "trial-0")):
        assert command_line.main(["compare", str(folder), a, b]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] == said[2]
    assert "trial-00002" in said[0]
    assert command_line.main(["compare", str(folder), "9" * 5000, "0"]) == 2
    assert "Traceback" not in capsys.readouterr().err


ODD = ["a b", "it's", '$HOME "x"', "a;b&c|d", "-x", "ünï", "*", "a\\b"]


@pytest.mark.parametrize("name", ODD)
def test_a_command_comes_back_from_a_shells_words(name: str) -> None:
    words = shlex.split(command("debug", "--run", Path(name), "--trial", 3))
    assert words[:4] == ["python", "run_search.py", "debug", "--run"]
    assert Path(words[4]) == Path(name)
    assert not words[4].startswith("-")
    assert words[5:] == ["--trial", "3"]


@pytest.mark.parametrize("name", ["a b", "it's; $HOME"])
def test_what_is_printed_can_be_typed(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The commands in what results and explain print name the folder as one word."""
    run = write_run(tmp_path / name, trials=6, text=SPACE)
    assert command_line.main(["results", str(run)]) == 0
    assert command_line.main(["explain", str(run), "5"]) == 0
    hints = [
        line.partition("python run_search.py ")[2] for line in capsys.readouterr().out.splitlines()
    ]
    found: Sequence[str] = [hint for hint in hints if hint]
    assert len(found) == 2
    for hint in found:
        assert command_line.make_parser().parse_args(shlex.split(hint)).of == run
