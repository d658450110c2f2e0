"""The sentences of a report, for runs of which it is known what can be said."""

import json
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from s2s_search.report import conclusions
from s2s_search.report.contents import write_report
from s2s_search.report.runs import ReportedRun, read_runs
from s2s_search.results.results import Results, load
from s2s_search.runs.log import EventLog
from tests.runs import SPACE, loss_of, write_run
from tests.unit.test_studies import SPACE as WIDE
from tests.unit.test_studies import record

Config = Mapping[str, Any]
SCIENTIFIC = WIDE.replace(
    "attention.score_type: [bahdanau, dot]",
    "attention.score_type: {{choices: [bahdanau, dot], role: scientific}}",
).replace("model: [BasicSeq2Seq, AttentionSeq2Seq]", "model: AttentionSeq2Seq")


def noise(config: Config) -> float:
    return random.Random(repr(config)).random()


def read(folder: Path) -> ReportedRun:
    (run,) = read_runs([folder])
    return run


def said(
    folder: Path, loss: Callable[[Config], float], trials: int, **options: Any
) -> tuple[ReportedRun, str]:
    """Returns a run, and all that its report says of what mattered and what to do next."""
    record(folder, loss, trials, text=options.pop("text", SCIENTIFIC), **options)
    run = read(folder)
    return run, " ".join([*conclusions.influences(run), conclusions.outlook(run)])


def test_a_claim_names_the_step_at_which_trials_are_compared(tmp_path: Path) -> None:
    """A third of the trials was stopped at step 100."""
    run = read(write_run(tmp_path / "run"))
    (axis,) = [axis for axis in run.axes if axis.is_scientific]
    text = conclusions.best_value(run, axis)
    assert "at step 100, which 37 of 40 trials reached" in text
    assert text.endswith("; later steps may reverse it.") == ("more than chance" in text)
    assert "n = 37 at step 100" in " ".join(conclusions.influences(run))


def test_what_is_no_more_than_chance_has_the_numbers_of_its_keys(tmp_path: Path) -> None:
    """A key under a condition takes part in some configurations alone."""
    run, text = said(tmp_path / "run", noise, 40, text=WIDE)
    counts = []
    for key in ("encoder.type", "attention.score_type", "optimizer.lr_decay_rate"):
        counts.append(int(run.results.trials[key].notna().sum()))
    assert counts[0] == 40 > max(counts[1:])
    assert f"No more than chance (n = {min(counts)} to 40): " in text
    assert "No sign that better values lie beyond the searched ranges (n = " in text
    judged = [counts[2], 40]  # learning rate, embedding and the rate of the decay
    assert f"searched ranges (n = {min(judged)} to 40)" in text


def test_how_close_a_value_was_to_depend_on_another_is_said(tmp_path: Path) -> None:
    record(tmp_path / "run", noise, 60, text=WIDE)
    run = read(tmp_path / "run")
    first, *_ = run.possible_reversals
    assert 0.05 < first.p <= 1
    text = conclusions.no_reversals(run)
    pairs = {frozenset((each.key, each.other)) for each in run.possible_reversals}
    assert f"(the smallest p of {len(pairs)} pairs with enough configurations is " in text
    assert f" is {first.p:.2g} after correction)." in text
    assert text in write_report([tmp_path / "run"])[1].read_text()


def test_the_star_is_named_with_its_step(tmp_path: Path) -> None:
    """Trials are compared at step 100, where another one is the best than at the end."""
    run = read(write_run(tmp_path / "run"))
    page = write_report([tmp_path / "run"])[1].read_text()
    at_100 = run.results.reports[run.results.reports["step"] == 100]
    best = at_100.loc[at_100["dev.error_rate"].astype(float).idxmin()]
    value = f"{best['dev.error_rate']:.4g}"
    assert f"The star is `{best['trial']}`, the best at step 100 ({value})." in page
    assert "| value | n | best at step 100 | " in page
    assert "| best trial at step 100 |" in page


def test_the_hours_of_a_trial_are_named_where_they_stopped_it(tmp_path: Path) -> None:
    """13 of 40 trials were stopped; the hours of one of these were over."""
    folder = write_run(tmp_path / "run")
    assert "search.trial_hours" not in " ".join(conclusions.sureness(read(folder)))
    log = (folder / "events.jsonl").read_text()
    line = '"status": "stopped"'
    assert line in log
    why = '"message": "trial_hours: 2 h are over"'
    (folder / "events.jsonl").write_text(log.replace(line, f"{line}, {why}", 1))
    text = " ".join(conclusions.sureness(read(folder)))
    assert "1 of these had used up `search.trial_hours`" in text


def test_stopped_and_finished_trials_are_compared_by_reports_of_the_same_step(
    tmp_path: Path,
) -> None:
    """All trials have the same curve, so who was stopped makes no difference."""
    run = read(write_run(tmp_path / "run", loss=lambda number, config: 0.2))
    assert run.results.trials[run.score].nunique() == 2
    assert run.scores.values.dropna().tolist() == pytest.approx([0.4] * 37)
    text = " ".join([*conclusions.influences(run), conclusions.outlook(run)])
    assert "no sign that one is better (p = 1), at step 100" in text
    assert "37 of 40 trials reached; later steps may tell more." in text
    assert "have the same result" in text


def test_equal_results_say_nothing(tmp_path: Path) -> None:
    run, text = said(tmp_path / "run", lambda config: 0.0731, 20)
    assert "no sign that one is better (p = 1)" in text
    assert "All 20 configurations have the same result" in text
    assert "more than chance" not in text.replace("No more than chance", "")
    assert "19 other trials have the same value" in conclusions.winner(run)
    assert "0.0%" not in " ".join(conclusions.sureness(run))


def test_when_all_diverged_nothing_is_compared(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    record(folder, noise, 20, text=SCIENTIFIC)
    log = folder / "events.jsonl"
    log.write_text(log.read_text().replace('"finished"', '"diverged"'))
    (folder / "trials.parquet").unlink()
    run = read(folder)
    assert ", which diverged later, is the best of 20" in conclusions.winner(run)
    text = " ".join([*conclusions.influences(run), conclusions.outlook(run)])
    assert "no trial has finished or was stopped" in text
    assert "chance" not in text


def test_a_single_trial_is_the_only_one(tmp_path: Path) -> None:
    run, _ = said(tmp_path / "run", noise, 1)
    assert "is the only trial with a result" in conclusions.winner(run)


def test_no_sentence_counts_one_of_many(tmp_path: Path) -> None:
    """A page about one trial with one replicated configuration."""
    record(tmp_path / "run", noise, 1, text=SCIENTIFIC)
    text = write_report([tmp_path / "run"])[1].read_text()
    plural = "trials|configurations|sources|seeds|reports|steps|values|draws"
    found = re.findall(rf"\b1 (?:[a-z]+ )?(?:{plural})\b", text)
    assert found == []
    run = read(write_run(tmp_path / "beside", trials=2))
    text = " ".join(conclusions.sureness(replace(run, beside=_of_two_seeds(tmp_path))))
    assert text.startswith("1 configuration ran again with other seeds")


def _of_two_seeds(tmp_path: Path) -> Results:
    text = SPACE.replace("trials: 40", "trials: 40, replicates: 2")
    return load(write_run(tmp_path / "seeds", trials=1, text=text))


@pytest.mark.parametrize("status", ["stopped", "running"])
def test_the_status_of_the_winner_is_said(tmp_path: Path, status: str) -> None:
    scores = [noise(config) for config in read_configs(tmp_path)]
    best = min(range(12), key=scores.__getitem__)
    statuses = {best: status}
    record(tmp_path / "run", noise, 12, text=SCIENTIFIC, statuses=statuses)
    text = conclusions.winner(read(tmp_path / "run"))
    assert {"stopped": ", which was stopped early,", "running": ", which has not ended,"}[
        status
    ] in text
    # The search has ended, so that none of its trials runs.
    said = conclusions.state(read(tmp_path / "run"))
    assert said.endswith(f"11 finished, 1 {'not ended' if status == 'running' else status}.")


def read_configs(tmp_path: Path) -> list[Config]:
    record(tmp_path / "drawn", noise, 12, text=SCIENTIFIC)
    return list(read(tmp_path / "drawn").space.trials(12))


def test_a_value_whose_trials_diverge_is_named_with_both_rates(tmp_path: Path) -> None:
    record(tmp_path / "drawn", noise, 40, text=SCIENTIFIC)
    values = read(tmp_path / "drawn").results.trials["attention.score_type"]
    lost = {k: "diverged" for k, value in enumerate(values) if value == "dot" and k % 4}
    dots = int((values == "dot").sum())
    _, text = said(tmp_path / "run", noise, 40, statuses=lost)
    assert (
        f"With `attention.score_type dot`, {len(lost)} of {dots} trials diverged or failed, and 0 "
        f"of {40 - dots} with its other values; more than chance"
    ) in text
    _, text = said(tmp_path / "few", noise, 40, statuses={1: "diverged", 2: "failed"})
    assert "diverged or failed" not in text


def test_what_mattered_is_said_with_values_numbers_and_what_is_next(tmp_path: Path) -> None:
    def loss(config: Config) -> float:
        return 3.0 * (config["optimizer.learning_rate"] > 1e-3) + noise(config)

    run, text = said(tmp_path / "run", loss, 60)
    assert "`optimizer.learning_rate` explains " in text
    assert ", n = 60): `0.0001 to 0.000316` did best" in text or "`0.000316 to 0.001` did" in text
    assert "`0.00316 to 0.01` worst" in text or "`0.001 to 0.00316` worst" in text
    assert ": search there next." in text
    of_a_condition = run.results.trials["optimizer.lr_decay_rate"].notna().sum()
    assert f"No more than chance (n = {of_a_condition} to 60): " in text


def test_what_a_p_does_not_cover_is_said(tmp_path: Path) -> None:
    _, text = said(tmp_path / "random", noise, 12)
    assert "tpe" not in text
    for word in ("resumed", "first", "depend on each other"):
        assert word not in text
    tpe = SCIENTIFIC.replace("trials: 8", "trials: 8, method: tpe")
    _, text = said(tmp_path / "tpe", noise, 12, text=tpe)
    assert "tpe chose each trial by earlier results" in text
    _, text = said(tmp_path / "first", noise, 12, text="first: default\n" + SCIENTIFIC)
    chosen = "1 configuration came before the draws, by `first` or a warm start."
    assert chosen in text
    assert read(tmp_path / "first").expected.empty
    record(tmp_path / "warm", noise, 12, text=SCIENTIFIC)
    assert chosen not in " ".join(conclusions.reservations(read(tmp_path / "warm")))
    log = tmp_path / "warm" / "events.jsonl"
    search, *events = log.read_text().splitlines()
    search = json.dumps(json.loads(search) | {"warm_start_first": [{}]})
    log.write_text("\n".join([search, *events]) + "\n")
    assert chosen in " ".join(conclusions.reservations(read(tmp_path / "warm")))
    assert read(tmp_path / "warm").expected.empty
    assert not read(tmp_path / "random").expected.empty
    constrained = "constraints: [attention.dim <= 128]\n" + SCIENTIFIC
    _, text = said(tmp_path / "constrained", noise, 12, text=constrained)
    assert "Constraints of the search space made the hyperparameters depend" in text
    leaning = constrained.replace("role: scientific", "role: scientific, prior: dot")
    _, text = said(tmp_path / "leaning", noise, 12, text=leaning)
    assert "Constraints and priors of the search space made" in text
    record(tmp_path / "grown", noise, 12, text=SCIENTIFIC)
    with EventLog(tmp_path / "grown") as log:
        log.append({"event": "resume", "trials": 24})
    text = " ".join(conclusions.influences(read(tmp_path / "grown")))
    assert "The search was resumed with more trials." in text


def test_reports_at_different_intervals_are_said(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", trials=6)
    assert not [text for text in conclusions.unequal(read(folder)) if "reports" in text]
    lines = (folder / "events.jsonl").read_text().splitlines()
    late = [
        line
        for line in lines
        if not ('"trial-00000"' in line and '"step":200' in line.replace(" ", ""))
    ]
    (folder / "events.jsonl").write_text("\n".join(late) + "\n")
    assert "Finished trials made 3 to 4 reports." in " ".join(conclusions.unequal(read(folder)))


def test_seeds_that_ranked_the_configurations_are_not_to_be_quoted(tmp_path: Path) -> None:
    text = SPACE.replace("trials: 40", "trials: 40, replicates: 3")
    run = read(write_run(tmp_path / "run", 14, text=text, loss=lambda k, c: loss_of(k % 3, c)))
    sure = " ".join(conclusions.sureness(run))
    assert "Quote their means" not in sure
    assert "The first mean in the table below is too good" in sure
    assert "The standard deviation of a seed is" in sure


def test_values_that_are_compared_early_advise_nothing(tmp_path: Path) -> None:
    """asha stopped trials, so values are compared at the first rung, and the best at the end may differ."""
    folder = write_run(tmp_path / "run", trials=60)
    text = " ".join(conclusions.influences(read(folder)))
    assert "`optimizer.learning_rate` explains " in text
    assert " at that step have " in text
    assert "; later steps may reverse it." in text
    assert "search there next" not in text
    page = write_report([folder])[1].read_text()
    assert "### What mattered at step 100?" in page
    assert "Stopped trials made fewer steps and fewer reports." in page
