"""Prints the tables of a search: the ranking, the failures by cause, where the time went."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from s2s_search.display.console import Console
from s2s_search.errors import command, quantity
from s2s_search.results.replicates import replicates
from s2s_search.results.results import Results
from s2s_search.runs.failures import Failure, grouped
from s2s_search.statuses import TIME_IS_OVER

# Columns of the ranking. It begins with the trial, the best value of the search's metric and these.
ENDING = ("status", "best.step")
# These follow the searched hyperparameters. A narrow terminal does not show them.
MORE = ("last.{metric}", "best.dev.error_rate", "best.dev.word_error_rate", "seconds")
TRIALS_LISTED = 6  # the number of failed trials that are named for a cause


def print_ranking(table: Results, top: int | None, sort: str | None = None) -> None:
    """Prints the `top` best trials; None: all trials.

    First come the trial, its best value and how it ended, then a column for each searched
    hyperparameter. In a narrow terminal the hyperparameters share one column.
    """
    ranked = table.best(top, sort)
    title = f"{table.name}: {quantity(len(table.trials), 'trial')}, {table.status}"
    sorted_by = [f"best.{sort}" if f"best.{sort}" in ranked else sort] if sort else []

    def known(columns: Sequence[str]) -> list[str]:
        return [column for column in dict.fromkeys(columns) if column in ranked]

    narrow = known(["trial", *sorted_by, f"best.{table.metric}", *ENDING])
    more = [column.format(metric=table.metric) for column in MORE]
    every = known([*narrow, *table.searched, *more])
    wide = grid(title, every, cells(ranked, every))
    console, width = Console(), Console(width=1000).measure(wide).maximum
    if width <= console.width or not console.is_terminal:
        Console(width=width).print(wide)
        return
    rows = cells(ranked, narrow)
    for row, values in zip(rows, cells(ranked, table.searched), strict=True):
        pairs = zip(table.searched, values, strict=True)
        row.append("\n".join(f"{key} {value}" for key, value in pairs if value != "-"))
    console.print(grid(title, [*narrow, "searched"], rows))


def print_pareto(table: Results) -> None:
    """Prints the Pareto front, if there are several objectives."""
    if len(table.objectives) > 1:
        names = []
        for name, _ in table.objectives:
            names.append(f"best.{name}" if f"best.{name}" in table.trials else name)
        front = table.pareto().sort_values(names[0])
        columns = ["trial", *names, *table.searched]
        Console(width=1000).print(grid("Pareto front", columns, cells(front, columns)))


def print_replicates(table: Results) -> None:
    """Prints the means of configurations over their seeds, if one ran with several seeds."""
    groups = replicates(table)
    if (groups["trials"] > 1).any():
        Console(width=1000).print(grid(over_seeds(table.metric), *replicate_rows(table, groups)))


def over_seeds(metric: str) -> str:
    return f"{metric} over seeds, with the 95 % interval of the mean; n: finished trials"


def replicate_rows(table: Results, groups: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Returns the columns and the cells of configurations over their seeds.

    The columns contain those settings that differ between configurations; if none does, all.
    A configuration without a finished trial has no mean.
    """
    settings = [key for key in table.searched if key in groups]
    differing = [key for key in settings if groups[key].nunique(dropna=False) > 1]
    columns = [
        "mean",
        "std",
        "low",
        "high",
        "n",
        "trials",
        "best",
        "seed",
        "trial",
        *(differing or settings),
    ]
    return columns, cells(groups, columns)


def failures(table: Results) -> list[Failure]:
    """Returns the failed trials by cause, the largest group first."""
    rows = []
    for record in table.trials.to_dict("records"):
        row = {}
        for key, value in record.items():
            row[str(key)] = None if pd.isna(value) else value
        rows.append(row)
    return grouped(rows, table.searched)


def print_failures(table: Results, folder: Path) -> None:
    """Prints the failed trials by cause, what they have in common, and how to debug one of them."""
    for failure in failures(table):
        count = quantity(len(failure.trials), "trial")
        print(f"{failure.status.replace('_', ' ')}, {count}: {failure.message}")
        if failure.shared:
            shared = ", ".join(f"{key} = {value}" for key, value in failure.shared.items())
            print(f"  only these trials have {shared}")
        print(f"  {trial_list(failure)}")
        number = int(failure.trials[0].removeprefix("trial-"))
        print(f"  to debug it: {command('debug', '--run', folder, '--trial', number)}")


def print_out_of_time(table: Results) -> None:
    """Prints the trials that were stopped because they had used up search.trial_hours."""
    messages = table.trials["message"].fillna("")
    over = table.trials[messages.str.startswith(TIME_IS_OVER)]
    if len(over):
        count = f"{len(over)} trials" if len(over) > 1 else "1 trial"
        print(f"stopped, {count}: {over['message'].iloc[0]}")
        print(f"  {listed(over['trial'].tolist())}")


def trial_list(failure: Failure) -> str:
    """Returns the names of the first failed trials."""
    return listed(failure.trials)


def listed(trials: Sequence[str]) -> str:
    """Returns the first of some names."""
    names = ", ".join(trials[:TRIALS_LISTED])
    if len(trials) > TRIALS_LISTED:
        names += ", ..."
    return names


def print_times(table: Results) -> None:
    """Prints where the workers' time went since the first step, and what the driver took."""
    parts = table.worker_seconds()
    tail = parts.pop("tail")
    total = sum(parts.values())
    if total > 0:
        shares = ", ".join(f"{part} {seconds / total:.1%}" for part, seconds in parts.items())
        said = f"where {total:.0f} worker seconds went: {shares}"
        if table.status == "finished":  # otherwise there are trials left to start
            said += f"; then {tail:.0f} idle, with no trial left to start"
        print(said)
    driver = table.driver
    if driver:
        cost = f"{driver['processor_seconds']:.1f} s of processor time in {driver['seconds']:.0f} s"
        print(f"the driver: {cost}, for {quantity(round(driver['reports']), 'report')}")


def grid(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Returns a table for a terminal. The parts of a dotted heading stand below each other."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")
    for column in columns:
        heading = column.replace(".", ".\n")
        table.add_column(heading, no_wrap=column != "searched", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))  # as Text, so that rich takes no label for markup
    return table


def cells(table: pd.DataFrame, columns: Sequence[str]) -> list[list[str]]:
    """Returns the rows of some columns as text."""
    rows = table[list(columns)].itertuples(index=False)
    return [[cell(value) for value in row] for row in rows]


def cell(value: object) -> str:
    """Returns a value as tables print it: with four digits, as "-" if missing, as "" if empty."""
    if pd.isna(value):  # type: ignore[call-overload]
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value) or '""'
