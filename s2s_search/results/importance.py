"""How much each hyperparameter matters to the result of a search."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import optuna
import pandas as pd
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, create_trial

from s2s_search.results.optuna_study import Cells, distributions, quiet, rows_of, settings_of
from s2s_search.results.ranked import Ranked
from s2s_search.results.statistics import BEST, FEWEST_BEST, LEAST, alike

FEWEST_ACTIVE = 2  # of the best, that a conditional key takes part in


def importance(results: Ranked, metric: str | None = None) -> pd.DataFrame:
    """Results.importance, which says what it gives."""
    minimize, score = (
        results.minimizes(metric or results.metric),
        results.measure(metric or results.metric),
    )
    worst, domains = (
        results.trials[score].max() if minimize else results.trials[score].min(),
        distributions(results),
    )
    judged = list(_judged(results, score, worst, domains))
    trials = [trial for trial, _ in judged]
    groups = alike(
        results.trials, results.searched
    )  # not train.seed, unless it was searched as any other
    scored, every = groups[results.trials[score].notna()].nunique(), groups.nunique()
    keys = results.searched if scored >= LEAST else ()
    active = {key: sum(seeds for trial, seeds in judged if key in trial.params) for key in keys}
    found = dict.fromkeys((key for key in keys if not active[key]), 0.0)  # of one value
    found |= _ped_anova(trials, minimize, active) if any(active.values()) else {}
    total = math.fsum(found.values()) or 1.0
    columns = {
        "hyperparameter": pd.Series(keys, dtype="string"),
        "importance": pd.Series(
            [found[key] / total if key in found else None for key in keys], dtype="Float64"
        ),
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
    """Yields the configurations that importance looks at, by the mean of their seeds, and how many these are.

    They have a value, or diverged without one: as bad as the worst.
    """
    groups: dict[int, list[tuple[Cells, float]]] = {}
    for cells, group in zip(
        rows_of(results, domains), alike(results.trials, results.searched), strict=True
    ):
        value = cells.get(score, worst if cells["status"] == "diverged" else None)
        if value is not None and not pd.isna(value):
            groups.setdefault(group, []).append((cells, float(value)))
    for seeds in groups.values():
        mean = math.fsum(value for _, value in seeds) / len(seeds)
        yield create_trial(value=mean, **settings_of(seeds[0][0], domains)), len(seeds)


def _ped_anova(
    trials: Sequence[FrozenTrial], minimize: bool, keys: Iterable[str]
) -> dict[str, float]:
    """The importance of those keys that enough of the best trials have; one such trial would decide by itself."""
    share = max(BEST, FEWEST_BEST / len(trials))
    ranked = sorted(trials, key=lambda trial: trial.value or 0.0, reverse=not minimize)
    best = ranked[: math.ceil(share * len(trials))]
    known = [key for key in keys if sum(key in trial.params for trial in best) >= FEWEST_ACTIVE]
    with quiet():
        study = optuna.create_study(direction="minimize" if minimize else "maximize")
        study.add_trials(trials)
        return optuna.importance.PedAnovaImportanceEvaluator(target_quantile=share).evaluate(
            study, known
        )
