"""The axes of a search: the values of each searched hyperparameter against the metric.

The name is that of Google's tuning playbook: basic axis plots. Needs pandas; neither Ray nor torch.
"""

import itertools
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from s2s_search.display.tables import cell
from s2s_search.results.draws import draws_of
from s2s_search.results.isolation import isolation
from s2s_search.results.results import Results
from s2s_search.results.scores import Scores, comparable
from s2s_search.runs.tables import stored
from s2s_search.spaces.dimensions import Choice, Dimension, Range
from s2s_search.spaces.space import Space
from s2s_search.statuses import FAILURES, RUNNING

PARTS = 4  # a range is shown in this number of parts of the same width on its scale
FEW = 8  # up to this number of points, a range is shown point by point


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
        return replace(
            domain, high=whole_or_rounded(domain.low + (domain.size - 1) * domain.step, domain)
        )

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

    @property
    def choices(self) -> dict[str, Any]:
        """Returns the values of a choice by their names; nothing for a range."""
        domain = self.dimension.domain
        if not isinstance(domain, Choice):
            return {}
        return dict(zip(self.names, _in_order(domain), strict=True))

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


def whole_or_rounded(x: float, domain: Range) -> float:
    return round(x) if domain.whole else float(f"{x:.12g}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
