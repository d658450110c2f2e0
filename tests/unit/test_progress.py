"""What the display says, on a terminal and elsewhere."""

import io
from typing import Any

import pytest
from rich.console import Console

from s2s_search.progress import Progress, Standing

SEARCH = {
    "event": "search",
    "time": 100.0,
    "name": "toy",
    "metric": "dev.loss",
    "goal": "minimize",
    "trials": 4,
}


def trial(k: int) -> dict[str, Any]:
    settings = {"encoder.type": "A", "optimizer.learning_rate": 0.0012345}
    config = settings | {"train.max_steps": 100}
    return {"event": "trial", "time": 100.0, "trial": f"trial-{k:05d}", "settings": settings, "config": config}


def report(k: int, step: int, loss: float | None) -> dict[str, Any]:
    return {"event": "report", "time": 110.0, "trial": f"trial-{k:05d}", "step": step, "dev.loss": loss}


def status(k: int | None, status: str, message: str | None = None) -> dict[str, Any]:
    trial = {} if k is None else {"trial": f"trial-{k:05d}", "message": message}
    return {"event": "status", "time": 130.0, "status": status, **trial}


class Screen:
    """A display with a clock that is set by hand, and what it wrote."""

    def __init__(self, terminal: bool, width: int = 100) -> None:
        self.now = 100.0
        self.file = io.StringIO()
        console = Console(file=self.file, force_terminal=terminal, width=width, _environ={})
        self.progress = Progress(console, clock=lambda: self.now)

    def show(self, *events: dict[str, Any], at: float | None = None) -> None:
        for event in events:
            self.now = at or self.now
            self.progress.show(event)

    @property
    def text(self) -> str:
        return self.file.getvalue()

    @property
    def view(self) -> str:
        console = Console(file=io.StringIO(), width=100)
        with console.capture() as captured:
            console.print(self.progress.view())
        return captured.get()


def test_counts_best_and_settings() -> None:
    standing = Standing(SEARCH)
    for event in [
        trial(0),
        trial(1),
        report(0, 50, 2.0),
        report(1, 50, 1.0),
        report(1, 100, 1.5),
        status(1, "finished"),
    ]:
        standing.add(event)
    assert standing.counts() == "1 running, 1 finished"
    assert standing.best == report(1, 50, 1.0)
    assert dict(standing.settings("trial-00001")) == {"encoder.type": "A", "optimizer.learning_rate": "0.001234"}


@pytest.mark.parametrize("goal, best", [("minimize", 1.0), ("maximize", 3.0)])
def test_best_follows_the_goal_and_passes_over_missing_values(goal: str, best: float) -> None:
    standing = Standing(SEARCH | {"goal": goal})
    standing.add(trial(0))
    for loss in (None, 2.0, 1.0, 3.0, None):
        standing.add(report(0, 1, loss))
    assert standing.best is not None
    assert standing.best["dev.loss"] == best


def test_time_left_counts_ended_trials_and_the_steps_of_running_ones() -> None:
    standing = Standing(SEARCH)
    assert standing.seconds_left(130.0) is None
    for event in [trial(0), status(0, "stopped"), trial(1), report(1, 50, 1.0), trial(2)]:
        standing.add(event)
    assert standing.seconds_left(130.0) == pytest.approx(30 * 2.5 / 1.5)


def test_lines_where_there_is_no_terminal() -> None:
    screen = Screen(terminal=False)
    screen.progress.note("starting Ray")
    screen.show(SEARCH, trial(0), trial(1), report(0, 50, 2.0), at=100.0)
    screen.show(status(0, "stopped"), status(1, "failed", "ValueError: [bold]no[/]"), at=101.0)
    assert screen.text.splitlines() == [
        "starting Ray",
        "[0:30] trial-00000 stopped dev.loss 2 at step 50: encoder.type A · optimizer.learning_rate 0.001234",
        "[0:30] trial-00001 failed: ValueError: [bold]no[/]",
    ]
    assert "\x1b" not in screen.text


def test_the_line_for_the_whole_comes_now_and_then() -> None:
    screen = Screen(terminal=False)
    screen.show(SEARCH, trial(0))
    for second in range(100, 125):
        screen.show(report(0, second - 75, 300.0 - second), at=float(second))
    lines = screen.text.splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("[0:20] 1 running of 4 · best dev.loss 180 at step 45 (trial-00000) · about ")


def test_the_last_line_says_how_the_search_ended() -> None:
    screen = Screen(terminal=False)
    screen.show(SEARCH, trial(0), status(None, "interrupted"), at=105.0)
    screen.progress.close()
    assert screen.text.splitlines()[-1] == "[0:05] interrupted · 1 running of 4"


def test_the_view_names_counts_best_failures_and_running_trials() -> None:
    screen = Screen(terminal=True)
    screen.show(SEARCH, trial(0), trial(1), trial(2), report(0, 50, 2.0), report(1, 25, 3.0), at=110.0)
    screen.show(status(2, "failed", "ValueError: no"))
    first, best, failed, *running = screen.view.splitlines()
    assert first == "toy · 4 trials: 2 running, 1 failed · 0:10, about 0:13 left"
    assert best == "best dev.loss 2 at step 50 trial-00000 · encoder.type A · optimizer.learning_rate 0.001234"
    assert failed == "failed trial-00002: ValueError: no"
    assert [line.split()[0] for line in running] == ["trial-00000", "trial-00001"]


def test_the_view_shows_a_few_running_trials_only() -> None:
    screen = Screen(terminal=True)
    screen.show(SEARCH, *map(trial, range(30)))
    assert screen.view.count("trial-") == 8
    assert "and 22 more" in screen.view


def test_the_live_view_is_drawn_a_few_times_a_second() -> None:
    screen = Screen(terminal=True)
    screen.show(SEARCH, trial(0))
    size = len(screen.text)
    for k in range(10):
        screen.show(report(0, k, 1.0), at=100.0 + k / 100)
    assert len(screen.text) == size
    screen.now = 101.0
    screen.progress.tick()
    assert "dev.loss 1 at step 9" in screen.text[size:]
    screen.progress.close()
    assert "\x1b[?25h" in screen.text  # the cursor is back


def test_durations_above_an_hour() -> None:
    screen = Screen(terminal=False)
    screen.show(SEARCH)
    screen.now += 3723
    screen.progress.close()
    assert screen.text == "[1:02:03] none started of 4\n"


def test_a_display_that_was_never_used_closes() -> None:
    screen = Screen(terminal=True)
    screen.progress.tick()
    screen.progress.close()
