"""What to do next, by the conclusions of the report. Each line ends with what to write or to run.

Nothing is tested or estimated here: the lines repeat what other modules conclude.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from s2s_search.errors import command, quantity
from s2s_search.report.axes import Axis
from s2s_search.report.conclusions import at_step, best_configurations, contenders, still_improved
from s2s_search.report.page import code
from s2s_search.report.quoted import to_quote
from s2s_search.report.runs import ReportedRun
from s2s_search.results import early
from s2s_search.results.compare import settings_compared
from s2s_search.results.isolation import CHANCE
from s2s_search.results.statistics import LEAST
from s2s_search.runs.explain import AUDITED
from s2s_search.spaces.dimensions import Choice

MOST = 6  # the number of lines
DECAYS = (
    "optimizer.lr_decay_steps",
    "optimizer.lr_start_decay_at",
    "optimizer.lr_stop_decay_at",
)
OF_STEPS = {"choices", "grid", "min", "max", "step", "prior"}  # options that hold values of a key


def advice(run: ReportedRun) -> list[str]:
    """Returns at most six lines: first about the space, then about the steps and the test part."""
    last = [*_too_early(run), *_more_steps(run), *_number_to_quote(run)]
    space: list[str] = []
    if not run.scores.reason and run.configurations[0] >= LEAST:
        space = [*_ends(run), *_decided(run), *_undecided(run)]
    return [*space[: MOST - len(last)], *last]


# --- the space ---


def _ends(run: ReportedRun) -> Iterator[str]:
    for found in run.boundaries:
        later = ", which later steps may reverse" if run.scores.step is not None else ""
        yield (
            f"Move the values of {code(found.key)}: the results improve up to an end{later}: "
            f"{code(found.next)}."
        )


def _decided(run: ReportedRun) -> Iterator[str]:
    """Yields for each hyperparameter that is decided what to fix or to narrow."""
    dependent = {key for found in run.reversals for key in (found.key, found.other)}
    for axis in _scientific(run):
        names, tried = contenders(run, axis), axis.isolation()["n"] > 0
        if len(names) != 1 or len(axis.choices) < 2 or not tried.all() or axis.key in dependent:
            continue
        best = code(names[0])
        if run.scores.step is None:
            yield (
                f"Fix {code(axis.key)}, as {best} is better than its other values: "
                f"{code(_fixed(axis, names[0]))}."
            )
        else:
            yield (
                f"{best} is the best {code(axis.key)}{at_step(run)}, which later steps may "
                "reverse. Before you fix it, train all values to the end: "
                f"{code(_values(axis, list(axis.choices), 'grid'))}, {code(_unstopped(run))}."
            )
    if run.scores.step is not None:
        return
    moved = {found.key for found in run.boundaries}
    for axis in _of_importance(run, is_chance=False):
        found = best_configurations(axis)
        if axis.key in moved or len(found["value"].unique()) < 2:
            continue
        if axis.choices:
            names = [name for name in axis.choices if name in set(found["name"])]
            line = _values(axis, names, "choices")
        else:
            line = _range(axis, found["value"].min(), found["value"].max())
        yield f"Narrow {code(axis.key)} to the values of its best configurations: {code(line)}."


def _undecided(run: ReportedRun) -> Iterator[str]:
    """Yields what would decide a hyperparameter that is not decided."""
    for axis in _scientific(run):
        names = contenders(run, axis)
        if len(names) > 1 and axis.choices:
            text = f"Undecided{at_step(run)}: {code(axis.key)}."
            yield f"{text} {_shown_by(run, axis, names)}"
    others = list(_of_importance(run, is_chance=True))
    if not others:
        return
    keys = ", ".join(code(axis.key) for axis in others)
    text = f"Undecided{at_step(run)}: {keys}. Keep their values in the search."
    for axis in others:
        if len(axis.choices) > 1:
            table = axis.isolation().dropna(subset="mean")
            names = list(table.sort_values("mean", ascending=axis.minimizes)["value"])
            if len(names) > 1:
                yield f"{text} {_shown_by(run, axis, names)}"
                return
    yield text


def _shown_by(run: ReportedRun, axis: Axis, names: Sequence[str]) -> str:
    """Says how many configurations would tell two values apart, and what to write for it."""
    folder, grid = run.results.folder, code(_values(axis, names, "grid"))
    asked = [f"{axis.key}={_text(axis, name)}" for name in names[:2]]
    found = settings_compared(folder, run.history, *asked)
    if found is None or not found[0].is_open:
        return f"Run the values of {code(axis.key)} at each draw: {grid}."
    comparison = found[0]
    low, high = comparison.interval()
    at = "" if found[1] is None else f" at step {found[1]:,}"
    return (
        f"{comparison.needed()} tell {code(names[0])} from {code(names[1])}{at} in 80 of 100 "
        f"cases, if they differ by as much as the ends of the 95 % interval ({low:+.2g} to "
        f"{high:+.2g}): {grid}."
    )


def _scientific(run: ReportedRun) -> list[Axis]:
    return [axis for axis in run.axes if axis.is_scientific]


def _of_importance(run: ReportedRun, is_chance: bool) -> Iterator[Axis]:
    """Yields the axes that explain no more than chance, or more; the clearest evidence first.

    Scientific hyperparameters are judged by their values, and are not among them.
    """
    axes = {axis.key: axis for axis in run.axes if not axis.is_scientific}
    for _, row in run.importance.dropna(subset="p").iterrows():
        if row["hyperparameter"] in axes and (row["p"] > CHANCE) == is_chance:
            yield axes[row["hyperparameter"]]


# --- the steps and the test part ---


def _too_early(run: ReportedRun) -> Iterator[str]:
    """Yields what would show whether trials were stopped too early, or what showed it."""
    rungs, folder = run.rungs(), run.results.folder
    stopped = int(run.ranked["status"].eq("stopped").sum())
    if not rungs or stopped == 0:
        return
    first = rungs[0][0]
    if run.audits is not None:
        better, count = early.overtaking(run.results, run.audits)
        if better > 0 and len(rungs) > 1:
            yield (
                f"{better} of {quantity(count, 'stopped trial')} became better than the best when "
                "trained to the end. Stop trials later: "
                f"{code(_scheduler(run, grace_steps=int(rungs[1][0])))}."
            )
    elif not early.predictions(run.results, [first]).iloc[0]["low"] >= early.ENOUGH:
        audit = command("replicate", folder, "--audit", min(AUDITED, stopped))
        yield (
            f"Whether step {first:,g} is too early to stop trials is not known. Train some of the "
            f"stopped ones to the end: {code(audit)}."
        )


def _more_steps(run: ReportedRun) -> Iterator[str]:
    if len(run.scored) and still_improved(run):
        longer = code(_scheduler(run, max_steps=2 * run.space.scheduler.max_steps))
        decays = list(_longer_decays(run))
        how = "Train longer"
        if decays:
            how += ", with decays of the learning rate that are twice as long, too"
            longer = f"{longer} and {', '.join(map(code, decays))}"
        yield f"The best trial still improved at its last report. {how}: {longer}."


def _number_to_quote(run: ReportedRun) -> Iterator[str]:
    commands = to_quote(run)
    if commands:
        yield (
            "When you have chosen, and only then, measure the best with other seeds or examples: "
            f"{', then '.join(map(code, commands))}."
        )


# --- lines of a search-space file ---


def _line(key: str, value: Any) -> str:
    text = yaml.safe_dump(
        {key: value}, default_flow_style=True, sort_keys=False, width=10_000, allow_unicode=True
    )
    return text.strip()[1:-1]  # without the braces of the outer mapping


def _values(axis: Axis, names: Sequence[str], kind: str) -> str:
    """Returns the line that searches some values of a choice, with the labels of the file."""
    domain, values = axis.dimension.domain, list(map(axis.choices.__getitem__, names))
    assert isinstance(domain, Choice)
    options: dict[str, Any] = {kind: values}
    if domain.labels:
        options = {kind: {domain.labels[domain.values.index(value)]: value for value in values}}
    if kind == "grid":
        options["role"] = "scientific"
    return _line(axis.key, options | _when(axis))


def _fixed(axis: Axis, name: str) -> str:
    """Returns the line that gives a choice one of its values."""
    if axis.dimension.when:
        return _values(axis, [name], "choices")
    return _line(axis.key, axis.choices[name])


def _range(axis: Axis, low: float, high: float) -> str:
    """Returns the line that searches a part of a range."""
    assert axis.range is not None
    ends = [round(end) if axis.range.whole else float(f"{end:.3g}") for end in (low, high)]
    options: dict[str, Any] = {"min": ends[0], "max": ends[1]}
    if axis.range.log:
        options["log"] = True
    if axis.range.step is not None and axis.range.step != 1:
        options["step"] = axis.range.step
    return _line(axis.key, options | _when(axis))


def _when(axis: Axis) -> dict[str, Any]:
    """Returns the condition of a hyperparameter as an entry of its options, if it has one."""
    when = {parent: list(values) for parent, values in axis.dimension.when.items()}
    return {"when": when} if when else {}


def _text(axis: Axis, name: str) -> str:
    """Returns a value as `compare` takes it: its label, or the value itself."""
    value, domain = axis.choices[name], axis.dimension.domain
    assert isinstance(domain, Choice)
    if domain.labels:
        return domain.labels[domain.values.index(value)]
    return json.dumps(value) if isinstance(value, dict | list | bool) else str(value)


def _scheduler(run: ReportedRun, **changes: int) -> str:
    """Returns the scheduler of the space's file with some changes, as a line of such a file."""
    given = yaml.safe_load(run.space.text).get("scheduler")
    if not isinstance(given, dict):
        given = {"name": run.space.scheduler.name, "max_steps": run.space.scheduler.max_steps}
    return _line("scheduler", given | changes)


def _longer_decays(run: ReportedRun) -> Iterator[str]:
    """Yields the lines of the space's file that say when learning rates decay, in doubled steps."""
    given = yaml.safe_load(run.space.text).get("parameters") or {}
    for key in DECAYS:
        doubled = _doubled(given.get(key), run.space.scheduler.max_steps)
        if doubled != given.get(key):
            yield _line(key, doubled)


def _doubled(value: Any, longest: int) -> Any:
    """Returns a value of the space's file with numbers of steps doubled.

    Numbers beyond `longest` stay, as they stand for never.
    """
    if isinstance(value, list):
        return [_doubled(each, longest) for each in value]
    if isinstance(value, dict) and not OF_STEPS.isdisjoint(value):
        changes = {key: _doubled(value[key], longest) for key in value if key in OF_STEPS}
        return value | changes
    if isinstance(value, dict):  # the values of a choice, by their labels
        return {name: _doubled(each, longest) for name, each in value.items()}
    if isinstance(value, int | float) and value <= longest:
        return 2 * value
    return value


def _unstopped(run: ReportedRun) -> str:
    return _line("scheduler", {"name": "none", "max_steps": run.space.scheduler.max_steps})
