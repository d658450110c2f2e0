"""Which trials A and B name, and what is said of them; from logs written by hand."""

from pathlib import Path

import numpy as np
import pytest

from s2s_search.errors import ConfigError
from s2s_search.results.compare import compare
from s2s_search.results.statistics import Comparison, difference_interval
from s2s_search.runs.answers import Answers
from s2s_search.runs.folder import ANSWERS
from s2s_search.runs.log import EventLog

BASE = {"model": "AttentionSeq2Seq", "train.max_steps": 20}
SCORE = "attention.score_type"
Row = tuple[dict[str, object], int, str, float | None]  # settings, seed, status, best


def write_run(folder: Path, rows: list[Row], **search: object) -> Path:
    with EventLog(folder if folder.is_dir() else _made(folder)) as log:
        begin = {
            "event": "search",
            "name": "x",
            "metric": "dev.loss",
            "goal": "minimize",
            "searched": {SCORE: "string"},
        }
        log.append(begin | {"corpus": {"fingerprint": "f"}} | search)
        for k, (settings, seed, status, best) in enumerate(rows):
            name = {"trial": f"trial-{k:05d}"}
            config = BASE | settings | {"train.seed": seed}
            log.append({"event": "trial", **name, "settings": settings, "config": config})
            if best is not None:
                log.append(
                    {"event": "report", **name, "step": 20, "status": "running", "dev.loss": best}
                )
            log.append({"event": "status", **name, "status": status})
    return folder


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def setting(score: str, rate: float = 0.001) -> dict[str, object]:
    return {SCORE: score, "optimizer.learning_rate": rate}


def said(folders: list[Path], a: str, b: str) -> list[str]:
    return list(compare(folders, a, b))


SEEDS: list[Row] = [
    (setting(score), seed, "finished", best)
    for seed, (dot, bahdanau) in enumerate([(0.5, 0.7), (0.52, 0.71), (0.49, 0.68)])
    for score, best in (("dot", dot), ("bahdanau", bahdanau))
]


def test_a_number_stands_for_all_seeds_of_its_configuration(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", SEEDS)
    lines = said([run], "0", "3")
    assert lines[0] == "trial-00000: 3 of 3 trials finished, of 1 configuration"
    values = ([0.5, 0.52, 0.49], [0.7, 0.71, 0.68])
    expected = Comparison(
        ("trial-00000", "trial-00003"), values, "dev.loss", "minimize", "seed"
    ).sentence()
    assert expected in lines
    low, high = difference_interval(*values)
    assert f"({'95 % interval'} {low:+.3g} to {high:+.3g}) over 3 and 3 seeds" in expected


def test_a_setting_of_one_configuration_a_side_is_compared_over_seeds(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", SEEDS)
    (line,) = [
        line for line in said([run], f"{SCORE}=dot", f"{SCORE}=bahdanau") if " than " in line
    ]
    assert line.startswith(
        f"{SCORE}=dot is better than {SCORE}=bahdanau: dev.loss 0.5033 against 0.6967, "
    )
    assert "over 3 and 3 seeds" in line


def test_a_setting_of_many_configurations_is_compared_over_these(tmp_path: Path) -> None:
    """Two seeds of one configuration are one value of a setting: there was one draw of the rest."""
    rows: list[Row] = [
        (setting("dot", rate), seed, "finished", 0.5 + rate + seed / 100)
        for rate in (0.001, 0.002, 0.003)
        for seed in (0, 1)
    ]
    rows += [(setting("bahdanau", rate), 0, "finished", 0.9 + rate) for rate in (0.001, 0.002)]
    lines = said([write_run(tmp_path / "run", rows)], f"{SCORE}=dot", f"{SCORE}=bahdanau")
    means = ([0.506, 0.507, 0.508], [0.901, 0.902])
    found = next(line for line in lines if " than " in line)
    assert "over 3 and 2 configurations" in found
    assert f"dev.loss {np.mean(means[0]):.4g} against {np.mean(means[1]):.4g}" in found


def test_what_was_stopped_does_not_count_and_is_named(tmp_path: Path) -> None:
    rows: list[Row] = [(setting("dot", rate), 0, "finished", 0.5 + rate) for rate in (0.001, 0.002)]
    rows += [(setting("dot", 0.01), 0, "stopped", 9.0), (setting("dot", 0.02), 0, "failed", None)]
    rows += [
        (setting("bahdanau", 0.01), 0, "stopped", 0.1),
        (setting("bahdanau", 0.02), 0, "out_of_memory", None),
    ]
    lines = said([write_run(tmp_path / "run", rows)], f"{SCORE}=dot", f"{SCORE}=bahdanau")
    assert lines[:3] == [
        f"{SCORE}=dot: 2 of 4 trials finished, of 4 configurations; 1 failed; 1 stopped",
        f"{SCORE}=bahdanau: 0 of 2 trials finished, "
        "of 2 configurations; 1 out of memory; 1 stopped",
        "some were stopped early for being worse: what finished is the better part of each side",
    ]
    assert (
        lines[3] == f"{SCORE}=dot against {SCORE}=bahdanau: "
        "no finished trial on one side, so nothing can be said"
    )


def test_what_was_stopped_counts_at_the_last_step_that_all_reached(tmp_path: Path) -> None:
    rows: list[Row] = [(setting("dot", rate), 0, "finished", 0.5 + rate) for rate in (0.001, 0.002)]
    rows += [(setting("bahdanau", rate), 0, "stopped", 0.8 + rate) for rate in (0.001, 0.002)]
    run = write_run(tmp_path / "run", rows)
    with EventLog(run) as log:  # those that went on were to become equal
        for k in (0, 1):
            log.append({"event": "report", "trial": f"trial-0000{k}", "step": 40, "dev.loss": 0.1})
    found = said([run], f"{SCORE}=dot", f"{SCORE}=bahdanau")[-1]
    names = (f"{SCORE}=dot", f"{SCORE}=bahdanau")
    expected = Comparison(
        names, ([0.501, 0.502], [0.801, 0.802]), "dev.loss", "minimize", "configuration"
    ).sentence()
    assert found == f"at step 20, which these 4 reached, before any was stopped: {expected}"


def test_of_a_configuration_replicates_count_alone(tmp_path: Path) -> None:
    """The originals were chosen for their results."""
    run = write_run(tmp_path / "run", SEEDS[:2])
    again: list[Row] = [
        (settings, seed + 10, status, best and best + 0.1) for settings, seed, status, best in SEEDS
    ]
    replicates = write_run(tmp_path / "replicates", again, configs=[BASE])
    lines = said([run, replicates], "0", "1")
    assert lines[0].endswith(
        "3 of 3 trials finished, of 1 configuration; left out, as chosen for its result: 1"
    )
    values = ([0.6, 0.62, 0.59], [0.8, 0.81, 0.78])
    assert (
        Comparison(
            ("trial-00000", "trial-00001"), values, "dev.loss", "minimize", "seed"
        ).sentence()
        in lines
    )


def test_of_a_setting_replicates_are_left_out(tmp_path: Path) -> None:
    """Only the best configurations have replicates: here one, which would be its whole side."""
    rows: list[Row] = [
        (setting(score, rate), 0, "finished", best + rate)
        for score, best in (("dot", 0.5), ("bahdanau", 0.6))
        for rate in (0.001, 0.002, 0.003)
    ]
    run = write_run(tmp_path / "run", rows)
    again: list[Row] = [(setting("dot"), seed, "finished", 0.9) for seed in (1, 2)]
    replicates = write_run(tmp_path / "replicates", again, configs=[BASE])
    names = (f"{SCORE}=dot", f"{SCORE}=bahdanau")
    alone, both = said([run], *names), said([run, replicates], *names)
    assert both[0] == f"{alone[0]}; left out, as replicates of what was chosen: 2"
    assert both[1:3] == alone[1:3]
    again += [(setting("bahdanau"), seed, "finished", 0.7) for seed in (1, 2)]
    only = said([write_run(tmp_path / "only", again, configs=[BASE])], *names)
    assert only[:2] == [f"{name}: 2 of 2 trials finished, of 1 configuration" for name in names]


def test_replicates_of_the_best_make_no_difference_where_there_is_none(tmp_path: Path) -> None:
    """Settings without effect, with replicates of one side's best 4 of 16: 5 of 100 may differ."""
    rng, told = np.random.default_rng(8), 0
    for n in range(40):
        true = rng.normal(0.0, 1.0, (2, 16))
        found = true + rng.normal(0.0, 0.3, true.shape)
        rates = [0.001 * (k + 1) for k in range(16)]
        rows: list[Row] = [
            (setting(score, rate), 0, "finished", value)
            for score, values in zip(("dot", "bahdanau"), found.tolist(), strict=True)
            for rate, value in zip(rates, values, strict=True)
        ]
        again: list[Row] = [
            (setting("dot", rates[k]), seed, "finished", float(true[0, k] + rng.normal(0.0, 0.3)))
            for k in found[0].argsort()[:4]
            for seed in range(1, 6)
        ]
        run = write_run(tmp_path / f"run-{n}", rows)
        replicates = write_run(tmp_path / f"replicates-{n}", again, configs=[BASE])
        told += any(
            " than " in line
            for line in said([run, replicates], f"{SCORE}=dot", f"{SCORE}=bahdanau")
        )
    assert told <= 5  # where its replicates stood for all of their side, 28 were


def answer(run: Path, k: int, errors: list[int], lengths: list[int]) -> None:
    folder = run / f"trial-{k:05d}"
    folder.mkdir()
    (folder / ANSWERS).write_text(Answers(20, errors, lengths, []).text())


def test_the_best_models_are_compared_on_the_dev_examples(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", SEEDS)
    answer(run, 4, [0, 0, 1, 0] * 50, [4] * 200)  # the best of dot, by its value
    answer(run, 5, [1, 0, 1, 1] * 50, [4] * 200)
    last = said([run], "0", "1")[-1]
    a, b = (f"the model of {run}/trial-0000{k} (seed 2)" for k in (4, 5))
    assert last.startswith(
        f"{a} is better than {b}: error rate 0.0625 against 0.1875, "
        "difference -0.125 (95 % interval -0."
    )
    assert last.endswith("paired over 200 dev examples; this says nothing about other seeds")


def test_without_answers_it_says_so(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", SEEDS)
    answer(run, 4, [0, 1], [3, 3])
    assert (
        said([run], "0", "1")[-1]
        == f"not compared on single dev examples: there is no answers.json in {run}/trial-00005"
    )
    answer(run, 5, [0, 1, 2], [3, 3, 3])
    assert (
        said([run], "0", "1")[-1]
        == "not compared on single dev examples: they answered 2 and 3 of them"
    )


def test_different_steps_are_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", SEEDS)
    with EventLog(run) as log:
        log.append(
            {
                "event": "report",
                "trial": "trial-00000",
                "step": 1400,
                "status": "finished",
                "dev.loss": 0.6,
            }
        )
    assert "not all made the same number of steps: 20 to 1,400" in said([run], "0", "1")


def test_answers_lie_below_a_url_with_a_query(tmp_path: Path) -> None:
    storage = tmp_path / "storage"
    storage.mkdir()
    run = write_run(tmp_path / "run", SEEDS, storage=f"file://{storage}?use_mmap=true")
    for k in (4, 5):
        answer(storage, k, [0, k, 1, 0], [6] * 4)
    assert "paired over 4 dev examples" in said([run], "0", "1")[-1]


def problems(folders: list[Path], a: str, b: str) -> list[str]:
    with pytest.raises(ConfigError) as error:
        said(folders, a, b)
    return list(error.value.problems)


def test_all_that_is_wrong_at_once(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", SEEDS)
    assert problems([run], "7", f"{SCORE}=dott") == [
        f"{run}: there is no trial-00007; there are trial-00000 to trial-00005",
        f"'{SCORE}=dott': no trial has that value; did you mean 'dot'?",
    ]
    law = (
        "names no trial: give a trial's name or number, or a setting KEY=VALUE that the trials have"
    )
    assert problems([run], "attention.score_tpye=dot", "best") == [
        f"'attention.score_tpye=dot' {law}; did you mean '{SCORE}'?",
        f"'best' {law}; known: {SCORE}, optimizer.learning_rate",
    ]
    values = "no trial has that value; known: "
    assert problems([run], "optimizer.learning_rate", "train.max_steps=999") == [
        "'optimizer.learning_rate' has no value: "
        "write KEY=VALUE, such as optimizer.learning_rate=0.001",
        f"'train.max_steps=999': {values}20",
    ]
    assert problems([run], "optimizer.lr_decay_type", f"{SCORE}=?") == [
        "'optimizer.lr_decay_type' has no value: write KEY=VALUE, such as optimizer.lr_decay_type=",
        f"'{SCORE}=?': {values}bahdanau, dot",
    ]
    assert problems([run], "0", "2") == ["0 and 2 both name trial-00000, trial-00002, trial-00004"]


def test_runs_that_do_not_compare_are_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", SEEDS)
    other = write_run(tmp_path / "other", SEEDS, metric="dev.bleu", corpus={"fingerprint": "g"})
    assert problems([run, other], "0", "1") == [
        f"{other} ranks by dev.bleu (minimize), but {run} by dev.loss (minimize)",
        f"{other} is of another corpus than {run}: their numbers would not compare",
    ]
    upwards = write_run(tmp_path / "upwards", SEEDS, goal="maximize")
    assert problems([run, upwards], "0", "1") == [
        f"{upwards} ranks by dev.loss (maximize), but {run} by dev.loss (minimize)"
    ]
    (tmp_path / "link").symlink_to(run)
    assert problems([run, tmp_path / "link"], "0", "1") == [
        f"{run} is named 2 times; a run counts once"
    ]
