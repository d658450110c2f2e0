"""SMAC's facade for several budgets, with HyperBand (its default) or successive halving.

The budgets are 1/27, 1/9 and 1/3 of the largest, which is cut to the steps of a whole trial. The
first five configurations are random, as in SMAC's own example.
"""

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import ConfigSpace as cs
from smac import MultiFidelityFacade, Scenario
from smac.intensifier.hyperband import Hyperband
from smac.intensifier.successive_halving import SuccessiveHalving
from smac.main.config_selector import ConfigSelector
from smac.runhistory.dataclasses import TrialInfo, TrialValue

from benchmarks.search_efficiency.outside import FACTOR, ByBudget, Key, Stock, conditions, grace
from s2s_search.whatif.pool import Pool

PACKAGE = "smac"
FIRST = 5  # random configurations
STAGES = 4  # of the budgets


def hyperparameter(key: Key) -> Any:
    if key.values:
        return cs.CategoricalHyperparameter(key.name, list(range(len(key.values))))
    low, high, log = key.domain.low, key.domain.high, key.domain.log
    if key.domain.whole:
        return cs.UniformIntegerHyperparameter(key.name, int(low), int(high), log=log)
    return cs.UniformFloatHyperparameter(key.name, low, high, log=log)


def configspace(stock: Stock, seed: int) -> cs.ConfigurationSpace:
    space = cs.ConfigurationSpace(seed=seed)
    space.add([hyperparameter(key) for key in stock.keys.values()])
    for name, when in conditions(stock.space).items():
        parts = []
        for parent, values in when.items():
            numbers = [stock.keys[parent].number(value) for value in values]
            parts.append(cs.InCondition(space[name], space[parent], numbers))
        if parts:
            space.add(parts[0] if len(parts) == 1 else cs.AndConjunction(*parts))
    return space


class FromStock(ConfigSelector):
    """Selects for each configuration that SMAC selects the nearest one of the pool."""

    def __init__(self, scenario: Scenario, stock: Stock) -> None:
        super().__init__(scenario)
        self._stock = stock
        self.rows: dict[cs.Configuration, int] = {}

    def __iter__(self) -> Iterator[cs.Configuration]:
        for proposal in super().__iter__():
            if not self._stock:
                return
            row = self._stock.take(self._stock.config(dict(proposal)))
            space = self._scenario.configspace
            config = cs.Configuration(space, values=self._stock.numbers(row), origin="the pool")
            self._processed_configs.append(config)
            self.rows[config] = row
            yield config


class Smac(ByBudget):
    def __init__(self, pool: Pool, seed: int, intensifier: Any) -> None:
        super().__init__(pool)
        self._folder = tempfile.TemporaryDirectory()
        least = grace(pool, 27)
        scenario = Scenario(
            configspace(self.stock, seed),
            output_directory=Path(self._folder.name),
            deterministic=True,
            min_budget=least,
            max_budget=27 * least,
            n_trials=10**6,
            seed=seed,
        )
        self._selector = FromStock(scenario, self.stock)
        self._smac = MultiFidelityFacade(
            scenario,
            initial_design=MultiFidelityFacade.get_initial_design(scenario, n_configs=FIRST),
            intensifier=intensifier(scenario, eta=FACTOR),
            config_selector=self._selector,
            logging_level=False,
            overwrite=True,
        )
        self._asked: dict[int, TrialInfo] = {}  # by row

    def ask(self) -> tuple[int, float] | None:
        for _ in range(STAGES):
            try:
                asked = self._smac.ask()
            except StopIteration:
                # The pool is empty. SMAC's generator has ended, and may first have promoted trials
                # that a new one asks for.
                optimizer = self._smac._optimizer
                optimizer._trial_generator = iter(optimizer._intensifier)
            else:
                row = self._selector.rows[asked.config]
                self._asked[row] = asked
                return row, asked.budget
        return None

    def tell(self, row: int, cost: float) -> None:
        self._smac.tell(self._asked.pop(row), TrialValue(cost=cost), save=False)


METHODS = {
    "smac_hyperband_27": partial(Smac, intensifier=Hyperband),
    "smac_halving_27": partial(Smac, intensifier=SuccessiveHalving),
}
