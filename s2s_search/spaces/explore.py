"""How population-based training changes the hyperparameters of a trial that copies weights."""

import random
from collections.abc import Mapping

from s2s_search.spaces.dimensions import Choice, Dimension, Flat, Range
from s2s_search.spaces.settings import BUDGET
from s2s_search.spaces.space import Space, survives


def explore(space: Space, config: Mapping[str, object], rng: random.Random) -> Flat:
    """Returns a changed copy of a better trial's configuration (Jaderberg et al., 2017).

    Each key of `space.mutable` that takes part is drawn anew with probability 0.25. Otherwise a
    number is multiplied by 0.8 or 1.2, and a choice moves to a neighbour. Conditions and ties are
    applied to the new values. A change is left out if it makes the configuration invalid, breaks a
    constraint, or makes the checkpoint useless.

    Args:
        space: the space; with overrides, `space.fixed(overrides)`.
        config: the configuration of the better trial.
        rng: decides the changes.
    """
    explored = dict(config)
    for dimension in space.varying:
        if dimension.key in space.mutable and dimension.key in explored:
            explored = _mutated(space, explored, dimension, rng)
    return explored


def _mutated(space: Space, config: Flat, mutated: Dimension, rng: random.Random) -> Flat:
    """Returns the configuration with one dimension changed, or unchanged if that is impossible."""
    domain = mutated.domain
    assert isinstance(domain, Choice | Range)
    # All three numbers are always drawn, so that later ones do not depend on what is done here.
    is_drawn = rng.random() < 0.25
    u = rng.random()
    factor = rng.choice((0.8, 1.2))
    value = domain.at(u) if is_drawn else domain.perturbed(config[mutated.key], factor)

    def choose(dimension: Dimension) -> object:
        if dimension.key == mutated.key:
            return value
        if dimension.key in config:
            return config[dimension.key]
        assert isinstance(dimension.domain, Choice | Range)
        return dimension.domain.at(rng.random())  # its condition holds for the new value only

    flat = {key: config[key] for key in BUDGET if key in config} | space.configuration(choose)
    changed = [key for key in {**config, **flat} if config.get(key) != flat.get(key)]
    return flat if all(map(survives, changed)) and space.complete(flat) is not None else config
