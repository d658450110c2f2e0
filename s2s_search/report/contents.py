"""Writes the report of one search, or of several side by side: report.html and report.md.

A report says in words what the search found and how certain that is, and shows the numbers behind
it. Writing a report needs neither Ray nor torch. Reading it needs no network.
"""

import json
import math
import os
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import pandas as pd

from s2s_search.display.tables import (
    ENDING,
    cell,
    cells,
    failures,
    over_seeds,
    replicate_rows,
    trial_list,
)
from s2s_search.errors import ConfigError, printable, quantity
from s2s_search.metrics import REGISTRY
from s2s_search.report import conclusions, figures
from s2s_search.report.advice import advice
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
from s2s_search.report.runs import ReportedRun, read_runs
from s2s_search.results import early, expected
from s2s_search.results.isolation import CHANCE
from s2s_search.results.optimism import optimism
from s2s_search.results.statistics import LEAST
from s2s_search.runs.answers import Answers, Example, load_answers
from s2s_search.runs.events import cleaned
from s2s_search.runs.folder import ENVIRONMENT, PAGE, check_writable
from s2s_search.runs.manifest import load_manifest
from s2s_search.runs.storage import below, is_far, place_of, shown_place
from s2s_search.spaces.settings import MODELS

LOOKED_AT = 10  # the number of best trials among which one with attention is looked for
MAPS = 4  # the number of attention maps
TABLE_BELOW = "The same as a table"  # the title of a folded table below a figure

LEAST_CHANCE = 0.01  # of which the text speaks
SHOWN_PROMISES = 20  # the number of trials whose expected ends are drawn
PROMISES = (
    "What trials that did not train to the end might still become, by the model that chose trials. "
    "Its intervals held 96 and 91 of 100 values on two corpora with recorded curves. In small "
    "searches they hold fewer."
)
AXIS_PLOTS = (
    "Each mark is a trial, and all values are compared at equal steps. A filled mark is a finished "
    "trial. An open mark is a trial that was stopped, failed or still runs. The other "
    "hyperparameters differ between trials too: a slope is a hint, not evidence of an effect."
)
ISOLATION = (
    "The mean of the better half of the n configurations of each value. In the worse half the "
    "other hyperparameters may not suit the value. All values are compared at equal steps. The "
    "interval (95 %) is that of this mean, as for a trimmed mean. p says how often equal values "
    "would differ as much: "
    "a permutation test of the configurations' places, within draws if the search crossed its "
    "draws with the values, and corrected for the number of values and of scientific "
    "hyperparameters. In 5 of 100 searches a p is 0.05 or less by chance alone."
)
NOT_SCIENTIFIC = (
    "No searched hyperparameter has `role: scientific` in the search-space file. Add it to those "
    "whose values the search should compare, as in "
    "`encoder.type: {choices: [...], role: scientific}`."
)
BOUNDARIES = (
    "Better values may lie beyond the end of a range if the better half of the configurations "
    "improves towards it (rank correlation), and most of the best tenth lies in its outermost "
    "fifth. Of three or more numbers to choose from, the first or the last must be better than the "
    "others. Both are tested; p is multiplied by the number of ends, so that at most 5 of 100 "
    "reports name an end by chance."
)
IMPORTANCE = (
    "The bar is the share of the variance of the configurations' places that a hyperparameter "
    "explains by itself. The mark is the share that 95 of 100 searches stay below if nothing "
    "matters. A place is the square root of a rank: places near the top count more. p says how "
    "often any hyperparameter of a shuffled search would stand out as much. The shares do not add "
    "up to 100 %: the rest is chance, and what hyperparameters do together. It says nothing about "
    "values outside the searched ranges."
)
RUNGS = (
    "A rung is a step at which the scheduler compares a trial with those that have reached it so "
    "far, and stops the worse ones. The first trials are compared with few others, and pass easily."
)
NODES = (
    "For each node: the number of trials that it ran, and the most at once; the hours of all its "
    "trials, and these hours times a trial's share of a GPU. Idle is the share of its workers' "
    "time without a trial, with as many workers as it ran trials at once. A trial counts for the "
    "node of its newest report."
)


def write_report(
    folders: Sequence[Path], out: str | Path | None = None, fetch: bool = False
) -> tuple[Path, Path]:
    """Writes the report of run folders as HTML and as Markdown, and returns both paths.

    Args:
        folders: the run folders.
        out: a folder, for report.html in it, or the name of the file, to which .html is added if it
            ends neither in .html nor in .md. A name that ends in a slash is a folder. None: the
            first run folder.
        fetch: also read answers that the search saved at a URL, with the reader's credentials.

    Raises:
        ConfigError: a folder is no run folder, the searches have different metrics, or the files
            cannot be written.
    """
    runs = read_runs(folders, fetch)
    page = _page(folders[0] if out is None else out)
    for path in (page, page.with_suffix(".md")):
        check_writable(path)
    title = " · ".join(run.name for run in runs)
    about = _about(runs)
    parts = sections(runs)
    labels = [list(_labels(run)) for run in runs]
    _write(page, as_html(title, about, parts, labels, figures.DARK))
    _write(page.with_suffix(".md"), as_markdown(title, about, parts))
    return page, page.with_suffix(".md")


def _page(place: str | Path) -> Path:
    """Returns the path of the HTML file. Makes the folder that a trailing slash names."""
    out = Path(place)
    if str(place).endswith("/"):
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"cannot be made: {error.strerror}", str(place)) from None
    if os.path.isdir(out):  # Path.is_dir raises OSError for a name that is too long
        return out / PAGE
    if out.suffix in (".html", ".md"):
        return out.with_suffix(".html")
    return out.with_name(f"{out.name}.html")


def _write(path: Path, text: str) -> None:
    # A name from the file system can hold bytes that are no UTF-8: these are replaced.
    try:
        path.write_text(text, encoding="utf-8", errors="replace")
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror}", str(path)) from None


def sections(runs: Sequence[ReportedRun]) -> list[Section]:
    """Returns the sections of the report, in the order in which a reader needs them."""
    names = [run.name for run in runs] if len(runs) > 1 else []
    better = "lower" if runs[0].minimizes else "higher"
    ranked_by = f"By the best report of each trial; {better} is better."
    if any(run.ranked["status"].eq("stopped").any() for run in runs):
        ranked_by += " Stopped trials made fewer steps and fewer reports."

    def each(
        title: str, blocks: Callable[[ReportedRun], Iterable[Block]], how: str = ""
    ) -> Section:
        return Section(title, how, [list(blocks(run)) for run in runs], names)

    has_model = any(run.space.learner in MODELS for run in runs)
    return [
        each("In short", _in_short),
        Section("Ranking", ranked_by, [[*_luck_of_the_best(runs), _ranking(runs)]]),
        Section("Best so far", "", [list(_best_so_far(runs))]),
        each("Fewer trials", _fewer_trials),
        each("Learning curves", _learning_curves),
        *([each("What the model expects", _promises, PROMISES)] if has_model else []),
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


# --- the results in short ---


def _about(runs: Sequence[ReportedRun]) -> str:
    counts = ", ".join(f"{quantity(len(run.ranked), 'trial')} of {code(run.name)}" for run in runs)
    better = "lower" if runs[0].minimizes else "higher"
    metric = runs[0].metric
    about = f" ({REGISTRY[metric].about})" if metric in REGISTRY else ""
    judged = f"judged by {code(metric)}{about}, the {better} the better"
    if len(runs) == 1:
        return f"What a search found: {counts}; {judged}."
    best = conclusions.best_of(runs)
    return f"What {len(runs)} searches found: {counts}; {judged}. {best}"


def _in_short(run: ReportedRun) -> Iterator[Block]:
    yield Text(conclusions.state(run))
    if run.scored.empty:
        yield Text("No trial has a result yet, so there is nothing to rank.", "warning")
    else:
        yield Text(conclusions.winner(run))
        settings = run.settings(run.scored.iloc[0])
        lines = [f"{key}: {value}" for key, value in settings.items()]
        yield Code("\n".join(lines or ["nothing was searched"]))
        yield from _complete_settings(run)
        yield Heading("How sure is that?")
        yield List(list(conclusions.sureness(run)))
        if len(run.replicates):
            columns, rows = replicate_rows(run.seeds, run.replicates)
            yield Text(f"{over_seeds(code(run.metric))}:", "note")
            yield Table(columns, rows, columns[: columns.index("trial")])
        found = list(conclusions.influences(run))
        if found:
            step = run.scores.step
            yield Heading("What mattered?" if step is None else f"What mattered at step {step:,}?")
            if step is not None:
                yield Text(
                    f"All trials are compared {run.scores.phrase}. Trained to the end they make "
                    f"{run.space.scheduler.max_steps:,} steps, where other values may be better.",
                    "note",
                )
            yield List(found)
        yield Heading("What to do next?")
        if not run.boundaries:
            yield Text(conclusions.outlook(run))
        lines = advice(run)
        if lines:
            yield List(lines)
    for problem in run.results.damaged:
        yield Text(code(problem), "warning")


def _complete_settings(run: ReportedRun) -> Iterator[Block]:
    """Yields the complete configuration of the best trial, if the trial can run again alone."""
    name = str(run.scored.iloc[0]["trial"])
    try:
        manifest = load_manifest(run.results.folder, run.history.trials[name].number)
    except ConfigError:
        return
    title = f"All settings of {name}, as a search space for check and debug --space"
    yield Code(manifest.file().rstrip(), title)


# --- trials ---


def _luck_of_the_best(runs: Sequence[ReportedRun]) -> Iterator[Block]:
    """Yields how much too good the value of the best trial is, for a single run."""
    found = optimism(runs[0].results, runs[0].fetch) if len(runs) == 1 else None
    if found is not None:
        yield Text(found.sentence(), "note")


def _ranking(runs: Sequence[ReportedRun]) -> Block:
    first = runs[0]
    tables = [run.ranked.assign(run=run.name) for run in runs]
    table = pd.concat([part.astype(object) for part in tables], ignore_index=True)
    table = table.sort_values(
        first.score, ascending=first.minimizes, na_position="last", kind="stable"
    )
    objectives = [f"best.{name}" for run in runs for name, _ in run.results.objectives]
    searched = [key for run in runs for key in run.results.searched]
    wanted = ["trial", *objectives, *ENDING, *searched, f"last.{first.metric}", "step"]
    wanted += ["seconds", "parameters"]
    if len(runs) > 1:
        wanted.insert(0, "run")
    names = [name for name in dict.fromkeys(wanted) if name in table]
    rows = [[str(rank), *row] for rank, row in enumerate(cells(table, names), 1)]
    numbers = [name for name in names if all(_is_numeric(part, name) for part in tables)]
    return Ranking(["rank", *names], rows, ["rank", *numbers])


def _is_numeric(table: pd.DataFrame, name: str) -> bool:
    return name not in table or pd.api.types.is_numeric_dtype(table[name])


def _labels(run: ReportedRun) -> Iterator[str]:
    """Yields the text that the pointer shows for each trial."""
    for _, row in run.results.trials.iterrows():
        lines = [f"<b>{row['trial']}</b> {figures.plain(row['status'])}"]
        for key, value in run.settings(row).items():
            lines.append(f"{figures.plain(key)} {figures.plain(value)}")
        yield "<br>".join(lines)


def _best_so_far(runs: Sequence[ReportedRun]) -> Iterator[Block]:
    on_gpus = all(run.space.resources.gpu for run in runs)
    cost = "GPU hours" if on_gpus else "worker seconds"
    lines = [(run.name, run.leads(on_gpus)) for run in runs]
    if all(table.empty for _, table in lines):
        yield Text("There is no report yet.")
        return
    how = (
        f"The best {code(runs[0].metric)} that any trial had reported so far, over the time since "
        f"the search began (left) and over the {cost} of training (right). Each mark is an "
        "improvement; the last mark is the end."
    )
    yield Figure(figures.best_so_far(lines, runs[0].metric, cost), how)
    rows = []
    for run, (name, table) in zip(runs, lines, strict=True):
        trials = list(run.numbers)
        for number, elapsed, spent, best in table.itertuples(index=False):
            rows.append([name, trials[number], f"{elapsed:,.1f}", f"{spent:,.4g}", f"{best:.4g}"])
    columns = ["run", "trial", "seconds since the search began", cost, runs[0].metric]
    yield Table(columns, rows, columns[2:], TABLE_BELOW)


def _fewer_trials(run: ReportedRun) -> Iterator[Block]:
    table = run.expected
    if table.empty:
        yield Text(
            "What fewer trials would have found is not known: that needs at least "
            f"{LEAST} configurations with a result, which were drawn independently of each other "
            "(not by tpe, gp, freeze_thaw, `first` or a warm start) and kept (not by pbt)."
        )
        return
    for sentence in expected.sentences(table, code(run.metric)):
        yield Text(sentence)
    how = (
        f"The line is the mean of the best {code(run.metric)} over all smaller searches of so many "
        "of these configurations (Dodge et al., 2019), over their number (below) and the worker "
        "hours of training that they take (above). The band is the 95 % interval of this mean."
    )
    yield Figure(figures.expected_best(table, run.metric), how)
    rows = []
    for _, row in table[table["n"].isin(expected.sizes(table))].iterrows():
        interval = "-" if pd.isna(row["low"]) else f"{row['low']:.4g} to {row['high']:.4g}"
        hours = f"{row['seconds'] / 3600:.3g}"
        rows.append([f"{row['n']:.0f}", hours, f"{row['mean']:.4g}", interval])
    columns = ["configurations", "worker hours", f"mean of the best {run.metric}", "95 % interval"]
    yield Table(columns, rows, columns, TABLE_BELOW)


def _learning_curves(run: ReportedRun) -> Iterator[Block]:
    curves, trials = run.results.curves(), run.results.trials
    if curves.empty:
        yield Text("There is no report yet.")
        return
    rungs = run.rungs()
    best = run.numbers[run.scored.iloc[0]["trial"]] if len(run.scored) else None
    how = (
        f"{code(run.metric)} at each report, n = {quantity(len(trials), 'trial')}. Stopped trials "
        "are faint, the best trial is thick. The pointer names a trial and highlights its curve."
    )
    if rungs:
        how += " Dotted lines are the rungs at which the scheduler compared trials."
    lines, rows = [], []
    for step, came, stopped in rungs:
        passed = came - stopped
        lines.append((step, f"rung {step:g}: {passed} of {came} passed"))
        rows.append([f"{step:g}", str(came), str(passed), str(stopped)])
    statuses = trials["status"].tolist()
    figure = figures.learning_curves(curves, statuses, best, lines, run.metric)
    yield Figure(figure, how, run.number)
    if rungs:
        columns = ["rung (step)", "trials compared", "passed", "stopped"]
        yield Table(columns, rows, columns, "The rungs as a table")
        yield Text(RUNGS, "note")
    step, where = (
        (rungs[0][0], "the first rung") if rungs else (_quarter(curves), "a quarter of the way")
    )
    kept = bool(trials["status"].eq("stopped").any())
    yield Text(early.sentence(early.predictions(run.results, [step]).iloc[0], where, kept))
    if run.audits is not None:
        yield Text(early.audited(run.results, run.audits))


def _quarter(curves: pd.DataFrame) -> float:
    """Returns the last step with reports in the first quarter of training, or the first step."""
    before = curves.index[curves.index <= curves.index.max() / 4]
    return float(before[-1] if len(before) else curves.index[0])


# --- hyperparameters ---


def _promises(run: ReportedRun) -> Iterator[Block]:
    if run.space.learner not in MODELS:
        yield Text("This search has no model.")
        return
    if not run.promises:
        yield Text("The model expects nothing: it knows too little, or no trial was cut short.")
        return
    first = run.promises[0]
    last, cut = run.space.scheduler.max_steps, len(run.promises)
    best = run.scored[run.score].iloc[0]
    many = f"Of {quantity(cut, 'trial')} that did not train to the end"
    if first.end.chance < LEAST_CHANCE:
        yield Text(f"{many}, none has a chance of 1 % or more to beat the best value, {best:.4g}.")
    else:
        yield Text(
            f"{many}, {code(first.trial)} has the best chance to beat the best value, {best:.4g}: "
            f"{first.end.percent}. By step {last:,} {first.end.value:.3g} ({first.end.low:.3g} to "
            f"{first.end.high:.3g}) is expected of it."
        )
    shown = run.promises[:SHOWN_PROMISES]
    how = (
        "The filled mark is the best value that is expected by the end, with its 95 % interval. "
        "What a trial has reported it keeps. The open mark is the newest report. The line is the "
        "best value so far."
    )
    if cut > len(shown):
        how += f" The other {quantity(cut - len(shown), 'trial')} have smaller chances."
    numbers = [run.numbers[promise.trial] for promise in shown]
    yield Figure(figures.promises(shown, numbers, best, run.metric), how, run.number)
    rows = [
        [
            promise.trial,
            f"{promise.step:,}",
            f"{promise.value:.4g}",
            f"{promise.end.value:.3g}",
            f"{promise.end.low:.3g} to {promise.end.high:.3g}",
            promise.end.percent,
        ]
        for promise in shown
    ]
    columns = ["trial", "step", f"newest {run.metric}", f"by step {last:,}", "95 % interval"]
    yield Table([*columns, "chance"], rows, [*columns[1:], "chance"], TABLE_BELOW)


def _parallel_coordinates(run: ReportedRun) -> Iterator[Block]:
    if run.scored.empty or not run.axes:
        yield Text("Nothing to draw: no trial has a result, or nothing was searched.")
        return
    scores = run.scored[run.score].astype(float)
    trials = []
    for trial, score in zip(run.scored["trial"], scores, strict=True):
        trials.append((run.numbers[trial], score))
    how = (
        f"Each line is a trial (n = {len(trials):,}): its settings, and at the end its best "
        f"{code(run.metric)}. The better its rank, the stronger its colour. Drag along an axis to "
        "keep only the lines that pass there; click the axis to see all lines again."
    )
    figure = figures.parallel_coordinates(run.axes, trials, run.metric)
    yield Figure(figure, how, run.number, width=120 * (len(run.axes) + 1))


def _axis_plots(run: ReportedRun) -> Iterator[Block]:
    parts: list[list[Block]] = []
    for axis in run.axes:
        table = _isolation_table(run, axis, f"{axis.key} as a table")
        parts.append([_axis_plot(run, axis), table])
    yield Grid(parts)


def _axis_plot(run: ReportedRun, axis: Axis) -> Figure:
    how = f"n = {len(axis.points):,}"
    if not run.scores.reason:
        how += f", {run.scores.phrase}"
    if axis.without:
        how += f"; it takes no part in {quantity(axis.without, 'other trial')}"
    if axis.range is not None and axis.range.log:
        how += "; logarithmic, as it was searched"
    if axis.names:
        how += "; the marks of a value are spread out sideways"
    how += "."
    at_step = conclusions.at_step(run)
    if len(axis.points):
        best = axis.points.iloc[0]
        how += f" The star is {code(best['trial'])}, the best{at_step} ({best['score']:.4g})."
    return Figure(figures.axis_plot(axis, run.metric), how, run.number, axis.key)


def _isolation_table(run: ReportedRun, axis: Axis, title: str = "") -> Table:
    at_step = conclusions.at_step(run)
    columns = ["value", "n", f"best{at_step}", "mean of the better half", "95 % interval"]
    columns += ["averaged", f"best trial{at_step}", "diverged or failed"]
    lost = {}
    for name, trials in axis.groups(axis.ended):
        lost[name] = conclusions.share_text(int(trials["lost"].sum()), len(trials))
    rows = []
    for _, row in axis.isolation().iterrows():
        counts = [row["value"], f"{row['n']:,}"]
        means = [cell(row["best"]), cell(row["mean"]), conclusions.interval_text(row)]
        rest = [str(row["top"]), cell(row["trial"]), lost[row["value"]]]
        rows.append([*counts, *means, *rest])
    return Table(columns, rows, columns[1:6], title)


def _isolation(run: ReportedRun) -> Iterator[Block]:
    found = [axis for axis in run.axes if axis.is_scientific]
    if run.scores.reason:
        yield Text(f"Nothing can be compared: {run.scores.reason}.")
        return
    if not found:
        yield Text(NOT_SCIENTIFIC)
    for axis in found:
        figure = figures.isolation_plot(axis.isolation(), axis.key, run.metric)
        how = f"{conclusions.best_value(run, axis)} Dot and line: the mean of the better half and "
        how += "its 95 % interval. "
        how += f"Star: the best of each value{conclusions.at_step(run)}."
        yield Figure(figure, how, run.number, axis.key)
        yield _isolation_table(run, axis)


def _importance(run: ReportedRun) -> Iterator[Block]:
    scored, every = run.configurations
    if run.scores.reason:
        yield Text(f"Nothing can be compared: {run.scores.reason}.")
        return
    if scored < LEAST or run.importance.empty:
        yield Text(
            "Importance needs a searched hyperparameter and at least "
            f"{LEAST} configurations with a result; {scored} of {every} have one."
        )
        return
    table = run.importance
    yield Figure(
        figures.importance_plot(table), f"{IMPORTANCE} Compared {run.scores.phrase}.", run.number
    )
    rows = []
    for _, row in table.iterrows():
        shares = []
        for name in ("importance", "chance"):
            shares.append("-" if pd.isna(row[name]) else f"{row[name]:.1%}")
        p = "-" if pd.isna(row["p"]) else f"{row['p']:.2g}"
        is_chance = pd.isna(row["p"]) or row["p"] > CHANCE
        said = "no more than chance" if is_chance else "more than chance"
        rows.append([str(row["hyperparameter"]), *shares, p, said, f"{row['trials']:,}"])
    columns = ["hyperparameter", "importance", "by chance up to", "p", "verdict"]
    columns += ["n (trials where it takes part)"]
    yield Table(columns, rows, [*columns[1:4], columns[5]], TABLE_BELOW)
    if not run.reversals and run.configurations[0] >= 2 * LEAST:
        yield Text(conclusions.no_reversals(run))


def _boundaries(run: ReportedRun) -> Iterator[Block]:
    if not run.boundaries or run.configurations[0] < LEAST:
        yield Text(conclusions.outlook(run))
    for found in run.boundaries:
        yield Text(f"{code(found.key)}: {found.why}. Try next:", "warning")
        yield Code(found.next)


# --- the search, and the answers of its best model ---


def _failures(run: ReportedRun) -> Iterator[Block]:
    rows = []
    for failure in failures(run.results):
        status, count = failure.status.replace("_", " "), str(len(failure.trials))
        shared = ", ".join(f"{key} = {value}" for key, value in failure.shared.items())
        rows.append([status, count, failure.message, shared or "-", trial_list(failure)])
    diverged = int((run.ranked["status"] == "diverged").sum())
    every = quantity(len(run.ranked), "trial")
    if diverged > 0:
        yield Text(f"{diverged} of {every} diverged: a result, not a failure.")
    if rows:
        columns = ["status", "n", "message", "what only these trials have", "trials"]
        yield Table(columns, rows, ["n"])
    else:
        yield Text(f"None of {every} failed.")


def _time(run: ReportedRun) -> Iterator[Block]:
    parts = run.results.worker_seconds()
    total = math.fsum(parts.values())
    if total <= 0:
        yield Text("There is no report yet.")
        return
    how = (
        f"Where {total:,.0f} worker seconds went: training steps, evaluation, saving checkpoints "
        "(snapshots), waiting for the driver to take a report, and starting. Workers were idle "
        "between trials, and at the end when no trial was left to start (tail)."
    )
    yield Figure(figures.time_plot(parts), how, run.number)
    rows = [[part, f"{seconds:,.1f}", f"{seconds / total:.1%}"] for part, seconds in parts.items()]
    yield Table(["part", "seconds", "share"], rows, ["seconds", "share"], TABLE_BELOW)
    columns = ["node", "trials", "at once", "busy hours", "GPU hours", "idle"]
    nodes = []
    for name, row in run.nodes().iterrows():
        counts = [f"{row['trials']:,.0f}", f"{row['at_once']:.0f}"]
        hours = [f"{row['busy']:.3g}", f"{row['gpu']:.3g}"]
        nodes.append([str(name), *counts, *hours, f"{row['idle']:.1%}"])
    yield Table(columns, nodes, columns[1:])
    yield Text(NODES, "note")


def _answers(run: ReportedRun) -> Iterator[Block]:
    """Yields answers of the best model, and attention maps of the best model with attention."""
    place = place_of(run.history.search, run.results.folder)
    if is_far(place) and not run.fetch:
        where = code(shown_place(place))
        yield Text(
            f"Checkpoints and answers are at {where}; `report --fetch` reads the answers there."
        )
        return
    found: list[tuple[str, Answers]] = []
    for trial in run.scored["trial"].head(LOOKED_AT):
        loaded = load_answers(below(place, trial))
        if loaded is not None and loaded.examples:
            found.append((trial, loaded))
    if not found:
        yield Text("None of the best trials has recorded its answers.")
        return
    best, answers = found[0]
    right = sum(example.answer in example.references for example in answers.examples)
    yield Text(
        f"Answers of {code(best)} at step {answers.step:,} to "
        f"{quantity(len(answers.examples), 'source')} of the dev set: {right} right."
    )
    rows = []
    for example in answers.examples:
        source, answer = " ".join(example.source), " ".join(example.answer)
        rows.append([source, answer, _nearest(example), _is_right(example)])
    yield Table(["source", "answer", "reference", "right"], rows)
    for trial, answers in found:
        if any(example.attention is not None for example in answers.examples):
            whose = code(trial)
            if trial != best:
                whose += ", the best trial with attention"
            yield from _attention_maps(run, whose, answers)
            return


def _attention_maps(run: ReportedRun, whose: str, answers: Answers) -> Iterator[Block]:
    yield Text(
        f"Attention weights of {whose}. A row is a token of the answer, from top to bottom; a "
        "column is a token of the source. The stronger the colour, the larger the weight. The "
        "weights of a row sum to 1.",
        "note",
    )
    maps = [example for example in answers.examples if example.attention is not None][:MAPS]
    yield Grid([[_attention_map(run, example)] for example in maps])


def _attention_map(run: ReportedRun, example: Example) -> Figure:
    how = f"Down: the answer, {code(' '.join(example.answer))}"
    if _is_right(example) == "no":
        how += f" (the reference is {code(_nearest(example))})"
    how += ". Across: the source."
    return Figure(figures.attention_map(example), how, run.number, " ".join(example.source))


def _is_right(example: Example) -> str:
    return "yes" if example.answer in example.references else "no"


def _nearest(example: Example) -> str:
    """Returns the reference that equals the answer; if none does, the first reference."""
    if example.answer in example.references:
        return " ".join(example.answer)
    return " ".join(next(iter(example.references), []))


def _software(run: ReportedRun) -> Iterator[Block]:
    yield Text(
        f"The best report of a trial is the one with the best {code(run.metric)}, and the earliest "
        "of several equal ones. The report of a divergence is never the best. n counts trials that "
        "have a best report."
    )
    try:
        made = cleaned(json.loads((run.results.folder / ENVIRONMENT).read_text(encoding="utf-8")))
        versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
        corpus = f"{made['corpus']['name']}, fingerprint {made['corpus']['fingerprint'][:12]}"
        command = shlex.join(map(str, made["command"]))
        lines = [f"command {code(command)}", f"corpus {code(corpus)}"]
        lines += [f"commit {code(made['commit'])}", code(versions)]
        yield List(lines)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        yield Text(
            "Versions and commit are not known: the run folder has no valid environment.json."
        )
    yield Text(f"The search space as its file was given. {_asked(run)}")
    yield Code("\n".join(map(printable, run.space.text.strip().splitlines())))


def _asked(run: ReportedRun) -> str:
    """Says what the search ran, which its command may have changed from what the file says."""
    search = run.history.search
    said = f"This search: {quantity(search['trials'], 'trial')}"
    if "audits_of" in search:
        return f"{said} that {code(search['audits_of'])} had stopped, trained to the end."
    if "configs" in search:
        origin = code(search.get("replicates_of", "another search"))
        return f"{said} with configurations of {origin} and other seeds."
    if search.get("draws") is not None:
        option = f"--trials {search['draws']}"
        said += f" by {code(option)}"
    seed = run.space.search.seed if search.get("seed") is None else search["seed"]
    said += f", seed {code(seed)}"
    if search.get("warm_start_from"):
        said += f", warm start from {', '.join(map(code, search['warm_start_from']))}"
    fixed = []
    for key, value in (search.get("overrides") or {}).items():
        text = value if isinstance(value, str) else json.dumps(value)
        fixed.append(code(f"{key}: {text}"))
    return f"{said}, fixed: {', '.join(fixed)}." if fixed else f"{said}."
