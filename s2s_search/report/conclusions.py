"""The conclusions of a search in words, and how certain they are.

The sentences have `code` between backticks, as the blocks of a page expect.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from s2s_search.errors import quantity
from s2s_search.report.axes import Axis
from s2s_search.report.boundaries import is_judged
from s2s_search.report.page import code
from s2s_search.report.quoted import quoted
from s2s_search.report.runs import ReportedRun
from s2s_search.results.importance import Reversal
from s2s_search.results.isolation import CHANCE, by_configuration, conclusion, leaders
from s2s_search.results.replicates import seed_deviation
from s2s_search.results.statistics import BEST_SHARE, FEWEST_BEST, LEAST, share_interval
from s2s_search.statuses import FAILURES, PLATEAUED, TIME_IS_OVER

STATUS = {
    "finished": "The search finished.",
    "running": "The search is still running: all results are preliminary.",
    "killed": "The search was killed, and can be resumed: these are the results until then.",
}


def state(run: ReportedRun) -> str:
    """Says how the search ended, and how its trials did."""
    status, message = run.results.status, run.history.message
    why = f": {code(message)}" if message else ""
    said = STATUS.get(status, f"The search ended before it was done ({status}{why}).")
    counts = Counter(run.ranked["status"]).most_common()
    if not counts:
        return f"{said} No trial has started."
    # A trial of a search that has ended may wait to be resumed.
    known = {"running": "running" if status == "running" else "not ended"}
    each = ", ".join(f"{n:,} {known.get(name, name.replace('_', ' '))}" for name, n in counts)
    return f"{said} Of {quantity(len(run.ranked), 'trial')}: {each}."


ENDED = {
    "stopped": ", which was stopped early,",
    PLATEAUED: ", which plateaued (`train.patience`),",
    "diverged": ", which diverged later,",
    "running": ", which has not ended,",
}


def winner(run: ReportedRun) -> str:
    """Says which trial is the best, with its value and its step. The run must have a result."""
    best = run.scored.iloc[0]
    ending = ENDED.get(best["status"], f", which ended as {best['status'].replace('_', ' ')},")
    if best["status"] == "finished":
        ending = ""
    alone = len(run.scored) == 1
    of = "the only trial" if alone else f"the best of {len(run.scored):,} trials"
    said = (
        f"{code(best['trial'])}{ending} is {of} with a result: "
        f"{code(run.metric)} {best[run.score]:.4g} at step {best['best.step']:,}."
    )
    equal = int((run.scored[run.score] == best[run.score]).sum()) - 1
    if equal:
        others = "Another trial has" if equal == 1 else f"{equal:,} other trials have"
        said += f" {others} the same value."
    return f"{said} Its settings:"


def best_of(runs: Sequence[ReportedRun]) -> str:
    """Says which of several runs has the best trial."""
    scored = [run for run in runs if len(run.scored)]
    if not scored:
        return "No run has a result yet."
    choose = min if runs[0].minimizes else max
    best = choose(scored, key=lambda run: float(run.scored.iloc[0][run.score]))
    row = best.scored.iloc[0]
    return (
        f"The best trial of all is {code(row['trial'])} of {code(best.name)}, "
        f"with {row[best.score]:.4g}."
    )


def sureness(run: ReportedRun) -> Iterator[str]:
    """Yields what the numbers can and cannot say about the best trial."""
    rows = run.scored
    best = rows.iloc[0]
    if len(run.replicates) and run.beside is not None:
        yield (
            f"{quantity(len(run.replicates), 'configuration')} ran again with other seeds, in "
            f"{code(run.beside.name)} beside this run. Trust their means, in the table below, more "
            "than the value of the best trial, which was chosen because its value is good. "
            "`run_search.py compare` says whether two configurations differ."
        )
    elif len(run.replicates):
        yield (
            "Configurations ran with several seeds. The first mean in the table below is too good, "
            "because it was chosen as the best. `run_search.py replicate` runs the best "
            "configurations again with fresh seeds: trust those means."
        )
    else:
        yield (
            "Each configuration ran with one seed, so these numbers cannot say whether a small "
            "difference between two trials is more than chance. `run_search.py replicate` runs the "
            "best configurations again with other seeds."
        )
        if len(rows) > 1:
            yield _distance(best, rows.iloc[1], run.score)
    if len(run.replicates):
        yield from _deviation(run)
    yield from unequal(run)
    if still_improved(run):
        yield (
            f"The best report of the best trial was its last, at step {best['step']:,}: more steps "
            "may improve it, and may change the ranking."
        )
    stopped = int((run.ranked["status"] == "stopped").sum())
    lost = int(run.ranked["status"].isin(["diverged", *FAILURES]).sum())
    if lost > 0:
        yield (
            f"{lost:,} of {quantity(len(run.ranked), 'trial')} diverged or failed. Below, a trial "
            "that diverged counts as the worst of all, and one that failed does not count."
        )
    if stopped > 0:
        yield (
            f"Stopped early: {stopped:,} of {quantity(len(run.ranked), 'trial')}. "
            "What a stopped trial would have reached in the end is not known."
        )
        over = int(run.ranked["message"].fillna("").str.startswith(TIME_IS_OVER).sum())
        if over > 0:
            yield f"{over:,} of these had used up `search.trial_hours`; nothing else stopped them."
    yield from quoted(run)


def still_improved(run: ReportedRun) -> bool:
    """Returns whether the best report of the best trial was its last; there must be one."""
    best = run.scored.iloc[0]
    return bool(best["best.step"] == best["step"] and best["status"] == "finished")


def _deviation(run: ReportedRun) -> Iterator[str]:
    """Yields the deviation of a seed, if a table of few seeds needs it."""
    deviation, degrees = seed_deviation(run.replicates)
    if degrees > 1:
        yield (
            f"The standard deviation of a seed is {deviation:.2g}, pooled over all configurations "
            f"({degrees} degrees of freedom). An interval of few seeds knows its own seeds only."
        )


def unequal(run: ReportedRun) -> Iterator[str]:
    """Yields why the ranking does not compare like with like, where that is so."""
    if run.scores.reason.startswith("the trials were evaluated"):
        yield f"The ranking does not compare like with like: {run.scores.reason}."
    finished = run.results.trials[run.results.trials["status"] == "finished"]["trial"]
    reports = run.results.reports[run.results.reports["trial"].isin(finished)]
    counts = reports["trial"].value_counts()
    if counts.nunique() > 1:
        yield (
            f"Finished trials made {counts.min():,} to {counts.max():,} reports. The best of more "
            "reports is better by luck, which the ranking does not take into account."
        )


def _distance(best: Any, second: Any, score: str) -> str:
    text = f"The second, {code(second['trial'])}, reached {second[score]:.4g}"
    if second[score] == best[score]:
        text += ", the same"
    elif best[score]:
        distance = abs(second[score] - best[score]) / abs(best[score])
        if not math.isnan(distance):
            text += f", {abs(second[score] - best[score]):.2g} worse ({distance:.1%} of the best)"
    return f"{text}."


def influences(run: ReportedRun) -> Iterator[str]:
    """Yields what the hyperparameters contributed."""
    if run.scores.reason:
        yield f"Nothing is said of single hyperparameters: {run.scores.reason}."
        yield from losses(run)
        return
    scientific = [axis for axis in run.axes if axis.is_scientific]
    for axis in scientific:
        yield best_value(run, axis)
    axes = {axis.key: axis for axis in run.axes if not axis.is_scientific}
    unclear = []
    judged = run.importance.dropna(subset="p")
    for _, row in judged.iterrows():
        key = row["hyperparameter"]
        if key in axes and row["p"] <= CHANCE:
            yield influence(run, axes[key], row)
        elif key in axes:
            unclear.append(key)
    if unclear:
        keys = ", ".join(map(code, unclear))
        yield f"No more than chance ({_number(run, unclear)}): {keys}. They are undecided."
    for reversal in run.reversals:
        yield _reversed(reversal)
    yield from losses(run)
    if scientific or len(judged):
        yield from reservations(run)


def at_step(run: ReportedRun) -> str:
    """Returns the step at which values are compared, as a phrase; "" for the best reports."""
    return "" if run.scores.step is None else f" at step {run.scores.step:,}"


def _number(run: ReportedRun, keys: Sequence[str]) -> str:
    """Returns the number of configurations with these keys, such as "n = 26 to 64 at step 40"."""
    numbers = sorted(map(run.configurations_with, keys))
    to = "" if numbers[0] == numbers[-1] else f" to {numbers[-1]:,}"
    return f"n = {numbers[0]:,}{to}{at_step(run)}"


def no_reversals(run: ReportedRun) -> str:
    """Says that no value was seen to depend on another, and how close the clearest one was."""
    found = run.possible_reversals
    if not found:
        return (
            "No two hyperparameters were tried together often enough to say whether the better "
            "value of one depends on the other."
        )
    pairs = len({frozenset((each.key, each.other)) for each in found})
    return (
        "No sign that the better value of a hyperparameter depends on another (the smallest p of "
        f"{quantity(pairs, 'pair')} with enough configurations is {found[0].p:.2g} after "
        "correction). Effects that differ in size alone are not looked for."
    )


def _reversed(found: Reversal) -> str:
    """Says of which hyperparameter another value is better under another condition."""
    better, other = found.better, code(found.other)
    with_first, with_second = (code(condition) for condition in found.conditions)
    return (
        f"The better value of {code(found.key)} depends on {other}: {code(better[0])} with "
        f"{with_first}, {code(better[1])} with {with_second}; more than chance (p = {found.p:.2g})."
    )


def best_value(run: ReportedRun, axis: Axis) -> str:
    """Says which value of a hyperparameter did best, and whether that is more than chance."""
    table = axis.isolation()
    said = conclusion(table, axis.minimizes, code, _scientific_keys(run))
    if run.scores.step is not None:
        is_claim = len(contenders(run, axis)) < int((table["n"] > 0).sum())
        later = "later steps may reverse it" if is_claim else "later steps may tell more"
        said += f", {run.scores.phrase}; {later}"
    return f"{code(axis.key)}: {said}."


def contenders(run: ReportedRun, axis: Axis) -> list[str]:
    """Returns the values of a scientific hyperparameter that may be the best, the best first."""
    table = axis.isolation()
    rows = leaders(table, axis.minimizes, _scientific_keys(run))
    return [str(table["value"].iloc[row]) for row in rows]


def _scientific_keys(run: ReportedRun) -> int:
    """Returns the number of hyperparameters whose values are judged together."""
    return sum(axis.is_scientific for axis in run.axes)


def best_configurations(axis: Axis) -> pd.DataFrame:
    """Returns the best tenth of the configurations, or the best five, the best first."""
    found = by_configuration(axis.points, axis.minimizes)
    return found.head(max(FEWEST_BEST, round(BEST_SHARE * len(found))))


def influence(run: ReportedRun, axis: Axis, row: Any) -> str:
    """Says how much a hyperparameter mattered, which values did best, and what to search next.

    Where a scheduler stopped trials, the values are compared early. They then advise nothing: the
    best trials at the end may have other values.
    """
    table = axis.isolation()
    table = table[table["n"] > 0].sort_values("mean", ascending=axis.minimizes, kind="stable")
    share = f"{row['importance']:.0%} of the ranking, where chance gives up to {row['chance']:.0%}"
    n = int(table["n"].sum())
    said = f"{code(axis.key)} explains {share} (p = {row['p']:.2g}, n = {n:,}{at_step(run)})"
    first, last = table.iloc[0], table.iloc[-1]
    said += f": {code(first['value'])} did best (mean of the better half {first['mean']:.4g}), "
    said += f"{code(last['value'])} worst ({last['mean']:.4g})."
    best = best_configurations(axis)
    if axis.names:
        names = best["name"].value_counts()
        those = ", ".join(f"{code(name)} ({count})" for name, count in names.items())
    else:
        those = f"{best['value'].min():.3g} to {best['value'].max():.3g}"
    if run.scores.step is None:
        return f"{said} The best {len(best)} have {those}: search there next."
    return f"{said} The best {len(best)} at that step have {those}; later steps may reverse it."


def losses(run: ReportedRun) -> Iterator[str]:
    """Yields the values with which more trials diverged or failed than with all others."""
    from scipy.stats import fisher_exact

    found, tests = [], 0
    for axis in run.axes:
        groups = [(name, trials) for name, trials in axis.groups(axis.ended) if len(trials)]
        if len(groups) < 2:
            continue
        tests += len(groups) if len(groups) > 2 else 1
        every, lost = len(axis.ended), int(axis.ended["lost"].sum())
        for name, trials in groups:
            mine = int(trials["lost"].sum())
            others = every - len(trials)
            if mine * others <= (lost - mine) * len(trials):
                continue  # not more than with the other values
            rest = [lost - mine, others - (lost - mine)]
            p = float(fisher_exact([[mine, len(trials) - mine], rest]).pvalue)
            said = (
                f"With {code(f'{axis.key} {name}')}, {mine} of {quantity(len(trials), 'trial')} "
                f"diverged or failed, and {lost - mine} of {others} with its other values; more "
                "than chance"
            )
            found.append((said, p))
    for said, p in found:
        if p * tests <= CHANCE:
            yield f"{said} (p = {p * tests:.2g})."


def reservations(run: ReportedRun) -> Iterator[str]:
    """Yields what the p of this search do not cover."""
    if run.space.learner is not None:
        yield (
            f"{run.space.learner} chose each trial by earlier results, which no p here allows for: "
            "more claims may be wrong than p says. `run_search.py replicate` decides."
        )
    if run.space.couplings:
        yield (
            f"{' and '.join(run.space.couplings).capitalize()} of the search space made the "
            "hyperparameters depend on each other, which no p here allows for: one can seem to "
            "matter because another does."
        )
    if run.space.first:
        yield (
            f"{quantity(len(run.space.first), 'configuration')} came before the draws, by `first` "
            "or a warm start. They were chosen, and every p takes them for draws."
        )
    if run.has_grown:
        yield (
            "The search was resumed with more trials. Whoever looks again after each resumption "
            "until something shows is wrong more often than p says."
        )


def interval_text(row: Any) -> str:
    if pd.isna(row["low"]):
        return "no interval"
    return f"{row['low']:.3g} to {row['high']:.3g}"


def share_text(count: int, of: int) -> str:
    """Returns a share with its 95 % interval, such as "3 of 20 (3 to 38 %)"."""
    if of == 0:
        return "-"
    low, high = share_interval(count, of)
    return f"{count:,} of {of:,} ({low:.0%} to {high:.0%})"


def outlook(run: ReportedRun) -> str:
    """Says whether the results still improve at the ends of what was searched."""
    if run.scores.reason:
        return f"Nothing is said of the ends of the ranges: {run.scores.reason}."
    scored, every = run.configurations
    if scored < LEAST:
        return (
            f"At least {LEAST} configurations with a result are needed to say whether the ranges "
            f"were wide enough; {scored} of {every} have one."
        )
    if run.boundaries:
        return (
            f"The results{at_step(run)} still improve towards an end of what was searched; better "
            "values may lie beyond it."
        )
    values = run.scores.judged.dropna()
    if values.max() - values.min() <= 1e-9 * values.abs().max():
        return f"All {scored} configurations have the same result, so no end of a range stands out."
    judged = [axis.key for axis in run.axes if is_judged(axis)]
    if not judged:
        return "No range and no list of three or more numbers was searched often enough to judge."
    return (
        "No sign that better values lie beyond the searched ranges "
        f"({_number(run, judged)}). With few or noisy trials there may be some all the same."
    )
