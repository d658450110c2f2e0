"""The scores of trials that can be compared, from curves written by hand."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from s2s_search.results.results import Results, load
from s2s_search.results.scores import comparable

Curve = Mapping[int, float]


def run(folder: Path, trials: Mapping[str, tuple[str, Curve]], **settings: object) -> Results:
    """Writes a run whose trials have these statuses and curves; a curve's None is a divergence."""
    search = {"event": "search", "name": "toy", "metric": "dev.loss", "goal": "minimize"}
    search |= {"searched": dict.fromkeys(settings, "Int64"), "trials": len(trials)}
    events: list[dict[str, object]] = [{"time": 0.0, **search}]
    for number, (status, curve) in enumerate(trials.values()):
        name = f"trial-{number:05d}"
        chosen = dict.fromkeys(settings, number)
        events.append({"event": "trial", "trial": name, "settings": chosen, "config": chosen})
        for step, value in curve.items():
            report = {"event": "report", "trial": name, "step": step, "seconds": 1.0}
            events.append(report | {"dev.loss": value, "status": "running"})
        if status != "running":
            events.append({"event": "status", "trial": name, "status": status})
    folder.mkdir()
    lines = [json.dumps({"time": float(k)} | event) for k, event in enumerate(events)]
    (folder / "events.jsonl").write_text("\n".join(lines) + "\n")
    return load(folder)


def values(results: Results) -> list[float | None]:
    found = comparable(results).values
    return [None if missing else value for value, missing in zip(found, found.isna(), strict=True)]


def test_without_stops_the_best_reports_count(tmp_path: Path) -> None:
    a = {100: 0.5, 200: 0.3, 300: 0.4}
    found = run(tmp_path / "run", {"a": ("finished", a), "b": ("finished", dict.fromkeys(a, 1.0))})
    assert values(found) == [0.3, 1.0]
    assert comparable(found).step is None
    assert comparable(found).phrase == "at the best reports of 2 finished trials"


def test_after_stops_the_last_common_step_counts(tmp_path: Path) -> None:
    """Its values, not the best until then; a trial that still runs counts where it came so far."""
    trials = {
        "finished": ("finished", {50: 0.2, 100: 0.5, 150: 0.1}),
        "stopped": ("stopped", {50: 0.9, 100: 0.8}),
        "running": ("running", {50: 0.7, 100: 0.6}),
        "begun": ("running", {50: 0.4}),
        "diverged early": ("diverged", {50: 0.3}),
        "diverged late": ("diverged", {50: 0.3, 100: 0.25}),
        "failed": ("failed", {}),
    }
    found = run(tmp_path / "run", trials)
    assert values(found) == [0.5, 0.8, 0.6, None, None, 0.25, None]
    scores = comparable(found)
    assert scores.step == 100
    assert scores.diverged.tolist() == [False] * 4 + [True, False, False]
    assert scores.judged.iloc[4] == 0.8  # as bad as the worst
    assert scores.count == 5
    assert scores.phrase == "at step 100, which 4 of 7 trials reached"


def test_more_reports_are_no_advantage(tmp_path: Path) -> None:
    """All finished, one with ten times as many reports: the last common step counts."""
    often = {step: 0.5 + 0.1 * (step % 7) for step in range(10, 101, 10)}
    found = run(tmp_path / "run", {"a": ("finished", often), "b": ("finished", {100: 0.6})})
    assert values(found) == [often[100], 0.6]
    assert comparable(found).phrase == "at step 100, which all 2 trials reached"


@pytest.mark.parametrize(
    "trials, settings, why",
    [
        ({"a": ("stopped", {20: 0.1}), "b": ("stopped", {30: 0.1})}, {}, "no step that all"),
        ({"a": ("diverged", {20: 0.1}), "b": ("diverged", {20: 0.1})}, {}, "no trial has finished"),
        ({"a": ("running", {20: 0.1})}, {}, "no trial has finished"),
        (
            {"a": ("finished", {20: 0.1}), "b": ("finished", {20: 0.1})},
            {"train.eval_examples": 1},
            "different numbers of dev examples",
        ),
    ],
)
def test_what_cannot_be_compared_has_no_scores(
    tmp_path: Path,
    trials: Mapping[str, tuple[str, Curve]],
    settings: Mapping[str, object],
    why: str,
) -> None:
    scores = comparable(run(tmp_path / "run", trials, **settings))
    assert why in scores.reason
    assert scores.count == 0
