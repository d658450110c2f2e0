"""Searches in which any configuration can be tried, over a model of recorded curves.

    python -m benchmarks.worlds benchmarks/curves/cmudict --searches 16

`replay --league` lets methods choose among the recorded configurations only. Here, extremely
randomised trees (Geurts et al., 2006) that were fitted to the logarithms of the recorded values
answer for every configuration, as in the surrogate benchmarks of Eggensperger et al. (2015). Trees
smooth: the best configurations are a little worse than the best recorded ones. Each search has
other draws. For each method: mean and median over the searches of the best report after 3, 6 and 12
full trials. `freeze_thaw` and `gp` change good configurations here, which they cannot do in a
league.
"""

import argparse
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from multiprocessing import Pool as Processes
from pathlib import Path

import numpy as np

from s2s_search.machine import usable_cores
from s2s_search.methods.features import Features
from s2s_search.methods.make import make_pausing, make_sampler
from s2s_search.methods.pausing import NEW
from s2s_search.methods.reading import Reading
from s2s_search.spaces.dimensions import Flat
from s2s_search.whatif.league import Contender, Stopping, contenders
from s2s_search.whatif.pool import Pool, load_pool

BUDGETS = (3, 6, 12)  # full trials
TRIALS = 400  # more than begin
TREES = 300
NAMES = ("random", "asha_9", "promote_27", "gp_promote_27", "freeze_thaw")


class World:
    """What every configuration of a space would report."""

    def __init__(self, pool: Pool) -> None:
        from sklearn.ensemble import ExtraTreesRegressor  # of the extra [benchmarks]

        self.pool = pool
        self._features = Features(pool.space)
        vectors = np.array([self._features.of(config) for config in pool.configs])
        self._trees = ExtraTreesRegressor(TREES, max_features=0.6, random_state=0)
        self._trees.fit(vectors, np.log(np.hstack([pool.values, pool.losses])))

    def curves(self, config: Flat) -> np.ndarray:
        """Returns the values of the metric and the losses, of shape (2, reports)."""
        return np.exp(self._trees.predict(self._features.of(config)[None])[0]).reshape(2, -1)


def search(world: World, contender: Contender, seed: int, workers: int) -> Iterator[float]:
    """Yields the values of the reports of a search. Workers report in turns."""
    steps = world.pool.steps
    settings = contender.settings(steps)
    method = "gp" if contender.proposes else "random"
    sections = replace(world.pool.space.search, method=method, trials=TRIALS, seed=seed)
    space = replace(world.pool.space, scheduler=settings, search=sections)
    sampler = make_sampler(space)
    pausing = make_pausing(settings, world.pool.minimizes, sampler)
    scheduler = pausing or Stopping(space)
    configs: dict[int, Flat] = {}
    curves: dict[int, np.ndarray] = {}
    made: dict[int, int] = {}
    training: list[int] = []
    while True:
        while len(training) < workers:
            number = scheduler.choose(len(configs) < TRIALS)
            if number is None:
                break
            if number == NEW:
                number = len(configs)
                config = sampler.ask(number)
                assert config is not None
                configs[number] = config
                curves[number], made[number] = world.curves(configs[number]), 0
            scheduler.begin(number, configs[number])
            training.append(number)
        if not training:
            return
        number = training.pop(0)
        place = made[number]
        value, loss = curves[number][:, place].tolist()
        made[number] += 1
        yield value
        reading = Reading(steps[place], value, loss)
        sampler.report(number, reading)
        if made[number] == len(steps):
            scheduler.hear(number, reading)
            how = "finished"
        elif scheduler.report(number, reading, len(configs) < TRIALS):
            training.append(number)
            continue
        elif pausing is not None:
            continue
        else:
            how = "stopped"
        scheduler.end(number)
        sampler.tell(number, configs[number], None, how)


def outcome(world: World, contender: Contender, workers: int, seed: int) -> list[float]:
    """Returns the best report of a search after each of BUDGETS."""
    full, best = len(world.pool.steps), math.inf
    found: list[float] = []
    for count, value in enumerate(search(world, contender, seed, workers), start=1):
        best = min(best, value)
        if count == BUDGETS[len(found)] * full:
            found.append(best)
            if len(found) == len(BUDGETS):
                break
    return found + [best] * (len(BUDGETS) - len(found))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.worlds", description=__doc__.splitlines()[0]
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--searches", type=int, default=16)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--methods", nargs="+", default=list(NAMES))
    args = parser.parse_args()
    world = World(load_pool(args.folder))
    for contender in contenders(args.methods):
        with Processes(usable_cores()) as processes:
            seeds = range(1, args.searches + 1)
            one = partial(outcome, world, contender, args.workers)
            found = np.array(processes.map(one, seeds, chunksize=1))
        row: dict[str, object] = {"method": contender.name}
        for k, budget in enumerate(BUDGETS):
            row[f"mean_{budget}"] = round(float(found[:, k].mean()), 4)
            row[f"median_{budget}"] = round(float(np.median(found[:, k])), 4)
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
