"""The tables of one search in pandas, ranked by its metric."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from s2s_search.errors import ConfigError, nearest
from s2s_search.metrics import MINIMIZE, REGISTRY
from s2s_search.results.pareto import pareto
from s2s_search.runs.inputs import space_of
from s2s_search.runs.log import Log, first_event
from s2s_search.runs.state import History, history_of
from s2s_search.spaces.space import Space

if TYPE_CHECKING:
    pass


@dataclass(frozen=True, eq=False)
class Ranked:
    """The tables of one search, with the metric that ranks its trials ("dev.loss") and its goal ("minimize").

    A trial's best report is the one with the best value of the metric over all its reports, the earliest of equals;
    the columns `best.*` are that report's, `last.*` those of its newest. The report of a divergence is never best.
    """

    folder: Path
    name: str
    status: str  # of the search: running, finished, interrupted, failed, out of budget, or killed
    metric: str
    goal: str
    objectives: tuple[tuple[str, str], ...]  # names and goals; the metric is the first
    searched: tuple[str, ...]
    trials: pd.DataFrame
    reports: pd.DataFrame
    workers: int  # trials that ran at once, at the most
    tail: float  # worker seconds without a trial, from when the last one started or went on to the end of all
    driver: dict[
        str, float
    ]  # what the search cost it: reports, seconds, processor_seconds; empty until the end
    damaged: tuple[
        str, ...
    ]  # lines of the log that are no events and were left out, with their places
    runs: tuple[
        "Ranked", ...
    ] = ()  # those that `load_many` put together, whose names are in the column `run`
    log: Log | None = None  # what all this was read from; None of several runs

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
        """What was searched, with the overrides of the command line fixed.

        Raises:
            ConfigError: space.yaml is missing or damaged, or there are several runs.
        """
        if self.runs:
            raise ConfigError(
                "several runs have no one space; each of `runs` has its own", str(self.folder)
            )
        search = first_event(self.folder)
        space = space_of(History([search]), self.folder)
        return space.fixed(search["overrides"]) if search.get("overrides") else space

    def best(self, n: int | None = 10, sort: str | None = None) -> pd.DataFrame:
        """Ranks the trials, best first: by the search's metric, or by a column (`dev.bleu` is `best.dev.bleu`).

        Metrics sort towards their better side, other columns upwards; trials without a value come last. n None: all.

        Raises:
            ConfigError: there is no such column.
        """
        column = self.column(sort or self.metric)
        upwards = self.minimizes(column)
        ranked = self.trials.sort_values(
            [column, *self._names], ascending=[upwards] + [True] * len(self._names)
        )
        return ranked.head(len(ranked) if n is None else n).reset_index(drop=True)

    def by(self, key: str) -> pd.DataFrame:
        """Compares the values of a column, best first; a row a value, NA where the hyperparameter is inactive or null.

        Columns: trials, scored (how many of them have a best report), best, median, mean and std of those, and trial
        (the name of the best one, of several runs also its run).

        Raises:
            ConfigError: there is no such column.
        """
        column, score = self.column(key), f"best.{self.metric}"
        groups = self.best(None).groupby(
            column, dropna=False, sort=False
        )  # the first of a group is its best
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
        """Compares two columns against each other: a row a value of the one, a column a value of the other, in order.

        A cell is the `best`, or the `mean`, of the trials' values of a metric at their best reports, Float64, or the
        number of `trials` that have one, Int64. It is NA where no trial has both values; the last row or column is NA's
        where the hyperparameter takes no part in some trials.

        Raises:
            ConfigError: there is no such column or aggregate.
        """
        score, keys = self.measure(metric or self.metric), [self.column(rows), self.column(columns)]
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
        return (
            table.sort_index(axis=0)
            .sort_index(axis=1)
            .astype("Int64" if aggregate == "trials" else "Float64")
        )

    def pareto(self) -> pd.DataFrame:
        """The trials that no other beats in one objective without losing in another, by the objectives at their best.

        Without further objectives than the metric it is the best trial.
        """
        names = [self.column(name) for name, _ in self.objectives]
        values = (
            self.trials[names]
            .astype(object)
            .where(self.trials[names].notna(), None)
            .to_numpy()
            .tolist()
        )
        return self.trials[pareto(values, [goal for _, goal in self.objectives])].reset_index(
            drop=True
        )

    def curves(self, metric: str | None = None) -> pd.DataFrame:
        """The learning curves of a metric, by default the search's: index `step`, a Float64 column a trial.

        A trial has its column also without a report; of several runs the columns have two levels, run and trial. NA is:
        no report at that step, or none but that of a divergence. Of a step that pbt let a trial make again the later
        report counts.

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
        latest = measured.drop_duplicates([*self._names, "step"], keep="last").set_index(
            ["step", *self._names]
        )
        curves = latest[metric].unstack(self._names)
        every = self.trials.set_index(self._names).index
        return curves.reindex(columns=every).sort_index().astype("Float64")

    def measure(self, name: str) -> str:
        """The column of a name as `column`; one of numbers. Raises ConfigError."""
        column = self.column(name)
        if self.trials[column].dtype in ("Float64", "Int64"):
            return column
        raise ConfigError(
            f"must be a column of numbers, but {column} is {self.trials[column].dtype}",
            str(self.folder),
        )

    def minimizes(self, metric: str) -> bool:
        """Says whether less of a metric, or of its column best.* or last.*, is better; other columns sort upwards."""
        metric = metric.removeprefix("best.").removeprefix("last.")
        if metric == self.metric:
            return self.goal == MINIMIZE
        return metric not in REGISTRY or REGISTRY[metric].goal == MINIMIZE

    def takes_part(self, key: str) -> "pd.Series[bool]":
        """Says in which trials a searched hyperparameter takes part, be it as null, which the tables have as NA too."""
        known = self.trials[key].notna()
        if known.all():
            return known
        found = []
        for run in self.runs or (self,):
            trials = run.history().trials
            for name in run.trials["trial"]:
                found.append(name in trials and key in trials[name].settings)
        return known | pd.Series(found, index=known.index)

    def worker_seconds(self) -> dict[str, float]:
        """Says where the workers' seconds went, from the first step of all trials to the last event of one.

        steps · evaluation · snapshots · waiting (for the search to take a report) · starting (until a trial's first
        step) · between (a worker has no trial or only paused ones, or a trial is not accounted for) · tail (no trial is
        left to start or to go on; 0 unless the search finished). There are as many workers as trials ever ran at once.
        Without a report it is all zero. Those of several runs are added up.
        """
        first, trials = (
            self.reports.drop_duplicates("trial").set_index("trial"),
            self.trials.set_index("trial"),
        )
        parts = dict.fromkeys(
            ("steps", "evaluation", "snapshots", "waiting", "starting", "between", "tail"), 0.0
        )
        if self.runs:
            spent = [run.worker_seconds() for run in self.runs]
            return {part: sum(seconds[part] for seconds in spent) for part in parts}
        if first.empty:
            return parts
        first_steps = (
            first["elapsed"] - first["seconds"].fillna(0.0) - first["snapshot_seconds"].fillna(0.0)
        )
        begin, last_report, last_end = (
            first_steps.min(),
            self.reports["elapsed"].max(),
            trials["ended"].fillna(0.0).max(),
        )
        begin, end = float(begin), float(max(last_report, last_end))
        for part, column in (
            ("evaluation", "evaluation"),
            ("snapshots", "snapshot"),
            ("waiting", "waiting"),
        ):
            parts[part] = float(trials[f"{column}_seconds"].sum())
        parts["steps"] = float(trials["seconds"].sum()) - parts["evaluation"]
        late = (
            first_steps - begin
        )  # the earliest trial starts before the time that is accounted for
        parts["starting"] = float(first["start_seconds"].fillna(0.0).clip(upper=late).sum())
        idle = self.workers * (end - begin) - sum(parts.values())
        if self.status == "finished":
            parts["tail"] = min(self.tail, max(idle, 0.0))
        parts["between"] = idle - parts["tail"]
        return parts

    @property
    def _names(self) -> list[str]:
        """The columns that name a trial."""
        return ["run", "trial"] if self.runs else ["trial"]

    def column(self, name: str) -> str:
        """The column of the trials table that a name means: itself, or `best.` of a metric. Raises ConfigError."""
        for column in (name, f"best.{name}"):
            if column in self.trials:
                return column
        raise ConfigError(
            f"unknown column {name!r}{nearest(name, list(self.trials.columns))}", str(self.folder)
        )


def run_names(runs: Sequence[Ranked]) -> list[str]:
    """The runs' names, of each folder the shortest end of its path that no other has."""
    folders = [run.folder.resolve() for run in runs]
    for length in itertools.count(1):
        names = ["/".join(folder.parts[-length:]) for folder in folders]
        if len(set(names)) == len(names):
            break
    return names
