"""A report of a trial, as search methods read it."""

import math
from collections.abc import Mapping
from typing import NamedTuple

from s2s_search.metrics import LOSS, SECONDS


class Reading(NamedTuple):
    """The numbers of a report that decide in a search.

    Attributes:
        step: the step of the report.
        value: the value of the metric.
        loss: the loss on the dev part, in nats a token; NaN where it is not known.
        seconds: how long the trial has trained; 0 where that is not known.
    """

    step: int
    value: float
    loss: float = math.nan
    seconds: float = 0.0


def reading_of(report: Mapping[str, object], metric: str) -> Reading | None:
    """Returns the reading of a report; None for one without a step or a value of the metric."""
    step, value = report.get("step"), report.get(metric)
    if not step or value is None:
        return None
    loss, seconds = report.get(LOSS.name), report.get(SECONDS.name)
    return Reading(
        int(_number(step)),
        _number(value),
        math.nan if loss is None else _number(loss),
        0.0 if seconds is None else _number(seconds),
    )


def _number(value: object) -> float:
    assert isinstance(value, int | float)
    return value
