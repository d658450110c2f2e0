"""Verbs that read run folders, without Ray and torch: results · compare · report · watch."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from s2s_search.cli.arguments import (
    AddVerb,
    add_fetch_argument,
    counted,
    positive_number,
    print_rows,
    trial,
)
from s2s_search.errors import ConfigError, command, shown, unreadable
from s2s_search.runs.folder import no_trial, trial_name

if TYPE_CHECKING:
    from s2s_search.results.results import Results


def add_verbs(verb: AddVerb) -> None:
    sub = verb(
        "results", show_results, "rank the trials of a run folder; also while the search runs"
    )
    sub.add_argument(
        "folder", type=Path, metavar="DIR", help="a run folder, or the folder of a debug run"
    )
    which = sub.add_mutually_exclusive_group()
    which.add_argument("--top", type=counted(1), metavar="N", help="only the best N")
    which.add_argument("--best", action="store_const", dest="top", const=1, help="only the best")
    which.add_argument(
        "--trial", type=trial, metavar="K", help="only this trial: its name or number"
    )
    sub.add_argument(
        "--sort", metavar="COLUMN", help="rank by another column, such as dev.bleu or seconds"
    )
    form = sub.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON object per trial")
    form.add_argument("--csv", action="store_true", help="print all columns as CSV")
    form.add_argument(
        "--yaml",
        action="store_true",
        help="print the complete configuration of the best trial, or of --trial, as a search space "
        "with this one trial",
    )

    sub = verb(
        "compare",
        compare,
        "say whether one configuration or setting is better than another, and how certain that is",
    )
    sub.add_argument("folder", type=Path, metavar="DIR")
    sub.add_argument(
        "a",
        metavar="A",
        help="a trial's name or number, or a setting such as attention.score_type=dot",
    )
    sub.add_argument("b", metavar="B", help="the trial or setting to compare A with")
    sub.add_argument(
        "others",
        nargs="*",
        default=[],
        type=Path,
        metavar="DIR2",
        help="more run folders whose trials count too, such as the replicates of DIR",
    )
    sub.add_argument(
        "--margin",
        type=positive_number,
        metavar="M",
        help="also say whether A and B are equivalent: whether they differ by less than M",
    )
    add_fetch_argument(sub)

    sub = verb(
        "watch",
        watch,
        "follow a search that runs in another process, or on another machine with shared storage",
    )
    sub.add_argument("folder", type=Path, metavar="DIR")
    sub.add_argument(
        "--interval",
        type=positive_number,
        default=1.0,
        metavar="S",
        help="read the log every S seconds (default: 1)",
    )

    sub = verb(
        "report",
        write_report,
        "write a report of one or several searches: report.html, and report.md beside it",
    )
    sub.add_argument(
        "folders",
        type=Path,
        nargs="+",
        metavar="DIR",
        help="run folders; several are shown side by side",
    )
    sub.add_argument(
        "--out", metavar="PATH", help="the file to write, or a folder for it (default: DIR)"
    )
    add_fetch_argument(sub)


def show_results(args: argparse.Namespace) -> int:
    from s2s_search.results import results
    from s2s_search.runs.tables import for_csv

    table = results.load(args.folder)
    for problem in table.damaged:
        print(problem, file=sys.stderr)
    if args.trial is not None:
        is_named = table.trials["trial"] == trial_name(args.trial)
        if not is_named.any():
            raise ConfigError(
                no_trial(args.trial, map(str, table.trials["trial"])), str(args.folder)
            )
        table = replace(table, trials=table.trials[is_named].reset_index(drop=True))
    if args.yaml:
        print(trial_yaml(table, args), end="")
        return 0
    if args.csv:
        print(for_csv(table.best(args.top, args.sort)).to_csv(index=False), end="")
    elif args.json:
        print_rows(table.best(args.top, args.sort))
    else:
        print_tables(table, args)
    return 0


def print_tables(table: "Results", args: argparse.Namespace) -> None:
    """Prints the ranking; without --trial also what there is to say of the search as a whole."""
    from s2s_search.display import tables
    from s2s_search.runs.folder import holder_elsewhere
    from s2s_search.runs.log import first_event
    from s2s_search.runs.storage import is_far, place_of, shown_place

    tables.print_ranking(table, args.top, args.sort)
    if args.trial is not None:
        return
    tables.print_pareto(table)
    tables.print_replicates(table)
    tables.print_failures(table, args.folder)
    tables.print_out_of_time(table)
    if table.log is not None:  # a debug run has no workers, and its checkpoints are in its folder
        tables.print_times(table)
        place = place_of(first_event(args.folder), args.folder)
        if is_far(place):
            where = shown_place(place)
            print(
                f"checkpoints and answers are at {where}; "
                "report, compare and decode read them with --fetch"
            )
    if table.status == "running":
        holder = holder_elsewhere(args.folder)
        if holder:
            print(
                f"the search runs on another machine, in {holder}; "
                "ten minutes after its newest event it counts as killed"
            )
    if table.status == "killed":
        print(f"the driver was killed; to resume: {command('resume', args.folder)}")


def trial_yaml(table: "Results", args: argparse.Namespace) -> str:
    """Returns the first trial of the ranking as a search space; a comment names the trial."""
    import pandas as pd

    from s2s_search.runs.debug_runs import is_debug_run
    from s2s_search.runs.folder import SPACE
    from s2s_search.runs.manifest import load_manifest

    if (args.top or 1) > 1:
        raise ConfigError(
            f"--yaml prints one configuration, but got --top {args.top}; "
            "name one trial with --trial K"
        )
    ranked = table.best(1, args.sort)
    if ranked.empty or (args.trial is None and ranked[f"best.{table.metric}"].isna()[0]):
        raise ConfigError("no trial has a result yet", str(args.folder))
    row = ranked.iloc[0]
    if table.log is None and is_debug_run(args.folder):
        path = args.folder / SPACE
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigError(unreadable(path, error), str(path)) from None
    else:
        text = load_manifest(args.folder, int(row["trial"].removeprefix("trial-"))).file()
    value = row[f"best.{table.metric}"]
    if pd.isna(value):
        result = "no report"
    else:
        result = f"{table.metric} {value:.4g} at step {row['best.step']}"
    return f"# {row['trial']} of {shown(str(args.folder))}: {result}\n{text}"


def compare(args: argparse.Namespace) -> int:
    from s2s_search.results import compare

    folders = [args.folder, *args.others]
    for line in compare.compare(folders, args.a, args.b, args.fetch, args.margin):
        print(line)
    return 0


def watch(args: argparse.Namespace) -> int:
    from s2s_search.display.console import Console
    from s2s_search.display.progress import Progress
    from s2s_search.display.watch import watch

    try:
        status = watch(args.folder, Progress(Console()), args.interval)
    except KeyboardInterrupt:
        again = command("watch", args.folder)
        print(f"the search still runs; to watch it again: {again}", file=sys.stderr)
        return 130
    print(f"the ranking: {command('results', args.folder)}")
    if status == "finished":
        return 0
    what = "the driver was killed" if status == "killed" else status
    print(f"{what}; to resume: {command('resume', args.folder)}", file=sys.stderr)
    return {"interrupted": 130, "failed": 1, "killed": 1}.get(status, 0)


def write_report(args: argparse.Namespace) -> int:
    from s2s_search.report import contents

    for path in contents.write_report(args.folders, args.out, args.fetch):
        print(path)
    return 0
