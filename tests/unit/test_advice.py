"""What to do next: each line follows from a conclusion of the report, and can be run as it is."""

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from s2s_search.cli.command_line import main
from s2s_search.report import conclusions
from s2s_search.report.advice import MOST, advice
from s2s_search.report.runs import ReportedRun
from s2s_search.results.compare import compare
from s2s_search.spaces.load import load_space
from tests.runs import write_run
from tests.unit.test_conclusions import SCIENTIFIC, noise, read
from tests.unit.test_studies import record

Config = Mapping[str, Any]
SCORE = "attention.score_type"
KEYS = re.compile(r"^[a-z_.]+: ")


def lines_of(folder: Path, loss: Any, trials: int = 60, **options: Any) -> tuple[ReportedRun, str]:
    record(folder, loss, trials, text=options.pop("text", SCIENTIFIC), **options)
    run = read(folder)
    lines = advice(run)
    assert len(lines) <= MOST
    for line in lines:
        assert re.search(r"`[^`]*[: ][^`]*`\.$", line), f"nothing to write or to run: {line}"
    return run, "\n".join(lines)


def in_code(text: str) -> list[str]:
    return re.findall("`([^`]*)`", text)


def test_a_key_that_is_decided_is_fixed(tmp_path: Path) -> None:
    _, text = lines_of(
        tmp_path / "run", lambda config: noise(config) + 3 * (config[SCORE] == "dot")
    )
    assert f"Fix `{SCORE}`, as `bahdanau` is better than its other values: " in text
    assert f"`{SCORE}: bahdanau`" in text
    assert f"Undecided: `{SCORE}`" not in text


def test_a_key_of_which_one_value_has_no_result_is_not_fixed(tmp_path: Path) -> None:
    record(tmp_path / "drawn", noise, 60, text=SCIENTIFIC)
    values = read(tmp_path / "drawn").results.trials[SCORE]
    lost = {k: "failed" for k, value in enumerate(values) if value == "dot"}
    _, text = lines_of(tmp_path / "run", noise, statuses=lost)
    assert "Fix" not in text


def test_a_key_that_is_not_decided_has_the_number_that_compare_names(tmp_path: Path) -> None:
    run, text = lines_of(tmp_path / "run", noise)
    assert f"Undecided: `{SCORE}`." in text
    (needed,) = re.findall(r"`\. (\d[^`]*) tell `", text)
    compared = compare([tmp_path / "run"], f"{SCORE}=bahdanau", f"{SCORE}=dot")
    assert f"; {needed} would show differences" in " ".join(compared)
    assert f"{SCORE}: {{grid: [" in text
    assert "Fix " not in text
    assert "Move " not in text
    assert "more than chance" not in text
    assert len(conclusions.contenders(run, run.axes[0])) > 0


def test_what_was_compared_early_is_not_fixed(tmp_path: Path) -> None:
    """asha stopped trials at step 100 of 400."""
    key = "encoder.type"
    run = read(write_run(tmp_path / "run", trials=60, loss=lambda k, c: 0.1 + (c[key][0] == "U")))
    text = "\n".join(advice(run))
    assert "`BidirectionalRNNEncoder` is the best `encoder.type` at step 100, which later" in text
    assert "`scheduler: {name: none, max_steps: 400}`" in text
    assert "Fix" not in text
    assert "Narrow" not in text


def linked(folder: Path, **entries: str) -> None:
    """Adds entries to the first event of a log."""
    log = folder / "events.jsonl"
    first, *rest = log.read_text().splitlines()
    log.write_text("\n".join([json.dumps(json.loads(first) | entries), *rest]) + "\n")


def test_stopped_trials_are_audited_until_it_was_done(tmp_path: Path) -> None:
    """Of 12 trials 4 are stopped, and fewer than 10 finish: too few for a rank correlation."""
    run = write_run(tmp_path / "run", trials=12)
    assert f"replicate {run} --audit 4`" in "\n".join(advice(read(run)))
    log = run / "events.jsonl"
    before, after = log.read_text().rsplit('"rung": 100', 1)
    log.write_text(f'{before}"rung": 200{after}')
    audit = write_run(tmp_path / "run-audit", trials=5, loss=lambda k, c: 0.001 * (k + 1))
    linked(audit, audits_of=str(run))
    text = "\n".join(advice(read(run)))
    assert "--audit" not in text
    # Of the five, trials 1 and 4 are stopped, and do not count.
    assert "3 of 3 stopped trials became better than the best when trained to the end." in text
    line = "scheduler: {name: asha, max_steps: 400, grace_steps: 200, reduction_factor: 2}"
    assert f"Stop trials later: `{line}`." in text
    linked(audit, audits_of="another")
    audit.rename(tmp_path / "other")
    assert "--audit 4`" in "\n".join(advice(read(run)))


def test_the_winner_is_measured_once(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    replicate, evaluate = in_code(advice(read(run))[-1])
    assert replicate.endswith(f"replicate {run} --top 3 --seeds 5")
    assert evaluate.endswith(f"evaluate {run} --split test")
    linked(write_run(tmp_path / "run-replicates-1", trials=2), replicates_of=str(run))
    assert in_code(advice(read(run))[-1]) == [evaluate]
    empty = {
        "beam": 1,
        "examples": 5,
        "fingerprint": "",
        "split": "test",
        "time": 0.0,
        "trials": [],
    }
    (run / "evaluations.jsonl").write_text(json.dumps(empty) + "\n")
    assert evaluate not in "\n".join(advice(read(run)))


@pytest.mark.parametrize("trials", [1, 9])
def test_of_few_trials_nothing_is_concluded(tmp_path: Path, trials: int) -> None:
    _, text = lines_of(tmp_path / "run", noise, trials)
    for word in ("Fix", "Move", "Narrow", "Undecided"):
        assert word not in text


DECAYING = """
model: BasicSeq2Seq
corpus: {name: copy}
metric: {name: dev.error_rate}
search: {trials: 12, seed: 1}
scheduler: {name: none, max_steps: 400}
parameters:
  optimizer.learning_rate: {min: 1e-4, max: 1e-2, log: true}
  optimizer.lr_decay_type: ["", exponential_decay]
  optimizer.lr_decay_steps: STEPS
  optimizer.lr_start_decay_at: {min: 0, max: 100, step: 50, when: {optimizer.lr_decay_type: exponential_decay}}
  optimizer.lr_stop_decay_at: 1000000000
"""
WHEN = "when: {optimizer.lr_decay_type: [exponential_decay]}"


@pytest.mark.parametrize(
    "given, doubled",
    [
        ("400", "800"),
        ("[100, 400]", "[200, 800]"),
        ("{choices: [400], WHEN}", "{choices: [800], WHEN}"),
        ("{choices: {soon: 100, late: 400}}", "{choices: {soon: 200, late: 800}}"),
        ("{choices: [100, 400], weights: [1, 3]}", "{choices: [200, 800], weights: [1, 3]}"),
    ],
)
def test_longer_training_has_longer_decays(tmp_path: Path, given: str, doubled: str) -> None:
    """The start of 0 to 100 steps, too; a stop that is never reached stays."""
    text = DECAYING.replace("STEPS", given.replace("WHEN", WHEN))
    run = read(write_run(tmp_path / "run", trials=12, text=text, loss=lambda k, c: 0.5 + 0.01 * k))
    (line,) = [line for line in advice(run) if "Train longer" in line]
    _, steps, start = written = [part for part in in_code(line) if KEYS.match(part)]
    assert written[0] == "scheduler: {name: none, max_steps: 800}"
    assert steps == f"optimizer.lr_decay_steps: {doubled.replace('WHEN', WHEN)}"
    assert start.startswith("optimizer.lr_start_decay_at: {min: 0, max: 200, step: 100, when: ")
    space = yaml.safe_load(run.space.text)
    space["scheduler"] = yaml.safe_load(written[0])["scheduler"]
    for part in written[1:]:
        space["parameters"] |= yaml.safe_load(part)
    (tmp_path / "next.yaml").write_text(yaml.safe_dump(space))
    assert load_space(tmp_path / "next.yaml").trials(2, 1)


def test_the_lines_of_a_space_are_valid(tmp_path: Path) -> None:
    """Each line takes the place of the entry with its key."""

    def loss(config: Config) -> float:
        return noise(config) + 3 * (config["optimizer.learning_rate"] > 1e-3)

    run, text = lines_of(tmp_path / "run", loss)
    written = [part for part in in_code(text) if KEYS.match(part)]
    assert len(written) >= 2
    assert "Narrow `optimizer.learning_rate` to" in text
    for line in written:
        space, found = yaml.safe_load(run.space.text), yaml.safe_load(line)
        (key,) = found
        (space if key == "scheduler" else space["parameters"])[key] = found[key]
        path = tmp_path / "next.yaml"
        path.write_text(yaml.safe_dump(space, sort_keys=False))
        assert load_space(path).trials(2, 1)
    for part in in_code(text):
        if part.startswith("python run_search.py"):
            assert main([*shlex.split(part)[2:], "--help"]) == 0
