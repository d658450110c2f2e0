"""The terminal of a running search: its display, and Ctrl-C.

The display is a reader of the search's events. On a terminal it is a live view; elsewhere plain lines, one for each
trial's end and now and then one for the whole.
"""

import json
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import FrameType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from s2s_search.failures import FAILURES, LOST

SECONDS_BETWEEN_FRAMES = 0.25
SECONDS_BETWEEN_LINES = 10.0
TRIALS_SHOWN = 8
SIGNALS = (signal.SIGINT, signal.SIGTERM)  # the latter is the notice of Slurm and Kubernetes
ENDS = ("finished", "stopped", "diverged", "failed", "out_of_memory", "lost")
STYLES = {"finished": "green", "stopped": "yellow", "diverged": "magenta", "running": "cyan"}
STYLES |= dict.fromkeys(("failed", "out_of_memory", "lost"), "bold red")

Event = Mapping[str, Any]


class Standing:
    """What the events so far say about a search: how many trials are where, which is best, how long it will take."""

    def __init__(self, search: Event) -> None:
        self.name: str = search["name"]
        self.metric: str = search["metric"]
        self.minimize = search["goal"] == "minimize"
        self.trials: int = search["trials"]
        self.began: float = search["time"]
        self.started: dict[str, Event] = {}  # the trial events
        self.running: dict[str, Event] = {}  # the newest reports of the running trials
        self.ends: dict[str, str] = {}  # the statuses of those that have ended
        self.ended: Counter[str] = Counter()
        self.restarts = 0
        self.note = ""  # the newest
        self.now = self.began
        self.best: Event | None = None  # a report
        self.failure: Event | None = None  # the newest
        self.status = "running"

    def add(self, event: Event) -> None:
        """Takes in an event that follows the search event."""
        kind, trial = event["event"], event.get("trial", "")
        if kind == "trial":
            self.started[trial], self.running[trial] = event, {}
        elif kind == "report":
            self.running[trial] = event
            if self.is_better(event):
                self.best = event
        elif kind == "status" and trial:
            self.running.pop(trial, None)
            self._end(trial, event["status"])
            self.failure = event if event["status"] in FAILURES else self.failure
        elif kind == "restart" and trial in self.started:
            self.running.setdefault(trial, {})
            self._end(trial, None)
            self.restarts += 1
        elif kind == "note":
            self.note = event["message"]
        elif kind == "resume":
            self.trials, self.status = event["trials"], "running"
            self.began += event["time"] - self.now  # nothing ran in the meantime
        elif kind == "status":
            self.status = event["status"]
        self.now = event.get("time", self.now)

    def _end(self, trial: str, status: str | None) -> None:
        """Counts a trial's end; without a status, its beginning again."""
        if before := self.ends.pop(trial, None):
            self.ended[before] -= 1
        if status is not None:
            self.ends[trial] = status
            self.ended[status] += 1

    def is_better(self, report: Event) -> bool:
        """Says whether a report beats the best so far."""
        value = report.get(self.metric)
        if value is None or report.get("status") == "diverged":
            return False
        best = None if self.best is None else self.best[self.metric]
        return best is None or (value < best if self.minimize else value > best)

    def settings(self, trial: str) -> Iterator[tuple[str, str]]:
        """The searched hyperparameters that are active in a trial, with their values as text."""
        for key, value in self.started[trial]["settings"].items():
            yield key, _shown(value)

    def share(self, trial: str) -> float:
        """How much of a running trial's steps are done."""
        steps = self.started[trial]["config"].get("train.max_steps") or 0
        return min(self.running[trial].get("step", 0) / steps, 1.0) if steps else 0.0

    def seconds_left(self, now: float) -> float | None:
        """An estimate: the trials still to do take as long as those done, running ones counted by their steps."""
        done = self.ended.total() + sum(map(self.share, self.running))
        return (now - self.began) * (self.trials - done) / done if done > 0 else None

    def counts(self) -> str:
        """The numbers in words: "2 running, 3 stopped of 16"."""
        numbers = {"running": len(self.running)} | {status: self.ended[status] for status in ENDS}
        numbers["restarts"] = self.restarts
        return ", ".join(f"{n} {status.replace('_', ' ')}" for status, n in numbers.items() if n) or "none started"


class Progress:
    """Shows a search from its events on a console, by default that of standard error.

    `show` takes every event as it is logged; `tick` is called often and redraws the live view when it is time;
    `close` leaves the last view standing.
    """

    def __init__(self, console: Console | None = None, clock: Callable[[], float] = time.time) -> None:
        self.console = console or Console(stderr=True)
        self.clock = clock
        self.standing: Standing | None = None
        self._live: Live | None = None
        self._note = ""
        self._drawn = self._said = 0.0

    def note(self, text: str) -> None:
        """Shows what is going on before the first trial starts."""
        self._note = text
        if self.console.is_terminal:
            self._draw()
        else:
            self._print(text)

    def show(self, event: Event) -> None:
        """Takes in an event."""
        if event["event"] == "search":
            self.standing = Standing(event)
            self._said = self.clock()
        elif self.standing is not None:
            if not self.console.is_terminal:
                self._print_event(self.standing, event)
            self.standing.add(event)
        self.tick()

    def recall(self, events: Iterable[Event]) -> None:
        """Takes in the events of a search that goes on, without showing each."""
        for event in events:
            if event["event"] == "search":
                self.standing = Standing(event)
            elif self.standing is not None:
                self.standing.add(event)
        self._said = self.clock()

    def tick(self) -> None:
        """Redraws the view, or prints a line, when that has not been done for a while."""
        now = self.clock()
        if self.console.is_terminal and now - self._drawn >= SECONDS_BETWEEN_FRAMES:
            self._draw()
        elif not self.console.is_terminal and self.standing and now - self._said >= SECONDS_BETWEEN_LINES:
            self._print_standing(self.standing)

    def close(self) -> None:
        """Draws the view a last time and lets go of the terminal."""
        if self._live is not None:
            self._note = ""
            self._draw()
            self._live.stop()
            self._live = None
        elif self.standing is not None:
            self._print_standing(self.standing)

    # --- lines ---

    def _print(self, text: str) -> None:
        self.console.print(text, soft_wrap=True, markup=False, highlight=False)

    def _print_event(self, standing: Standing, event: Event) -> None:
        kind, elapsed = event["event"], _duration(event.get("time", self.clock()) - standing.began)
        if kind == "status" and "trial" in event:
            self._print_end(standing, event)
        elif kind == "restart" and event["cause"] == LOST:
            self._print(f"[{elapsed}] {event['trial']} lost its worker and goes on: {event.get('message') or ''}")
        elif kind == "note":
            self._print(f"[{elapsed}] {event['message']}")

    def _print_end(self, standing: Standing, event: Event) -> None:
        trial, elapsed = event["trial"], _duration(event["time"] - standing.began)
        number = _number(standing.metric, standing.running.get(trial, {}))
        what = event.get("message") or " · ".join(f"{key} {value}" for key, value in standing.settings(trial))
        self._print(f"[{elapsed}] {trial} {event['status']}{number}: {what}")

    def _print_standing(self, standing: Standing) -> None:
        self._said = now = self.clock()
        left = standing.seconds_left(now)
        parts = [f"{standing.counts()} of {standing.trials}"]
        if standing.status != "running":
            parts.insert(0, standing.status)
        if standing.best is not None:
            parts.append(f"best{_number(standing.metric, standing.best)} ({standing.best['trial']})")
        if left and standing.status == "running":
            parts.append(f"about {_duration(left)} left")
        self._print(f"[{_duration(now - standing.began)}] " + " · ".join(parts))

    # --- the live view ---

    def _draw(self) -> None:
        self._drawn = self.clock()
        if self._live is None:
            self._live = Live(console=self.console, auto_refresh=False, redirect_stdout=False)
            self._live.start()
        self._live.update(self.view(), refresh=True)

    def view(self) -> Group:
        """The live view: a line for the search, the best trial, and a line for each of a few running ones."""
        if self.standing is None:
            return Group(Text(self._note, style="dim"))
        lines: list[Text | Table] = [self._headline(self.standing)]
        if not any(self.standing.running.values()) and self._note:
            lines.append(Text(self._note, style="dim"))
        if self.standing.note:
            lines.append(Text.assemble(("note", STYLES["stopped"]), f" {self.standing.note}"))
        if self.standing.best is not None:
            lines.append(_best(self.standing, self.standing.best))
        if self.standing.failure is not None:
            lines.append(_failure(self.standing.failure))
        if self.standing.running and self.standing.status == "running":
            lines.append(_running(self.standing))
        return Group(*lines)

    def _headline(self, standing: Standing) -> Text:
        now = self.clock()
        line = Text.assemble((standing.name, "bold"), f" · {standing.trials} trials: {standing.counts()}")
        line.append(f" · {_duration(now - standing.began)}")
        if standing.status != "running":
            line.append(f", {standing.status}")
        elif left := standing.seconds_left(now):
            line.append(f", about {_duration(left)} left")
        for status, style in STYLES.items():
            line.highlight_regex(rf"\d+ {status}", style)
        return line


def _best(standing: Standing, best: Event) -> Text:
    line = Text.assemble(("best", "bold green"), _number(standing.metric, best), (f" {best['trial']}", "bold"))
    for key, value in standing.settings(best["trial"]):
        line.append(f" · {key} ", "dim").append(value)
    return line


def _failure(failure: Event) -> Text:
    return Text.assemble(("failed", STYLES["failed"]), f" {failure['trial']}: {failure.get('message') or ''}")


def _running(standing: Standing) -> Table:
    table = Table.grid(padding=(0, 2))
    for trial, report in list(standing.running.items())[:TRIALS_SHOWN]:
        bar = ProgressBar(total=1.0, completed=standing.share(trial), width=24)
        table.add_row(Text(trial, style="cyan"), bar, Text(_number(standing.metric, report).strip() or "starting"))
    if (more := len(standing.running) - TRIALS_SHOWN) > 0:
        table.add_row(Text(f"and {more} more", style="dim"))
    return table


def _number(metric: str, event: Event) -> str:
    value, step = event.get(metric), event.get("step")
    at = "" if step is None else f" at step {step}"
    return f" {metric} {value:.4g}{at}" if value is not None else at


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return json.dumps(value) if isinstance(value, dict) or value == "" else str(value)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(max(round(seconds), 0), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Interrupt:
    """Makes of Ctrl-C, or a SIGTERM, a wish that `check` grants at a good moment, and of a second an order.

    Either raises KeyboardInterrupt, once: from then on, or after `hold`, what is being written is not disturbed.
    """

    def __init__(self) -> None:
        self.wanted = self.held = False

    def __enter__(self) -> None:
        self._in_main_thread = threading.current_thread() is threading.main_thread()
        self._before = self.listen()

    def listen(self) -> dict[signal.Signals, Any]:
        """Takes the signals over, also from Ray, which takes SIGTERM when it starts; gives their handlers."""
        return {number: signal.signal(number, self._on_signal) for number in SIGNALS if self._in_main_thread}

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler or signal.SIG_DFL)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        again, self.wanted = self.wanted, True
        if again:
            self.check()

    def check(self) -> None:
        """Raises KeyboardInterrupt when there was a signal."""
        if self.wanted and not self.held:
            self.hold()
            raise KeyboardInterrupt

    def hold(self) -> None:
        self.held = True
