"""The ends of what was searched, towards which the results still improve.

The idea is that of Google's tuning playbook: better values may lie beyond such an end. Needs
pandas, and SciPy late; neither Ray nor torch.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import yaml

from s2s_search.hparams.arguments import Argument
from s2s_search.hparams.table import declared
from s2s_search.report.axes import Axis, whole_or_rounded
from s2s_search.results.isolation import by_configuration
from s2s_search.results.scores import rounded
from s2s_search.results.statistics import BEST_SHARE, LEAST, LEVEL
from s2s_search.spaces.dimensions import Range

OUTER = 0.2  # most of the best tenth must lie in this share of a range's scale, at its end
FEWEST_AT_END = 3  # the least number of configurations that are the best tenth there


@dataclass(frozen=True)
class Boundary:
    """An end of a hyperparameter's values beyond which better ones may lie."""

    key: str
    why: str  # a sentence without its full stop
    next: str  # what to search next, as a line of a search-space file
    p: float  # how often chance alone would say this of any end of the report


def boundaries(axes: Sequence[Axis]) -> list[Boundary]:
    """Returns the ends of axes towards which the results improve by more than chance.

    An end of a range counts if the better half of the configurations improves towards it (rank
    correlation), and most of the best tenth lies in the outermost fifth of the scale. The end of a
    list of at least three numbers counts if its configurations are better than all others (Mann and
    Whitney's test), and better than those of the next number on average. A p is multiplied by the
    number of ends that are judged, so that at most 5 of 100 reports of chance name an end. With
    fewer than 10 configurations there is no answer.
    """
    ends = [(axis, upper) for axis in axes if is_judged(axis) for upper in (False, True)]
    found = []
    for axis, upper in ends:
        p = len(ends) * _improves(axis, upper)
        following = _beyond(axis, upper) if p <= 1 - LEVEL else None
        if following is not None:
            found.append(Boundary(axis.key, _why(axis, upper, p), following, p))
    return found


def is_judged(axis: Axis) -> bool:
    """Returns whether an axis has ends, and enough configurations to judge them."""
    has_ends = axis.range is not None and not axis.steps
    return len(_units(axis)) >= LEAST and (has_ends or len(axis.steps) >= 3)


def _units(axis: Axis) -> pd.DataFrame:
    """Returns the configurations, best first.

    If the values are crossed with the draws, a score is the distance from its draw.
    """
    found = by_configuration(axis.points, axis.minimizes)
    if "block" in found:
        found["score"] -= found.groupby("block")["score"].transform("mean")
    return found.sort_values("score", ascending=axis.minimizes, kind="stable", ignore_index=True)


def _improves(axis: Axis, upper: bool) -> float:
    """Returns the p of a test whether results improve towards an end; 1 if they do not."""
    from scipy.stats import mannwhitneyu, spearmanr

    found = _units(axis)
    scores = rounded(found["score"].to_numpy(float) * (1 if axis.minimizes else -1))
    if np.ptp(scores) == 0:
        return 1.0
    values = found["value"]
    if axis.steps:
        steps = axis.steps if upper else axis.steps[::-1]
        last = scores[values.eq(steps[-1])]
        previous = scores[values.eq(steps[-2])]
        others = scores[values.ne(steps[-1])]
        if len(last) < 2 or len(previous) == 0 or last.mean() >= previous.mean():
            return 1.0
        if "block" in found:
            return _paired(found.assign(score=scores), steps)
        return float(mannwhitneyu(last, others, alternative="less").pvalue)
    position = values.map(axis.position).to_numpy(float)
    position = position if upper else 1 - position
    half = math.ceil(len(found) / 2)
    best = max(FEWEST_AT_END, round(BEST_SHARE * len(found)))
    if np.median(position[:best]) < 1 - OUTER or np.ptp(scores[:half]) == 0:
        return 1.0
    if np.ptp(position[:half]) == 0:
        return 1.0
    return float(spearmanr(position[:half], scores[:half], alternative="less").pvalue)


def _paired(found: pd.DataFrame, steps: Sequence[Any]) -> float:
    """Returns the p of the last step being better than the others in the same block."""
    from scipy.stats import wilcoxon

    table = found.pivot_table(index="block", columns="value", values="score").dropna()
    if len(table) < 2:
        return 1.0
    apart = table[steps[-1]] - table.drop(columns=steps[-1]).mean(axis=1)
    if (apart == 0).all():
        return 1.0
    return float(wilcoxon(apart.to_numpy(), alternative="less").pvalue)


def _why(axis: Axis, upper: bool, p: float) -> str:
    """Returns why the results seem to improve towards an end."""
    found = _units(axis)
    n = f"n = {len(found):,}, p = {min(p, 1.0):.2g}"
    end = f"the {'upper' if upper else 'lower'} end, {_end(axis, upper):.4g}"
    if axis.steps:
        return f"the configurations at {end}, are better than the others ({n})"
    return f"the better half of the configurations still improves towards {end} ({n})"


def _end(axis: Axis, upper: bool) -> float:
    if axis.range is not None:
        return axis.range.high if upper else axis.range.low
    return float(axis.steps[-1 if upper else 0])


def _beyond(axis: Axis, upper: bool) -> str | None:
    """Returns a line of a search space with values beyond an end; None if none is allowed."""
    law, end = declared(axis.key), _end(axis, upper)
    if end == (law.maximum if upper else law.minimum):
        return None
    if axis.range is not None:
        options = _shifted_range(axis.range, law, upper)
    else:
        options = _shifted_choices(axis, law, upper)
    if options is None:
        return None
    if axis.dimension.role:
        options["role"] = axis.dimension.role
    if axis.dimension.when:
        options["when"] = {parent: list(values) for parent, values in axis.dimension.when.items()}
    text = yaml.safe_dump(options, default_flow_style=True, sort_keys=False, width=10_000)
    return f"{axis.key}: {text.strip()}"


def _shifted_range(domain: Range, law: Argument, upper: bool) -> dict[str, Any] | None:
    """Returns the range moved by half its width on its own scale, within the allowed values."""
    low, high, log = domain.low, domain.high, domain.log
    if log:
        half = math.sqrt(high / low)
        low, high = (low * half, high * half) if upper else (low / half, high / half)
    else:
        half = (high - low) / 2
        low, high = (low + half, high + half) if upper else (low - half, high - half)
    if law.above is not None and low <= law.above:
        if law.above or domain.low <= 0:
            return None
        # Zero is the limit and is not allowed. Only on a logarithmic scale can a range end before
        # it.
        low, log = domain.low / 10, True
    if law.below is not None and high >= law.below:
        return None
    low, high = _rounded(low, domain), _rounded(high, domain)
    if law.minimum is not None:
        low = max(low, whole_or_rounded(law.minimum, domain))
    if law.maximum is not None:
        high = min(high, whole_or_rounded(law.maximum, domain))
    if low >= high:
        return None
    options: dict[str, Any] = {"min": low, "max": high}
    if log:
        options["log"] = True
    if domain.step is not None and domain.step != 1:
        options["step"] = domain.step
    return options


def _rounded(x: float, domain: Range) -> float:
    """Rounds the end of a range to two digits; that of a range in steps to the nearest step."""
    if domain.step is None:
        return float(f"{x:.2g}")
    return whole_or_rounded(
        domain.low + round((x - domain.low) / domain.step) * domain.step, domain
    )


def _shifted_choices(axis: Axis, law: Argument, upper: bool) -> dict[str, Any] | None:
    """Returns the half of the values at an end, and the number that follows them beyond it."""
    values = axis.steps if upper else axis.steps[::-1]
    following = _following(values)
    if law.minimum is not None and following < law.minimum:
        return None
    if law.above is not None and following <= law.above:
        return None
    if law.maximum is not None and following > law.maximum:
        return None
    if law.below is not None and following >= law.below:
        return None
    if all(isinstance(value, int) for value in values):
        if following != int(following):
            return None
        following = int(following)
    else:
        following = float(f"{following:.4g}")
    half = sorted([*values[len(values) // 2 :], following])
    return {"grid" if axis.dimension.grid else "choices": half}


def _following(values: Sequence[float]) -> float:
    """Returns the next number: by the common ratio if there is one, else by the last step."""
    ratios = [b / a for a, b in itertools.pairwise(values) if a]
    has_all = len(ratios) == len(values) - 1
    if has_all and ratios[-1] > 0 and math.isclose(min(ratios), max(ratios), rel_tol=0.01):
        return values[-1] * ratios[-1]
    return 2 * values[-1] - values[-2]
