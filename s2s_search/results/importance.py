"""How much each hyperparameter matters to the result of a search, beside what chance gives.

A configuration counts by the square root of its place in the ranking: places near the top count
more, and a wild score counts little. The importance of a hyperparameter is the share of the
variance of these numbers that its values explain. Needs numpy and pandas, and SciPy late; neither
Ray nor torch.
"""

import itertools
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from s2s_search.results.draws import Draws, draws_of
from s2s_search.results.ranked import Ranked
from s2s_search.results.replicates import configurations
from s2s_search.results.scores import Scores, comparable, root_ranks
from s2s_search.results.statistics import LEAST, LEVEL, SEED, Floats

SHUFFLES = 1_000  # the number of shuffled searches with which a search is compared
FEWEST = 5  # a value of a choice is judged by itself if this number of configurations has it
ONE_SIDED = 5  # the number of pairs in which one value may matter under one condition alone
CURVED = 4  # from this number of different numbers on, a key is judged by a parabola


@dataclass(frozen=True, eq=False)
class Factor:
    """A hyperparameter as columns of numbers, for the configurations in which it takes part.

    rows: the places of these configurations
    columns: orthonormal columns, which are orthogonal to a constant column
    """

    key: str
    rows: NDArray[np.int64]
    columns: Floats
    is_crossed: bool


@dataclass(frozen=True, eq=False)
class Places:
    """The configurations of a search, with their places, and the same of shuffled searches.

    table: one row per configuration
    shuffled: square roots of places; the first column is the search itself, and each other column
        has them in another order
    draw: the number of each configuration's draw
    """

    table: pd.DataFrame
    shuffled: Floats
    draw: NDArray[np.int64]

    def of(self, factor: Factor) -> Floats:
        """Returns the places that a factor is to explain, centred.

        The values of a crossed key are compared within draws; those of another key by the means of
        the draws.
        """
        places = self.shuffled[factor.rows]
        draw = self.draw[factor.rows]
        if len(draw) == 0:
            return places
        means = _means(places, draw)[draw] if len(set(draw)) < len(draw) else places
        if factor.is_crossed:
            return places - means
        return np.asarray(means - means.mean(axis=0))


def importance(
    results: Ranked, metric: str | None = None, scores: Scores | None = None
) -> pd.DataFrame:
    """Returns the importance of each hyperparameter, as `Results.importance` describes."""
    for run in results.runs or (results,):
        run.space()  # without it, nobody knows which values were crossed with the draws
    scores = scores or comparable(results, metric)
    places = _places(results, scores)
    keys = [key for key in results.searched if key != SEED]
    columns = {
        "hyperparameter": "string",
        "importance": "Float64",
        "chance": "Float64",
        "p": "Float64",
        "trials": "Int64",
    }
    configured, every = len(places.table), configurations(results).nunique()
    if configured < LEAST:
        table = pd.DataFrame({name: pd.Series([], dtype=kind) for name, kind in columns.items()})
        law = f"importance needs at least {LEAST} configurations with a score"
        why = f"{law}, and {configured} of {every} have one"
        table.attrs["reason"] = scores.reason or why
        return table
    draws = draws_of(results)
    factors = [_factor(results, draws, places, key) for key in keys]
    explained, evidence = [], []
    for factor in factors:
        share, p = _explained(places.of(factor), factor, _units(places, factor))
        explained.append(share)
        evidence.append(p)
    least = np.min(evidence, axis=0) if evidence else np.ones(1)
    rows: list[tuple[Any, ...]] = []
    for key, factor, share, p in zip(keys, factors, explained, evidence, strict=True):
        active = int(results.takes_part(key)[scores.judged.notna()].sum())
        if factor.columns.shape[1] == 0:
            # A key with one value explains nothing; of one that took part nowhere nothing is known.
            nothing = (0.0, 0.0, 1.0) if active else (None, None, None)
            rows.append((key, *nothing, active))
        else:
            # p is that of the whole table: how often any key of a shuffled search has as small a p.
            of_all = float((least <= p[0] + 1e-12).mean())
            rows.append((key, share[0], float(np.quantile(share[1:], LEVEL)), of_all, active))
    table = pd.DataFrame(rows, columns=list(columns)).astype(columns)
    first = {key: p[0] for key, p in zip(keys, evidence, strict=True)}
    table = table.assign(first=table["hyperparameter"].map(first))
    table = table.sort_values(["first", "hyperparameter"], na_position="last", kind="stable")
    return table.drop(columns="first").reset_index(drop=True)


@dataclass(frozen=True)
class Reversal:
    """A hyperparameter whose better value depends on another hyperparameter."""

    key: str
    better: tuple[str, str]  # its better values under the first and the second condition
    other: str
    conditions: tuple[str, str]  # values of the other hyperparameter
    p: float


def reversals(results: Ranked, scores: Scores | None = None) -> list[Reversal]:
    """Returns the hyperparameters of which another value is better under another condition.

    They are the reversals of `possible_reversals` that are more than chance.
    """
    return [found for found in possible_reversals(results, scores) if found.p <= 1 - LEVEL]


def possible_reversals(results: Ranked, scores: Scores | None = None) -> list[Reversal]:
    """Returns the clearest reversal of each two hyperparameters in either order, by their p.

    One of two values must be better under one condition, and the other under the other one, each by
    a test of Mann and Whitney. If neither has an effect, both p are as small as the larger one with
    the probability 2 p^2; if one has an effect, with the probability p. So the p of a reversal is
    2 p^2 times the number of tests, or p times ONE_SIDED if that is more. An effect that is only
    larger under one condition is no reversal. Many different numbers are halved at their median.
    """
    scores = scores or comparable(results)
    places = _places(results, scores)
    if len(places.table) < 2 * LEAST:
        return []
    draws = draws_of(results)
    is_crossed = places.draw.max() + 1 < len(places.draw) and bool(draws.crossed)
    keys = [key for key in results.searched if key != SEED]
    parts = {key: _parts(places.table[key]) for key in keys}
    tests, found = 0, []
    for key, other in itertools.permutations(keys, 2):
        if is_crossed and key not in draws.crossed:
            continue  # the trials of a draw share its value, so they are not independent
        best: Reversal | None = None
        pairs = itertools.combinations(parts[key], 2), itertools.combinations(parts[other], 2)
        for values, conditions in itertools.product(*map(list, pairs)):
            reversal = _reversal(places.shuffled[:, 0], key, values, other, conditions)
            if reversal is None:
                continue
            tests += 1
            if best is None or reversal.p < best.p:
                best = reversal
        if best is not None:
            found.append(best)
    judged = []
    for reversal in found:
        p = max(2 * tests * reversal.p**2, ONE_SIDED * reversal.p)
        judged.append(replace(reversal, p=min(p, 1.0)))
    return sorted(judged, key=lambda reversal: reversal.p)


Part = tuple[str, NDArray[np.bool_]]  # a value or a half of the values, and who has it


def _parts(values: "pd.Series[Any]") -> list[Part]:
    """Returns the values that enough configurations have, or both halves of many numbers."""
    known = values.notna()
    if pd.api.types.is_numeric_dtype(values) and values[known].nunique() >= CURVED:
        middle = float(values[known].median())
        upper = values.fillna(middle).to_numpy(float) > middle
        is_known = known.to_numpy(bool)
        return [(f"up to {middle:.3g}", is_known & ~upper), (f"above {middle:.3g}", upper)]
    parts = []
    for value in values[known].unique():
        has_it = (values == value).fillna(False).to_numpy(bool)
        if has_it.sum() >= 2 * FEWEST:
            parts.append((str(value), has_it))
    return parts


def _reversal(
    places: Floats, key: str, values: tuple[Part, Part], other: str, conditions: tuple[Part, Part]
) -> Reversal | None:
    """Returns which of two values is better under each of two conditions.

    None: too few configurations have one of the values under one of the conditions.
    """
    from scipy.stats import mannwhitneyu

    cells = [[places[mine & under] for _, mine in values] for _, under in conditions]
    if min(len(cell) for under in cells for cell in under) < FEWEST:
        return None
    names = conditions[0][0], conditions[1][0]
    is_first = [bool(first.mean() <= second.mean()) for first, second in cells]
    better = values[not is_first[0]][0], values[not is_first[1]][0]
    if is_first[0] == is_first[1]:
        return Reversal(key, better, other, names, 1.0)
    chances = []
    for (first, second), is_better in zip(cells, is_first, strict=True):
        side = "less" if is_better else "greater"
        chances.append(float(mannwhitneyu(first, second, alternative=side).pvalue))
    return Reversal(key, better, other, names, max(chances))


def _explained(places: Floats, factor: Factor, units: int) -> tuple[Floats, Floats]:
    """Returns the share of the variance that a factor explains, and its p by an F test.

    Both are given for the search and for each shuffled search. The share is adjusted: chance alone
    gives 0 on average.

    units: the number of values that are independent of each other, one less for each mean that was
        taken away.
    """
    from scipy.stats import f

    degrees = factor.columns.shape[1]
    free = units - degrees  # what is left for chance
    if degrees == 0 or free < 1:
        return np.zeros(places.shape[1]), np.ones(places.shape[1])
    total = (places**2).sum(axis=0)
    explained = ((factor.columns.T @ places) ** 2).sum(axis=0)
    # Equal scores, whose places differ by rounding alone, explain nothing.
    is_flat = total < 1e-12
    share = np.where(is_flat, 0.0, explained / np.where(is_flat, 1.0, total))
    share = np.minimum(share, 1 - 1e-12)
    p = np.where(is_flat, 1.0, f.sf(share / degrees / ((1 - share) / free), degrees, free))
    adjusted = np.maximum(1 - (1 - share) * units / free, 0.0)
    return adjusted, p


def _units(places: Places, factor: Factor) -> int:
    draws = len(set(places.draw[factor.rows]))
    return len(factor.rows) - draws if factor.is_crossed else draws - 1


def _places(results: Ranked, scores: Scores) -> Places:
    """Returns the configurations with a score, each with the mean over its seeds."""
    trials = results.trials.assign(
        configuration=configurations(results),
        score=scores.judged.astype(float) * (1 if scores.minimize else -1),
        draw=draws_of(results).numbers,
    )
    trials = trials.dropna(subset="score")
    table = trials.drop_duplicates("configuration").set_index("configuration")
    table = table.assign(score=trials.groupby("configuration", sort=False)["score"].mean())
    if table.empty:
        return Places(table, np.empty((0, 1)), np.empty(0, np.int64))
    draw = pd.factorize(table["draw"])[0]
    return Places(table, _shuffled(root_ranks(table["score"].to_numpy()), draw), draw)


def _shuffled(places: Floats, draw: NDArray[np.int64]) -> Floats:
    """Returns the places, and beside them the places in other orders, a column for each.

    The means of the draws change places with each other, and the distances from them do so within
    each draw.
    """
    rng = np.random.default_rng(0)
    count = int(draw.max()) + 1
    means = np.array([places[draw == number].mean() for number in range(count)])
    apart = places - means[draw]
    orders = np.argsort(rng.random((SHUFFLES, count)), axis=1)
    by_draw = np.argsort(draw, kind="stable")
    within = np.argsort(draw[by_draw] + rng.random((SHUFFLES, len(draw))), axis=1)
    moved = np.empty((SHUFFLES, len(draw)))
    moved[:, by_draw] = apart[by_draw][within]
    return np.column_stack([places, (means[orders][:, draw] + moved).T])


def _means(places: Floats, draw: NDArray[np.int64]) -> Floats:
    """Returns the mean of the places of each draw, a row for each number of a draw."""
    member = np.zeros((int(draw.max()) + 1, len(draw)))
    member[draw, np.arange(len(draw))] = 1.0
    counts = np.maximum(member.sum(axis=1, keepdims=True), 1.0)
    return np.asarray(member @ places / counts)


def _factor(results: Ranked, draws: Draws, places: Places, key: str) -> Factor:
    """Returns a hyperparameter as columns of numbers."""
    from scipy.stats import rankdata

    takes_part = results.takes_part(key)
    trials = results.trials.assign(active=takes_part, configuration=configurations(results))
    active = trials.drop_duplicates("configuration").set_index("configuration")["active"]
    rows = np.flatnonzero(active.reindex(places.table.index).to_numpy(bool))
    values = places.table[key].iloc[rows]
    is_crossed = key in draws.crossed
    if (
        pd.api.types.is_numeric_dtype(values)
        and values.notna().all()
        and (values.nunique() >= CURVED)
    ):
        # The places of the values: a scale that is even, whether the range is logarithmic or not.
        line = rankdata(values.to_numpy(float))
        line = (line - line.mean()) / line.std()
        raw = np.column_stack([line, line**2])
    else:
        raw = _indicators(values)
    draw = places.draw[rows]
    if is_crossed and len(rows):
        raw = raw - _means(raw, draw)[draw]
    elif len(rows):
        raw = _means(raw, draw)[draw]
        raw = raw - raw.mean(axis=0)
    return Factor(key, rows, _basis(raw), is_crossed)


def _indicators(values: "pd.Series[Any]") -> Floats:
    """Returns a column for each value but one; values that few configurations have are one value.

    The values of a column of two are 1 where a configuration has the value, and else 0.
    """
    texts = values.map(str, na_action="ignore").astype(object).where(values.notna(), None)
    codes, names = pd.factorize(texts, use_na_sentinel=False)
    counts = np.bincount(codes, minlength=len(names))
    rare = counts < min(FEWEST, max(len(values) // 6, 2))
    codes = np.where(rare[codes], len(names), codes)
    kept = np.unique(codes)[1:]
    return np.asarray((codes[:, None] == kept[None, :]).astype(float))


def _basis(columns: Floats) -> Floats:
    """Returns orthonormal columns that span the same space."""
    if columns.size == 0:
        return np.zeros((len(columns), 0))
    left, sizes, _ = np.linalg.svd(columns, full_matrices=False)
    return np.asarray(left[:, sizes > 1e-9 * max(float(sizes[0]), 1e-9) * math.sqrt(len(columns))])
