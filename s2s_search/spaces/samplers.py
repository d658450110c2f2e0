"""Samplers: which configuration each trial of a search gets, and, for population based training, what comes after it.

A search asks a sampler for a trial's configuration and tells it how trials ended. What a sampler answers follows from
the seed, the trial's number and what it was asked and told, so that a search that was killed can go on: a new sampler
that hears the same gives the same.
"""

import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, product
from typing import Any, Protocol

from s2s_search.errors import ConfigError
from s2s_search.hparams.configuration import Hparams
from s2s_search.metrics import EVALUATION_SECONDS, SECONDS
from s2s_search.spaces.dimensions import Choice, Dimension, Flat, Range, value_of
from s2s_search.spaces.settings import BUDGET
from s2s_search.spaces.space import Space, completed
from s2s_search.statuses import FAILURES

Values = Sequence[float | None]  # of a space's objectives, in their order
SEED = "train.seed"
STARTUP = 10  # trials with results before tpe looks at them
ATTEMPTS = 20  # of tpe at a configuration that is valid and new
GROWING = (SECONDS.name, EVALUATION_SECONDS.name)  # what a trial reports grows with every step


def objective_values(best: Mapping[str, Any] | None, space: Space) -> list[float] | None:
    """What a trial is told to the sampler by: the objectives at its best report."""
    if best is None:
        return None
    values = [best.get(objective.name) for objective in space.objectives]
    return (
        None
        if any(value is None for value in values)
        else [float(value) for value in values if value is not None]
    )


class Sampler(Protocol):
    """Gives configurations, complete with budget and seed, to trials 0, 1, ...; its length is how many at most."""

    def __len__(self) -> int: ...

    def ask(self, number: int) -> Flat | None:
        """Returns the configuration of a trial, from now on running; None when there are no more."""

    def running(self, number: int, config: Mapping[str, object]) -> None:
        """Hears of a trial that was asked for before, by another sampler, and has not ended."""

    def tell(
        self, number: int, config: Mapping[str, object], values: Values | None, status: str
    ) -> None:
        """Hears how a trial ended: finished, stopped, diverged or failed, and with which values of the objectives.

        The values are the best so far; None where the trial has none.
        """


def make_sampler(
    space: Space,
    trials: int | None = None,
    seed: int | None = None,
    overrides: Mapping[str, object] | None = None,
    configs: Sequence[Flat] | None = None,
) -> Sampler:
    """Returns the sampler of the space's method, or of a list of configurations.

    Raises:
        ConfigError: as `Space.trials` does.
    """
    if configs is not None:
        return Listed(configs)
    if overrides:
        space = space.fixed(overrides)
    return (
        TPE(space, trials, seed)
        if space.search.method == "tpe"
        else Listed(space.trials(trials, seed))
    )


class Listed:
    """The sampler of what is known in advance: random draws, quasi-random draws, grids, replicates."""

    def __init__(self, configs: Sequence[Flat]) -> None:
        self.configs = configs

    def __len__(self) -> int:
        return len(self.configs)

    def ask(self, number: int) -> Flat | None:
        return self.configs[number] if number < len(self) else None

    def running(self, number: int, config: Mapping[str, object]) -> None: ...

    def tell(
        self, number: int, config: Mapping[str, object], values: Values | None, status: str
    ) -> None: ...


@dataclass(frozen=True)
class Trial:
    """What tpe knows of a trial.

    `point` has a number for each varying key that takes part: a choice's index, or a value's position in its range. It
    is None where the space does not hold the configuration.
    """

    complete: Hparams | None
    point: Mapping[str, float] | None
    status: str
    values: tuple[
        float, ...
    ] = ()  # of the objectives; none while it runs, and when it failed or diverged


class TPE:
    """The tree-structured Parzen estimator (Bergstra et al., 2011), as Optuna has it, on the space's unit cube.

    The first trials are the random draws of `Space.trials`. A configuration is given once; with further objectives the
    search is for all trade-offs between them (Ozaki et al., 2020).

    Raises:
        ConfigError: when Optuna is not installed, or there are fewer configurations than trials.
    """

    def __init__(self, space: Space, trials: int | None = None, seed: int | None = None) -> None:
        self.space = space
        self.seed = space.search.seed if seed is None else seed
        self._optuna = _import_optuna()
        self._draws = space.trials(trials, seed)
        self._distributions = {
            dimension.key: self._distribution(dimension) for dimension in space.varying
        }
        self._trials: dict[int, Trial] = {}
        self._earlier: list[Trial] = []  # of another search

    def __len__(self) -> int:
        return len(self._draws)

    def ask(self, number: int) -> Flat | None:
        if number >= len(self):
            return None
        trials = self._heard()
        met = {trial.complete for trial in trials}
        drawn, suggested = (
            chain(self._draws[number:], self._draws[:number]),
            self._suggestions(number, trials),
        )
        is_start = sum(bool(trial.values) for trial in trials) < STARTUP
        for config in chain(drawn, suggested) if is_start else chain(suggested, drawn):
            complete = completed(config)
            if complete is not None and complete not in met:
                self.running(number, config)
                return config
        return None

    def running(self, number: int, config: Mapping[str, object]) -> None:
        self._trials[number] = Trial(completed(config), self._point(config), "running")

    def tell(
        self, number: int, config: Mapping[str, object], values: Values | None, status: str
    ) -> None:
        self._trials[number] = self._ended(config, values, status)

    def warm_start(
        self, rows: Iterable[tuple[Mapping[str, object], Values | None, str]]
    ) -> tuple[int, int]:
        """Hears of trials of an earlier search: configuration, values, status; returns how many it took and skipped.

        A trial is taken where the space holds its configuration, whatever its budget and seed, and where it ended with
        values or diverged.
        """
        trials = [self._ended(*row) for row in rows]
        taken = [trial for trial in trials if trial.point is not None and trial.status != "failed"]
        self._earlier += taken
        return len(taken), len(trials) - len(taken)

    def _ended(self, config: Mapping[str, object], values: Values | None, status: str) -> Trial:
        known = [value for value in values or () if value is not None]
        status = "failed" if status in FAILURES else status
        if status not in ("failed", "diverged") and len(known) != len(self.space.objectives):
            status = "failed"
        elif status != "failed" and not all(map(math.isfinite, known)):
            status = "diverged"
        finite = () if status in ("failed", "diverged") else tuple(known)
        return Trial(completed(config), self._point(config), status, finite)

    def _point(self, config: Mapping[str, object]) -> dict[str, float] | None:
        """Returns where the space has a configuration, which may come from a file; None when it does not hold it."""
        point: dict[str, float] = {}

        def read(dimension: Dimension) -> object:
            value = value_of(dimension.key, config)
            point[dimension.key] = _place(dimension, value)
            return value

        try:
            flat = self.space.configuration(read)
        except (ValueError, KeyError):
            return None
        budget = {key: config[key] for key in BUDGET if key in config and key not in flat}
        complete = completed(flat | budget)
        return point if complete is not None and complete == completed(config) else None

    def _heard(self) -> list[Trial]:
        return [*self._earlier, *(self._trials[number] for number in sorted(self._trials))]

    def _suggestions(self, number: int, trials: Sequence[Trial]) -> Iterator[Flat]:
        """Yields what Optuna suggests for a trial, in view of the others.

        One that is not taken stays open in Optuna's eyes, which keep away from what is open (the constant liar).
        """
        study = self._study(number, trials)
        for _ in range(ATTEMPTS):
            trial = study.ask()
            yield self.space.budgeted(
                self.space.configuration(partial(_suggested, trial)), self.seed
            )

    def _study(self, number: int, trials: Sequence[Trial]) -> Any:
        optuna = self._optuna
        sampler = optuna.samplers.TPESampler(
            n_startup_trials=STARTUP, seed=random.Random(f"{self.seed} {number}").getrandbits(32)
        )
        directions = [objective.goal for objective in self.space.objectives]
        study = optuna.create_study(sampler=sampler, directions=directions)
        for trial, values in self._judged(trials):
            state = optuna.trial.TrialState.COMPLETE if values else optuna.trial.TrialState.RUNNING
            distributions = {key: self._distributions[key] for key in trial.point or ()}
            frozen = optuna.trial.create_trial(
                state=state,
                params=dict(trial.point or {}),
                distributions=distributions,
                values=values,
            )
            study.add_trial(frozen)
        return study

    def _judged(self, trials: Iterable[Trial]) -> Iterator[tuple[Trial, list[float] | None]]:
        """Yields the trials that tpe learns from, each with its values; None while it runs.

        A trial that was stopped counts as complete: its best value is one that it reached with less, so it can only
        fall short of what it would have come to, and Optuna's other way, to rank it behind all complete ones, would
        lose the many good ones that ASHA stops among better ones. But seconds it has spent few because it was stopped.
        A diverged trial is as bad as the worst: NaN would teach nothing, and a failure is nothing that TPE learns from.
        """
        known = [trial for trial in trials if trial.point is not None and trial.status != "failed"]
        columns = list(zip(*(trial.values for trial in known if trial.values), strict=True))
        objectives = self.space.objectives
        worst = [
            max(column) if objective.goal == "minimize" else min(column)
            for objective, column in zip(objectives, columns, strict=False)
        ]
        for trial in known:
            if trial.status == "running":
                yield trial, None
            elif trial.status == "diverged" and worst:
                yield trial, worst
            elif trial.status == "stopped":
                pairs = zip(objectives, trial.values, worst, strict=True)
                yield (
                    trial,
                    [
                        least if objective.name in GROWING else value
                        for objective, value, least in pairs
                    ],
                )
            elif trial.values:
                yield trial, list(trial.values)

    def _distribution(self, dimension: Dimension) -> Any:
        if isinstance(dimension.domain, Choice):
            return self._optuna.distributions.CategoricalDistribution(
                range(len(dimension.domain.values))
            )
        return self._optuna.distributions.FloatDistribution(0.0, 1.0)


def replicated(ranked: Sequence[Flat], others: Sequence[Flat], top: int, seeds: int) -> list[Flat]:
    """Returns the first `top` different configurations of a ranking, each with `seeds` seeds that it has not had.

    Those are the whole numbers after the largest seed that it had among the ranked and the other trials.

    Raises:
        ConfigError: there are fewer different configurations.
    """
    groups: dict[Hparams | None, list[Flat]] = {}
    for config in ranked:
        groups.setdefault(completed({**config, SEED: 0}), []).append(config)
    if top > (known := len(groups)):
        raise ConfigError(f"--top {top}: only {known} different configurations have a result")
    for config in others:
        groups.setdefault(completed({**config, SEED: 0}), []).append(config)
    return [
        {**group[0], SEED: max(map(_seed, group)) + n}
        for group, n in product(list(groups.values())[:top], range(1, seeds + 1))
    ]


def _seed(config: Flat) -> int:
    seed = config.get(SEED)
    return seed if isinstance(seed, int) else 0  # a log may hold anything


def _suggested(trial: Any, dimension: Dimension) -> object:
    """Returns the value that a trial of Optuna's gives a dimension."""
    if isinstance(dimension.domain, Choice):
        values = dimension.domain.values
        return values[trial.suggest_categorical(dimension.key, range(len(values)))]
    assert isinstance(dimension.domain, Range)
    return dimension.domain.at(trial.suggest_float(dimension.key, 0.0, 1.0))


def _place(dimension: Dimension, value: object) -> float:
    """Returns what Optuna calls a value of a dimension. Raises ValueError for another value."""
    domain = dimension.domain
    assert isinstance(domain, Choice | Range)
    return domain.values.index(value) if isinstance(domain, Choice) else domain.position(value)


def _import_optuna() -> Any:
    import optuna  # late: it takes a second, and only tpe needs it

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
