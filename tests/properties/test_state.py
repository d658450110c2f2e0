"""The state of a search against plain recounts, over logs that are made at random.

A log is made as a search makes one: trials begin, report, pause, are lost, end; the search is killed
and resumed; pbt copies weights.
"""

import random
from collections import Counter
from itertools import pairwise
from typing import Any

import pandas as pd
import pytest

from s2s_search.display.standing import Standing
from s2s_search.runs.state import History
from s2s_search.runs.tables import tables_of
from s2s_search.statuses import ENDS

Row = dict[str, Any]
METRIC = "dev.loss"
SETTINGS = {"encoder.type": "UnidirectionalRNNEncoder"}


class Maker:
    """Makes the events of one search."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.time = 1000.0
        self.events: list[Row] = []
        self.steps: dict[str, int] = {}
        self.last: dict[str, int] = {}  # the newest step that was reported
        self.where: dict[str, str] = {}  # running, waiting or ended
        goal = self.random.choice(["minimize", "maximize"])
        searched = {"encoder.type": "string"}
        self.add("search", name="x", metric=METRIC, goal=goal, searched=searched, trials=6)

    def add(self, kind: str, **keys: object) -> None:
        self.time = round(self.time + self.random.choice([0.0, 0.001, 0.5, 60.0]), 3)
        self.events.append({"event": kind, "time": self.time, **keys})

    def chosen(self, where: str) -> str | None:
        names = [name for name in self.where if self.where[name] == where]
        return self.random.choice(names) if names else None

    def begin(self) -> None:
        name = f"trial-{len(self.where):05d}"
        if len(self.where) < 6:
            self.where[name], self.steps[name] = "running", 0
            self.add("trial", trial=name, settings=SETTINGS, config={"model": "BasicSeq2Seq"})

    def report(self) -> None:
        name = self.chosen("running")
        if name is None:
            return
        self.steps[name] += 10
        if self.steps[name] > self.last.get(name, -1) or self.random.random() < 0.5:
            self.last[name] = max(self.steps[name], self.last.get(name, -1))
            value = self.random.choice([None, 1.0, 2.0, self.random.random()])
            status = self.random.choice(["running"] * 5 + ["diverged"])
            self.add("report", trial=name, step=self.steps[name], status=status, **{METRIC: value})

    def lose(self) -> None:
        name = self.chosen("running")
        if name is not None:
            self.add("restart", trial=name, cause="lost")
            self.where[name], self.steps[name] = "waiting", max(self.steps[name] - 10, 0)

    def pause(self) -> None:
        name = self.chosen("running")
        if name is not None:
            self.add("pause", trial=name)
            self.where[name] = "waiting"

    def start(self) -> None:
        name = self.chosen("waiting")
        if name is not None:
            self.add("start", trial=name)
            self.where[name] = "running"

    def exploit(self) -> None:
        name = self.chosen("running")
        if name is not None:
            config = {"model": "BasicSeq2Seq"}
            self.add("exploit", trial=name, source=name, settings=SETTINGS, config=config)
            self.last.pop(name, None)
            self.steps[name] = self.random.choice(list(self.steps.values()))

    def end(self) -> None:
        name = self.chosen("running")
        if name is not None:
            self.add("status", trial=name, status=self.random.choice(ENDS), message=None)
            self.where[name] = "ended"

    def resume(self) -> None:
        """The driver was killed: nothing says so, but that the search is resumed later."""
        self.time += self.random.choice([10.0, 5000.0])
        self.add("resume", trials=6)
        for name in self.where:
            if self.where[name] == "running":
                self.add("restart", trial=name, cause="killed")
                self.where[name] = "waiting"


def made(seed: int) -> list[Row]:
    maker = Maker(seed)
    steps = [maker.begin, maker.report, maker.report, maker.report, maker.lose, maker.pause]
    steps += [maker.start, maker.start, maker.exploit, maker.end, maker.resume]
    for _ in range(80):
        maker.random.choice(steps)()
    return maker.events


def plain_news(events: list[Row], name: str) -> list[Row]:
    """The reports of a trial whose step is beyond all before it, counted anew after an exploit."""
    news: list[Row] = []
    reached = -1
    for event in events:
        if event.get("trial") != name:
            continue
        if event["event"] == "exploit":
            reached = -1
        if event["event"] == "report" and event["step"] > reached:
            reached = event["step"]
            news.append(event)
    return news


def plain_best(news: list[Row], goal: str) -> Row | None:
    measured = [e for e in news if e[METRIC] is not None and e["status"] != "diverged"]
    if not measured:
        return None
    return (min if goal == "minimize" else max)(measured, key=lambda event: event[METRIC])


def plain_elapsed(events: list[Row]) -> float:
    gaps = [b["time"] - a["time"] for a, b in pairwise(events) if b["event"] != "resume"]
    return float(sum(gaps))


def plain_workers(events: list[Row]) -> tuple[int, float]:
    """How many trials ran at once, at the most, and the seconds of all together."""
    running: set[str] = set()
    most, seconds = 1, 0.0
    for event, after in pairwise([*events, {"event": "", "time": events[-1]["time"]}]):
        if event["event"] in ("trial", "start"):
            running.add(event["trial"])
        elif event["event"] in ("status", "pause", "restart"):
            running.discard(event["trial"])
        elif event["event"] == "resume":
            running.clear()
        most = max(most, len(running))
        if after["event"] != "resume":
            seconds += len(running) * (after["time"] - event["time"])
    return most, seconds


@pytest.mark.parametrize("seed", range(150))
def test_the_state_is_a_plain_recount(seed: int) -> None:
    events = made(seed)
    goal = events[0]["goal"]
    history = History(events)
    names = [event["trial"] for event in events if event["event"] == "trial"]
    assert list(history.trials) == names
    for name, trial in history.trials.items():
        news = plain_news(events, name)
        assert [event for event, _ in trial.news] == news
        assert trial.best == plain_best(news, goal)
        own = [event for event in events if event.get("trial") == name]
        assert trial.losses == sum(e["event"] == "restart" and e["cause"] == "lost" for e in own)
        ends = [event for event in own if event["event"] in ("status", "restart")]
        ended = ends[-1]["status"] if ends and ends[-1]["event"] == "status" else "running"
        assert trial.status == ended
    assert history.elapsed == pytest.approx(plain_elapsed(events), abs=1e-6)
    most, seconds = plain_workers(events)
    assert history.workers == most
    assert history.busy == pytest.approx(seconds, abs=1e-6)


@pytest.mark.parametrize("seed", range(150))
def test_tables_and_display_show_the_state(seed: int) -> None:
    events = made(seed)
    history = History(events)
    tables = tables_of(history, ())
    standing = Standing(events[0])
    for event in events[1:]:
        standing.add(event)
    statuses = Counter(trial.status for trial in history.trials.values())
    assert Counter(tables.trials["status"]) == statuses
    assert {status: n for status, n in standing.ended.items() if n} == {
        status: n for status, n in statuses.items() if status != "running"
    }
    assert len(tables.reports) == len(history.news)
    assert standing.best == history.best
    assert standing.elapsed(history.now) == pytest.approx(history.elapsed)
    bests = dict(zip(tables.trials["trial"], tables.trials[f"best.{METRIC}"], strict=True))
    for name, trial in history.trials.items():
        if trial.best is None:
            assert pd.isna(bests[name])
        else:
            assert bests[name] == trial.best[METRIC]
