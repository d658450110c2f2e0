"""Which trials A and B name, and what is said of them; from logs written by hand."""

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import fisher_exact

from s2s_search.errors import ConfigError
from s2s_search.results.compare import compare, settings_compared
from s2s_search.results.statistics import Comparison, difference_interval, interval
from s2s_search.runs.answers import Answers
from s2s_search.runs.folder import ANSWERS
from s2s_search.runs.log import EventLog
from s2s_search.runs.state import load_history

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


def said(folders: list[Path], a: str, b: str, margin: float | None = None) -> list[str]:
    return list(compare(folders, a, b, margin=margin))


def claims(lines: list[str]) -> list[str]:
    """The lines that call one side better, or worse."""
    return [line for line in lines if " is better than " in line or " is worse than " in line]


CHOSEN = ", unless they were chosen by these results"
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
        ("trial-00000", "trial-00003"), values, "dev.loss", "minimize", "seed", reservation=CHOSEN
    ).sentence()
    assert expected in lines
    low, high = difference_interval(*values)
    assert f"({'95 % interval'} {low:+.3g} to {high:+.3g}) over 3 and 3 seeds" in expected


def test_a_setting_of_one_configuration_a_side_is_compared_over_seeds(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", SEEDS)
    (line,) = claims(said([run], f"{SCORE}=dot", f"{SCORE}=bahdanau"))
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
    rows += [(setting("bahdanau", rate), 0, "finished", 0.9 + rate) for rate in (0.01, 0.02)]
    lines = said([write_run(tmp_path / "run", rows)], f"{SCORE}=dot", f"{SCORE}=bahdanau")
    means = ([0.506, 0.507, 0.508], [0.91, 0.92])
    (found,) = claims(lines)
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
    assert lines[:4] == [
        f"{SCORE}=dot: 2 of 4 trials finished, of 4 configurations; 1 failed; 1 stopped",
        f"{SCORE}=bahdanau: 0 of 2 trials finished, "
        "of 2 configurations; 1 out of memory; 1 stopped",
        f"configurations in which a trial diverged or failed: 1 of 4 of {SCORE}=dot, "
        f"1 of 2 of {SCORE}=bahdanau; which may be chance (p = 1 by Fisher's test)",
        "among the trials that finished (2 of 4 and 0 of 2): dev.loss 0.5015 against none; "
        "the scheduler chose these, so nothing is concluded",
    ]


def test_what_was_stopped_counts_at_the_last_step_that_all_reached(tmp_path: Path) -> None:
    rates = (0.001, 0.002)
    rows: list[Row] = [(setting("dot", rate), 0, "finished", 0.5 + rate) for rate in rates]
    rows += [(setting("bahdanau", 10 * rate), 0, "stopped", 0.8 + rate) for rate in rates]
    run = write_run(tmp_path / "run", rows)
    with EventLog(run) as log:  # those that went on were to become equal
        for k in (0, 1):
            log.append({"event": "report", "trial": f"trial-0000{k}", "step": 40, "dev.loss": 0.1})
    *_, found, pairs = said([run], f"{SCORE}=dot", f"{SCORE}=bahdanau")
    names = (f"{SCORE}=dot", f"{SCORE}=bahdanau")
    expected = Comparison(
        names,
        ([0.501, 0.502], [0.801, 0.802]),
        "dev.loss",
        "minimize",
        "configuration",
        reservation=", which later steps may reverse",
    )
    assert found == f"at step 20, which 4 of 4 trials reached: {expected.sentence()}"
    assert [pairs] == [f"at step 20: {line}" for line in expected.pairs()]


def test_without_a_claim_there_is_nothing_for_later_steps_to_reverse(tmp_path: Path) -> None:
    rates = (0.001, 0.002)
    rows: list[Row] = [(setting("dot", rate), 0, "finished", 0.5 + 9 * rate) for rate in rates]
    rows += [(setting("bahdanau", 10 * rate), 0, "stopped", 0.5 + 8 * rate) for rate in rates]
    run = write_run(tmp_path / "run", rows)
    with EventLog(run) as log:
        for k in (0, 1):
            log.append({"event": "report", "trial": f"trial-0000{k}", "step": 40, "dev.loss": 0.1})
    names = f"{SCORE}=dot", f"{SCORE}=bahdanau"
    found = " ".join(said([run], *names))
    assert f"{names[0]} and {names[1]} are not distinguishable by these results: dev.loss" in found
    assert "reverse" not in found
    comparison, step = settings_compared(run, load_history(run), *names) or (None, None)
    assert comparison is not None
    assert comparison.is_open
    assert step == 20
    assert f"; {comparison.needed()} would show differences" in found


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
        told += len(claims(said([run, replicates], f"{SCORE}=dot", f"{SCORE}=bahdanau")))
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
    a, b = (f"the model of {run}/trial-0000{k} (seed 2, the best of 3)" for k in (4, 5))
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
    (claim,) = claims(said([run], "0", "1"))
    assert claim.startswith(
        f"trial-00000 is better than trial-00001, which made 20 to 1,400 steps{CHOSEN}: dev.loss "
    )


def test_answers_lie_below_a_url_with_a_query(tmp_path: Path) -> None:
    storage = tmp_path / "storage"
    storage.mkdir()
    run = write_run(tmp_path / "run", SEEDS, storage=f"file://{storage}?use_mmap=true")
    for k in (4, 5):
        answer(storage, k, [0, k, 1, 0] * 3, [6] * 12)
    assert "paired over 12 dev examples" in said([run], "0", "1")[-1]


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
        "'optimizer.lr_decay_type' has no value: write KEY=VALUE, such as optimizer.lr_decay_type=\"\"",
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


# --- designs ---

GRID = """
model: AttentionSeq2Seq
corpus: {name: cmudict}
metric: {name: dev.loss, goal: minimize}
search: {method: random, trials: 8}
scheduler: {name: none, max_steps: 20}
resources: {cpu: 1}
parameters:
  attention.score_type: {grid: [dot, bahdanau]}
  encoder.type: {grid: [UnidirectionalRNNEncoder, BidirectionalRNNEncoder]}
  attention.dim: [64, 128]
  optimizer.learning_rate: {min: 1e-4, max: 0.1, log: true}
"""
ENCODERS = ("UnidirectionalRNNEncoder", "BidirectionalRNNEncoder")
DOT, BAHDANAU = f"{SCORE}=dot", f"{SCORE}=bahdanau"


def grid_rows(draws: int, seed: int, effect: float = 0.3) -> list[Row]:
    """Draws that differ much, each with both scores and both encoders; one score is better."""
    rng, rows = np.random.default_rng(seed), []
    for draw in range(draws):
        luck = rng.normal(3.0, 1.0)
        for score in ("dot", "bahdanau"):
            for encoder in ENCODERS:
                settings = setting(score, 0.001 * (draw + 1)) | {"encoder.type": encoder}
                settings["attention.dim"] = 64 if draw % 2 else 128
                value = luck + effect * (score == "dot") + rng.normal(0.0, 0.1)
                rows.append((settings, 0, "finished", float(value)))
    return rows


def test_a_grid_is_compared_within_its_draws(tmp_path: Path) -> None:
    rows = grid_rows(8, seed=1)
    run = write_run(tmp_path / "run", rows)
    (without,) = claims(said([run], DOT, BAHDANAU))
    assert without.startswith(f"{DOT} is worse than {BAHDANAU}: dev.loss ")
    assert without.endswith("paired over 16 configurations of the other hyperparameters")
    (run / "space.yaml").write_text(GRID)
    lines = said([run], DOT, BAHDANAU)
    values = [row[3] or 0.0 for row in rows]
    means = [[(values[k] + values[k + 1]) / 2 for k in range(first, 32, 4)] for first in (0, 2)]
    (found,) = claims(lines)
    low, high = interval(np.subtract(*means))
    assert f"({'95 % interval'} {low:+.3g} to {high:+.3g}) paired over 8 draws" in found
    assert any(line.startswith(f"{DOT} is better in 0 of 8 pairs: ") for line in lines)


def test_an_incomplete_draw_is_compared_where_it_has_both_sides(tmp_path: Path) -> None:
    """The encoder that one side lacks would decide otherwise."""
    rows = [list(row) for row in grid_rows(8, seed=2, effect=0.0)]
    for k, row in enumerate(rows):
        row[3] += 5.0 * (k % 2)  # the second encoder is much worse
        if k % 4 == 3:
            row[2:] = "diverged", None  # and diverges with bahdanau
    run = write_run(tmp_path / "run", [tuple(row) for row in rows])
    (run / "space.yaml").write_text(GRID)
    lines = said([run], DOT, BAHDANAU)
    assert claims(lines) == []
    (found,) = (line for line in lines if "paired over 8 draws" in line)
    assert (
        f"{DOT} and {BAHDANAU} are not distinguishable by these results, among the trials" in found
    )


def test_of_a_drawn_setting_a_draw_counts_once(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", grid_rows(8, seed=3))
    (run / "space.yaml").write_text(GRID)
    lines = said([run], "attention.dim=64", "attention.dim=128")
    assert any(" over 4 and 4 draws" in line for line in lines)


def test_a_draw_of_one_configuration_a_side_is_compared_over_the_rest_of_the_grid(
    tmp_path: Path,
) -> None:
    run = write_run(tmp_path / "run", grid_rows(1, seed=4))
    (run / "space.yaml").write_text(GRID)
    lines = said([run], DOT, BAHDANAU)
    assert any("paired over 2 configurations of the other" in line for line in lines)


def test_a_key_of_one_side_alone_hides_no_pair(tmp_path: Path) -> None:
    rows: list[Row] = []
    for rate, value in ((0.001, 0.5), (0.002, 0.7), (0.004, 0.9)):
        rows.append((setting("dot", rate) | {"attention.dim": 64}, 0, "finished", value))
        rows.append((setting("bahdanau", rate), 0, "finished", value + 0.1 + rate))
    lines = said([write_run(tmp_path / "run", rows)], DOT, BAHDANAU)
    assert any("paired over 3 configurations of the other" in line for line in lines)


def test_draws_that_the_sides_do_not_share_are_not_paired(tmp_path: Path) -> None:
    rates = [0.001 * (k + 1) for k in range(12)]
    rows: list[Row] = [(setting("dot", rate), 0, "finished", rate) for rate in rates[:6]]
    rows += [(setting("bahdanau", rate), 0, "finished", rate) for rate in rates[4:]]
    lines = said([write_run(tmp_path / "run", rows)], DOT, BAHDANAU)
    assert any(" over 6 and 8 configurations" in line for line in lines)


# --- what no claim covers ---


def test_survivors_are_called_survivors(tmp_path: Path) -> None:
    """15 of 20 diverged on one side, and the others are the better ones."""
    rng = np.random.default_rng(5)
    rows: list[Row] = []
    for k in range(20):
        status = "finished" if k < 5 else "diverged"
        value = float(rng.normal(0.1, 0.01)) if k < 5 else None
        rows.append((setting("dot", 0.001 * (k + 1)), 0, status, value))
        rows.append(
            (setting("bahdanau", 0.03 + 0.001 * k), 0, "finished", float(rng.normal(0.15, 0.01)))
        )
    lines = said([write_run(tmp_path / "run", rows)], DOT, BAHDANAU)
    p = fisher_exact([[15, 5], [0, 20]]).pvalue
    assert lines[2] == (
        f"configurations in which a trial diverged or failed: 15 of 20 of {DOT}, 0 of 20 of "
        f"{BAHDANAU}; more than chance (p = {p:.2g} by Fisher's test)"
    )
    luong: list[Row] = [(setting("luong"), 0, "finished", 0.2)]
    more = said([write_run(tmp_path / "more", rows + luong)], DOT, BAHDANAU)
    assert f"more than chance, one of 3 pairs of values of {SCORE}, for which" in more[2]
    (claim,) = claims(lines)
    assert claim.startswith(
        f"{DOT} is better than {BAHDANAU}, among the trials that finished (5 of 20 and 20 of 20): "
    )
    assert (
        f"{DOT} is better in 100 of 400 pairs of a configuration each, where what diver" in lines[4]
    )


def test_seeds_that_diverged_are_worse(tmp_path: Path) -> None:
    rows: list[Row] = [
        (setting("dot"), 0, "finished", 0.5),
        (setting("bahdanau"), 0, "finished", 1),
    ]
    run = write_run(tmp_path / "run", rows)
    again: list[Row] = [
        (setting("dot"), seed, "diverged" if seed < 4 else "finished", 0.5 + 0.001 * seed)
        for seed in range(1, 6)
    ]
    again += [(setting("bahdanau"), seed, "finished", 1.0 + 0.001 * seed) for seed in range(1, 6)]
    lines = said([run, write_run(tmp_path / "again", again, configs=[BASE])], "0", "1")
    assert lines[2].startswith("seeds in which a trial diverged or failed: 3 of 5 of trial-00000, ")
    (claim,) = claims(lines)
    assert ", among the trials that finished (2 of 5 and 5 of 5): " in claim
    assert any("is better in 10 of 25 pairs of a seed each, where" in line for line in lines)


def test_a_configuration_and_seed_counts_once(tmp_path: Path) -> None:
    """`replicate` was run three times, and gave the same numbers each time."""
    run = write_run(tmp_path / "run", SEEDS[:2])
    again: list[Row] = [
        (settings, seed + 10, status, best) for settings, seed, status, best in SEEDS
    ]
    folders = [write_run(tmp_path / f"again-{k}", again, configs=[BASE]) for k in range(3)]
    once, thrice = said([run, folders[0]], "0", "1"), said([run, *folders], "0", "1")
    assert thrice[0] == f"{once[0]}; left out, as the same configuration and seed again: 6"
    assert thrice[2:4] == once[2:4]
    assert " over 3 and 3 seeds" in thrice[2]


def test_of_the_same_seed_the_trial_that_finished_counts(tmp_path: Path) -> None:
    rows: list[Row] = [(settings, seed, "failed", None) for settings, seed, *_ in SEEDS]
    lines = said([write_run(tmp_path / "run", [*rows, *SEEDS])], "0", "1")
    assert lines[0].startswith("trial-00000: 3 of 3 trials finished, of 1 configuration; left out")


def test_fresh_seeds_are_not_compared_with_chosen_ones(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", SEEDS)
    again: list[Row] = [(setting("dot"), seed, "finished", 0.6) for seed in (10, 11, 12)]
    replicates = write_run(tmp_path / "again", again, configs=[BASE])
    law = (
        "fresh seeds do not compare with results by which a trial was chosen; name replicates of "
        "both, or of neither"
    )
    for a, b in (("0", "1"), ("1", "0")):
        assert problems([run, replicates], a, b) == [
            f"trial-00000 has replicates in these folders and trial-00001 has none: {law}"
        ]
    assert CHOSEN in said([run], "0", "1")[2]


def test_other_dev_examples_are_refused(tmp_path: Path) -> None:
    rows: list[Row] = [
        (settings | {"train.eval_examples": 500 if settings[SCORE] == "dot" else 0}, *rest)
        for settings, *rest in SEEDS
    ]
    assert problems([write_run(tmp_path / "run", rows)], "0", "1") == [
        "train.eval_examples is 0 and 500 in trials of 0 and 1: they were evaluated on different "
        "dev examples, so that their numbers would not compare"
    ]


def test_the_best_of_more_reports_is_not_compared_with_that_of_fewer(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    rows: list[Row] = []
    for k in range(6):
        for every in (10, 20):
            settings = setting("dot", 0.001 * (k + 1)) | {"train.eval_every_steps": every}
            rows.append((settings, 0, "finished", float(rng.normal(0.1, 0.003))))
    run = write_run(tmp_path / "run", rows)
    with EventLog(run) as log:  # a report more, by luck the best
        for k in range(0, 12, 2):
            name = {"trial": f"trial-{k:05d}", "status": "running"}
            log.append({"event": "report", **name, "step": 30, "dev.loss": 0.05})
    lines = said([run], "train.eval_every_steps=10", "train.eval_every_steps=20")
    assert claims(lines) == []
    assert lines[2] == (
        "they reported every 10 to 20 steps: the best of more reports is better by luck, so only "
        "values at the same step are compared"
    )
    assert lines[3].startswith(
        "at step 20, which 12 of 12 trials reached: train.eval_every_steps=10"
    )


def test_without_a_common_step_nothing_is_compared(tmp_path: Path) -> None:
    rows: list[Row] = [(setting("dot"), 0, "finished", 0.5), (setting("bahdanau"), 0, "stopped", 1)]
    run = write_run(tmp_path / "run", rows[:1])
    other = write_run(tmp_path / "other", [])
    with EventLog(other) as log:
        config = BASE | setting("bahdanau")
        trial = {"trial": "trial-00000"}
        log.append({"event": "trial", **trial, "settings": setting("bahdanau"), "config": config})
        log.append({"event": "report", **trial, "step": 15, "dev.loss": 0.9})
        log.append({"event": "status", **trial, "status": "stopped"})
    assert (
        "there is no step at which all 2 trials that finished or were stopped have a report, so "
        "they are not compared at equal steps"
    ) in said([run, other], DOT, BAHDANAU)


def test_of_more_models_the_best_is_better_by_luck(tmp_path: Path) -> None:
    rows: list[Row] = [(setting("dot", 0.001 * k), 0, "finished", 1 - 0.1 * k) for k in range(1, 6)]
    rows += [(setting("bahdanau", 0.1), 0, "finished", 0.7)]
    run = write_run(tmp_path / "run", rows)
    for k in range(6):
        answer(run, k, [k, 0, 1, 2] * 5, [4] * 20)
    last = said([run], DOT, BAHDANAU)[-1]
    assert last.startswith(f"the model of {run}/trial-00000 (seed 0, the first) ")
    assert f" the model of {run}/trial-00005 (seed 0)" in last


def test_few_examples_tell_nothing(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", SEEDS)
    for k in (4, 5):
        answer(run, k, [k - 4] * 9, [4] * 9)
    assert said([run], "0", "1")[-1] == (
        "not compared on single dev examples: they answered 9, and 10 are needed to say anything"
    )
    for k in (4, 5):
        (run / f"trial-{k:05d}" / ANSWERS).unlink()
        (run / f"trial-{k:05d}").rmdir()
        answer(run, k, [k - 4] * 10, [4] * 10)
    assert (
        ", which differ alike on all examples: error rate 0 against 0.25"
        in said([run], "0", "1")[-1]
    )


def test_what_tpe_chose_is_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", SEEDS)
    (run / "space.yaml").write_text(
        GRID.replace("random", "tpe").replace("{grid: ", "").replace("]}", "]")
    )
    (claim,) = claims(said([run], DOT, BAHDANAU))
    assert ", of trials that tpe chose by earlier results: dev.loss " in claim


def test_a_claim_about_one_pair_of_several_values_names_their_number(tmp_path: Path) -> None:
    run = write_run(tmp_path / "two", SEEDS)
    (claim,) = claims(said([run], DOT, BAHDANAU))
    assert "one of" not in claim
    others: list[Row] = [(setting("luong"), seed, "failed", None) for seed in range(2)]
    # A default that takes no part is no value that the search tried.
    others += [({"optimizer.learning_rate": 0.001}, seed, "finished", 0.6) for seed in range(2)]
    run = write_run(tmp_path / "three", SEEDS + others)
    (claim,) = claims(said([run], DOT, BAHDANAU))
    law = f", one of 3 pairs of values of {SCORE}, for which nothing corrects: dev.loss "
    assert law in claim
    assert "one of" not in " ".join(said([run], "0", "1"))
    others += [(setting("fourth"), 0, "finished", 0.6)]
    run = write_run(tmp_path / "four", SEEDS + others)
    assert f", one of 6 pairs of values of {SCORE}, " in " ".join(said([run], DOT, BAHDANAU))
    # Without a claim there is nothing to correct.
    alike: list[Row] = [
        (setting(score), seed, "finished", 0.5 + seed / 10)
        for score in ("dot", "bahdanau", "luong")
        for seed in range(3)
    ]
    run = write_run(tmp_path / "alike", alike)
    assert "one of" not in " ".join(said([run], DOT, BAHDANAU))


def test_a_value_may_be_in_quotes_as_messages_print_it(tmp_path: Path) -> None:
    key = "optimizer.lr_decay_type"
    rows: list[Row] = [
        ({key: kind}, seed, "finished", best + seed / 100)
        for kind, best in (("", 0.5), ("polynomial_decay", 0.9))
        for seed in range(3)
    ]
    run = write_run(tmp_path / "run", rows)
    lines = said([run], f'{key}=""', f"{key}='polynomial_decay'")
    assert lines == said([run], f"{key}=", f"{key}=polynomial_decay")
    (claim,) = claims(lines)
    assert claim.startswith(f'{key}="" is better than {key}=polynomial_decay: dev.loss 0.51 ')
    assert problems([run], f'{key}=""', f"{key}='x'") == [
        f'"{key}=\'x\'": no trial has that value; known: "", polynomial_decay'
    ]


def test_what_makes_settings_depend_on_each_other_is_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", SEEDS)
    constrained = "constraints: [attention.dim <= 128]\n" + GRID
    (run / "space.yaml").write_text(constrained)
    # Every draw was run with both values of a grid.
    assert "depend on" not in " ".join(said([run], DOT, BAHDANAU))
    (run / "space.yaml").write_text(constrained.replace("{grid: [dot", "{choices: [dot"))
    (claim,) = claims(said([run], DOT, BAHDANAU))
    assert ", of trials whose other settings may depend on this one by constraints: " in claim
    assert "depend on" not in " ".join(said([run], "0", "1"))


def test_a_margin_makes_equals_equivalent(tmp_path: Path) -> None:
    rows: list[Row] = [
        (setting(score, 0.001 * (k + 1)), 0, "finished", 0.5 + 0.1 * k + 0.001 * ((k + m) % 3))
        for k in range(6)
        for m, score in enumerate(("dot", "bahdanau"))
    ]
    run = write_run(tmp_path / "run", rows)
    text = f"{DOT} and {BAHDANAU} are equivalent within 0.01: dev.loss "
    assert any(line.startswith(text) for line in said([run], DOT, BAHDANAU, 0.01))
    text = (
        f"{DOT} and {BAHDANAU} are not distinguishable by these results, nor shown to be equivalent"
    )
    assert any(line.startswith(text) for line in said([run], DOT, BAHDANAU, 0.0001))


def test_an_audit_holds_trials_of_the_search_and_no_fresh_seeds(tmp_path: Path) -> None:
    """What was stopped counts with what it reached when it was trained to the end."""
    rows = [
        (settings, seed, "stopped" if settings[SCORE] == "dot" else status, best)
        for settings, seed, status, best in SEEDS
    ]
    run = write_run(tmp_path / "run", rows)
    to_the_end: list[Row] = [row for row in SEEDS if row[0][SCORE] == "dot"]
    audit = write_run(tmp_path / "audit", to_the_end, configs=[BASE], audits_of=str(run))
    lines = said([run, audit], "0", "1")
    assert lines[0] == (
        "trial-00000: 3 of 3 trials finished, of 1 configuration; "
        "left out, as the same configuration and seed again: 3"
    )
    assert lines[2] == said([write_run(tmp_path / "whole", SEEDS)], "0", "1")[2]


def test_one_draw_a_side_tells_nothing_of_a_drawn_setting(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", grid_rows(2, seed=7))
    (run / "space.yaml").write_text(GRID)
    lines = said([run], "attention.dim=64", "attention.dim=128")
    assert lines[2].endswith(
        " over 1 and 1 draws: at least 2 draws each are needed to say anything"
    )
    assert lines[3].startswith("not compared on single dev examples")


def test_a_log_may_hold_anything_for_a_seed(tmp_path: Path) -> None:
    rows: list[Row] = [(settings, [seed], status, best) for settings, seed, status, best in SEEDS]  # type: ignore[misc]
    assert " over 3 and 3 seeds" in said([write_run(tmp_path / "run", rows)], "0", "1")[2]


def test_survivors_of_a_scheduler_show_nothing(tmp_path: Path) -> None:
    """With dot only the best trials were left: their lead is the scheduler's choice."""
    rows: list[Row] = []
    for number in range(12):
        rate = 0.001 * (number + 1)
        left = "finished" if number < 4 else "stopped"
        rows.append((setting("dot", rate), 0, left, 0.1 + rate))
        rows.append((setting("bahdanau", rate), 0, "finished", 0.5 + rate))
    lines = said([write_run(tmp_path / "run", rows)], f"{SCORE}=dot", f"{SCORE}=bahdanau")
    claims = [line for line in lines if " better than " in line or " worse than " in line]
    assert all(line.startswith("at step") for line in claims)
    assert any("the scheduler chose these, so nothing is concluded" in line for line in lines)
