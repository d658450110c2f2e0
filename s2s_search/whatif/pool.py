"""A pool of recorded trials: whole curves, of which a simulated search sees what it pays for."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from s2s_search.errors import ConfigError
from s2s_search.metrics import LOSS, SECONDS
from s2s_search.runs.folder import EVENTS, REPORTS, SPACE, TRIALS
from s2s_search.spaces.dimensions import Flat
from s2s_search.spaces.load import load_space
from s2s_search.spaces.space import Space
from s2s_search.whatif.curves import Record, load_record

FEWEST = 8  # trials of a pool
TARGETS = (BEST, HUNDREDTH) = ("best", "hundredth")
TOO_FEW = f"a league needs at least {FEWEST} trials that reported at all of the same steps"


@dataclass(frozen=True)
class Pool:
    """The trials of a search that trained to their ends or diverged.

    `values`, `losses` and `seconds` have a row for each trial and a column for each of `steps`.
    After a divergence a trial has the worst value of its metric. A loss is NaN where it is not
    known.
    """

    space: Space
    configs: tuple[Flat, ...]
    steps: tuple[int, ...]
    values: NDArray[np.float64]
    losses: NDArray[np.float64]
    seconds: NDArray[np.float64]

    @property
    def best(self) -> float:
        return float(self.values.min() if self.minimizes else self.values.max())

    @property
    def minimizes(self) -> bool:
        return self.space.metric.goal == "minimize"

    def target(self, which: str) -> float:
        """Returns the best value, or the worst one among the best hundredth of the trials."""
        if which == BEST:
            return self.best
        ends = np.sort(self.values.min(axis=1) if self.minimizes else -self.values.max(axis=1))
        value = float(ends[math.ceil(len(ends) / 100) - 1])
        return value if self.minimizes else -value

    def ordered(self, rows: Sequence[int]) -> "Pool":
        """Returns the pool of some of the trials, in that order."""
        configs = tuple(self.configs[row] for row in rows)
        tables = {name: getattr(self, name)[list(rows)] for name in ("values", "losses", "seconds")}
        return replace(self, configs=configs, **tables)


def pool_of(record: Record) -> Pool:
    """Returns the whole curves of a search.

    Raises:
        ConfigError: the search has too few of them.
    """
    history = record.history
    steps = tuple(record.steps)
    configs, values, losses, seconds = [], [], [], []
    for curve in record.curves:
        trial = history.trials[curve.trial]
        known = {point.step: point for point in curve.reports}
        if trial.status not in ("finished", "diverged") or not known:
            continue
        if trial.status == "finished" and set(known) != set(steps):
            continue
        last = max(known)
        points = [known.get(step, known[last]) for step in steps]
        worst = record.space.metric.worst
        configs.append(trial.config)
        values.append(
            [
                worst if point.value is None or point.status == "diverged" else point.value
                for point in points
            ]
        )
        losses.append([math.nan if point.loss is None else point.loss for point in points])
        seconds.append([point.seconds for point in points])
    if len(configs) < FEWEST:
        hint = "record them with scheduler: {name: none} and without train.patience"
        raise ConfigError(f"--league: {TOO_FEW}, and there are {len(configs)}; {hint}")
    tables = [np.array(table, float) for table in (values, losses, seconds)]
    return Pool(record.space, tuple(configs), steps, *tables)


def load_pool(folder: Path) -> Pool:
    """Returns the pool of a run folder, or of a folder of recorded curves.

    The latter has no log. It has the space (space.yaml), the configuration of each trial as JSON
    (trials.parquet), and the reports (reports.parquet).

    Raises:
        ConfigError: the folder is neither, or has too few whole curves.
    """
    tables = [folder / name for name in (SPACE, TRIALS, REPORTS)]
    if (folder / EVENTS).exists() or not all(path.exists() for path in tables):
        return pool_of(load_record(folder))
    space = load_space(tables[0], files=False)
    trials, reports = (pd.read_parquet(path) for path in tables[1:])
    metric, worst = space.metric.name, space.metric.worst
    values = reports.pivot_table(index="trial", columns="step", values=metric, sort=True)
    broken = reports[reports["status"] == "diverged"].groupby("trial")["step"].min()
    for trial, step in broken.items():
        values.loc[trial, values.columns >= step] = worst
    whole = values[values.notna().all(axis=1)].index
    if len(whole) < FEWEST:
        raise ConfigError(f"{TOO_FEW}, and there are {len(whole)}", str(folder))
    losses = reports.pivot_table(index="trial", columns="step", values=LOSS.name, dropna=False)
    losses = losses.reindex(index=values.index, columns=values.columns)
    spent = reports.pivot_table(index="trial", columns="step", values=SECONDS.name, sort=True)
    seconds = spent.ffill(axis=1).diff(axis=1).fillna(spent.iloc[:, :1]).clip(lower=0)
    by_trial = trials.set_index("trial")["config"]
    return Pool(
        space,
        tuple(json.loads(by_trial[trial]) for trial in whole),
        tuple(int(step) for step in values.columns),
        values.loc[whole].to_numpy(float),
        losses.loc[whole].to_numpy(float),
        seconds.loc[whole].to_numpy(float),
    )
