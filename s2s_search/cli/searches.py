"""Verbs that run trials on Ray: search · resume · retry · replicate."""

import argparse
import errno
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from s2s_search.cli.arguments import (
    AddVerb,
    add_cluster_argument,
    add_corpus_argument,
    add_draw_arguments,
    counted,
    listed,
    moved_corpus,
    overrides,
    positive,
    print_warnings,
)
from s2s_search.errors import ConfigError, command, nearest, shown
from s2s_search.spaces.load import load_space

if TYPE_CHECKING:
    from s2s_search.tuning.search import Outcome

QUICKSTART = Path(__file__).parents[2] / "search_spaces" / "quickstart.yaml"


def add_verbs(verb: AddVerb) -> None:
    sub = verb("search", search, "search a space on Ray Tune: on this machine, or on a cluster")
    sub.add_argument(
        "file",
        nargs="?",
        type=Path,
        metavar="FILE",
        help="the search space (default: the quickstart)",
    )
    sub.add_argument(
        "--trials",
        type=counted(1),
        metavar="N",
        help="draw N configurations, not the file's number; grids and replicates multiply them",
    )
    sub.add_argument(
        "--out", type=Path, metavar="DIR", help="the run folder (default: runs/SPACE-TIME)"
    )
    sub.add_argument(
        "--storage", metavar="URL", help="keep checkpoints there (s3://...), not in the run folder"
    )
    sub.add_argument(
        "--warm-start", type=Path, metavar="DIR", help="a tpe sampler learns from this run first"
    )
    add_cluster_argument(sub)
    add_log_argument(sub)
    add_draw_arguments(sub)

    sub = verb(
        "resume",
        resume,
        "go on with a search that was killed, interrupted or out of budget, or extend it",
    )
    sub.add_argument("folder", type=Path, metavar="DIR")
    sub.add_argument(
        "--trials", type=counted(1), metavar="N", help="extend it: draw N configurations in all"
    )
    sub.add_argument(
        "--hours", type=positive, metavar="H", help="a new search.hours for all of the search"
    )
    sub.add_argument("--gpu-hours", type=positive, metavar="H", help="a new search.gpu_hours")
    add_cluster_argument(sub)
    add_log_argument(sub, goes_on=True)
    add_corpus_argument(sub)

    sub = verb("retry", retry, "run trials of a search again that failed")
    sub.add_argument("folder", type=Path, metavar="DIR")
    sub.add_argument(
        "--status",
        type=listed,
        default="failed",
        metavar="S",
        help="which: failed (default), out_of_memory, lost, or several with commas",
    )
    add_cluster_argument(sub)
    add_log_argument(sub, goes_on=True)
    add_corpus_argument(sub)

    sub = verb(
        "replicate", replicate, "run the best configurations of a search again with other seeds"
    )
    sub.add_argument("folder", type=Path, metavar="DIR")
    sub.add_argument(
        "--top",
        type=counted(1),
        default=3,
        metavar="K",
        help="how many configurations (default: 3)",
    )
    sub.add_argument(
        "--seeds",
        type=counted(1),
        default=5,
        metavar="N",
        help="how many other seeds each (default: 5)",
    )
    sub.add_argument(
        "--out",
        type=Path,
        metavar="DIR2",
        help="the new run folder (default: runs/NAME-replicates-TIME)",
    )
    sub.add_argument(
        "--storage", metavar="URL", help="keep checkpoints there (s3://...), not in the run folder"
    )
    add_cluster_argument(sub)
    add_log_argument(sub)
    add_corpus_argument(sub)


def add_log_argument(parser: argparse.ArgumentParser, goes_on: bool = False) -> None:
    help = "tell tensorboard, mlflow or wandb, or several with commas, of all trials"
    parser.add_argument(
        "--log",
        type=listed,
        default=None if goes_on else [],
        metavar="TOOLS",
        help=f"{help} (default: those that heard so far)" if goes_on else help,
    )


def search(args: argparse.Namespace) -> int:
    file = args.file or QUICKSTART
    if args.file is None and not file.exists():
        raise ConfigError(
            "name a search-space file; the quickstart is part of the repository, not of the installed package"
        )
    space = load_space(file)
    given = overrides(args)
    from s2s_search.display.progress import Progress
    from s2s_search.tuning.start import run_search

    outcome = run_search(
        space,
        out=args.out,
        trials=args.trials,
        seed=args.seed,
        address=args.address,
        overrides=given,
        command=["run_search.py", *sys.argv[1:]],
        progress=Progress(),
        storage=args.storage,
        warm_start=args.warm_start,
        log=args.log,
        warn=lambda warnings: print_warnings(warnings, file),
    )
    return conclude(outcome, args.out)


def resume(args: argparse.Namespace) -> int:
    from s2s_search.display.progress import Progress
    from s2s_search.tuning.start import resume_search

    outcome = resume_search(
        args.folder,
        trials=args.trials,
        hours=args.hours,
        gpu_hours=args.gpu_hours,
        address=args.address,
        progress=Progress(),
        say=print,
        log=args.log,
        corpus=moved_corpus(args),
    )
    return conclude(outcome, args.folder)


def retry(args: argparse.Namespace) -> int:
    from s2s_search.statuses import FAILURES

    law, unknown = (
        f"must be among {', '.join(FAILURES)}",
        [name for name in args.status if name not in FAILURES],
    )
    if unknown:
        problems = [f"{law}, but got {shown(name)}{nearest(name, FAILURES)}" for name in unknown]
        raise ConfigError(problems, "--status")
    if not args.status:
        raise ConfigError(f"{law}, but got none", "--status")
    from s2s_search.display.progress import Progress
    from s2s_search.tuning.start import resume_search

    outcome = resume_search(
        args.folder,
        again=args.status,
        address=args.address,
        progress=Progress(),
        say=print,
        log=args.log,
        corpus=moved_corpus(args),
    )
    return conclude(outcome, args.folder)


def replicate(args: argparse.Namespace) -> int:
    from s2s_search.display.progress import Progress
    from s2s_search.tuning.start import replicate_search

    outcome = replicate_search(
        args.folder,
        top=args.top,
        seeds=args.seeds,
        out=args.out,
        address=args.address,
        command=["run_search.py", *sys.argv[1:]],
        progress=Progress(),
        storage=args.storage,
        log=args.log,
        corpus=moved_corpus(args),
    )
    return conclude(outcome, args.out)


def conclude(outcome: "Outcome", folder: Path | None) -> int:
    """Prints what a search came to, in the folder as the user named it, and returns its exit status."""
    from s2s_search.tuning.start import RUNS

    try:
        _print_outcome(outcome, folder or RUNS / outcome.folder.name)
        sys.stdout.flush()
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        for stream in (sys.stdout, sys.stderr):  # the terminal has closed
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    if outcome.status == "finished":
        return 0
    return {"interrupted": 130, "failed": 1}.get(outcome.status, 0)


def _print_outcome(outcome: "Outcome", folder: Path) -> None:
    from s2s_search.display import tables
    from s2s_search.results import results

    table = results.load(outcome.folder)
    tables.print_ranking(table, 10)
    tables.print_pareto(table)
    tables.print_replicates(table)
    tables.print_failures(table, folder)
    tables.print_times(table)
    print(
        f"\nrun folder: {folder}\nmore: {command('results', folder)} · {command('decode', folder)}"
    )
    if outcome.status == "finished":
        return
    what = f"{outcome.status}: {outcome.message}" if outcome.message else outcome.status
    print(
        f"{what}; the tables hold what was done until then; to go on: {command('resume', folder)}",
        file=sys.stderr,
    )
