"""Verbs that run trials on Ray: search · resume · retry · replicate."""

import argparse
import errno
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s2s_search.cli.arguments import (
    AddVerb,
    add_cluster_argument,
    add_corpus_argument,
    add_draw_arguments,
    comma_separated,
    counted,
    moved_corpus,
    overrides,
    positive_number,
    print_warnings,
)
from s2s_search.errors import ConfigError, command, nearest, shown
from s2s_search.spaces.load import load_space
from s2s_search.spaces.packaged import packaged_spaces

if TYPE_CHECKING:
    from s2s_search.tuning.search import Outcome

QUICKSTART = "quickstart"  # the name of a packaged space


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
        help="draw N configurations, not the number in the file; a grid and replicates multiply N",
    )
    sub.add_argument(
        "--out", type=Path, metavar="DIR", help="the run folder (default: runs/SPACE-TIME)"
    )
    add_storage_argument(sub)
    sub.add_argument(
        "--warm-start",
        type=Path,
        nargs="+",
        action="extend",
        default=[],
        metavar="DIR",
        help="first run the best configurations of earlier run folders; tpe, gp and freeze_thaw "
        "also learn from all their trials",
    )
    sub.add_argument(
        "--warm-start-best",
        type=counted(0),
        default=3,
        metavar="K",
        help="the number of these configurations (default: 3)",
    )
    add_cluster_argument(sub)
    add_log_argument(sub)
    add_draw_arguments(sub)

    sub = verb(
        "resume",
        resume,
        "resume a search that was killed, interrupted or out of budget, or add trials to a search",
    )
    sub.add_argument("folder", type=Path, metavar="DIR")
    sub.add_argument(
        "--trials",
        type=counted(1),
        metavar="N",
        help="draw N configurations in total; those drawn before count",
    )
    sub.add_argument(
        "--hours",
        type=positive_number,
        metavar="H",
        help="a new value of search.hours; hours already spent count",
    )
    sub.add_argument(
        "--gpu-hours",
        type=positive_number,
        metavar="H",
        help="a new value of search.gpu_hours; hours already spent count",
    )
    add_cluster_argument(sub)
    add_log_argument(sub, resumes=True)
    add_corpus_argument(sub)

    sub = verb("retry", retry, "run the failed trials of a search again")
    sub.add_argument("folder", type=Path, metavar="DIR")
    sub.add_argument(
        "--status",
        type=comma_separated,
        default="failed",
        metavar="S",
        help="which trials: failed (default), out_of_memory or lost; separate several with commas",
    )
    add_cluster_argument(sub)
    add_log_argument(sub, resumes=True)
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
        help="the number of configurations (default: 3)",
    )
    sub.add_argument(
        "--seeds",
        type=counted(1),
        default=5,
        metavar="N",
        help="the number of new seeds for each configuration (default: 5)",
    )
    sub.add_argument(
        "--audit",
        type=counted(1),
        metavar="N",
        help="in place of that: train N stopped trials to the end, to see how often the scheduler "
        "was wrong",
    )
    sub.add_argument(
        "--out",
        type=Path,
        metavar="DIR2",
        help="the new run folder (default: runs/NAME-replicates-TIME)",
    )
    add_storage_argument(sub)
    add_cluster_argument(sub)
    add_log_argument(sub)
    add_corpus_argument(sub)


def add_storage_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--storage",
        metavar="URL",
        help="save checkpoints at this URL (s3://...), not in the run folder",
    )


def add_log_argument(parser: argparse.ArgumentParser, resumes: bool = False) -> None:
    default: list[str] | None = []
    text = "send all trials to tensorboard, mlflow or wandb; separate several with commas"
    if resumes:
        default = None
        text += " (default: the trackers used so far)"
    parser.add_argument(
        "--log", type=comma_separated, default=default, metavar="TRACKERS", help=text
    )


def search(args: argparse.Namespace) -> int:
    swallowed = [path for path in args.warm_start if path.suffix in (".yaml", ".yml")]
    if args.file is None and swallowed:
        law = "is taken for a run folder; name the file of the search space before --warm-start"
        raise ConfigError(f"{swallowed[0]} {law}", "--warm-start")
    file = args.file or packaged_spaces()[QUICKSTART]
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
        warm_start_best=args.warm_start_best,
        log=args.log,
        warn=lambda warnings: print_warnings(warnings, file),
    )
    return conclude(outcome, args.out)


def resume(args: argparse.Namespace) -> int:
    return resume_with(args, trials=args.trials, hours=args.hours, gpu_hours=args.gpu_hours)


def retry(args: argparse.Namespace) -> int:
    from s2s_search.statuses import FAILURES

    law = f"must be among {', '.join(FAILURES)}"
    unknown = [name for name in args.status if name not in FAILURES]
    if unknown:
        problems = [f"{law}, but got {shown(name)}{nearest(name, FAILURES)}" for name in unknown]
        raise ConfigError(problems, "--status")
    if not args.status:
        raise ConfigError(f"{law}, but got none", "--status")
    return resume_with(args, again=args.status)


def resume_with(args: argparse.Namespace, **given: Any) -> int:
    """Resumes a search. `given` are the arguments that only one of resume and retry has."""
    from s2s_search.display.progress import Progress
    from s2s_search.tuning.start import resume_search

    outcome = resume_search(
        args.folder,
        address=args.address,
        progress=Progress(),
        say=print,
        log=args.log,
        corpus=moved_corpus(args),
        **given,
    )
    return conclude(outcome, args.folder)


def replicate(args: argparse.Namespace) -> int:
    from s2s_search.display.progress import Progress
    from s2s_search.tuning.start import replicate_search

    outcome = replicate_search(
        args.folder,
        top=args.top,
        seeds=args.seeds,
        audit=args.audit,
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
    """Prints the results of a search and returns its exit status.

    folder: the run folder as the user named it; None where the search chose its name.
    """
    from s2s_search.tuning.start import RUNS

    try:
        _print_outcome(outcome, folder or RUNS / outcome.folder.name)
        sys.stdout.flush()
    except OSError as error:
        if error.errno not in (errno.EIO, errno.EPIPE):
            raise
        # The terminal or the pipe was closed, and what is printed to it is lost.
        for stream in (sys.stdout, sys.stderr):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return {"interrupted": 130, "failed": 1}.get(outcome.status, 0)


def _print_outcome(outcome: "Outcome", folder: Path) -> None:
    from s2s_search.display import tables
    from s2s_search.results import results

    table = results.load(outcome.folder)
    tables.print_ranking(table, 10)
    tables.print_pareto(table)
    tables.print_replicates(table)
    tables.print_failures(table, folder)
    tables.print_out_of_time(table)
    tables.print_times(table)
    print(f"\nrun folder: {folder}")
    print(f"more: {command('results', folder)} · {command('decode', folder)}")
    if outcome.status == "finished":
        return
    what = f"{outcome.status}: {outcome.message}" if outcome.message else outcome.status
    more = []
    if outcome.status == "out of budget":
        more = ["--gpu-hours" if "gpu_hours" in (outcome.message or "") else "--hours", "N"]
    again = command("resume", folder, *more)
    print(f"{what}; the tables show all results until then; to resume: {again}", file=sys.stderr)
