"""How well early reports predict the end: what a scheduler can know at its rungs.

Needs numpy and pandas; neither Ray nor torch.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
import pandas as pd

from s2s_search.errors import quantity
from s2s_search.results.ranked import Ranked
from s2s_search.results.results import Results
from s2s_search.results.statistics import LEAST, LEVEL, Floats, share_interval
from s2s_search.statuses import COMPLETE, ENDS_ITSELF

# A rank correlation of at least this much between a rung and the end is enough for a scheduler.
# Two of three trials are then on the same side of the median at both.
ENOUGH = 0.5


def predictions(results: Ranked, steps: Sequence[float]) -> pd.DataFrame:
    """Returns how the ranks of trials at each of some steps agree with those at the end.

    Only trials that finished count. Their values at the end are those of their best reports.

    Columns: step; n (trials with a report at the step); correlation (Spearman's, of the values at
    the step and at the end); low and high (its 95 % interval). They are NaN for fewer than 10
    trials, and where all values are equal.
    """
    trials, curves = results.trials, results.curves()
    is_finished = trials["status"].isin(COMPLETE).to_numpy(bool)
    end = trials[f"best.{results.metric}"].to_numpy(float, na_value=math.nan)
    at_steps = curves.reindex(list(steps)).to_numpy(float, na_value=math.nan)
    rows = []
    for step, early in zip(steps, at_steps, strict=True):
        counts = is_finished & ~np.isnan(early) & ~np.isnan(end)
        rows.append((step, int(counts.sum()), *rank_correlation(early[counts], end[counts])))
    return pd.DataFrame(rows, columns=["step", "n", "correlation", "low", "high"])


def rank_correlation(x: Floats, y: Floats) -> tuple[float, float, float]:
    """Returns Spearman's rank correlation and its 95 % interval (Bonett and Wright, 2000).

    All are NaN for fewer than 10 pairs, and where all x or all y are equal.
    """
    if len(x) < LEAST or np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan, math.nan, math.nan
    found = float(pd.Series(x).rank().corr(pd.Series(y).rank()))
    # At exactly 1 the interval would have no width.
    inside = max(min(found, 1 - 1 / len(x) ** 2), 1 / len(x) ** 2 - 1)
    error = math.sqrt((1 + inside**2 / 2) / (len(x) - 3))
    half = NormalDist().inv_cdf((1 + LEVEL) / 2) * error
    middle = math.atanh(inside)
    return found, math.tanh(middle - half), math.tanh(middle + half)


def sentence(prediction: "pd.Series[float]", where: str, kept: bool) -> str:
    """Says whether a scheduler can compare trials at a step, from the row of `predictions`.

    Args:
        prediction: the row.
        where: what the step is, such as "the first rung".
        kept: whether rungs have stopped trials. Those that finished are then alike, and their
            correlation is lower than that of all trials. Nothing is concluded from a low one.
    """
    step, n = int(prediction["step"]), int(prediction["n"])
    if math.isnan(prediction["correlation"]):
        return (
            f"At step {step:,}, {where}, {quantity(n, 'finished trial')} can be ranked; at least "
            f"{LEAST} with different values are needed to say whether trials can be compared there."
        )
    interval = f"95 % interval {prediction['low']:.2f} to {prediction['high']:.2f}"
    said = (
        f"The ranks at step {step:,}, {where}, and at the end have a correlation of "
        f"{prediction['correlation']:.2f} ({interval}) over the {n} trials that finished"
    )
    if prediction["low"] >= ENOUGH:
        return f"{said}. There is no sign that this is too early to compare trials."
    if kept:
        return (
            f"{said}. Only trials that did well at the rungs went on, which usually lowers the "
            "correlation, so this does not show whether the rungs were right. `run_search.py "
            "replicate DIR --audit N` trains stopped trials to the end, and shows that."
        )
    if prediction["high"] < ENOUGH:
        return f"{said}. That is low: a scheduler that compares trials there stops good ones."
    return f"{said}. These trials are too few to say whether trials can be compared there."


def overtaking(results: Results, audits: Results) -> tuple[int, int]:
    """Returns how many audited trials became better than the best of the search, and of how many.

    The arguments are those of `audited`.
    """
    ends, finished, count = _ends(results, audits)
    if finished.empty:
        return 0, count
    is_better = (
        ends < finished.min() if results.minimizes(results.metric) else ends > finished.max()
    )
    return int(is_better.sum()), count


def _ends(results: Results, audits: Results) -> tuple["pd.Series[float]", "pd.Series[float]", int]:
    """Returns what audited trials reached, what finished trials did, and how many were audited."""
    column = f"best.{results.metric}"
    status = audits.trials["status"]
    ends = audits.trials[column].where(status.isin(COMPLETE))
    finished = results.trials[column][results.trials["status"].isin(COMPLETE)].dropna()
    return ends, finished, int(status.isin(ENDS_ITSELF).sum())


def audited(results: Results, audits: Results) -> str:
    """Says how many stopped trials became good when they were trained to the end.

    A trial that diverged on the way counts, as one that did not.

    Args:
        results: the search whose scheduler stopped them.
        audits: the search that trained them to the end.
    """
    minimize = results.minimizes(results.metric)
    ends, finished, count = _ends(results, audits)
    if count == 0 or finished.empty:
        return "No stopped trial has been trained to the end yet."
    parts = []
    for name, value in (
        ("the best of the search", finished.min() if minimize else finished.max()),
        (f"the middle one of the {len(finished):,} that finished", finished.median()),
    ):
        better = int((ends < value if minimize else ends > value).sum())
        low, high = share_interval(better, count)
        parts.append(f"{better} became better than {name} (95 % interval {low:.0%} to {high:.0%})")
    audit = quantity(count, "stopped trial")
    return f"Of {audit} trained to the end, {' and '.join(parts)}."
