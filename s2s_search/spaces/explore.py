"""How population-based training changes the hyperparameters of a trial that copies another's weights."""

import random
from collections.abc import Mapping

from s2s_search.spaces.dimensions import Choice, Dimension, Flat, Range
from s2s_search.spaces.settings import BUDGET
from s2s_search.spaces.space import Space, completed, survives


def explore(space: Space, config: Mapping[str, object], rng: random.Random) -> Flat:
    """Returns the configuration that a trial goes on with after it took over another's (Jaderberg et al., 2017).

    Each key of `space.mutable` that takes part is drawn anew with probability 0.25, else times 0.8 or 1.2; a choice
    moves to a neighbour. Conditions and ties follow. What would be invalid, or what a checkpoint would not survive,
    is left as it was. With overrides, the space must be `space.fixed(overrides)`.
    """
    explored = dict(config)
    for dimension in space.varying:
        if dimension.key in space.mutable and dimension.key in explored:
            explored = _mutated(space, explored, dimension, rng)
    return explored


def _mutated(space: Space, config: Flat, mutated: Dimension, rng: random.Random) -> Flat:
    domain = mutated.domain
    assert isinstance(domain, Choice | Range)
    is_drawn, u, factor = rng.random() < 0.25, rng.random(), rng.choice((0.8, 1.2))
    value = domain.at(u) if is_drawn else domain.perturbed(config[mutated.key], factor)

    def choose(dimension: Dimension) -> object:
        if dimension.key == mutated.key:
            return value
        assert isinstance(dimension.domain, Choice | Range)
        return (
            config[dimension.key] if dimension.key in config else dimension.domain.at(rng.random())
        )

    flat = {key: config[key] for key in BUDGET if key in config} | space.configuration(choose)
    changed = [key for key in {**config, **flat} if config.get(key) != flat.get(key)]
    return flat if all(map(survives, changed)) and completed(flat) is not None else config
