"""Optuna's TPE with its pruners. Keys with conditions are suggested only where they take part.

Optuna's WilcoxonPruner is left out: it compares trials by problems, not by curves.
"""

import warnings
from functools import partial
from typing import Any

import optuna
from optuna.trial import TrialState

from benchmarks.search_efficiency.outside import FACTOR, Key, Stock, grace
from s2s_search.spaces.dimensions import Dimension, Flat
from s2s_search.whatif.pool import Pool

PACKAGE = "optuna"
optuna.logging.set_verbosity(optuna.logging.WARNING)
STARTUP = 5  # of the median pruner: its default


def suggested(trial: Any, key: Key) -> float:
    if key.values:
        return trial.suggest_categorical(key.name, list(range(len(key.values))))
    domain = key.domain
    suggest = trial.suggest_int if domain.whole else trial.suggest_float
    return suggest(key.name, domain.low, domain.high, log=domain.log)


class Optuna:
    def __init__(self, pool: Pool, seed: int, pruner: Any, group: bool = False) -> None:
        self._stock = Stock(pool)
        direction = "minimize" if pool.minimizes else "maximize"
        settings = {"multivariate": True, "group": True} if group else {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = optuna.samplers.TPESampler(seed=seed, **settings)
        # The pruner of HyperBand draws brackets by the name of the study.
        self._study = optuna.create_study(
            study_name=str(seed), direction=direction, sampler=sampler, pruner=pruner
        )
        self._trials: list[Any] = []

    def start(self) -> tuple[int, int] | None:
        if not self._stock:
            return None
        proposal = self._study.ask()
        row = self._stock.take(self._config(proposal))
        self._study.tell(proposal, state=TrialState.FAIL)
        self._study.enqueue_trial(self._stock.numbers(row))
        trial = self._study.ask()
        self._config(trial)
        self._trials.append(trial)
        return len(self._trials) - 1, row

    def _config(self, trial: Any) -> Flat:
        keys = self._stock.keys

        def choose(dimension: Dimension) -> object:
            key = keys[dimension.key]
            return key.value(suggested(trial, key))

        return self._stock.space.configuration(choose)

    def report(self, number: int, step: int, value: float) -> bool:
        trial = self._trials[number]
        trial.report(value, step)
        if not trial.should_prune():
            return True
        self._study.tell(trial, state=TrialState.PRUNED)
        return False

    def finish(self, number: int, step: int, value: float) -> None:
        self._trials[number].report(value, step)
        self._study.tell(self._trials[number], value)


def asha(pool: Pool, seed: int, share: int, group: bool = False) -> Optuna:
    pruner = optuna.pruners.SuccessiveHalvingPruner(grace(pool, share), FACTOR)
    return Optuna(pool, seed, pruner, group)


def median(pool: Pool, seed: int) -> Optuna:
    return Optuna(pool, seed, optuna.pruners.MedianPruner(STARTUP, grace(pool, 9)))


def hyperband(pool: Pool, seed: int) -> Optuna:
    pruner = optuna.pruners.HyperbandPruner(grace(pool, 27), pool.steps[-1], FACTOR)
    return Optuna(pool, seed, pruner)


METHODS = {
    "optuna_tpe_asha_9": partial(asha, share=9),
    "optuna_tpe_asha_27": partial(asha, share=27),
    "optuna_group_asha_27": partial(asha, share=27, group=True),
    "optuna_tpe_median": median,
    "optuna_tpe_hyperband_27": hyperband,
}
