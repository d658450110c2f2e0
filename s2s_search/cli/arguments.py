"""Arguments that several verbs have, their types, and how results are printed."""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s2s_search.corpus.text import line_prefix
from s2s_search.errors import ConfigError, InputWarning, shown
from s2s_search.hparams.arguments import FLOAT, REQUIRED, Argument
from s2s_search.hparams.configuration import parse_hparams
from s2s_search.hparams.values import convert
from s2s_search.runs.folder import trial_number
from s2s_search.spaces.yaml_file import parse_corpus

if TYPE_CHECKING:
    import pandas as pd

    from s2s_search.spaces.space import Space

LARGEST_NUMBER = 2**32 - 1  # the largest number that an argument may be; numpy takes no larger seed
POSITIVE = Argument("", FLOAT, REQUIRED, above=0)

# A function that adds a verb to the command line, from its name, its function and its help.
AddVerb = Callable[[str, Callable[[argparse.Namespace], int], str], argparse.ArgumentParser]


def add_cluster_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--address",
        metavar="A",
        help='join the Ray cluster at address A; "auto" on one of its nodes',
    )


def add_draw_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--seed", type=counted(0), metavar="S", help="draw with this seed, not the file's"
    )
    parser.add_argument(
        "--hparams",
        metavar="H",
        help="hyperparameters that override the file and the defaults: "
        '"optimizer.name=SGD,..." or a JSON object',
    )


def add_corpus_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--corpus",
        metavar="C",
        help="the new place of the search's corpus, if it was moved: "
        "{train: [A, B], dev: [C, D], ...}, or a search-space file that names it",
    )


def add_fetch_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--fetch",
        action="store_true",
        help="also read what the search saved at a URL (its --storage), with your credentials",
    )


def add_ensemble_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "others", nargs="*", type=Path, metavar="DIR", help="with --ensemble: more run folders"
    )
    parser.add_argument(
        "--ensemble",
        type=counted(1),
        metavar="K",
        help="average the distributions of the K best checkpoints of all DIR at each step",
    )


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that name a model of any kind, or an ensemble."""
    parser.add_argument(
        "folder",
        type=Path,
        metavar="DIR",
        help="a run folder, the folder of a debug run, or that of an exported model",
    )
    add_ensemble_arguments(parser)


def check_ensemble(args: argparse.Namespace) -> None:
    """Raises ConfigError when the arguments of an ensemble do not go together."""
    from s2s_search.runs.exported import is_exported

    problems = []
    chooses = args.others or args.ensemble is not None or args.trial not in (None, [])
    for folder in (args.folder, *args.others):
        if chooses and is_exported(folder):
            law = "is an exported model, which answers as a whole"
            problems.append(f"{folder}: {law}, without --ensemble, --trial and other folders")
    if problems:
        raise ConfigError(problems)
    if args.others and args.ensemble is None:
        law = "several run folders make an ensemble"
        problems.append(f"{law}; add --ensemble K, such as --ensemble {1 + len(args.others)}")
    if args.ensemble is not None and args.trial not in (None, []):
        problems.append("--ensemble chooses the trials by itself, so --trial cannot name them")
    if problems:
        raise ConfigError(problems)


def moved_corpus(args: argparse.Namespace) -> dict[str, object] | None:
    """Returns the corpus that --corpus names; None without --corpus."""
    return None if args.corpus is None else parse_corpus(args.corpus)


def overrides(args: argparse.Namespace) -> dict[str, object]:
    """Returns the hyperparameters that --hparams gives."""
    if args.hparams is None:
        return {}
    try:
        return dict(parse_hparams(args.hparams))
    except ConfigError as error:
        raise ConfigError(error.problems, where="--hparams") from None


class counted:
    """An argument that is a whole number of at least `minimum`, and at most LARGEST_NUMBER."""

    def __init__(self, minimum: int) -> None:
        self.minimum = minimum

    def __call__(self, text: str) -> int:
        # The length is checked first: int() raises an error of its own for thousands of digits.
        if text.isascii() and text.isdecimal() and len(text) <= len(str(LARGEST_NUMBER)):
            number = int(text)
            if self.minimum <= number <= LARGEST_NUMBER:
                return number
        law = f"must be a whole number of at least {self.minimum} and at most {LARGEST_NUMBER}"
        raise argparse.ArgumentTypeError(f"{law}, but got {shown(text)}")


def trial(text: str) -> int:
    """Returns the number of the trial that an argument names: trial-00005, 00005 or 5."""
    number = trial_number(text)
    if number is None or number > LARGEST_NUMBER:
        law = "must be a trial's name or its number from 0, such as trial-00005 or 5"
        raise argparse.ArgumentTypeError(f"{law}, but got {shown(text)}")
    return number


def positive_number(text: str) -> float:
    """Returns an argument as a number above zero."""
    try:
        return float(str(convert(POSITIVE, text)))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def comma_separated(text: str) -> list[str]:
    """Returns the names in an argument, which are separated by commas. Empty text has no names."""
    if not text.strip():
        return []
    names = [name.strip() for name in text.split(",")]
    if "" in names:
        raise argparse.ArgumentTypeError(
            f"must be names separated by commas, but got {shown(text)}"
        )
    return list(dict.fromkeys(names))


def print_warnings(warnings: Iterable[InputWarning], where: object) -> None:
    """Prints warnings on standard error, one per line; `where` is a file or an option."""
    for warning in warnings:
        print(f"{where}: {line_prefix([warning.at])}warning: {warning}", file=sys.stderr)


def print_note_of_draws(space: "Space") -> None:
    """Says on standard error that a search need not run the draws, if something learns."""
    if space.learner is not None:
        law = f"{space.learner} chooses later trials by the results of earlier ones"
        print(f"note: in a search, {law}; these are the random draws", file=sys.stderr)


def print_json(row: Mapping[str, object]) -> None:
    print(json.dumps(row, ensure_ascii=False, default=str), flush=True)


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


def print_rows(table: "pd.DataFrame") -> None:
    """Prints one JSON object per row, with null for a missing value."""
    for row in table.astype(object).where(table.notna(), None).to_dict("records"):
        print_json({str(column): value for column, value in row.items()})
