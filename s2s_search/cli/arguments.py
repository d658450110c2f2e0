"""What the arguments of several verbs have in common."""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from s2s_search.corpus.text import place_of
from s2s_search.errors import ConfigError, InputWarning, shown
from s2s_search.hparams.arguments import FLOAT, REQUIRED, Argument
from s2s_search.hparams.configuration import parse_hparams
from s2s_search.hparams.values import convert
from s2s_search.runs.folder import trial_number
from s2s_search.spaces.yaml_file import parse_corpus

if TYPE_CHECKING:
    import pandas as pd

LARGEST = 2**32 - 1  # also the largest seed
POSITIVE = Argument("", FLOAT, REQUIRED, above=0)
AddVerb = Callable[
    [str, Callable[[argparse.Namespace], int], str], argparse.ArgumentParser
]  # name, function, help


def add_cluster_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--address",
        metavar="A",
        help='join the Ray cluster at A, such as "auto" on one of its nodes',
    )


def add_draw_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--seed", type=counted(0), metavar="S", help="draw with another seed than the file's"
    )
    parser.add_argument(
        "--hparams",
        metavar="H",
        help='hyperparameters that win over all others: "optimizer.name=SGD,..." or a JSON object',
    )


def add_corpus_argument(parser: argparse.ArgumentParser) -> None:
    text = "where the search's corpus lies now: {train: [A, B], dev: [C, D], ...}, or the file of a search space"
    parser.add_argument("--corpus", metavar="C", help=text)


def add_fetch_argument(parser: argparse.ArgumentParser) -> None:
    text = "read what lies at the URL that the run's log names (--storage), with your credentials"
    parser.add_argument("--fetch", action="store_true", help=text)


def moved_corpus(args: argparse.Namespace) -> dict[str, object] | None:
    """The place that --corpus names; None where it is as the search had it."""
    return None if args.corpus is None else parse_corpus(args.corpus)


def overrides(args: argparse.Namespace) -> dict[str, object]:
    if args.hparams is None:
        return {}
    try:
        return dict(parse_hparams(args.hparams))
    except ConfigError as error:
        raise ConfigError(error.problems, where="--hparams") from None


class counted:
    """An argument that is a whole number of at least `minimum`, and at most LARGEST."""

    def __init__(self, minimum: int) -> None:
        self.minimum = minimum

    def __call__(self, text: str) -> int:
        is_short = (
            text.isascii() and text.isdecimal() and len(text) <= len(str(LARGEST))
        )  # Python reads no number of thousands of digits
        if not is_short or not self.minimum <= int(text) <= LARGEST:
            law = f"must be a whole number of at least {self.minimum} and at most {LARGEST}"
            raise argparse.ArgumentTypeError(f"{law}, but got {shown(text)}")
        return int(text)


def trial(text: str) -> int:
    """An argument that names a trial: trial-00005, 00005 or 5."""
    number = trial_number(text)
    if number is None or number > LARGEST:
        law = "must be a trial's name or its number from 0, such as trial-00005 or 5"
        raise argparse.ArgumentTypeError(f"{law}, but got {shown(text)}")
    return number


def positive(text: str) -> float:
    """An argument that is a number above zero."""
    try:
        return float(str(convert(POSITIVE, text)))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def listed(text: str) -> list[str]:
    """An argument that is names with commas between them; of empty text none."""
    names = [name.strip() for name in text.split(",")] if text.strip() else []
    if "" in names:
        raise argparse.ArgumentTypeError(
            f"must be names with commas between them, but got {shown(text)}"
        )
    return list(dict.fromkeys(names))


def print_warnings(warnings: Iterable[InputWarning], where: object) -> None:
    """Prints a line on standard error for each warning: of a search-space file, or of an argument."""
    for warning in warnings:
        print(f"{where}: {place_of([warning.at])}warning: {warning}", file=sys.stderr)


def print_json(row: Mapping[str, object]) -> None:
    print(json.dumps(row, ensure_ascii=False, default=str), flush=True)


def print_rows(table: "pd.DataFrame") -> None:
    """Prints a JSON object a row, with null where a value is missing."""
    for row in table.astype(object).where(table.notna(), None).to_dict("records"):
        print_json({str(column): value for column, value in row.items()})
