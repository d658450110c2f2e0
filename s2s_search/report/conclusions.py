"""The conclusions of a search in words, and how certain they are.

The sentences have `code` between backticks, as the blocks of a page expect.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from s2s_search.report.axes import Axis
from s2s_search.report.page import code
from s2s_search.report.runs import ReportedRun
from s2s_search.results.isolation import conclusion
from s2s_search.results.statistics import LEAST

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
    each = ", ".join(f"{n:,} {name.replace('_', ' ')}" for name, n in counts)
    return f"{said} Of {len(run.ranked):,} trials: {each}."


def winner(run: ReportedRun) -> str:
    """Says which trial is the best, with its value and its step. The run must have a result."""
    best = run.scored.iloc[0]
    return (
        f"{code(best['trial'])} is the best of {len(run.scored):,} trials with a result: "
        f"{code(run.metric)} {best[run.score]:.4g} at step {best['best.step']:,}. Its settings:"
    )


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
            f"{len(run.replicates):,} configurations ran again with other seeds, in "
            f"{code(run.beside.name)} beside this run. Quote their means, in the table below, not "
            "the value of the best trial: that trial was chosen because its value is good. "
            "`run_search.py compare` says whether two configurations differ."
        )
    elif len(run.replicates):
        yield (
            "Configurations ran with several seeds. Quote their means, in the table below, not the "
            "best seed, which was also lucky. `run_search.py compare` says whether two "
            "configurations differ."
        )
    else:
        if len(rows) > 1:
            yield _distance(best, rows.iloc[1], run.score)
        yield (
            "Each configuration ran with one seed, so these numbers cannot say whether a small "
            "difference between two trials is more than chance. `run_search.py replicate` runs the "
            "best configurations again with other seeds."
        )
    if best["best.step"] == best["step"] and best["status"] == "finished":
        yield (
            f"The best report of the best trial was its last, at step {best['step']:,}: more steps "
            "may improve it, and may change the ranking."
        )
    stopped = int((run.ranked["status"] == "stopped").sum())
    if stopped > 0:
        yield (
            f"{stopped:,} of {len(run.ranked):,} trials were stopped early; what they would have "
            "reached in the end is not known."
        )


def _distance(best: Any, second: Any, score: str) -> str:
    text = f"The second, {code(second['trial'])}, reached {second[score]:.4g}"
    if best[score]:
        distance = abs(second[score] - best[score]) / abs(best[score])
        if not math.isnan(distance):
            text += f", {distance:.1%} worse"
    return f"{text}."


def influences(run: ReportedRun) -> Iterator[str]:
    """Yields what the hyperparameters contributed."""
    if run.configurations[0] >= LEAST and run.importance["importance"].notna().any():
        first = run.importance.iloc[0]
        share = f"{code(first['hyperparameter'])} has {first['importance']:.0%} of the importance"
        yield f"{share} for being among the best (n = {first['trials']:,})."
    for axis in run.axes:
        if axis.is_scientific:
            yield verdict(axis)


def verdict(axis: Axis) -> str:
    """Says which value of a hyperparameter did best, and whether that is more than chance."""
    return f"{code(axis.key)}: {conclusion(axis.isolation(), axis.minimizes, code)}."


def interval_text(row: Any) -> str:
    if pd.isna(row["low"]):
        return "no interval"
    return f"{row['low']:.3g} to {row['high']:.3g}"


def outlook(run: ReportedRun) -> str:
    """Says whether the searched ranges were wide enough."""
    scored, every = run.configurations
    if scored < LEAST:
        return (
            f"At least {LEAST} configurations with a result are needed to say whether the ranges "
            f"were wide enough; {scored} of {every} have one."
        )
    if not run.boundaries:
        return (
            "The searched ranges were wide enough: the best trials lie at no end of a range or of "
            "a list of numbers."
        )
    return "The best trials lie at an end of what was searched; better values may lie beyond it:"
