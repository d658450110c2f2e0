"""Verbs about one trial: debug · rerun · explain · decode."""

import argparse
import io
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from s2s_search.cli.arguments import (
    AddVerb,
    add_corpus_argument,
    add_draw_arguments,
    add_fetch_argument,
    counted,
    moved_corpus,
    overrides,
    print_json,
    print_warnings,
    trial,
)
from s2s_search.corpus.text import ready_lines
from s2s_search.errors import ConfigError, unreadable
from s2s_search.hparams.configuration import Hparams, resolve
from s2s_search.hparams.table import MODELS
from s2s_search.machine import usable_cores
from s2s_search.metrics import METRICS
from s2s_search.runs.folder import CONFIG, DEBUG_REPORTS, SPACE, no_trial, trial_name
from s2s_search.spaces.load import load_space
from s2s_search.spaces.settings import Resources
from s2s_search.spaces.space import Space
from s2s_search.spaces.trial_file import trial_file
from s2s_search.spaces.warnings import trial_warnings
from s2s_search.spaces.yaml_file import parse_corpus

if TYPE_CHECKING:
    from s2s_search.corpus.corpus import Corpus


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

    sub = verb(
        "rerun",
        rerun,
        "run a trial of a search again in this process, as its run folder records it",
    )
    sub.add_argument("folder", type=Path, metavar="DIR")
    add_trial_argument(sub)
    sub.add_argument(
        "--check",
        action="store_true",
        help="run up to the last recorded report, and compare all numbers",
    )
    add_corpus_argument(sub)

    sub = verb("explain", explain, "say what happened to a trial, and why it was stopped")
    sub.add_argument("folder", type=Path, metavar="DIR")
    add_trial_argument(sub)

    sub = verb("decode", decode, "decode lines of text with the best model of a search")
    sub.add_argument(
        "folder", type=Path, metavar="DIR", help="a run folder, or the folder of a debug run"
    )
    sub.add_argument(
        "--trial",
        type=trial,
        metavar="K",
        help="use the model of this trial: its name or number (default: the best trial)",
    )
    sub.add_argument(
        "--input", type=Path, metavar="FILE", help="read source lines from FILE, not standard input"
    )
    sub.add_argument(
        "--beam", type=counted(1), metavar="N", help="beam width (inference.beam_search.beam_width)"
    )
    add_fetch_argument(sub)


def add_trial_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "trial",
        type=trial,
        metavar="TRIAL",
        help="the trial's name or number, such as trial-00005 or 5",
    )


def debug(args: argparse.Namespace) -> int:
    hparams, corpus_spec, space = debug_configuration(args)
    from s2s_search.corpus.load import load_corpus

    where = args.space or (f"--run {args.of}" if args.of else "debug")
    if args.corpus and not args.of:
        where = "--corpus"
    try:
        if args.of is None or space is None:
            corpus = load_corpus(corpus_spec)
        else:
            corpus = run_corpus(args, space)
    except ConfigError as error:
        raise ConfigError(error.problems, error.where or str(where)) from None
    of_file = space if args.space and not args.corpus else None
    print_warnings(trial_warnings(corpus, corpus_spec, hparams.flat(), of_file), where)
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
    reports: Iterable[Any] = train(hparams, corpus, device)
    if args.out is not None:
        from s2s_search.runs.checkpoints import Checkpoints, keep_snapshots

        (args.out / CONFIG).write_text(json.dumps(hparams.flat(), indent=1) + "\n")
        metric = space.metric if space else METRICS["dev.loss"]
        resources = space.resources if space else Resources()
        text = trial_file(hparams, corpus_spec, metric, resources)
        (args.out / SPACE).write_text(text, encoding="utf-8")
        reports = keep_snapshots(reports, Checkpoints(args.out), metric.name, metric.goal)
    if not args.json:
        name = corpus_spec.get("name", "your corpus")
        print(f"{hparams.model} on {name}, {hparams['train.max_steps']} steps")
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
    if status == "diverged" and not args.json:
        print(
            "diverged: the loss is no longer finite; the last values are those of the worst model",
            file=sys.stderr,
        )
    return 0


def usable_threads(space: Space | None) -> int:
    """Returns the number of threads of a trial of the search, at most one for each usable core."""
    threads = space.resources.threads if space else 1
    cores = usable_cores()
    if threads > cores:
        print(
            f"a trial of the search has {threads} threads, but this process may use only {cores} "
            "cores, and takes one thread for each: numbers can differ in the last digits",
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


def report_line(metrics: Mapping[str, Any]) -> str:
    """Returns a report as one line: step 200 · train.loss 2.1 · dev.loss 2.0 · ..."""
    shown = [
        "train.loss",
        "dev.loss",
        "dev.error_rate",
        "dev.word_error_rate",
        "dev.bleu",
        "learning_rate",
    ]
    numbers = [f"{name} {metrics[name]:.4g}" for name in shown]
    return " · ".join([f"step {metrics['step']}", *numbers, f"{metrics['seconds']:.1f} s"])


def rerun(args: argparse.Namespace) -> int:
    from s2s_search.runs.inputs import corpus_of
    from s2s_search.runs.manifest import load_manifest
    from s2s_search.whatif.rerun import changes, compare_reports, train_again

    manifest = load_manifest(args.folder, args.trial, moved_corpus(args))
    if args.check and not manifest.reports:
        raise ConfigError(
            f"{manifest.trial} has no recorded report to compare with", str(args.folder)
        )
    # A corpus that has changed in its place is no error here: `changes` lists it below.
    fingerprint = None if args.corpus is None else manifest.fingerprint
    corpus = corpus_of(manifest.space, fingerprint, args.folder)

    def shown() -> Iterator[Mapping[str, Any]]:
        for metrics in train_again(manifest, corpus):
            print(report_line(metrics), flush=True)
            yield metrics

    if not args.check:
        for _ in shown():
            pass
        return 0
    found = compare_reports(manifest.reports, shown())
    print(f"{manifest.trial}: {found.sentence()}")
    changed = changes(manifest, corpus)
    if not changed:
        print("  nothing recorded has changed since: configuration, corpus, code, versions")
    for line in changed:
        print(f"  {line}")
    return 0 if found.difference is None else 1


def explain(args: argparse.Namespace) -> int:
    from s2s_search.runs import explain, state

    try:
        for line in explain.explain(state.load_history(args.folder), args.trial, args.folder):
            print(line)
    except ConfigError as error:
        raise ConfigError(error.problems, error.where or str(args.folder)) from None
    return 0


def decode(args: argparse.Namespace) -> int:
    path = checkpoint_path(args.folder, args.trial, args.fetch)
    where = "standard input" if args.input is None else f"--input {args.input}"
    with open_input(args.input) as file:
        from s2s_search.runs.storage import shown_place
        from s2s_search.training.trained_model import LINES_AT_ONCE, SourceNotes, load_trained

        settings = {"inference.beam_search.beam_width": args.beam} if args.beam else None
        trained = load_trained(path, settings)
        metric, value = trained.score
        delimiter = trained.delimiters[0]
        form = f"tokens separated by {delimiter!r}" if delimiter else "split into characters"
        end = ", until Ctrl-D" if file.isatty() else ""
        print(
            f"model: {shown_place(path)}, step {trained.step:,}, {metric} {value:.4g}; "
            f"input: one source per line, {form}{end}",
            file=sys.stderr,
            flush=True,
        )
        notes = SourceNotes(trained)
        try:
            for lines in ready_lines(file, where, LINES_AT_ONCE):
                for line in lines:
                    for sentence in notes.of(line):
                        print(f"{where}, {sentence}", file=sys.stderr, flush=True)
                for answer in trained.answers(lines):
                    print(answer)
                sys.stdout.flush()
        finally:
            for sentence in notes.total():
                print(f"{where}: {sentence}", file=sys.stderr)
    return 0


def checkpoint_path(folder: Path, number: int | None, fetch: bool = False) -> str:
    """Returns the path or URL of a checkpoint: that of trial `number`, or of the best trial."""
    from s2s_search.runs.folder import BEST

    if (folder / BEST).exists() and number is None:
        return str(folder / BEST)
    from s2s_search.results.kept import kept_checkpoints
    from s2s_search.results.results import load

    run = load(folder)
    if number is None:
        for _, path in kept_checkpoints(run, fetch=fetch):
            return path
        raise ConfigError("no trial has a checkpoint yet", where=str(folder))
    name = trial_name(number)
    if name not in set(run.trials.trial):
        raise ConfigError(no_trial(number, map(str, run.trials.trial)), where=str(folder))
    for _, path in kept_checkpoints(run, [name], fetch):
        return path
    raise ConfigError(
        f"{name} has no checkpoint: it made no report, or it is not among the best trials whose "
        "weights are kept (checkpoints.best)",
        where=str(folder),
    )


def open_input(path: Path | None) -> AbstractContextManager[io.BufferedIOBase]:
    """Opens a file, to be used in a `with`; None: standard input, which stays open after it."""
    if path is not None:
        try:
            return path.open("rb")
        except (OSError, ValueError) as error:
            raise ConfigError(unreadable(path, error), where=f"--input {path}") from None
    if sys.stdin is None:
        raise ConfigError("standard input is closed; name a file with --input FILE")
    file = cast(io.BufferedIOBase, sys.stdin.buffer)
    # OSError: it has no file descriptor, as in a test. AttributeError: Windows lacks set_blocking.
    with suppress(OSError, AttributeError):
        # Another process with the same pipe may have made it non-blocking.
        os.set_blocking(file.fileno(), True)
    return nullcontext(file)
