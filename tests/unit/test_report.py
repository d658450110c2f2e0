"""The report: what it says, compared with the tables and with values by hand.

Nothing in a run is taken for markup.
"""

import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import pytest

from s2s_search.cli.command_line import main
from s2s_search.errors import ConfigError
from s2s_search.report import conclusions, figures
from s2s_search.report.contents import sections, write_report
from s2s_search.report.page import Code, Figure, Table, Text, code
from s2s_search.report.runs import read_runs
from s2s_search.results.many import load_many
from s2s_search.results.replicates import replicates
from s2s_search.results.results import load
from s2s_search.runs.log import EventLog
from tests.runs import ENVIRONMENT, SPACE, write_run

EXAMPLE = {
    "source": ["a", "<b>"],
    "references": [["A", "B"], ["A"]],
    "answer": ["A"],
    "attention": [[0.7, 0.2, 0.1], [0.0, 0.5, 0.5]],
}
SECTIONS = (
    "In short",
    "Ranking",
    "Best so far",
    "Fewer trials",
    "Learning curves",
    "Parallel coordinates",
    "One hyperparameter at a time",
    "Scientific hyperparameters",
    "Importance",
    "Ends of the ranges",
    "Failures",
    "Time",
    "Answers",
    "How it was made",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "run", example=EXAMPLE)


@pytest.fixture(scope="module")
def texts(folder: Path) -> tuple[str, str]:
    page, markdown = write_report([folder])
    assert (page, markdown) == (folder / "report.html", folder / "report.md")
    return page.read_text(), markdown.read_text()


class Page(HTMLParser):
    """The elements of a page, and the JSON in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[dict[str, str | None]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes.append(dict(attrs))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] == "script" and data.strip():
            self.scripts.append((self.attributes[-1], data))

    def data(self) -> list[Any]:
        return [
            json.loads(text)
            for attributes, text in self.scripts
            if attributes.get("type") == "application/json"
        ]


def strings(data: Any) -> Iterator[str]:
    if isinstance(data, str):
        yield data
    elif isinstance(data, dict | list):
        for part in data.values() if isinstance(data, dict) else data:
            yield from strings(part)


# --- what it says ---


def test_both_files_have_all_sections_in_order(texts: tuple[str, str]) -> None:
    assert re.findall(r"<h2 id=\"[a-z-]+\"><a [^>]*>([^<]*)", texts[0]) == list(SECTIONS)
    assert re.findall("^## (.*)", texts[1], re.MULTILINE) == list(SECTIONS)


def test_it_names_the_best_trial_and_how_many_there_are(
    folder: Path, texts: tuple[str, str]
) -> None:
    best, trials = load(folder).best(1).iloc[0], load(folder).trials
    n = trials["best.dev.error_rate"].notna().sum()
    said = f"`{best['trial']}` is the best of {n} trials with a result: `dev.error_rate`"
    assert f"{said} {best['best.dev.error_rate']:.4g} at step 400" in texts[1]
    counts = trials["status"].value_counts()
    each = ", ".join(f"{counts[status]} {status}" for status in counts.index)
    assert f"The search finished. Of 40 trials: {each}." in texts[1]


def test_the_ranking_is_that_of_the_results(folder: Path, texts: tuple[str, str]) -> None:
    (ranking,) = [
        data for data in Page(texts[0]).data() if isinstance(data, dict) and "rows" in data
    ]
    trial, score = (ranking["columns"].index(name) for name in ("trial", "best.dev.error_rate"))
    expected = load(folder).best(None)
    assert [row[trial] for row in ranking["rows"]] == expected["trial"].tolist()
    values = [f"{x:.4g}" for x in expected["best.dev.error_rate"].dropna()]
    assert [row[score] for row in ranking["rows"] if row[score] != "-"] == values
    assert "15 more in trials.csv" in texts[1]
    first = ["rank", "trial", "best.dev.error_rate", "status", "best.step"]
    searched = list(load(folder).searched)
    assert ranking["columns"][: 5 + len(searched)] == [*first, *searched]


def test_who_led_and_when(folder: Path) -> None:
    (run,) = read_runs([folder])
    spent, cost, best, expected = dict[str, float](), 0.0, math.inf, []
    for report in load(folder).reports.to_dict("records"):
        cost += report["seconds"] - spent.get(report["trial"], 0.0)
        spent[report["trial"]] = report["seconds"]
        if report["dev.error_rate"] < best:
            best = report["dev.error_rate"]
            expected.append((int(report["trial"][-5:]), cost * 0.5 / 3600, best))  # half a GPU
    leads = run.leads(in_gpu_hours=True)
    found = list(leads[["number", "cost", "best"]].itertuples(index=False, name=None))
    expected.append((expected[-1][0], cost * 0.5 / 3600, best))
    assert len(found) == len(expected)
    assert all(a == pytest.approx(b) for a, b in zip(found, expected, strict=True))
    assert leads["elapsed"].is_monotonic_increasing
    assert run.leads()["cost"].tolist() == pytest.approx([x * 3600 / 0.5 for x in leads["cost"]])


def test_what_the_model_of_freeze_thaw_expects(tmp_path: Path) -> None:
    """Every third trial was stopped after one report, but for those that failed."""
    asha = "{name: asha, max_steps: 400, grace_steps: 100, reduction_factor: 2}"
    text = SPACE.replace(asha, "{name: freeze_thaw, max_steps: 400}")
    run = read_runs([write_run(tmp_path / "run", text=text)])[0]
    stopped = run.results.trials.loc[run.results.trials["status"] == "stopped", "trial"]
    assert sorted(promise.trial for promise in run.promises) == sorted(stopped)
    chances = [promise.end.chance for promise in run.promises]
    assert chances == sorted(chances, reverse=True)
    newest = run.results.reports.groupby("trial")[run.metric].last()
    for promise in run.promises:
        assert promise.step == 100
        assert promise.value == newest[promise.trial]
        assert promise.end.low <= promise.end.value <= promise.end.high <= promise.value
    page, markdown = (path.read_text() for path in write_report([tmp_path / "run"]))
    section = markdown.split("## What the model expects")[1].split("\n## ")[0]
    assert f"Of {len(stopped)} trials that did not train to the end, " in section
    rows = re.findall(r"^\| (trial-\d+) \|", section, re.MULTILINE)
    assert rows == [promise.trial for promise in run.promises]
    assert "What the model expects" in page


def test_no_model_expects_nothing(folder: Path, texts: tuple[str, str]) -> None:
    assert read_runs([folder])[0].promises == []
    assert "What the model expects" not in texts[1]


def test_the_rungs_count_who_came_and_who_was_stopped(folder: Path) -> None:
    trials = load(folder).trials
    reported = trials["best.dev.error_rate"].notna().sum()
    assert read_runs([folder])[0].rungs() == [
        (100, reported, (trials["status"] == "stopped").sum())
    ]


def test_idle_time_by_hand(tmp_path: Path) -> None:
    """Node a: 10 and 6 of 20 seconds on two workers, so 24 of 40 idle.

    Node b: 20 of 20 seconds on one worker, which still runs.
    """
    folder = write_run(tmp_path / "run", trials=1)
    first, *_ = (folder / "events.jsonl").read_text().splitlines()
    began = json.loads(first)["time"]
    config = {"model": "BasicSeq2Seq"}
    log = [json.loads(first)]
    log += [
        {"event": "trial", "trial": f"trial-0000{k}", "settings": {}, "config": config}
        for k in range(3)
    ]
    for k, node, seconds in ((0, "a", 10), (1, "a", 6), (2, "b", 20)):
        report = {
            "trial": f"trial-0000{k}",
            "step": 1,
            "dev.error_rate": 0.5,
            "seconds": 1.0,
            "node": node,
        }
        log += [{"event": "report", "time": began + seconds, **report}]
        log += [
            {
                "event": "status",
                "trial": f"trial-0000{k}",
                "status": "finished",
                "time": began + seconds,
            }
        ] * (k < 2)
    ordered = sorted(({"time": began} | event for event in log), key=lambda event: event["time"])
    (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in ordered))
    nodes = read_runs([folder])[0].nodes()
    assert nodes["at_once"].tolist() == [2, 1]
    assert nodes["idle"].tolist() == pytest.approx([24 / 40, 0], abs=1e-3)
    assert nodes["gpu"].tolist() == pytest.approx([8 / 3600, 10 / 3600], rel=1e-3)


def test_values_that_differ_are_told_from_those_that_do_not(tmp_path: Path) -> None:
    for gap, said in ((5.0, "more than chance (p = 0.0005"), (0.0, "no sign that one is better")):
        folder = tmp_path / str(gap)
        write_run(
            folder,
            loss=lambda k, config, gap=gap: 1 + k / 1000 + gap * (config["encoder.type"][0] == "U"),
        )
        (run,) = read_runs([folder])
        (axis,) = [axis for axis in run.axes if axis.is_scientific]
        assert said in conclusions.best_value(run, axis)
        assert (
            "`encoder.type`: `BidirectionalRNNEncoder` " in conclusions.best_value(run, axis)
        ) or not gap


def with_seeds(folder: Path, trials: int = 14) -> Path:
    """Writes a run with three seeds per configuration, which its space does not name."""
    text = SPACE.replace("trials: 40", "trials: 40, replicates: 3")
    write_run(
        folder,
        trials,
        text=text,
        loss=lambda k, config: 0.1 + config["optimizer.learning_rate"] + 0.01 * (k % 3),
    )
    (folder / "space.yaml").write_text(SPACE)
    return folder


def test_seeds_are_no_configurations_of_their_own(tmp_path: Path) -> None:
    folder = with_seeds(tmp_path / "run")
    _, markdown = write_report([folder])
    assert "Each configuration ran with one seed" not in markdown.read_text()
    assert "`dev.error_rate` over seeds, with the 95 % interval" in markdown.read_text()
    best = replicates(load(folder)).iloc[0]
    (row,) = [
        line
        for line in markdown.read_text().splitlines()
        if line.startswith(f"| {best['mean']:.4g} |")
    ]
    assert f"| {best['n']} | 3 |" in row
    (run,) = read_runs([folder])
    (axis,) = [axis for axis in run.axes if axis.is_scientific]
    trials = run.results.trials[run.results.trials[run.score].notna()]
    assert (
        axis.isolation()["n"].sum()
        == trials["optimizer.learning_rate"].nunique()
        == run.configurations[0]
    )


def test_a_configuration_whose_seeds_diverged_is_not_the_first(tmp_path: Path) -> None:
    folder = with_seeds(tmp_path / "run")
    table = replicates(load(folder))
    first = table.iloc[1]  # of two finished trials
    lost = first["trial"]
    log = folder / "events.jsonl"
    events = [json.loads(line) for line in log.read_text().splitlines()]
    for event in events:
        if event["event"] == "status" and event.get("trial") == lost:
            event["status"] = "diverged"
    log.write_text("".join(json.dumps(event) + "\n" for event in events))
    (folder / "trials.parquet").unlink()  # the log is as long as before
    last = replicates(load(folder)).iloc[-1]
    assert last["optimizer.learning_rate"] == first["optimizer.learning_rate"]
    assert last["mean"] < table["mean"].max()


def test_nine_configurations_of_three_seeds_are_too_few_to_say_what_matters(tmp_path: Path) -> None:
    (run,) = read_runs([with_seeds(tmp_path / "run", 9)])
    assert len(run.scored) > 20
    said = conclusions.outlook(run)
    assert "At least 10 configurations with a result are needed" in said
    assert "; 9 of 9 have one" in said
    assert run.boundaries == []
    assert run.importance.empty


RATES = SPACE.replace(
    "  attention.dim", "  optimizer.lr_decay_rate: [0.9, 0.99999, 1.0]\n  attention.dim"
)
NULLS = SPACE.replace(
    "  attention.dim",
    "  bridge_spec: [{class: InitialStateBridge}]\n"
    "  decoder.rnn_cell.cell_spec: {class: LSTMCell, num_units: 8}\n"
    "  decoder.rnn_cell.cell_spec.num_proj:\n"
    "    {choices: [null, 4, 8], role: scientific, when: {encoder.type: BidirectionalRNNEncoder}}\n"
    "  attention.dim",
)


def test_values_that_print_alike_have_names_of_their_own(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", text=RATES)
    (run,) = read_runs([folder])
    (axis,) = [axis for axis in run.axes if axis.key == "optimizer.lr_decay_rate"]
    assert axis.names == ("0.9", "0.99999", "1")
    trials = run.results.trials[run.results.trials[run.score].notna()]
    counts = trials["optimizer.lr_decay_rate"].value_counts()
    assert axis.isolation()["n"].tolist() == [counts[value] for value in (0.9, 0.99999, 1.0)]
    write_report([folder])


def test_a_choice_of_null_takes_part(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", text=NULLS)
    key, (run,) = "decoder.rnn_cell.cell_spec.num_proj", read_runs([folder])
    (axis,) = [axis for axis in run.axes if axis.key == key]
    trials = run.results.trials[run.results.trials[run.score].notna()]
    active = trials[trials["encoder.type"] == "BidirectionalRNNEncoder"]
    counts = {
        "null": active[key].isna().sum(),
        "4": (active[key] == 4).sum(),
        "8": (active[key] == 8).sum(),
    }
    assert axis.isolation().set_index("value")["n"].to_dict() == counts
    assert axis.without == len(trials) - len(active) > 0
    importance = run.importance.set_index("hyperparameter")
    assert importance.loc[key, "trials"] == len(active)
    params = [trial.params for trial in run.results.to_optuna().trials]
    assert (
        sum(key in each for each in params)
        == (run.results.trials["encoder.type"] == "BidirectionalRNNEncoder").sum()
    )
    null = active[active[key].isna()].iloc[0]
    assert run.settings(null)[key] == "null"
    _, markdown = write_report([folder])
    assert "| null |" in markdown.read_text()


def test_answers_and_where_the_model_looked(texts: tuple[str, str]) -> None:
    assert "to 1 source of the dev set: 1 right." in texts[1]
    assert r"| a \<b\> | A | A | yes |" in texts[1]
    maps = [
        data["data"][0]
        for data in Page(texts[0]).data()
        if "data" in data and data["data"][0]["type"] == "heatmap"
    ]
    assert [trace["z"] for trace in maps] == [EXAMPLE["attention"]]


def test_answers_lie_below_a_url_with_a_query(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ENVIRONMENT, "storage", f"file://{tmp_path}/run?use_mmap=true")
    run = write_run(tmp_path / "run", trials=2, example=EXAMPLE)
    assert "to 1 source of the dev set" in write_report([run])[1].read_text()


def test_a_search_without_a_report_has_a_report(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", trials=1)
    first, *_ = (folder / "events.jsonl").read_text().splitlines(keepends=True)
    (folder / "events.jsonl").write_text(first)
    _, markdown = write_report([folder])
    assert "No trial has a result yet" in markdown.read_text()
    with EventLog(folder) as log:
        log.append(
            {
                "event": "trial",
                "trial": "trial-00000",
                "settings": {},
                "config": {"model": "BasicSeq2Seq"},
            }
        )
    _, markdown = write_report([folder])
    assert "The search was killed" in markdown.read_text()


@pytest.mark.parametrize(
    "asked, said",
    [
        ({}, "This search: 4 trials, seed `1`."),
        ({"trials": 1}, "This search: 1 trial, seed `1`."),
        (
            {"draws": 4, "seed": 7, "overrides": {"model": "BasicSeq2Seq", "train.batch_size": 8}},
            "This search: 4 trials by `--trials 4`, seed `7`, fixed: `model: BasicSeq2Seq`, "
            "`train.batch_size: 8`.",
        ),
        (
            {"warm_start_from": ["/runs/a", "/runs/b"]},
            "This search: 4 trials, seed `1`, warm start from `/runs/a`, `/runs/b`.",
        ),
        (
            {"configs": [], "replicates_of": "/runs/a"},
            "This search: 4 trials with configurations of `/runs/a` and other seeds.",
        ),
        (
            {"configs": [], "audits_of": "/runs/a"},
            "This search: 4 trials that `/runs/a` had stopped, trained to the end.",
        ),
    ],
)
def test_what_the_command_asked_for_stands_beside_the_file(
    tmp_path: Path, asked: dict[str, Any], said: str
) -> None:
    """The file asks for 40 trials."""
    log = write_run(tmp_path / "run", trials=4) / "events.jsonl"
    first, *rest = log.read_text().splitlines()
    log.write_text("\n".join([json.dumps(json.loads(first) | asked), *rest]) + "\n")
    text = write_report([log.parent])[1].read_text()
    assert f"The search space as its file was given. {said}" in text


def test_damage_to_the_log_is_named(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", trials=3)
    with open(folder / "events.jsonl", "ab") as log:
        log.write(b"no event\n")
    _, markdown = write_report([folder])
    assert "events.jsonl" in markdown.read_text().split("## Ranking")[0]


# --- several runs ---


def test_runs_side_by_side(folder: Path, tmp_path: Path) -> None:
    other = write_run(tmp_path / "other", loss=lambda k, config: 0.05 + k / 100)
    page, markdown = write_report([folder, other], tmp_path / "both.html")
    assert "The best trial of all is `trial-00000` of `other`" in markdown.read_text()
    data = Page(page.read_text()).data()
    (ranking,) = [part for part in data if isinstance(part, dict) and "rows" in part]
    assert ranking["columns"][:3] == ["rank", "run", "trial"]
    assert {row[1] for row in ranking["rows"]} == {"run", "other"}
    lines = [
        trace["name"]
        for part in data
        if "data" in part
        for trace in part["data"]
        if trace.get("line", {}).get("shape")
    ]
    assert lines == ["run", "run", "other", "other"]


def test_all_that_is_wrong_with_the_folders_is_said_at_once(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loss = write_run(tmp_path / "loss", trials=2, text=SPACE.replace("dev.error_rate", "dev.loss"))
    none = tmp_path / "none"
    assert main(["report", str(folder), str(loss), str(none)]) == 2
    said = capsys.readouterr().err
    assert "none: is no folder of a search" in said
    assert "run: minimize dev.error_rate, loss: minimize dev.loss" in said
    monkeypatch.setattr(
        "s2s_search.report.contents.sections", None
    )  # it is said before the page is made
    with pytest.raises(ConfigError, match="cannot be written: No such file"):
        write_report([folder], tmp_path / "missing" / "page.html")


@pytest.mark.parametrize(
    "out, page",
    [
        ("folder", "folder/report.html"),
        ("rate-0.5", "rate-0.5.html"),
        ("page.html", "page.html"),
        ("page.md", "page.html"),
        (".", "report.html"),
    ],
)
def test_where_a_report_is_written(folder: Path, tmp_path: Path, out: str, page: str) -> None:
    (tmp_path / "folder").mkdir()
    written = write_report([folder], tmp_path / out)
    assert written == (
        tmp_path / page,
        (tmp_path / page).parent / f"{page.split('/')[-1].removesuffix('.html')}.md",
    )
    assert all(path.exists() for path in written)


def test_a_folder_is_named_by_a_slash(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is made where it is missing; a name without a slash is a file's."""
    for out, page in (("new/deep/", "new/deep/report.html"), ("rate-0.5/", "rate-0.5/report.html"),
                      ("new", "new/report.html"), ("x", "x.html")):  # fmt: skip
        assert main(["report", str(folder), "--out", f"{tmp_path}/{out}"]) == 0
        assert capsys.readouterr().out.splitlines()[0] == f"{tmp_path}/{page}"
        assert (tmp_path / page).exists()
    (tmp_path / "file").touch()
    assert main(["report", str(folder), "--out", f"{tmp_path}/file/"]) == 2
    assert f"{tmp_path}/file/: cannot be made" in capsys.readouterr().err
    for name in ("x" * 300, "x" * 253 + ".html"):
        assert main(["report", str(folder), "--out", f"{tmp_path}/{name}"]) == 2
        assert capsys.readouterr().err.endswith("cannot be written: File name too long\n")


def write_replicates(folder: Path, of: str, **changes: object) -> Path:
    """Writes a run with three seeds per configuration, whose log names the replicated run."""
    write_run(folder, trials=2, text=SPACE.replace("trials: 40", "trials: 2, replicates: 3"))
    lines = (folder / "events.jsonl").read_text().splitlines()
    search = json.loads(lines[0]) | {"replicates_of": of, "configs": []} | changes
    (folder / "events.jsonl").write_text("\n".join([json.dumps(search), *lines[1:]]) + "\n")
    return folder


def test_a_report_uses_the_replicates_beside_a_run(tmp_path: Path) -> None:
    """By their log, under any name; by their name, where the folders were moved; and no others."""
    run = write_run(tmp_path / "run", trials=6)
    alone = write_report([run])[1].read_text()
    assert "Each configuration ran with one seed" in alone
    write_replicates(tmp_path / "run-replicate", "/elsewhere/run")
    write_replicates(tmp_path / "run-replicates-loss", str(run), metric="dev.loss")
    write_replicates(
        tmp_path / "run-replicates-corpus",
        str(run),
        corpus={"name": "copy", "fingerprint": "1" * 64},
    )
    (tmp_path / "run-replicates-broken").mkdir()
    (tmp_path / "run-replicates-broken" / "events.jsonl").write_text("{")
    assert write_report([run])[1].read_text() == alone
    for name, of in (("by-its-log", str(run)), ("run-replicates-20260101", "/moved/run")):
        beside = write_replicates(tmp_path / name, of)
        (found,) = read_runs([run])
        assert found.replicates.equals(replicates(load(beside)))
        said = write_report([run])[1].read_text()
        assert (
            f"2 configurations ran again with other seeds, in `{name}` beside this run"
            in said.replace("\n", " ")
        )
        assert "with one seed" not in said
        shutil.rmtree(beside)


def test_other_dev_examples_are_not_ranked_together(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", trials=2)
    other = write_run(tmp_path / "corpus", trials=2)
    log = other / "events.jsonl"
    log.write_text(log.read_text().replace("0" * 64, "1" * 64, 1))
    part = SPACE.replace("parameters:", "parameters:\n  train.eval_examples: 5")
    some = write_run(tmp_path / "part", trials=2, text=part)
    with pytest.raises(ConfigError) as error:
        write_report([run, other, some])
    assert "corpus is of another corpus than" in str(error.value)
    assert "(train.eval_examples 0 against 5)" in str(error.value)
    with pytest.raises(ConfigError, match="of another corpus"):
        load_many([run, other])


def test_the_legend_counts_every_trial_that_has_a_curve(folder: Path) -> None:
    (run,) = read_runs([folder])
    best = run.numbers[run.scored.iloc[0]["trial"]]
    statuses = run.results.trials["status"].tolist()
    counts = run.results.trials[run.results.trials["step"].notna()]["status"].value_counts()
    figure = figures.learning_curves(run.results.curves(), statuses, best, [], run.metric)
    named = {trace.name for trace in figure.data if trace.name and "(" in trace.name}
    assert named == {f"{status} ({counts[status]})" for status in ("finished", "stopped")}
    alone = run.results.curves().iloc[:, [best]]
    figure = figures.learning_curves(alone, ["finished"], 0, [], run.metric)
    assert "finished (1)" in {trace.name for trace in figure.data}


def test_a_run_is_named_once(folder: Path) -> None:
    with pytest.raises(ConfigError, match="is named 2 times; a run counts once"):
        write_report([folder, folder / ".." / folder.name])


# --- the page ---


def test_nothing_in_a_run_is_markup(texts: tuple[str, str]) -> None:
    page = Page(texts[0])
    assert not any(
        "alert(1)" in text for attributes, text in page.scripts if not attributes.get("type")
    )
    assert "<b>no</b>" not in texts[0]
    for part in page.data():
        shown = (
            part["data"]
            if isinstance(part, dict) and "data" in part
            else part
            if isinstance(part, list)
            else []
        )
        for text in strings(shown):  # what plotly draws takes some tags
            assert not re.search("<(?!br>|b>trial-|/b>|/?extra>)", text), text
    assert r"\<script\>alert(1)\</script\>" in texts[1]
    rows = [line for line in texts[1].splitlines() if line.startswith("| 1 |")]
    assert rows


def test_the_page_asks_for_nothing(texts: tuple[str, str]) -> None:
    page = Page(texts[0])
    links = [a[name] for a in page.attributes for name in ("src", "href") if a.get(name)]
    assert links
    assert all(str(link).startswith(("#", "data:")) for link in links)
    assert len({a["id"] for a in page.attributes if a.get("id")}) == sum(
        1 for a in page.attributes if a.get("id")
    )


def test_every_colour_has_a_twin_for_a_dark_page(texts: tuple[str, str]) -> None:
    colours = {
        text
        for part in Page(texts[0]).data()
        if isinstance(part, dict) and "data" in part
        for text in strings(part)
        if re.fullmatch("#[0-9a-f]{6}", text)
    }
    assert len(colours) > 5
    assert colours <= set(figures.DARK)


def test_axes_are_logarithmic_where_the_space_is(folder: Path) -> None:
    (run,) = read_runs([folder])
    types = {axis.key: figures.axis_plot(axis, run.metric).layout.xaxis.type for axis in run.axes}
    assert [key for key, type_ in types.items() if type_ == "log"] == ["optimizer.learning_rate"]


def test_every_curve_is_drawn_once_with_its_number(folder: Path) -> None:
    (run,) = read_runs([folder])
    curves, statuses = run.results.curves(), run.results.trials["status"].tolist()
    figure = figures.learning_curves(curves, statuses, 3, [], run.metric)
    found: dict[int, dict[int, float]] = {}
    traces = [trace for trace in figure.data if trace.customdata]  # the others are the legend's
    for trace in traces:
        for number, x, y in zip(trace.customdata, trace.x, trace.y, strict=True):
            if x is not None:
                assert x not in found.setdefault(number, {})
                found[number][x] = y
    for number, trial in enumerate(curves):
        known = curves[trial].dropna()
        assert found.get(number, {}) == pytest.approx(known.to_dict(), rel=1e-4)
    for trace in traces:
        joined = zip(trace.customdata, trace.customdata[1:], trace.x, strict=False)
        assert all(a == b or x is None for a, b, x in joined)  # a gap between two curves


@pytest.mark.parametrize(
    "low, high", [(0.1, 2.0), (1e-6, 1.0), (3.0, 4.0), (1e-4, 3e-3), (7e-9, 5e5)]
)
def test_ticks_of_a_logarithmic_axis_are_few_and_inside(low: float, high: float) -> None:
    ticks = figures.log_ticks(low, high)
    assert all(low * 0.99 <= value <= high * 1.01 for value, _ in ticks)
    assert all(float(text) == pytest.approx(value, rel=0.01) for value, text in ticks)
    assert 2 <= len(ticks) <= 15


def test_text_and_tables_escape() -> None:
    assert (
        Text(f"a < b {code('<i>`x`')}").html()
        == "<p>a &lt; b <code>&lt;i&gt;&#x27;x&#x27;</code></p>"
    )
    table = Table(["a|b"], [["<i>\n*"]])
    assert "&lt;i&gt;\n*</td>" in table.html()
    assert table.markdown() == "| a\\|b |\n| --- |\n| \\<i\\> \\* |"


def test_code_below_a_list_is_no_part_of_it_and_figures_have_captions(
    texts: tuple[str, str],
) -> None:
    fence = Code("a\n```\nb").markdown().splitlines()
    assert fence == ["````", "a", "```", "b", "````"]
    assert not re.search("^- .*\n\n    ", texts[1], re.MULTILINE)
    assert "| hyperparameter | importance | by chance up to | p |" in texts[1]
    assert Figure(go.Figure(), "Drawn").markdown() == "Drawn"


def test_an_importance_that_is_not_known_is_a_dash(tmp_path: Path) -> None:
    """A key that takes part in no trial with a result."""
    folder = write_run(tmp_path / "run", text=SPACE.replace("trials: 40", "trials: 60"))
    log = folder / "events.jsonl"
    events = [json.loads(line) for line in log.read_text().splitlines()]
    without = {event["trial"] for event in events if "attention.dim" in event.get("settings", {})}
    kept = [event for event in events if event.get("trial") not in without or "rung" in event]
    kept = [event for event in kept if event["event"] != "decision"]
    log.write_text("".join(json.dumps(event) + "\n" for event in kept))
    _, markdown = write_report([folder])
    assert "| attention.dim | - | - | - |" in markdown.read_text()
    assert "NA\\>" not in markdown.read_text()


def test_it_is_written_without_ray_and_torch(folder: Path, tmp_path: Path) -> None:
    # SciPy looks into sys.modules["torch"], so a None there would break it.
    code = (
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name in ('ray', 'torch'): raise ImportError(name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        "from s2s_search.cli import main\n"
    )
    code += f"sys.exit(main(['report', {str(folder)!r}, '--out', {str(tmp_path / 'page.html')!r}]))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.split() == [str(tmp_path / "page.html"), str(tmp_path / "page.md")]


def test_sections_hold_for_a_running_search_and_for_goals_that_go_up(tmp_path: Path) -> None:
    folder = write_run(
        tmp_path / "run", text=SPACE.replace("dev.error_rate", "dev.bleu"), loss=lambda k, _: 1.0
    )
    for trial, bleu in (("trial-00000", 3.0), ("trial-00002", 7.0)):
        with EventLog(folder) as log:
            log.append(
                {
                    "event": "report",
                    "trial": trial,
                    "step": 900,
                    "dev.bleu": bleu,
                    "status": "running",
                }
            )
    (run,) = read_runs([folder])
    assert run.leads()["best"].tolist() == [3.0, 7.0, 7.0]
    assert "`trial-00002` is the best of 2 trials" in conclusions.winner(run)
    assert [section.title for section in sections([run])] == list(SECTIONS)
    assert isinstance(run.importance, pd.DataFrame)


@pytest.mark.parametrize(
    "name, lines",
    [
        ("dot", ["dot"]),
        ("BidirectionalRNNEncoder", ["Bidirectional", "RNNEncoder"]),
        ("exponential_decay", ["exponential_", "decay"]),
        ("<i>", ["&lt;i&gt;"]),
        ("averyveryverylongword", ["averyveryverylongword"]),
    ],
)
def test_long_names_below_an_axis_are_broken_between_words(name: str, lines: list[str]) -> None:
    assert figures._wrapped(name, 14) == "<br>".join(lines)
