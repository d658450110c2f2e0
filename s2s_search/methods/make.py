"""The sampler and the scheduler that a space asks for.

What needs SciPy is imported late, because most searches need none of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from s2s_search.methods.halving import FirstReports, Progressive, Promotion
from s2s_search.methods.pausing import TRAINS, Pausing
from s2s_search.methods.samplers import TPE, Listed, Sampler
from s2s_search.spaces.dimensions import Flat, value_of
from s2s_search.spaces.settings import Scheduler
from s2s_search.spaces.space import Space

if TYPE_CHECKING:
    from s2s_search.methods.surrogate import Surrogate

POOL = 256  # the least number of draws among which a model chooses


def make_sampler(
    space: Space,
    trials: int | None = None,
    seed: int | None = None,
    overrides: Mapping[str, object] | None = None,
    configs: Sequence[Flat] | None = None,
) -> Sampler:
    """Returns the sampler of a search.

    Args:
        space: the space, whose method and scheduler decide.
        trials: the number of draws; None takes the number of the file.
        seed: the seed of the draws; None takes the seed of the file.
        overrides: values that are fixed.
        configs: configurations that are run instead of those of the space.

    Raises:
        ConfigError: as `Space.trials` does.
    """
    if configs is not None:
        return Listed(configs)
    if overrides:
        space = space.fixed(overrides)
    if space.learner == "tpe":
        return TPE(space, trials, seed)
    draws = space.trials(trials, seed)
    if space.learner is None:
        return Listed(draws)
    from s2s_search.methods.proposals import Proposals

    seed = space.search.seed if seed is None else seed
    # The space may hold fewer configurations than POOL, which is_fixed allows.
    wanted = replace(space.search, trials=max(POOL, len(draws)))
    pool = replace(space, search=wanted, is_fixed=True).trials(None, seed)
    return Proposals(space, pool, len(draws), seed, make_surrogate(space, draws[0]))


def make_surrogate(space: Space, config: Mapping[str, object]) -> "Surrogate":
    """Returns the model of gp and freeze_thaw; one configuration says when trials report."""
    from s2s_search.methods.surrogate import Surrogate

    first = value_of("train.eval_every_steps", config)
    return Surrogate(space, first if isinstance(first, int) else 1)


def make_pausing(settings: Scheduler, minimize: bool, sampler: Sampler | None) -> Pausing | None:
    """Returns the scheduler of a search that pauses trials; None for a scheduler of Ray Tune.

    Args:
        settings: the scheduler's settings.
        minimize: True when less is better.
        sampler: the sampler of the search. It learns from the scheduler which trials train, and
            freeze_thaw shares its model.
    """
    pausing: Pausing
    if settings.name == "asha" and settings.promotes:
        pausing = Promotion(settings, minimize)
    elif settings.name == "pasha":
        pausing = Progressive(settings, minimize)
    elif settings.name == "first_reports":
        pausing = FirstReports(settings, minimize)
    elif settings.name == "freeze_thaw":
        from s2s_search.methods.freeze_thaw import FreezeThaw
        from s2s_search.methods.proposals import Proposals

        assert isinstance(sampler, Proposals)
        pausing = FreezeThaw(settings, minimize, sampler)
    else:
        return None
    if sampler is not None:
        sampler.follow(lambda: pausing.of(TRAINS))
    return pausing
