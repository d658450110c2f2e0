"""The terminal of a running search: its display, and Ctrl-C.

The display is a reader of the search's events. On a terminal it is a live view; elsewhere, and where TERM is dumb or
NO_COLOR is set, plain lines: one for each trial's end and now and then one for the whole.
"""

import contextlib
import io
from collections.abc import Callable, Iterable, Iterator

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from s2s_search.display.standing import Standing
from s2s_search.display.view import (
    TO_ASCII,
    about,
    cut,
    duration,
    settings_text,
    to_ascii,
    value_text,
    view,
)
from s2s_search.runs.events import Event
from s2s_search.runs.log import now
from s2s_search.statuses import LOST

SECONDS_BETWEEN_FRAMES = 0.25
SECONDS_BETWEEN_LINES = 30.0


class Progress:
    """Shows a search from its events on a console, by default that of standard error.

    `show` takes every event as it is logged; `tick` is called often and redraws the live view when it is time;
    `close` leaves the last view standing.
    """

    def __init__(self, console: Console | None = None, clock: Callable[[], float] = now) -> None:
        self.console = console or Console(stderr=True)
        self._own_clock, self._ahead = clock, 0.0
        self.standing: Standing | None = None
        self.is_live = (
            self.console.is_terminal
            and not self.console.is_dumb_terminal
            and not self.console.no_color
        )
        self._in_ascii = not _can_show(self.console)
        self._live: Live | None = None
        self._frame: list[Text] = []
        self._size = (0, 0)
        self._note = self._line = ""
        self._drawn = self._said = 0.0

    def clock(self) -> float:
        """Returns the seconds since 1970 by the clock of the events, which may be ahead: ours was set back since."""
        return self._own_clock() + self._ahead

    def note(self, text: str) -> None:
        """Shows what is going on until a trial starts or reports."""
        self._note = text
        if self.is_live:
            self._draw()
        else:
            self._print(text)

    def show(self, event: Event) -> None:
        """Takes in an event."""
        if event["event"] == "search":
            self.standing = Standing(event)
            self._said = self._own_clock()
        elif self.standing is not None:
            if not self.is_live:
                self._print_event(self.standing, event)
            self.standing.add(event)
            self._note = "" if event["event"] in ("trial", "report") else self._note
        self.tick()

    def recall(self, events: Iterable[Event]) -> None:
        """Takes in the events of a search that goes on, without showing each."""
        for event in events:
            if event["event"] == "search":
                self.standing = Standing(event)
            elif self.standing is not None:
                self.standing.add(event)
        if self.standing is not None:
            self._ahead = max(self.standing.now - self._own_clock(), 0.0)
        self._said = 0.0

    def tick(self) -> None:
        """Redraws the view, or prints a line, when that has not been done for a while."""
        time = self._own_clock()
        if self.is_live and time - self._drawn >= SECONDS_BETWEEN_FRAMES:
            self._draw()
        elif not self.is_live and self.standing and time - self._said >= SECONDS_BETWEEN_LINES:
            self._print_standing(self.standing)

    def close(self) -> None:
        """Draws the view a last time and lets go of the terminal."""
        if self._live is not None:
            self._note = ""
            self._draw(last=True)
            with self._terminal():
                if self._live is not None:
                    self._live.stop()
            self._live = None
        elif self.standing is not None:
            self._print_standing(self.standing)

    @contextlib.contextmanager
    def _terminal(self) -> Iterator[None]:
        """Lets a search go on when its terminal is gone: from then on nothing is shown."""
        try:
            yield
        except OSError:
            self.console, self.is_live, self._live = (
                Console(file=io.StringIO(), quiet=True),
                False,
                None,
            )

    # --- lines ---

    def _print(self, text: str) -> None:
        text = text.translate(TO_ASCII) if self._in_ascii else text
        with self._terminal():
            self.console.print(text, soft_wrap=True, markup=False, highlight=False)

    def _print_event(self, standing: Standing, event: Event) -> None:
        kind, elapsed = event["event"], duration(event.get("time", self.clock()) - standing.began)
        if kind == "status" and "trial" in event:
            self._print_end(standing, event)
        elif kind == "restart" and event["cause"] == LOST:
            self._print(
                f"[{elapsed}] {event['trial']} lost its worker and goes on: {event.get('message') or ''}"
            )
        elif kind in ("note", "wait"):
            self._print(f"[{elapsed}] {event['message']}")

    def _print_end(self, standing: Standing, event: Event) -> None:
        trial, elapsed = event["trial"], duration(event["time"] - standing.began)
        reached = value_text(standing.metric, standing.newest.get(trial, {}))
        what = event.get("message") or settings_text(standing.settings(trial))
        self._print(f"[{elapsed}] {trial} {event['status']}{reached}: {what}")

    def _print_standing(self, standing: Standing) -> None:
        self._said, time = self._own_clock(), self.clock()
        parts = [f"{standing.trials:,} trials: {standing.counts()}"]
        if standing.status != "running":
            parts.insert(0, standing.status)
        if standing.best is not None:
            parts.append(
                f"best{value_text(standing.metric, standing.best)} ({standing.best['trial']})"
            )
        if left := standing.seconds_left(time):
            parts.append(f"{about(left)} left")
        line = f"[{duration(standing.elapsed(time))}] " + " · ".join(parts)
        if line != self._line:
            self._print(line)
        self._line = line

    # --- the live view ---

    def frame(self, width: int, height: int) -> list[Text]:
        """The lines of the live view, each of at most `width` cells, and at most `height` of them."""
        lines, waits = list[Text](), self.standing is not None and self.standing.waiting
        note = [] if waits or not self._note else [cut(Text(self._note, style="dim"), width)]
        if self.standing is not None:
            lines = view(self.standing, width, height - len(note), self.clock())
        lines += note
        if self._in_ascii:
            to_ascii(lines)
        return lines

    def _draw(self, last: bool = False) -> None:
        """Draws a frame that differs from the one before; until the last it is never lower, so that nothing jumps."""
        self._drawn = self._own_clock()
        width, height = self.console.size
        lines = self.frame(width - 1, height - 1)
        with self._terminal():
            if (width, height) != self._size:
                self._begin((width, height))
            if not last:
                lines += [Text()] * (len(self._frame) - len(lines))
            if lines != self._frame and self._live is not None:
                self._live.update(Group(*lines), refresh=True)
        self._frame = lines

    def _begin(self, size: tuple[int, int]) -> None:
        """Takes the terminal, or takes it anew where its size has changed: lines have been broken that were drawn."""
        if self._live is not None:
            self._live.stop()
            self.console.clear()
        self._size, self._frame = size, []
        self._live = Live(console=self.console, auto_refresh=False, redirect_stdout=False)
        self._live.start()


def _can_show(console: Console) -> bool:
    """Says whether the encoding of a console has the characters of the view."""
    try:
        "".join(map(chr, TO_ASCII)).encode(console.encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True
