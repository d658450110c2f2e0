"""The live view of a search: from where it stands to lines of text, for a terminal of some width and height."""

import json
import math
import textwrap
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence

from rich.text import Text

from s2s_search.display.standing import Curve, Standing
from s2s_search.runs.events import Event

BLOCKS = "▁▂▃▄▅▆▇█"
TO_ASCII = str.maketrans(BLOCKS + "·…", "__..--''-.")  # for a terminal whose encoding has no blocks
STYLES = {"finished": "green", "stopped": "yellow", "diverged": "magenta", "running": "cyan"}
STYLES |= dict.fromkeys(("failed", "out of memory", "lost"), "bold red")
CAUSES_SHOWN = 3
WIDEST_CURVE = 72  # cells
LONGEST = 10**9  # seconds
MARGIN = len(
    "trial-00000    starting   of   ahead"
)  # what else a line of a trial holds, without its steps


def view(standing: Standing, width: int, height: int, now: float) -> list[Text]:
    """The lines of the view, each of at most `width` cells, and at most `height` of them.

    The search and its numbers; the best trial; failures by cause; why nothing runs; the newest note; then a line for
    each place where a trial runs, as long as the search does.
    """
    lines = [
        _headline(standing, now),
        _counts(standing),
        *_best(standing, now),
        *_failures(standing),
    ]
    for name, text in (
        ("waiting", standing.waiting),
        ("note", standing.note and f"note: {standing.note}"),
    ):
        for part in textwrap.wrap(text, width, max_lines=2, placeholder="…"):
            lines.append(Text(part))
            lines[-1].highlight_regex(f"^{name}", STYLES["stopped"])
    lines = [cut(line, width) for line in lines[:height]]
    if standing.status == "running" and standing.places and (room := height - len(lines) - 3) > 0:
        lines += [Text(), *(cut(line, width) for line in _trials(standing, width, room))]
    return lines


def cut(line: Text, width: int) -> Text:
    """Makes a text one line of at most `width` cells."""
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
    line = Text(f"{standing.trials:,} trials: {standing.counts()}")
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
    line.append(" · ").append(standing.best["trial"], "bold").append(
        f" at step {standing.best['step']:,}"
    )
    yield line
    yield Text("     ").append(settings_text(standing.best_settings), "dim")


def _failures(standing: Standing) -> Iterator[Text]:
    causes = standing.causes()
    for status, trials, message in causes[:CAUSES_SHOWN]:
        what = status.replace("_", " ")
        which = trials[0] + (f" and {len(trials) - 1:,} more" if len(trials) > 1 else "")
        yield Text.assemble(
            (f"{len(trials):,} {what}", STYLES[what]),
            f" ({which}): {message or 'without a message'}",
        )
    if len(causes) > CAUSES_SHOWN:
        yield Text(f"and {len(causes) - CAUSES_SHOWN} other causes", style="dim")


# --- the trials that run ---


def _trials(standing: Standing, width: int, room: int) -> Iterator[Text]:
    """A heading and at most `room` trials, each in its place from its start to the start of the next one there."""
    places = standing.places
    if (
        len(places) > room and len(standing.started) >= standing.trials
    ):  # nobody takes the place of one that has ended
        places = [trial for trial in places if trial in standing.running]
    shown = places[:room]
    compared = shown if standing.best is None else [*shown, standing.best["trial"]]
    scale = bounds(standing.curves[trial] for trial in compared)
    steps = max(map(standing.max_steps, shown), default=0)
    count = len(f"{steps:,}")
    cells = max(min(width - MARGIN - 2 * count, WIDEST_CURVE), 1)
    legend = (
        f"{BLOCKS[0]} {scale[0]:.4g} to {BLOCKS[-1]} {scale[1]:.4g}" if scale else "not known yet"
    )
    yield Text(f"{'trial':<13}{standing.metric} by steps, {legend}", style="dim")
    for trial in shown:
        yield _trial(standing, trial, scale, steps, cells, count)
    if hidden := sum(trial in standing.running for trial in places[room:]):
        yield Text(f"and {hidden:,} more running", style="dim")


def _trial(
    standing: Standing,
    trial: str,
    scale: tuple[float, float] | None,
    steps: int,
    cells: int,
    count: int,
) -> Text:
    curve, step, ended = (
        standing.curves[trial],
        standing.steps.get(trial, 0),
        trial not in standing.running,
    )
    style, word = "cyan", ""
    if standing.best is not None and standing.best["trial"] == trial:
        style, word = "bold green", "best"
    elif not ended and standing.is_ahead(trial):
        style, word = "green", "ahead"
    drawn = sparkline(curve, steps, cells, scale) if scale else ""
    value = f"{curve[-1][1]:.4g}" if curve else "" if ended else "starting"
    line = Text(f"{trial:<11}  ").append(f"{drawn:<{cells}}", style).append(f"  {value:>8}  ")
    if ended:
        line.append(f"{standing.ends.get(trial, 'paused').replace('_', ' ')} at {step:,}")
        line.stylize("dim")
        return line
    line.append(f"{step:>{count},} of {standing.max_steps(trial):<{count},}", "dim")
    return line.append(f"  {word}", style)


def bounds(curves: Iterable[Curve]) -> tuple[float, float] | None:
    """The least and the greatest value of some curves; None where there is none."""
    values = [value for curve in curves for _, value in curve]
    return (min(values), max(values)) if values else None


def sparkline(curve: Curve, steps: int, cells: int, scale: tuple[float, float]) -> str:
    """A curve in blocks, as far as it has come of `cells` cells for `steps` steps, so that it is a bar of progress too.

    The lowest block is the first value of the scale, the highest the second; where both are positive it is logarithmic.
    A cell shows the newest value at its end, before the first report that report's.
    """
    if not curve:
        return ""
    steps = max(steps, curve[-1][0], 1)
    reached = max(math.ceil(curve[-1][0] / steps * cells), 1)
    ends = (steps * (cell + 1) / cells for cell in range(reached))
    newest = (bisect_right(curve, end, key=lambda point: point[0]) - 1 for end in ends)
    return "".join(_block(curve[max(k, 0)][1], *scale) for k in newest)


def _block(value: float, low: float, high: float) -> str:
    if low > 0:
        value, low, high = math.log(value), math.log(low), math.log(high)
    share = (value - low) / (high - low) if high > low else 0.5
    return BLOCKS[min(int(share * len(BLOCKS)), len(BLOCKS) - 1)]


# --- words ---


def value_text(metric: str, report: Event) -> str:
    """ " dev.loss 1.23 at step 4,000", or as much of it as a report has."""
    value, step = report.get(metric), report.get("step")
    at = "" if step is None else f" at step {step:,}"
    return f" {metric} {value:.4g}{at}" if value is not None else at


def settings_text(settings: Mapping[str, object]) -> str:
    return " · ".join(f"{key} {_shown(value)}" for key, value in settings.items())


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return json.dumps(value) if isinstance(value, dict) or value == "" else str(value)


def duration(seconds: float) -> str:
    """Seconds as 4:05, or 1:02:03."""
    whole = (
        round(max(seconds, 0)) if seconds < LONGEST else LONGEST
    )  # also where a damaged log gives no number
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def about(seconds: float) -> str:
    """An estimate as "about 4:10": above a minute to ten seconds, above ten minutes to minutes."""
    unit = 60 if seconds > 600 else 10 if seconds > 60 else 1
    return f"about {duration(unit * round(seconds / unit) if seconds < LONGEST else LONGEST)}"


def to_ascii(lines: Sequence[Text]) -> None:
    """Writes lines without characters that are not ASCII, as far as they are the view's own."""
    for line in lines:
        line.plain = line.plain.translate(TO_ASCII)
