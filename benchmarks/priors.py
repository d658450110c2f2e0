"""What a good and a misleading prior do to search methods, over recorded curves.

    python -m benchmarks.priors benchmarks/curves/cmudict --orders 30

The priors name the values of one recorded configuration for all ranges and choices: of the third
best (good) or of the third worst (misleading). Draws come in the order in which a search draws
them: one in four leans towards the prior, and the others do not. A draw leans by taking one of the
recorded configurations that are left, with a probability by how much more likely the prior makes
it. Compute is that of `replay --league`, in full trials.
"""

import argparse
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np

from s2s_search.spaces.dimensions import Flat, Prior, Tie
from s2s_search.spaces.space import LEANING, Space
from s2s_search.whatif.league import MOST, OwnMethod, contenders, league_row, raced
from s2s_search.whatif.pool import Pool, load_pool

METHODS = ("asha_9", "gp_promote_27", "freeze_thaw")


def leaning_to(space: Space, config: Flat) -> Space:
    """Returns the space with priors at the values of a configuration."""
    dimensions = []
    for dimension in space.dimensions:
        if dimension.varies and dimension.key in config and not isinstance(dimension.domain, Tie):
            dimension = replace(dimension, prior=Prior(config[dimension.key]))
        dimensions.append(dimension)
    return replace(space, dimensions=tuple(dimensions))


def orders(pool: Pool, count: int) -> Iterator[Pool]:
    """Yields the pool in the orders of draws that lean towards the priors of its space."""
    # log_prior is that of the mixture, of which the leaning draws are a part.
    mixed = np.exp([pool.space.log_prior(config) for config in pool.configs])
    ratios = (mixed - (1 - LEANING)) / LEANING
    for seed in range(count):
        rng = Random(f"order {seed}")
        plain = rng.sample(range(len(pool.configs)), len(pool.configs))
        left, order = set(plain), []
        for row in plain:
            if rng.random() < LEANING:
                rest = sorted(left)
                row = rng.choices(rest, [max(ratios[k], 1e-12) for k in rest])[0]
            elif row not in left:
                row = next(k for k in plain if k in left)
            left.remove(row)
            order.append(row)
        yield pool.ordered(order)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.priors", description=__doc__.splitlines()[0]
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--orders", type=int, default=30)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--within", type=float, default=0.01)
    parser.add_argument("--most", type=float, default=MOST)
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    args = parser.parse_args()
    pool = load_pool(args.folder)
    sign = 1 if pool.minimizes else -1
    ranked = np.argsort(sign * pool.values[:, -1], kind="stable")
    spaces = {
        "none": pool.space,
        "good": leaning_to(pool.space, pool.configs[ranked[2]]),
        "misleading": leaning_to(pool.space, pool.configs[ranked[-3]]),
    }
    for method in contenders(args.methods):
        for name, space in spaces.items():
            leaning = replace(pool, space=space)
            drawn = orders(leaning, args.orders)
            outcomes = [
                raced(each, OwnMethod(each, method), args.workers, args.within, most=args.most)
                for each in drawn
            ]
            row = {"prior": name} | league_row(method.name, outcomes, most=args.most)
            print(json.dumps({k: None if v == math.inf else v for k, v in row.items()}), flush=True)


if __name__ == "__main__":
    main()
