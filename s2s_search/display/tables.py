"""How the tables of a search are printed: the ranking, the failures by cause, where the time went."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from s2s_search.errors import command
from s2s_search.results.replicates import replicates
from s2s_search.results.results import Results
from s2s_search.runs.failures import Failure, grouped

# Columns of the ranking; the search's metric at its best follows the first, the searched hyperparameters the last.
RANKING = (
    "trial",
    "status",
    "best.step",
    "last.{metric}",
    "best.dev.error_rate",
    "best.dev.word_error_rate",
    "seconds",
)
NARROW = 3  # of these where the terminal is narrow


def print_ranking(table: Results, top: int | None, sort: str | None = None) -> None:
    """Prints the best trials: a column for each searched hyperparameter, or all in one where the terminal is narrow."""
    ranked = table.best(top, sort)
    title = f"{table.name}: {len(table.trials)} trials, {table.status}"
    sorted_by = [f"best.{sort}" if f"best.{sort}" in ranked else sort] if sort else []

    def columns(count: int) -> list[str]:
        named = [column.format(metric=table.metric) for column in RANKING[1:count]]
        wanted = dict.fromkeys([RANKING[0], *sorted_by, f"best.{table.metric}", *named])
        return [column for column in wanted if column in ranked]

    def cells(names: Sequence[str]) -> list[list[str]]:
        return [
            [cell(value) for value in row] for row in ranked[list(names)].itertuples(index=False)
        ]

    every = list(dict.fromkeys([*columns(len(RANKING)), *table.searched]))
    wide = grid(title, every, cells(every))
    console, width = Console(), Console(width=1000).measure(wide).maximum
    if width <= console.width or not console.is_terminal:
        Console(width=width).print(wide)
        return
    active = ["\n".join(f"{key} {value}" for key, value in zip(table.searched, row, strict=True) if value != "-")
              for row in cells(table.searched)]  # fmt: skip
    rows = [[*row, text] for row, text in zip(cells(columns(NARROW)), active, strict=True)]
    console.print(grid(title, [*columns(NARROW), "searched"], rows))


def print_pareto(table: Results) -> None:
    """Prints the Pareto front, where there are several objectives."""
    if len(table.objectives) > 1:
        names = [
            f"best.{name}" if f"best.{name}" in table.trials else name
            for name, _ in table.objectives
        ]
        front = table.pareto().sort_values(names[0])
        columns = ["trial", *names, *table.searched]
        rows = [[cell(value) for value in row] for row in front[columns].itertuples(index=False)]
        Console(width=1000).print(grid("Pareto front", columns, rows))


def print_replicates(table: Results) -> None:
    """Prints what configurations come to over their seeds, where one ran with several."""
    groups = replicates(table)
    if (groups["trials"] > 1).any():
        Console(width=1000).print(grid(over_seeds(table.metric), *replicate_rows(table, groups)))


def over_seeds(metric: str) -> str:
    return f"{metric} over seeds, with the 95 % interval of its mean; n of the trials finished"


def replicate_rows(table: Results, groups: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """The columns and cells of configurations over their seeds; of their settings what differs.

    A configuration without a trial that finished has no mean.
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
    return columns, [
        [cell(value) for value in row] for row in groups[columns].itertuples(index=False)
    ]


def failures(table: Results) -> list[Failure]:
    """The trials that failed, by cause, the largest group first."""
    rows = [
        {str(key): value for key, value in row.items()} for row in table.trials.to_dict("records")
    ]
    cells = [{key: None if pd.isna(value) else value for key, value in row.items()} for row in rows]
    return grouped(cells, table.searched)


def print_failures(table: Results, folder: Path) -> None:
    """Prints the trials that failed, by cause, with what they have in common and how to run one again."""
    for failure in failures(table):
        count = f"{len(failure.trials)} trials" if len(failure.trials) > 1 else "1 trial"
        print(f"{failure.status.replace('_', ' ')}, {count}: {failure.message}")
        if failure.shared:
            print(
                "  only they have "
                + ", ".join(f"{key} = {value}" for key, value in failure.shared.items())
            )
        print(f"  {', '.join(failure.trials[:6])}{', ...' if len(failure.trials) > 6 else ''}")
        number = int(failure.trials[0].removeprefix("trial-"))
        print(f"  to see it: {command('debug', '--run', folder, '--trial', number)}")


def print_times(table: Results) -> None:
    """Prints where the workers' time went from the first step on, and what the search cost its driver."""
    parts = table.worker_seconds()
    tail = parts.pop("tail")
    total = sum(parts.values())
    if total > 0:
        shares = ", ".join(f"{part} {seconds / total:.1%}" for part, seconds in parts.items())
        print(
            f"where {total:.0f} worker seconds went: {shares}; then {tail:.0f} with no trial left to start"
        )
    if driver := table.driver:
        cost = f"{driver['processor_seconds']:.1f} s of processor time in {driver['seconds']:.0f} s"
        print(f"the driver: {cost}, for {driver['reports']:.0f} reports")


def grid(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")
    for column in columns:
        heading = column.replace(".", ".\n")  # narrow: a part of the name a line
        table.add_column(heading, no_wrap=column != "searched", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))  # a label is no markup
    return table


def cell(value: object) -> str:
    if pd.isna(value):  # type: ignore[call-overload]
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value) or '""'
