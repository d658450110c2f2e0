"""Verbs about a trial of a run folder: rerun · explain · decode."""

import argparse
import io
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from s2s_search.cli.arguments import (
    AddVerb,
    add_corpus_argument,
    add_fetch_argument,
    add_model_arguments,
    check_ensemble,
    counted,
    moved_corpus,
    report_line,
    trial,
)
from s2s_search.corpus.text import ready_lines, text_form
from s2s_search.errors import ConfigError, collecting, unreadable
from s2s_search.runs.folder import check_writable, no_trial, trial_name

if TYPE_CHECKING:
    from s2s_search.training.answer_form import AnswerForm
    from s2s_search.training.trained_model import TrainedModel


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
    add_model_arguments(sub)
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
    sub.add_argument(
        "--n-best",
        type=counted(1),
        metavar="K",
        help="write the K best answers to each line, at most the beam width: the line's number, "
        "the rank and the answer, separated by tabs",
    )
    sub.add_argument(
        "--scores",
        action="store_true",
        help="write the score of an answer and a tab before it: its log probability, divided by "
        "the length penalty",
    )
    sub.add_argument(
        "--unk-replace",
        action="store_true",
        help="replace each UNK of an answer by the source token that the model attended to most",
    )
    sub.add_argument(
        "--unk-map",
        type=Path,
        metavar="FILE",
        help="with --unk-replace: what replaces UNK in place of some source tokens; lines of a "
        "source token, a tab and its replacement",
    )
    sub.add_argument(
        "--attention",
        type=Path,
        metavar="FILE.npz",
        help="write the attention weights of each answer to a NumPy file",
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
    paths = checkpoint_paths(args)
    where = "standard input" if args.input is None else f"--input {args.input}"
    with ExitStack() as stack:
        file = stack.enter_context(open_input(args.input))
        from s2s_search.runs.storage import shown_place
        from s2s_search.training.attention_file import attention_file
        from s2s_search.training.ensemble import load_ensemble
        from s2s_search.training.trained_model import LINES_AT_ONCE, SourceNotes

        settings = {"inference.beam_search.beam_width": args.beam} if args.beam else None
        trained = load_ensemble(paths, settings)
        form = checked_form(args, trained)
        keep_attention = None
        if args.attention is not None:
            keep_attention = stack.enter_context(attention_file(args.attention))
        metric, value = trained.score
        read_as = text_form(trained.delimiters[0])
        end = ", until Ctrl-D" if file.isatty() else ""
        whose = "model"
        if len(trained.steps) > 1:
            whose = f"the best of {len(trained.steps)} models"
        if len(paths) > 1:
            print(f"ensemble of {len(paths)} models, the best first:", file=sys.stderr)
            for path in paths:
                print(f"  {shown_place(path)}", file=sys.stderr)
        print(
            f"{whose}: {shown_place(paths[0])}, step {trained.step:,}, {metric} {value:.4g}; "
            f"input: one source per line, {read_as}{end}",
            file=sys.stderr,
            flush=True,
        )
        notes = SourceNotes(trained)
        number = 0
        problem: ConfigError | None = None
        try:
            for lines in ready_lines(file, where, LINES_AT_ONCE):
                for line in lines:
                    for sentence in notes.of(line):
                        print(f"{where}, {sentence}", file=sys.stderr, flush=True)
                for line, ranked in zip(lines, form.ranked(lines), strict=True):
                    number += 1
                    for row in form.rows(number, line, ranked):
                        print(row)
                    weights = ranked[0].weights
                    if keep_attention is not None and weights is not None:
                        keep_attention(weights)
                sys.stdout.flush()
        except ConfigError as error:  # of lines that cannot be read
            problem = error
        finally:
            for sentence in notes.total():
                print(f"{where}: {sentence}", file=sys.stderr)
    if problem is not None:
        raise problem
    return 0


def checked_form(args: argparse.Namespace, trained: "TrainedModel") -> "AnswerForm":
    """Returns the form of the answers that the arguments ask for.

    Raises:
        ConfigError: with all reasons why the model cannot give such answers.
    """
    from s2s_search.training.answer_form import AnswerForm
    from s2s_search.training.unk_replacement import load_replacements

    problems: list[str] = []
    width = trained.hparams["inference.beam_search.beam_width"]
    if args.n_best is not None and args.n_best > width:
        problems.append(
            f"--n-best {args.n_best}: must be at most the beam width, which is {width}; "
            f"--beam {args.n_best} widens it"
        )
    for option, is_given in (("--unk-replace", args.unk_replace), ("--attention", args.attention)):
        if is_given and trained.without_attention:
            models = " and ".join(trained.without_attention)
            problems.append(f"{option}: needs the weights of attention, and {models} has none")
    replacements = None
    if args.unk_map is not None and not args.unk_replace:
        problems.append(f"--unk-map {args.unk_map}: does nothing without --unk-replace")
    elif args.unk_map is not None:
        with collecting(problems, "--unk-map "):
            replacements = load_replacements(args.unk_map, trained.delimiters)
    if args.attention is not None:
        with collecting(problems, "--attention "):
            check_writable(args.attention)
    if problems:
        raise ConfigError(problems, where=str(args.folder))
    return AnswerForm(
        trained,
        count=args.n_best,
        scores=args.scores,
        unk_replace=args.unk_replace,
        replacements=replacements or {},
        attention=args.attention is not None,
    )


def checkpoint_paths(args: argparse.Namespace) -> list[str]:
    """Returns the paths or URLs of the checkpoints that the arguments name, the best first.

    The folder of an exported model is its own place.
    """
    from s2s_search.runs.exported import is_exported

    check_ensemble(args)
    if is_exported(args.folder):
        return [str(args.folder)]
    if args.ensemble is None:
        return [checkpoint_path(args.folder, args.trial, args.fetch)]
    from s2s_search.results.kept import best_kept

    kept = best_kept([args.folder, *args.others], args.ensemble, args.fetch)
    return [each.place for each in kept]


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
