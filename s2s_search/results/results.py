"""A search in pandas: its tables of trials and reports, ranked and compared (docs/results.md).

Needs pandas; neither Ray nor torch.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from s2s_search.results.ranked import Ranked
from s2s_search.runs.debug_runs import debug_events, is_debug_run
from s2s_search.runs.folder import EVENTS
from s2s_search.runs.log import open_log
from s2s_search.runs.state import History
from s2s_search.runs.tables import read_tables, tables_of

if TYPE_CHECKING:
    import optuna


@dataclass(frozen=True, eq=False)
class Results(Ranked):
    """The tables of one search, ranked, and what Optuna makes of them."""

    def importance(self, metric: str | None = None) -> pd.DataFrame:
        """How much each searched hyperparameter mattered for being among the best, most important first.

        By PED-ANOVA (Watanabe et al., 2023), as Optuna has it: how differently the best configurations and all are
        spread over the values of a hyperparameter. The best are a tenth, at least 5. The seeds of a configuration count
        as one, by their mean. A hyperparameter that takes part in some trials only counts where it does, weighted by
        the share of these among the best and among all; whether it takes part is the merit of what decides that. Trials
        that diverged without a best report are as bad as the worst.

        Columns: hyperparameter (string); importance (Float64), of all together 1, NA where fewer than 2 of the best
        have the hyperparameter, 0 where it had one value; trials (Int64), in which it takes part. Empty with fewer than
        10 configurations that have a value, and `attrs["reason"]` says so.

        Raises:
            ConfigError: there is no such metric, or the run folder's space.yaml is missing or damaged.
        """
        from s2s_search.results import importance  # late: Optuna takes a while to import

        return importance.importance(self, metric)

    def to_optuna(self, storage: str | None = None) -> "optuna.Study":
        """The search as a study of Optuna's, in memory, or written to a storage such as sqlite:///study.db.

        Each trial has its hyperparameters with the space's distributions, conditional ones only where they take part;
        the objectives at its best report; the metric by step; when it began and ended; and as user attributes trial,
        status, step, best.step, seed and message (and run). Finished trials are COMPLETE, stopped ones PRUNED, running
        ones RUNNING, all others FAIL. The study is named after the run folder.

        Raises:
            ConfigError: space.yaml is missing or damaged, or the storage cannot be used, or has that study already.
        """
        from s2s_search.results import optuna_study  # late: Optuna takes a while to import

        return optuna_study.study(self, storage)


def load(folder: str | os.PathLike[str]) -> Results:
    """Reads the tables of a search, running or ended. What is damaged is left out, and named in `damaged`.

    A debug run is read as a search of one trial.

    Raises:
        ConfigError: the folder is no run folder.
    """
    path = Path(folder)
    if not (path / EVENTS).exists() and is_debug_run(path):
        events, damaged = debug_events(path)
        tables = tables_of(History(events), damaged)
        log, status = None, tables.status
    else:
        log = open_log(path)
        tables = read_tables(path, log.size)
        status = log.status(tables.status)
    search = tables.search
    metric, goal = search["metric"], search["goal"]
    return Results(
        folder=path,
        name=search["name"],
        status=status,
        metric=metric,
        goal=goal,
        objectives=(
            (metric, goal),
            *((name, goal) for name, goal in search.get("objectives", ())[1:]),
        ),
        searched=tuple(search["searched"]),
        trials=tables.trials,
        reports=tables.reports,
        workers=tables.workers,
        tail=tables.tail,
        driver=tables.driver,
        damaged=tables.damaged,
        log=log,
    )
