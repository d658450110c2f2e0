"""Verbs that ask what other settings would have given, without training again: replay · tune-decoding."""

import argparse
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s2s_search.cli.arguments import (
    AddVerb,
    add_cluster_argument,
    add_corpus_argument,
    add_fetch_argument,
    counted,
    moved_corpus,
    print_rows,
)
from s2s_search.errors import ConfigError
from s2s_search.hparams.arguments import Argument
from s2s_search.hparams.table import TABLE
from s2s_search.hparams.values import convert
from s2s_search.spaces.yaml_file import SECTIONS

if TYPE_CHECKING:
    import pandas as pd

    from s2s_search.whatif.curves import Record

WIDTH, PENALTY = "inference.beam_search.beam_width", "inference.beam_search.length_penalty_weight"
DECODED = (
    ("--beams", WIDTH, "1,2,4,8", "beam widths"),
    ("--penalties", PENALTY, "0,0.5,1", "length penalties"),
)
DECODING = "decoding.csv"
AT_LEAST = ("worker_seconds", "share", "wall_seconds", "steps")  # so much, where trials are cut
REPLAYED = (
    ("--scheduler", "name", "asha, median, hyperband, none"),
    ("--reduction-factor", "reduction_factor", "of asha and hyperband"),
    ("--grace-steps", "grace_steps", "of asha and median"),
    ("--max-steps", "max_steps", "that a trial may make"),
)


def add_verbs(verb: AddVerb) -> None:
    sub = verb(
        "replay",
        replay,
        "say what a search would have come to under another scheduler, from its curves",
    )
    sub.add_argument("folder", type=Path, metavar="DIR")
    known = {argument.name: argument for argument in SECTIONS["scheduler"]}
    for flag, key, what in REPLAYED:
        sub.add_argument(
            flag, dest=key, type=several(known[key]), metavar=flag[2].upper(), help=what
        )
    sub.add_argument("--grid", action="store_true", help="what is not given takes several values")
    sub.add_argument(
        "--workers",
        type=counted(1),
        metavar="W",
        help="trials at once (default: as many as there were)",
    )
    sub.add_argument(
        "--orders", type=counted(1), default=1, metavar="N", help="mean over N orders of the trials"
    )
    sub.add_argument("--json", action="store_true", help="one JSON object a line")
    sub.epilog = "Each may be several values with commas: all combinations are replayed."

    sub = verb(
        "tune-decoding",
        tune_decoding,
        "compare beam widths and length penalties on the best checkpoints",
    )
    sub.add_argument("folder", type=Path, metavar="DIR")
    sub.add_argument(
        "--top", type=counted(1), default=1, metavar="K", help="of the K best trials (default: 1)"
    )
    for flag, key, default, what in DECODED:
        text = f"{what} with commas (default: {default})"
        sub.add_argument(
            flag, type=several(TABLE[key]), default=default, metavar=flag[2].upper(), help=text
        )
    sub.add_argument(
        "--examples", type=counted(2), default=0, metavar="N", help="decode N dev sources, not all"
    )
    sub.add_argument("--json", action="store_true", help="one JSON object a line")
    add_cluster_argument(sub)
    add_corpus_argument(sub)
    add_fetch_argument(sub)


class several:
    """An argument of the command line that is one or more values with commas between them."""

    def __init__(self, declared: Argument) -> None:
        self.declared = declared

    def __call__(self, text: str) -> list[Any]:
        try:
            return [convert(self.declared, part.strip()) for part in text.split(",")]
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None


def replay(args: argparse.Namespace) -> int:
    from s2s_search.whatif import replay
    from s2s_search.whatif.curves import load_record

    record = load_record(args.folder)
    asked = {key: values for _, key, _ in REPLAYED if (values := getattr(args, key))}
    schedulers = replay.settings(record, asked, args.grid)
    table = replay.table(record, schedulers, args.workers or record.workers, args.orders)
    if args.json:
        print_rows(table)
    else:
        print_replays(record, table, args.orders)
    return 0


def print_replays(record: "Record", table: "pd.DataFrame", orders: int) -> None:
    from rich.console import Console

    from s2s_search.display.tables import grid

    idle = [column for column in ("max_steps", "workers") if table[column].nunique() == 1]
    shown = table.drop(columns=["best", "front", *idle])
    rows = [
        [
            "*" if front else "",
            *(replay_cell(str(key), value, row["unknown"] == 0) for key, value in row.items()),
        ]
        for front, (_, row) in zip(table["front"], shown.iterrows(), strict=True)
    ]
    mean = f", means over {orders} orders" if orders > 1 else ""
    title = f"{record.space.name}: {len(record.curves)} trials replayed on {table['workers'][0]} workers{mean}"
    Console(width=1000).print(grid(title, ["", *map(str, shown)], rows))
    print("\n".join(remarks(record, table)))


def replay_cell(column: str, value: Any, is_known: bool) -> str:
    from s2s_search.display.tables import cell

    if column in ("share", "found"):
        text = f"{value:.0%}"
    else:
        text = f"{value:,.0f}" if isinstance(value, float) and value >= 1000 else cell(value)
    if not is_known and column in AT_LEAST:
        return f"≥ {text}"
    return text if is_known or column not in ("regret", "found") else "?"


def remarks(record: "Record", table: "pd.DataFrame") -> Iterator[str]:
    """What it takes to read the table."""
    from s2s_search.whatif.replay import made_again

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


def tune_decoding(args: argparse.Namespace) -> int:
    from s2s_search.runs.folder import check_writable, replace
    from s2s_search.tuning import cluster
    from s2s_search.whatif import tune_decoding

    settings = tune_decoding.grid(
        tune_decoding.best_checkpoints(args.folder, args.top, args.fetch),
        args.beams,
        args.penalties,
    )
    dev = tune_decoding.load_dev(args.folder, args.examples, moved_corpus(args))
    check_writable(args.folder / DECODING)
    decoded: dict[int, tune_decoding.Decoded] = {}
    for position, result in cluster.each(
        tune_decoding.decode, dev, settings, dev.resources, args.address
    ):
        decoded[position] = result
        print(f"{len(decoded)} of {len(settings)}: {settings[position]}", file=sys.stderr)
    table = tune_decoding.table(settings, [decoded[position] for position in range(len(settings))])
    if args.json:
        print_rows(table)
    else:
        print_decoding(args.folder, table, len(decoded[0].edits.errors))
    try:  # last: a disk that has become full takes no number from the reader
        replace(args.folder / DECODING, lambda path: table.to_csv(path, index=False))
    except OSError as error:
        raise ConfigError(
            f"cannot be written: {error.strerror}", str(args.folder / DECODING)
        ) from None
    if not args.json:
        print(f"all: {args.folder / DECODING}")
    return 0


def print_decoding(folder: Path, table: "pd.DataFrame", sources: int) -> None:
    from rich.console import Console

    from s2s_search.display.tables import cell, grid

    columns = [
        "trial",
        "beam_width",
        "length_penalty_weight",
        "dev.error_rate",
        "dev.word_error_rate",
        "dev.bleu",
    ]
    rows = [
        [
            "*" if row["front"] else "",
            *(cell(row[column]) for column in columns),
            f"{1000 * row['seconds_per_source']:.3g}",
            f"{row['behind']:.4f} ({row['behind.low']:.4f} to {row['behind.high']:.4f})",
        ]
        for row in table.astype({"behind.low": float, "behind.high": float}).to_dict("records")
    ]
    headings = ["", *columns, "ms a source", "behind the best (95 %)"]
    Console(width=1000).print(grid(f"{folder}: {sources} dev sources decoded", headings, rows))
    print("* no other row is as good and as fast")
    chosen = table[table["recommended"]].to_dict("records")[0]
    print(
        f"recommended, the fastest that is not distinguishably worse than the best: {chosen['trial']} with"
    )
    for key, value in recommended(chosen).items():
        print(f"  {key}: {value}")
    settings = ",".join(f"{key}={value}" for key, value in recommended(chosen).items())
    print(f"or {shlex.join(['--hparams', settings])}")


def recommended(row: Mapping[Any, Any]) -> dict[str, Any]:
    """A setting of the table as hyperparameters."""
    values = {WIDTH: row["beam_width"]}
    return values if row["beam_width"] == 1 else values | {PENALTY: row["length_penalty_weight"]}
