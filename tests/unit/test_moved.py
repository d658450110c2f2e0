"""A run folder without its corpus: what does not train needs none, and the rest is told where it lies now."""

import shutil
from pathlib import Path

import pytest

from s2s_search.cli.command_line import main
from s2s_search.corpus.load import load_corpus
from s2s_search.errors import ConfigError
from s2s_search.results import results
from s2s_search.runs.environment import environment
from s2s_search.runs.folder import new_folder
from s2s_search.runs.recorder import Recorder, resolved
from s2s_search.spaces.load import load_space
from s2s_search.training.trial import train
from s2s_search.tuning.start import replicate_search, resume_search
from s2s_search.whatif.tune_decoding import load_dev

SPACE = """
model: AttentionSeq2Seq
corpus: {train: train.tsv, dev: dev.tsv, source_delimiter: "", target_delimiter: ""}
metric: {name: dev.loss}
search: {method: grid}
scheduler: {name: none, max_steps: 2}
parameters:
  embedding.dim: 4
  encoder.rnn_cell.cell_spec.num_units: 4
  decoder.rnn_cell.cell_spec.num_units: 4
  attention.dim: 4
  train.eval_every_steps: 1
  inference.max_decode_length: 6
  optimizer.learning_rate: [1e-3, 2e-3]
"""
MOVED = "where it lies now is said by --corpus"


@pytest.fixture
def moved(tmp_path: Path) -> Path:
    """A run folder beside `there`, the folder in which its corpus lies now."""
    home, there = tmp_path / "home", tmp_path / "there"
    home.mkdir()
    (home / "train.tsv").write_text("".join(f"ab{c}\t{c}ba\n" for c in "abcdefgh"))
    (home / "dev.tsv").write_text("abc\tcba\nabd\tdba\n")
    (home / "space.yaml").write_text(SPACE)
    space, folder = load_space(home / "space.yaml"), tmp_path / "run"
    corpus = load_corpus(space.corpus)
    new_folder(folder)
    recorder = Recorder(space, folder)
    recorder.begin(2, environment(space, corpus, None, None, None, None, ["run_search.py"]))
    for number, config in enumerate(space.trials()):
        recorder.begin_trial(f"trial-{number:05d}", config)
        for report in train(resolved(config), corpus, "cpu"):
            recorder.report(f"trial-{number:05d}", report.metrics)
        recorder.end_trial(f"trial-{number:05d}", "finished")
    recorder.end("finished")
    recorder.close()
    shutil.move(home, there)
    return folder


@pytest.mark.parametrize(
    "command",
    [
        ["report"],
        ["replay"],
        ["results"],
        ["explain", "0"],
        ["compare", "0", "1"],
        ["results", "--json"],
    ],
)
def test_what_does_not_train_needs_no_corpus(moved: Path, command: list[str]) -> None:
    assert main([command[0], str(moved), *command[1:]]) == 0


def test_a_script_needs_no_corpus(moved: Path) -> None:
    run = results.load(moved)
    assert run.space().searched == ("optimizer.learning_rate",)
    assert run.importance().attrs["reason"]
    assert [trial.params for trial in run.to_optuna().trials] == [
        {"optimizer.learning_rate": rate} for rate in (1e-3, 2e-3)
    ]


def corpora(moved: Path) -> list[str]:
    """The new place as a mapping, and as the file of a search space."""
    there = moved.parent / "there"
    return [
        f"{{train: {there / 'train.tsv'}, dev: {there / 'dev.tsv'}}}",
        str(there / "space.yaml"),
    ]


def test_a_trial_runs_again_where_the_corpus_lies_now(
    moved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rerun", str(moved), "1", "--check"]) == 2
    assert MOVED in capsys.readouterr().err
    for corpus in corpora(moved):
        assert main(["rerun", str(moved), "1", "--check", "--corpus", corpus]) == 0
        assert "identical (2 reports" in capsys.readouterr().out
        assert main(["debug", "--run", str(moved), "--trial", "1", "--corpus", corpus]) == 0
    assert main(["debug", "--run", str(moved), "--trial", "1"]) == 2
    assert MOVED in capsys.readouterr().err


def test_another_corpus_is_refused(moved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dev = moved.parent / "there" / "dev.tsv"
    dev.write_text(dev.read_text().replace("abd", "abe"))
    for command in (["rerun", str(moved), "1"], ["debug", "--run", str(moved), "--trial", "1"]):
        for corpus in [*corpora(moved), "reverse"]:
            assert main([*command, "--corpus", corpus]) == 2
            assert (
                "the corpus is not the one that the search was made with" in capsys.readouterr().err
            )


def test_a_search_goes_on_where_the_corpus_lies_now(moved: Path) -> None:
    there = {part: str(moved.parent / "there" / f"{part}.tsv") for part in ("train", "dev")}
    with pytest.raises(ConfigError, match=MOVED):
        resume_search(moved)
    assert resume_search(moved, corpus=there).status == "finished"
    with pytest.raises(ConfigError, match=MOVED):
        replicate_search(moved, top=1, seeds=1, out=moved.parent / "again")
    assert not (moved.parent / "again").exists()
    with pytest.raises(ConfigError, match=MOVED):
        load_dev(moved, 0)
    assert len(load_dev(moved, 0, there).corpus.dev) == 2


@pytest.mark.parametrize(
    "text",
    [
        "9" * 5000,
        "2020-13-45",
        "{name: copy, train: 1_0}",
        "{name: copy, train: 0x10}",
        "&a [*a]",
        "no.yaml",
    ],
)
def test_an_argument_that_names_no_corpus(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["debug", "--corpus", text, "--steps", "1"]) == 2
    assert capsys.readouterr().err.startswith("--corpus")
