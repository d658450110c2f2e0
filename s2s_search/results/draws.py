"""The draws of a search that crosses them with grids, such as eight learning rates with each cell.

The trials of a draw have everything in common but the values of the grids. They are compared with
each other, and a draw counts once where draws are compared. Needs pandas; neither Ray nor torch.
"""

from dataclasses import dataclass

import pandas as pd

from s2s_search.errors import ConfigError
from s2s_search.results.ranked import Ranked
from s2s_search.results.replicates import configurations
from s2s_search.results.statistics import SEED, alike

FEWEST_DRAWS = 6  # with 5 draws no test of two values reaches a p of 0.05


@dataclass(frozen=True, eq=False)
class Draws:
    """Which trials are of the same draw.

    crossed: the keys of the grids; empty if every configuration was drawn on its own
    numbers: the number of each trial's draw
    """

    results: Ranked
    crossed: frozenset[str]
    numbers: "pd.Series[int]"

    def units(self, key: str) -> "pd.Series[int]":
        """Returns the number of the unit of each trial, by which the values of a key are compared.

        It is the configuration; but the trials of a draw share its values of all keys that are not
        crossed with it, so for such a key the whole draw is one unit.
        """
        if self.crossed and key not in self.crossed:
            return self.numbers
        return configurations(self.results)

    def blocks(self, key: str) -> "pd.Series[int] | None":
        """Returns the blocks of trials in which the values of a key meet the same conditions.

        A block is a draw. With few draws it is all trials that are equal in every other key. None:
        the key is not crossed with the draws.
        """
        if key not in self.crossed:
            return None
        if self.numbers.nunique() >= FEWEST_DRAWS:
            return self.numbers
        trials, searched = self.results.trials, self.results.searched
        others = []
        for other in searched:
            # A key that takes part under some values of this key only differs because of them.
            taking_part = trials[other].notna().groupby(trials[key]).any()
            if other not in (key, SEED) and taking_part.nunique() == 1:
                others.append(other)
        return alike(trials, self._by_run(others))

    def _by_run(self, keys: list[str]) -> list[str]:
        return ["run", *keys] if self.results.runs else keys


def draws_of(results: Ranked) -> Draws:
    """Returns the draws of a search; of several searches if all cross the same keys."""
    grids = [_grid(run) for run in results.runs or (results,)]
    crossed = frozenset.intersection(*grids) & set(results.searched)
    drawn = [key for key in results.searched if key not in crossed and key != SEED]
    # A key that does not always take part may depend on a grid, and would part a draw.
    always = [key for key in drawn if results.trials[key].notna().all()]
    names = ["run"] if results.runs else []
    if crossed:
        numbers = alike(results.trials, [*names, *(always or drawn)])
    else:
        numbers = alike(results.trials, [*names, *drawn])
    return Draws(results, crossed, numbers)


def _grid(run: Ranked) -> frozenset[str]:
    """Returns the keys that a search ran on a grid; none if its space.yaml is not there."""
    try:
        space = run.space()
    except ConfigError:
        return frozenset()
    dimensions = space.varying
    if space.search.method == "grid":
        return frozenset(dimension.key for dimension in dimensions)
    return frozenset(dimension.key for dimension in dimensions if dimension.grid)
