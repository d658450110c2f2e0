"""How much each hyperparameter matters to the result of a search."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import optuna
import pandas as pd
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, create_trial

from s2s_search.results.optuna_study import KnownCells, distributions, quiet, rows_of, settings_of
from s2s_search.results.ranked import Ranked
from s2s_search.results.statistics import BEST_SHARE, FEWEST_BEST, LEAST, alike

FEWEST_ACTIVE = 2  # a key is judged if it takes part in at least this number of the best trials


def importance(results: Ranked, metric: str | None = None) -> pd.DataFrame:
    """Returns the importance of each hyperparameter, as `Results.importance` describes."""
    metric = metric or results.metric
    minimize, score = results.minimizes(metric), results.measure(metric)
    values = results.trials[score]
    worst = values.max() if minimize else values.min()
    judged = list(_judged(results, score, worst, distributions(results)))
    # `train.seed` tells configurations apart only if it was searched.
    groups = alike(results.trials, results.searched)
    scored, every = groups[values.notna()].nunique(), groups.nunique()
    keys = results.searched if scored >= LEAST else ()
    active = {key: sum(seeds for trial, seeds in judged if key in trial.params) for key in keys}
    found = {key: 0.0 for key in keys if active[key] == 0}  # keys with a single value
    if any(active.values()):
        found |= _ped_anova([trial for trial, _ in judged], minimize, active)
    total = math.fsum(found.values()) or 1.0
    shares = [found[key] / total if key in found else None for key in keys]
    columns = {
        "hyperparameter": pd.Series(keys, dtype="string"),
        "importance": pd.Series(shares, dtype="Float64"),
        "trials": pd.Series(list(active.values()), dtype="Int64"),
    }
    table = pd.DataFrame(columns).sort_values(
        ["importance", "hyperparameter"], ascending=[False, True]
    )
    if scored < LEAST:
        law = f"importance needs at least {LEAST} configurations with a value of {score}"
        table.attrs["reason"] = f"{law}, and {scored} of {every} have one"
    return table.reset_index(drop=True)


def _judged(
    results: Ranked, score: str, worst: float, domains: Mapping[str, BaseDistribution]
) -> Iterator[tuple[FrozenTrial, int]]:
    """Yields the configurations that count, with the mean over their seeds, and how many seeds.

    A configuration counts if it has a value, or if it diverged without one.

    Args:
        results: the search.
        score: the column of the value.
        worst: the value of a configuration that diverged without one.
        domains: the distributions of the searched keys.
    """
    groups: dict[int, list[tuple[KnownCells, float]]] = {}
    numbers = alike(results.trials, results.searched)
    for cells, group in zip(rows_of(results, domains), numbers, strict=True):
        value = cells.get(score, worst if cells["status"] == "diverged" else None)
        if value is not None and not pd.isna(value):
            groups.setdefault(group, []).append((cells, float(value)))
    for seeds in groups.values():
        mean = math.fsum(value for _, value in seeds) / len(seeds)
        yield create_trial(value=mean, **settings_of(seeds[0][0], domains)), len(seeds)


def _ped_anova(
    trials: Sequence[FrozenTrial], minimize: bool, keys: Iterable[str]
) -> dict[str, float]:
    """Returns the importance of those keys that at least FEWEST_ACTIVE of the best trials have.

    With fewer, a single trial would decide.
    """
    share = max(BEST_SHARE, FEWEST_BEST / len(trials))
    ranked = sorted(trials, key=lambda trial: trial.value or 0.0, reverse=not minimize)
    best = ranked[: math.ceil(share * len(trials))]
    known = [key for key in keys if sum(key in trial.params for trial in best) >= FEWEST_ACTIVE]
    with quiet():
        study = optuna.create_study(direction="minimize" if minimize else "maximize")
        study.add_trials(trials)
        return optuna.importance.PedAnovaImportanceEvaluator(target_quantile=share).evaluate(
            study, known
        )
