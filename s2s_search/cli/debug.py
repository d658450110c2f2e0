"""The verb debug: one trial in this process, without Ray."""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from s2s_search.cli.arguments import (
    AddVerb,
    add_draw_arguments,
    counted,
    moved_corpus,
    overrides,
    print_json,
    print_note_of_draws,
    print_warnings,
    report_line,
    trial,
)
from s2s_search.corpus.load import load_corpus
from s2s_search.errors import ConfigError, quantity
from s2s_search.hparams.configuration import Hparams, resolve
from s2s_search.hparams.table import MODELS
from s2s_search.machine import usable_cores
from s2s_search.metrics import METRICS
from s2s_search.runs.folder import CONFIG, DEBUG_REPORTS, SPACE, no_trial, trial_name
from s2s_search.spaces.load import load_space
from s2s_search.spaces.settings import Resources
from s2s_search.spaces.space import Space
from s2s_search.spaces.trial_file import trial_file
from s2s_search.spaces.warnings import corpus_warnings
from s2s_search.spaces.yaml_file import parse_corpus
from s2s_search.statuses import PLATEAUED

if TYPE_CHECKING:
    from s2s_search.corpus.corpus import Corpus
    from s2s_search.runs.checkpoints import Saveable


def add_verbs(verb: AddVerb) -> None:
    sub = verb("debug", debug, "run one trial in this process, without Ray")
    sub.add_argument("--model", help=" or ".join(MODELS) + " (default: the latter)")
    sub.add_argument(
        "--corpus",
        metavar="C",
        help="cmudict (default), copy, reverse, {train: [A, B], dev: [C, D], ...}, or a "
        "search-space file that names it; with --run: the new place of its corpus, if it was moved",
    )
    sub.add_argument(
        "--steps", type=counted(1), metavar="N", help="train for N steps (train.max_steps)"
    )
    sub.add_argument("--space", type=Path, metavar="FILE", help="run a trial of this search space")
    sub.add_argument(
        "--trial",
        type=trial,
        metavar="K",
        help="the trial of --space or --run: its name or number (default with --space: 0)",
    )
    sub.add_argument(
        "--trials",
        type=counted(1),
        metavar="N",
        help="with --space: draw N configurations, as `search --trials N` does",
    )
    sub.add_argument(
        "--run",
        dest="of",
        type=Path,
        metavar="DIR",
        help="run --trial K of this run folder, on its corpus",
    )
    sub.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="save configuration, reports and checkpoints in this new folder",
    )
    add_draw_arguments(sub)
    sub.add_argument(
        "--json", action="store_true", help="print one JSON object per report, and nothing else"
    )


def debug(args: argparse.Namespace) -> int:
    hparams, corpus_spec, space = debug_configuration(args)
    if args.corpus and not args.of:
        where = "--corpus"
    elif args.space:
        where = str(args.space)
    elif args.of:
        where = f"--run {args.of}"
    else:
        where = "debug"
    corpus = debug_corpus(args, corpus_spec, space, where)
    of_file = space if args.space and not args.corpus else None
    print_warnings(corpus_warnings(corpus, corpus_spec, [hparams.flat()], of_file), where)
    import torch  # late, so that a user sees problems of the corpus without waiting for torch

    from s2s_search.training.footprint import check_memory
    from s2s_search.training.trial import train

    torch.set_num_threads(usable_threads(space))
    gpu = torch.cuda.is_available() and (space is None or space.resources.gpu > 0)
    device = torch.device("cuda" if gpu else "cpu")
    try:
        check_memory(hparams, corpus, device)
    except MemoryError as error:
        raise ConfigError(str(error)) from None
    if args.out is not None:
        make_new_folder(args.out)
    metric = space.metric if space else METRICS["dev.loss"]
    reports: Iterable[Saveable] = train(
        hparams, corpus, device, metric=metric.name, goal=metric.goal
    )
    if args.out is not None:
        reports = saved(reports, args.out, hparams, corpus_spec, space)
    if not args.json:
        name = corpus_spec.get("name", "your corpus")
        print(f"{hparams.model} on {name}, {quantity(hparams['train.max_steps'], 'step')}")
    status = ""
    for report in reports:
        status = str(report.metrics["status"])
        if args.json:
            print_json(report.metrics)
        else:
            print(report_line(report.metrics), flush=True)
        if args.out is not None:
            with (args.out / DEBUG_REPORTS).open("a") as file:
                file.write(json.dumps(report.metrics) + "\n")
    if status == PLATEAUED and not args.json:
        without = quantity(hparams["train.patience"], "report")
        print(f"plateaued: {without} without a better {metric.name} (train.patience)")
    if status == "diverged" and not args.json:
        print(
            "diverged: the loss is no longer finite; the last values are those of the worst model",
            file=sys.stderr,
        )
    return 0


def debug_corpus(
    args: argparse.Namespace, spec: dict[str, object], space: Space | None, where: str
) -> "Corpus":
    """Loads the corpus of a debug run. `where` is the file or option that names the corpus."""
    try:
        if args.of is not None and space is not None:
            return run_corpus(args, space)
        return load_corpus(spec)
    except ConfigError as error:
        raise ConfigError(error.problems, error.where or where) from None


def saved(
    reports: Iterable["Saveable"],
    folder: Path,
    hparams: Hparams,
    corpus_spec: dict[str, object],
    space: Space | None,
) -> Iterator["Saveable"]:
    """Saves the configuration in a folder, and returns the reports, whose snapshots it saves."""
    from s2s_search.runs.checkpoints import Checkpoints, keep_snapshots

    (folder / CONFIG).write_text(json.dumps(hparams.flat(), indent=1) + "\n")
    metric = space.metric if space else METRICS["dev.loss"]
    resources = space.resources if space else Resources()
    text = trial_file(hparams, corpus_spec, metric, resources)
    (folder / SPACE).write_text(text, encoding="utf-8")
    return keep_snapshots(reports, Checkpoints(folder), metric.name, metric.goal)


def usable_threads(space: Space | None) -> int:
    """Returns the number of threads of a trial of the search, at most one for each usable core."""
    threads = space.resources.threads if space else 1
    cores = usable_cores()
    if threads > cores:
        print(
            f"a trial of the search has {threads} threads, but this process may use only "
            f"{quantity(cores, 'core')}, and takes one thread for each: numbers can differ in the "
            "last digits",
            file=sys.stderr,
        )
    return min(threads, cores)


def debug_configuration(
    args: argparse.Namespace,
) -> tuple[Hparams, dict[str, object], Space | None]:
    """Returns the configuration, the corpus and the search space of a debug run."""
    given = overrides(args)
    if args.steps is not None:
        given["train.max_steps"] = args.steps
    space = None
    corpus: dict[str, object] = {"name": "cmudict"}
    model = args.model or str(given.get("model", MODELS[1]))
    if args.of is not None:
        return run_configuration(args, given)
    if args.space is not None:
        if args.model is not None:
            raise ConfigError(
                "--model: cannot be combined with --space, whose file names the model; "
                "leave one of the two out"
            )
        space = load_space(args.space)
        corpus = space.corpus
        number = args.trial or 0
        trials = space.trials(args.trials, args.seed, given)
        if number >= len(trials):
            law = no_trial(number, map(trial_name, range(len(trials))))
            raise ConfigError(
                f"--trial {number}: {law}; --trials N draws more, as in `search`", str(args.space)
            )
        if number > 0:
            print_note_of_draws(space)
        given = trials[number]
        model = str(given["model"])
    elif not (args.trial is args.trials is args.seed is None):
        raise ConfigError(
            "--trial, --trials and --seed choose from a search space; name one with --space FILE"
        )
    if args.corpus is not None:
        corpus = parse_corpus(args.corpus)
    try:
        hparams = resolve(model, given)
    except ConfigError as error:
        if space is not None:
            where = None
        elif args.hparams:
            where = "--hparams"
        else:
            where = "debug"
        raise ConfigError(error.problems, where) from None
    return hparams, corpus, space


def run_configuration(
    args: argparse.Namespace, given: dict[str, object]
) -> tuple[Hparams, dict[str, object], Space | None]:
    """Returns the configuration of a trial of a run folder, and the search's corpus and space."""
    from s2s_search.runs.inputs import space_of
    from s2s_search.runs.state import load_history

    others = [args.space, args.model, args.seed, args.trials]
    if args.trial is None or any(other is not None for other in others):
        raise ConfigError(
            "--run DIR needs --trial K, and cannot be combined with "
            "--space, --model, --seed or --trials"
        )
    past = load_history(args.of)
    begun = past.trial(args.trial, str(args.of))
    space = space_of(past, args.of, moved_corpus(args))
    config = begun.config | given
    if "model" not in config:
        raise ConfigError(f"{begun.name} has no model in the log", f"--run {args.of}")
    hparams = resolve(str(config["model"]), config)
    return hparams, space.corpus, space


def run_corpus(args: argparse.Namespace, space: Space) -> "Corpus":
    """Loads the corpus of a run, and says so when it has changed since.

    Under --corpus, which names a new place, a changed corpus is an error.
    """
    from s2s_search.runs.inputs import corpus_of
    from s2s_search.runs.log import first_event

    before = str(first_event(args.of).get("corpus", {}).get("fingerprint", ""))
    corpus = corpus_of(space, None if args.corpus is None else before, args.of)
    if corpus.fingerprint != before:
        print(
            "the corpus has changed since the search began: the numbers will not be the same",
            file=sys.stderr,
        )
    return corpus


def make_new_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise ConfigError(
            "exists already, and nothing is ever overwritten; name a new folder",
            where=f"--out {folder}",
        ) from None
    except OSError as error:
        raise ConfigError(f"cannot be made: {error.strerror}", where=f"--out {folder}") from None
