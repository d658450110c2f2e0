"""A search in pandas: its tables of trials and reports, ranked and compared (docs/results.md).

Needs pandas; neither Ray nor torch.
"""

import os
from dataclasses import dataclass
from functools import cached_property
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
    """The tables of one search, ranked, and what Optuna can compute from them."""

    def importance(self, metric: str | None = None) -> pd.DataFrame:
        """Returns how much each searched hyperparameter mattered, the most important first.

        The method is PED-ANOVA (Watanabe et al., 2023) as implemented by Optuna. It compares how
        the best configurations and all configurations are distributed over the values of a
        hyperparameter. The best are a tenth of the configurations, but at least 5. A configuration
        with several seeds counts once, with the mean over its seeds. A trial that diverged without
        a best report is as bad as the worst. A hyperparameter that takes part in some trials only
        is judged by these trials, weighted by their share among the best and among all. Whether it
        takes part counts for the hyperparameter that decides this.

        Columns: hyperparameter (string); importance (Float64), with a sum of 1; trials (Int64), the
        number of trials in which it takes part. The importance is NA if fewer than 2 of the best
        have the hyperparameter, and 0 if it had one value. With fewer than 10 configurations that
        have a value the table is empty, and `attrs["reason"]` says why.

        Raises:
            ConfigError: there is no such metric, or the run folder's space.yaml is missing or
                damaged.
        """
        from s2s_search.results import importance  # late, as Optuna is slow to import

        return importance.importance(self, metric)

    @cached_property
    def evaluations(self) -> pd.DataFrame:
        """The evaluations of the run folder: what `evaluate` measured (docs/results.md)."""
        from s2s_search.results import evaluations  # late, as few need sacrebleu

        return evaluations.table(self.folder)

    def to_optuna(self, storage: str | None = None) -> "optuna.Study":
        """Returns the search as an Optuna study, named after the run folder.

        The study is in memory, or also in `storage`, such as sqlite:///study.db. Each trial has its
        hyperparameters with the distributions of the space, without those that take no part in it;
        the objectives at its best report; the metric by step; its start and its end; and as user
        attributes trial, status, step, best.step, seed and message (with several runs also run).
        Finished trials are COMPLETE, stopped ones PRUNED, running ones RUNNING, all others FAIL.

        Raises:
            ConfigError: space.yaml is missing or damaged, or the storage cannot be used or already
                has a study of that name.
        """
        from s2s_search.results import optuna_study  # late, as Optuna is slow to import

        return optuna_study.study(self, storage)


def load(folder: str | os.PathLike[str]) -> Results:
    """Reads the tables of a search that runs or has ended.

    A debug run counts as a search of one trial. Damaged lines of the log are left out, and named in
    `damaged`.

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
        objectives=((metric, goal), *map(tuple, search.get("objectives", ())[1:])),
        searched=tuple(search["searched"]),
        trials=tables.trials,
        reports=tables.reports,
        workers=tables.workers,
        tail=tables.tail,
        driver=tables.driver,
        damaged=tables.damaged,
        log=log,
    )
