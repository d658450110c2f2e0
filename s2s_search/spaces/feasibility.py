"""Which constraints hold nowhere, and which configurations of `first` cannot be run."""

import math
from collections.abc import Iterator
from itertools import islice

from s2s_search.errors import ConfigError, quantity, shown
from s2s_search.hparams.configuration import resolve
from s2s_search.hparams.table import owners
from s2s_search.spaces.dimensions import Flat, value_of
from s2s_search.spaces.draws import uniform
from s2s_search.spaces.space import LARGEST_GRID, Space, completed, enumerated
from s2s_search.spaces.yaml_file import KeyPath

TRIED = 2000  # the number of draws, or of all configurations, that are tried for the constraints


def constraint_problems(space: Space) -> Iterator[tuple[KeyPath, str]]:
    """Yields why no configuration satisfies the constraints, as pairs of a key path and a sentence.

    All configurations of a grid or a small space are tried, and random ones of a larger space.

    Raises:
        ConfigError: a constraint names the parameters, and the corpus cannot be read.
    """
    size = math.prod(dimension.domain.size for dimension in space.varying)
    is_grid = space.search.method == "grid" and size <= LARGEST_GRID
    if not space.constraints:
        return
    if size <= TRIED or is_grid:
        flats = map(space.flat, enumerated(space.varying))
    else:
        flats = map(space.at, islice(uniform(space.searched, 0), TRIED))
    tried = 0
    never = set(range(len(space.constraints)))  # the constraints that have not held so far
    for flat in flats:
        complete = completed(flat)
        if complete is None:
            continue
        tried += 1
        broken = space.broken(flat, complete)
        if not any(broken):
            return
        never = {index for index in never if broken[index]}
    if not tried:
        return
    law = f"in none of {quantity(tried, 'configuration')}"
    for index in sorted(never):
        yield ("constraints", index), f"constraints: {space.constraints[index]}: holds {law}"
    if not never:
        yield ("constraints",), f"constraints: all of them hold {law}"


def first_problems(space: Space, index: int, named: Flat) -> Iterator[tuple[KeyPath, str]]:
    """Yields what is wrong with a configuration of `first`, as pairs of a key path and a sentence.

    Args:
        space: the space.
        index: the place of the configuration in the list.
        named: the values that it names.
    """
    flats = list(space.crossed(named, space.chosen))
    for key in named:
        if not any(key in flat for flat in flats):
            yield ("first", index, key), f"first: {_inactive(space, key, flats[0])}"
    if any(space.complete(flat) is not None for flat in flats):
        return
    flat = flats[0]
    try:
        broken = space.broken(flat, resolve(str(flat["model"]), flat))
    except ConfigError as error:
        for problem in error.problems:
            yield ("first", index), f"first: {problem}"
        return
    for constraint, values in zip(space.constraints, broken, strict=True):
        if values:
            yield ("first", index), f"first: it breaks the constraint {constraint}: {values}"


def _inactive(space: Space, key: str, flat: Flat) -> str:
    """Returns why a key takes no part in a configuration."""
    if flat["model"] not in owners(key):
        return f"{key} takes no part where the model is {flat['model']}"
    for dimension in space.dimensions:
        if dimension.key == key:
            for parent, values in dimension.when.items():
                value = value_of(parent, flat)
                if value not in values:
                    named = space.label(parent, value)
                    return f"{key} takes no part where {parent} is {shown(named)}"
    return f"{key} takes no part"
