"""What a search is warned of, against plain loops and the schedulers themselves."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from s2s_search.cli import command_line
from s2s_search.corpus.load import load_corpus
from s2s_search.spaces.load import load_space
from s2s_search.spaces.space import Space
from s2s_search.spaces.warnings import space_warnings
from s2s_search.tuning.schedulers import Past, Watched, _inner
from s2s_search.tuning.start import run_search
from tests.spaces import COPY, RATES, SMALL, space_text

ROOT = Path(__file__).parents[2]


@pytest.fixture
def load(tmp_path: Path) -> Any:
    def load(parameters: dict[str, object] | None = None, **sections: object) -> Space:
        path = tmp_path / "space.yaml"
        path.write_text(space_text(RATES | (parameters or {}), model="BasicSeq2Seq", **sections))
        return load_space(path)

    return load


def found(space: Space) -> list[str]:
    return [
        str(warning) for warning in space_warnings(space, load_corpus(space.corpus), space.trials())
    ]


def decisions(space: Space) -> int:
    """Returns how often the scheduler decides when each trial reports as its settings say."""
    inner: Any = _inner(space.scheduler, dict)
    inner.set_search_properties("dev.loss", "min")
    watched, count = Watched(inner, space.scheduler, "dev.loss", True), 0
    for number, trial in enumerate(space.trials()):
        past = Past(f"trial-{number}")
        watched.on_trial_add(None, past)
        every, end = int(str(trial["train.eval_every_steps"])), int(str(trial["train.max_steps"]))
        for step in sorted({*range(every, end, every), end}):
            status = "running" if step < end else "finished"
            past.last_result = {"step": step, "dev.loss": 1.0, "status": status}
            watched.on_trial_result(None, past, past.last_result)
            count += len(watched.decisions)
            watched.decisions.clear()
    return count


@pytest.mark.parametrize("gpu, idle", [(0, 0), (0.25, 0), (1, 0), (2, 1), (8, 7)])
def test_gpus_that_a_trial_does_not_use(load: Any, gpu: float, idle: int) -> None:
    sentences = [sentence for sentence in found(load(resources={"gpu": gpu})) if "GPU" in sentence]
    assert len(sentences) == (idle > 0)
    assert all(f"{idle} of its {gpu} stay idle" in sentence for sentence in sentences)


SCHEDULES = [  # eval_every_steps, max_steps, grace_steps
    *((100, 90, 10), (100, 100, 10), (10, 90, 10), (50, 90, 50), (50, 90, 51)),
    *((30, 61, 60), (30, 60, 60), (7, 8, 8)),
]


@pytest.mark.parametrize("name", ["asha", "median"])
@pytest.mark.parametrize("every, end, grace", SCHEDULES)
def test_a_scheduler_that_never_compares(
    load: Any, name: str, every: int, end: int, grace: int
) -> None:
    scheduler = {"name": name, "max_steps": end, "grace_steps": grace}
    space = load({"train.eval_every_steps": every}, scheduler=scheduler, search={"trials": 5})
    warned = [text for text in found(space) if "never compares" in text]
    assert bool(warned) == (decisions(space) == 0)
    if warned and grace < end:
        mended = load({"train.eval_every_steps": grace}, scheduler=scheduler, search={"trials": 5})
        assert warned[0].endswith(f"train.eval_every_steps: {grace} reports in time")
        assert decisions(mended) > 0
        assert not found(mended)


def test_pbt_that_never_mutates(load: Any) -> None:
    scheduler = {"name": "pbt", "max_steps": 90, "interval_steps": 30}
    (text,) = found(load({"train.eval_every_steps": 90}, scheduler=scheduler, search={"trials": 4}))
    assert text.startswith("scheduler.name: pbt never mutates any trial: it begins at step 30")
    assert not found(
        load({"train.eval_every_steps": 30}, scheduler=scheduler, search={"trials": 4})
    )


def test_trials_that_are_never_compared_are_counted(load: Any) -> None:
    parameters = {"train.eval_every_steps": {"grid": [10, 100]}}
    scheduler = {"name": "asha", "max_steps": 90, "grace_steps": 10}
    (text,) = found(load(parameters, scheduler=scheduler, search={"trials": 3}))
    assert "asha never compares 3 of 6 trials" in text


def test_hyperband_without_a_bracket_that_halves(load: Any) -> None:
    scheduler = {"name": "hyperband", "max_steps": 90}
    (text,) = found(load({"train.eval_every_steps": 1}, scheduler=scheduler, search={"trials": 5}))
    assert "all 5 trials are in the bracket that runs to its end" in text
    assert not found(
        load({"train.eval_every_steps": 1}, scheduler=scheduler, search={"trials": 16})
    )
    (text,) = found(
        load({"train.eval_every_steps": 90}, scheduler=scheduler, search={"trials": 16})
    )
    assert "hyperband never compares any trial" in text


def test_median_of_too_few(load: Any) -> None:
    space = load(
        scheduler={"name": "median", "max_steps": 90, "grace_steps": 10}, search={"trials": 3}
    )
    assert "three others at least, but there are 3 trials" in found(space)[0]


def test_two_budgets(load: Any) -> None:
    (text,) = found(load({"train.max_steps": 50}, scheduler={"name": "none", "max_steps": 60}))
    assert text.startswith("train.max_steps: trials end at 50 steps, but scheduler.max_steps = 60")
    for steps in (60, [20, 60], {"min": 20, "max": 60}):
        assert not found(
            load({"train.max_steps": steps}, scheduler={"name": "none", "max_steps": 60})
        )
    assert not found(load({"train.max_steps": 50}, scheduler={"name": "none"}))


@pytest.mark.parametrize("side, specials", [("source", 1), ("target", 2)])
def test_the_share_of_sequences_that_are_cut(load: Any, side: str, specials: int) -> None:
    space = load(
        {f"{side}.max_seq_len": [4, 5, 9]}, corpus=COPY, scheduler={"name": "none", "max_steps": 60}
    )
    train = load_corpus(COPY).train
    lengths = [len(train.source(i)) + specials for i in range(len(train))]
    cut = sum(length > 4 for length in lengths)
    (text,) = found(space)
    assert f"{side}.max_seq_len: 4 cuts {cut} of 100 {side}s of train" in text
    assert f"{max(lengths)} cuts none" in text
    assert not found(
        load({f"{side}.max_seq_len": max(lengths)}, scheduler={"name": "none", "max_steps": 60})
    )


@pytest.mark.parametrize("name", ["copy", "reverse"])
def test_a_toy_as_it_is_cuts_nothing_that_anyone_chose(load: Any, name: str) -> None:
    toy = {"name": name, "train": 200, "dev": 10, "test": 10}
    none: dict[str, object] = {"name": "none", "max_steps": 60}
    assert not found(load(corpus=toy, scheduler=none))
    assert len(found(load(corpus=toy | {"max_length": 50}, scheduler=none))) == 2
    assert len(found(load({"source.max_seq_len": 30}, corpus=toy, scheduler=none))) == 1


def test_the_corpus_of_a_debug_run_is_wrong_in_its_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "train.tsv").write_text("a b\n")
    path = tmp_path / "space.yaml"
    corpus = {"train": "train.tsv", "dev": "train.tsv"}
    path.write_text(space_text(RATES, model="BasicSeq2Seq", corpus=corpus, search={"trials": 2}))
    told = []
    for command in (["check", str(path)], ["plan", str(path)], ["debug", "--space", str(path)]):
        assert command_line.main(command) == 2
        told.append(capsys.readouterr().err)
    assert told[0].startswith(f"{path}: 2 problems\n  corpus.train: ")
    assert told == [told[0]] * 3
    given = f"{{train: {tmp_path / 'train.tsv'}, dev: {tmp_path / 'train.tsv'}}}"
    assert command_line.main(["debug", "--corpus", given]) == 2
    assert capsys.readouterr().err == told[0].replace(str(path), "--corpus")


def test_bleu_on_short_references(load: Any) -> None:
    none: dict[str, object] = {"name": "none", "max_steps": 60}
    short = COPY | {"max_length": 3}
    (text,) = found(load(corpus=short, metric={"name": "dev.bleu"}, scheduler=none))
    assert (
        "10 of 10 references of dev have fewer (all), so that it is 0 for perfect answers" in text
    )
    assert not found(load(corpus=short, metric={"name": "dev.error_rate"}, scheduler=none))
    assert not found(
        load(corpus=COPY | {"min_length": 4}, metric={"name": "dev.bleu"}, scheduler=none)
    )
    search = {"method": "tpe", "trials": 4}
    (text,) = found(load(corpus=short, search=search, objectives=["dev.bleu"], scheduler=none))
    assert text.startswith("objectives: BLEU counts 4 tokens in a row")


@pytest.mark.parametrize(
    "path", sorted((ROOT / "search_spaces").rglob("*.yaml")), ids=lambda path: path.stem
)
def test_the_spaces_of_the_repository_have_no_warnings(path: Path) -> None:
    assert found(load_space(path)) == []


def test_all_commands_say_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On standard error; --json holds them, and they change no status unless --strict says so."""
    (tmp_path / "train.tsv").write_text("bonjour\tb o\nchat\tch a\nniche\tn i ch\n")
    (tmp_path / "dev.tsv").write_text("chien\tch i n\n")
    small = {key: value for key, value in SMALL.items() if key != "train.eval_every_steps"}
    path = tmp_path / "space.yaml"
    text = space_text(
        RATES | small | {"train.eval_every_steps": 1},
        model="BasicSeq2Seq",
        search={"trials": 2},
        scheduler={"name": "none", "max_steps": 2},
        corpus={"train": "train.tsv", "dev": "dev.tsv"},
    )
    path.write_text(text)
    law = (
        "corpus.dev: "
        + str(tmp_path / "dev.tsv")
        + ": 1 of 1 source tokens are unknown (all), such as 'chien'; "
    )
    line = f"{path}: line 1: warning: {law}almost every source is one token; "
    line += 'source_delimiter: "" reads characters, all of them known\n'

    def run(*arguments: str) -> tuple[int, str]:
        status = command_line.main(list(arguments))
        out, err = capsys.readouterr()
        assert line in err
        return status, out

    assert run("check", str(path))[0] == 0
    assert run("check", "--strict", str(path))[0] == 2
    status, out = run("check", "--json", str(path))
    assert (status, len(out.splitlines())) == (0, 1)
    (warning,) = json.loads(out)["warnings"]
    assert (warning["line"], warning["key"], warning["values"]) == (
        1,
        "corpus.dev",
        {"unknown": 1, "of": 1},
    )
    status, out = run("plan", "--no-probe", "--json", str(path))
    assert (status, json.loads(out)["warnings"]) == (0, [warning])
    status, out = run("debug", "--space", str(path), "--json")
    assert [json.loads(text)["step"] for text in out.splitlines()] == [1, 2]


def test_a_search_is_warned_before_it_starts(load: Any, tmp_path: Path) -> None:
    """Overrides count: --hparams can mend a setting, or cause the warning."""

    class StartsError(Exception):
        pass

    def warn(warnings: Any) -> None:
        said.append([warning.key for warning in warnings])
        raise StartsError

    said: list[list[str]] = []
    space = load(
        {"train.eval_every_steps": 100},
        scheduler={"name": "asha", "max_steps": 90, "grace_steps": 10},
    )
    given: list[dict[str, object]] = [{}, {"train.eval_every_steps": 10}, {"target.max_seq_len": 3}]
    for number, overrides in enumerate(given):
        with pytest.raises(StartsError):
            run_search(space, out=tmp_path / str(number), overrides=overrides, warn=warn)
    assert said == [["scheduler.name"], [], ["scheduler.name", "target.max_seq_len"]]


def test_check_needs_no_numpy_for_cmudict_as_it_is() -> None:
    code = "import sys; sys.modules['numpy'] = None; from s2s_search.cli import main; "
    code += "sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "check", str(ROOT / "search_spaces" / "quickstart.yaml")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


def test_check_measures_cmudict_where_the_file_cuts_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(
        space_text({"source.max_seq_len": 5}, model="BasicSeq2Seq", corpus={"name": "cmudict"})
    )
    assert command_line.main(["check", str(path)]) == 0
    words = load_corpus({"name": "cmudict"}).train
    cut = sum(len(words.source(i)) + 1 > 5 for i in range(len(words)))
    assert (
        f"source.max_seq_len: 5 cuts {cut:,} of {len(words):,} sources of train"
        in capsys.readouterr().err
    )
