"""The live view of a search: its standing as lines of text, for a terminal of a given size."""

import json
import math
import textwrap
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence

from rich.text import Text

from s2s_search.display.standing import Points, Standing
from s2s_search.errors import quantity
from s2s_search.runs.events import Event
from s2s_search.statuses import COMPLETE

BLOCKS = "▁▂▃▄▅▆▇█"
# For a terminal whose encoding has no blocks.
TO_ASCII = str.maketrans(BLOCKS + "·…", "__..--''-.")
STYLES = {"stopped": "yellow", "diverged": "magenta", "running": "cyan"}
STYLES |= dict.fromkeys(COMPLETE, "green")
STYLES |= dict.fromkeys(("failed", "out of memory", "lost"), "bold red")
CAUSES_SHOWN = 3
WIDEST_CURVE = 72  # the most cells that a curve takes
LONGEST = 10**9  # the longest duration that is shown, in seconds
# Cells of a trial's line besides its curve and its numbers of steps.
MARGIN = len("trial-00000    starting   of   ahead")


def view(standing: Standing, width: int, height: int, now: float) -> list[Text]:
    """Returns at most `height` lines of at most `width` cells each.

    The lines show, in this order: the search and its counts; the best trial; failures by cause; why
    nothing runs; the newest note; and while the search runs, each place where a trial runs.

    Args:
        standing: where the search stands.
        width: the number of cells in a line.
        height: the number of lines.
        now: the time by the clock of the events, in seconds since 1970.
    """
    lines = [
        _headline(standing, now),
        _counts(standing),
        *_best(standing, now),
        *_failures(standing),
    ]
    note = f"note: {standing.note}" if standing.note else ""
    for name, text in (("waiting", standing.waiting), ("note", note)):
        for part in textwrap.wrap(text, width, max_lines=2, placeholder="…"):
            lines.append(Text(part))
            lines[-1].highlight_regex(f"^{name}", STYLES["stopped"])
    lines = lines[:height]
    room = height - len(lines) - 3  # besides a blank line, the heading and a line for hidden trials
    if standing.status == "running" and standing.places and room > 0:
        lines += [Text(), *_trials(standing, width, room)]
    return [cut(line, width) for line in lines]


def cut(line: Text, width: int) -> Text:
    """Cuts a text, in place, to one line of at most `width` cells, and returns it."""
    line.plain = line.plain.replace("\n", " ")
    line.truncate(width, overflow="ellipsis")
    return line


def _headline(standing: Standing, now: float) -> Text:
    line = Text.assemble((standing.name, "bold"), f" · {duration(standing.elapsed(now))}")
    if standing.status != "running":
        line.append(f", {standing.status}", "bold")
        return line.append(f": {standing.message}" if standing.message else "")
    left = standing.seconds_left(now)
    return line.append(f", {about(left)} left" if left else "")


def _counts(standing: Standing) -> Text:
    line = Text(counts_text(standing))
    for status, style in STYLES.items():
        line.highlight_regex(rf"[\d,]*\d {status}", style)
    return line


def _best(standing: Standing, now: float) -> Iterator[Text]:
    if standing.best is None:
        return
    line = Text.assemble(
        ("best ", "bold green"), f"{standing.metric} {standing.best[standing.metric]:.4g}"
    )
    if standing.status == "running" and "time" in standing.best:
        line.append(f", {duration(now - standing.best['time'])} ago")
    line.append(" · ").append(standing.best["trial"], "bold")
    line.append(f" at step {standing.best['step']:,}")
    yield line
    yield Text("     ").append(settings_text(standing.best_settings), "dim")


def _failures(standing: Standing) -> Iterator[Text]:
    causes = standing.causes()
    for status, trials, message in causes[:CAUSES_SHOWN]:
        what = status.replace("_", " ")
        which = trials[0]
        if len(trials) > 1:
            which += f" and {len(trials) - 1:,} more"
        count = (f"{len(trials):,} {what}", STYLES[what])
        yield Text.assemble(count, f" ({which}): {message or 'without a message'}")
    if len(causes) > CAUSES_SHOWN:
        yield Text(f"and {quantity(len(causes) - CAUSES_SHOWN, 'other cause')}", style="dim")


# --- the trials that run ---


def _trials(standing: Standing, width: int, room: int) -> Iterator[Text]:
    """Yields a heading and at most `room` trials.

    A trial keeps its line after its end, until another trial starts in its place.
    """
    places = standing.places
    if len(places) > room and len(standing.history.trials) >= standing.trials:
        # No trial is left to start, so lines of trials that ended would stay for good.
        places = [trial for trial in places if trial in standing.running]
    shown = places[:room]
    compared = shown if standing.best is None else [*shown, standing.best["trial"]]
    scale = bounds(standing.curves[trial] for trial in compared)
    steps = max(map(standing.max_steps, shown), default=0)
    count = len(f"{steps:,}")
    cells = max(min(width - MARGIN - 2 * count, WIDEST_CURVE), 1)
    legend = "not known yet"
    if scale is not None:
        legend = f"{BLOCKS[0]} {scale[0]:.4g} to {BLOCKS[-1]} {scale[1]:.4g}"
    yield Text(f"{'trial':<13}{standing.metric} by steps, {legend}", style="dim")
    for trial in shown:
        yield _trial(standing, trial, scale, steps, cells, count)
    hidden = sum(trial in standing.running for trial in places[room:])
    if hidden > 0:
        yield Text(f"and {hidden:,} more running", style="dim")


def _trial(
    standing: Standing,
    trial: str,
    scale: tuple[float, float] | None,
    steps: int,
    cells: int,
    count: int,
) -> Text:
    """Returns the line of a trial.

    Args:
        scale: the values of the lowest and the highest block; None before the first report.
        steps: the most steps that a shown trial may make, to which the curve's width corresponds.
        cells: the width of the curve.
        count: the width of a number of steps.
    """
    curve = standing.curves[trial]
    step = standing.steps.get(trial, 0)
    ended = trial not in standing.running
    style, word = "cyan", ""
    if standing.best is not None and standing.best["trial"] == trial:
        style, word = "bold green", "best"
    elif not ended and standing.is_ahead(trial):
        style, word = "green", "ahead"
    drawn = sparkline(curve, steps, cells, scale) if scale else ""
    if curve:
        value = f"{curve[-1][1]:.4g}"
    elif ended:
        value = ""
    else:
        value = "starting"
    line = Text(f"{trial:<11}  ").append(f"{drawn:<{cells}}", style).append(f"  {value:>8}  ")
    if ended:
        line.append(f"{standing.ends.get(trial, 'paused').replace('_', ' ')} at {step:,}")
        line.stylize("dim")
        return line
    line.append(f"{step:>{count},} of {standing.max_steps(trial):<{count},}", "dim")
    return line.append(f"  {word}", style)


def bounds(curves: Iterable[Points]) -> tuple[float, float] | None:
    """Returns the least and the greatest value of the curves; None if they have no value."""
    values = [value for curve in curves for _, value in curve]
    return (min(values), max(values)) if values else None


def sparkline(curve: Points, steps: int, cells: int, scale: tuple[float, float]) -> str:
    """Returns a curve in blocks, which is also a progress bar: `cells` cells for `steps` steps.

    A cell shows the newest value at its end; cells before the first report show the first value.

    Args:
        scale: the values of the lowest and of the highest block. Where both are positive, the scale
            is logarithmic.
    """
    if not curve:
        return ""
    last = curve[-1][0]
    steps = max(steps, last, 1)
    blocks = ""
    for cell in range(max(math.ceil(last / steps * cells), 1)):
        end = steps * (cell + 1) / cells
        newest = bisect_right(curve, end, key=lambda point: point[0]) - 1
        blocks += _block(curve[max(newest, 0)][1], *scale)
    return blocks


def _block(value: float, low: float, high: float) -> str:
    if low > 0:
        value, low, high = math.log(value), math.log(low), math.log(high)
    share = (value - low) / (high - low) if high > low else 0.5
    return BLOCKS[min(int(share * len(BLOCKS)), len(BLOCKS) - 1)]


# --- words ---


def counts_text(standing: Standing) -> str:
    """Returns the number of trials and how many have each status."""
    return f"{quantity(standing.trials, 'trial')}: {standing.counts()}"


def value_text(metric: str, report: Event) -> str:
    """Returns " dev.loss 1.23 at step 4,000", or those parts of it that the report has."""
    text = ""
    if report.get(metric) is not None:
        text += f" {metric} {report[metric]:.4g}"
    if report.get("step") is not None:
        text += f" at step {report['step']:,}"
    return text


def settings_text(settings: Mapping[str, object]) -> str:
    return " · ".join(f"{key} {_shown(value)}" for key, value in settings.items())


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return json.dumps(value) if isinstance(value, dict) or value == "" else str(value)


def duration(seconds: float) -> str:
    """Returns seconds as 4:05, or 1:02:03."""
    whole = LONGEST
    if seconds < LONGEST:  # not so for infinity and NaN, which a damaged log can lead to
        whole = round(max(seconds, 0))
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def about(seconds: float) -> str:
    """Returns an estimate as "about 4:10", rounded.

    Above one minute it is rounded to ten seconds, above ten minutes to minutes.
    """
    if not seconds < LONGEST:
        return f"about {duration(LONGEST)}"
    unit = 1
    if seconds > 600:
        unit = 60
    elif seconds > 60:
        unit = 10
    return f"about {duration(unit * round(seconds / unit))}"


def to_ascii(lines: Sequence[Text]) -> None:
    """Replaces, in place, the view's own characters that are not ASCII."""
    for line in lines:
        line.plain = line.plain.translate(TO_ASCII)
