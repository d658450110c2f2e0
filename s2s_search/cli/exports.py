"""The verb that writes models into a folder of their own: export."""

import argparse
from pathlib import Path

from s2s_search.cli.arguments import (
    AddVerb,
    add_ensemble_arguments,
    add_fetch_argument,
    check_ensemble,
    trial,
)
from s2s_search.errors import ConfigError, collecting, printable
from s2s_search.runs.folder import trial_name


def add_verbs(verb: AddVerb) -> None:
    sub = verb(
        "export",
        export,
        "write the best model of a search, or an ensemble, as safetensors and JSON into a folder",
    )
    sub.add_argument(
        "folder", type=Path, metavar="DIR", help="a run folder, or the folder of a debug run"
    )
    add_ensemble_arguments(sub)
    sub.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="the new folder")
    sub.add_argument(
        "--trial",
        type=trial,
        metavar="K",
        help="export the model of this trial: its name or number (default: the best trial)",
    )
    add_fetch_argument(sub)
    sub.epilog = "decode FOLDER and evaluate FOLDER read what is exported, without DIR."


def export(args: argparse.Namespace) -> int:
    from s2s_search.cli.trials import checkpoint_path
    from s2s_search.results.kept import Kept, best_kept
    from s2s_search.runs.debug_runs import debug_history, is_debug_run
    from s2s_search.runs.exported import is_exported
    from s2s_search.runs.inputs import space_of
    from s2s_search.runs.state import load_history

    check_ensemble(args)
    if is_exported(args.folder):
        raise ConfigError("is an exported model already; copy the folder", str(args.folder))
    problems: list[str] = []
    kept: list[Kept] = []
    with collecting(problems):
        if args.trial is not None:
            place = checkpoint_path(args.folder, args.trial, args.fetch)
            kept = [Kept(args.folder, trial_name(args.trial), place, 0.0)]
        else:
            kept = best_kept([args.folder, *args.others], args.ensemble or 1, args.fetch)
    with collecting(problems):
        history = debug_history if is_debug_run(args.folder) else load_history
        corpus = space_of(history(args.folder), args.folder).corpus
    if args.to.exists():
        problems.append(f"--to {args.to}: is there already, and nothing is ever overwritten")
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)))
    from s2s_search.training import exported
    from s2s_search.training.ensemble import load_members

    models = load_members([each.place for each in kept])
    origins = [(printable(each.folder.absolute().name), each.trial) for each in kept]
    size = exported.export(args.to, models, origins, corpus)
    for (run, name), model in zip(origins, models, strict=True):
        metric, value = model.score
        print(f"{run}/{name}, step {model.step:,}, {metric} {value:.4g}")
    print(f"{args.to}: {size / 1e6:,.1f} MB")
    return 0
