"""Verbs about a trial of a run folder: rerun · explain · decode."""

import argparse
import io
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any, cast

from s2s_search.cli.arguments import (
    AddVerb,
    add_corpus_argument,
    add_fetch_argument,
    counted,
    moved_corpus,
    report_line,
    trial,
)
from s2s_search.corpus.text import ready_lines
from s2s_search.errors import ConfigError, unreadable
from s2s_search.runs.folder import no_trial, trial_name


def add_verbs(verb: AddVerb) -> None:
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
