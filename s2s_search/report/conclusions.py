"""What a search says in words, and how sure that is: sentences with `code` between backticks, as a page takes them."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from s2s_search.report.axes import Axis
from s2s_search.report.page import code
from s2s_search.report.runs import Run
from s2s_search.results.isolation import conclusion
from s2s_search.results.statistics import LEAST

STATUS = {
    "finished": "The search finished.",
    "running": "The search is still running: everything here is of the moment.",
    "killed": "The search was killed and can be resumed: what follows is what it had found.",
}


def state(run: Run) -> str:
    """How the search ended, and how its trials did."""
    status, message = run.results.status, run.history.message
    why = f": {code(message)}" if message else ""
    said = STATUS.get(status, f"The search ended before it was done ({status}{why}).")
    counts = Counter(run.ranked["status"]).most_common()
    each = ", ".join(f"{n:,} {name.replace('_', ' ')}" for name, n in counts)
    return (
        f"{said} Of {len(run.ranked):,} trials: {each}."
        if counts
        else f"{said} No trial has started."
    )


def winner(run: Run) -> str:
    """Which trial is best, by how much, and when; of a run with a result."""
    best, n = run.scored.iloc[0], len(run.scored)
    said = f"{code(best['trial'])} is the best of {n:,} trials with a result: {code(run.metric)} {best[run.score]:.4g}"
    return f"{said} at step {best['best.step']:,}. Its settings:"


def best_of(runs: Sequence[Run]) -> str:
    """Which of several runs has the best trial."""
    scored = [run for run in runs if len(run.scored)]
    if not scored:
        return "None of them has a result yet."
    best = (min if runs[0].minimizes else max)(
        scored, key=lambda run: float(run.scored.iloc[0][run.score])
    )
    row = best.scored.iloc[0]
    return f"The best trial of all is {code(row['trial'])} of {code(best.name)}, with {row[best.score]:.4g}."


def sureness(run: Run) -> Iterator[str]:
    """Yields what the numbers can and cannot say of the best trial."""
    rows = run.scored
    best = rows.iloc[0]
    if len(run.replicates) and run.beside is not None:
        yield (
            f"{len(run.replicates):,} configurations ran again with other seeds, in {code(run.beside.name)} beside "
            "this run: quote their means, in the table below, and not the value of the best trial, which was chosen "
            "for it. "
            "`run_search.py compare` says whether two of them differ."
        )
    elif len(run.replicates):
        yield (
            "Configurations ran with several seeds: quote their means, in the table below, and not the best seed, "
            "which was also lucky. `run_search.py compare` says whether two of them differ."
        )
    else:
        if len(rows) > 1:
            yield _distance(best, rows.iloc[1], run.score)
        yield (
            "Each configuration ran with one seed: whether a small distance between two trials is more than chance, "
            "these numbers cannot say. `run_search.py replicate` runs the best ones again with other seeds."
        )
    if best["best.step"] == best["step"] and best["status"] == "finished":
        yield (
            f"The best trial was at its best in its last report, at step {best['step']:,}: more steps may improve it, "
            "and may change the order."
        )
    if stopped := int((run.ranked["status"] == "stopped").sum()):
        share = f"{stopped:,} of {len(run.ranked):,}"
        yield f"{share} trials were stopped early; what they would have reached in the end is not known."


def _distance(best: Any, second: Any, score: str) -> str:
    distance = abs(second[score] - best[score]) / abs(best[score]) if best[score] else math.nan
    apart = "" if math.isnan(distance) else f", {distance:.1%} worse"
    return f"The second, {code(second['trial'])}, reached {second[score]:.4g}{apart}."


def influences(run: Run) -> Iterator[str]:
    """Yields what the hyperparameters had to do with it."""
    if run.configurations[0] >= LEAST and run.importance["importance"].notna().any():
        first = run.importance.iloc[0]
        share = f"{code(first['hyperparameter'])} has {first['importance']:.0%} of the importance"
        yield f"{share} for being among the best (n = {first['trials']:,})."
    for axis in run.axes:
        if axis.is_scientific:
            yield verdict(axis)


def verdict(axis: Axis) -> str:
    """Which value of a hyperparameter did best, and whether that is more than chance."""
    return f"{code(axis.key)}: {conclusion(axis.isolation(), axis.minimizes, code)}."


def interval_text(row: Any) -> str:
    return "no interval" if pd.isna(row["low"]) else f"{row['low']:.3g} to {row['high']:.3g}"


def outlook(run: Run) -> str:
    """Whether what was searched was wide enough."""
    scored, every = run.configurations
    if scored < LEAST:
        law = f"Whether the ranges were wide enough takes at least {LEAST} configurations with a result"
        return f"{law}; {scored} of {every} have one."
    if not run.boundaries:
        return "The best trials lie at no end of a range or of numbers to choose from: these were wide enough."
    return "The best trials lie at the end of what was searched; beyond it may be better values:"
