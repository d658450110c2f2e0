"""Schedulers that let trials wait, in random searches: against plain loops over all that was reported."""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import pytest

from s2s_search.methods.halving import FirstReports, Halving, Progressive, Promotion
from s2s_search.methods.pausing import ENDED, NEW, TRAINS, WAITS
from s2s_search.methods.reading import Reading
from s2s_search.spaces.settings import Scheduler

REPORTS, EVERY = 9, 10  # of a trial to its end, and the steps between two
DIVERGED = 1e9
METHODS = {"promote": Promotion, "pasha": Progressive, "first_reports": FirstReports}


@dataclass(frozen=True)
class Case:
    """A search: curves of costs (DIVERGED where a trial diverges), workers, and the order of reports."""

    settings: Scheduler
    curves: list[list[float]]
    workers: int
    seed: int


def case(name: str, seed: int) -> Case:
    """Curves fall and cross; one in ten trials diverges; of some searches many costs are equal."""
    rng = random.Random(f"{name} {seed}")
    settings = Scheduler(
        name,
        REPORTS * EVERY,
        rng.choice([10, 15]),
        rng.choice([1.5, 2.0, 3.0]),
        keep=rng.randint(1, 5),
    )
    noise, digits = rng.choice([0.0, 0.05, 0.3]), rng.choice([1, 6])
    curves = []
    for _ in range(rng.choice([1, 6, 20, 40])):
        end = rng.random()
        curve = [round(end + 1 / k + noise * rng.random(), digits) for k in range(1, REPORTS + 1)]
        if rng.random() < 0.1:
            curve[rng.randrange(REPORTS)] = DIVERGED
        curves.append(curve)
    return Case(settings, curves, rng.choice([1, 2, 5, 64]), seed)


@dataclass
class Search:
    """A simulated search, with its log. `check` is called at each choice with what it may see."""

    case: Case
    minimize: bool = True
    check: Callable[["Search", bool, int | None], None] | None = None
    log: list[tuple[str, int, int, float]] = field(default_factory=list)  # event, trial, step, cost

    def __post_init__(self) -> None:
        self.scheduler: Halving = METHODS[self.case.settings.name](
            self.case.settings, self.minimize
        )

    @property
    def has_new(self) -> bool:
        return len(self.scheduler.trials) < len(self.case.curves)

    def run(self) -> "Search":
        rng, training = random.Random(self.case.seed), list[int]()
        while True:
            while len(training) < self.case.workers:
                number = self.chosen()
                if number is None:
                    break
                number = len(self.scheduler.trials) if number == NEW else number
                self.hear("start", number, 0, 0.0)
                training.append(number)
            if not training:
                return self
            number = training.pop(rng.randrange(len(training)))
            if self.trains_on(number):
                training.append(number)

    def chosen(self) -> int | None:
        number = self.scheduler.choose(self.has_new)
        assert number == self.scheduler.choose(self.has_new), "choosing changes nothing"
        if self.check is not None:
            self.check(self, self.has_new, number)
        return number

    def trains_on(self, number: int) -> bool:
        made = len(self.scheduler.trials[number].steps)
        step, cost = EVERY * (made + 1), self.case.curves[number][made]
        if made + 1 == REPORTS or cost == DIVERGED:
            self.hear("last", number, step, cost)
            return False
        value = cost if self.minimize else -cost
        trains = self.scheduler.report(number, Reading(step, value), self.has_new)
        self.log.append(("on" if trains else "report", number, step, cost))
        return trains

    def hear(self, event: str, number: int, step: int, cost: float) -> None:
        """Takes an event as a search does that was killed and reads its log."""
        self.log.append((event, number, step, cost))
        if event == "start":
            self.scheduler.begin(number, {})
            return
        self.scheduler.hear(number, Reading(step, cost if self.minimize else -cost))
        if event == "last":
            self.scheduler.end(number)
        if event == "on":
            self.scheduler.begin(number, {})


# --- the rules by plain loops over the log ---


def rungs_of(search: Search) -> list[float]:
    settings = search.case.settings
    if settings.name == "first_reports":
        return [settings.grace_steps]
    rung, found = float(settings.grace_steps), []
    while rung < settings.max_steps:
        found.append(rung)
        rung *= settings.reduction_factor
    return found


def at_rung(search: Search, rung: float) -> dict[int, float]:
    """The cost of each trial at its first report from a rung on, in the order of reports."""
    found: dict[int, float] = {}
    for event, number, step, cost in search.log:
        if event != "start" and step >= rung and number not in found:
            found[number] = cost
    return found


def ranked(costs: dict[int, float]) -> list[int]:
    places = list(costs)
    return sorted(costs, key=lambda number: (costs[number], places.index(number)))


def state(search: Search, number: int) -> str:
    """A trial waits from a report that reaches a rung until it is chosen, and ends with its last."""
    events = [entry for entry in search.log if entry[1] == number]
    event, _, step, _ = events[-1]
    if event in ("start", "on"):
        return TRAINS
    if event == "last":
        return ENDED
    crossed = [rung for rung in rungs_of(search) if step - EVERY < rung <= step]
    return WAITS if crossed else TRAINS


def highest(search: Search, number: int) -> float:
    step = max(step for _, other, step, _ in search.log if other == number)
    return max((rung for rung in rungs_of(search) if rung <= step), default=0.0)


def first_waiting(search: Search, numbers: list[int], rung: float) -> int | None:
    for number in numbers:
        if state(search, number) == WAITS and highest(search, number) == rung:
            return number
    return None


def open_rungs(search: Search) -> list[float]:
    """The rungs of PASHA from which trials go on: one more when two rungs rank differently."""
    rungs = rungs_of(search)
    if search.case.settings.name != "pasha":
        return rungs
    count = 2
    for length in range(1, len(search.log) + 1):
        past = replace(search, log=search.log[:length])
        event, _, step, _ = past.log[-1]
        if event == "start" or count >= len(rungs):
            continue
        if not any(step - EVERY < rung <= step for rung in rungs) or step < rungs[count - 1]:
            continue
        below, above = (at_rung(past, rungs[place]) for place in (count - 2, count - 1))
        order = ranked(above)
        noise = noise_of(past, order)
        if any(
            below[worse] < below[better] - noise
            for place, better in enumerate(order)
            for worse in order[place + 1 :]
        ):
            count += 1
    return rungs[: count - 1]


def noise_of(search: Search, numbers: list[int]) -> float:
    """What separates nine tenths of the pairs whose curves cross more than once."""
    curves = {
        number: [
            cost for event, other, _, cost in search.log if other == number and event != "start"
        ]
        for number in numbers
    }
    apart = []
    for place, a in enumerate(numbers):
        for b in numbers[place + 1 :]:
            shared = min(len(curves[a]), len(curves[b]))
            differences = [curves[a][k] - curves[b][k] for k in range(shared)]
            signs = [math.copysign(1, d) for d in differences if d]
            if sum(s != t for s, t in pairwise(signs)) > 1:
                apart.append(abs(differences[-1]))
    return float(np.quantile(apart, 0.9)) if apart else 0.0


def by_the_rule(search: Search, has_new: bool) -> int | None:
    settings = search.case.settings
    begun = {number for _, number, _, _ in search.log}
    training = [number for number in begun if state(search, number) == TRAINS]
    if settings.name == "first_reports":
        if has_new:
            return NEW
        (rung,) = rungs_of(search)
        if any(highest(search, number) < rung for number in training):
            return None
        return first_waiting(search, ranked(at_rung(search, rung))[: settings.keep], rung)
    for rung in reversed(open_rungs(search)):
        costs = at_rung(search, rung)
        share = int(len(costs) / settings.reduction_factor)
        number = first_waiting(search, ranked(costs)[:share], rung)
        if number is not None:
            return number
    if has_new:
        return NEW
    reached = [rung for rung in rungs_of(search) if at_rung(search, rung)]
    if training or not reached:
        return None
    return first_waiting(search, ranked(at_rung(search, reached[-1]))[:1], reached[-1])


def follows_the_rule(search: Search, has_new: bool, number: int | None) -> None:
    assert number == by_the_rule(search, has_new)


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("name", METHODS)
def test_each_choice_follows_the_rule(name: str, seed: int) -> None:
    search = Search(case(name, seed), check=follows_the_rule).run()
    states = [trial.state for trial in search.scheduler.trials.values()]
    assert len(states) == len(search.case.curves), "every trial has begun"
    assert TRAINS not in states
    assert search.scheduler.choose(has_new=False) is None
    assert search.scheduler.dropped(has_new=False) == search.scheduler.of(WAITS)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("name", METHODS)
def test_a_search_is_the_same_again_and_after_hearing_its_log(name: str, seed: int) -> None:
    search = Search(case(name, seed)).run()
    assert Search(case(name, seed)).run().log == search.log
    for length in range(0, len(search.log), 5):
        heard = Search(case(name, seed))
        for entry in search.log[:length]:
            heard.hear(*entry)
        # It takes the next start of the log for a choice, when one comes next.
        following = search.log[length] if length < len(search.log) else None
        if following is not None and following[0] == "start":
            number = heard.scheduler.choose(heard.has_new)
            assert following[1] == (len(heard.scheduler.trials) if number == NEW else number)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("name", METHODS)
def test_to_maximize_is_to_minimize_what_is_negated(name: str, seed: int) -> None:
    assert Search(case(name, seed), minimize=False).run().log == Search(case(name, seed)).run().log


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("workers", [1, 64])
def test_all_diverge(name: str, workers: int) -> None:
    settings = Scheduler(name, 90, 10, 3.0)
    search = Search(Case(settings, [[DIVERGED] * REPORTS] * 12, workers, 0)).run()
    assert [trial.state for trial in search.scheduler.trials.values()] == [ENDED] * 12
    assert sum(event == "last" for event, _, _, _ in search.log) == 12


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("workers", [1, 64])
def test_of_equal_trials_those_that_came_first_go_on(name: str, workers: int) -> None:
    settings = Scheduler(name, 90, 10, 3.0, keep=4)
    search = Search(Case(settings, [[0.5] * REPORTS] * 27, workers, 3)).run()
    order = list(at_rung(search, 10))
    beyond = {number for number, trial in search.scheduler.trials.items() if trial.step > 10}
    count = 4 if name == "first_reports" else 9
    assert beyond == set(order[:count])
