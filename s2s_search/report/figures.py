"""The figures of a report, made with plotly from tables.

The colours are those of Okabe and Ito (2008), which colour-blind readers can tell apart. Each has a
twin for a dark page. A mark that stands for a trial has the trial's row number in the trials table
as `customdata`, from which the page makes the hover text.
"""

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from s2s_search.report.axes import Axis
from s2s_search.report.promises import Promise
from s2s_search.runs.answers import Example
from s2s_search.statuses import PLATEAUED

# The colours of a light page, and below those that take their places on a dark page.
INK = "#1f2328"
FAINT = "#87919b"
LINE = "#dde2e7"
SURFACE = "#fdfdfc"
BLUE = "#0072b2"
ORANGE = "#b87500"
GREEN = "#00805e"
RED = "#c44e00"
PURPLE = "#a8477e"
SKY = "#2b8cc4"
WEAK = "#e6eaee"  # the low end of a colour scale
DARK = {
    INK: "#e4e7ea",
    FAINT: "#7d8790",
    LINE: "#333a41",
    SURFACE: "#15181b",
    BLUE: "#56b4e9",
    ORANGE: "#e69f00",
    GREEN: "#2fbf97",
    RED: "#f0803c",
    PURPLE: "#e08fbb",
    SKY: "#8fd0ff",
    WEAK: "#262c32",
}
RUNS = (BLUE, RED, GREEN, PURPLE, ORANGE, SKY)
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
SCALE = [[0.0, WEAK], [1.0, BLUE]]

# The classes of trials with their colours and symbols, in the order in which they are drawn.
STATUS = {
    "stopped": (FAINT, "circle-open"),
    "ended without finishing": (RED, "x"),
    "running": (GREEN, "triangle-up"),
    PLATEAUED: (SKY, "circle"),
    "finished": (BLUE, "circle"),
}
FEW_CURVES = 50  # up to this number of curves, the marks are large
MANY_POINTS = 5_000  # from this number on WebGL draws the curves, as SVG would take seconds
UNITS = ((3600, "hours"), (60, "minutes"), (1, "seconds"))
WIDE = 10  # an axis is logarithmic if the largest value is more than WIDE times the smallest
BETWEEN_AXES = 14  # the number of letters that fit between two parallel axes
BELOW_AN_AXIS = 45  # the number of letters that fit in a line below an axis
LINES = 3  # the number of such lines
JITTER = 0.28  # how far marks are spread, as a share of the distance between two values

Numbers = Sequence[float | None]


def status_class(status: str) -> str:
    """Returns the class of trials, a key of STATUS, to which a status belongs."""
    return status if status in STATUS else "ended without finishing"


def plain(text: object) -> str:
    """Returns text escaped for plotly, which takes some tags for markup."""
    return str(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _figure(height: int, **layout: Any) -> go.Figure:
    axis = {
        "gridcolor": LINE,
        "linecolor": FAINT,
        "zerolinecolor": LINE,
        "automargin": True,
        "ticks": "",
        "exponentformat": "none",
    }
    axis |= {"title": {"font": {"size": 13}}}
    template = go.layout.Template(layout={"xaxis": axis, "yaxis": axis, "colorway": list(RUNS)})
    base = {
        "template": template,
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": INK},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "height": height,
        "margin": {"l": 60, "r": 20, "t": 30, "b": 50},
        "hoverlabel": {
            "bgcolor": SURFACE,
            "bordercolor": FAINT,
            "font": {"color": INK},
            "align": "left",
        },
        "legend": {
            "orientation": "h",
            "x": 0,
            "y": 1.02,
            "yanchor": "bottom",
            "itemsizing": "constant",
        },
        "hovermode": "closest",
        # The buttons have room above the plot, and no ground of their own.
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": FAINT, "activecolor": INK},
    }
    return go.Figure(layout=base | layout)


def is_wide(values: Iterable[float]) -> bool:
    """Returns whether values spread so far that a logarithmic axis shows more."""
    known = [value for value in values if not pd.isna(value)]
    return bool(known) and min(known) > 0 and max(known) > WIDE * min(known)


def _short(values: Iterable[Any]) -> list[float | None]:
    """Returns numbers with five digits, more than a figure shows; None, a gap, for missing ones."""
    return [None if pd.isna(value) else float(f"{value:.5g}") for value in values]


def _title(text: str) -> dict[str, str]:
    return {"text": plain(text)}


def _scale(values: Iterable[float]) -> dict[str, Any]:
    """Returns the type and the ticks of an axis for these values."""
    known = [float(value) for value in values if not pd.isna(value)]
    if not is_wide(known):
        return {"type": "linear"}
    return {"type": "log", **_ticks(log_ticks(min(known), max(known)))}


def log_ticks(low: float, high: float) -> list[tuple[float, str]]:
    """Returns ticks of a logarithmic axis: about eight round numbers, or both ends if few fit."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    inside: list[float] = []
    for digits in ((1, 2, 5), (1, 3), (1,)):
        ticks = [float(f"{digit}e{decade}") for decade in decades for digit in digits]
        inside = [tick for tick in ticks if low * 0.99 <= tick <= high * 1.01]
        if len(inside) <= 8:
            break
    inside = inside if len(inside) > 1 else [low, high]
    return [(tick, f"{tick:.3g}") for tick in inside]


# --- over time ---


def best_so_far(runs: Sequence[tuple[str, pd.DataFrame]], metric: str, cost: str) -> go.Figure:
    """Draws the best value so far over wall time and over the cost, one line per run.

    runs: the runs' names, and their tables as `Run.leads` returns them.
    """
    end = max((table["elapsed"].max() for _, table in runs if len(table)), default=0.0)
    seconds, unit = next(pair for pair in UNITS if end >= 2 * pair[0] or pair[0] == 1)
    figure = _figure(
        380, xaxis={"domain": [0, 0.47], "title": _title(f"{unit} since the search began")}
    )
    figure.update_layout(
        xaxis2={"domain": [0.53, 1], "title": _title(cost), "anchor": "y2"},
        yaxis={"title": _title(metric)},
        yaxis2={"matches": "y", "anchor": "x2", "showticklabels": False},
        showlegend=len(runs) > 1,
    )
    every: list[float] = []
    for index, (name, table) in enumerate(runs):
        every += table["best"].dropna().tolist()
        style = {
            "color": RUNS[index % len(RUNS)],
            "dash": DASHES[index % len(DASHES)],
            "shape": "hv",
            "width": 2,
        }
        for axis, x in (("", table["elapsed"] / seconds), ("2", table["cost"])):
            figure.add_scatter(
                x=_short(x),
                y=_short(table["best"]),
                customdata=table["number"].tolist(),
                mode="lines+markers",
                line=style,
                marker={"size": 6},
                name=plain(name),
                legendgroup=str(index),
                showlegend=not axis,
                xaxis=f"x{axis}",
                yaxis=f"y{axis}",
                meta={"run": index},
                hovertemplate="%{text}<br>%{y:.4g}<extra></extra>",
            )
    figure.update_yaxes(**_scale(every))
    return figure


def promises(
    shown: Sequence[Promise], numbers: Sequence[int], best: float, metric: str
) -> go.Figure:
    """Draws what is expected of some trials at their ends, the first one above.

    Args:
        shown: the trials.
        numbers: their numbers in the trials table.
        best: the best value so far, as a line.
        metric: the name of the metric.
    """
    values = [promise.end.value for promise in shown]
    every = [best, *values, *(promise.value for promise in shown)]
    names = [plain(promise.trial) for promise in shown]
    figure = _figure(
        120 + 20 * len(shown),
        xaxis={"title": _title(metric)},
        yaxis={"autorange": "reversed", "showgrid": False},
    )
    if is_wide(every):
        figure.update_xaxes(type="log")
    above = [promise.end.high - promise.end.value for promise in shown]
    below = [promise.end.value - promise.end.low for promise in shown]
    figure.add_scatter(
        x=_short(promise.value for promise in shown),
        y=names,
        customdata=list(numbers),
        mode="markers",
        marker={"size": 8, "color": FAINT, "symbol": "circle-open"},
        name="newest report",
        hovertemplate="%{text}<br>newest report: %{x:.4g}<extra></extra>",
    )
    figure.add_scatter(
        x=_short(values),
        y=names,
        customdata=list(numbers),
        mode="markers",
        marker={"size": 8, "color": BLUE},
        error_x={"array": _short(above), "arrayminus": _short(below), "color": BLUE},
        name="expected at the end",
        hovertemplate="%{text}<br>expected: %{x:.4g}<extra></extra>",
    )
    figure.add_vline(x=best, line={"color": GREEN, "dash": "dash"})
    return figure


def expected_best(table: pd.DataFrame, metric: str) -> go.Figure:
    """Draws the expected best of n configurations, with its interval where it is known.

    The axis below is n. The axis above is what n configurations cost, in worker hours.
    """
    ends, hours = table["n"].iloc[[0, -1]].tolist(), table["seconds"].iloc[[0, -1]] / 3600
    figure = _figure(
        340,
        xaxis={"title": _title("configurations"), "range": ends},
        xaxis2={
            "title": _title("worker hours"),
            "range": hours.tolist(),
            "overlaying": "x",
            "side": "top",
            "showgrid": False,
        },
        yaxis={"title": _title(metric)},
    )
    figure.update_layout(margin={"t": 60})
    # plotly draws an axis only if a trace belongs to it.
    figure.add_scatter(x=hours.tolist(), y=[None, None], xaxis="x2", hoverinfo="skip")
    known = table.dropna(subset="low")
    for end, fill in (("high", None), ("low", "tonexty")):
        figure.add_scatter(
            x=known["n"].tolist(),
            y=_short(known[end]),
            mode="lines",
            line={"width": 0},
            fill=fill,
            fillcolor=WEAK,
            hoverinfo="skip",
        )
    figure.add_scatter(
        x=table["n"].tolist(),
        y=_short(table["mean"]),
        mode="lines",
        line={"color": BLUE, "width": 2},
        hovertemplate="best of %{x}: %{y:.4g}<extra></extra>",
    )
    figure.update_layout(showlegend=False)
    return figure


def learning_curves(
    curves: pd.DataFrame,
    statuses: Sequence[str],
    best: int | None,
    rungs: Sequence[tuple[float, str]],
    metric: str,
) -> go.Figure:
    """Draws the learning curves of all trials: one trace per class of trials, with gaps in it.

    Args:
        curves: the curves, as `Results.curves` returns them.
        statuses: the status of each column.
        best: the number of the best trial's column; None: no trial has a result.
        rungs: the steps of the rungs, and their labels.
        metric: the name of the metric.
    """
    scale = _scale(curves.to_numpy(float, na_value=math.nan).ravel())
    figure = _figure(460, xaxis={"title": _title("step"), "rangemode": "tozero"})
    figure.update_layout(yaxis={"title": _title(metric), **scale})
    draw = go.Scattergl if curves.size > MANY_POINTS else go.Scatter
    lines = {number: column.dropna() for number, (_, column) in enumerate(curves.items())}
    opacity = min(0.9, max(0.06, 30 / max(len(lines), 1)))
    for name, (colour, _) in STATUS.items():
        members = [k for k in lines if status_class(statuses[k]) == name and len(lines[k])]
        others = [k for k in members if k != best]
        if members:
            style = {"color": colour, "width": 1.2}
            label = f"{name} ({len(members)})"
            group: dict[str, Any] = {"name": label, "legendgroup": name, "line": style}
            if others:
                faint = opacity * (0.7 if name == "stopped" else 1)
                trace = draw(**_joined(lines, others), **group, opacity=faint, showlegend=False)
                figure.add_trace(trace)
            # An empty trace for the legend, whose line should not be faint.
            figure.add_scatter(x=[None], y=[None], **group)
    if best is not None:
        style = {"color": ORANGE, "width": 3}
        figure.add_trace(draw(**_joined(lines, [best]), line=style, name="the best trial"))
    figure.update_traces(
        mode="lines+markers", marker={"size": 5 if len(lines) <= FEW_CURVES else 2}
    )
    figure.update_traces(
        meta={"curves": True}, hovertemplate="%{text}<br>step %{x}: %{y:.4g}<extra></extra>"
    )
    for step, label in rungs:
        figure.add_vline(x=step, line={"color": FAINT, "width": 1, "dash": "dot"})
        figure.add_annotation(
            x=step, y=1, yref="paper", text=plain(label), showarrow=False, font={"size": 11}
        )
        figure.layout.annotations[-1].update(
            textangle=-90, xanchor="right", yanchor="top", xshift=-3
        )
    return figure


def _joined(lines: dict[int, Any], numbers: Iterable[int]) -> dict[str, list[Any]]:
    """Returns curves as one trace, with a gap after each of them."""
    x: list[Any] = []
    y: list[Any] = []
    customdata: list[int] = []
    for number in numbers:
        line = lines[number]
        x += [*map(int, line.index), None]
        y += [*_short(line), None]
        customdata += [number] * (len(line) + 1)
    return {"x": x, "y": y, "customdata": customdata}


# --- hyperparameters ---


def parallel_coordinates(
    axes: Sequence[Axis], trials: Sequence[tuple[int, float]], metric: str
) -> go.Figure:
    """Draws a line per trial through its hyperparameters to its best value.

    The better a trial's rank, the stronger its colour. By value instead, a few bad values would
    leave all others the same colour.

    trials: the trials' numbers and best values, best first.
    """
    scores = [score for _, score in trials]
    dimensions = [_coordinate(axis, [number for number, _ in trials]) for axis in axes]
    log = is_wide(scores)
    shown = [math.log10(score) for score in scores] if log else scores
    last: dict[str, Any] = {"label": plain(metric), "values": _short(shown)}
    if log:
        places = np.geomspace(min(scores), max(scores), 6)
        last |= _ticks([(math.log10(x), f"{x:.3g}") for x in places])
    rank = np.linspace(1, 0, len(scores)).round(4).tolist()
    order = range(len(rank) - 1, -1, -1)  # the best trials are drawn last, on top of the others
    for dimension in (*dimensions, last):
        dimension["values"] = [dimension["values"][k] for k in order]
    longest = max(len(text) for text in dimensions[0]["ticktext"])
    figure = _figure(410, margin={"l": 20 + 7 * longest, "r": 60, "t": 90, "b": 20})
    figure.add_parcoords(
        dimensions=[*dimensions, last],
        line={"color": [rank[k] for k in order], "colorscale": SCALE, "cmin": 0, "cmax": 1},
        labelangle=-12,
        labelside="top",
        rangefont={"size": 1, "color": "rgba(0,0,0,0)"},  # the ends are among the ticks
        unselected={"line": {"color": LINE, "opacity": 0.15}},
    )
    return figure


def _coordinate(axis: Axis, numbers: Sequence[int]) -> dict[str, Any]:
    """Returns an axis for plotly's parallel coordinates, which take numbers only.

    The number below all others stands for trials in which the hyperparameter takes no part.
    """
    values = dict(zip(axis.points["number"], axis.points["value"], strict=True))
    names = dict(zip(axis.points["number"], axis.points["name"], strict=True))
    ticks: list[tuple[float, str]]
    if axis.names:
        places = {name: float(place) for place, name in enumerate(axis.names)}
        at = {number: places.get(name, -1.0) for number, name in names.items()}
        ticks = list(zip(places.values(), map(plain, _cut(axis.names, BETWEEN_AXES)), strict=True))
    else:
        at = {number: axis.position(float(value)) for number, value in values.items()}
        ticks = [(share, f"{axis.value_at(share):.3g}") for share in (0, 0.25, 0.5, 0.75, 1)]
    low = -1.0 if axis.names else -0.15
    if axis.without:
        ticks = [(low, "takes no part"), *ticks]
    least = min(place for place, _ in ticks)
    most = max(place for place, _ in ticks) or 1
    return {
        "label": plain(axis.key),
        "values": [float(f"{at.get(number, low):.5g}") for number in numbers],
        "range": [least, most],
        **_ticks(ticks),
    }


def _cut(names: Sequence[str], longest: int) -> list[str]:
    """Returns names of at most `longest` letters; uncut if two names would become the same."""
    cut = [name if len(name) <= longest else f"{name[: longest - 1]}…" for name in names]
    if len(set(cut)) < len(cut):
        return list(names)
    return cut


def _wrapped(name: str, width: int) -> str:
    """Breaks a name between its words into lines: "Bidirectional<br>RNNEncoder".

    A line has at most `width` letters, unless a single word is longer.
    """
    lines = [""]
    for word in filter(None, re.findall(r"[A-Z]*[a-z0-9]*[^A-Za-z0-9]*", name)):
        if not lines[-1] or len(lines[-1] + word) <= width:
            lines[-1] += word
        else:
            lines.append(word)
    return "<br>".join(map(plain, lines))


def _ticks(ticks: Sequence[tuple[float, str]]) -> dict[str, Any]:
    return {"tickvals": [place for place, _ in ticks], "ticktext": [text for _, text in ticks]}


def axis_plot(axis: Axis, metric: str) -> go.Figure:
    """Draws the compared value of each trial over the values of a hyperparameter.

    Choices stand side by side, and the trials of a choice are spread sideways.
    """
    figure = _figure(
        320, xaxis={"zeroline": False}, yaxis={"title": _title(metric)}, showlegend=False
    )
    figure.update_layout(margin={"l": 60, "r": 10, "t": 30, "b": 30})
    figure.update_yaxes(**_scale(axis.points["score"]))
    x = _places(axis)
    if axis.names:
        width = max(8, BELOW_AN_AXIS // len(axis.names))
        names = [_wrapped(name, width) for name in _cut(axis.names, LINES * width)]
        figure.update_xaxes(
            tickvals=list(range(len(names))), ticktext=names, range=[-0.6, len(names) - 0.4]
        )
        figure.update_xaxes(tickangle=0, automargin=True)
        figure.update_xaxes(showgrid=False)
    elif axis.range is not None and axis.range.log:
        figure.update_xaxes(type="log", **_ticks(log_ticks(axis.range.low, axis.range.high)))
    for name, (colour, symbol) in STATUS.items():
        rows = axis.points[axis.points["status"].map(status_class) == name]
        if len(rows):
            marker: dict[str, Any] = {"color": colour, "symbol": symbol, "size": 7}
            figure.add_scatter(**_marks(x, rows), marker=marker, name=name)
    if len(axis.points):
        marker = {"color": ORANGE, "symbol": "star", "size": 15, "line": {"color": INK, "width": 1}}
        figure.add_scatter(**_marks(x, axis.points.head(1)), marker=marker, name="the best")
    figure.update_traces(mode="markers", hovertemplate="%{text}<br>%{y:.4g}<extra></extra>")
    return figure


def _places(axis: Axis) -> "pd.Series[float]":
    """Returns where the points of an axis are drawn; those of a choice are spread sideways."""
    if not axis.names:
        return axis.points["value"].astype(float)
    spread = np.random.default_rng(0).uniform(-JITTER, JITTER, len(axis.points))
    places = {name: place for place, name in enumerate(axis.names)}
    return axis.points["name"].map(places).astype(float) + spread


def _marks(x: "pd.Series[float]", rows: pd.DataFrame) -> dict[str, list[Any]]:
    return {
        "x": _short(x[rows.index]),
        "y": _short(rows["score"]),
        "customdata": rows["number"].astype(int).tolist(),
    }


def isolation_plot(table: pd.DataFrame, key: str, metric: str) -> go.Figure:
    """Draws the best result of each value of a hyperparameter, and the mean of its better half."""
    counted = zip(table["value"], table["n"], strict=True)
    names = [plain(f"{value} (n = {n})") for value, n in counted]
    figure = _figure(
        90 + 46 * len(table), xaxis={"title": _title(metric)}, yaxis={"autorange": "reversed"}
    )
    known = table.assign(upper=table["high"] - table["mean"], lower=table["mean"] - table["low"])
    figure.add_scatter(
        x=_short(table["mean"]),
        y=names,
        error_x={
            "type": "data",
            "array": _short(known["upper"]),
            "arrayminus": _short(known["lower"]),
            "thickness": 2,
        },
        marker={"color": BLUE, "size": 9},
        name="mean of the better half, 95 % interval",
    )
    star = {"color": ORANGE, "symbol": "star", "size": 11}
    figure.add_scatter(x=_short(table["best"]), y=names, marker=star, name="best")
    figure.update_traces(mode="markers", hovertemplate="%{y}: %{x:.4g}<extra></extra>")
    return figure


def importance_plot(table: pd.DataFrame) -> go.Figure:
    """Draws the importance of each hyperparameter as a bar, and what chance gives as a mark."""
    names = [plain(name) for name in table["hyperparameter"]]
    figure = _figure(
        80 + 28 * len(table),
        xaxis={"title": _title("share of the ranking explained"), "tickformat": ".0%"},
    )
    figure.update_layout(yaxis={"autorange": "reversed"}, bargap=0.35)
    figure.add_bar(
        x=_short(table["importance"]),
        y=names,
        orientation="h",
        marker={"color": BLUE},
        name="importance",
    )
    mark = {"color": ORANGE, "symbol": "line-ns-open", "size": 14, "line": {"width": 2}}
    figure.add_scatter(
        x=_short(table["chance"]), y=names, mode="markers", marker=mark, name="by chance up to"
    )
    figure.update_traces(hovertemplate="%{y}: %{x:.1%}<extra></extra>")
    return figure


# --- a search's time, a model's answers ---


def time_plot(parts: dict[str, float]) -> go.Figure:
    """Draws where the workers' seconds went: one bar, with a piece for each part."""
    figure = _figure(
        150, barmode="stack", xaxis={"title": _title("worker seconds")}, yaxis={"visible": False}
    )
    busy = dict(
        zip(("steps", "evaluation", "snapshots", "waiting", "starting"), RUNS, strict=False)
    )
    for name, seconds in parts.items():
        colour = busy.get(name, FAINT if name == "between" else LINE)
        figure.add_bar(
            x=[round(seconds, 2)], y=[""], orientation="h", name=name, marker={"color": colour}
        )
    figure.update_layout(legend_traceorder="normal")
    figure.update_traces(hovertemplate="%{x:.4g} s<extra>%{fullData.name}</extra>")
    return figure


def attention_map(example: Example) -> go.Figure:
    """Draws the attention weights of an answer: answer tokens downwards, source tokens across."""
    assert example.attention is not None
    source = [*map(plain, example.source), "END"]
    answer = [*map(plain, example.answer), "END"]
    figure = _figure(136 + 22 * len(answer), margin={"l": 60, "r": 10, "t": 56, "b": 10})
    figure.add_heatmap(
        z=example.attention, colorscale=SCALE, zmin=0, zmax=1, xgap=1, ygap=1, showscale=False
    )
    figure.update_traces(hovertemplate="weight %{z:.2f}<extra></extra>")
    figure.update_xaxes(
        tickvals=list(range(len(source))), ticktext=source, side="top", showgrid=False, tickangle=0
    )
    figure.update_yaxes(
        tickvals=list(range(len(answer))), ticktext=answer, autorange="reversed", showgrid=False
    )
    return figure
