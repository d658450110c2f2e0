"""Several run folders as one table."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from s2s_search.errors import ConfigError
from s2s_search.hparams.table import TABLE
from s2s_search.results.ranked import run_names
from s2s_search.results.results import Results, load
from s2s_search.results.scores import EXAMPLES
from s2s_search.runs.log import first_event
from s2s_search.runs.state import History
from s2s_search.runs.tables import stored, typed
from s2s_search.spaces.dimensions import Choice, value_of
from s2s_search.spaces.space import Space


def load_many(folders: Iterable[str | os.PathLike[str]]) -> Results:
    """Reads several searches as one table, and returns them as one result.

    The tables begin with the column `run`: the name of the folder, or as much of its path as tells
    it from the others. `searched` has every hyperparameter that any run searched. If another run
    held it constant, the trials of that run have the constant value, or NA where the hyperparameter
    takes no part by the conditions of the run that searched it. The objectives are those that all
    runs have, and `status` lists the different statuses.

    Raises:
        ConfigError: a folder is no run folder, a folder is named twice, or the runs differ in their
            metric, their goal, their corpus or the number of dev examples.
    """
    runs = [load(folder) for folder in folders]
    _check_together(runs)
    names = run_names(runs)
    searched: dict[str, Results] = {}  # for each key, the first run that searched it
    for run in runs:
        for key in run.searched:
            searched.setdefault(key, run)
    keys = tuple(searched)
    trials = _stacked([_completed(run, searched) for run in runs], names, last=keys)
    first = runs[0]
    objectives = []
    for objective in first.objectives:
        if all(objective in run.objectives for run in runs):
            objectives.append(objective)
    driver: dict[str, float] = {}
    for run in runs:
        for key, value in run.driver.items():
            driver[key] = driver.get(key, 0.0) + value
    return Results(
        folder=Path(os.path.commonpath([run.folder.absolute() for run in runs])),
        name=" + ".join(names),
        status=", ".join(dict.fromkeys(run.status for run in runs)),
        metric=first.metric,
        goal=first.goal,
        objectives=tuple(objectives),
        searched=keys,
        trials=trials,
        reports=_stacked([run.reports for run in runs], names),
        workers=sum(run.workers for run in runs),
        tail=sum(run.tail for run in runs),
        driver=driver,
        damaged=tuple(line for run in runs for line in run.damaged),
        runs=tuple(runs),
    )


# --- several runs ---


def check_distinct(folders: Sequence[Path]) -> None:
    """Raises ConfigError when a run folder is named twice."""
    counts = Counter(folder.resolve() for folder in folders)
    twice = [(folder, count) for folder, count in counts.items() if count > 1]
    if twice:
        raise ConfigError(
            [f"{folder}: is named {count} times; a run counts once" for folder, count in twice]
        )


def _check_together(runs: Sequence[Results]) -> None:
    if not runs:
        raise ConfigError("no run folder is named; one or more are needed")
    check_distinct([run.folder.resolve() for run in runs])
    if len({(run.metric, run.goal) for run in runs}) > 1:
        different = ", ".join(f"{run.folder} by {run.metric} ({run.goal})" for run in runs)
        raise ConfigError(
            f"runs in one table need the same metric and goal, but these are ranked: {different}"
        )
    if problems := other_examples(runs):
        raise ConfigError(problems)


def other_examples(runs: Sequence[Results]) -> list[str]:
    """Returns a sentence for each run whose dev examples are not those of the first run."""
    problems = []
    first = runs[0]
    for run in runs[1:]:
        corpora = _fingerprint(first), _fingerprint(run)
        if corpora[0] != corpora[1] and all(corpora):
            problems.append(
                f"{run.folder} is of another corpus than {first.folder}: their numbers would not "
                "compare"
            )
        counts = _examples(first), _examples(run)
        if counts[0] != counts[1] and all(counts):
            numbers = " against ".join(", ".join(map(str, sorted(count))) for count in counts)
            problems.append(
                f"{first.folder} and {run.folder} were evaluated on different numbers of dev "
                f"examples ({EXAMPLES} {numbers}): their numbers would not compare"
            )
    return problems


def _fingerprint(run: Results) -> str:
    """Returns the fingerprint of a run's corpus; empty if it is not known."""
    return History([first_event(run.folder)]).fingerprint if run.log is not None else ""


def _examples(run: Results) -> set[int]:
    """Returns the values that a run had for the number of dev examples; empty if not known."""
    try:
        dimensions = run.space().dimensions
    except ConfigError:
        return set()
    for dimension in dimensions:
        if dimension.key == EXAMPLES and isinstance(dimension.domain, Choice):
            return {int(str(value)) for value in dimension.domain.values}
    return {int(TABLE[EXAMPLES].default)}


def _completed(run: Results, searched: Mapping[str, Results]) -> pd.DataFrame:
    """Returns the trials of a run with a column for each key that another run searched.

    Its values come from the configurations of the trials.
    """
    missing = [key for key in searched if key not in run.searched]
    if not missing:
        return run.trials
    configs = {name: trial.config for name, trial in run.history().trials.items()}
    columns: dict[str, pd.Series] = {}
    for other in dict.fromkeys(searched[key] for key in missing):
        space = other.space()
        for key in missing:
            if searched[key] is not other:
                continue
            values = [
                _constant(space, key, configs.get(trial, {})) for trial in run.trials["trial"]
            ]
            columns[key] = pd.Series(values, index=run.trials.index, dtype=object)
    dtypes = {key: str(searched[key].trials[key].dtype) for key in missing}
    return run.trials.assign(**typed(pd.DataFrame(columns, index=run.trials.index), dtypes))


def _constant(space: Space, key: str, config: Mapping[str, object]) -> object:
    """Returns a trial's value of a key that another run searched.

    None: by the conditions of that run's space, the key takes no part in the trial.
    """
    if "model" not in config:
        return None
    for dimension in space.dimensions:
        if dimension.key != key:
            continue
        for parent, values in dimension.when.items():
            if value_of(parent, config) not in values:
                return None
    return stored(space.label(key, value_of(key, config)))


def _stacked(
    tables: Sequence[pd.DataFrame], names: Sequence[str], last: Sequence[str] = ()
) -> pd.DataFrame:
    """Returns the tables below each other, with the columns of all of them.

    The first column has the runs' names. The columns `last` come last.
    """
    dtypes = {str(name): str(dtype) for table in tables for name, dtype in table.dtypes.items()}
    ordered = {name: dtypes[name] for name in dtypes if name not in last}
    for name in last:
        ordered[name] = dtypes[name]
    stacked = pd.concat([typed(table, ordered) for table in tables], ignore_index=True)
    lengths = [len(table) for table in tables]
    repeated = np.repeat(np.array(names, dtype=object), lengths)
    stacked.insert(0, "run", pd.Series(repeated, dtype="string"))
    return stacked
