"""Verbs that read run folders, with neither Ray nor torch: results · compare · report · watch."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from s2s_search.cli.arguments import (
    AddVerb,
    add_fetch_argument,
    counted,
    positive,
    print_rows,
    trial,
)
from s2s_search.errors import ConfigError, command, shown, unreadable
from s2s_search.runs.folder import no_trial, trial_name

if TYPE_CHECKING:
    from s2s_search.results.results import Results


def add_verbs(verb: AddVerb) -> None:
    sub = verb(
        "results", show_results, "rank the trials of a run folder, also while its search runs"
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
    form.add_argument("--json", action="store_true", help="one JSON object a line")
    form.add_argument("--csv", action="store_true", help="all columns as CSV")
    text = "the complete configuration of the best trial, or of --trial, as a search space of one trial"
    form.add_argument("--yaml", action="store_true", help=text)

    sub = verb(
        "compare",
        compare,
        "say whether one configuration or setting is better than another, and how sure it is",
    )
    sub.add_argument("folder", type=Path, metavar="DIR")
    sub.add_argument(
        "a",
        metavar="A",
        help="a trial's name or number, or a setting such as attention.score_type=dot",
    )
    sub.add_argument("b", metavar="B", help="another")
    sub.add_argument(
        "others",
        nargs="*",
        default=[],
        type=Path,
        metavar="DIR2",
        help="further runs, such as its replicates",
    )
    add_fetch_argument(sub)

    sub = verb(
        "watch",
        watch,
        "follow a search that runs in another process, or elsewhere on shared storage",
    )
    sub.add_argument("folder", type=Path, metavar="DIR")
    sub.add_argument(
        "--interval",
        type=positive,
        default=1.0,
        metavar="S",
        help="seconds between looks (default: 1)",
    )

    sub = verb(
        "report",
        write_report,
        "write what searches found as a page: report.html, and report.md beside it",
    )
    sub.add_argument(
        "folders",
        type=Path,
        nargs="+",
        metavar="DIR",
        help="run folders; several are set side by side",
    )
    sub.add_argument(
        "--out", metavar="PATH", help="a file, or a folder for report.html (default: DIR)"
    )
    add_fetch_argument(sub)


def show_results(args: argparse.Namespace) -> int:
    from s2s_search.results import results
    from s2s_search.runs.folder import holder_elsewhere
    from s2s_search.runs.log import first_event
    from s2s_search.runs.storage import is_far, place_of, shown_place
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
    if not args.json and not args.csv:
        from s2s_search.display import tables

        tables.print_ranking(table, args.top, args.sort)
        if args.trial is not None:
            return 0  # what follows is about all trials
        tables.print_pareto(table)
        tables.print_replicates(table)
        tables.print_failures(table, args.folder)
        if table.log is not None:  # a debug run has no workers, and keeps its checkpoints
            tables.print_times(table)
            place = place_of(first_event(args.folder), args.folder)
            if is_far(place):
                where = shown_place(place)
                print(
                    f"checkpoints and answers lie at {where}; --fetch lets report, compare and decode read them"
                )
        if table.status == "running" and (holder := holder_elsewhere(args.folder)):
            print(
                f"driven on another machine, by {holder}: it counts as killed ten minutes after its newest event"
            )
        if table.status == "killed":
            print(f"its driver was killed; to go on: {command('resume', args.folder)}")
        return 0
    ranked = table.best(args.top, args.sort)
    if args.csv:
        print(for_csv(ranked).to_csv(index=False), end="")
    else:
        print_rows(ranked)
    return 0


def trial_yaml(table: "Results", args: argparse.Namespace) -> str:
    """Returns the first trial of a ranking as a search space, with a line that says which it is."""
    import pandas as pd

    from s2s_search.runs.debug_runs import SPACE, is_debug_run
    from s2s_search.runs.manifest import load_manifest

    if (args.top or 1) > 1:
        raise ConfigError(
            f"--yaml gives one configuration, but --top {args.top}; name a trial with --trial"
        )
    ranked = table.best(1, args.sort)
    if ranked.empty or (args.trial is None and ranked[f"best.{table.metric}"].isna()[0]):
        raise ConfigError("no trial has a result yet", str(args.folder))
    row = ranked.iloc[0]
    if table.log is None and is_debug_run(args.folder):
        try:
            text = (args.folder / SPACE).read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigError(
                unreadable(args.folder / SPACE, error), str(args.folder / SPACE)
            ) from None
    else:
        text = load_manifest(args.folder, int(row["trial"].removeprefix("trial-"))).file()
    value = row[f"best.{table.metric}"]
    result = (
        "no report" if pd.isna(value) else f"{table.metric} {value:.4g} at step {row['best.step']}"
    )
    return f"# {row['trial']} of {shown(str(args.folder))}: {result}\n{text}"


def compare(args: argparse.Namespace) -> int:
    from s2s_search.results import compare

    for line in compare.compare([args.folder, *args.others], args.a, args.b, args.fetch):
        print(line)
    return 0


def watch(args: argparse.Namespace) -> int:
    from rich.console import Console

    from s2s_search.display.progress import Progress
    from s2s_search.display.watch import watch

    try:
        status = watch(args.folder, Progress(Console()), args.interval)
    except KeyboardInterrupt:
        print(
            f"the search goes on; to look again: {command('watch', args.folder)}", file=sys.stderr
        )
        return 130
    print(f"the ranking: {command('results', args.folder)}")
    if status == "finished":
        return 0
    what = "its driver was killed" if status == "killed" else status
    print(f"{what}; to go on: {command('resume', args.folder)}", file=sys.stderr)
    return {"interrupted": 130, "failed": 1, "killed": 1}.get(status, 0)


def write_report(args: argparse.Namespace) -> int:
    from s2s_search.report import contents

    for path in contents.write_report(args.folders, args.out, args.fetch):
        print(path)
    return 0
