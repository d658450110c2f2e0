"""NePS's methods for one fidelity, without priors. Every key always has a value.

The budgets are 1/27, 1/9 and 1/3 of the largest, which is cut to the steps of a whole trial. NePS's
ifbo is left out, because it downloads the weights of its model. So are its asynchronous brackets:
version 0.17 promotes trials that have not reported.
"""

import logging
import random
from functools import partial
from typing import Any

import neps
import numpy as np
import torch

from benchmarks.search_efficiency.outside import FACTOR, ByBudget, Key, grace
from s2s_search.whatif.pool import Pool

PACKAGE = "neural-pipeline-search"
logging.getLogger("neps").setLevel(logging.ERROR)
FIDELITY = "steps"


def parameter(key: Key) -> Any:
    if key.values:
        return neps.Categorical(tuple(range(len(key.values))))
    low, high, log = key.domain.low, key.domain.high, key.domain.log
    if key.domain.whole:
        return neps.Integer(int(low), int(high), log=log)
    return neps.Float(low, high, log=log)


class Neps(ByBudget):
    def __init__(self, pool: Pool, seed: int, algorithm: Any) -> None:
        super().__init__(pool)
        random.seed(seed)
        np.random.seed(seed)  # NePS draws from all three
        torch.manual_seed(seed)
        least = grace(pool, 27)
        self._names = {name: f"key_{k}" for k, name in enumerate(self.stock.keys)}
        parameters = {self._names[name]: parameter(key) for name, key in self.stock.keys.items()}
        parameters[FIDELITY] = neps.IntegerFidelity(least, 27 * least)
        space = type("Space", (neps.PipelineSpace,), parameters)()
        self._neps = neps.AskAndTell(algorithm(space, eta=FACTOR))
        self._row: dict[str, int] = {}  # by the first part of a trial's name
        self._asked: dict[int, str] = {}  # the names of the trials that train, by row

    def ask(self) -> tuple[int, float] | None:
        trial = self._neps.ask()
        name, config = trial.metadata.id, dict(trial.config)
        first = name.partition("_rung_")[0]
        if first not in self._row:
            if not self.stock:
                del self._neps.trials[name]
                return None
            proposal = {key: config[short] for key, short in self._names.items()}
            self._row[first] = self.stock.take(self.stock.config(proposal))
            for key, number in self.stock.numbers(self._row[first]).items():
                config[self._names[key]] = number
            trial.config = config
        row = self._row[first]
        self._asked[row] = name
        return row, config[FIDELITY]

    def tell(self, row: int, cost: float) -> None:
        self._neps.tell(self._asked.pop(row), float(cost))


METHODS = {
    "neps_hyperband_27": partial(Neps, algorithm=neps.algorithms.hyperband),
    "neps_priorband_27": partial(Neps, algorithm=neps.algorithms.priorband),
}
