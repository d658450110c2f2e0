"""What a search takes from earlier runs, against plain loops; without Ray."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from s2s_search.cli import command_line
from s2s_search.corpus.load import load_corpus
from s2s_search.errors import ConfigError
from s2s_search.methods.proposals import Proposals
from s2s_search.methods.samplers import TPE
from s2s_search.runs.log import EventLog, first_event, read_events
from s2s_search.spaces.load import load_space
from s2s_search.spaces.space import Space, completed
from s2s_search.tuning.search import Search
from s2s_search.tuning.start import resume_search, run_search

SPACE = """
model: AttentionSeq2Seq
corpus: {{name: copy, train: 9, dev: 3, vocabulary: 5, min_length: 2, max_length: 3}}
metric: {{name: {metric}}}
search: {{method: {method}, trials: {trials}, seed: 5{more}}}
scheduler: {{name: none, max_steps: 40}}
parameters:
  embedding.dim: {{min: 8, max: 64}}
  attention.score_type: {score}
  optimizer.lr_decay_type: ["", exponential_decay]
  optimizer.lr_decay_rate: {{choices: [0.5, 0.9], when: {{optimizer.lr_decay_type: exponential_decay}}}}
"""
BASE = {
    "model": "AttentionSeq2Seq",
    "attention.score_type": "dot",
    "optimizer.lr_decay_type": "",
    "train.max_steps": 7,
    "train.seed": 1,
}
Row = tuple[int, float | None, str]  # embedding.dim, the metric and the status of a trial


def write(folder: Path, **settings: Any) -> Space:
    given = {"metric": "dev.loss", "method": "random", "trials": 8, "more": ""}
    given |= {"score": "[dot, bahdanau]"} | settings
    folder.mkdir(exist_ok=True, parents=True)
    (folder / "space.yaml").write_text(SPACE.format(**given))
    return load_space(folder / "space.yaml")


def earlier(folder: Path, *rows: Row, metric: str = "dev.loss", **config: Any) -> Path:
    """A run folder whose trials have these widths, values and statuses."""
    space = write(folder, metric=metric)
    search = {"event": "search", "name": "x", "metric": metric, "goal": space.metric.goal}
    fingerprint = load_corpus(space.corpus).fingerprint
    search |= {"searched": {}, "trials": len(rows)}
    search |= {"corpus": {"name": "copy", "fingerprint": fingerprint}}
    with EventLog(folder) as log:
        log.append(search)
        for number, (dim, value, status) in enumerate(rows):
            name = {"trial": f"trial-{number:05d}"}
            trial = {"settings": {}, "config": BASE | {"embedding.dim": dim} | config}
            log.append({"event": "trial", **name, **trial})
            if value is not None:
                log.append({"event": "report", **name, "step": 7, metric: value})
            if status != "running":
                log.append({"event": "status", **name, "status": status})
    return folder


def asked(search: Search) -> list[dict[str, Any]]:
    configs = [search.sampler.ask(number) for number in range(len(search.sampler))]
    return [config for config in configs if config is not None]


def notes(folder: Path) -> list[str]:
    return [event["message"] for event in read_events(folder)[0] if event["event"] == "note"]


FIRST = [(20, 3.0, "finished"), (30, 1.0, "stopped"), (40, 2.0, "running")]
SECOND = [
    (50, 1.5, "finished"),
    (30, 0.5, "finished"),  # the best, and the configuration of a trial of the other folder
    (9, 0.1, "diverged"),
    (10, 0.1, "failed"),
    (65, 0.2, "finished"),  # not in the space
    (60, None, "finished"),
]
WIDTHS = [30, 50, 40, 20]  # best first


@pytest.mark.parametrize("count", [0, 1, 3, 9])
@pytest.mark.parametrize("method", ["random", "halton", "tpe"])
def test_the_best_of_all_folders_are_run_first(
    tmp_path: Path, started: list[Search], method: str, count: int
) -> None:
    folders = [earlier(tmp_path / "a", *FIRST), earlier(tmp_path / "b", *SECOND)]
    space = write(tmp_path / "new", method=method)
    if count == 0 and method != "tpe":
        with pytest.raises(ConfigError, match="leave nothing to run first; only tpe, gp"):
            run_search(space, out=tmp_path / "run", warm_start=folders, warm_start_best=count)
        return
    run_search(space, out=tmp_path / "run", warm_start=folders, warm_start_best=count)
    expected = [
        BASE | {"embedding.dim": dim, "train.max_steps": 40, "train.seed": 5}
        for dim in WIDTHS[:count]
    ]
    configs = asked(started[0])
    assert configs[: len(expected)] == expected
    assert len(configs) == 8
    if method != "tpe":
        for draw in space.trials():
            if len(expected) < 8 and draw not in expected:
                expected.append(draw)
        assert configs == expected
    assert len({completed(config) for config in configs}) == 8


def test_draws_that_are_among_the_best_are_not_run_twice(
    tmp_path: Path, started: list[Search]
) -> None:
    space = write(tmp_path / "new", trials=6)
    draw = space.trials()[2]
    run = earlier(tmp_path / "a", (draw["embedding.dim"], 1.0, "finished"), **draw)
    run_search(space, out=tmp_path / "run", warm_start=run)
    assert asked(started[0]) == [draw, *space.trials()[:2], *space.trials()[3:]]


def test_each_is_run_with_all_of_a_grid_and_all_seeds(
    tmp_path: Path, started: list[Search]
) -> None:
    run = earlier(tmp_path / "a", *FIRST, **{"attention.score_type": "bahdanau"})
    space = write(
        tmp_path / "new", trials=2, score="{grid: [dot, bahdanau]}", more=", replicates: 2"
    )
    run_search(space, out=tmp_path / "run", warm_start=run)
    found = [
        (config["embedding.dim"], config["attention.score_type"], config["train.seed"])
        for config in asked(started[0])
    ]
    kinds = [("dot", 5), ("dot", 6), ("bahdanau", 5), ("bahdanau", 6)]
    assert found == [(dim, *kind) for dim in (30, 40) for kind in kinds]


def test_with_the_method_grid_all_points_are_run_the_best_first(
    tmp_path: Path, started: list[Search]
) -> None:
    run = earlier(tmp_path / "a", *FIRST)
    space = write(tmp_path / "new", method="grid", trials=1_000_000)
    run_search(space, out=tmp_path / "run", warm_start=run)
    configs, points = asked(started[0]), space.trials()
    assert [config["embedding.dim"] for config in configs[:3]] == [30, 40, 20]
    assert len(configs) == len(points)
    assert all(point in configs for point in points)


def test_where_more_is_better_the_largest_are_best(tmp_path: Path, started: list[Search]) -> None:
    run = earlier(tmp_path / "a", *FIRST, metric="dev.bleu")
    run_search(
        write(tmp_path / "new", metric="dev.bleu"), out=tmp_path / "run", warm_start=str(run)
    )
    assert [config["embedding.dim"] for config in asked(started[0])[:3]] == [20, 40, 30]
    (note,) = notes(tmp_path / "run")
    assert note == (
        "warm start: the best earlier configurations are run first: "
        f"trial-00000 of {run} (dev.bleu 3), trial-00002 of {run} (dev.bleu 2), "
        f"trial-00001 of {run} (dev.bleu 1)"
    )


def test_what_the_file_runs_first_comes_before_and_fixed_values_must_fit(
    tmp_path: Path, started: list[Search]
) -> None:
    run = earlier(tmp_path / "a", *FIRST)
    write(tmp_path / "new")
    path = tmp_path / "new" / "space.yaml"
    named = "{embedding.dim: 30, attention.score_type: dot, optimizer.lr_decay_type: ''}"
    path.write_text(f"{path.read_text()}first: [{named}, {named.replace('30', '33')}]\n")
    run_search(load_space(path), out=tmp_path / "run", warm_start=run)
    assert [config["embedding.dim"] for config in asked(started[0])[:4]] == [30, 33, 40, 20]
    run_search(
        load_space(path), out=tmp_path / "few", trials=3, overrides={"train.batch_size": 8},
        warm_start=earlier(tmp_path / "b", *FIRST, **{"train.batch_size": 8}),
    )  # fmt: skip
    assert [config["embedding.dim"] for config in asked(started[1])] == [30, 33, 40]
    with pytest.raises(ConfigError, match="contains no trial with a result"):
        run_search(
            load_space(path), overrides={"train.batch_size": 8}, out=tmp_path / "x", warm_start=run
        )


def test_tpe_learns_from_all_and_runs_the_best_again(tmp_path: Path, started: list[Search]) -> None:
    """The earlier trials have the budget and the seed of the new search."""
    budget = {"train.max_steps": 40, "train.seed": 5}
    folders = [
        earlier(tmp_path / "a", *FIRST, **budget),
        earlier(tmp_path / "b", *SECOND, **budget),
    ]
    run_search(write(tmp_path / "new", method="tpe"), out=tmp_path / "run", warm_start=folders)
    sampler = started[0].sampler
    assert isinstance(sampler, TPE)
    known = [(trial.point or {}).get("embedding.dim") for trial in sampler._earlier]
    assert len(known) == 5  # without the running one, the failed ones, and what does not fit
    assert [config["embedding.dim"] for config in asked(started[0])[:3]] == WIDTHS[:3]
    assert notes(tmp_path / "run")[1] == (
        f"warm start from {folders[0]}, {folders[1]}: 5 trials taken, 3 do not fit the space"
    )


@pytest.mark.parametrize("count", [0, 1])
def test_a_warm_model_proposes_before_any_trial_has_reported(
    tmp_path: Path, started: list[Search], count: int
) -> None:
    """16 earlier reports are enough for the model."""
    run = earlier(tmp_path / "a", *[(10 + k, 1.0 + k, "finished") for k in range(20)])
    space = write(tmp_path / "new", method="gp")
    run_search(space, out=tmp_path / "run", warm_start=run, warm_start_best=count)
    configs = asked(started[0])
    assert len({completed(config) for config in configs}) == 8


CURVES = {20: [3.0, 2.0, 1.5], 30: [2.0, 1.2, 1.0], 40: [2.5, 2.0, 1.9], 65: [1.0, 0.5, 0.4]}


def curves(folder: Path) -> Path:
    """A run folder of trials of these widths, with reports at the steps 10, 20 and 30."""
    earlier(folder, *[(dim, None, "running") for dim in CURVES])
    with EventLog(folder) as log:
        for number, values in enumerate(CURVES.values()):
            name = {"trial": f"trial-{number:05d}"}
            for step, value in zip((10, 20, 30), values, strict=True):
                log.append({"event": "report", **name, "step": step, "dev.loss": value})
            log.append({"event": "status", **name, "status": "finished"})
    return folder


@pytest.mark.parametrize("count", [0, 1])
def test_gp_learns_from_the_curves_of_the_same_corpus(
    tmp_path: Path, started: list[Search], count: int
) -> None:
    """Of four trials one is not in the space. A run on another corpus says nothing about curves."""
    other = curves(tmp_path / "other")
    log = (other / "events.jsonl").read_text()
    fingerprint = load_corpus(write(tmp_path / "any").corpus).fingerprint
    (other / "events.jsonl").write_text(log.replace(fingerprint, "f" * len(fingerprint)))
    folders = [curves(tmp_path / "a"), other]
    space = write(tmp_path / "new", method="gp")
    run_search(space, out=tmp_path / "run", warm_start=folders, warm_start_best=count)
    shutil.rmtree(folders[0])
    resume_search(tmp_path / "run")
    for search in started:
        sampler = search.sampler
        assert isinstance(sampler, Proposals)
        known = sampler.surrogate.trials
        assert [(n, seen.steps, seen.distances) for n, seen in known.items()] == [
            (-k, [10, 20, 30], CURVES[dim]) for k, dim in enumerate((20, 30, 40), start=1)
        ]
        assert [seen.losses for seen in known.values()] == [CURVES[dim] for dim in (20, 30, 40)]
    said = (
        "warm start: the model learns from the reports of 3 earlier trials; 1 have values outside "
        "the space, or report too late"
    )
    assert said in notes(tmp_path / "run")


def test_a_model_learns_where_first_names_all_that_fits(
    tmp_path: Path, started: list[Search]
) -> None:
    run = earlier(tmp_path / "a", (20, 3.0, "finished"))
    named = "first: [{embedding.dim: 20, attention.score_type: dot, optimizer.lr_decay_type: ''}]\n"
    for method in ("gp", "random"):
        path = write(tmp_path / method, method=method).path
        path.write_text(path.read_text() + named)
    run_search(load_space(tmp_path / "gp/space.yaml"), out=tmp_path / "run", warm_start=run)
    assert "warm start: the model learns from the reports of 1 earlier trial" in notes(
        tmp_path / "run"
    )
    space = load_space(tmp_path / "random/space.yaml")
    with pytest.raises(ConfigError, match="contains no trial with a result, besides") as refused:
        run_search(space, out=tmp_path / "x", warm_start=run)
    assert "model can learn" not in str(refused.value)


def test_where_a_model_can_learn_nothing_the_error_says_what_it_needs(tmp_path: Path) -> None:
    run = earlier(tmp_path / "a", (20, None, "finished"))
    with pytest.raises(ConfigError, match="the same corpus, and reports in time"):
        run_search(write(tmp_path / "new", method="gp"), out=tmp_path / "x", warm_start=run)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("method", ["random", "gp", "tpe"])
def test_earlier_trials_may_have_been_evaluated_otherwise(
    tmp_path: Path, started: list[Search], method: str
) -> None:
    run = earlier(
        tmp_path / "a",
        *FIRST,
        **{"train.eval_every_steps": 3, "train.eval_batch_size": 2, "train.patience": 4},
    )
    path = write(tmp_path / "new", method=method).path
    path.write_text(path.read_text() + "  train.eval_every_steps: 5\n  train.eval_examples: 2\n")
    run_search(load_space(path), out=tmp_path / "run", warm_start=run)
    configs = asked(started[0])[:3]
    assert [config["embedding.dim"] for config in configs] == [30, 40, 20]
    assert {config["train.eval_every_steps"] for config in configs} == {5}


def test_draws_that_an_earlier_search_has_trained_come_last(
    tmp_path: Path, started: list[Search]
) -> None:
    """Two searches of the same file have the same draws, of which the best three run again."""
    run = tmp_path / "run"
    run_search(write(tmp_path / "a", method="random"), out=run)
    draws = asked(started[0])
    with EventLog(run) as log:
        for number, config in enumerate(draws):
            name = {"trial": f"trial-{number:05d}"}
            log.append({"event": "trial", **name, "settings": {}, "config": config})
            log.append({"event": "report", **name, "step": 7, "dev.loss": 1.0 + number})
    run_search(write(tmp_path / "b", method="gp"), out=tmp_path / "again", warm_start=run)
    again = asked(started[1])
    assert again[:3] == draws[:3]
    assert not [config for config in again[3:] if config in draws]


@pytest.mark.parametrize("method", ["random", "tpe"])
def test_a_search_that_is_resumed_needs_no_earlier_folder(
    tmp_path: Path, started: list[Search], method: str
) -> None:
    folders = [earlier(tmp_path / "a", *FIRST), earlier(tmp_path / "b", *SECOND)]
    space = write(tmp_path / "new", method=method)
    run_search(space, out=tmp_path / "run", warm_start=folders)
    configs = asked(started[0])
    assert first_event(tmp_path / "run")["warm_start_from"] == list(map(str, folders))
    shutil.rmtree(tmp_path / "a")
    shutil.rmtree(tmp_path / "b")
    with EventLog(tmp_path / "run") as log:  # trials 0 and 1 have begun, then the driver is killed
        for number, config in enumerate(configs[:2]):
            begun = {"event": "trial", "trial": f"trial-{number:05d}", "settings": {}}
            log.append(begun | {"config": config})
    resume_search(tmp_path / "run")
    again = started[1]
    assert again.new == list(range(2, 8))
    assert [again.sampler.ask(number) for number in again.new] == configs[2:]
    resume_search(tmp_path / "run", trials=10)
    assert asked(started[2])[2:8] == configs[2:] or method == "tpe"
    assert len(asked(started[2])) == 10


def test_all_problems_come_at_once_and_nothing_is_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("new"))
    earlier(Path("runs/good"), *FIRST)
    earlier(Path("runs/other"), *FIRST, metric="dev.bleu")
    folders = ["runs/god", "runs/good", "runs/other", "runs/good"]
    command = ["search", "new/space.yaml", "--out", "out", "--hparams", "embedding.dmi=3"]
    assert command_line.main([*command, "--warm-start", *folders]) == 2
    said = capsys.readouterr().err
    assert "--warm-start runs/god: " in said
    assert "runs/good" in said.split("runs/god: ")[1].splitlines()[0]  # the nearest
    law = "its trials are ranked by dev.bleu maximize, those of this search by dev.loss minimize"
    assert f"--warm-start runs/other: {law}" in said
    assert "--warm-start runs/good: is given twice" in said
    assert "embedding.dmi" in said
    assert not Path("out").exists()
    good = ["search", "--warm-start", "runs/good", "new/space.yaml", "--out", "out"]
    assert command_line.main(good) == 2  # the file was taken for a folder
    law = "is taken for a run folder; name the file of the search space before --warm-start"
    assert f"--warm-start: new/space.yaml {law}" in capsys.readouterr().err
    assert not Path("out").exists()


@pytest.mark.parametrize("method", ["random", "gp"])
def test_another_corpus_is_noted(tmp_path: Path, started: list[Search], method: str) -> None:
    run = earlier(tmp_path / "a", *FIRST)
    space = write(tmp_path / "new", method=method)
    text = space.path.read_text().replace("train: 9", "train: 10")
    space.path.write_text(text)
    run_search(load_space(space.path), out=tmp_path / "run", warm_start=run)
    rest = ", and the model learns nothing from it" if method == "gp" else ""
    assert notes(tmp_path / "run")[-1] == (
        f"warm start: the corpus of {run} (copy) is not that of this search; what was best there "
        f"may not be best here{rest}"
    )
