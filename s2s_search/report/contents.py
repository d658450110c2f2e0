"""The report of a search, or of several side by side, from their run folders: report.html and report.md.

It says in words what the search found and how sure that is, and shows what this is based on. To write it takes neither
Ray nor torch, to read it no network.
"""

import json
import math
import os
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import pandas as pd

from s2s_search.display.tables import cell, failures, over_seeds, replicate_rows
from s2s_search.errors import ConfigError, printable
from s2s_search.report import conclusions, figures
from s2s_search.report.axes import Axis
from s2s_search.report.page import (
    Block,
    Code,
    Figure,
    Grid,
    Heading,
    List,
    Ranking,
    Section,
    Table,
    Text,
    as_html,
    as_markdown,
    code,
)
from s2s_search.report.runs import Run, read_runs
from s2s_search.results.isolation import TOP
from s2s_search.results.statistics import LEAST
from s2s_search.runs.answers import Answers, Example, load_answers
from s2s_search.runs.events import cleaned
from s2s_search.runs.folder import check_writable
from s2s_search.runs.manifest import load_manifest
from s2s_search.runs.storage import below, is_far, place_of, shown_place

REPORT = "report.html"
LOOKED_AT = 10  # best trials among whose answers attention is looked for
MAPS = 4  # of attention

AXIS_PLOTS = (
    "Each mark is a trial at its best report: filled when it finished, open when it was stopped early and "
    "so had fewer steps to become good; a star is the best. All other hyperparameters differ too: a slope is a hint, "
    "no effect."
)
ISOLATION = (
    "What each value reached when the other hyperparameters suited it: the best of n configurations, and the mean of "
    f"the best {TOP} where n is smallest, elsewhere of the same share. The interval (95 %, bootstrap) says how far "
    "these spread, and p how often equal values would come to lie as far apart."
)
NOT_SCIENTIFIC = (
    "No searched hyperparameter has `role: scientific` in the file of the search space. Write it beside those whose "
    "values the search is to compare, as in `encoder.type: {choices: [...], role: scientific}`."
)
BOUNDARIES = (
    "Where the best configuration, or most of the best tenth, lies in the outermost twentieth of a range, or most of "
    "the best tenth at the last of a few numbers to choose from, better values may lie beyond."
)
IMPORTANCE = (
    "How differently the best tenth (at least 5 configurations) and all of them are spread over the values of each "
    "hyperparameter (PED-ANOVA), as shares of 1. It says what mattered within what was searched."
)
NODES = (
    "Of each node: how many trials it ran, and at most at once; the hours of all of them from start to end, and these "
    "times a trial's share of a GPU; idle is the share of the search's time, for as many workers as it ran at once, in "
    "which it had no trial. A trial counts where it made its newest report."
)


def write_report(
    folders: Sequence[Path], out: str | Path | None = None, fetch: bool = False
) -> tuple[Path, Path]:
    """Writes the report of run folders as HTML and as Markdown; gives where: in the first folder, or as `out` says.

    out: a folder for report.html, when it ends in a slash or is one, or the file's name; without its suffix .html or
    .md it gets one.
    fetch: also read answers that lie at a URL, which takes the reader's credentials there.

    Raises:
        ConfigError: a folder is none of a search, the searches are judged by different metrics, or there is no writing.
    """
    runs = read_runs(folders, fetch)
    page = _page(folders[0] if out is None else out)
    for path in (page, page.with_suffix(".md")):
        check_writable(path)
    title, about, parts = " · ".join(run.name for run in runs), _about(runs), sections(runs)
    html = as_html(title, about, parts, [list(_labels(run)) for run in runs], figures.DARK)
    _write(page, html)
    _write(page.with_suffix(".md"), as_markdown(title, about, parts))
    return page, page.with_suffix(".md")


def _page(place: str | Path) -> Path:
    """Where the HTML is written: in a folder, or at a name with or without its suffix. Makes a folder that is named."""
    out = Path(place)
    if str(place).endswith("/"):
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"cannot be made: {error.strerror}", str(place)) from None
    if os.path.isdir(out):  # unlike Path.is_dir, False for a name that is too long
        return out / REPORT
    return (
        out.with_suffix(".html")
        if out.suffix in (".html", ".md")
        else out.with_name(f"{out.name}.html")
    )


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8", errors="replace")
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror}", str(path)) from None


def sections(runs: Sequence[Run]) -> list[Section]:
    """What is in the report, in the order in which a reader needs it."""
    names = [run.name for run in runs] if len(runs) > 1 else []
    better = "lower" if runs[0].minimizes else "higher"

    def each(title: str, blocks: Callable[[Run], Iterable[Block]], how: str = "") -> Section:
        return Section(title, how, [list(blocks(run)) for run in runs], names)

    return [
        each("In short", _in_short),
        Section(
            "Ranking", f"By the best report of each trial; {better} is better.", [[_ranking(runs)]]
        ),
        Section("Best so far", "", [list(_best_so_far(runs))]),
        each("Learning curves", _learning_curves),
        each("Parallel coordinates", _parallel_coordinates),
        each("One hyperparameter at a time", _axis_plots, AXIS_PLOTS),
        each("Scientific hyperparameters", _isolation, ISOLATION),
        each("Importance", _importance),
        each("Ends of the ranges", _boundaries, BOUNDARIES),
        each("Failures", _failures),
        each("Time", _time),
        each("Answers", _answers),
        each("How it was made", _software),
    ]


# --- what it comes to ---


def _about(runs: Sequence[Run]) -> str:
    first, several = runs[0], len(runs) > 1
    counts = ", ".join(f"{len(run.ranked):,} trials of {code(run.name)}" for run in runs)
    what = f"What {len(runs)} searches found" if several else "What a search found"
    said = f"{what}: {counts}; judged by {code(first.metric)}, the {'lower' if first.minimizes else 'higher'} the better."
    return f"{said} {conclusions.best_of(runs)}" if several else said


def _in_short(run: Run) -> Iterator[Block]:
    yield Text(conclusions.state(run))
    if run.scored.empty:
        yield Text("No trial has a result yet, so there is nothing to rank.", "warning")
    else:
        yield Text(conclusions.winner(run))
        settings = run.settings(run.scored.iloc[0])
        yield Code(
            "\n".join(f"{key}: {value}" for key, value in settings.items())
            or "nothing was searched"
        )
        yield from _complete_settings(run)
        yield Heading("How sure is that?")
        yield List(list(conclusions.sureness(run)))
        if len(run.replicates):
            columns, rows = replicate_rows(run.seeds, run.replicates)
            yield Text(f"{over_seeds(code(run.metric))}:", "note")
            yield Table(columns, rows, columns[: columns.index("trial")])
        if found := list(conclusions.influences(run)):
            yield Heading("What mattered?")
            yield List(found)
        yield Heading("What to search next?")
        yield Text(conclusions.outlook(run))
        if run.boundaries:
            yield Code("\n".join(boundary.next for boundary in run.boundaries))
    for problem in run.results.damaged:
        yield Text(code(problem), "warning")


def _complete_settings(run: Run) -> Iterator[Block]:
    """The whole configuration of the best trial, to run it elsewhere; nothing where it cannot run again alone."""
    name = str(run.scored.iloc[0]["trial"])
    try:
        manifest = load_manifest(run.results.folder, run.history.trials[name].number)
    except ConfigError:
        return
    title = (
        f"All settings of {name}, as a search space of one trial that check and debug --space take"
    )
    yield Code(manifest.file().rstrip(), title)


# --- trials ---


def _ranking(runs: Sequence[Run]) -> Block:
    first = runs[0]
    tables = [run.ranked.assign(run=run.name) for run in runs]
    table = pd.concat([part.astype(object) for part in tables], ignore_index=True)
    table = table.sort_values(
        first.score, ascending=first.minimizes, na_position="last", kind="stable"
    )
    objectives = [f"best.{name}" for run in runs for name, _ in run.results.objectives]
    searched = [key for run in runs for key in run.results.searched]
    names = [
        *["run"] * (len(runs) > 1),
        "trial",
        "status",
        *objectives,
        "best.step",
        f"last.{first.metric}",
        "step",
    ]
    names = [
        name
        for name in dict.fromkeys([*names, "seconds", "parameters", *searched])
        if name in table
    ]
    rows = [
        [str(rank), *map(cell, row)]
        for rank, row in enumerate(table[names].itertuples(index=False), 1)
    ]
    numbers = [name for name in names if all(_is_numeric(part, name) for part in tables)]
    return Ranking(["rank", *names], rows, ["rank", *numbers])


def _is_numeric(table: pd.DataFrame, name: str) -> bool:
    return name not in table or pd.api.types.is_numeric_dtype(table[name])


def _labels(run: Run) -> Iterator[str]:
    """What is said of each trial where the pointer is on it."""
    for _, row in run.results.trials.iterrows():
        settings = [
            f"{figures.plain(key)} {figures.plain(value)}"
            for key, value in run.settings(row).items()
        ]
        yield "<br>".join([f"<b>{row['trial']}</b> {figures.plain(row['status'])}", *settings])


def _best_so_far(runs: Sequence[Run]) -> Iterator[Block]:
    on_gpus = all(run.space.resources.gpu for run in runs)
    cost, lines = (
        "GPU hours" if on_gpus else "worker seconds",
        [(run.name, run.leads(on_gpus)) for run in runs],
    )
    if all(table.empty for _, table in lines):
        yield Text("There is no report yet.")
        return
    how = (
        f"The best {code(runs[0].metric)} that any trial had reported by then, over the time since the search began "
        f"(left) and over the {cost} that training had taken (right). Each mark is an improvement, the last is the end."
    )
    yield Figure(figures.best_so_far(lines, runs[0].metric, cost), how)
    rows = []
    for run, (name, table) in zip(runs, lines, strict=True):
        trials = list(run.numbers)
        for number, elapsed, spent, best in table.itertuples(index=False):
            rows.append([name, trials[number], f"{elapsed:,.1f}", f"{spent:,.4g}", f"{best:.4g}"])
    columns = ["run", "trial", "seconds since the search began", cost, runs[0].metric]
    yield Table(columns, rows, columns[2:], "The same as a table")


def _learning_curves(run: Run) -> Iterator[Block]:
    curves, trials = run.results.curves(), run.results.trials
    if curves.empty:
        yield Text("There is no report yet.")
        return
    rungs = run.rungs()
    best = run.numbers[run.scored.iloc[0]["trial"]] if len(run.scored) else None
    lines = [
        (step, f"rung {step:g}: {came - stopped} of {came} went on")
        for step, came, stopped in rungs
    ]
    how = (
        f"{code(run.metric)} at each report, n = {len(trials):,} trials: those that were stopped are faint, the best "
        "is thick. The pointer names a trial and lifts its curve."
    )
    how += " Dotted: the rungs at which the scheduler compared trials." if rungs else ""
    yield Figure(
        figures.learning_curves(curves, trials["status"].tolist(), best, lines, run.metric),
        how,
        run.number,
    )
    if rungs:
        rows = [
            [f"{step:g}", *map(str, (came, came - stopped, stopped))]
            for step, came, stopped in rungs
        ]
        columns = ["rung (step)", "trials that came", "went on", "stopped"]
        yield Table(columns, rows, columns, "The rungs as a table")


# --- hyperparameters ---


def _parallel_coordinates(run: Run) -> Iterator[Block]:
    if run.scored.empty or not run.axes:
        yield Text("There is nothing to draw: no trial has a result, or nothing was searched.")
        return
    scores = run.scored[run.score].astype(float)
    trials = [
        (run.numbers[trial], score)
        for trial, score in zip(run.scored["trial"], scores, strict=True)
    ]
    how = (
        f"A line is a trial (n = {len(trials):,}), from setting to setting to its best {code(run.metric)}; the better "
        "its rank, the stronger its colour. Dragging along an axis keeps the lines that pass there, a click lets them "
        "go."
    )
    figure = figures.parallel_coordinates(run.axes, trials, run.metric)
    yield Figure(figure, how, run.number, width=120 * (len(run.axes) + 1))


def _axis_plots(run: Run) -> Iterator[Block]:
    yield Grid(
        [
            [_axis_plot(run, axis), _isolation_table(axis, f"{axis.key} as a table")]
            for axis in run.axes
        ]
    )


def _axis_plot(run: Run, axis: Axis) -> Figure:
    how = f"n = {len(axis.points):,}" + (
        f"; it takes no part in {axis.without:,} others" if axis.without else ""
    )
    if axis.range is not None and axis.range.log:
        how += "; logarithmic, as it was searched"
    how += "; within a value the marks are spread out." if axis.names else "."
    return Figure(figures.axis_plot(axis, run.metric), how, run.number, axis.key)


def _isolation_table(axis: Axis, title: str = "") -> Table:
    columns = [
        "value",
        "n",
        "best",
        "mean of the best",
        "95 % interval",
        "of so many",
        "best trial",
    ]
    rows = []
    for _, row in axis.isolation().iterrows():
        means = [
            cell(row["best"]),
            cell(row["mean"]),
            conclusions.interval_text(row),
            str(row["top"]),
        ]
        rows.append([row["value"], f"{row['n']:,}", *means, cell(row["trial"])])
    return Table(columns, rows, columns[1:6], title)


def _isolation(run: Run) -> Iterator[Block]:
    found = [axis for axis in run.axes if axis.is_scientific]
    if not found:
        yield Text(NOT_SCIENTIFIC)
    for axis in found:
        figure = figures.isolation_plot(axis.isolation(), axis.key, run.metric)
        yield Figure(figure, conclusions.verdict(axis), run.number, axis.key)
        yield _isolation_table(axis)


def _importance(run: Run) -> Iterator[Block]:
    scored, every = run.configurations
    if scored < LEAST or run.importance.empty:
        law = (
            f"Importance needs something searched and at least {LEAST} configurations with a result"
        )
        yield Text(f"{law}; {scored} of {every} have one.")
        return
    table = run.importance
    yield Figure(figures.importance_plot(table), IMPORTANCE, run.number)
    shares = ["-" if pd.isna(share) else f"{share:.1%}" for share in table["importance"]]
    counts = [f"{count:,}" for count in table["trials"]]
    rows = [list(row) for row in zip(table["hyperparameter"].map(str), shares, counts, strict=True)]
    columns = ["hyperparameter", "importance", "n (trials where it takes part)"]
    yield Table(columns, rows, columns[1:], "The same as a table")


def _boundaries(run: Run) -> Iterator[Block]:
    if not run.boundaries or run.configurations[0] < LEAST:
        yield Text(conclusions.outlook(run))
    for found in run.boundaries:
        yield Text(f"{code(found.key)}: {found.why}. To try next:", "warning")
        yield Code(found.next)


# --- the search, and what its best model answers ---


def _failures(run: Run) -> Iterator[Block]:
    rows = []
    for failure in failures(run.results):
        trials = ", ".join(failure.trials[:6]) + (", ..." if len(failure.trials) > 6 else "")
        shared = ", ".join(f"{key} = {value}" for key, value in failure.shared.items())
        rows.append(
            [
                failure.status.replace("_", " "),
                str(len(failure.trials)),
                failure.message,
                shared or "-",
                trials,
            ]
        )
    if diverged := int((run.ranked["status"] == "diverged").sum()):
        yield Text(f"{diverged} of {len(run.ranked):,} trials diverged: a result, and no failure.")
    if rows:
        yield Table(["status", "n", "message", "only they have", "trials"], rows, ["n"])
    else:
        yield Text(f"None of {len(run.ranked):,} trials failed.")


def _time(run: Run) -> Iterator[Block]:
    parts = run.results.worker_seconds()
    total = math.fsum(parts.values())
    if total <= 0:
        yield Text("There is no report yet.")
        return
    how = (
        f"Where {total:,.0f} worker seconds went: training steps, evaluation, checkpoints (snapshots), waiting until a "
        "report was taken, starting; and idle, between trials and at the end, when none was left to start (tail)."
    )
    yield Figure(figures.time_plot(parts), how, run.number)
    rows = [[part, f"{seconds:,.1f}", f"{seconds / total:.1%}"] for part, seconds in parts.items()]
    yield Table(["part", "seconds", "share"], rows, ["seconds", "share"], "The same as a table")
    columns = ["node", "trials", "at once", "busy hours", "GPU hours", "idle"]
    nodes = []
    for name, row in run.nodes().iterrows():
        hours = [f"{row['busy']:.3g}", f"{row['gpu']:.3g}"]
        nodes.append(
            [
                str(name),
                f"{row['trials']:,.0f}",
                f"{row['at_once']:.0f}",
                *hours,
                f"{row['idle']:.1%}",
            ]
        )
    yield Table(columns, nodes, columns[1:])
    yield Text(NODES, "note")


def _answers(run: Run) -> Iterator[Block]:
    """Examples that the best model decoded, and where the best model with attention looked."""
    place = place_of(run.history.search, run.results.folder)
    if is_far(place) and not run.fetch:
        where = code(shown_place(place))
        yield Text(
            f"Checkpoints and answers lie at {where}; `report --fetch` reads the answers there."
        )
        return
    looked = (
        (trial, load_answers(below(place, trial))) for trial in run.scored["trial"].head(LOOKED_AT)
    )
    found = [
        (trial, answers) for trial, answers in looked if answers is not None and answers.examples
    ]
    if not found:
        yield Text("None of the best trials has written its answers.")
        return
    best, answers = found[0]
    right = sum(example.answer in example.references for example in answers.examples)
    n = len(answers.examples)
    yield Text(
        f"What {code(best)} answers at step {answers.step:,}: of {n} sources of the dev set, {right} rightly."
    )
    rows = [
        [" ".join(e.source), " ".join(e.answer), _nearest(e), _is_right(e)]
        for e in answers.examples
    ]
    yield Table(["source", "answer", "reference", "right"], rows)
    with_maps = [
        pair for pair in found if any(example.attention is not None for example in pair[1].examples)
    ]
    for trial, answers in with_maps[:1]:
        other = "" if trial == best else ", the best trial that has attention,"
        yield from _attention_maps(run, f"{code(trial)}{other}", answers)


def _attention_maps(run: Run, whose: str, answers: Answers) -> Iterator[Block]:
    yield Text(
        f"Where {whose} looked. A row is a token that it wrote, from top to bottom; the stronger the colour of a cell, "
        "the more of its attention was on the source token above. Each row sums to 1.",
        "note",
    )
    maps = [example for example in answers.examples if example.attention is not None][:MAPS]
    yield Grid([[_attention_map(run, example)] for example in maps])


def _attention_map(run: Run, example: Example) -> Figure:
    reference = (
        f", and the reference is {code(_nearest(example))}" if _is_right(example) == "no" else ""
    )
    how = f"Down: the answer, {code(' '.join(example.answer))}{reference}. Across: the source."
    return Figure(figures.attention_map(example), how, run.number, " ".join(example.source))


def _is_right(example: Example) -> str:
    return "yes" if example.answer in example.references else "no"


def _nearest(example: Example) -> str:
    """The reference that the answer equals, else the first."""
    shown = (
        example.answer
        if example.answer in example.references
        else next(iter(example.references), [])
    )
    return " ".join(shown)


def _software(run: Run) -> Iterator[Block]:
    yield Text(
        f"Best: of all reports of a trial the one with the best {code(run.metric)}, the earliest of equals; never that "
        "of a divergence. n counts trials with such a report. Intervals are bootstrap intervals of a mean."
    )
    try:
        made = cleaned(
            json.loads((run.results.folder / "environment.json").read_text(encoding="utf-8"))
        )
        versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
        corpus = f"{made['corpus']['name']}, fingerprint {made['corpus']['fingerprint'][:12]}"
        command = shlex.join(map(str, made["command"]))
        commit = code(made["commit"])
        yield List(
            [
                f"command {code(command)}",
                f"corpus {code(corpus)}",
                f"commit {commit}",
                code(versions),
            ]
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        yield Text("The run folder has no environment.json that says with what it was made.")
    yield Code("\n".join(map(printable, run.space.text.strip().splitlines())))
