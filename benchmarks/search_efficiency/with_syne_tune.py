"""Syne Tune's ASHA with its searchers. It has no conditions: every key always has a value."""

import datetime
import logging
from functools import partial
from typing import Any

import numpy as np
from syne_tune.backend.trial_status import Trial
from syne_tune.config_space import choice, lograndint, loguniform, randint, uniform
from syne_tune.optimizer.baselines import ASHA, ASHABORE, ASHACQR
from syne_tune.optimizer.scheduler import SchedulerDecision

from benchmarks.search_efficiency.outside import FACTOR, Key, Stock, grace
from s2s_search.whatif.pool import Pool

PACKAGE = "syne-tune"
logging.getLogger("syne_tune").setLevel(logging.ERROR)


def distribution(key: Key) -> Any:
    if key.values:
        return choice(list(range(len(key.values))))
    low, high = key.domain.low, key.domain.high
    if key.domain.whole:
        return (lograndint if key.domain.log else randint)(int(low), int(high))
    return (loguniform if key.domain.log else uniform)(low, high)


class SyneTune:
    def __init__(self, pool: Pool, seed: int, scheduler: Any, share: int) -> None:
        np.random.seed(seed)  # the scheduler draws from it
        self._stock = Stock(pool)
        self._scheduler = scheduler(
            {name: distribution(key) for name, key in self._stock.keys.items()},
            metric="value",
            time_attr="step",
            max_t=pool.steps[-1],
            do_minimize=pool.minimizes,
            random_seed=seed,
            grace_period=grace(pool, share),
            reduction_factor=FACTOR,
        )
        self._trials: list[Trial] = []

    def start(self) -> tuple[int, int] | None:
        if not self._stock:
            return None
        proposal = self._scheduler.suggest().config
        row = self._stock.take(self._stock.config(proposal))
        number = len(self._trials)
        config = {**proposal, **self._stock.numbers(row)}
        self._trials.append(Trial(number, config, datetime.datetime.now()))
        self._scheduler.on_trial_add(self._trials[number])
        return number, row

    def report(self, number: int, step: int, value: float) -> bool:
        trial = self._trials[number]
        decision = self._scheduler.on_trial_result(trial, {"step": step, "value": value})
        if decision == SchedulerDecision.CONTINUE:
            return True
        self._scheduler.on_trial_remove(trial)
        return False

    def finish(self, number: int, step: int, value: float) -> None:
        self._scheduler.on_trial_complete(self._trials[number], {"step": step, "value": value})


METHODS = {
    "syne_tune_asha_27": partial(SyneTune, scheduler=ASHA, share=27),
    "syne_tune_ashacqr_9": partial(SyneTune, scheduler=ASHACQR, share=9),
    "syne_tune_ashacqr_27": partial(SyneTune, scheduler=ASHACQR, share=27),
    "syne_tune_ashabore_27": partial(SyneTune, scheduler=ASHABORE, share=27),
}
