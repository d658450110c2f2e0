"""The report of a search, or of several side by side: report.html and report.md, from run folders.

It says in words what the search found and how sure that is, and shows what it is based on. Neither Ray nor torch is
needed, nor any network to read it.
"""

import json
import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from s2s_search import figures
from s2s_search.answers import Example, load_answers
from s2s_search.axes import LEAST, TOP, Axis, Boundary, axes, boundary, isolation
from s2s_search.history import History, load_history, space_of
from s2s_search.page import (
    Block,
    Code,
    Figure,
    List,
    Ranking,
    Section,
    Table,
    Text,
    as_html,
    as_markdown,
    code,
)
from s2s_search.ranking import cell, failures_of
from s2s_search.results import Results, load
from s2s_search.spaces import Space
from s2s_search.table import ConfigError

HTML, MARKDOWN = "report.html", "report.md"
LOOKED_AT = 10  # best trials among whose answers attention is looked for


@dataclass(frozen=True, eq=False)
class Run:
    """A run folder as a report reads it; `number` is its place among the runs of the report."""

    number: int
    name: str
    results: Results
    history: History
    space: Space

    @property
    def metric(self) -> str:
        return self.results.metric

    @cached_property
    def ranked(self) -> pd.DataFrame:
        return self.results.best(None)

    @cached_property
    def scored(self) -> pd.DataFrame:
        """The trials that have a best report, best first."""
        return self.ranked[self.ranked[f"best.{self.metric}"].notna()]

    @cached_property
    def axes(self) -> list[Axis]:
        return axes(self.results, self.space)

    @cached_property
    def boundaries(self) -> list[Boundary]:
        return [found for found in map(boundary, self.axes) if found]

    @cached_property
    def importance(self) -> pd.DataFrame:
        return self.results.importance()

    @cached_property
    def numbers(self) -> dict[str, int]:
        """The rows of the trials table, by the trials' names."""
        return {trial: number for number, trial in enumerate(self.results.trials["trial"])}

    def settings(self, row: Any) -> dict[str, str]:
        """The searched hyperparameters that take part in a trial, as tables print them."""
        return {key: cell(row[key]) for key in self.results.searched if not pd.isna(row[key])}


def write_report(folders: Sequence[Path], out: Path | None = None) -> tuple[Path, Path]:
    """Writes the report of run folders as HTML and as Markdown; gives where: in the first folder, or as `out` says.

    Raises:
        ConfigError: a folder is none of a search, the searches are not judged by the same metric, or there is no
            writing there.
    """
    runs = read_runs(folders)
    title, about, parts = " · ".join(run.name for run in runs), _about(runs), sections(runs)
    labels = [list(_labels(run)) for run in runs]
    page = out or folders[0] / HTML
    texts = {
        page: as_html(title, about, parts, labels, figures.DARK),
        page.with_suffix(".md"): as_markdown(title, about, parts),
    }
    for path, text in texts.items():
        try:
            path.write_text(text, encoding="utf-8", errors="replace")
        except OSError as error:
            raise ConfigError(f"cannot be written: {error.strerror}", str(path)) from None
    return page, page.with_suffix(".md")


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Reads run folders. Raises ConfigError with what is wrong with any of them."""
    paths = [Path(os.path.normpath(folder.absolute())) for folder in folders]
    names = [path.name for path in paths]
    if len({*names}) < len(names):
        names = [str(folder) for folder in folders]
    runs, problems = [], list[str]()
    for number, (name, folder) in enumerate(zip(names, folders, strict=True)):
        try:
            runs.append(_read_run(number, name, folder))
        except ConfigError as error:
            problems += [str(error)]
    judged = {run.name: f"{run.results.goal} {run.metric}" for run in runs}
    if len({*judged.values()}) > 1:
        each = ", ".join(f"{name} by {how}" for name, how in judged.items())
        problems.append(f"the runs of a report must be judged by the same metric, but they are: {each}")
    if problems:
        raise ConfigError(problems)
    return runs


def _read_run(number: int, name: str, folder: Path) -> Run:
    history = load_history(folder)
    space, overrides = space_of(history, folder), history.search.get("overrides")
    return Run(number, name, load(folder), history, space.fixed(overrides) if overrides else space)


def sections(runs: Sequence[Run]) -> list[Section]:
    """What is in the report, in the order in which a reader needs it."""
    names = [run.name for run in runs] if len(runs) > 1 else []
    better = "lower" if runs[0].results.minimizes(runs[0].metric) else "higher"

    def each(title: str, how: str, blocks: Any) -> Section:
        return Section(title, how, [list(blocks(run)) for run in runs], names)

    return [
        each("In short", "", _conclusion),
        Section("Ranking", f"By the best report of each trial; {better} is better.", [_ranking(runs)]),
        Section("Best so far", "", [_best_so_far(runs)]),
        each("Learning curves", "", _learning_curves),
        each("Parallel coordinates", "", _parallel_coordinates),
        each("One hyperparameter at a time", AXIS_PLOTS, _axis_plots),
        each("Scientific hyperparameters", ISOLATION, _isolation),
        each("Importance", "", _importance),
        each("Ends of the ranges", BOUNDARIES, _boundaries),
        each("Failures", "", _failures),
        each("Time", "", _time),
        each("Answers", "", _answers),
        each("How it was made", "", _software),
    ]


AXIS_PLOTS = (
    "Each mark is a trial at its best report; all other hyperparameters differ too, so a slope is a hint and not an "
    "effect. Trials that were stopped early had fewer steps to get good."
)
ISOLATION = (
    f"What each value reached when the other hyperparameters suited it: the best trial, and the mean of the best {TOP} "
    "with its 95 % bootstrap interval. More trials (n) make a better best by chance alone."
)
BOUNDARIES = (
    "Where the best trial, or most of the best tenth, lies in the outermost twentieth of a range or at the last of the "
    "numbers to choose from, better values may lie beyond."
)


# --- in words ---


def _about(runs: Sequence[Run]) -> str:
    first = runs[0]
    counts = ", ".join(f"{len(run.ranked):,} trials of {code(run.name)}" for run in runs)
    return f"What a search found: {counts}; judged by {code(first.metric)}, which it {first.results.goal}s."


def _conclusion(run: Run) -> Iterator[Block]:
    trials, table = run.ranked, run.results
    yield Text(f"{_search_status(run)} {_count(trials['status'])}.")
    if run.scored.empty:
        yield Text("No trial has made a report yet, so there is nothing to rank.", "warning")
        return
    best, score = run.scored.iloc[0], f"best.{run.metric}"
    at = f"{code(run.metric)} {best[score]:.4g} at step {best['best.step']:,}"
    yield Text(f"The best of {len(run.scored):,} trials with a result is {code(best['trial'])}: {at}. Its settings:")
    yield List([f"{code(key)} {code(value)}" for key, value in run.settings(best).items()])
    yield List([*_sureness(run), *_further(run)])
    if run.boundaries:
        yield Text("What to search next, because the best trials lie at the end of what was searched:")
        yield Code("\n".join(found.next for found in run.boundaries))
    for problem in table.damaged:
        yield Text(code(problem), "warning")


def _search_status(run: Run) -> str:
    said = {
        "finished": "The search finished.",
        "running": "The search is still running: everything here is of the moment.",
        "killed": "The search was killed and can be resumed: what follows is what it had found.",
    }
    why = f": {code(run.history.message)}" if run.history.message else ""
    return said.get(run.results.status, f"The search ended before it was done ({run.results.status}{why}).")


def _count(statuses: "pd.Series[str]") -> str:
    counts = Counter(statuses)
    each = ", ".join(f"{n:,} {status.replace('_', ' ')}" for status, n in counts.most_common())
    return f"Of {len(statuses):,} trials: {each}" if counts else "No trial has started"


def _sureness(run: Run) -> Iterator[str]:
    """What the numbers can and cannot say of the best trial."""
    score, rows = f"best.{run.metric}", run.scored
    best = rows.iloc[0]
    if len(rows) > 1:
        second = rows.iloc[1]
        distance = abs(second[score] - best[score]) / abs(best[score]) if best[score] else math.nan
        apart = "" if math.isnan(distance) else f", {distance:.1%} worse"
        yield f"The second, {code(second['trial'])}, reached {second[score]:.4g}{apart}."
    if run.space.search.replicates == 1:
        yield (
            "Each configuration ran with one seed: whether a small distance between two trials is more than chance, "
            "these numbers cannot say. `run_search.py replicate` runs the best ones again with other seeds."
        )
    if best["best.step"] == best["step"] and best["status"] == "finished":
        yield (
            f"The best trial was at its best in its last report, at step {best['step']:,}: more steps may improve it, "
            "and may change the order."
        )
    stopped = int((run.ranked["status"] == "stopped").sum())
    if stopped:
        share = f"{stopped:,} of {len(run.ranked):,}"
        yield f"{share} trials were stopped early; what they would have reached in the end is not known."


def _further(run: Run) -> Iterator[str]:
    """What the hyperparameters had to do with it."""
    if len(run.importance):
        first = run.importance.iloc[0]
        share = f"{code(first['hyperparameter'])}, with {first['importance']:.0%} of the importance"
        yield f"What mattered most for being among the best: {share} (n = {first['trials']:,})."
    for axis in run.axes:
        if axis.is_scientific:
            yield _verdict(axis, run.results.minimizes(run.metric))
    if not run.boundaries and len(run.scored) >= LEAST:
        yield "The best trials lie at no end of a range: the ranges were wide enough for what was found."


def _verdict(axis: Axis, minimize: bool) -> str:
    """Which value of a scientific hyperparameter did best, and whether that is more than chance."""
    table = isolation(axis).dropna(subset="mean").sort_values("mean", ascending=minimize)
    if len(table) < 2:
        return f"{code(axis.key)}: fewer than two of its values have a result, so there is nothing to compare."
    first, second = (table.iloc[k] for k in (0, 1))

    def said(row: Any) -> str:
        return f"{code(row['value'])} {row['mean']:.4g} ({_interval(row)}, n = {row['n']})"

    if pd.isna(first["low"]) or pd.isna(second["low"]):
        sure = "one of them has too few trials for an interval"
    elif first["high"] < second["low"] or second["high"] < first["low"]:
        sure = "their intervals lie apart"
    else:
        sure = "their intervals overlap, so this search does not tell them apart"
    return f"{code(axis.key)}, by the mean of the best {TOP}: {said(first)}, then {said(second)}; {sure}."


def _interval(row: Any) -> str:
    return "no interval" if pd.isna(row["low"]) else f"{row['low']:.4g} to {row['high']:.4g}"


# --- trials ---


def _ranking(runs: Sequence[Run]) -> list[Block]:
    several = len(runs) > 1
    score = f"best.{runs[0].metric}"
    tables = [run.ranked.assign(run=run.name) for run in runs]
    table = pd.concat([part.astype(object) for part in tables], ignore_index=True)
    upwards = runs[0].results.minimizes(runs[0].metric)
    table = table.sort_values(score, ascending=upwards, na_position="last", kind="stable")
    searched = list(dict.fromkeys(key for run in runs for key in run.results.searched))
    others = [f"best.{name}" for run in runs for name, _ in run.results.objectives[1:]]
    names = ["run"] * several + ["trial", "status", score, "best.step", f"last.{runs[0].metric}", *others, "step"]
    names = [name for name in dict.fromkeys([*names, "seconds", "parameters", *searched]) if name in table]
    rows = [[str(rank), *map(cell, row)] for rank, row in enumerate(table[names].itertuples(index=False), 1)]
    numbers = [
        name for name in names if all(pd.api.types.is_numeric_dtype(part[name]) for part in tables if name in part)
    ]
    return [Ranking(["rank", *names], rows, ["rank", *numbers])]


def _labels(run: Run) -> Iterator[str]:
    """What is said of each trial where the pointer is on it."""
    for row in run.results.trials.to_dict("records"):
        settings = [f"{figures.plain(key)} {figures.plain(value)}" for key, value in run.settings(row).items()]
        yield "<br>".join([f"<b>{row['trial']}</b> {row['status']}", *settings])


def _best_so_far(runs: Sequence[Run]) -> list[Block]:
    gpu = max(run.space.resources.gpu for run in runs)
    cost = "GPU hours" if gpu else "worker seconds"
    lines = [(run.name, _best_table(run)) for run in runs]
    if all(table.empty for _, table in lines):
        return [Text("There is no report yet.")]
    how = (
        f"The best {code(runs[0].metric)} that any trial had reported by then, over time (left) and over the "
        f"{cost} that training had taken (right); each mark is a trial that took the lead."
    )
    rows = []
    for run, (name, table) in zip(runs, lines, strict=True):
        trials = list(run.numbers)
        for number, elapsed, spent, best in table.itertuples(index=False):
            said = [trials[number], f"{elapsed:,.1f}", f"{spent:,.4g}", f"{best:.4g}"]
            rows.append([name, *said] if len(runs) > 1 else said)
    columns = ["run"] * (len(runs) > 1) + ["trial", "elapsed seconds", cost, runs[0].metric]
    figure = figures.best_so_far(lines, runs[0].metric, cost)
    return [Figure(figure, how), Table(columns, rows, columns[-3:], title="The same as a table")]


def _best_table(run: Run) -> pd.DataFrame:
    """Who led when, and the end: number (of the trial), elapsed (seconds), cost (worker seconds or GPU hours), best."""
    reports = run.results.reports
    reports = reports.assign(number=reports["trial"].map(run.numbers), value=reports[run.metric].astype(float))
    spent = reports.groupby("trial")["seconds"].diff().fillna(reports["seconds"]).fillna(0.0).clip(lower=0.0).cumsum()
    gpu = run.space.resources.gpu
    table = reports.assign(cost=spent * gpu / 3600 if gpu else spent)
    table = table[table["status"].fillna("").ne("diverged") & table["value"].notna()]
    best = table["value"].cummin() if run.results.minimizes(run.metric) else table["value"].cummax()
    leads = table[best != best.shift()].assign(best=best)
    if len(leads):
        end = reports.iloc[-1]["elapsed"], float((spent * gpu / 3600 if gpu else spent).iloc[-1])
        last = leads.iloc[-1:].assign(elapsed=end[0], cost=end[1])
        leads = pd.concat([leads, last], ignore_index=True)
    return leads[["number", "elapsed", "cost", "best"]].astype(float).astype({"number": int})


def _learning_curves(run: Run) -> Iterator[Block]:
    curves, table = run.results.curves(), run.results.trials
    if curves.empty:
        yield Text("There is no report yet.")
        return
    rungs = list(_rungs(run))
    best = run.numbers[run.scored.iloc[0]["trial"]] if len(run.scored) else None
    lines = [(step, f"rung {step:g}: {came - stopped} of {came} went on") for step, came, stopped in rungs]
    how = (
        f"{code(run.metric)} at each report of {len(table):,} trials; those that were stopped are faint, the best is "
        "thick. The pointer names a trial and lifts its curve."
    )
    how += " Dotted: the rungs at which the scheduler compared trials." if rungs else ""
    yield Figure(figures.learning_curves(curves, table["status"].tolist(), best, lines, run.metric), how, run.number)
    if rungs:
        rows = [[f"{step:g}", *map(str, (came, came - stopped, stopped))] for step, came, stopped in rungs]
        columns = ["rung (step)", "trials that came", "went on", "stopped"]
        yield Table(columns, rows, columns, title="The rungs as a table")


def _rungs(run: Run) -> Iterator[tuple[float, int, int]]:
    """Yields the steps of the scheduler's rungs, how many trials were compared at each, and how many were stopped."""
    came, stopped = Counter[float](), Counter[float]()
    for trial in run.history.trials.values():
        for event in trial.decisions:
            if event.get("rung") is not None:
                came[event["rung"]] += 1
                stopped[event["rung"]] += event["action"] == "stop"
    for rung in sorted(came):
        yield rung, came[rung], stopped[rung]


# --- hyperparameters ---


def _parallel_coordinates(run: Run) -> Iterator[Block]:
    if run.scored.empty or not run.axes:
        yield Text("There is nothing to draw: no trial has a result, or nothing was searched.")
        return
    scores = run.scored[f"best.{run.metric}"].astype(float)
    trials = [(run.numbers[trial], score) for trial, score in zip(run.scored["trial"], scores, strict=True)]
    how = (
        f"A line is a trial (n = {len(trials):,}), from setting to setting to its best {code(run.metric)}; the better "
        "its rank, the stronger its colour. Dragging along an axis keeps the lines that pass there; a click lets them "
        "go."
    )
    yield Figure(figures.parallel_coordinates(run.axes, trials, run.metric), how, run.number)


def _axis_plots(run: Run) -> Iterator[Block]:
    for axis in run.axes:
        scale = ", on a logarithmic axis as it was searched" if axis.range is not None and axis.range.log else ""
        without = f"; it takes no part in {axis.without:,} others" if axis.without else ""
        how = f"n = {len(axis.points):,}{scale}{without}. The star is the best trial."
        how += " Marks lie side by side within a value so that all can be seen." if axis.names else ""
        yield Figure(figures.axis_plot(axis, run.metric), how, run.number, axis.key)
        yield _isolation_table(axis, f"{axis.key} as a table")


def _isolation_table(axis: Axis, title: str = "") -> Table:
    columns = ["value", "n", "best", "mean of the best", "95 % interval", "of so many", "best trial"]
    rows = [
        [
            row["value"],
            f"{row['n']:,}",
            cell(row["best"]),
            cell(row["mean"]),
            _interval(row),
            str(row["top"]),
            cell(row["trial"]),
        ]
        for _, row in isolation(axis).iterrows()
    ]
    return Table(columns, rows, columns[1:6], title)


def _isolation(run: Run) -> Iterator[Block]:
    found = [axis for axis in run.axes if axis.is_scientific]
    if not found:
        yield Text(
            "No searched hyperparameter has `role: scientific` in the file of the search space. Write it beside those "
            "whose values the search is to compare, as in `encoder.type: {choices: [...], role: scientific}`."
        )
    for axis in found:
        how = f"n = {len(axis.points):,}. Where two intervals overlap, the search does not tell their values apart."
        yield Figure(figures.isolation_plot(isolation(axis), axis.key, run.metric), how, run.number, axis.key)
        yield _isolation_table(axis)


def _importance(run: Run) -> Iterator[Block]:
    table = run.importance
    if table.empty:
        yield Text(f"{table.attrs.get('reason', 'There is nothing to say')}.")
        return
    how = (
        "How differently the best tenth (at least 5 trials) and all trials are spread over the values of each "
        "hyperparameter (PED-ANOVA), as shares of 1. It says what mattered within the ranges that were searched."
    )
    yield Figure(figures.importance_plot(table), how, run.number)
    rows = [[str(row.hyperparameter), f"{row.importance:.1%}", f"{row.trials:,}"] for row in table.itertuples()]
    columns = ["hyperparameter", "importance", "n (trials where it takes part)"]
    yield Table(columns, rows, columns[1:], title="The same as a table")


def _boundaries(run: Run) -> Iterator[Block]:
    if len(run.scored) < LEAST:
        yield Text(f"This needs at least {LEAST} trials with a result, and there are {len(run.scored)}.")
    elif not run.boundaries:
        yield Text("None: the best trials lie inside of everything that was searched.")
    for found in run.boundaries:
        yield Text(f"{code(found.key)}: {found.why}. To try next:", "warning")
        yield Code(found.next)


# --- the search, and what its best model says ---


def _failures(run: Run) -> Iterator[Block]:
    rows = []
    for failure in failures_of(run.results):
        trials = ", ".join(failure.trials[:6]) + (", ..." if len(failure.trials) > 6 else "")
        shared = ", ".join(f"{key} = {value}" for key, value in failure.shared.items())
        rows.append(
            [failure.status.replace("_", " "), str(len(failure.trials)), failure.message, shared or "-", trials]
        )
    diverged = int((run.ranked["status"] == "diverged").sum())
    if diverged:
        yield Text(f"{diverged} trials diverged: a loss was not finite. That is a result, and no failure.")
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
        f"Where {total:,.0f} worker seconds went: training steps, evaluation, checkpoints, waiting until a report was "
        "taken, starting; then idle, between trials and at the end, when none was left to start (tail)."
    )
    yield Figure(figures.time_plot(parts), how, run.number)
    rows = [[part, f"{seconds:,.1f}", f"{seconds / total:.1%}"] for part, seconds in parts.items()]
    yield Table(["part", "seconds", "share"], rows, ["seconds", "share"], title="The same as a table")
    columns = ["node", "trials", "at once", "busy hours", "GPU hours", "idle"]
    yield Table(columns, list(_nodes(run)), columns[1:])
    yield Text(
        "Of each node: how many trials it ran, and at most at once; hours from start to end of all of them, times a "
        f"trial's GPU share ({run.space.resources.gpu:g}); and the share of the search's time in which it had room for "
        "a trial and ran none. A trial counts where it made its newest report.",
        "note",
    )


def _nodes(run: Run) -> Iterator[list[str]]:
    reports = run.results.reports
    node = reports.dropna(subset="node").drop_duplicates("trial", keep="last").set_index("trial")["node"]
    trials = run.results.trials
    trials = trials.assign(node=trials["trial"].map(node).astype("string").fillna("not known"))
    end = max(trials["ended"].max(), reports["elapsed"].max())
    spans = trials.assign(ended=trials["ended"].fillna(end).astype(float), began=trials["began"].astype(float))
    length = float(end) - spans["began"].min()
    for name, group in spans.groupby("node"):
        changes = sorted([*((t, 1) for t in group["began"]), *((t, -1) for t in group["ended"])])
        at_once = int(pd.Series([change for _, change in changes]).cumsum().max())
        busy = float((group["ended"] - group["began"]).sum())
        idle = 1 - busy / (at_once * length) if at_once and length else 0.0
        gpu = busy * run.space.resources.gpu / 3600
        yield [str(name), str(len(group)), str(at_once), f"{busy / 3600:.3g}", f"{gpu:.3g}", f"{max(idle, 0.0):.1%}"]


def _answers(run: Run) -> Iterator[Block]:
    """Examples that the best model decoded, and where the best model with attention looked."""
    place = run.history.search.get("storage") or run.results.folder
    looked = [(trial, load_answers(f"{place}/{trial}")) for trial in run.scored["trial"].head(LOOKED_AT)]
    found = [(trial, answers) for trial, answers in looked if answers is not None and answers.examples]
    if not found:
        yield Text("None of the best trials has written its answers.")
        return
    trial, answers = found[0]
    yield Text(
        f"What {code(trial)} answers to {len(answers.examples)} sources of the dev set, at step {answers.step:,}."
    )
    rows = [[" ".join(e.source), " ".join(e.answer), *_reference(e)] for e in answers.examples]
    yield Table(["source", "answer", "a reference", "right"], rows)
    with_attention = [(trial, answers) for trial, answers in found if answers.examples[0].attention is not None]
    for trial, answers in with_attention[:1]:
        best = "" if trial == found[0][0] else ", the best trial that has attention"
        yield Text(
            f"Where {code(trial)}{best} looked: a row for each token that it wrote, from top to bottom; the darker (on "
            "a dark page, the brighter) a cell, the more of its attention that row gave to the source token above.",
            "note",
        )
        for example in answers.examples[:4]:
            if example.attention is not None:
                title = f"{' '.join(example.source)} → {' '.join(example.answer)}"
                yield Figure(figures.attention_map(example), "Each row sums to 1.", run.number, title)


def _reference(example: Example) -> tuple[str, str]:
    right = example.answer in example.references
    shown = example.answer if right else example.references[0] if example.references else []
    return " ".join(shown), "yes" if right else "no"


def _software(run: Run) -> Iterator[Block]:
    yield Text(
        f"Best: of all reports of a trial the one with the best {code(run.metric)}, the earliest of equals; never that "
        "of a divergence. n counts trials with such a report. Intervals are bootstrap intervals of a mean."
    )
    try:
        made = json.loads((run.results.folder / "environment.json").read_text())
        corpus, versions = made["corpus"], made.get("versions", {})
    except (OSError, ValueError, LookupError, TypeError):
        return
    rows = [
        ["command", " ".join(map(str, made.get("command", [])))],
        ["corpus", f"{corpus['name']}, fingerprint {corpus['fingerprint'][:12]}"],
        ["seed of the search", str(made.get("seed"))],
        ["commit", str(made.get("commit"))],
        ["versions", ", ".join(f"{name} {version}" for name, version in versions.items())],
    ]
    yield Table(["what", ""], rows)
    yield Code(run.space.text.strip())
