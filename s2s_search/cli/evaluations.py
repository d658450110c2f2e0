"""The verb that measures trained models, on dev or once on the test part: evaluate."""

import argparse
import sys
from typing import TYPE_CHECKING

from s2s_search.cli.arguments import (
    AddVerb,
    add_corpus_argument,
    add_fetch_argument,
    add_model_arguments,
    check_ensemble,
    counted,
    moved_corpus,
    print_json,
    trial,
)
from s2s_search.errors import ConfigError, collecting, quantity
from s2s_search.metrics import MEASURED_SPLITS
from s2s_search.runs.folder import EVALUATIONS

if TYPE_CHECKING:
    from s2s_search.corpus.corpus import Corpus
    from s2s_search.runs.evaluations import Evaluated, Evaluation
    from s2s_search.whatif.evaluate import Chosen


def add_verbs(verb: AddVerb) -> None:
    sub = verb(
        "evaluate",
        evaluate,
        "measure the best configuration on all of dev or test, with intervals over seeds and "
        "examples",
    )
    add_model_arguments(sub)
    sub.add_argument(
        "--split",
        choices=MEASURED_SPLITS,
        default="dev",
        help="the part of the corpus (default: dev). Look at test once, after the choice",
    )
    sub.add_argument(
        "--trial",
        type=trial,
        nargs="+",
        default=[],
        metavar="K",
        help="evaluate the configurations of these trials: names or numbers (default: the best)",
    )
    sub.add_argument(
        "--beam", type=counted(1), metavar="N", help="beam width (inference.beam_search.beam_width)"
    )
    sub.add_argument("--json", action="store_true", help="print one JSON object per configuration")
    add_corpus_argument(sub)
    add_fetch_argument(sub)
    sub.epilog = (
        "The replicates of a configuration are measured, in the run folders beside DIR. Without "
        "replicates it is the trial itself. Each evaluation is kept in DIR, and those of the test "
        "part are counted."
    )


def evaluate(args: argparse.Namespace) -> int:
    from s2s_search.runs.evaluations import keep_evaluation, load_evaluations
    from s2s_search.runs.exported import is_exported
    from s2s_search.runs.folder import check_writable
    from s2s_search.whatif import evaluate as evaluation

    check_ensemble(args)
    problems: list[str] = []
    where = str(args.folder)
    if is_exported(args.folder):
        chosen, corpus = exported_model(args, problems)
    else:
        chosen, corpus = models_of_runs(args, problems)
    with collecting(problems, where=where):
        check_writable(args.folder / EVALUATIONS)
    if problems or corpus is None:
        raise ConfigError(problems, where)
    for each in chosen:
        for line in each.about(args.folder):
            print(line, file=sys.stderr if args.json else sys.stdout, flush=True)

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    found = evaluation.evaluate(chosen, corpus, args.split, args.beam, say)
    before = load_evaluations(args.folder)
    try:
        keep_evaluation(args.folder, found)
    finally:  # the numbers are not lost where the disk is full
        print_evaluation(found, [*before, found], args)
    if not args.json:
        print(f"kept in {args.folder / EVALUATIONS}")
    return 0


def models_of_runs(
    args: argparse.Namespace, problems: list[str]
) -> "tuple[list[Chosen], Corpus | None]":
    """Returns the models of a run folder, or an ensemble, and the corpus of the search."""
    from s2s_search.runs.debug_runs import debug_history, is_debug_run
    from s2s_search.runs.inputs import corpus_of, space_of
    from s2s_search.runs.state import load_history
    from s2s_search.whatif import evaluate as evaluation

    of_debug_run = is_debug_run(args.folder)
    history = debug_history(args.folder) if of_debug_run else load_history(args.folder)
    where = str(args.folder)
    chosen, corpus = [], None
    with collecting(problems, where=where):
        if args.ensemble is not None:
            folders = [args.folder, *args.others]
            chosen = [evaluation.choose_ensemble(folders, args.ensemble, args.fetch)]
        elif of_debug_run:
            for number in args.trial:
                history.trial(number)
            chosen = [evaluation.choose_debug_run(args.folder)]
        else:
            chosen = evaluation.choose(args.folder, args.trial, args.fetch)
    with collecting(problems, where=where):
        space = space_of(history, args.folder, moved_corpus(args))
        corpus = corpus_of(space, history.fingerprint or None, args.folder)
        evaluation.part_of(corpus, args.split, args.folder)
    if history.is_running and not problems:
        print(f"{args.folder} is still running: what follows may change", file=sys.stderr)
    return chosen, corpus


def exported_model(
    args: argparse.Namespace, problems: list[str]
) -> "tuple[list[Chosen], Corpus | None]":
    """Returns the model of an exported folder, and the corpus that it was trained with."""
    from s2s_search.runs.exported import read_description
    from s2s_search.runs.inputs import moved, recorded_corpus
    from s2s_search.whatif import evaluate as evaluation

    described = read_description(args.folder)
    corpus = None
    with collecting(problems, where=str(args.folder)):
        spec = moved(described.corpus, moved_corpus(args) or described.corpus)
        corpus = recorded_corpus(spec, described.fingerprint or None, args.folder)
        evaluation.part_of(corpus, args.split, args.folder)
    return [evaluation.choose_exported(args.folder, described)], corpus


def print_evaluation(
    found: "Evaluation", every: "list[Evaluation]", args: argparse.Namespace
) -> None:
    """Prints the numbers of an evaluation, given all evaluations of the run folder with it."""
    from s2s_search.runs.evaluations import looks

    for evaluated in found.trials:
        if args.json:
            print_json(as_row(found, evaluated) | {"looks": looks(every)})
        else:
            print_table(found, evaluated)
    if found.split == "test" and not args.json:
        count = looks(every)
        times = "once" if count == 1 else f"{count} times"
        print(f"the test part of this corpus has been looked at {times} in this run folder")


def print_table(found: "Evaluation", evaluated: "Evaluated") -> None:
    from s2s_search.results.evaluations import decoding

    seeds = len(evaluated.models)
    over = "sources" if seeds == 1 else f"{seeds} seeds and the sources"
    what = f"{quantity(found.examples, f'{found.split} source')}, {decoding(evaluated.beam)}"
    whose = evaluated.trial
    if evaluated.ensemble > 1:
        whose = f"the ensemble of {evaluated.ensemble}"
    print(f"\n{whose} on {what}, with the 95 % interval over {over}")
    for name, metric in evaluated.metrics.items():
        interval = "no interval"
        if metric.low is not None and metric.high is not None:
            interval = f"{metric.low:.4g} to {metric.high:.4g}"
        print(f"  {name:<22}{metric.value:<11.4g}{interval}")
    if seeds == 1 and evaluated.ensemble == 1:
        print("  one seed: the interval says nothing about other seeds")


def as_row(found: "Evaluation", evaluated: "Evaluated") -> dict[str, object]:
    """Returns an evaluated configuration as --json prints it."""
    models: list[dict[str, object]] = []
    for model in evaluated.models:
        models.append(
            {"run": model.run, "trial": model.trial, "seed": model.seed, "step": model.step}
        )
        for other in model.others:
            models.append({"run": other.run, "trial": other.trial, "step": other.step})
    row: dict[str, object] = {
        "trial": evaluated.trial,
        "ensemble": evaluated.ensemble,
        "split": found.split,
        "examples": found.examples,
        "beam": evaluated.beam,
        "fresh": evaluated.fresh,
        "models": models,
    }
    for name, metric in evaluated.metrics.items():
        row |= {name: metric.value, f"{name}.low": metric.low, f"{name}.high": metric.high}
    return row
