"""The axes of a search: the values of each searched hyperparameter against the metric.

The names and the method are those of Google's tuning playbook: basic axis plots, and whether the
results still improve at an end of the searched range. Needs pandas, and SciPy late; neither Ray nor
torch.
"""

import itertools
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import yaml

from s2s_search.display.tables import cell
from s2s_search.hparams.arguments import Argument
from s2s_search.hparams.table import declared
from s2s_search.results.draws import draws_of
from s2s_search.results.isolation import DIGITS, by_configuration, isolation
from s2s_search.results.results import Results
from s2s_search.results.scores import Scores, comparable
from s2s_search.results.statistics import BEST_SHARE, LEAST, LEVEL
from s2s_search.runs.tables import stored
from s2s_search.spaces.dimensions import Choice, Dimension, Range
from s2s_search.spaces.space import Space
from s2s_search.statuses import FAILURES, RUNNING

PARTS = 4  # a range is shown in this number of parts of the same width on its scale
FEW = 8  # up to this number of points, a range is shown point by point
OUTER = 0.2  # most of the best tenth must lie in this share of a range's scale, at its end
FEWEST_AT_END = 3  # the least number of configurations that are the best tenth there


@dataclass(frozen=True, eq=False)
class Axis:
    """A searched hyperparameter, and the trials in which it takes part.

    names: the names of a choice's values, all different; numbers are in order
    points: the trials that can be compared, best first. Columns: trial (string); number (its row in
        the trials table); status; value; name (the value as tables print it); score (as in
        `comparable`; the worst of all for a trial that diverged); configuration (the same for
        trials that differ only in their seed, or for all trials of a draw that is crossed with
        other keys); block (the trial's draw, if this key is crossed with the draws)
    ended: the trials that have ended, whatever became of them. Columns: value; name; lost (whether
        it diverged or failed)
    without: the number of trials that can be compared in which the hyperparameter takes no part
    minimizes: whether a lower score is better
    """

    dimension: Dimension
    names: tuple[str, ...]
    points: pd.DataFrame
    ended: pd.DataFrame
    without: int
    minimizes: bool

    @property
    def key(self) -> str:
        return self.dimension.key

    @property
    def is_scientific(self) -> bool:
        return self.dimension.role == "scientific"

    @property
    def range(self) -> Range | None:
        """Returns the range; None if the values are choices.

        A range in steps ends at its last point, which may lie below `max`.
        """
        domain = self.dimension.domain
        if not isinstance(domain, Range):
            return None
        if domain.step is None:
            return domain
        return replace(domain, high=_whole(domain.low + (domain.size - 1) * domain.step, domain))

    @property
    def steps(self) -> tuple[Any, ...]:
        """Returns the values in order, if they are numbers and few; else nothing."""
        domain = self.dimension.domain
        if isinstance(domain, Range):
            return domain.points() if domain.size <= FEW else ()
        if isinstance(domain, Choice):
            values = _in_order(domain)
            if all(map(_is_number, values)):
                return values
        return ()

    def position(self, value: float) -> float:
        """Returns where in [0, 1] a value of a range lies, on the range's own scale."""
        assert self.range is not None
        low, high = self.range.low, self.range.high
        if self.range.log:
            low, high, value = math.log(low), math.log(high), math.log(max(value, low))
        return min(max((value - low) / (high - low), 0.0), 1.0)

    def groups(self, trials: pd.DataFrame | None = None) -> Iterator[tuple[str, pd.DataFrame]]:
        """Yields the names of the values, or of the parts of a range, with their trials.

        trials: a table with the columns value and name; None: the points.
        """
        points = self.points if trials is None else trials
        if self.names:
            for name in self.names:
                yield name, points[points["name"] == name]
            return
        if self.steps:
            for name, value in zip(_texts(self.steps), self.steps, strict=True):
                yield name, points[points["value"] == value]
            return
        part = points["value"].map(self.position).mul(PARTS).astype(int).clip(upper=PARTS - 1)
        values = [float(self.value_at(index / PARTS)) for index in range(PARTS + 1)]
        edges = _texts(values, digits=3)
        for index, (low, high) in enumerate(itertools.pairwise(edges)):
            yield f"{low} to {high}", points[part == index]

    def value_at(self, position: float) -> float:
        """Returns the value of a range at a position in [0, 1], on the range's own scale."""
        assert self.range is not None
        low, high = self.range.low, self.range.high
        if self.range.log:
            return float(low * (high / low) ** position)
        return low + position * (high - low)

    def isolation(self) -> pd.DataFrame:
        """Returns what each value, or each part of a range, reached."""
        return isolation(self.groups(), self.minimizes)


def axes(results: Results, space: Space, scores: Scores | None = None) -> list[Axis]:
    """Returns the axes of a search, in the order of the space.

    scores: the scores of the trials; None: those of `comparable`.
    """
    scores = scores or comparable(results)
    minimizes, draws = scores.minimize, draws_of(results)
    every = results.trials.assign(
        number=range(len(results.trials)),
        score=scores.judged.astype(float),
    )
    status = every["status"]
    every = every.assign(ended=status.ne(RUNNING), lost=status.isin(["diverged", *FAILURES]))
    ranked = every.sort_values(["score", "trial"], ascending=[minimizes, True], kind="stable")
    found = []
    for dimension in space.varying:
        key, domain = dimension.key, dimension.domain
        if key not in ranked:
            continue
        values = ranked[key]
        if isinstance(domain, Range) and not pd.api.types.is_numeric_dtype(values):
            values = pd.to_numeric(values, errors="coerce")  # a damaged log can hold text
        choices = _in_order(domain) if isinstance(domain, Choice) else ()
        active = values.notna()
        if None in choices:
            active = active | ranked["number"].map(results.takes_part(key))
        labels = [stored(space.label(key, value)) for value in choices]
        names = dict(zip(labels, _texts(labels), strict=True))
        shown = []
        for value in values.astype(object).where(values.notna(), None):
            shown.append(names.get(value) or cell(value))
        columns = {
            "trial": ranked["trial"],
            "number": ranked["number"],
            "status": ranked["status"],
            "value": values,
            "name": shown,
            "score": ranked["score"],
            "configuration": draws.units(key)[ranked.index],
            "ended": ranked["ended"],
            "lost": ranked["lost"],
        }
        blocks = draws.blocks(key)
        if blocks is not None:
            columns["block"] = blocks[ranked.index]
        table = pd.DataFrame(columns)
        table = table.assign(active=active.astype(bool))
        points = table[table["active"] & table["score"].notna()].reset_index(drop=True)
        ended = table[table["active"] & table["ended"]][["value", "name", "lost"]]
        when = {}
        for parent, conditions in dimension.when.items():
            when[parent] = tuple(space.label(parent, value) for value in conditions)
        labelled = replace(dimension, when=when)
        without = int(table["score"].notna().sum()) - len(points)
        found.append(Axis(labelled, tuple(names.values()), points, ended, without, minimizes))
    return found


def _texts(values: Sequence[object], digits: int = 4) -> list[str]:
    """Returns values as tables print them, with as many digits as are needed to tell them apart."""
    for count in range(digits, 18):
        texts = []
        for value in values:
            texts.append(f"{value:.{count}g}" if isinstance(value, float) else _text(value))
        if len(set(texts)) == len(values):
            return texts
    return [json.dumps(value) for value in values]


def _text(value: object) -> str:
    return "null" if value is None else cell(value)


def _in_order(domain: Choice) -> tuple[Any, ...]:
    """Returns the values of a choice; numbers in ascending order."""
    values: list[Any] = list(domain.values)
    if all(map(_is_number, values)):
        values.sort()
    return tuple(values)


# --- do the results still improve at an end of the searched values? ---


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
    scores = found["score"].to_numpy(float) * (1 if axis.minimizes else -1)
    scores = np.round(scores / (np.abs(scores).max() or 1.0), DIGITS)
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
    low, high = _rounded(low, domain), _rounded(high, domain)
    if law.minimum is not None:
        low = max(low, _whole(law.minimum, domain))
    if law.maximum is not None:
        high = min(high, _whole(law.maximum, domain))
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
    return _whole(domain.low + round((x - domain.low) / domain.step) * domain.step, domain)


def _whole(x: float, domain: Range) -> float:
    return round(x) if domain.whole else float(f"{x:.12g}")


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


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
