"""Studies: a search as Optuna has it, and how much each hyperparameter mattered. Needs neither Ray nor torch."""

import datetime
import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
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

STATES = {
    "finished": TrialState.COMPLETE,
    "stopped": TrialState.PRUNED,
    "running": TrialState.RUNNING,
}
ATTRIBUTES = ("run", "trial", "status", "step", "best.step", "seed", "message")

Cells = Mapping[str, Any]  # of a row of the trials table, those that are known


# --- a search as a study ---


def study(results: Ranked, storage: str | None = None) -> optuna.Study:
    """Results.to_optuna, which says what it gives."""
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
                f"has a study {name!r} already; take another storage, or delete it", storage
            ) from None
        except Exception as error:  # SQLAlchemy's, and those of its databases
            raise ConfigError(
                f"cannot be used as a storage: {str(error).splitlines()[0]}", storage
            ) from None
    return made


def _trials(results: Ranked) -> Iterator[FrozenTrial]:
    domains = distributions(results)
    objectives = [results.column(name) for name, _ in results.objectives]
    curves = results.curves()
    names = run_names(results.runs) if results.runs else [""]
    times = {name: _times(run) for name, run in zip(names, results.runs or (results,), strict=True)}
    for place, cells in enumerate(rows_of(results, domains)):
        curve = curves.iloc[:, place].dropna()
        by_step = dict(zip(curve.index.tolist(), curve.tolist(), strict=True))
        yield _trial(
            cells, objectives, by_step, domains, *times[cells.get("run", "")][cells["trial"]]
        )


def _times(run: Ranked) -> dict[str, tuple[float, float]]:
    """When each trial began and ended, in seconds since 1970: the log's, as the tables' times leave downtime out."""
    history = run.history()
    start = float(history.search["time"])
    times = dict.fromkeys(run.trials["trial"], (start, start))
    for name, trial in history.trials.items():
        ended = trial.began_at if trial.ended_at is None else trial.ended_at
        times[name] = trial.began_at, max(trial.began_at, ended)
    return times


def _trial(
    cells: Cells,
    objectives: Sequence[str],
    curve: Mapping[int, float],
    domains: Mapping[str, BaseDistribution],
    began: float,
    ended: float,
) -> FrozenTrial:
    """A trial that began and ended so many seconds after 1970; `curve` is the metric by step."""
    values = [float(cells[name]) for name in objectives if name in cells]
    has_values = len(values) == len(objectives)
    state = STATES.get(cells["status"], TrialState.FAIL)
    if state is TrialState.COMPLETE and not has_values:
        state = TrialState.FAIL
    trial = create_trial(
        state=state,
        values=values if has_values and state in (TrialState.COMPLETE, TrialState.PRUNED) else None,
        intermediate_values=dict(curve),
        user_attrs={name: cells[name] for name in ATTRIBUTES if name in cells},
        **settings_of(cells, domains),
    )
    trial.datetime_start = datetime.datetime.fromtimestamp(began)
    if state.is_finished():
        trial.datetime_complete = datetime.datetime.fromtimestamp(ended)
    return trial


# --- what Optuna calls the values of a key ---


def distributions(results: Ranked) -> dict[str, BaseDistribution]:
    """The distribution of each searched key: as the space has it, wide enough for all values that trials have.

    Of several runs it holds what any of them could draw. A key with one value has none.

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
    """The domains of the varying keys, their values as the trials table writes them."""
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
    ranges = [domain for domain in domains if isinstance(domain, Range)]
    choices = dict.fromkeys(
        chain(*(domain.values for domain in domains if isinstance(domain, Choice)), values)
    )
    if not ranges or any(
        value is None or isinstance(value, str) for value in choices
    ):  # text: of a damaged log
        return CategoricalDistribution(list(choices)) if choices else None
    low, high = (
        min([*(r.low for r in ranges), *choices]),
        max([*(r.high for r in ranges), *choices]),
    )
    log = all(r.log for r in ranges) and low > 0
    step = (
        ranges[0].step
        if len(domains) == 1 and not log and all(value in ranges[0] for value in values)
        else None
    )
    if step is not None:
        high = ranges[0].points()[-1]
    if ranges[0].whole:
        return IntDistribution(int(low), int(high), log, int(step or 1))
    return FloatDistribution(low, high, log, step)


def settings_of(cells: Cells, domains: Mapping[str, BaseDistribution]) -> dict[str, Any]:
    active = {key: domain for key, domain in domains.items() if key in cells}
    return {"params": {key: cells[key] for key in active}, "distributions": active}


def rows_of(results: Ranked, domains: Mapping[str, BaseDistribution]) -> Iterator[Cells]:
    """The rows of the trials table without what is NA, in Python's own types; a choice of null is None."""
    table = results.trials
    columns = {
        str(name): table[name].astype(object).where(table[name].notna(), None).tolist()
        for name in table
    }
    known = {str(name): table[name].notna().tolist() for name in table}
    for key, domain in domains.items():
        if isinstance(domain, CategoricalDistribution) and None in domain.choices:
            known[key] = results.takes_part(key).tolist()
    for place in range(len(table)):
        yield {key: values[place] for key, values in columns.items() if known[key][place]}


def quiet() -> "warnings.catch_warnings[None]":
    """Keeps Optuna's remarks about few trials, and about what is experimental in it, from the user's terminal."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return warnings.catch_warnings(action="ignore")
