"""A league of search methods over the recorded curves of one search.

The recorded trials are a pool. A method decides which of them begins and which trains on, and sees
only the reports that it has paid for. The classes are those of a real search; only workers and time
are simulated. Each report comes after the seconds that it took.

Compute is counted in full trials: the steps of all trials, divided by those of a trial that trains
to its end. A method has the target when it has in hand a report within a margin of the best value
of the pool, or of its best hundredth. What it expects does not count.
"""

import heapq
import itertools
import json
import math
from collections.abc import Iterator, Sequence, Set
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Protocol

import numpy as np

from s2s_search.errors import ConfigError, nearest
from s2s_search.methods.make import make_pausing
from s2s_search.methods.pausing import NEW, Pausing
from s2s_search.methods.proposals import Proposals
from s2s_search.methods.reading import Reading
from s2s_search.methods.samplers import Listed, Sampler
from s2s_search.methods.surrogate import Surrogate
from s2s_search.spaces.dimensions import Flat
from s2s_search.spaces.settings import PROMOTE, STOP, Scheduler
from s2s_search.spaces.space import Space
from s2s_search.tuning.schedulers import Past, make_scheduler
from s2s_search.whatif.pool import BEST, FEWEST, Pool
from s2s_search.whatif.processes import KILLED, processes_of

REGRETS = (5, 10, 20, 40)  # full trials after which the regret is taken
MOST = 200.0  # full trials after which a simulated search ends
RESAMPLES = 2_000  # of the orders, for the interval of a median
UNLIMITED = 10**12  # steps


# --- the methods ---


@dataclass(frozen=True)
class Contender:
    """A search method: a scheduler, and whether the model proposes configurations.

    Trials are compared from a share of the steps on, 1 / `late`, but not before the first report.
    """

    name: str
    scheduler: str
    late: int = 27
    variant: str = STOP
    proposes: bool = False

    def settings(self, steps: Sequence[int]) -> Scheduler:
        """Returns the settings of the scheduler for trials that report at some steps."""
        first = max(steps[0], steps[-1] // self.late)
        return Scheduler(
            self.scheduler, steps[-1], first, 3.0, variant=self.variant, total_steps=UNLIMITED
        )

    def method(self, pool: Pool) -> "Method":
        return OwnMethod(pool, self)


@dataclass(frozen=True)
class Oracle:
    """A method that knows what no search can know. It says how much there is to win.

    With `reports` it knows the ranking of all trials after as many reports, and trains them to
    their ends in that order. With None it takes the trials as they come, and knows after the first
    report of each whether it becomes better than all before it. If not, the trial ends.
    """

    name: str
    reports: int | None

    def method(self, pool: Pool) -> "Method":
        costs = pool.values if pool.minimizes else -pool.values
        if self.reports is None:
            whole, best = set(), math.inf
            for row, end in enumerate(costs.min(axis=1)):
                if end < best:
                    whole.add(row)
                    best = end
            return InOrder(range(len(costs)), whole)
        place = min(self.reports, len(pool.steps)) - 1
        order = np.argsort(costs[:, place], kind="stable").tolist()
        return InOrder(order, set(order))


METHODS: tuple[Contender | Oracle, ...] = (
    Contender("random", "none"),
    Contender("median", "median", late=9),
    Contender("asha_9", "asha", late=9),
    Contender("asha_27", "asha"),
    Contender("promote_27", "asha", variant=PROMOTE),
    Contender("pasha_27", "pasha"),
    Contender("first_reports", "first_reports", late=UNLIMITED),
    Contender("gp_asha_9", "asha", late=9, proposes=True),
    Contender("gp_asha_27", "asha", proposes=True),
    Contender("gp_promote_27", "asha", variant=PROMOTE, proposes=True),
    Contender("freeze_thaw", "freeze_thaw", proposes=True),
    Oracle("oracle_first", 1),
    Oracle("oracle_third", 3),
    Oracle("oracle_stop", None),
)


def contenders(names: Sequence[str] = ()) -> list[Contender | Oracle]:
    """Returns methods by their names, or all of them.

    Raises:
        ConfigError: a name is not known.
    """
    by_name = {method.name: method for method in METHODS}
    problems = [
        f"--methods: unknown method {name!r}{nearest(name, by_name)}"
        for name in names
        if name not in by_name
    ]
    if problems:
        raise ConfigError(problems)
    return [by_name[name] for name in dict.fromkeys(names)] if names else list(METHODS)


class Stopping:
    """A scheduler of Ray Tune with the methods of one that pauses. It lets no trial wait."""

    def __init__(self, space: Space) -> None:
        self._tune = make_scheduler(space, dict)
        self._metric = space.metric.name
        self._trials: dict[int, Past] = {}

    def begin(self, number: int, config: Flat) -> None:
        self._trials[number] = Past(f"trial-{number:05d}")
        self._tune.on_trial_add(self._tune, self._trials[number])

    def report(self, number: int, reading: Reading, has_new: bool) -> bool:
        return self._tell(number, reading, "running") == "CONTINUE"

    def hear(self, number: int, reading: Reading) -> None:
        """Hears the last report of a trial."""
        self._tell(number, reading, "finished")

    def _tell(self, number: int, reading: Reading, status: str) -> str:
        trial = self._trials[number]
        trial.last_result = {
            "step": reading.step,
            self._metric: reading.value,
            "status": status,
        }
        return self._tune.on_trial_result(self._tune, trial, trial.last_result)

    def end(self, number: int) -> None:
        trial = self._trials.pop(number)
        self._tune.on_trial_complete(self._tune, trial, trial.last_result)

    def choose(self, has_new: bool) -> int | None:
        return NEW if has_new else None


class Method(Protocol):
    """What decides in a simulated search: which trial trains, and for how long.

    Trials have the numbers 0, 1, ... in the order in which they begin.
    """

    def start(self) -> tuple[int, int] | None:
        """Returns the trial that trains now on a free worker, and its row in the pool.

        The trial is a new one, or one that does not train. None leaves the worker free until the
        next report.
        """

    def report(self, number: int, step: int, value: float) -> bool:
        """Hears a report of a trial that has steps left; returns whether it trains on now."""

    def finish(self, number: int, step: int, value: float) -> None:
        """Hears the last report of a trial."""


class OwnMethod:
    """A method of a real search: the sampler and the scheduler of a contender."""

    def __init__(self, pool: Pool, contender: Contender) -> None:
        settings = contender.settings(pool.steps)
        space = replace(pool.space, scheduler=settings)
        self._pool = pool
        self._configs = pool.configs
        self._sampler: Sampler = Listed(pool.configs)
        if contender.proposes:
            surrogate = Surrogate(space, pool.steps[0])
            self._sampler = Proposals(space, pool.configs, len(pool.configs), None, surrogate)
        pausing = make_pausing(settings, pool.minimizes, self._sampler)
        self._scheduler: Pausing | Stopping = pausing or Stopping(space)
        self._rows = {_text(config): row for row, config in enumerate(pool.configs)}
        self._row: dict[int, int] = {}  # of each trial that has begun

    @property
    def _has_new(self) -> bool:
        return len(self._row) < len(self._configs)

    def start(self) -> tuple[int, int] | None:
        number = self._scheduler.choose(self._has_new)
        if number is None:
            return None
        if number == NEW:
            number = len(self._row)
            config = self._sampler.ask(number)
            if config is None:
                return None
            self._row[number] = self._rows[_text(config)]
        row = self._row[number]
        self._scheduler.begin(number, self._configs[row])
        return number, row

    def report(self, number: int, step: int, value: float) -> bool:
        reading = self._reading(number, step, value)
        self._sampler.report(number, reading)
        trains = self._scheduler.report(number, reading, self._has_new)
        if not trains and isinstance(self._scheduler, Stopping):
            self._end(number, "stopped")
        return trains

    def finish(self, number: int, step: int, value: float) -> None:
        reading = self._reading(number, step, value)
        self._sampler.report(number, reading)
        self._scheduler.hear(number, reading)
        self._end(number, "finished")

    def _reading(self, number: int, step: int, value: float) -> Reading:
        loss = self._pool.losses[self._row[number], self._pool.steps.index(step)]
        return Reading(step, value, float(loss))

    def _end(self, number: int, how: str) -> None:
        self._scheduler.end(number)
        self._sampler.tell(number, self._configs[self._row[number]], None, how)


class InOrder:
    """A method that begins the rows of a pool in an order, and trains some of them to their ends.

    The others end after their first report.
    """

    def __init__(self, order: Sequence[int], whole: Set[int]) -> None:
        self._order, self._whole = order, whole
        self._begun = 0

    def start(self) -> tuple[int, int] | None:
        number = self._begun
        if number == len(self._order):
            return None
        self._begun += 1
        return number, self._order[number]

    def report(self, number: int, step: int, value: float) -> bool:
        return self._order[number] in self._whole

    def finish(self, number: int, step: int, value: float) -> None: ...


class Race:
    """A simulated search: a method, and the pool in the order in which draws come."""

    def __init__(self, pool: Pool, method: Method, workers: int) -> None:
        self.pool = pool
        self._method = method
        self._free = workers
        self._row: dict[int, int] = {}  # of each trial that has begun
        self._made: dict[int, int] = {}  # the number of its reports
        # The next report of each training trial: its time, a count that breaks ties, the trial.
        self._due: list[tuple[float, int, int]] = []
        self._count = itertools.count()
        self._now = 0.0
        self.seconds = 0.0  # worker seconds of all reports so far

    def run(self) -> Iterator[float]:
        """Yields the values of the reports in the order in which they come."""
        while True:
            while self._free and self._start():
                self._free -= 1
            if not self._due:
                return
            self._now, _, number = heapq.heappop(self._due)
            yield self._report(number)

    def _start(self) -> bool:
        """Starts the trial that the method chooses; returns whether there is one."""
        started = self._method.start()
        if started is None:
            return False
        number, row = started
        self._row[number] = row
        self._made.setdefault(number, 0)
        self._train(number)
        return True

    def _train(self, number: int) -> None:
        seconds = self.pool.seconds[self._row[number], self._made[number]]
        heapq.heappush(self._due, (self._now + seconds, next(self._count), number))

    def _report(self, number: int) -> float:
        row, place = self._row[number], self._made[number]
        value, step = float(self.pool.values[row, place]), self.pool.steps[place]
        self.seconds += self.pool.seconds[row, place]
        self._made[number] += 1
        if self._made[number] == len(self.pool.steps):
            self._method.finish(number, step, value)
            self._free += 1
        elif self._method.report(number, step, value):
            self._train(number)
        else:
            self._free += 1
        return value


def _text(config: Flat) -> str:
    return json.dumps(config, sort_keys=True)


# --- the league ---


@dataclass(frozen=True)
class Outcome:
    """What a method reached in one order.

    to_target: the compute to the target, in full trials by steps
    work: the same by worker seconds
    regrets: the differences from the best value after REGRETS full trials
    """

    to_target: float
    work: float
    regrets: tuple[float, ...]


def raced(
    pool: Pool,
    method: Method,
    workers: int,
    margin: float,
    target: str = BEST,
    most: float = MOST,
) -> Outcome:
    """Returns the outcome of a method over a pool in its order.

    Args:
        pool: the recorded trials.
        method: the method.
        workers: the number of trials that train at once.
        margin: the largest difference from the target that is near enough.
        target: one of TARGETS.
        most: the compute in full trials after which the search ends.
    """
    best, full = pool.best, len(pool.steps)
    full_seconds = float(pool.seconds.sum(axis=1).mean())
    enough = margin + abs(pool.target(target) - best)
    in_hand, to_target, work = math.inf, math.inf, math.inf
    regrets = [math.nan] * len(REGRETS)
    race = Race(pool, method, workers)
    for count, value in enumerate(race.run(), start=1):
        in_hand = min(in_hand, abs(value - best))
        if in_hand <= enough and to_target == math.inf:
            to_target, work = count / full, race.seconds / full_seconds
        for k, budget in enumerate(REGRETS):
            if count <= budget * full:
                regrets[k] = in_hand
        if in_hand == 0 or count >= most * full:
            break
    return Outcome(to_target, work, tuple(_held(regrets)))


def _held(regrets: Sequence[float]) -> Iterator[float]:
    """Yields regrets; a search that ended keeps what it had."""
    kept = math.nan
    for regret in regrets:
        kept = kept if math.isnan(regret) else regret
        yield kept


def size_of_order(pool: Pool, share: float) -> int:
    """Returns the number of trials in a share of a pool. A league has at least FEWEST."""
    return max(FEWEST, round(share * len(pool.configs)))


def orders_of(pool: Pool, count: int, share: float) -> Iterator[Pool]:
    """Yields the pool in random orders, each with a share of its trials."""
    size = size_of_order(pool, share)
    for seed in range(count):
        yield pool.ordered(Random(f"order {seed}").sample(range(len(pool.configs)), size))


def league_row(
    method: str, outcomes: Sequence[Outcome], oracle: bool = False, most: float = MOST
) -> dict[str, Any]:
    """Returns the medians and means of a method: a row of the league.

    `to_target` is the median compute in full trials, with its 95 % interval `low` to `high` over
    orders (bootstrap). `lost` is the number of orders in which the target was not reached. `work`
    is the median compute by worker seconds, in those of a mean full trial.
    `regret_N` is the mean difference from the best value after N full trials.

    Args:
        method: the name of the method.
        outcomes: what it reached in each order.
        oracle: whether it knows what no search can know.
        most: the compute in full trials after which a search ends. No regret is given beyond it.
    """
    reached = np.array([outcome.to_target for outcome in outcomes])
    drawn = np.random.default_rng(0).integers(0, len(reached), (RESAMPLES, len(reached)))
    with np.errstate(invalid="ignore"):
        medians = np.sort(np.median(reached[drawn], axis=1))
    row = {
        "method": method,
        "oracle": oracle,
        "to_target": float(np.median(reached)),
        "low": float(medians[int(0.025 * RESAMPLES)]),
        "high": float(medians[int(0.975 * RESAMPLES)]),
        "lost": int(np.isinf(reached).sum()),
        "work": float(np.median([outcome.work for outcome in outcomes])),
    }
    for k, budget in enumerate(REGRETS):
        if budget <= most:
            row[f"regret_{budget}"] = float(np.mean([outcome.regrets[k] for outcome in outcomes]))
    return row


def league_rows(
    pool: Pool,
    methods: Sequence[Contender | Oracle],
    orders: int,
    workers: int,
    margin: float,
    share: float = 1.0,
    target: str = BEST,
    processes: int = 1,
    most: float = MOST,
) -> Iterator[dict[str, Any]]:
    """Yields a row for each method, as soon as it is known.

    Args:
        pool: the recorded trials.
        methods: the methods.
        orders: the number of random orders of the pool.
        workers: the number of trials that train at once.
        margin: the largest difference from the target that is near enough.
        share: the share of the pool that each order has.
        target: one of TARGETS.
        processes: the number of processes that share the orders; 1 for this one alone.
        most: the compute in full trials after which a simulated search ends.

    Raises:
        ConfigError: a process was killed.
    """
    pools = list(orders_of(pool, orders, share))
    settings = workers, margin, target, most
    if processes == 1:
        for method in methods:
            outcomes = [raced_by(method, each, *settings) for each in pools]
            yield league_row(method.name, outcomes, isinstance(method, Oracle), most)
        return
    with processes_of(processes) as executors:
        for method in methods:
            waiting = [
                executors[place % processes].submit(raced_by, method, each, *settings)
                for place, each in enumerate(pools)
            ]
            try:
                outcomes = [each.result() for each in waiting]
            except BrokenExecutor:
                raise ConfigError(KILLED) from None
            yield league_row(method.name, outcomes, isinstance(method, Oracle), most)


def raced_by(method: Contender | Oracle, pool: Pool, *settings: Any) -> Outcome:
    return raced(pool, method.method(pool), *settings)
