"""The scores of a search's trials that can be compared: values at equal steps, like with like.

A trial that was stopped at step 50 has had no chance to be as good as one at step 400. Everything
that the report concludes about hyperparameters therefore reads the scores of this module. Needs
pandas and numpy; neither Ray nor torch.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from s2s_search.errors import ConfigError, quantity
from s2s_search.results.ranked import Ranked
from s2s_search.results.statistics import Floats
from s2s_search.statuses import COMPLETE, PLATEAUED, STOPPED

Bools = npt.NDArray[np.bool_]

EXAMPLES = "train.eval_examples"
DIGITS = 9  # two scores are equal if they agree to this number of digits of the largest


@dataclass(frozen=True, eq=False)
class Scores:
    """The scores of a search, one for each row of its trials table.

    values: the score (Float64); NA for a trial that does not count
    step: the step at which the scores were reported; None: they are those of the best reports
    diverged: whether a trial diverged before it had a score; no other trial without a score counts
    minimize: whether a lower score is better
    reason: why no two trials can be compared, as a sentence without its full stop; "" if they can
    """

    values: "pd.Series[float]"
    step: int | None
    diverged: "pd.Series[bool]"
    minimize: bool
    reason: str = ""

    @property
    def judged(self) -> "pd.Series[float]":
        """Returns the scores, with the worst of all for the trials that diverged."""
        if self.values.notna().sum() == 0:
            return self.values
        worst = self.values.max() if self.minimize else self.values.min()
        return self.values.mask(self.diverged, worst)

    @property
    def count(self) -> int:
        """Returns the number of trials that count, with those that diverged."""
        return int(self.judged.notna().sum())

    @property
    def phrase(self) -> str:
        """Says where the scores are from, such as "at step 50, which all 32 trials reached"."""
        measured, every = int(self.values.notna().sum()), len(self.values)
        if self.step is None:
            return f"at the best reports of {quantity(measured, 'finished trial')}"
        which = f"all {every:,}" if measured == every else f"{measured:,} of {every:,}"
        return f"at step {self.step:,}, which {which} trials reached"


def comparable(results: Ranked, metric: str | None = None) -> Scores:
    """Returns the scores of the trials that can be compared.

    If all trials that ended well finished or plateaued, with reports at the same steps, the score
    of such a trial is that of its best report. One that plateaued has no reports after its end.
    Otherwise, the score of a trial is that of its report at the last step at which all finished,
    plateaued and stopped trials have a report. Trials that still run, or failed later, then count
    too. A best report would favour trials with more reports.

    Args:
        results: the search.
        metric: a metric, or another column of numbers; None: the search's metric.

    Raises:
        ConfigError: there is no such column of numbers.
    """
    metric = metric or results.metric
    column = results.measure(metric)
    best = results.trials[column].astype("Float64")
    status = results.trials["status"]
    minimize = results.minimizes(metric)
    nothing = pd.Series([pd.NA] * len(best), best.index, "Float64")
    none = pd.Series(False, index=best.index)
    if reason := _reason(results):
        return Scores(nothing, None, none, minimize, reason)
    name = metric.removeprefix("best.").removeprefix("last.")
    curves = results.curves(name if name in results.reports else None)
    reported = curves.notna().to_numpy()  # a row for each step, a column for each trial
    ended = status.isin([*COMPLETE, STOPPED]).to_numpy(bool) & reported.any(axis=0)
    if not ended.any():
        return Scores(nothing, None, none, minimize, "no trial has finished or was stopped")
    diverged = status.eq("diverged").to_numpy(bool)
    plateaued = status[ended].eq(PLATEAUED).to_numpy(bool)
    if _at_the_same_steps(reported[:, ended], plateaued) and not status.eq(STOPPED).any():
        values = best.where(status.isin(COMPLETE).to_numpy(bool))
        return Scores(values, None, pd.Series(diverged, best.index), minimize)
    common = np.flatnonzero(reported[:, ended].all(axis=1))
    if len(common) == 0:
        return Scores(nothing, None, none, minimize, "there is no step that all trials reported")
    step = int(common[-1])
    values = best
    if name in results.reports:
        values = pd.Series(curves.iloc[step].to_numpy(), index=best.index, dtype="Float64")
    values = values.where(reported[step])
    lost = pd.Series(diverged & ~reported[step], best.index)
    return Scores(values, int(curves.index[step]), lost, minimize)


def _at_the_same_steps(reported: Bools, plateaued: Bools) -> bool:
    """Returns whether trials reported at the same steps: one that plateaued, up to its last report.

    Args:
        reported: [steps, trials], whether a trial reported at a step.
        plateaued: [trials], whether it plateaued.
    """
    ahead = reported[::-1].cumsum(axis=0)[::-1] > 0  # whether a trial reports then, or later
    every = reported.any(axis=1, keepdims=True)
    expected = every & (ahead | ~plateaued)
    return bool((reported == expected).all())


def _reason(results: Ranked) -> str:
    """Returns why no two trials can be compared; "" if nothing speaks against it."""
    if EXAMPLES in results.trials and results.trials[EXAMPLES].nunique() > 1:
        return f"the trials were evaluated on different numbers of dev examples ({EXAMPLES})"
    for run in results.runs or (results,):
        try:
            scheduler = run.space().scheduler
        except ConfigError:
            continue  # without its space, the values at equal steps are still those of the log
        if scheduler.name == "pbt":
            return "pbt copies weights between trials and changes their hyperparameters"
    return ""


def rounded(scores: Floats, largest: float | None = None) -> Floats:
    """Returns scores in units of the largest, where scores that differ by rounding alone are equal.

    largest: None: the largest of these scores. Differences of scores take that of the scores.
    """
    unit = float(np.abs(scores).max()) if largest is None else largest
    return np.asarray(np.round(scores / (unit or 1.0), DIGITS))


def root_ranks(scores: Floats, largest: float | None = None) -> Floats:
    """Returns the square root of the rank of each score [N], the lowest score first.

    Equal scores share a rank. With the root, ranks near the top count more, and a wild score counts
    little. `largest` is that of `rounded`.
    """
    from scipy.stats import rankdata

    return np.asarray(np.sqrt(rankdata(rounded(scores, largest))))
