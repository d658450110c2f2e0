"""Run folders as a report reads them: a search's tables, its space, and what follows from both."""

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
from s2s_search.report.axes import Axis, axes
from s2s_search.report.boundaries import Boundary, boundaries
from s2s_search.report.promises import Promise, promises
from s2s_search.results.beside import beside
from s2s_search.results.expected import expected_best
from s2s_search.results.importance import Reversal, importance, possible_reversals
from s2s_search.results.isolation import CHANCE
from s2s_search.results.many import check_distinct, other_examples
from s2s_search.results.replicates import configurations, replicates
from s2s_search.results.results import Results, load
from s2s_search.results.scores import Scores, comparable
from s2s_search.runs.log import first_event
from s2s_search.runs.state import AUDIT, History
from s2s_search.spaces.space import Space


@dataclass(frozen=True, eq=False)
class ReportedRun:
    """A run folder; `number` is its place among the run folders of the report."""

    number: int
    name: str
    results: Results
    history: History
    space: Space
    beside: Results | None = None  # the search's replicates, from the run folders beside its own
    fetch: bool = False  # also read what the search saved at a URL

    @property
    def metric(self) -> str:
        return self.results.metric

    @property
    def score(self) -> str:
        """Returns the name of the column that ranks the trials."""
        return f"best.{self.metric}"

    @property
    def minimizes(self) -> bool:
        return self.results.minimizes(self.metric)

    @cached_property
    def ranked(self) -> pd.DataFrame:
        """Returns all trials, best first."""
        return self.results.best(None)

    @cached_property
    def scored(self) -> pd.DataFrame:
        """Returns the trials that have a best report, best first."""
        return self.ranked[self.ranked[self.score].notna()]

    @cached_property
    def configurations(self) -> tuple[int, int]:
        """Returns the number of configurations that can be compared, and the number of all."""
        every = configurations(self.results)
        return every[self.scores.judged.notna()].nunique(), every.nunique()

    @cached_property
    def scores(self) -> Scores:
        """Returns the scores of the trials that can be compared."""
        return comparable(self.results)

    @cached_property
    def has_grown(self) -> bool:
        """Returns whether the search was resumed with more trials than it began with."""
        if self.results.log is None:
            return False
        began = first_event(self.results.folder).get("trials") or 0
        return bool(self.history.search["trials"] > began > 0)

    @property
    def seeds(self) -> Results:
        """Returns the run with several seeds per configuration.

        That is the search's replicates, where there are any, else the search itself.
        """
        return self.beside or self.results

    @cached_property
    def replicates(self) -> pd.DataFrame:
        """Returns the configurations over their seeds, best first; empty if none has several."""
        groups = replicates(self.seeds)
        return groups if (groups["trials"] > 1).any() else groups.head(0)

    @cached_property
    def axes(self) -> list[Axis]:
        return axes(self.results, self.space, self.scores)

    @cached_property
    def promises(self) -> list[Promise]:
        return promises(self.history, self.space)

    @cached_property
    def boundaries(self) -> list[Boundary]:
        return boundaries(self.axes)

    @cached_property
    def importance(self) -> pd.DataFrame:
        return importance(self.results, scores=self.scores)

    @cached_property
    def possible_reversals(self) -> list[Reversal]:
        return possible_reversals(self.results, self.scores)

    @property
    def reversals(self) -> list[Reversal]:
        return [found for found in self.possible_reversals if found.p <= CHANCE]

    def configurations_with(self, key: str) -> int:
        """Returns the number of configurations that can be compared in which a key takes part."""
        takes_part = self.results.takes_part(key) & self.scores.judged.notna()
        return configurations(self.results)[takes_part].nunique()

    @cached_property
    def audits(self) -> Results | None:
        """Returns the stopped trials that were trained to the end, from folders beside the run."""
        return beside(self.results.folder, self.history, AUDIT)

    @cached_property
    def expected(self) -> pd.DataFrame:
        """Returns what smaller searches would have found; empty where that cannot be said."""
        found = expected_best(self.results)
        is_known = self.space.learner is None and self.space.scheduler.name != "pbt"
        return found if is_known and not self.space.first else found.head(0)

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Returns the row number in the trials table of each trial, by its name."""
        return {trial: number for number, trial in enumerate(self.results.trials["trial"])}

    def settings(self, row: "pd.Series[Any]") -> dict[str, str]:
        """Returns the searched hyperparameters that take part in a trial, as tables print them."""
        known = self.history.trials[row["trial"]].settings
        found = {}
        for key in self.results.searched:
            if known.get(key, row[key]) is None:  # a null, which the tables do not tell from NA
                found[key] = "null"
            elif not pd.isna(row[key]):
                found[key] = cell(row[key])
        return found

    def leads(self, in_gpu_hours: bool = False) -> pd.DataFrame:
        """Returns a row for each improvement of the best value, and one for the end.

        Columns: number (the trial's), elapsed (seconds), cost (training of all workers so far, in
        seconds or in GPU hours), best.
        """
        reports = self.results.reports
        spent = reports.groupby("trial")["seconds"].diff().fillna(reports["seconds"]).fillna(0.0)
        cost = spent.clip(lower=0.0).cumsum()
        if in_gpu_hours:
            cost = cost * (self.space.resources.gpu / 3600)
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
        """Returns each rung's step, the number of trials compared there, and of those stopped."""
        came, stopped = Counter[float](), Counter[float]()
        for trial in self.history.trials.values():
            for event in trial.decisions:
                if event.get("rung") is not None:
                    came[event["rung"]] += 1
                    stopped[event["rung"]] += event["action"] == "stop"
        return [(rung, came[rung], stopped[rung]) for rung in sorted(came)]

    def nodes(self) -> pd.DataFrame:
        """Returns how busy each node was, from the start of the first trial to the end of the last.

        Index: the node of a trial's newest report, or "not known" for trials without a report.
        Columns: trials; at_once (the most trials at once); busy (hours of all its trials); gpu (GPU
        hours); idle (the share of its time, times at_once, in which it had no trial).
        """
        spans = pd.DataFrame(self.history.spans, columns=["trial", "began", "ended"])
        reports = self.results.reports.dropna(subset="node")
        node = reports.drop_duplicates("trial", keep="last").set_index("trial")["node"]
        spans["node"] = spans["trial"].map(node).astype("string").fillna("not known")
        length = spans["ended"].max() - spans["began"].min()
        rows = {}
        for name, group in spans.groupby("node"):
            at_once = _most_at_once(group)
            hours = float((group["ended"] - group["began"]).sum()) / 3600
            room = at_once * length / 3600
            idle = max(1 - hours / room, 0.0) if room else 0.0
            gpu = hours * self.space.resources.gpu
            rows[str(name)] = (group["trial"].nunique(), at_once, hours, gpu, idle)
        columns = ["trials", "at_once", "busy", "gpu", "idle"]
        return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def _most_at_once(spans: pd.DataFrame) -> int:
    """Returns the largest number of spans that overlap. A span may begin where another ends."""
    changes = [(time, 1) for time in spans["began"]]
    changes += [(time, -1) for time in spans["ended"]]
    running = most = 0
    for _, change in sorted(changes):
        running += change
        most = max(most, running)
    return most


def read_runs(folders: Sequence[Path], fetch: bool = False) -> list[ReportedRun]:
    """Reads run folders, whose searches must have the same metric and the same dev examples.

    fetch: also read what the searches saved at a URL.

    Raises:
        ConfigError: all problems of all folders.
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
    elif runs:
        problems += other_examples([run.results for run in runs])
    if problems:
        raise ConfigError(problems)
    return runs


def _names(folders: Sequence[Path]) -> Iterator[str]:
    """Yields the names of the folders, or their paths if two names are the same."""
    names = [Path(os.path.abspath(folder)).name for folder in folders]
    if len(set(names)) < len(names):
        names = [str(folder) for folder in folders]
    yield from map(printable, names)


def _read_run(number: int, name: str, folder: Path, fetch: bool) -> ReportedRun:
    results = load(folder)
    history = results.history()
    return ReportedRun(
        number, name, results, history, results.space(), beside(folder, history), fetch
    )
