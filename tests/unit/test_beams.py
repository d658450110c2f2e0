"""Settings of decoding: errors compared with one source at a time; which setting is recommended."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s2s_search.cli import command_line
from s2s_search.cli.trials import checkpoint_path
from s2s_search.cli.whatif import print_decoding
from s2s_search.corpus.load import load_corpus
from s2s_search.errors import ConfigError
from s2s_search.hparams.configuration import resolve
from s2s_search.metrics import Edits
from s2s_search.runs.checkpoints import Checkpoints, keep_snapshots
from s2s_search.runs.folder import BEST
from s2s_search.spaces.settings import Resources
from s2s_search.training.trained_model import load_trained
from s2s_search.training.trial import train
from s2s_search.whatif import tune_decoding
from s2s_search.whatif.tune_decoding import Decoded, Dev, Setting
from tests.spaces import SMALL, distance
from tests.unit.test_sides import write_run

SETTINGS = SMALL | {
    "optimizer.learning_rate": 0.02,
    "train.max_steps": 60,
    "train.eval_every_steps": 60,
}


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dev, str, dict[str, list[str]]]:
    """A dev set with one to three references per source, a checkpoint, and the references."""
    folder = tmp_path_factory.mktemp("corpus")
    draw = np.random.default_rng(0)
    lines = [" ".join(draw.choice(list("abcd"), draw.integers(1, 6))) for _ in range(60)]
    references = {
        line: list(dict.fromkeys([line, line[::-1], line + " a"][: 1 + len(line) % 3]))
        for line in lines
    }
    pairs = [(source, target) for source, targets in references.items() for target in targets]
    for side, name in enumerate(("source", "target")):
        (folder / name).write_text("".join(pair[side] + "\n" for pair in pairs))
    files = [str(folder / "source"), str(folder / "target")]
    corpus = load_corpus({"train": files, "dev": files})
    groups = np.cumsum([0, *map(len, references.values())])  # files have one reference a source
    corpus = replace(corpus, dev=replace(corpus.dev, groups=groups))
    reports = train(resolve("BasicSeq2Seq", SETTINGS), corpus)
    assert (
        len(list(keep_snapshots(reports, Checkpoints(folder / "trial"), "dev.loss", "minimize")))
        == 1
    )
    return Dev(corpus, 0, Resources(1, 0)), str(folder / "trial" / BEST), references


@pytest.mark.parametrize("width, penalty", [(1, None), (3, 0.0), (3, 2.0)])
def test_each_source_is_decoded_once_as_if_alone(
    dev: Any, width: int, penalty: float | None
) -> None:
    known, checkpoint, references = dev
    setting = Setting("trial-00000", checkpoint, width, penalty)
    found = tune_decoding.decode(known, setting)
    trained = load_trained(checkpoint, setting.hparams)
    expected = []
    for source, targets in references.items():
        (answer,) = trained.answers([source])
        expected.append(
            min(
                (distance(tuple(answer.split()), tuple(t.split())), -len(t.split()))
                for t in targets
            )
        )
    assert sorted(zip(found.edits.errors, found.edits.lengths, strict=True)) == sorted(
        (errors, -length) for errors, length in expected
    )
    assert 0 < found.seconds < 1


def test_an_answer_of_unk_is_an_error(dev: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    known, checkpoint, references = dev
    unk = known.corpus.target_vocab.unk
    split = known.corpus.dev
    unknown = replace(
        known.corpus, dev=replace(split, target_tokens=np.full_like(split.target_tokens, unk))
    )
    monkeypatch.setattr(tune_decoding, "SOURCES_AT_ONCE", 100)
    monkeypatch.setattr(
        "s2s_search.training.evaluation.answers", lambda *_: [[unk]] * len(references)
    )
    found = tune_decoding.decode(
        known._replace(corpus=unknown), Setting("trial-00000", checkpoint, 1, None)
    )
    assert found.edits.errors == found.edits.lengths
    assert found.bleu == 0


def test_the_order_of_the_sources_is_the_same_for_all_settings(dev: Any) -> None:
    """Settings are compared source by source."""
    known, *_ = dev
    orders = [
        [group for groups, *_ in tune_decoding.batches(known) for group in groups] for _ in range(2)
    ]
    assert orders[0] == orders[1]
    assert sorted(orders[0]) == list(range(len(known.corpus.dev.groups) - 1))
    part = [
        group
        for groups, *_ in tune_decoding.batches(known._replace(examples=7))
        for group in groups
    ]
    assert len(part) == 7


def test_a_beam_of_one_has_no_penalty() -> None:
    settings = tune_decoding.grid({"trial-00002": "a", "trial-00001": "b"}, [1, 2], [0.0, 0.5, 1.0])
    assert len(settings) == 2 * (1 + 3)
    assert [setting.hparams for setting in settings if setting.width == 1] == [
        {tune_decoding.WIDTH: 1}
    ] * 2
    assert {tune_decoding.WIDTH: 2, tune_decoding.PENALTY: 0.5} in [
        setting.hparams for setting in settings
    ]


def table(*rows: tuple[list[int], float]) -> Any:
    """Of settings that make these errors in sources of 4 tokens, and take these seconds."""
    settings = [Setting(f"trial-{k:05d}", "", 1, None) for k in range(len(rows))]
    decoded = [Decoded(Edits(errors, [4] * len(errors)), 0.0, seconds) for errors, seconds in rows]
    return tune_decoding.table(settings, decoded).set_index("trial")


def test_the_fastest_within_the_margin_of_all_others_is_recommended() -> None:
    """The margin is 2 % of 0.25, which is 0.02 edits a source of 4 tokens."""
    best, near, worse = [1] * 4000, [1] * 3984 + [2] * 10 + [0] * 6, [1] * 3600 + [2] * 400
    found = table((best, 3.0), (near, 2.0), (worse, 1.0))
    assert found["recommended"].tolist() == [False, True, False]
    assert found["front"].tolist() == [True, True, True]
    assert found["behind"].tolist() == pytest.approx([0, 4 / 16000, 400 / 16000])
    assert found.loc["trial-00001", "behind.low"] < 0 < found.loc["trial-00001", "behind.high"]
    assert found.loc["trial-00001", "behind.high"] < 0.02 * 0.25
    assert found.loc["trial-00002", "behind.low"] > 0


@pytest.mark.parametrize("sources", [1, 20, 100])
def test_few_sources_recommend_nothing(
    sources: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not even if both settings give the same answers to them."""
    found = table(([1] * sources, 2.0), ([1] * sources, 1.0))
    assert found["recommended"].tolist() == [False, False]
    assert 0 < found["behind.high"].iloc[1] < 1
    print_decoding(tmp_path, found.reset_index(), sources)
    out = capsys.readouterr().out
    assert (
        f"nothing is recommended: {sources} sources show of no setting that it is at most 0.0050 "
        "worse than any other\nthe best on them: trial-00001 with\n"
    ) in out
    assert command_line.main(["tune-decoding", str(tmp_path), "--examples", "1"]) == 2
    assert "must be a whole number of at least 2" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("sources", [20, 50, 200, 500, 2000])
def test_a_setting_that_is_worse_is_seldom_recommended(sources: int) -> None:
    """The fast one has an error rate of 0.12, and the slow one of 0.10."""
    rng, runs, wrong = np.random.default_rng(sources), 200, 0
    for _ in range(runs):
        slow = rng.binomial(4, 0.1, sources)
        fast = np.where(rng.random(sources) < 0.9, slow, rng.binomial(4, 0.3, sources))
        found = table((slow.tolist(), 2.0), (fast.tolist(), 1.0))
        wrong += bool(found.loc["trial-00001", "recommended"])
    assert wrong / runs <= 0.07  # it was 73 to 93 of 100 below 500 sources


def test_the_best_of_many_models_is_not_better_by_luck_alone() -> None:
    """Models that make other errors are as good, as far as one can tell; none is recommended."""
    rng = np.random.default_rng(12)
    rows = [(rng.binomial(4, 0.1, 500).tolist(), 1.0 + k) for k in range(10)]
    assert not table(*rows)["recommended"].any()


def test_models_without_errors_are_recommended_by_time() -> None:
    found = table(([0] * 4000, 2.0), ([0] * 4000, 1.0))
    assert found["recommended"].to_dict() == {"trial-00001": True, "trial-00000": False}


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_table_that_cannot_be_written_is_said_before_anything_is_decoded(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    form: list[str],
) -> None:
    """There is a folder in the place of the table; then the disk fills up during the decoding."""
    command = ["tune-decoding", str(tmp_path), "--beams", "1", *form]
    calls: list[object] = []

    def decoded(*arguments: object) -> Any:
        calls.append(arguments)
        if (tmp_path / "turns").exists():
            (tmp_path / "decoding.csv").mkdir()
        return [(0, Decoded(Edits([0, 1], [4, 4]), 0.0, 1.0))]

    monkeypatch.setattr(tune_decoding, "best_checkpoints", lambda *_: {"trial-00000": "best.pt"})
    dev = Dev(None, 0, Resources(1, 0))  # type: ignore[arg-type]
    monkeypatch.setattr(tune_decoding, "load_dev", lambda *_: dev)
    monkeypatch.setattr("s2s_search.tuning.cluster.each", decoded)
    (tmp_path / "decoding.csv").mkdir()
    assert command_line.main(command) == 2
    out, err = capsys.readouterr()
    assert (out, calls) == ("", [])
    assert f"{tmp_path / 'decoding.csv'}: cannot be written: a folder has this name" in err
    (tmp_path / "decoding.csv").rmdir()
    (tmp_path / "turns").touch()
    assert command_line.main(command) == 2
    out, err = capsys.readouterr()
    assert "trial-00000" in out  # the numbers are not lost with the file
    assert "cannot be written: Is a directory" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["decoding.csv", "turns"]


def test_the_best_checkpoints_lie_below_a_url_with_a_query(tmp_path: Path) -> None:
    storage, query = f"file://{tmp_path}/storage", "?use_mmap=true"
    run = write_run(
        tmp_path / "run", [({}, k, "finished", float(k)) for k in range(5)], storage=storage + query
    )
    for k in (1, 2, 4):
        Checkpoints(f"{storage}/trial-0000{k}{query}").save({"step": 1}, True)
    paths = {k: f"{storage}/trial-0000{k}/{BEST}{query}" for k in (1, 2, 4)}
    assert tune_decoding.best_checkpoints(run, 2) == {f"trial-0000{k}": paths[k] for k in (1, 2)}
    assert tune_decoding.best_checkpoints(run, 9) == {f"trial-0000{k}": paths[k] for k in (1, 2, 4)}
    assert (checkpoint_path(run, None), checkpoint_path(run, 4)) == (paths[1], paths[4])
    for trial, law in (
        (3, "trial-00003 has no checkpoint: "),
        (5, "there is no trial-00005; there are trial-00000 to trial-0000"),
    ):
        with pytest.raises(ConfigError, match=law):
            checkpoint_path(run, trial)


def test_the_best_is_recommended_where_all_others_are_worse_or_slower() -> None:
    found = table(([1] * 4000, 2.0), ([2] * 4000, 1.0), ([1] * 4000, 3.0))
    assert found["recommended"].to_dict() == {
        "trial-00000": True,
        "trial-00001": False,
        "trial-00002": False,
    }
    assert found["front"].to_dict() == {
        "trial-00000": True,
        "trial-00001": True,
        "trial-00002": False,
    }


def test_settings_are_paired_source_by_source() -> None:
    """Sources that are hard for both settings say nothing about which is better."""
    hard = [0, 4] * 2000
    found = table((hard, 2.0), ([errors + (k < 10) for k, errors in enumerate(hard)], 1.0))
    assert found["recommended"].tolist() == [False, True]  # 0.0006 worse, for all sources alike
    unpaired = table((hard, 2.0), ([*hard[1:], hard[0] + 1], 1.0))
    assert unpaired["recommended"].tolist() == [False, False]
