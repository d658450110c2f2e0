"""Problems of a user's input: collected, and each named with its place once."""

import sys
from pathlib import Path

import pytest

from s2s_search.cli.command_line import main
from s2s_search.errors import ConfigError, collecting, command, nearest, quantity


def test_problems_are_collected_with_their_places() -> None:
    problems: list[str] = []
    with collecting(problems):
        raise ConfigError(["one", "two"], "a.yaml")
    with collecting(problems, "corpus.train: "):
        raise ConfigError("three")
    with collecting(problems, where="b.yaml"):
        raise ConfigError("four", "b.yaml")
    with collecting(problems, "label: ", where="b.yaml"):
        raise ConfigError("five", "c.yaml")
    with collecting(problems):
        problems.append("six")
    with pytest.raises(ValueError, match="other"), collecting(problems):
        raise ValueError("other")
    expected = ["a.yaml: one", "a.yaml: two", "corpus.train: three", "four"]
    assert problems == [*expected, "label: c.yaml: five", "six"]


@pytest.mark.parametrize("verb", ["plan", "search"])
def test_the_file_of_a_problem_is_named_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    space = tmp_path / "space.yaml"
    space.write_text(
        "model: BasicSeq2Seq\ncorpus: {name: copy, train: 20, dev: 5}\n"
        "parameters: {embedding.dim: {choices: [4, 5]}}\n"
    )
    assert main([verb, str(space), "--trials", "50"]) == 2
    assert capsys.readouterr().err.count(str(space)) == 1


def test_the_nearest_name_follows_the_first_rule_that_finds_one() -> None:
    names = ["optimizer.learning_rate", "learning", "min", "log", "max_steps"]
    assert nearest("learning_rate", names) == "; did you mean 'optimizer.learning_rate'?"
    assert nearest("low", names) == "; did you mean 'min'?"
    assert nearest("lerning", names) == "; did you mean 'learning'?"
    assert nearest("steps", names) == "; did you mean 'max_steps'?"
    assert nearest("", ["a", ""]) == '; known: a, ""'
    assert nearest("zzz", []) == ""
    assert nearest("zzz", map(str, range(21))) == "; known: 0, 1, 2, ... (21 in all)"


@pytest.mark.parametrize(
    "script, words",
    [
        ("/usr/bin/s2s-search", "s2s-search"),
        ("s2s-search.exe", "s2s-search"),
        ("run_search.py", "python run_search.py"),
        ("-c", "python run_search.py"),
    ],
)
def test_printed_commands_begin_as_this_process_did(
    script: str, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [script])
    assert command("resume", Path("runs/a")) == f"{words} resume runs/a"
    assert main(["plan", "tpe", "--no-probe"]) == 0
    assert f"{words} search tpe\n" in capsys.readouterr().out
    assert main(["search", "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"usage: {words.split()[-1]} search ")


@pytest.mark.parametrize(
    "number, text", [(0, "0 trials"), (1, "1 trial"), (2, "2 trials"), (1200, "1,200 trials")]
)
def test_a_noun_agrees_with_its_number(number: int, text: str) -> None:
    assert quantity(number, "trial") == text
