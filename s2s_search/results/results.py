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
        """Returns how much each searched hyperparameter mattered, the clearest evidence first.

        The importance is the share of the variance of the configurations' places that the values of
        a hyperparameter explain by themselves, less what chance explains on average. A place is the
        square root of a rank, so that places near the top count more. Four or more different
        numbers are fitted by a parabola over their ranks, other values by a mean for each value.
        Trials are compared at equal steps, as `results.scores.comparable` says. A configuration
        with several seeds counts once, with the mean over its seeds, and a trial that diverged is
        as bad as the worst. If the search crossed its draws with grids, the values of a grid are
        compared within draws, and other values by the means of draws. A hyperparameter that takes
        part in some trials only is judged by these trials.

        Columns: hyperparameter (string); importance (Float64); chance (Float64), the importance
        that 95 of 100 shuffled searches stay below; p (Float64), how often any hyperparameter of a
        shuffled search stands out as much as this one; trials (Int64), the number of trials in
        which it takes part. If it took part in no trial, importance, chance and p are NA. With
        fewer than 10 configurations that have a score the table is empty, and `attrs["reason"]`
        says why.

        Raises:
            ConfigError: there is no such metric, or the run folder's space.yaml is missing or
                damaged.
        """
        from s2s_search.results import importance  # late, as only some readers need it

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
