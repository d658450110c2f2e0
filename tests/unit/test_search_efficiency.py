"""Methods of other tools in a simulated search: against plain loops, with toys in place of the tools."""

import importlib
import random
from pathlib import Path

import numpy as np
import pytest

from benchmarks.search_efficiency.outside import ByBudget, Stock, conditions
from s2s_search.spaces.dimensions import Range
from s2s_search.spaces.load import load_space
from s2s_search.whatif.league import Race
from s2s_search.whatif.pool import Pool

SPACE = """
model: [BasicSeq2Seq, AttentionSeq2Seq]
corpus: {name: copy, train: 20, dev: 5, vocabulary: 5, min_length: 2, max_length: 5}
metric: {name: dev.error_rate}
search: {trials: 27, seed: 1}
scheduler: {name: none, max_steps: 540}
parameters:
  optimizer.learning_rate: {min: 1e-4, max: 1e-2, log: true}
  embedding.dim: {min: 8, max: 64, log: true}
  inference.max_decode_length: {min: 10, max: 50, step: 20}
  attention.dim: {min: 8, max: 64}
  optimizer.lr_decay_type: ["", exponential_decay]
  optimizer.lr_decay_rate: {min: 0.1, max: 0.5, when: {optimizer.lr_decay_type: exponential_decay}}
"""


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    """27 trials with 27 reports each: the learning rate decides."""
    (tmp_path / "space.yaml").write_text(SPACE)
    space = load_space(tmp_path / "space.yaml")
    configs = tuple(space.trials())
    rates = np.array([config["optimizer.learning_rate"] for config in configs], float)
    ends = 0.1 + 0.3 * np.abs(np.log10(rates) + 3)
    values = ends[:, None] + (1 - ends[:, None]) * np.exp(-np.arange(1, 28) / 6)
    return Pool(space, configs, tuple(range(20, 541, 20)), values, values, np.ones_like(values))


def proposals(pool: Pool, seed: int) -> list[dict[str, float]]:
    """As many random proposals as there are trials. Each has a number for each key."""
    rng = random.Random(seed)
    proposed = []
    for _ in pool.configs:
        numbers: dict[str, float] = {}
        for name, key in Stock(pool).keys.items():
            if key.values:
                numbers[name] = rng.randrange(len(key.values))
            elif key.domain.whole:
                numbers[name] = rng.randint(int(key.domain.low), int(key.domain.high))
            else:
                numbers[name] = rng.uniform(key.domain.low, key.domain.high)
        proposed.append(numbers)
    return proposed


def distance(pool: Pool, numbers: dict[str, float], row: int) -> float:
    """The sum of squares over all keys, which counts keys without a part as the middle."""
    stock, total = Stock(pool), 0.0
    proposal, recorded = stock.config(numbers), pool.configs[row]
    for dimension in pool.space.varying:
        mine, other = (config.get(dimension.key) for config in (proposal, recorded))
        if isinstance(dimension.domain, Range):
            places = [0.5 if v is None else dimension.domain.position(v) for v in (mine, other)]
            total += (places[0] - places[1]) ** 2
        elif mine is None or other is None:
            values = len(dimension.domain.values)
            total += 0.0 if mine == other else (1 - 1 / values) / 2
        else:
            total += mine != other
    return total


def nearest_rows(pool: Pool, seed: int) -> list[int]:
    left, rows = list(range(len(pool.configs))), []
    for numbers in proposals(pool, seed):
        rows.append(min(left, key=lambda row: distance(pool, numbers, row)))
        left.remove(rows[-1])
    return rows


def test_the_nearest_configuration_that_has_not_begun(pool: Pool) -> None:
    stock = Stock(pool)
    taken = [stock.take(stock.config(numbers)) for numbers in proposals(pool, 1)]
    assert taken == nearest_rows(pool, 1)
    assert sorted(taken) == list(range(len(pool.configs)))
    assert len(stock) == 0


def test_a_recorded_configuration_is_the_nearest_to_itself(pool: Pool) -> None:
    for row, config in enumerate(pool.configs):
        stock = Stock(pool)
        numbers = stock.numbers(row)
        assert set(numbers) == {key for key in stock.keys if key in config}
        assert stock.take(stock.config(numbers)) == row


def test_conditions_name_the_model_and_the_keys_of_when(pool: Pool) -> None:
    assert {key: when for key, when in conditions(pool.space).items() if when} == {
        "attention.dim": {"model": ("AttentionSeq2Seq",)},
        "optimizer.lr_decay_rate": {"optimizer.lr_decay_type": ("exponential_decay",)},
    }


class Above:
    """Stops a trial at its third report when that is above a threshold."""

    def __init__(self, pool: Pool, seed: int, threshold: float) -> None:
        self._stock, self._threshold = Stock(pool), threshold
        self._proposals = iter(proposals(pool, seed))
        self.finished: list[int] = []

    def start(self) -> tuple[int, int] | None:
        if not self._stock:
            return None
        number = 27 - len(self._stock)
        return number, self._stock.take(self._stock.config(next(self._proposals)))

    def report(self, number: int, step: int, value: float) -> bool:
        return step != 60 or value <= self._threshold

    def finish(self, number: int, step: int, value: float) -> None:
        assert step == 540
        self.finished.append(number)


def test_a_method_that_stops_trials_against_a_plain_loop(pool: Pool) -> None:
    threshold = float(np.median(pool.values[:, 2]))
    expected, finished = [], []
    for number, row in enumerate(nearest_rows(pool, 2)):
        ends = len(pool.steps) if pool.values[row, 2] <= threshold else 3
        expected += pool.values[row, :ends].tolist()
        finished += [number] * (ends > 3)
    method = Above(pool, 2, threshold)
    assert list(Race(pool, method, 1).run()) == expected
    assert method.finished == finished
    # With several workers the same reports come in another order.
    assert sorted(Race(pool, Above(pool, 2, threshold), 4).run()) == sorted(expected)


class Halving(ByBudget):
    """Asks for one report of all, three of the best third, nine of the best ninth, and so on."""

    def __init__(self, pool: Pool, seed: int) -> None:
        super().__init__(pool)
        rows = [self.stock.take(self.stock.config(n)) for n in proposals(pool, seed)]
        self._asked = [(row, 20.0) for row in rows]
        self._running = 0
        self._costs: list[tuple[float, int]] = []

    def ask(self) -> tuple[int, float] | None:
        if not self._asked:
            return None
        self._running += 1
        return self._asked.pop(0)

    def tell(self, row: int, cost: float) -> None:
        self._running -= 1
        self._costs.append((cost, row))
        if not self._asked and not self._running and len(self._costs) > 1:
            best = sorted(self._costs)[: len(self._costs) // 3]
            self._asked = [(row, 540.0 // len(best)) for _, row in best]
            self._costs = []


@pytest.mark.parametrize("workers", [1, 4])
def test_a_method_that_asks_by_budget_against_a_plain_loop(pool: Pool, workers: int) -> None:
    """Trials go on from where they paused: no report is paid for twice."""
    rows, begin = nearest_rows(pool, 3), 0
    expected: list[float] = []
    for reports in (1, 3, 9, 27):
        for row in rows:
            expected += pool.values[row, begin:reports].tolist()
        begin = reports
        rows = sorted(rows, key=lambda row: pool.values[row, reports - 1])[: len(rows) // 3]
    seen = list(Race(pool, Halving(pool, 3), workers).run())
    assert sorted(seen) == sorted(expected)
    if workers == 1:
        assert seen == expected


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("tool", ["optuna", "syne_tune", "smac", "neps"])
def test_tools_that_are_installed_pay_for_each_report_once(pool: Pool, tool: str) -> None:
    try:
        module = importlib.import_module(f"benchmarks.search_efficiency.with_{tool}")
    except ModuleNotFoundError as error:
        pytest.skip(f"there is no {error.name}")
    for name, make in module.METHODS.items():
        race = Race(pool, make(pool, 0), workers=3)
        seen = list(race.run())
        assert len(seen) == sum(race._made.values()), name
        assert len(set(race._row.values())) == len(race._row), f"{name}: no trial begins twice"
        assert min(seen) <= pool.best + 0.1, name
