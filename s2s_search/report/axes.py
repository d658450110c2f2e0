"""The axes of a search: the values of each searched hyperparameter against how good the trials with them became.

Words and method are those of Google's tuning playbook: basic axis plots, and whether the best points lie at the end of
what was searched. Needs pandas; neither Ray nor torch.
"""

import itertools
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import yaml

from s2s_search.display.tables import cell
from s2s_search.hparams.arguments import Argument
from s2s_search.hparams.table import declared
from s2s_search.results.isolation import TOP, by_configuration, isolation
from s2s_search.results.replicates import configurations
from s2s_search.results.results import Results
from s2s_search.results.statistics import BEST, FEWEST_BEST, LEAST
from s2s_search.runs.tables import stored
from s2s_search.spaces.dimensions import Choice, Dimension, Range
from s2s_search.spaces.space import Space

PARTS = 4  # of a range, each the same share of its scale
FEW = 8  # points of a range that are told apart
NEAR = 0.05  # of a range's scale: this close to its end a value counts as being there


@dataclass(frozen=True, eq=False)
class Axis:
    """A searched hyperparameter with the trials in which it takes part and that have a best report, best first.

    points: trial (string), number (its row of the trials table), status, value, name (the value as tables print it),
    score (the best value of the metric), configuration (the same number where trials differ in nothing but their seed).
    """

    dimension: Dimension
    names: tuple[str, ...]  # of a choice's values, numbers upwards; all different
    points: pd.DataFrame
    without: int  # trials with a best report in which it takes no part
    minimizes: bool  # says whether a lower score is better

    @property
    def key(self) -> str:
        return self.dimension.key

    @property
    def is_scientific(self) -> bool:
        return self.dimension.role == "scientific"

    @property
    def range(self) -> Range | None:
        """The range, of steps up to its last point, which may lie below `max`."""
        domain = self.dimension.domain
        if not isinstance(domain, Range) or domain.step is None:
            return domain if isinstance(domain, Range) else None
        return replace(domain, high=_whole(domain.low + (domain.size - 1) * domain.step, domain))

    @property
    def steps(self) -> tuple[Any, ...]:
        """The values in order, of few numbers that were to choose from; of others none."""
        domain = self.dimension.domain
        if isinstance(domain, Range):
            return domain.points() if domain.size <= FEW else ()
        values = _in_order(domain) if isinstance(domain, Choice) else ()
        return values if all(map(_is_number, values)) else ()

    def position(self, value: float) -> float:
        """Where in [0, 1] a value of a range lies, in the range's own scale."""
        assert self.range is not None
        low, high = self.range.low, self.range.high
        if self.range.log:
            low, high, value = math.log(low), math.log(high), math.log(max(value, low))
        return min(max((value - low) / (high - low), 0.0), 1.0)

    def groups(self) -> Iterator[tuple[str, pd.DataFrame]]:
        """Yields the values, or the parts of a range, by their names with their points."""
        if self.names:
            yield from ((name, self.points[self.points["name"] == name]) for name in self.names)
            return
        if self.steps:
            for name, value in zip(_texts(self.steps), self.steps, strict=True):
                yield name, self.points[self.points["value"] == value]
            return
        part = self.points["value"].map(self.position).mul(PARTS).astype(int).clip(upper=PARTS - 1)
        edges = _texts(
            [float(self.value_at(index / PARTS)) for index in range(PARTS + 1)], digits=3
        )
        for index, (low, high) in enumerate(itertools.pairwise(edges)):
            yield f"{low} to {high}", self.points[part == index]

    def value_at(self, position: float) -> float:
        assert self.range is not None
        low, high = self.range.low, self.range.high
        return low * (high / low) ** position if self.range.log else low + position * (high - low)

    def isolation(self, top: int = TOP) -> pd.DataFrame:
        """What each value, or each part of a range, reached, whatever the other hyperparameters were."""
        return isolation(self.groups(), self.minimizes, top)


def axes(results: Results, space: Space) -> list[Axis]:
    """The axes of a search, in the space's order."""
    score, minimizes = f"best.{results.metric}", results.minimizes(results.metric)
    every = results.trials.assign(
        configuration=configurations(results), number=range(len(results.trials))
    )
    ranked = replace(results, trials=every).best(None)
    ranked = ranked[ranked[score].notna()]
    found = []
    for dimension in space.varying:
        key, domain = dimension.key, dimension.domain
        if key not in ranked:
            continue
        values = ranked[key]
        if isinstance(domain, Range) and not pd.api.types.is_numeric_dtype(values):  # a damaged log
            values = pd.to_numeric(values, errors="coerce")
        choices = _in_order(domain) if isinstance(domain, Choice) else ()
        active = (
            values.notna() | ranked["number"].map(results.takes_part(key))
            if None in choices
            else values.notna()
        )
        labels = [stored(space.label(key, value)) for value in choices]
        names = dict(zip(labels, _texts(labels), strict=True))
        columns = {
            "trial": ranked["trial"],
            "number": ranked["number"],
            "status": ranked["status"],
            "value": values,
            "name": [
                names.get(value) or cell(value)
                for value in values.astype(object).where(values.notna(), None)
            ],
            "score": ranked[score],
            "configuration": ranked["configuration"],
        }
        points = pd.DataFrame(columns)[active].reset_index(drop=True)
        when = {
            parent: tuple(space.label(parent, value) for value in dimension.when[parent])
            for parent in dimension.when
        }
        shown = replace(dimension, when=when)
        found.append(Axis(shown, tuple(names.values()), points, int((~active).sum()), minimizes))
    return found


def _texts(values: Sequence[object], digits: int = 4) -> list[str]:
    """Values as tables print them, null among them, and numbers with as many digits as tell them apart."""
    for count in range(digits, 18):
        texts = [
            f"{value:.{count}g}" if isinstance(value, float) else _text(value) for value in values
        ]
        if len({*texts}) == len(values):
            return texts
    return [json.dumps(value) for value in values]


def _text(value: object) -> str:
    return "null" if value is None else cell(value)


def _in_order(domain: Choice) -> tuple[Any, ...]:
    values: list[Any] = list(domain.values)
    return tuple(sorted(values) if all(map(_is_number, values)) else values)


# --- is the best point at the end of what was searched? ---


@dataclass(frozen=True)
class Boundary:
    """An end of a hyperparameter's values at which the best trials are: why it counts, and what to try next."""

    key: str
    why: str  # a sentence without its full stop
    next: str  # as it stands in the file of a search space


def boundary(axis: Axis) -> Boundary | None:
    """Says whether the best configuration, or most of the best tenth, is at an end of an axis that may go on there.

    Of a range the end is the outermost twentieth of its scale. Of a few numbers, three at least, it is the last one,
    and the best alone is not enough: chance puts it there too often. Fewer than 10 configurations tell nothing.
    """
    found = by_configuration(axis.points, axis.minimizes)
    if len(found) < LEAST or ((axis.range is None or axis.steps) and len(axis.steps) < 3):
        return None
    values = found["value"].head(max(FEWEST_BEST, round(BEST * len(found))))
    for upper in (False, True):
        at_end = values.map(lambda value, upper=upper: _is_at_end(axis, value, upper))
        counts = at_end.mean() > 0.5 or (at_end.iloc[0] and not axis.steps)
        following = _beyond(axis, upper) if counts else None
        if following is not None:
            end = f"at the {'upper' if upper else 'lower'} end, {_end(axis, upper):.4g}"
            count = (
                f"{int(at_end.sum())} of the best {len(values)} configurations (n = {len(found):,})"
            )
            why = f"the best is {end}, as are {count}" if at_end.iloc[0] else f"{count} are {end}"
            return Boundary(axis.key, why, following)
    return None


def _is_at_end(axis: Axis, value: float, upper: bool) -> bool:
    if axis.steps:
        return bool(value == axis.steps[-1 if upper else 0])
    position = axis.position(value)
    return position >= 1 - NEAR if upper else position <= NEAR


def _end(axis: Axis, upper: bool) -> float:
    if axis.range is not None:
        return axis.range.high if upper else axis.range.low
    return float(axis.steps[-1 if upper else 0])


def _beyond(axis: Axis, upper: bool) -> str | None:
    """The line of a search space that goes on beyond an end; None where the law of the hyperparameter ends there."""
    law, end = declared(axis.key), _end(axis, upper)
    if (upper and end == law.maximum) or (not upper and end == law.minimum):
        return None
    options = (
        _shifted_range(axis.range, law, upper)
        if axis.range is not None
        else _shifted_choices(axis, law, upper)
    )
    if options is None:
        return None
    if axis.dimension.role:
        options["role"] = axis.dimension.role
    if axis.dimension.when:
        options["when"] = {parent: list(values) for parent, values in axis.dimension.when.items()}
    return f"{axis.key}: {yaml.safe_dump(options, default_flow_style=True, sort_keys=False, width=10_000).strip()}"


def _shifted_range(domain: Range, law: Argument, upper: bool) -> dict[str, Any] | None:
    """The range moved by half its width, in its own scale, and kept within the law."""
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
        low, log = (
            domain.low / 10,
            True,
        )  # towards a zero that is not allowed, only a logarithm has an end
    low, high = _rounded(low, domain), _rounded(high, domain)
    low = low if law.minimum is None else max(low, _whole(law.minimum, domain))
    high = high if law.maximum is None else min(high, _whole(law.maximum, domain))
    options: dict[str, Any] = {"min": low, "max": high}
    if log:
        options["log"] = True
    if domain.step is not None and domain.step != 1:
        options["step"] = domain.step
    return options if low < high else None


def _rounded(x: float, domain: Range) -> float:
    """Two digits, which are enough for the end of a range; of steps, the nearest one."""
    if domain.step is None:
        return float(f"{x:.2g}")
    return _whole(domain.low + round((x - domain.low) / domain.step) * domain.step, domain)


def _whole(x: float, domain: Range) -> float:
    return round(x) if domain.whole else float(f"{x:.12g}")


def _shifted_choices(axis: Axis, law: Argument, upper: bool) -> dict[str, Any] | None:
    """The half of the values at an end, and one more: by their ratio where they have one, else by their distance."""
    values = axis.steps if upper else axis.steps[::-1]
    following = _following(values)
    too_low = (law.minimum is not None and following < law.minimum) or (
        law.above is not None and following <= law.above
    )
    if too_low or (law.maximum is not None and following > law.maximum):
        return None
    whole = all(isinstance(value, int) for value in values)
    if whole and following != int(following):
        return None
    half = sorted(
        [*values[len(values) // 2 :], int(following) if whole else float(f"{following:.4g}")]
    )
    return {"grid" if axis.dimension.grid else "choices": half}


def _following(values: Sequence[float]) -> float:
    ratios = [b / a for a, b in itertools.pairwise(values) if a]
    if (
        len(ratios) == len(values) - 1
        and ratios[-1] > 0
        and math.isclose(min(ratios), max(ratios), rel_tol=0.01)
    ):
        return values[-1] * ratios[-1]
    return 2 * values[-1] - values[-2]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
