"""A search as an Optuna study. Needs neither Ray nor torch."""

import datetime
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from s2s_search.errors import ConfigError
from s2s_search.results.ranked import Ranked, run_names
from s2s_search.runs.tables import stored
from s2s_search.spaces.dimensions import Choice, Range
from s2s_search.spaces.space import Space
from s2s_search.statuses import COMPLETE

STATES = {
    **dict.fromkeys(COMPLETE, TrialState.COMPLETE),
    "stopped": TrialState.PRUNED,
    "running": TrialState.RUNNING,
}
ATTRIBUTES = ("run", "trial", "status", "step", "best.step", "seed", "message")

KnownCells = Mapping[str, Any]  # a row of the trials table without its missing values


# --- a search as a study ---


def study(results: Ranked, storage: str | None = None) -> optuna.Study:
    """Returns a search as an Optuna study, as `Results.to_optuna` describes."""
    name = results.name if results.runs else results.folder.absolute().name
    trials = list(_trials(results))
    directions = [StudyDirection[goal.upper()] for _, goal in results.objectives]
    with quiet():
        try:
            made = optuna.create_study(study_name=name, storage=storage, directions=directions)
            made.set_metric_names([objective for objective, _ in results.objectives])
            made.add_trials(trials)
        except optuna.exceptions.DuplicatedStudyError:
            raise ConfigError(
                f"already has a study {name!r}; use another storage, or delete the study", storage
            ) from None
        except Exception as error:  # the errors of SQLAlchemy and of any database
            raise ConfigError(
                f"cannot be used as a storage: {str(error).splitlines()[0]}", storage
            ) from None
    return made


def _trials(results: Ranked) -> Iterator[FrozenTrial]:
    domains = distributions(results)
    objectives = [results.column(name) for name, _ in results.objectives]
    curves = results.curves()
    runs = results.runs or (results,)
    names = run_names(results.runs) if results.runs else [""]
    times = {name: _times(run) for name, run in zip(names, runs, strict=True)}
    for place, cells in enumerate(rows_of(results, domains)):
        curve = curves.iloc[:, place].dropna()
        by_step = dict(zip(curve.index.tolist(), curve.tolist(), strict=True))
        began, ended = times[cells.get("run", "")][cells["trial"]]
        yield _trial(cells, objectives, by_step, domains, began, ended)


def _times(run: Ranked) -> dict[str, tuple[float, float]]:
    """Returns when each trial began and ended, in seconds since 1970.

    The times are those of the log, as the times of the tables leave out downtime.
    """
    history = run.history()
    start = float(history.search["time"])
    times = dict.fromkeys(run.trials["trial"], (start, start))
    for name, trial in history.trials.items():
        ended = trial.began_at if trial.ended_at is None else trial.ended_at
        times[name] = trial.began_at, max(trial.began_at, ended)
    return times


def _trial(
    cells: KnownCells,
    objectives: Sequence[str],
    curve: Mapping[int, float],
    domains: Mapping[str, BaseDistribution],
    began: float,
    ended: float,
) -> FrozenTrial:
    """Returns a trial of the study.

    Args:
        cells: its row of the trials table.
        objectives: the columns of the objectives.
        curve: the search's metric by step.
        domains: the distributions of the searched keys.
        began: when it began, in seconds since 1970.
        ended: when it ended.
    """
    values: list[float] | None = [float(cells[name]) for name in objectives if name in cells]
    has_values = len(values or ()) == len(objectives)
    state = STATES.get(cells["status"], TrialState.FAIL)
    if state is TrialState.COMPLETE and not has_values:
        state = TrialState.FAIL
    if not has_values or state not in (TrialState.COMPLETE, TrialState.PRUNED):
        values = None  # Optuna refuses values of trials in other states
    trial = create_trial(
        state=state,
        values=values,
        intermediate_values=dict(curve),
        user_attrs={name: cells[name] for name in ATTRIBUTES if name in cells},
        **settings_of(cells, domains),
    )
    trial.datetime_start = datetime.datetime.fromtimestamp(began)
    if state.is_finished():
        trial.datetime_complete = datetime.datetime.fromtimestamp(ended)
    return trial


# --- Optuna's distributions of the values of a key ---


def distributions(results: Ranked) -> dict[str, BaseDistribution]:
    """Returns the distribution of each searched key: that of the space, widened to all values.

    With several runs, a distribution has what any of them could draw. A key with one value has no
    distribution.

    Raises:
        ConfigError: a run's space.yaml is missing or damaged.
    """
    domains: dict[str, list[Choice | Range]] = {}
    for run in results.runs or (results,):
        for key, domain in _domains(run.space()).items():
            domains.setdefault(key, []).append(domain)
    found = {}
    for key in results.searched:
        values = results.trials[key].dropna().unique().tolist() if key in domains else []
        distribution = _distribution(domains.get(key, []), values)
        if distribution is not None and not distribution.single():
            found[key] = distribution
    return found


def _domains(space: Space) -> dict[str, Choice | Range]:
    """Returns the domains of the varying keys, with values as the trials table has them."""
    found: dict[str, Choice | Range] = {}
    for dimension in space.varying:
        key, domain = dimension.key, dimension.domain
        if isinstance(domain, Choice):
            found[key] = Choice(tuple(stored(space.label(key, value)) for value in domain.values))
        elif isinstance(domain, Range):
            found[key] = domain
    return found


def _distribution(
    domains: Sequence[Choice | Range], values: Sequence[Any]
) -> BaseDistribution | None:
    """Returns a distribution that holds the domains of all runs and the values of all trials."""
    ranges: list[Range] = []
    chosen: list[Any] = []
    for domain in domains:
        if isinstance(domain, Range):
            ranges.append(domain)
        else:
            chosen += domain.values
    choices = list(dict.fromkeys([*chosen, *values]))
    # Beside a range, a choice is a number, except in a damaged log.
    is_numeric = not any(value is None or isinstance(value, str) for value in choices)
    if not ranges or not is_numeric:
        return CategoricalDistribution(choices) if choices else None
    low = min([*(domain.low for domain in ranges), *choices])
    high = max([*(domain.high for domain in ranges), *choices])
    log = all(domain.log for domain in ranges) and low > 0
    step = None
    if len(domains) == 1 and not log and all(value in ranges[0] for value in values):
        step = ranges[0].step
    if step is not None:
        high = ranges[0].points()[-1]
    if ranges[0].whole:
        return IntDistribution(int(low), int(high), log, int(step or 1))
    return FloatDistribution(low, high, log, step)


def settings_of(cells: KnownCells, domains: Mapping[str, BaseDistribution]) -> dict[str, Any]:
    """Returns the parameters of a trial, and their distributions, as Optuna names them."""
    active = {key: domain for key, domain in domains.items() if key in cells}
    return {"params": {key: cells[key] for key in active}, "distributions": active}


def rows_of(results: Ranked, domains: Mapping[str, BaseDistribution]) -> Iterator[KnownCells]:
    """Yields the rows of the trials table without missing values, in Python's own types.

    A choice of null, which the table does not tell from a missing value, is None.
    """
    table = results.trials
    columns: dict[str, list[Any]] = {}
    known: dict[str, list[bool]] = {}
    for name in table:
        is_known = table[name].notna()
        columns[str(name)] = table[name].astype(object).where(is_known, None).tolist()
        known[str(name)] = is_known.tolist()
    for key, domain in domains.items():
        if isinstance(domain, CategoricalDistribution) and None in domain.choices:
            known[key] = results.takes_part(key).tolist()
    for place in range(len(table)):
        yield {key: values[place] for key, values in columns.items() if known[key][place]}


def quiet() -> "warnings.catch_warnings[None]":
    """Keeps Optuna's warnings, about few trials and experimental features, off the terminal."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return warnings.catch_warnings(action="ignore")
