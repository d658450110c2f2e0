"""Samplers, which decide the configuration of each trial of a search.

A search asks a sampler for the configuration of a trial, and tells it how trials ended. The answer
follows from the seed, the number of the trial, and all questions and results before. A search that
was killed can therefore resume: a new sampler that hears the same gives the same answers.
"""

import math
import random
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any, Protocol

from s2s_search.errors import ConfigError
from s2s_search.hparams.configuration import Hparams
from s2s_search.methods.reading import Reading
from s2s_search.metrics import EVALUATION_SECONDS, SECONDS
from s2s_search.spaces.dimensions import Choice, Dimension, Flat, Range, value_of
from s2s_search.spaces.settings import BUDGET
from s2s_search.spaces.space import Space, completed
from s2s_search.statuses import FAILURES

ObjectiveValues = Sequence[float | None]  # the values of a space's objectives, in their order
# The configuration of a trial of an earlier search, its values of the objectives, and its status.
EarlierTrial = tuple[Mapping[str, object], ObjectiveValues | None, str]
# Configuration, and the step, value of the metric and loss of each report.
EarlierCurve = tuple[Mapping[str, object], Sequence[tuple[int, float, float | None]]]
SEED = "train.seed"
# The beginnings of the keys that change no step of training: how it is measured, and its end.
MEASURED = ("train.eval_", "train.patience")
STARTUP = 10  # the number of trials with results from which tpe learns
ATTEMPTS = 20  # how often tpe looks for a configuration that is valid and new
GROWING = (SECONDS.name, EVALUATION_SECONDS.name)  # what a trial reports grows with every step


def objective_values(best: Mapping[str, Any] | None, space: Space) -> list[float] | None:
    """Returns the objectives at a trial's best report; None where one of them is missing."""
    if best is None:
        return None
    values = []
    for objective in space.objectives:
        value = best.get(objective.name)
        if value is None:
            return None
        values.append(float(value))
    return values


class Sampler(Protocol):
    """What gives configurations with budget and seed to the trials 0, 1, ..."""

    def __len__(self) -> int:
        """Returns the largest number of trials."""

    def ask(self, number: int) -> Flat | None:
        """Returns the configuration of a trial that starts now; None when there are no more."""

    def running(self, number: int, config: Mapping[str, object]) -> None:
        """Records a running trial whose configuration another sampler gave, before a restart."""

    def learn(self, curves: Iterable[EarlierCurve]) -> tuple[int, int] | None:
        """Takes curves of earlier searches as data; returns how many are used and how many not.

        Returns None when the sampler does not learn from curves.
        """

    def report(self, number: int, reading: Reading) -> None:
        """Records a report of a trial that runs. A report may come twice."""

    def follow(self, training: Callable[[], list[int]]) -> None:
        """Takes from a scheduler that pauses trials which of them train."""

    def tell(
        self, number: int, config: Mapping[str, object], values: ObjectiveValues | None, status: str
    ) -> None:
        """Records how a trial ended.

        Args:
            number: the number of the trial.
            config: its configuration, which pbt may have changed.
            values: the objectives at its best report; None where it has none.
            status: finished, stopped, diverged, or a failure.
        """


class Listed:
    """The sampler of a list: of random or quasi-random draws, grids, replicates."""

    def __init__(self, configs: Sequence[Flat]) -> None:
        self.configs = configs

    def __len__(self) -> int:
        return len(self.configs)

    def ask(self, number: int) -> Flat | None:
        return self.configs[number] if number < len(self) else None

    def running(self, number: int, config: Mapping[str, object]) -> None: ...

    def learn(self, curves: Iterable[EarlierCurve]) -> None: ...

    def report(self, number: int, reading: Reading) -> None: ...

    def follow(self, training: Callable[[], list[int]]) -> None: ...

    def tell(
        self, number: int, config: Mapping[str, object], values: ObjectiveValues | None, status: str
    ) -> None: ...


@dataclass(frozen=True)
class KnownTrial:
    """What tpe knows of a trial."""

    complete: Hparams | None  # the resolved configuration; None when it is not valid
    # A number for each varying key that takes part: the index of a choice, or the position in a
    # range. None where the space does not contain the configuration.
    point: Mapping[str, float] | None
    status: str
    # The values of the objectives. They are empty while the trial runs, and when it failed or
    # diverged.
    values: tuple[float, ...] = ()


class TPE:
    """Optuna's tree-structured Parzen estimator (Bergstra et al., 2011) on the space's unit cube.

    The first trials are the random draws of `Space.trials`. A configuration is given once. With
    further objectives, all trade-offs between them are searched (Ozaki et al., 2020).

    Raises:
        ConfigError: there are fewer configurations than trials.
    """

    def __init__(self, space: Space, trials: int | None = None, seed: int | None = None) -> None:
        self.space = space
        self.seed = space.search.seed if seed is None else seed
        self._optuna = _import_optuna()
        self._draws = space.trials(trials, seed)
        self._distributions = {
            dimension.key: self._distribution(dimension) for dimension in space.varying
        }
        self._trials: dict[int, KnownTrial] = {}
        self._earlier: list[KnownTrial] = []  # the trials of earlier searches

    def __len__(self) -> int:
        return len(self._draws)

    def ask(self, number: int) -> Flat | None:
        if number >= len(self):
            return None
        trials = self._heard()
        is_first = number < len(self.space.first)
        # What is to run first runs, though an earlier search may have run it.
        met = {trial.complete for trial in (self._trials.values() if is_first else trials)}
        drawn = [*self._draws[number:], *self._draws[:number]]
        suggested = self._suggestions(number, trials)
        is_start = is_first or sum(bool(trial.values) for trial in trials) < STARTUP
        candidates = chain(drawn, suggested) if is_start else chain(suggested, drawn)
        for config in candidates:
            complete = self.space.complete(config)
            if complete is not None and complete not in met:
                self.running(number, config)
                return config
        return None

    def running(self, number: int, config: Mapping[str, object]) -> None:
        self._trials[number] = KnownTrial(completed(config), self._point(config), "running")

    def learn(self, curves: Iterable[EarlierCurve]) -> None: ...

    def report(self, number: int, reading: Reading) -> None: ...

    def follow(self, training: Callable[[], list[int]]) -> None: ...

    def tell(
        self, number: int, config: Mapping[str, object], values: ObjectiveValues | None, status: str
    ) -> None:
        self._trials[number] = self._ended(config, values, status)

    def warm_start(self, rows: Iterable[EarlierTrial]) -> tuple[int, int]:
        """Records the trials of earlier searches; returns how many are used and how many skipped.

        A trial is used when the space contains its configuration, whatever its budget and seed, and
        when it ended with values or diverged.

        Args:
            rows: configuration, values of the objectives and status of each trial.
        """
        trials = [self._ended(*row) for row in rows]
        taken = [trial for trial in trials if trial.point is not None and trial.status != "failed"]
        self._earlier += taken
        return len(taken), len(trials) - len(taken)

    def _ended(
        self, config: Mapping[str, object], values: ObjectiveValues | None, status: str
    ) -> KnownTrial:
        """Returns an ended trial as tpe sees it.

        A trial without all values has failed, and a trial with a value that is not finite has
        diverged.
        """
        known = [value for value in values or () if value is not None]
        is_whole = len(known) == len(self.space.objectives)
        if status in FAILURES or (status != "diverged" and not is_whole):
            status = "failed"
        elif not all(map(math.isfinite, known)):
            status = "diverged"
        if status in ("failed", "diverged"):
            known = []
        return KnownTrial(completed(config), self._point(config), status, tuple(known))

    def _point(self, config: Mapping[str, object]) -> dict[str, float] | None:
        """Returns the point of a configuration of any origin; None when the space has none."""
        flat = fitted(self.space, config)
        if flat is None:
            return None
        taking_part = [d for d in self.space.varying if d.key in flat]
        return {d.key: _optuna_number(d, flat[d.key]) for d in taking_part}

    def _heard(self) -> list[KnownTrial]:
        """Returns all trials in the order of their numbers, those of an earlier search first."""
        return [*self._earlier, *(self._trials[number] for number in sorted(self._trials))]

    def _suggestions(self, number: int, trials: Sequence[KnownTrial]) -> Iterator[Flat]:
        """Yields what Optuna suggests for a trial, given all other trials.

        A suggestion that is not used is a running trial to Optuna, which keeps away from running
        trials (the constant liar). So the next suggestion is another one.
        """
        study = self._study(number, trials)
        for _ in range(ATTEMPTS):
            flat = self.space.configuration(partial(_suggested, study.ask()))
            yield self.space.budgeted(flat, self.seed)

    def _study(self, number: int, trials: Sequence[KnownTrial]) -> Any:
        """Returns an Optuna study of all trials, whose seed depends on the number of the trial."""
        optuna = self._optuna
        seed = random.Random(f"{self.seed} {number}").getrandbits(32)
        sampler = self._optuna_sampler(seed)
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

    def _optuna_sampler(self, seed: int) -> Any:
        """Returns Optuna's sampler, with one model of all keys that take part together.

        Keys with conditions have a joint model of their own. With several objectives each key has
        a model of its own, as Optuna recommends.
        """
        make = partial(self._optuna.samplers.TPESampler, n_startup_trials=STARTUP, seed=seed)
        if self.space.further:
            return make()
        with warnings.catch_warnings():
            # Optuna 5.0 says so of the argument `group`, each time.
            warnings.filterwarnings(
                "ignore", "Argument ``group``", self._optuna.exceptions.ExperimentalWarning
            )
            return make(multivariate=True, group=True)

    def _judged(
        self, trials: Iterable[KnownTrial]
    ) -> Iterator[tuple[KnownTrial, list[float] | None]]:
        """Yields the trials from which tpe learns, each with its values; None while it runs.

        A stopped trial counts as complete with its best value. Trained to its end it could only
        have become better. Optuna's own way ranks stopped trials behind all complete ones, and
        would lose the many good trials that ASHA stops among better ones. A stopped
        trial took few seconds only because it was stopped, so its time counts as the longest time
        of any trial.

        A diverged trial is as bad as the worst trial, because NaN would teach nothing. tpe does not
        learn from failures.
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
                values = list(trial.values)
                for k, objective in enumerate(objectives):
                    if objective.name in GROWING:
                        values[k] = worst[k]
                yield trial, values
            elif trial.values:
                yield trial, list(trial.values)

    def _distribution(self, dimension: Dimension) -> Any:
        """Returns Optuna's distribution: the index of a choice, or a position in a range."""
        distributions = self._optuna.distributions
        if isinstance(dimension.domain, Choice):
            return distributions.CategoricalDistribution(range(len(dimension.domain.values)))
        return distributions.FloatDistribution(0.0, 1.0)


def fitted(space: Space, config: Mapping[str, object]) -> Flat | None:
    """Returns a configuration of any origin as a space has it, without budget and seed.

    Returns None when the space does not contain it, whatever its budget and seed, and however its
    trial was measured.
    """

    def read(dimension: Dimension) -> object:
        value = value_of(dimension.key, config)
        _optuna_number(dimension, value)
        return value

    try:
        flat = space.configuration(read)
    except (ValueError, KeyError):
        return None
    budget = {key: config[key] for key in BUDGET if key in config and key not in flat}
    complete = space.complete(flat | budget)
    if complete is None:
        return None
    measured = {key: complete[key] for key in complete if key.startswith(MEASURED)}
    return flat if completed({**config, **measured}) == complete else None


def replicated(ranked: Sequence[Flat], others: Sequence[Flat], top: int, seeds: int) -> list[Flat]:
    """Returns the first `top` different configurations of a ranking, each with `seeds` new seeds.

    The new seeds are the whole numbers after the largest seed that the configuration had in any
    trial. So no two replicates of a search have the same numbers.

    Args:
        ranked: the configurations of trials, best first.
        others: the configurations of trials that are not ranked, and of earlier replicates.
        top: the number of configurations.
        seeds: the number of seeds of each.

    Raises:
        ConfigError: there are fewer different configurations.
    """
    groups: dict[Hparams | None, list[Flat]] = {}
    for config in ranked:
        groups.setdefault(completed({**config, SEED: 0}), []).append(config)
    if top > len(groups):
        law = f"only {len(groups)} different configurations have a result"
        raise ConfigError(f"--top {top}: {law}")
    for config in others:
        groups.setdefault(completed({**config, SEED: 0}), []).append(config)
    replicates = []
    for group in list(groups.values())[:top]:
        largest = max(map(_seed, group))
        replicates += [{**group[0], SEED: largest + n} for n in range(1, seeds + 1)]
    return replicates


def _seed(config: Flat) -> int:
    seed = config.get(SEED)
    return seed if isinstance(seed, int) else 0  # a log may hold anything


def _suggested(trial: Any, dimension: Dimension) -> object:
    """Returns the value that Optuna's trial gives to a dimension."""
    if isinstance(dimension.domain, Choice):
        values = dimension.domain.values
        return values[trial.suggest_categorical(dimension.key, range(len(values)))]
    assert isinstance(dimension.domain, Range)
    return dimension.domain.at(trial.suggest_float(dimension.key, 0.0, 1.0))


def _optuna_number(dimension: Dimension, value: object) -> float:
    """Returns the number that stands for a value in Optuna.

    Raises:
        ValueError: the dimension does not have the value.
    """
    domain = dimension.domain
    assert isinstance(domain, Choice | Range)
    return domain.values.index(value) if isinstance(domain, Choice) else domain.position(value)


def _import_optuna() -> Any:
    import optuna  # late, because it takes a second and only tpe needs it

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
