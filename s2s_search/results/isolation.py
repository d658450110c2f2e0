"""Isolation: what each value of a hyperparameter reached, and whether the values differ.

The name and the idea are those of Google's tuning playbook: the other hyperparameters are nuisance
parameters. Where the search crossed the values with its draws, the values are compared within each
draw. Needs numpy and pandas, and SciPy late; neither Ray nor torch.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from s2s_search.errors import ConfigError
from s2s_search.results.draws import draws_of
from s2s_search.results.results import Results
from s2s_search.results.scores import comparable, root_ranks
from s2s_search.results.statistics import AT_ONCE, LEVEL, Floats, student_quantile

SHUFFLES = 2_000  # the number of permutations of a test
CHANCE = 1 - LEVEL  # a p above it is no more than chance


def isolation(groups: Iterable[tuple[str, pd.DataFrame]], minimize: bool) -> pd.DataFrame:
    """Returns a table of what groups of trials reached, one row per group.

    A configuration with several seeds counts once, with the mean over its seeds. (So does a draw
    with several trials, if the column configuration holds the draw.) The mean of a
    group is that of the better half of its configurations: the same share for every group, because
    the best 5 of 40 are better than the best 5 of 16 by chance alone.

    The columns are value (string); n (the number of configurations); best; mean (of the better
    half); low and high (the 95 % interval of that mean); top (the number of configurations in the
    mean); trial (the best one); scores (of all configurations, the best first); blocks (the block
    of each configuration, or None).

    Args:
        groups: the groups' names, and their trials, best first, with the columns trial,
            configuration and score. A column block says which trials are to be compared with each
            other.
        minimize: whether a lower score is better.
    """
    rows = []
    for name, trials in groups:
        found = by_configuration(trials, minimize)
        scores = found["score"].tolist()
        blocks = found["block"].tolist() if "block" in found else None
        best, mean, low, high, trial = math.nan, math.nan, math.nan, math.nan, None
        top = math.ceil(len(scores) / 2)
        if scores:
            best, trial = scores[0], found["trial"].iloc[0]
            mean = float(np.mean(scores[:top]))
            low, high = better_half(scores)
        rows.append((name, len(found), best, mean, low, high, top, trial, scores, blocks))
    columns = ["value", "n", "best", "mean", "low", "high", "top", "trial", "scores", "blocks"]
    return pd.DataFrame(rows, columns=columns)


def by_configuration(trials: pd.DataFrame, minimize: bool) -> pd.DataFrame:
    """Returns one row per configuration, best first, from trials that are sorted best first.

    The score is the mean over the seeds of the configuration. All other columns are those of the
    best seed.
    """
    groups = trials.groupby("configuration", sort=False)
    found = trials.drop_duplicates("configuration").set_index("configuration")
    found = found.assign(score=groups["score"].mean())
    return found.sort_values("score", ascending=minimize, kind="stable").reset_index(drop=True)


def isolated(results: Results, key: str) -> pd.DataFrame:
    """Returns the isolation of the values of a column; the value with the best trial comes first.

    The scores are those of `comparable`: under a scheduler, at the last step that all trials
    reached.

    Raises:
        ConfigError: there is no such column, or no two trials can be compared.
    """
    column = results.column(key)
    scores = comparable(results)
    if scores.reason:
        raise ConfigError(f"nothing can be compared: {scores.reason}", str(results.folder))
    draws = draws_of(results)
    trials = results.trials.assign(configuration=draws.units(column), score=scores.judged)
    blocks = draws.blocks(column)
    if blocks is not None:
        trials = trials.assign(block=blocks)
    trials = trials.dropna(subset=[column, "score"])
    trials = trials.sort_values("score", ascending=scores.minimize, kind="stable")
    groups = [(str(value), group) for value, group in trials.groupby(column, sort=False)]
    return isolation(groups, scores.minimize)


def better_half(scores: Sequence[float]) -> tuple[float, float]:
    """Returns the 95 % interval of the mean of the better half; (nan, nan) for fewer than 4 scores.

    It is the interval of a trimmed mean (Tukey and McLaughlin, 1963): a worse score counts like the
    end of the better half.

    scores: the scores, best first.
    """
    values = np.asarray(scores, float)
    top = math.ceil(len(values) / 2)
    if top < 2 or len(values) < 4:
        return math.nan, math.nan
    mean = values[:top].mean()
    middle = (values[top - 1] + values[top]) / 2
    capped = np.concatenate([values[:top], np.full(len(values) - top, middle)])
    error = capped.std(ddof=1) / (top / len(values) * math.sqrt(len(values)))
    reach = student_quantile((1 + LEVEL) / 2, top - 1) * error
    return float(mean - reach), float(mean + reach)


# --- do the values differ? ---


@dataclass(frozen=True)
class Verdict:
    """Which values of an isolation differ by more than chance.

    order: the rows of the isolation that have scores, the best first
    chances: the p of each of these rows against the first one; NaN for the first
    scores: the scores of each, lower is better; if `is_paired`, the places in them are the blocks
    """

    order: tuple[int, ...]
    chances: tuple[float, ...]
    scores: tuple[Floats, ...]
    is_paired: bool

    @property
    def chance(self) -> float:
        """The smallest p: that of the last value against the first."""
        return self.chances[-1]


def verdict(table: pd.DataFrame, minimize: bool) -> Verdict:
    """Returns which values of an isolation differ.

    A p says how often equal values would be as far from the first one. It is valid for all values
    together: at most 5 of 100 searches name a difference where there is none.

    The test permutes the scores over the values, within blocks if every value was tried in them. A
    score counts by the square root of its place among all scores: places near the top count more,
    and a wild score counts little. Of more than two values it is a step-down test: the best j
    values are tested after all larger sets were told apart, with the p of Ryan (1960) for j values.
    """
    rows = [row for row in range(len(table)) if table["n"].iloc[row]]
    sign = 1 if minimize else -1
    scores = [sign * np.array(table["scores"].iloc[row], float) for row in rows]
    blocks = [table["blocks"].iloc[row] for row in rows]
    paired = _by_block(scores, blocks)
    is_paired = paired is not None
    groups = scores if paired is None else paired
    if not rows:
        return Verdict((), (math.nan,), (), False)
    means = [float(places.mean()) for places in _places(groups, is_paired)]
    order = sorted(range(len(rows)), key=lambda place: means[place])
    groups = [groups[place] for place in order]
    chances = [math.nan] * len(order)
    p = 0.0
    for size in range(len(order), 1, -1):
        if p <= CHANCE:
            alone = chance(groups[:size], is_paired)
            if size <= len(order) - 2:
                alone = 1 - (1 - alone) ** (len(order) / size)
            p = max(p, alone)
        chances[size - 1] = p
    ranked = tuple(rows[place] for place in order)
    return Verdict(ranked, tuple(chances), tuple(groups), is_paired)


def chance(groups: Sequence[Floats], is_paired: bool) -> float:
    """Returns how often shuffled scores have two groups as far apart as the furthest two."""
    places, sizes = _places(groups, is_paired), [len(group) for group in groups]
    ends = np.cumsum(sizes)

    def furthest(shuffled: Floats) -> Floats:
        means = []
        for end, size in zip(ends, sizes, strict=True):
            means.append(shuffled[..., end - size : end].mean(axis=-1))
        distances = []
        for a, b in itertools.combinations(range(len(sizes)), 2):
            distances.append(abs(means[a] - means[b]) / math.sqrt(1 / sizes[a] + 1 / sizes[b]))
        return np.asarray(np.max(distances, axis=0))

    every = np.concatenate(places)
    observed = furthest(every) - 1e-9  # for sums of the same places in another order
    as_far = 1  # the observed order counts as one of the permutations
    for order in _orders(sizes, is_paired):
        as_far += int((furthest(every[order]) >= observed).sum())
    return as_far / (SHUFFLES + 1)


def least_chance(sizes: Sequence[int], is_paired: bool) -> float:
    """Returns the smallest p that a test of two groups of these sizes can have."""
    a, b = sizes
    if is_paired:
        return math.ldexp(2.0, -a)
    mirrored = 2.0 if a == b else 1.0  # the mirrored order of two equal groups is as far apart
    return mirrored / math.comb(a + b, a)


def _orders(sizes: Sequence[int], is_paired: bool) -> Iterator[NDArray[np.int64]]:
    """Yields rows of positions, which put the scores of all groups into another order.

    Paired groups have equal sizes, and a score stays in its place in some group.
    """
    total, left, rng = sum(sizes), SHUFFLES, np.random.default_rng(0)
    while left > 0:
        rows = min(left, max(1, AT_ONCE // total))
        if is_paired:
            groups = np.argsort(rng.random((rows, len(sizes), sizes[0])), axis=1)
            yield (groups * sizes[0] + np.arange(sizes[0])).reshape(rows, total)
        else:
            yield np.argsort(rng.random((rows, total)), axis=1)
        left -= rows


def _by_block(
    scores: Sequence[Floats], blocks: Sequence[Sequence[int] | None]
) -> list[Floats] | None:
    """Returns the mean scores in those blocks that have all values; None if these are too few."""
    means = []
    for of_value, places in zip(scores, blocks, strict=True):
        if places is None:
            return None
        means.append(pd.Series(of_value).groupby(np.array(places)).mean())
    complete = pd.concat(means, axis=1).dropna() if means else pd.DataFrame()
    if len(complete) < 2:
        return None
    return list(complete.to_numpy().T)


def _places(groups: Sequence[Floats], is_paired: bool) -> list[Floats]:
    """Returns the square root of the place of each score among the scores of all groups.

    The best score has the place 1, and equal scores share a place. Paired scores are ranked by
    their distance from the mean of their block.
    """
    table = list(groups)
    largest = max(float(np.abs(group).max()) for group in groups)
    if is_paired:
        table = list(np.array(groups) - np.mean(groups, axis=0))
    ends = np.cumsum([len(group) for group in groups])
    return np.split(root_ranks(np.concatenate(table), largest), ends[:-1])


# --- in words ---


def conclusion(
    table: pd.DataFrame, minimize: bool, quoted: Callable[[str], str] = str, keys: int = 1
) -> str:
    """Says which values of an isolation are the best, and whether they differ.

    Args:
        table: the isolation.
        minimize: whether a lower score is better.
        quoted: how to write the name of a value.
        keys: the number of hyperparameters that are judged together; p is multiplied by it.
    """
    found = verdict(table, minimize)
    rows = [table.iloc[row] for row in found.order]
    if len(rows) < 2:
        return "fewer than two of its values have a result, so there is nothing to compare"
    chances = _corrected(found, keys)
    names = [quoted(row["value"]) for row in rows]
    means = [_mean(row) for row in rows]
    worse = _worse(found, table, minimize, keys)
    if 1 in worse and len(worse) == len(rows) - 1:
        against = names[1] if len(rows) == 2 else f"the other {len(rows) - 1} values"
        said = f"{names[0]} is better than {against}, {means[0]} against {means[1]}"
        return f"{said}{_pairs(found, 1)}; more than chance (p = {chances[1]:.2g})"
    if worse:
        those = " and ".join(f"{names[place]} ({means[place]})" for place in worse)
        verb = "is" if len(worse) == 1 else "are"
        p = max(chances[place] for place in worse)
        said = f"{those} {verb} worse than {names[0]} ({means[0]}), more than chance (p = {p:.2g})"
        return f"{said}; no sign that {names[0]} is better than {names[1]} ({means[1]})"
    sizes = [len(scores) for scores in found.scores[:2]]
    if len(rows) == 2 and keys * least_chance(sizes, found.is_paired) > CHANCE:
        said = "too few to tell them apart"
    else:
        said = f"no sign that one is better (p = {min(chances[1:]):.2g})"
    return f"{names[0]} {means[0]}, then {names[1]} {means[1]}; {said}"


def leaders(table: pd.DataFrame, minimize: bool, keys: int = 1) -> list[int]:
    """Returns the rows of an isolation whose values may be the best, the best first.

    They are those that `conclusion` does not call worse than the first. The arguments are its own.
    """
    found = verdict(table, minimize)
    worse = _worse(found, table, minimize, keys)
    return [row for place, row in enumerate(found.order) if place not in worse]


def _worse(found: Verdict, table: pd.DataFrame, minimize: bool, keys: int) -> list[int]:
    """Returns the places in the order of a verdict that are worse than the first."""
    means = table.iloc[list(found.order)]["mean"].to_numpy() * (1 if minimize else -1)
    worse = []
    for place, p in enumerate(_corrected(found, keys)):
        # No claim by places that the means contradict.
        if p <= CHANCE and means[place] > means[0]:
            worse.append(place)
    return worse


def _corrected(found: Verdict, keys: int) -> list[float]:
    """Returns the p of a verdict, multiplied by the number of keys that are judged together."""
    return [min(keys * p, 1.0) for p in found.chances]


def _mean(row: "pd.Series[Any]") -> str:
    return f"{row['mean']:.4g} (the best {row['top']} of {row['n']})"


def _pairs(found: Verdict, place: int) -> str:
    """Says in how many blocks the first value was better than another, and by how much."""
    if not found.is_paired:
        return ""
    apart = found.scores[place] - found.scores[0]
    middle = f"by {np.median(apart):.3g} in the middle one"
    count = f"{int((apart > 0).sum())} of {len(apart)}"
    return f", and in {count} pairs of the same draw, {middle}"
