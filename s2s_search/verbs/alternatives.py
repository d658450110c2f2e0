"""Verbs that ask what other settings would have given, without training again: replay."""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s2s_search.verbs.arguments import AddVerb, counted, positive, print_json

if TYPE_CHECKING:
    import pandas as pd

    from s2s_search.replay import Record

AT_LEAST = ("worker_seconds", "share", "wall_seconds", "steps")  # so much, where trials are cut
SCHEDULERS = ("asha", "hyperband", "median", "pbt", "none")


def add_verbs(verb: AddVerb) -> None:
    sub = verb("replay", replay, "say what a search would have come to under another scheduler, from its curves")
    sub.add_argument("folder", type=Path, metavar="DIR")
    sub.add_argument("--scheduler", type=several(scheduler), metavar="S", help="asha, median, hyperband, none")
    sub.add_argument("--reduction-factor", type=several(positive), metavar="R", help="of asha and hyperband")
    sub.add_argument("--grace-steps", type=several(counted(1)), metavar="N", help="of asha and median")
    sub.add_argument("--max-steps", type=several(counted(1)), metavar="N", help="steps that a trial may make")
    sub.add_argument("--grid", action="store_true", help="what is not given takes several values")
    sub.add_argument("--workers", type=counted(1), metavar="W", help="trials at once (default: as many as there were)")
    sub.add_argument("--orders", type=counted(1), default=1, metavar="N", help="mean over N orders of the trials")
    sub.add_argument("--json", action="store_true", help="one JSON object a line")
    sub.epilog = "Each may be several values with commas: all combinations are replayed."


class several:
    """An argument that is one or more values with commas between them."""

    def __init__(self, kind: Callable[[str], Any]) -> None:
        self.kind = kind

    def __call__(self, text: str) -> list[Any]:
        return [self.kind(part.strip()) for part in text.split(",")]


def scheduler(text: str) -> str:
    from s2s_search.table import nearest

    if text not in SCHEDULERS:
        raise argparse.ArgumentTypeError(f"unknown scheduler {text!r}{nearest(text, SCHEDULERS)}")
    return text


def replay(args: argparse.Namespace) -> int:
    from s2s_search import replay

    record = replay.load_record(args.folder)
    asked = {"name": args.scheduler} | {key: getattr(args, key) for key in replay.SETTINGS["asha"] + ("max_steps",)}
    schedulers = replay.settings(record, {key: values for key, values in asked.items() if values}, args.grid)
    table = replay.table(record, schedulers, args.workers or record.workers, args.orders)
    if args.json:
        for row in table.astype(object).where(table.notna(), None).to_dict("records"):
            print_json({str(column): value for column, value in row.items()})
        return 0
    print_replays(record, table, args.orders)
    return 0


def print_replays(record: "Record", table: "pd.DataFrame", orders: int) -> None:
    from rich.console import Console

    from s2s_search.ranking import grid

    constant = [column for column in ("max_steps", "workers") if table[column].nunique() == 1]
    shown = table.drop(columns=["best", "front", *constant])
    rows = [
        ["*" if front else "", *(replay_cell(str(key), value, row["unknown"] == 0) for key, value in row.items())]
        for front, (_, row) in zip(table["front"], shown.iterrows(), strict=True)
    ]
    mean = f", means over {orders} orders" if orders > 1 else ""
    title = f"{record.space.name}: {len(record.curves)} trials replayed on {table['workers'][0]} workers{mean}"
    Console(width=1000).print(grid(title, ["", *map(str, shown)], rows))
    print("\n".join(remarks(record, table)))


def replay_cell(column: str, value: Any, is_known: bool) -> str:
    from s2s_search.ranking import cell

    if column in ("share", "found"):
        text = f"{value:.0%}"
    else:
        text = f"{value:,.0f}" if isinstance(value, float) and value >= 1000 else cell(value)
    if not is_known and column in AT_LEAST:
        return f"≥ {text}"
    return text if is_known or column not in ("regret", "found") else "?"


def remarks(record: "Record", table: "pd.DataFrame") -> Iterator[str]:
    """What it takes to read the table."""
    from s2s_search.replay import made_again

    value, winner = record.best
    yield f"the record: {record.seconds:.0f} worker seconds; best {record.space.metric.name} {value:.4g}, of {winner}"
    if table["front"].any():
        yield "* no other row is as cheap with as little regret"
    same, of = made_again(record)
    if of:
        yield f"check: {same} of {of} decisions of the search come out the same when its own log is replayed in order"
    if (table["unknown"] > 0).any():
        yield (
            "≥ and ?: so many unknown trials would have gone on beyond their record, which the search itself had cut, "
            "and what they would have found nobody knows; a search with scheduler none leaves nothing unknown"
        )
    if record.space.search.method == "tpe":
        yield "tpe learned from these results: under another scheduler it would have proposed other trials"
