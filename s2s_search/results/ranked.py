"""The tables of one search in pandas, ranked by its metric."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from s2s_search.errors import ConfigError, nearest
from s2s_search.methods.samplers import GROWING
from s2s_search.metrics import MINIMIZE, REGISTRY
from s2s_search.results.pareto import pareto
from s2s_search.runs.inputs import space_of
from s2s_search.runs.log import Log, first_event
from s2s_search.runs.state import History, history_of
from s2s_search.spaces.space import Space
from s2s_search.statuses import COMPLETE


@dataclass(frozen=True, eq=False)
class Ranked:
    """The tables of one search, with the metric that ranks its trials.

    A trial's best report is the one with the best value of the metric, and the earliest of several
    equal ones. The report of a divergence is never the best. The columns `best.*` are those of the
    best report, and `last.*` those of the newest report.

    status: running, finished, interrupted, failed, out of budget, or killed
    metric: such as "dev.loss"
    goal: "minimize" or "maximize"
    objectives: names and goals; the metric is the first
    searched: the keys of the searched hyperparameters
    workers: the most trials that ran at once
    tail: worker seconds without a trial, after the last trial had started or resumed
    driver: what the search took its driver (reports, seconds, processor_seconds); empty until the
        end
    damaged: lines of the log that are no events and were left out, with their places
    runs: the runs that `load_many` put together; their names are in the column `run`
    log: the log from which all this was read; None for a debug run and for several runs
    """

    folder: Path
    name: str
    status: str
    metric: str
    goal: str
    objectives: tuple[tuple[str, str], ...]
    searched: tuple[str, ...]
    trials: pd.DataFrame
    reports: pd.DataFrame
    workers: int
    tail: float
    driver: dict[str, float]
    damaged: tuple[str, ...]
    runs: tuple["Ranked", ...] = ()
    log: Log | None = None

    def history(self) -> History:
        """Returns what the log says of each trial, as of the moment when the tables were read.

        Raises:
            ConfigError: the log cannot be read, or there are several runs.
        """
        if self.log is None:
            raise ConfigError(
                "has no log of a search: it is a debug run, or several runs", str(self.folder)
            )
        return history_of(self.log)

    def space(self) -> Space:
        """Returns the search space, with the overrides of the command line fixed.

        Raises:
            ConfigError: space.yaml is missing or damaged, or there are several runs.
        """
        if self.runs:
            raise ConfigError(
                "several runs have no common space; each of `runs` has its own", str(self.folder)
            )
        search = first_event(self.folder)
        space = space_of(History([search]), self.folder)
        if search.get("overrides"):
            return space.fixed(search["overrides"])
        return space

    def best(self, n: int | None = 10, sort: str | None = None) -> pd.DataFrame:
        """Returns the `n` best trials, best first; None: all trials.

        Trials are ranked by the search's metric, or by the column `sort` (`dev.bleu` means
        `best.dev.bleu`). The better values of a metric come first; other columns are sorted
        upwards. Trials without a value come last.

        Raises:
            ConfigError: there is no such column.
        """
        column = self.column(sort or self.metric)
        upwards = [self.minimizes(column)] + [True] * len(self._names)
        ranked = self.trials.sort_values([column, *self._names], ascending=upwards)
        if n is not None:
            ranked = ranked.head(n)
        return ranked.reset_index(drop=True)

    def by(self, key: str) -> pd.DataFrame:
        """Returns one row per value of a column, best first.

        The value NA stands for trials in which the hyperparameter takes no part, or is null.
        Columns: trials; scored (the number of trials with a best report); best, median, mean and
        std of these; trial (the best one; with several runs also run).

        Raises:
            ConfigError: there is no such column.
        """
        column, score = self.column(key), f"best.{self.metric}"
        # The trials are ranked, so the first trial of a group is the best.
        groups = self.best(None).groupby(column, dropna=False, sort=False)
        scores = groups[score]
        columns = {
            "trials": scores.size().astype("Int64"),
            "scored": scores.count().astype("Int64"),
            "best": scores.first(),
            "median": scores.median(),
            "mean": scores.mean(),
            "std": scores.std(),
            **{name: groups[name].first().where(scores.count() > 0) for name in self._names},
        }
        return pd.DataFrame(columns)

    def pivot(
        self, rows: str, columns: str, metric: str | None = None, aggregate: str = "best"
    ) -> pd.DataFrame:
        """Returns a table with a row per value of one column, and a column per value of another.

        Values are in order. The last row or column is that of NA, if a hyperparameter takes no part
        in some trials.

        Args:
            rows: the column of the trials table whose values are the rows.
            columns: the column whose values are the columns.
            metric: the metric at the trials' best reports; None: the search's metric.
            aggregate: a cell is the "best" or the "mean" value of its trials (Float64), or the
                number of "trials" that have a value (Int64). It is NA if no trial has both values.

        Raises:
            ConfigError: there is no such column or aggregate.
        """
        score = self.measure(metric or self.metric)
        keys = [self.column(rows), self.column(columns)]
        best = "min" if self.minimizes(score) else "max"
        ways = {"best": best, "mean": "mean", "trials": "count"}
        if aggregate not in ways:
            raise ConfigError(
                f"unknown aggregate {aggregate!r}{nearest(aggregate, ways)}", str(self.folder)
            )
        if keys[0] == keys[1]:
            raise ConfigError(f"needs two columns, but got {keys[0]} twice", str(self.folder))
        scored = self.trials[self.trials[score].notna()]
        table = scored.groupby(keys, dropna=False)[score].agg(ways[aggregate]).unstack()
        table = table.sort_index(axis=0).sort_index(axis=1)
        return table.astype("Int64" if aggregate == "trials" else "Float64")

    def pareto(self) -> pd.DataFrame:
        """Returns the trials on the Pareto front of the objectives at their best reports.

        If the metric is the only objective, that is the best trial, and those equal to it. A trial
        that did not finish took few seconds only because it ended early. So its seconds count as
        the most of any trial, as they do for tpe.
        """
        names = [self.column(name) for name, _ in self.objectives]
        goals = [goal for _, goal in self.objectives]
        table = self.trials[names].copy()
        is_cut = ~self.trials["status"].isin(COMPLETE)
        for name in names:
            if name in GROWING:
                table[name] = table[name].mask(is_cut & table[name].notna(), table[name].max())
        values = table.astype(object).where(table.notna(), None).to_numpy().tolist()
        return self.trials[pareto(values, goals)].reset_index(drop=True)

    def curves(self, metric: str | None = None) -> pd.DataFrame:
        """Returns the learning curves of a metric, by default the search's metric.

        The index is `step`, and each trial has a Float64 column, even without a report. With
        several runs the columns have two levels, run and trial. NA means no report at that step, or
        only that of a divergence. If pbt let a trial repeat a step, the later report counts.

        Raises:
            ConfigError: the reports have no such column.
        """
        metric = metric or self.metric
        if metric not in self.reports:
            raise ConfigError(
                f"unknown metric {metric!r}{nearest(metric, map(str, self.reports))}",
                str(self.folder),
            )
        measured = self.reports[self.reports["status"].fillna("").ne("diverged")]
        latest = measured.drop_duplicates([*self._names, "step"], keep="last")
        curves = latest.set_index(["step", *self._names])[metric].unstack(self._names)
        every = self.trials.set_index(self._names).index
        return curves.reindex(columns=every).sort_index().astype("Float64")

    def measure(self, name: str) -> str:
        """Returns what `column` returns. Raises ConfigError if that column has no numbers."""
        column = self.column(name)
        if self.trials[column].dtype in ("Float64", "Int64"):
            return column
        raise ConfigError(
            f"must be a column of numbers, but {column} is {self.trials[column].dtype}",
            str(self.folder),
        )

    def minimizes(self, metric: str) -> bool:
        """Returns whether lower values of a metric, or of its column best.* or last.*, are better.

        For other columns that is True.
        """
        metric = metric.removeprefix("best.").removeprefix("last.")
        if metric == self.metric:
            return self.goal == MINIMIZE
        return metric not in REGISTRY or REGISTRY[metric].goal == MINIMIZE

    def takes_part(self, key: str) -> "pd.Series[bool]":
        """Returns for each trial whether a searched hyperparameter takes part in it.

        The tables do not say that: NA also stands for a value of null.
        """
        known = self.trials[key].notna()
        if known.all():
            return known
        return known | pd.Series([key in keys for keys in self._settings], index=known.index)

    @cached_property
    def _settings(self) -> list[set[str]]:
        """Returns the keys of the searched hyperparameters that take part in each trial."""
        found = []
        for run in self.runs or (self,):
            trials = run.history().trials
            for name in run.trials["trial"]:
                found.append(set(trials[name].settings) if name in trials else set())
        return found

    def worker_seconds(self) -> dict[str, float]:
        """Returns where the workers' seconds went, from the first step of all to the last event.

        steps, evaluation, snapshots: training, evaluating, saving checkpoints
        waiting: until the driver took a report
        starting: until the first step of a trial
        between: a worker had no trial or only paused ones, or a trial is not accounted for
        tail: no trial was left to start or to resume; 0 unless the search finished

        The number of workers is the most trials that ever ran at once. Without a report all is
        zero. The seconds of several runs are added up.
        """
        names = ("steps", "evaluation", "snapshots", "waiting", "starting", "between", "tail")
        parts = dict.fromkeys(names, 0.0)
        if self.runs:
            spent = [run.worker_seconds() for run in self.runs]
            return {part: sum(seconds[part] for seconds in spent) for part in parts}
        first = self.reports.drop_duplicates("trial").set_index("trial")
        trials = self.trials.set_index("trial")
        if first.empty:
            return parts
        training = first["seconds"].fillna(0.0)
        saving = first["snapshot_seconds"].fillna(0.0)
        first_steps = first["elapsed"] - training - saving
        begin = float(first_steps.min())
        end = float(max(self.reports["elapsed"].max(), trials["ended"].fillna(0.0).max()))
        parts["evaluation"] = float(trials["evaluation_seconds"].sum())
        parts["snapshots"] = float(trials["snapshot_seconds"].sum())
        parts["waiting"] = float(trials["waiting_seconds"].sum())
        parts["steps"] = float(trials["seconds"].sum()) - parts["evaluation"]
        # Only the time since `begin` is accounted for, and the earliest trials started before it.
        late = first_steps - begin
        parts["starting"] = float(first["start_seconds"].fillna(0.0).clip(upper=late).sum())
        idle = self.workers * (end - begin) - sum(parts.values())
        if self.status == "finished":
            parts["tail"] = min(self.tail, max(idle, 0.0))
        parts["between"] = idle - parts["tail"]
        return parts

    @property
    def _names(self) -> list[str]:
        """Returns the names of the columns that name a trial."""
        return ["run", "trial"] if self.runs else ["trial"]

    def column(self, name: str) -> str:
        """Returns the column of the trials table that a name means: itself, or `best.` of a metric.

        Raises:
            ConfigError: there is no such column.
        """
        for column in (name, f"best.{name}"):
            if column in self.trials:
                return column
        raise ConfigError(
            f"unknown column {name!r}{nearest(name, list(self.trials.columns))}", str(self.folder)
        )


def run_names(runs: Sequence[Ranked]) -> list[str]:
    """Returns the runs' names: the last parts of their paths, as few as tell all runs apart."""
    folders = [run.folder.resolve() for run in runs]
    for length in itertools.count(1):
        names = ["/".join(folder.parts[-length:]) for folder in folders]
        if len(set(names)) == len(names):
            break
    return names
