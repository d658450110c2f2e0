"""Verbs that try other settings without training again: replay · tune-decoding."""

import argparse
import json
import math
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
    positive_number,
    print_rows,
)
from s2s_search.errors import ConfigError, collecting, quantity
from s2s_search.hparams.arguments import Argument
from s2s_search.hparams.table import TABLE
from s2s_search.hparams.values import convert
from s2s_search.machine import usable_cores
from s2s_search.runs.folder import DECODING
from s2s_search.spaces.yaml_file import SECTIONS

if TYPE_CHECKING:
    import pandas as pd

    from s2s_search.whatif.curves import Record

WIDTH, PENALTY = "inference.beam_search.beam_width", "inference.beam_search.length_penalty_weight"
DECODED = (
    ("--beams", WIDTH, "1,2,4,8", "beam widths"),
    ("--penalties", PENALTY, "0,0.5,1", "length penalties"),
)
# Columns that are lower bounds where a trial would have trained beyond its recorded curve.
AT_LEAST = ("worker_seconds", "share", "wall_seconds", "steps")
REPLAYED = (
    ("--scheduler", "name", "asha, median, hyperband or none"),
    ("--reduction-factor", "reduction_factor", "scheduler.reduction_factor of asha and hyperband"),
    ("--grace-steps", "grace_steps", "scheduler.grace_steps of asha and median"),
    ("--max-steps", "max_steps", "the most steps that a trial may make"),
)


def share(text: str) -> float:
    """Returns a number above 0 and at most 1."""
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"must be above 0 and at most 1, but got {text}")
    return value


def margin(text: str) -> float:
    """Returns a finite number of at least 0."""
    value = float(text)
    if not (math.isfinite(value) and value >= 0):
        raise argparse.ArgumentTypeError(f"must be at least 0, but got {text}")
    return value


LEAGUE_WORKERS = 4
TARGETS = ("best", "hundredth")  # those of whatif.pool, which takes a second to import
# The options of a league with their defaults.
LEAGUE: dict[str, Any] = {
    "methods": "",
    "target": "best",
    "within": 0.01,
    "share": 1.0,
    "most": 200.0,
}


def add_verbs(verb: AddVerb) -> None:
    sub = verb(
        "replay",
        replay,
        "estimate what a search costs and finds under another scheduler, from its recorded curves",
    )
    sub.add_argument("folder", type=Path, metavar="DIR")
    known = {argument.name: argument for argument in SECTIONS["scheduler"]}
    for flag, key, what in REPLAYED:
        sub.add_argument(
            flag, dest=key, type=several(known[key]), metavar=flag[2].upper(), help=what
        )
    sub.add_argument(
        "--grid", action="store_true", help="try several values of the settings that are not given"
    )
    sub.add_argument(
        "--workers",
        type=counted(1),
        metavar="W",
        help="the number of trials that run at once (default: as in the search; 4 in a league)",
    )
    sub.add_argument(
        "--orders",
        type=counted(1),
        default=1,
        metavar="N",
        help="print means over N orders of the trials (with --league, medians): the recorded one "
        "and N - 1 random ones",
    )
    sub.add_argument(
        "--league",
        action="store_true",
        help="compare search methods: the compute of each until the best value is found",
    )
    sub.add_argument("--methods", metavar="M,...", help="only these methods of the league")
    sub.add_argument(
        "--target",
        choices=TARGETS,
        help="the best value of the trials, or that of their best hundredth",
    )
    sub.add_argument(
        "--within", type=margin, metavar="X", help="how near to the target is enough (0.01)"
    )
    sub.add_argument(
        "--share",
        type=share,
        metavar="S",
        help="the share of the trials in each order",
    )
    sub.add_argument(
        "--most",
        type=positive_number,
        metavar="N",
        help="the compute in full trials after which a simulated search ends (200)",
    )
    sub.add_argument("--json", action="store_true", help="print one JSON object per row")
    flags = [flag for flag, _, _ in REPLAYED]
    sub.epilog = (
        f"{', '.join(flags[:-1])} and {flags[-1]} take several values, separated by commas. "
        "All combinations are replayed."
    )

    sub = verb(
        "tune-decoding",
        tune_decoding,
        "compare beam widths and length penalties with the best checkpoints",
    )
    sub.add_argument("folder", type=Path, metavar="DIR")
    sub.add_argument(
        "--top",
        type=counted(1),
        default=1,
        metavar="K",
        help="use the checkpoints of the K best trials (default: 1)",
    )
    for flag, key, default, what in DECODED:
        text = f"{what}, separated by commas (default: {default})"
        sub.add_argument(
            flag, type=several(TABLE[key]), default=default, metavar=flag[2].upper(), help=text
        )
    sub.add_argument(
        "--examples", type=counted(2), default=0, metavar="N", help="decode N dev sources, not all"
    )
    sub.add_argument("--json", action="store_true", help="print one JSON object per row")
    add_cluster_argument(sub)
    add_corpus_argument(sub)
    add_fetch_argument(sub)


class several:
    """An argument that is one or more values of `declared`, separated by commas."""

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

    if args.league:
        return league(args)
    problems = list(check_league(args))
    if problems:
        raise ConfigError(problems)
    record = load_record(args.folder)
    asked = {}
    for _, key, _ in REPLAYED:
        values = getattr(args, key)
        if values:
            asked[key] = values
    schedulers = replay.replay_schedulers(record, asked, args.grid)
    table = replay.replay_table(record, schedulers, args.workers or record.workers, args.orders)
    if args.json:
        print_rows(table)
    else:
        print_replays(record, table, args.orders)
    return 0


def check_league(args: argparse.Namespace) -> Iterator[str]:
    """Yields the options that say nothing, because only a league has them, or no league."""
    if args.league:
        given = [flag for flag, key, _ in REPLAYED if getattr(args, key)]
        given += ["--grid"] if args.grid else []
        for flag in given:
            yield f"{flag}: a league has its own schedulers; --methods names some of its methods"
    else:
        for key in LEAGUE:
            if getattr(args, key) is not None:
                yield f"--{key}: only a league has it; add --league"


def league(args: argparse.Namespace) -> int:
    from s2s_search.display.console import Console
    from s2s_search.display.tables import cell, grid
    from s2s_search.whatif.league import contenders, league_rows, size_of_order
    from s2s_search.whatif.pool import FEWEST, load_pool

    asked = LEAGUE | {key: value for key, value in vars(args).items() if value is not None}
    names = [name.strip() for name in asked["methods"].split(",") if name.strip()]
    problems = list(check_league(args))
    if asked["methods"] and not names:
        problems.append(f"--methods: {asked['methods']!r} names no method")
    with collecting(problems):
        methods = contenders(names)
    with collecting(problems):
        pool = load_pool(args.folder)
    if problems:
        raise ConfigError(problems)
    size = size_of_order(pool, asked["share"])
    if asked["share"] * len(pool.configs) < FEWEST:
        print(f"--share: each order has {FEWEST} trials, the fewest of a league", file=sys.stderr)
    workers = args.workers or LEAGUE_WORKERS
    near, target = asked["within"], asked["target"]
    settings = args.orders, workers, near, asked["share"], target
    rows = []
    processes = min(usable_cores(), args.orders)
    for row in league_rows(pool, methods, *settings, processes, asked["most"]):
        rows.append(row)
        if args.json:
            # JSON has no infinity: a method that lost the target has null.
            finite = {key: None if value == math.inf else value for key, value in row.items()}
            print(json.dumps(finite), flush=True)
        else:
            print(f"{len(rows)} of {len(methods)}: {row['method']}", file=sys.stderr)
    if args.json:
        return 0
    rows.sort(key=lambda row: (row["to_target"], row.get("regret_10", 0.0)))
    trials = quantity(len(pool.configs), "trial")
    if size < len(pool.configs):
        trials = f"{size} of {trials}"
    title = f"{pool.space.name}: {trials} on {quantity(workers, 'worker')}, "
    title += quantity(args.orders, "order")
    columns = [column for column in rows[0] if column != "oracle"]
    cells = [[cell(row[column]) for column in columns] for row in rows]
    Console(width=1000).print(grid(title, columns, cells))
    what = "the best value" if target == "best" else "the value of the best hundredth"
    whose = f"{pool.target(target):.4g}"
    if size < len(pool.configs):
        whose = "among the trials of an order"
    print(
        f"to_target: full trials until a report within {near:g} of {what}, {whose}: "
        "the median over orders, and its 95 % interval low to high"
    )
    print(
        f"lost: orders whose search ended before that (full trials: {asked['most']:g}); "
        "work: to_target by worker seconds, not by steps"
    )
    print("regret_N: the mean difference from the best value after N full trials")
    if any(row["oracle"] for row in rows):
        print("oracle_: knows what no search can know, and says how much there is to win")
    return 0


def print_replays(record: "Record", table: "pd.DataFrame", orders: int) -> None:
    from s2s_search.display.console import Console
    from s2s_search.display.tables import grid

    idle = [column for column in ("max_steps", "workers") if table[column].nunique() == 1]
    shown = table.drop(columns=["best", "front", *idle])
    rows = []
    for front, (_, row) in zip(table["front"], shown.iterrows(), strict=True):
        is_known = row["unknown"] == 0
        cells = [replay_cell(str(key), value, is_known) for key, value in row.items()]
        rows.append(["*" if front else "", *cells])
    trials, workers = len(record.curves), table["workers"][0]
    title = f"{record.space.name}: {quantity(trials, 'trial')} replayed on "
    title += quantity(workers, "worker")
    if orders > 1:
        title += f", means over {orders} orders"
    Console(width=1000).print(grid(title, ["", *map(str, shown)], rows))
    print("\n".join(remarks(record, table)))


def replay_cell(column: str, value: Any, is_known: bool) -> str:
    """Returns a cell of the table; `is_known`: no trial of the row trained beyond its curve."""
    from s2s_search.display.tables import cell

    if column in ("share", "found"):
        text = f"{value:.0%}"
    elif isinstance(value, float) and value >= 1000:
        text = f"{value:,.0f}"
    else:
        text = cell(value)
    if is_known:
        return text
    if column in AT_LEAST:
        return f"≥ {text}"
    if column in ("regret", "found"):
        return "?"
    return text


def remarks(record: "Record", table: "pd.DataFrame") -> Iterator[str]:
    """Yields the notes that a reader of the table needs."""
    from s2s_search.whatif.replay import made_again

    value, winner = record.best
    metric = record.space.metric.name
    yield (
        f"the recorded search: {record.seconds:.0f} worker seconds; "
        f"best {metric} {value:.4g}, from {winner}"
    )
    if table["front"].any():
        yield "* on the Pareto front of worker_seconds and regret"
    same, of = made_again(record)
    if of:
        yield (
            f"check: {same} of {quantity(of, 'decision')} of the search recomputed alike "
            "when its log is replayed in its own order"
        )
    if (table["unknown"] > 0).any():
        yield (
            "≥ and ?: trials counted in `unknown` would have trained longer than in the search, "
            "so what they would have reached is not known; "
            "a search with scheduler none leaves nothing unknown"
        )
    if learner := record.space.learner:
        yield (
            f"{learner} learned from these results: with another scheduler it would propose other "
            "trials"
        )


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
    try:  # written last, so that the numbers are printed even if the disk is full
        replace(args.folder / DECODING, lambda path: table.to_csv(path, index=False))
    except OSError as error:
        raise ConfigError(
            f"cannot be written: {error.strerror}", str(args.folder / DECODING)
        ) from None
    if not args.json:
        print(f"all columns: {args.folder / DECODING}")
    return 0


def print_decoding(folder: Path, table: "pd.DataFrame", sources: int) -> None:
    from s2s_search.display.console import Console
    from s2s_search.display.tables import cell, grid
    from s2s_search.whatif.tune_decoding import margin_of

    columns = [
        "trial",
        "beam_width",
        "length_penalty_weight",
        "dev.error_rate",
        "dev.word_error_rate",
        "dev.bleu",
    ]
    rows = []
    for row in table.astype({"behind.low": float, "behind.high": float}).to_dict("records"):
        cells = [cell(row[column]) for column in columns]
        milliseconds = f"{1000 * row['seconds_per_source']:.3g}"
        behind = f"{row['behind']:.4f} ({row['behind.low']:.4f} to {row['behind.high']:.4f})"
        rows.append(["*" if row["front"] else "", *cells, milliseconds, behind])
    headings = ["", *columns, "ms per source", "behind the best (95 %)"]
    Console(width=1000).print(
        grid(f"{folder}: {quantity(sources, 'dev source')} decoded", headings, rows)
    )
    print("* on the Pareto front of error rate and time")
    margin = margin_of(table["dev.error_rate"].min())
    law = f"at most {margin:.4f} worse than any other"
    chosen = table[table["recommended"]].to_dict("records")
    if chosen:
        print(f"recommended (the fastest that is {law}, by 95 % intervals): ", end="")
    else:
        chosen = table.to_dict("records")
        print(f"nothing is recommended: {sources:,} sources show of no setting that it is {law}")
        print("the best on them: ", end="")
    print(f"{chosen[0]['trial']} with")
    for key, value in decoding_of(chosen[0]).items():
        print(f"  {key}: {value}")
    settings = ",".join(f"{key}={value}" for key, value in decoding_of(chosen[0]).items())
    print(f"or {shlex.join(['--hparams', settings])}")


def decoding_of(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Returns the hyperparameters of a row; a beam of width 1 has no length penalty."""
    values = {WIDTH: row["beam_width"]}
    if row["beam_width"] > 1:
        values[PENALTY] = row["length_penalty_weight"]
    return values
