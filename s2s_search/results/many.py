"""Several run folders as one table."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from s2s_search.errors import ConfigError
from s2s_search.results.ranked import run_names
from s2s_search.results.results import Results, load
from s2s_search.runs.tables import stored, typed
from s2s_search.spaces.dimensions import value_of
from s2s_search.spaces.space import Space


def load_many(folders: Iterable[str | os.PathLike[str]]) -> Results:
    """Reads several searches as one, whose tables begin with a column `run`: the folder's name, or more of its path.

    `searched` is what any of them searched. Where one held such a hyperparameter constant its trials have that value,
    NA where it takes no part by the conditions of the run that searched it. All methods take trials of all runs; the
    objectives are those that all have, and `status` names what there is.

    Raises:
        ConfigError: a folder is no run folder, or named twice, or not all runs have one metric and goal.
    """
    runs = [load(folder) for folder in folders]
    _check_together(runs)
    names = run_names(runs)
    searched = {key: run for run in reversed(runs) for key in reversed(run.searched)}
    keys = tuple(dict.fromkeys(key for run in runs for key in run.searched))
    trials = _stacked([_completed(run, searched) for run in runs], names, last=keys)
    reports = _stacked([run.reports for run in runs], names)
    first = runs[0]
    return Results(
        Path(os.path.commonpath([run.folder.absolute() for run in runs])),
        " + ".join(names),
        ", ".join(dict.fromkeys(run.status for run in runs)),
        first.metric,
        first.goal,
        tuple(
            objective
            for objective in first.objectives
            if all(objective in run.objectives for run in runs)
        ),
        keys,
        trials,
        reports,
        sum(run.workers for run in runs),
        sum(run.tail for run in runs),
        {key: sum(run.driver.get(key, 0.0) for run in runs) for run in runs for key in run.driver},
        tuple(line for run in runs for line in run.damaged),
        tuple(runs),
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
            f"runs that are compared need one metric and goal, but these are ranked: {different}"
        )


def _completed(run: Results, searched: Mapping[str, Results]) -> pd.DataFrame:
    """The trials of a run with the keys that others searched, whose values come from the trials' configurations."""
    missing = [key for key in searched if key not in run.searched]
    if not missing:
        return run.trials
    configs = {name: trial.config for name, trial in run.history().trials.items()}
    columns: dict[str, pd.Series] = {}
    for other in dict.fromkeys(searched[key] for key in missing):
        space = other.space()
        for key in (key for key in missing if searched[key] is other):
            values = [
                _constant(space, key, configs.get(trial, {})) for trial in run.trials["trial"]
            ]
            columns[key] = pd.Series(values, index=run.trials.index, dtype=object)
    dtypes = {key: str(searched[key].trials[key].dtype) for key in missing}
    return run.trials.assign(**typed(pd.DataFrame(columns, index=run.trials.index), dtypes))


def _constant(space: Space, key: str, config: Mapping[str, object]) -> object:
    """The value that a trial of another run has of a key, None where by the space's conditions it takes no part."""
    whens = [dimension.when for dimension in space.dimensions if dimension.key == key]
    if "model" not in config:
        return None
    if not all(
        value_of(parent, config) in values for when in whens for parent, values in when.items()
    ):
        return None
    return stored(space.label(key, value_of(key, config)))


def _stacked(
    tables: Sequence[pd.DataFrame], names: Sequence[str], last: Sequence[str] = ()
) -> pd.DataFrame:
    """The tables below each other after a column with the runs' names, with the columns of all, some of them last."""
    dtypes = {str(name): str(dtype) for table in tables for name, dtype in table.dtypes.items()}
    ordered = {name: dtypes[name] for name in dtypes if name not in last} | {
        name: dtypes[name] for name in last
    }
    stacked = pd.concat([typed(table, ordered) for table in tables], ignore_index=True)
    lengths = [len(table) for table in tables]
    stacked.insert(
        0, "run", pd.Series(np.repeat(np.array(names, dtype=object), lengths), dtype="string")
    )
    return stacked
