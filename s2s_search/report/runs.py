"""Run folders as a report reads them: a search's tables with its space, and what follows from both.

Needs neither Ray nor torch.
"""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from s2s_search.display.tables import cell
from s2s_search.errors import ConfigError, printable
from s2s_search.report.axes import Axis, Boundary, axes, boundary
from s2s_search.results.many import check_distinct, load_many
from s2s_search.results.replicates import configurations, replicates
from s2s_search.results.results import Results, load
from s2s_search.runs.folder import EVENTS
from s2s_search.runs.log import first_event
from s2s_search.runs.state import REPLICATES, History
from s2s_search.spaces.space import Space


@dataclass(frozen=True, eq=False)
class Run:
    """A run folder; `number` is its place among those that were named together."""

    number: int
    name: str
    results: Results
    history: History
    space: Space
    beside: Results | None = None  # the search's replicates, from the run folders beside its own
    fetch: bool = False  # also what lies at a URL that its log names

    @property
    def metric(self) -> str:
        return self.results.metric

    @property
    def score(self) -> str:
        """The column that ranks the trials."""
        return f"best.{self.metric}"

    @property
    def minimizes(self) -> bool:
        return self.results.minimizes(self.metric)

    @cached_property
    def ranked(self) -> pd.DataFrame:
        """All trials, best first."""
        return self.results.best(None)

    @cached_property
    def scored(self) -> pd.DataFrame:
        """The trials that have a best report, best first."""
        return self.ranked[self.ranked[self.score].notna()]

    @cached_property
    def configurations(self) -> tuple[int, int]:
        """How many configurations have a best report, and how many there are."""
        every = configurations(self.results)
        return every[self.results.trials[self.score].notna()].nunique(), every.nunique()

    @property
    def seeds(self) -> Results:
        """Where configurations have several seeds: in the replicates beside the search, else in the search itself."""
        return self.beside or self.results

    @cached_property
    def replicates(self) -> pd.DataFrame:
        """The configurations over their seeds, best first; empty where each ran with one."""
        groups = replicates(self.seeds)
        return groups if (groups["trials"] > 1).any() else groups.head(0)

    @cached_property
    def axes(self) -> list[Axis]:
        return axes(self.results, self.space)

    @cached_property
    def boundaries(self) -> list[Boundary]:
        return [found for found in map(boundary, self.axes) if found]

    @cached_property
    def importance(self) -> pd.DataFrame:
        return self.results.importance()

    @cached_property
    def numbers(self) -> dict[str, int]:
        """The rows of the trials table, by the trials' names."""
        return {trial: number for number, trial in enumerate(self.results.trials["trial"])}

    def settings(self, row: "pd.Series[Any]") -> dict[str, str]:
        """The searched hyperparameters that take part in a trial, as tables print them."""
        known = self.history.trials[row["trial"]].settings
        cells = {
            key: "null" if known.get(key, row[key]) is None else cell(row[key])
            for key in self.results.searched
        }
        return {key: text for key, text in cells.items() if text == "null" or not pd.isna(row[key])}

    def leads(self, in_gpu_hours: bool = False) -> pd.DataFrame:
        """A row whenever the best improved, be it by the trial that was best before, and one for the end.

        Columns: number (the trial's), elapsed (seconds), cost (of training so far: seconds of all workers, or GPU
        hours), best.
        """
        reports = self.results.reports
        spent = reports.groupby("trial")["seconds"].diff().fillna(reports["seconds"]).fillna(0.0)
        cost = spent.clip(lower=0.0).cumsum() * (
            self.space.resources.gpu / 3600 if in_gpu_hours else 1.0
        )
        table = reports.assign(
            number=reports["trial"].map(self.numbers), cost=cost, best=reports[self.metric]
        )
        table = table[table["status"].fillna("").ne("diverged") & table["best"].notna()]
        best = table["best"].cummin() if self.minimizes else table["best"].cummax()
        leads = table[best.ne(best.shift()).fillna(True)]
        if len(leads):
            end = leads.iloc[-1:].assign(elapsed=reports["elapsed"].iloc[-1], cost=cost.iloc[-1])
            leads = pd.concat([leads, end], ignore_index=True)
        return leads[["number", "elapsed", "cost", "best"]].astype(float).astype({"number": int})

    def rungs(self) -> list[tuple[float, int, int]]:
        """The steps of the scheduler's rungs, how many trials were compared at each, and how many were stopped."""
        came, stopped = Counter[float](), Counter[float]()
        for trial in self.history.trials.values():
            for event in trial.decisions:
                if event.get("rung") is not None:
                    came[event["rung"]] += 1
                    stopped[event["rung"]] += event["action"] == "stop"
        return [(rung, came[rung], stopped[rung]) for rung in sorted(came)]

    def nodes(self) -> pd.DataFrame:
        """The time of each node, from the start of the first trial to the end of the last one, on whichever node.

        Index: node, or "not known" of trials without a report; a trial counts where it made its newest. Columns:
        trials, at_once (the most), busy (hours of all its trials), gpu (GPU hours), idle (the share of its time,
        at_once times over, in which it had no trial).
        """
        reports, spans = (
            self.results.reports,
            pd.DataFrame(self.history.spans, columns=["trial", "began", "ended"]),
        )
        node = (
            reports.dropna(subset="node")
            .drop_duplicates("trial", keep="last")
            .set_index("trial")["node"]
        )
        end, spans["node"] = (
            spans["ended"].max(),
            spans["trial"].map(node).astype("string").fillna("not known"),
        )
        rows = {}
        for name, group in spans.groupby("node"):
            at_once, hours = (
                _most_at_once(group),
                float((group["ended"] - group["began"]).sum()) / 3600,
            )
            room = at_once * (end - spans["began"].min()) / 3600
            idle = max(1 - hours / room, 0.0) if room else 0.0
            rows[str(name)] = (
                group["trial"].nunique(),
                at_once,
                hours,
                hours * self.space.resources.gpu,
                idle,
            )
        return pd.DataFrame.from_dict(
            rows, orient="index", columns=["trials", "at_once", "busy", "gpu", "idle"]
        )


def _most_at_once(spans: pd.DataFrame) -> int:
    changes = sorted(
        [*((time, 1) for time in spans["began"]), *((time, -1) for time in spans["ended"])]
    )
    return int(pd.Series([change for _, change in changes]).cumsum().max())


def read_runs(folders: Sequence[Path], fetch: bool = False) -> list[Run]:
    """Reads run folders that are judged by the same metric; with `fetch` also what lies at a URL.

    Raises:
        ConfigError: with what is wrong with any of them.
    """
    runs, problems = [], list[str]()
    try:
        check_distinct(folders)
    except ConfigError as error:
        problems += [str(error)]
    for number, (name, folder) in enumerate(zip(_names(folders), folders, strict=True)):
        try:
            runs.append(_read_run(number, name, folder, fetch))
        except ConfigError as error:
            problems += [str(error)]
    judged = {run.name: f"{run.results.goal} {run.metric}" for run in runs}
    if len({*judged.values()}) > 1:
        each = ", ".join(f"{name}: {how}" for name, how in judged.items())
        problems.append(
            f"runs side by side must be judged by the same metric, but these are not: {each}"
        )
    if problems:
        raise ConfigError(problems)
    return runs


def _names(folders: Sequence[Path]) -> Iterator[str]:
    """The names of the folders; where these are not different, the paths."""
    names = [Path(os.path.abspath(folder)).name for folder in folders]
    yield from map(printable, names if len({*names}) == len(names) else map(str, folders))


def _read_run(number: int, name: str, folder: Path, fetch: bool) -> Run:
    results = load(folder)
    history = results.history()
    return Run(number, name, results, history, results.space(), _beside(folder, history), fetch)


def _beside(folder: Path, history: History) -> Results | None:
    """The replicates of a search in the run folders beside its own: their log names it, or they bear its name.

    The second is for folders that were moved. Replicates by another metric or of another corpus are not the search's.
    """
    found = []
    for log in sorted(folder.absolute().parent.glob(f"*/{EVENTS}")):
        try:
            other = first_event(log.parent)
        except ConfigError:
            continue
        is_named = log.parent.name.startswith(f"{folder.absolute().name}{REPLICATES}")
        is_of = str(other.get("replicates_of")) in (str(folder.absolute()), str(folder.resolve()))
        replicate = History([other])
        is_alike = all(replicate.search[key] == history.search[key] for key in ("metric", "goal"))
        is_alike = is_alike and replicate.fingerprint == history.fingerprint
        if "replicates_of" in other and (is_of or is_named) and is_alike:
            found.append(log.parent)
    if not found:
        return None
    try:
        return load(found[0]) if len(found) == 1 else load_many(found)
    except ConfigError:  # a damaged neighbour is no problem of this run
        return None
