"""The verb about corpora: corpus."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from s2s_search.cli.arguments import AddVerb, print_json, print_warnings
from s2s_search.corpus.built_in import BUILT_IN
from s2s_search.corpus.load import load_corpus
from s2s_search.corpus.text import text_form
from s2s_search.errors import ConfigError, percent, printable, quantity, shown
from s2s_search.spaces.dimensions import Flat
from s2s_search.spaces.load import load_space
from s2s_search.spaces.warnings import corpus_warnings, least_limit
from s2s_search.spaces.yaml_file import parse_corpus

if TYPE_CHECKING:
    from s2s_search.corpus.description import Description, SideOfPart

LONGEST_EXAMPLE = 60  # the number of characters of an example's side that are shown


def add_verbs(verb: AddVerb) -> None:
    sub = verb(
        "corpus",
        corpus,
        "say what a corpus is: sizes, lengths, vocabularies, unknown tokens, overlap, examples",
    )
    sub.add_argument(
        "file",
        metavar="FILE",
        help="a search-space file, whose corpus and max_seq_len count; or a corpus as debug "
        "--corpus takes it: cmudict | copy | reverse, or {train: FILE, dev: FILE, ...}",
    )
    sub.add_argument("--json", action="store_true", help="print one JSON object")


def corpus(args: argparse.Namespace) -> int:
    text: str = args.file
    if text in BUILT_IN or text.lstrip().startswith("{"):
        spec, space, trials = parse_corpus(text, "corpus"), None, [Flat()]
    elif Path(text).is_file() and Path(text).suffix not in (".yaml", ".yml"):
        law = "a search space ends in .yaml; for a file of pairs give the corpus as"
        raise ConfigError(f"{law} '{{train: {text}, dev: {{hold_out: 0.05}}}}'", text)
    else:
        space = load_space(text)
        spec, trials = space.corpus, space.trials()
    where = "corpus" if space is None else str(space.path)
    try:
        loaded = load_corpus(spec)
    except ConfigError as error:
        raise ConfigError(error.problems, error.where or where) from None
    from s2s_search.corpus.description import describe

    limits = {side: least_limit(f"{side}.max_seq_len", trials) for side in ("source", "target")}
    found = describe(loaded, limits)
    warnings = corpus_warnings(loaded, spec, trials, space)
    print_warnings(warnings, where)
    if args.json:
        rows = [warning.row() for warning in warnings]
        print_json({**asdict(found), "fingerprint": loaded.fingerprint, "warnings": rows})
    else:
        for line in lines_of(found):
            print(printable(line))
    return 0


def lines_of(found: "Description") -> list[str]:
    """Returns the lines that are printed about a corpus."""
    source, target = map(text_form, found.delimiters)
    lines = [f"{found.name}: sources: {source}; targets: {target}", ""]
    lines += table(found)
    lines.append("")
    for side, use in found.vocabularies.items():
        facts = f"{quantity(use.size, 'token')}, {use.once:,} of them once in train"
        if use.unused:
            facts += f", {use.unused:,} not in train"
        frequent = " ".join(f"{shown(token)} {count:,}" for token, count in use.most_frequent)
        lines.append(f"{side} vocabulary: {facts}; most frequent: {frequent}")
    lines += ["", "examples of train, with a space between tokens"]
    for source_tokens, target_tokens in found.examples:
        lines.append(f"  {shortened(source_tokens)} -> {shortened(target_tokens)}")
    return lines


def table(found: "Description") -> list[str]:
    """Returns the facts about the parts as lines of text, with a column for each part."""
    parts = found.parts
    rows = [["", *parts]]
    rows.append(["pairs", *(f"{part.pairs:,}" for part in parts.values())])
    rows.append(["different sources", *(f"{part.sources:,}" for part in parts.values())])
    if any(part.groups < part.pairs for part in parts.values()):
        rows.append(["groups of references", *(f"{part.groups:,}" for part in parts.values())])
    rows.append(["repeated pairs", *(share(part.repeated, part.pairs) for part in parts.values())])
    for other in ("train", "dev"):
        row = [f"sources that {other} has, too"]
        for part in parts.values():
            row.append(share(part.shared[other], part.sources) if other in part.shared else "-")
        if set(row[1:]) != {"-"}:
            rows.append(row)
    for side, limit in found.limits.items():
        sides = {name: part.sides[side] for name, part in parts.items()}
        rows += side_rows(side, sides, limit)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for label, *cells in rows:
        padded = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        lines.append("  ".join([label.ljust(widths[0]), *padded]).rstrip())
    return lines


def side_rows(side: str, sides: Mapping[str, "SideOfPart"], limit: int) -> list[list[str]]:
    """Returns the rows of the table about one side."""
    rows = [
        [f"{side} tokens", *(f"{one.tokens:,}" for one in sides.values())],
        ["  unknown", *(share(one.unknown, one.tokens) for one in sides.values())],
        ["  length: median", *(f"{one.median:,}" for one in sides.values())],
        ["  length: 99 of 100 have at most", *(f"{one.most:,}" for one in sides.values())],
        ["  length: longest", *(f"{one.longest:,}" for one in sides.values())],
    ]
    if any(one.empty for one in sides.values()):
        rows.append(["  empty", *(f"{one.empty:,}" for one in sides.values())])
    cut = [f"{one.cut:,}" if name == "train" else "-" for name, one in sides.items()]
    rows.append([f"  cut by {side}.max_seq_len = {limit}", *cut])
    return rows


def share(count: int, total: int) -> str:
    """Returns a count with its share of a total, such as "12 (0.3 %)"."""
    return f"{count:,} ({percent(count, total)})" if count else "0"


def shortened(tokens: Sequence[str]) -> str:
    """Returns tokens with a space between them, of which a long text shows the beginning."""
    text = " ".join(tokens)
    return text if len(text) <= LONGEST_EXAMPLE else text[: LONGEST_EXAMPLE - 4] + " ..."
