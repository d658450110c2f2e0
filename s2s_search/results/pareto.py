"""The Pareto front: results such that no other is as good in all metrics and better in one."""

import math
from collections.abc import Sequence
from operator import le


def pareto(values: Sequence[Sequence[float | None]], goals: Sequence[str]) -> list[bool]:
    """Returns for each row whether it is on the Pareto front.

    A row has a number for each of the goals, "minimize" or "maximize". It is on the front if no
    other row is as good in all of them and better in one. A row with None, NaN or an infinity is
    never on the front.
    """
    signs = [1 if goal == "minimize" else -1 for goal in goals]
    costs: dict[int, tuple[float, ...]] = {}
    for index, row in enumerate(values):
        finite = [value for value in row if value is not None and math.isfinite(value)]
        if len(finite) == len(row):
            costs[index] = tuple(sign * value for sign, value in zip(signs, finite, strict=True))
    front: list[tuple[float, ...]] = []
    for cost in sorted(set(costs.values())):  # rows that dominate a row come before it
        if not any(all(map(le, other, cost)) for other in front):
            front.append(cost)
    return [costs.get(index) in front for index in range(len(values))]
