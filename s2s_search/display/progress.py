"""The display of a search, made from its events.

On a terminal the display is a live view. Elsewhere, and where TERM is dumb or NO_COLOR is set, it
prints plain lines: one at the end of each trial, and one for the whole search every half minute.
"""

import contextlib
import io
from collections.abc import Callable, Iterable, Iterator

from rich.console import Group
from rich.live import Live
from rich.text import Text

from s2s_search.display.console import Console
from s2s_search.display.standing import Standing
from s2s_search.display.view import (
    TO_ASCII,
    about,
    counts_text,
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

    `show` takes each event when it is logged. `tick` is called often, and redraws the view when it
    is due. `close` draws the last view and leaves it on the terminal. All calls come from one
    thread: in a search the main thread of the driver.
    """

    def __init__(self, console: Console | None = None, clock: Callable[[], float] = now) -> None:
        self.console = console or Console(stderr=True)
        self._own_clock = clock
        self._ahead = 0.0  # how far the clock of the events is ahead of ours, in seconds
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
        self._note = ""
        self._line = ""  # the newest line about the whole search
        self._drawn = 0.0  # when the view was last drawn
        self._said = 0.0  # when a line about the whole search was last printed

    def clock(self) -> float:
        """Returns the seconds since 1970 by the clock of the events.

        That clock is ahead of ours if ours was set back since.
        """
        return self._own_clock() + self._ahead

    def note(self, text: str) -> None:
        """Shows a text until the next trial starts or reports."""
        self._note = text
        if self.is_live:
            self._draw()
        else:
            self._print(text)

    def show(self, event: Event) -> None:
        """Takes an event and shows it."""
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
        """Takes the earlier events of a resumed or watched search, and prints none of them."""
        for event in events:
            if event["event"] == "search":
                self.standing = Standing(event)
            elif self.standing is not None:
                self.standing.add(event)
        if self.standing is not None:
            self._ahead = max(self.standing.history.now - self._own_clock(), 0.0)
        self._said = 0.0

    def tick(self) -> None:
        """Redraws the view or prints a line, if that is due."""
        time = self._own_clock()
        if self.is_live and time - self._drawn >= SECONDS_BETWEEN_FRAMES:
            self._draw()
        elif not self.is_live and self.standing and time - self._said >= SECONDS_BETWEEN_LINES:
            self._print_standing(self.standing)

    def close(self) -> None:
        """Draws the view a last time, and releases the terminal."""
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
        """Lets the search run on when its terminal or the reader of its pipe is gone.

        From then on nothing is shown.
        """
        try:
            yield
        except OSError:
            self.console = Console(file=io.StringIO(), quiet=True)
            self.is_live = False
            self._live = None

    # --- lines ---

    def _print(self, text: str) -> None:
        text = text.translate(TO_ASCII) if self._in_ascii else text
        with self._terminal():
            self.console.print(text, soft_wrap=True, markup=False, highlight=False)

    def _print_event(self, standing: Standing, event: Event) -> None:
        kind = event["event"]
        elapsed = self._elapsed(standing, event)
        if kind == "status" and "trial" in event:
            self._print_end(standing, event)
        elif kind == "restart" and event["cause"] == LOST:
            message = event.get("message") or ""
            self._print(f"[{elapsed}] {event['trial']} lost its worker and restarts: {message}")
        elif kind in ("note", "wait"):
            self._print(f"[{elapsed}] {event['message']}")

    def _elapsed(self, standing: Standing, event: Event) -> str:
        return duration(event.get("time", self.clock()) - standing.history.began)

    def _print_end(self, standing: Standing, event: Event) -> None:
        trial = event["trial"]
        elapsed = self._elapsed(standing, event)
        past = standing.history.trials.get(trial)
        last = None if past is None else past.last
        reached = value_text(standing.metric, last or {})
        what = event.get("message") or settings_text(standing.settings(trial))
        self._print(f"[{elapsed}] {trial} {event['status']}{reached}: {what}")

    def _print_standing(self, standing: Standing) -> None:
        self._said = self._own_clock()
        time = self.clock()
        parts = [counts_text(standing)]
        if standing.status != "running":
            parts.insert(0, standing.status)
        if standing.best is not None:
            value = value_text(standing.metric, standing.best)
            parts.append(f"best{value} ({standing.best['trial']})")
        left = standing.seconds_left(time)
        if left:
            parts.append(f"{about(left)} left")
        line = f"[{duration(standing.elapsed(time))}] " + " · ".join(parts)
        if line != self._line:
            self._print(line)
        self._line = line

    # --- the live view ---

    def frame(self, width: int, height: int) -> list[Text]:
        """Returns at most `height` lines of the live view, of at most `width` cells each."""
        note: list[Text] = []
        waits = self.standing is not None and self.standing.waiting
        if self._note and not waits:
            note.append(cut(Text(self._note, style="dim"), width))
        lines: list[Text] = []
        if self.standing is not None:
            lines = view(self.standing, width, height - len(note), self.clock())
        lines += note
        if self._in_ascii:
            to_ascii(lines)
        return lines

    def _draw(self, last: bool = False) -> None:
        """Draws a frame, if it differs from the one before.

        A frame other than the last gets no fewer lines than the one before, so that nothing jumps.
        """
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
        """Starts the live view, for the first time or because the terminal's size has changed.

        A new size breaks the lines that were drawn, so the terminal is cleared.
        """
        if self._live is not None:
            self._live.stop()
            self.console.clear()
        self._size, self._frame = size, []
        self._live = Live(console=self.console, auto_refresh=False, redirect_stdout=False)
        self._live.start()


def _can_show(console: Console) -> bool:
    """Returns whether the encoding of a console has the characters of the view."""
    try:
        "".join(map(chr, TO_ASCII)).encode(console.encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True
