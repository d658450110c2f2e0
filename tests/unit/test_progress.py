"""What the display says, on a terminal and elsewhere."""

import errno
import io
import signal
from typing import Any

import pytest
from rich.console import Console
from rich.text import Text

from s2s_search.display.progress import Progress
from s2s_search.display.standing import Standing
from s2s_search.display.view import BLOCKS, about, sparkline, view
from s2s_search.interrupts import Interrupt
from tests.terminal import Terminal
from tests.unit.test_standing import SEARCH, trial


def report(k: int, step: int, loss: float | None) -> dict[str, Any]:
    return {
        "event": "report",
        "time": 110.0,
        "trial": f"trial-{k:05d}",
        "step": step,
        "dev.loss": loss,
    }


def status(k: int | None, status: str, message: str | None = None) -> dict[str, Any]:
    trial = {} if k is None else {"trial": f"trial-{k:05d}"}
    return {"event": "status", "time": 130.0, "status": status, "message": message, **trial}


class Stream(io.StringIO):
    """A stream with an encoding."""

    def __init__(self, encoding: str) -> None:
        super().__init__()
        self._encoding = encoding

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding


class Screen:
    """A display with a clock that is set by hand, and what it wrote."""

    def __init__(
        self,
        live: bool,
        encoding: str = "utf-8",
        width: int = 100,
        height: int = 24,
        **environ: str,
    ) -> None:
        self.now = 100.0
        self.file = Stream(encoding)
        console = Console(
            file=self.file, force_terminal=live, width=width, height=height, _environ=environ
        )
        self.progress = Progress(console, clock=lambda: self.now)

    def show(self, *events: dict[str, Any], at: float | None = None) -> None:
        for event in events:
            self.now = at or self.now
            self.progress.show(event)

    @property
    def text(self) -> str:
        return self.file.getvalue()

    @property
    def view(self) -> list[str]:
        return [line.plain.rstrip() for line in self.progress.frame(99, 23)]


# --- lines ---


def test_lines_where_there_is_no_terminal() -> None:
    screen = Screen(live=False)
    screen.progress.note("starting Ray")
    screen.show(SEARCH, trial(0), trial(1), report(0, 50, 2.0), at=100.0)
    screen.show(status(0, "stopped"), status(1, "failed", "ValueError: [bold]no[/]"), at=101.0)
    assert screen.text.splitlines() == [
        "starting Ray",
        "[0:30] trial-00000 stopped dev.loss 2 at step 50: "
        "encoder.type A · optimizer.learning_rate 0.001234",
        "[0:30] trial-00001 failed: ValueError: [bold]no[/]",
    ]
    assert "\x1b" not in screen.text


@pytest.mark.parametrize("environ", [{"TERM": "dumb"}, {"NO_COLOR": "1"}], ids=str)
def test_lines_on_a_terminal_that_wants_no_more(environ: dict[str, str]) -> None:
    screen = Screen(live=True, **environ)
    screen.show(SEARCH, trial(0), status(0, "stopped"))
    screen.progress.close()
    assert len(screen.text.splitlines()) == 2
    assert "\x1b" not in screen.text


def test_the_line_for_the_whole_comes_now_and_then() -> None:
    screen = Screen(live=False)
    screen.show(SEARCH, trial(0))
    for second in range(100, 165):
        screen.show(report(0, second - 99, 300.0 - second), at=float(second))
    lines = screen.text.splitlines()
    assert len(lines) == 2
    assert lines[1].startswith(
        "[1:00] 4 trials: 1 running, 3 to start · best dev.loss 140 at step 61 (trial-00000) "
        "· about "
    )


def test_why_nothing_runs_is_a_line() -> None:
    screen = Screen(live=False)
    screen.show(SEARCH, {"event": "wait", "time": 107.0, "message": "waiting for a node"})
    assert screen.text == "[0:07] waiting for a node\n"


def test_the_last_line_says_how_the_search_ended_and_is_said_once() -> None:
    screen = Screen(live=False)
    screen.progress.recall([SEARCH, trial(0), status(None, "interrupted") | {"time": 105.0}])
    screen.progress.tick()
    screen.now = 400.0
    screen.progress.close()
    assert screen.text == "[0:05] interrupted · 4 trials: 1 running, 3 to start\n"


def test_lines_are_ascii_where_the_encoding_is() -> None:
    screen = Screen(live=False, encoding="ascii")
    screen.show(SEARCH, trial(0), report(0, 50, 2.0), status(0, "stopped"))
    assert screen.text.isascii()
    assert "encoder.type A - optimizer.learning_rate 0.001234" in screen.text


def test_durations_above_an_hour() -> None:
    screen = Screen(live=False)
    screen.show(SEARCH)
    screen.now += 3723
    screen.progress.close()
    assert screen.text == "[1:02:03] 4 trials: 4 to start\n"


ESTIMATES = [
    (7.4, "0:07"),
    (59.6, "1:00"),
    (64.0, "1:00"),
    (185.1, "3:10"),
    (629.0, "10:00"),
    (7000.0, "1:57:00"),
]


@pytest.mark.parametrize("seconds, words", ESTIMATES)
def test_estimates_are_no_more_exact_than_they_can_be(seconds: float, words: str) -> None:
    assert about(seconds) == f"about {words}"


# --- the view ---


def test_the_view_names_counts_best_failures_and_running_trials() -> None:
    screen = Screen(live=True)
    screen.show(
        SEARCH, trial(0), trial(1), trial(2), report(0, 50, 2.0), report(1, 25, 3.0), at=110.0
    )
    screen.show(status(2, "failed", "ValueError: no"), at=115.0)
    first, counts, best, settings, failed, empty, heading, *places = screen.view
    assert (
        first == "toy · 0:30, about 1:20 left"
    )  # 75 steps took 30 s; 50, 75, and at 3 in 4 odds 100 are left
    assert counts == "4 trials: 2 running, 1 to start, 1 failed"
    assert best == "best dev.loss 2, 0:05 ago · trial-00000 at step 50"
    assert settings == "     encoder.type A · optimizer.learning_rate 0.001234"
    assert failed == "1 failed (trial-00002): ValueError: no"
    assert empty == ""
    assert heading == "trial        dev.loss by steps, ▁ 2 to █ 3"
    names, curves, values, steps = zip(
        *(line.split(maxsplit=3) for line in places[:2]), strict=True
    )
    assert names == ("trial-00000", "trial-00001")
    assert [set(curve) for curve in curves] == [{"▁"}, {"█"}]
    assert len(curves[0]) // 2 in (len(curves[1]) - 1, len(curves[1]))
    assert values == ("2", "3")
    assert steps == ("50 of 100  best", "25 of 100")
    assert places[2].split(maxsplit=1) == ["trial-00002", "failed at 0"]
    assert len(places) == 3


def test_why_nothing_runs_is_in_the_view_in_full() -> None:
    screen = Screen(live=True)
    message = (
        "waiting: a trial needs 1 CPU and 0 GPU on one node; "
        + "0 CPU and 0 GPU of 2 CPU and 0 GPU are free"
    )
    screen.show(SEARCH, {"event": "wait", "time": 107.0, "message": message})
    assert " ".join(screen.view[2:]) == message


def test_failures_are_grouped_by_cause() -> None:
    screen = Screen(live=True)
    ends = [
        status(k, "failed", f"ValueError: {k}" if k < 5 else f"{chr(60 + k)}: no") for k in range(9)
    ]
    screen.show(SEARCH | {"trials": 99}, *map(trial, range(9)), *ends)
    assert screen.view[2:6] == [
        "5 failed (trial-00000 and 4 more): ValueError: 0",
        "1 failed (trial-00005): A: no",
        "1 failed (trial-00006): B: no",
        "and 2 other causes",
    ]


def test_the_view_of_a_search_that_has_ended() -> None:
    standing = Standing(SEARCH)
    for event in (trial(0), report(0, 50, 2.0), status(None, "failed", "Ray was lost")):
        standing.add(event)
    lines = [line.plain for line in view(standing, 79, 23, now=1e9)]
    assert lines[0] == "toy · 0:30, failed: Ray was lost"
    assert not any(line.startswith("trial-") for line in lines)


@pytest.mark.parametrize("width, height", [(79, 23), (59, 19), (199, 59), (59, 3)])
def test_the_view_fits_and_keeps_to_one_height(width: int, height: int) -> None:
    standing = Standing(SEARCH | {"trials": 1000, "name": "a_long_name_" * 9})
    standing.add({"event": "note", "message": "a note that is long\nand has lines " * 9})
    heights = set()
    for k in range(100):
        standing.add(trial(k))
        standing.add(report(k, 10 + k % 90, 1.5**-k))
        if k >= 12:
            standing.add(status(k - 12, "failed" if k % 2 else "stopped", f"{'no ' * 70}"))
            lines = view(standing, width, height, now=200.0)
            assert max(line.cell_len for line in lines) <= width
            assert not any("\n" in line.plain for line in lines)
            heights.add(len(lines))
    assert max(heights) <= height
    assert len(heights) <= 2  # of more than fit, a line says how many


@pytest.mark.parametrize("width, height", [(79, 23), (20, 5), (59, 2)])
def test_a_long_note_fits_too(width: int, height: int) -> None:
    screen = Screen(live=True)
    screen.progress.recall([SEARCH | {"trials": 30}, *map(trial, range(30))])
    for note in ("joining the cluster at " + "a-long-name." * 9, "and with\nlines " * 9):
        screen.progress.note(note)
        lines = screen.progress.frame(width, height)
        assert lines[-1].plain[:8] == note[:8]
        assert max(line.cell_len for line in lines) <= width
        assert not any("\n" in line.plain for line in lines)
        assert len(lines) <= height


def test_the_view_shows_as_many_running_trials_as_fit() -> None:
    screen = Screen(live=True)
    screen.show(SEARCH | {"trials": 30}, *map(trial, range(30)))
    shown = [line for line in screen.view if line.startswith("trial-")]
    assert len(screen.view) <= 23
    assert 10 < len(shown) < 30
    assert screen.view[-1] == f"and {30 - len(shown)} more running"


def test_trials_that_run_are_shown_where_nobody_takes_the_place_of_those_that_have_ended() -> None:
    screen = Screen(live=True)
    screen.show(
        SEARCH | {"trials": 30}, *map(trial, range(30)), *(status(k, "stopped") for k in range(28))
    )
    assert [line.split()[0] for line in screen.view[-2:]] == ["trial-00028", "trial-00029"]


@pytest.mark.parametrize(
    "k, style, word", [(0, "bold green", "best"), (1, "green", "ahead"), (2, "cyan", "")]
)
def test_a_curve_says_whether_it_leads(k: int, style: str, word: str) -> None:
    standing = Standing(SEARCH)
    curves = {0: [(10, 5.0), (20, 1.0)], 1: [(10, 4.0)], 2: [(10, 6.0)]}
    for number, curve in curves.items():
        standing.add(trial(number))
        for point in curve:
            standing.add(report(number, *point))
    line = view(standing, 99, 23, now=110.0)[-3 + k]
    assert (line.plain.split("100")[-1].strip(), line.spans[0].style) == (word, style)


def test_heights_are_measured_by_the_best_trial_too_when_it_has_ended() -> None:
    screen = Screen(live=True)
    best = (report(0, 10, 9.0), report(0, 20, 1.0), status(0, "finished"))
    screen.show(SEARCH, trial(0), *best, trial(1), report(1, 100, 3.0))
    assert screen.view[-2].endswith("▁ 1 to █ 9")
    assert set(screen.view[-1].split()[1]) == {"▅"}  # log 3 is half of log 9


# --- sparklines ---


def test_a_sparkline_is_as_long_as_the_trial_has_come() -> None:
    assert sparkline([(25, 1.0), (50, 1.0)], steps=100, cells=20, scale=(1.0, 2.0)) == "▁" * 10
    assert sparkline([(100, 1.0)], steps=100, cells=20, scale=(1.0, 2.0)) == "▁" * 20
    assert sparkline([], steps=100, cells=20, scale=(1.0, 2.0)) == ""
    assert sparkline([(1, 1.0)], steps=10**6, cells=20, scale=(1.0, 2.0)) == "▁"


@pytest.mark.parametrize("scale", [(-3.5, 3.5), (1.0, 2.0**7)])
def test_heights_of_a_sparkline_are_even_steps_of_values_or_of_their_logarithms(
    scale: tuple[float, float],
) -> None:
    values = [k - 3.5 for k in range(8)] if scale[0] < 0 else [2.0**k for k in range(8)]
    line = sparkline(
        [(k + 1, value) for k, value in enumerate(values)], steps=8, cells=8, scale=scale
    )
    assert line[0] == BLOCKS[0]
    assert line[-1] == BLOCKS[-1]
    assert line == "".join(sorted(line))
    assert len(set(line)) >= 7


def test_a_cell_shows_the_newest_value_at_its_end() -> None:
    curve = [(2, 1.0), (3, 8.0), (8, 1.0)]
    assert sparkline(curve, steps=8, cells=4, scale=(1.0, 8.0)) == "▁██▁"


def test_a_flat_curve_and_great_numbers() -> None:
    assert sparkline([(1, 5.0)], steps=1, cells=1, scale=(5.0, 5.0)) in BLOCKS
    assert sparkline([(1, 1e300)], steps=1, cells=1, scale=(-1e300, 1e300)) == "█"
    assert sparkline([(1, 2**61)], steps=1, cells=1, scale=(0, 2**61)) == "█"


def test_without_unicode_the_view_is_ascii_and_in_the_same_places() -> None:
    plain, blocks = Screen(live=True, encoding="latin-1"), Screen(live=True)
    for screen in (plain, blocks):
        screen.show(
            SEARCH | {"name": "toy" * 40},
            trial(0),
            *(report(0, k, 100.0 - k) for k in range(1, 60)),
        )
    assert all(line.isascii() for line in plain.view)
    assert [len(line) for line in plain.view] == [len(line) for line in blocks.view]
    assert len(set(plain.view[-1].split()[1])) >= 3


# --- drawing ---


def test_the_live_view_is_drawn_a_few_times_a_second() -> None:
    screen = Screen(live=True)
    screen.show(SEARCH, trial(0))
    size = len(screen.text)
    for k in range(10):
        screen.show(report(0, k + 1, 1.0), at=100.0 + k / 100)
    assert len(screen.text) == size
    screen.now = 101.0
    screen.progress.tick()
    assert "dev.loss 1, " in screen.text[size:]
    screen.progress.close()
    assert "\x1b[?25h" in screen.text  # the cursor is back


def test_a_frame_as_the_one_before_is_not_drawn() -> None:
    screen = Screen(live=True)
    screen.show(SEARCH, trial(0), status(None, "finished"))
    screen.now += 10
    screen.progress.tick()
    size = len(screen.text)
    screen.now += 10
    screen.progress.tick()
    assert len(screen.text) == size


def test_frames_stand_where_they_stood() -> None:
    screen, terminal = Screen(live=True, width=80, height=24), Terminal(80, 24)
    screen.progress.note("starting Ray")
    written, heights = 0, []
    events = [SEARCH | {"trials": 40}]
    for k in range(40):
        events += [trial(k), report(k, 30, 50.0 - k), report(k, 60, 2.0)]
        events += (
            [status(k - 3, "failed" if k % 9 == 0 else "stopped", "ValueError: no")]
            if k >= 3
            else []
        )
        events += (
            [{"event": "wait", "time": 120.0, "message": "waiting for a node"}] if k == 20 else []
        )
    for event in events:
        screen.now += 1
        screen.show(event)
        terminal.write(screen.text[written:])
        written = len(screen.text)
        assert terminal.screen[0].startswith("toy · ")  # the top has not moved
        assert not terminal.shows_cursor
        heights.append(len(terminal.rows))
    assert heights == sorted(heights)
    assert heights[-1] < 24
    screen.progress.close()
    terminal.write(screen.text[written:])
    assert terminal.shows_cursor
    assert terminal.screen[1].startswith("40 trials: 3 running, 4 failed, 33 stopped")


def test_what_goes_on_is_said_until_a_trial_starts_or_reports() -> None:
    screen = Screen(live=True)
    screen.progress.recall([SEARCH, trial(0), report(0, 10, 2.0)])
    screen.progress.note("starting Ray")
    screen.show(
        {"event": "resume", "time": 200.0, "trials": 4},
        {"event": "restart", "time": 200.0, "trial": "trial-00000", "cause": "lost"},
    )
    assert screen.view[-1] == "starting Ray"
    screen.show(report(0, 20, 1.0))
    assert "starting Ray" not in screen.view


def test_a_terminal_of_another_size_is_drawn_anew() -> None:
    screen = Screen(live=True)
    screen.show(SEARCH, trial(0))
    screen.progress.console.size = (60, 20)  # type: ignore[assignment]
    screen.show(report(0, 1, 1.0), at=101.0)
    assert "\x1b[2J" in screen.text


def test_a_display_that_was_never_used_closes() -> None:
    screen = Screen(live=True)
    screen.progress.tick()
    screen.progress.close()
    assert all(isinstance(line, Text) for line in screen.progress.frame(79, 23))


# --- a terminal that is gone, and clocks ---


class Closed(io.StringIO):
    """A terminal that closes: what is written to it fails from then on."""

    closed_at: int | None = None

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if self.closed_at is not None:
            raise OSError(errno.EIO, "Input/output error")
        return super().write(text)


@pytest.mark.parametrize("live", [True, False])
def test_a_search_goes_on_when_its_terminal_has_closed(live: bool) -> None:
    terminal = Closed()
    progress = Progress(
        Console(file=terminal, force_terminal=live, width=80, height=24, _environ={"TERM": "xterm"})
    )
    progress.show(SEARCH)
    progress.show(trial(0))
    assert terminal.getvalue() or not live
    terminal.closed_at = 1
    progress.show(status(0, "failed", "ValueError: no"))
    progress.note("something")
    progress.tick()
    progress.close()
    assert progress.standing is not None
    assert progress.standing.ends == {"trial-00000": "failed"}


def test_the_display_of_a_search_that_went_on_after_the_clock_was_set_back_counts_on() -> None:
    time = 50.0  # the log is of a clock that was 60 ahead
    progress = Progress(Console(file=io.StringIO(), width=80), clock=lambda: time)
    progress.recall([SEARCH | {"time": 100.0}, trial(0) | {"time": 110.0}])
    progress.show({"event": "resume", "trials": 4, "time": 110.0})
    assert progress.standing is not None
    time = 55.0
    assert progress.standing.elapsed(progress.clock()) == 15.0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_a_wish_until_a_good_moment(number: signal.Signals) -> None:
    before, interrupt = signal.getsignal(number), Interrupt()
    with interrupt:
        signal.raise_signal(number)
        with pytest.raises(KeyboardInterrupt):
            interrupt.check()
    assert signal.getsignal(number) is before


def test_under_nohup_a_hangup_stays_ignored() -> None:
    before, interrupt = signal.signal(signal.SIGHUP, signal.SIG_IGN), Interrupt()
    try:
        with interrupt:
            interrupt.listen()
            signal.raise_signal(signal.SIGHUP)
            interrupt.check()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
