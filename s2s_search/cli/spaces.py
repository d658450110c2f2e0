"""Verbs about search spaces: check · sample · plan."""

import argparse
import json
import shlex
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from s2s_search.cli.arguments import (
    AddVerb,
    add_draw_arguments,
    counted,
    overrides,
    print_json,
    print_note_of_draws,
    print_warnings,
)
from s2s_search.errors import ConfigError, collecting, quantity, started_as
from s2s_search.runs.folder import trial_name
from s2s_search.spaces.load import load_space
from s2s_search.spaces.space import Space
from s2s_search.spaces.warnings import BLEU, space_warnings

if TYPE_CHECKING:
    from s2s_search.corpus.corpus import Corpus


def add_verbs(verb: AddVerb) -> None:
    sub = verb(
        "check",
        check,
        "check search-space files: print every problem and warning with its file and line",
    )
    sub.add_argument("files", nargs="+", type=Path, metavar="FILE")
    sub.add_argument(
        "--strict", action="store_true", help="exit with status 2 also if there is a warning"
    )
    sub.add_argument("--json", action="store_true", help="print one JSON object per file")

    sub = verb("sample", sample, "print the configurations that a search would try")
    sub.add_argument("file", type=Path, metavar="FILE")
    sub.add_argument(
        "-n",
        dest="trials",
        type=counted(1),
        metavar="N",
        help="print N configurations (default: all that a search runs)",
    )
    add_draw_arguments(sub)
    sub.add_argument("--json", action="store_true", help="print one JSON object per configuration")

    sub = verb("plan", plan, "estimate what a search will cost: steps, hours, memory, disk")
    sub.add_argument("file", type=Path, metavar="FILE")
    sub.add_argument(
        "--gpus",
        type=counted(1),
        metavar="N",
        help="plan for a cluster with N GPUs, not for this machine",
    )
    sub.add_argument(
        "--trials",
        type=counted(1),
        metavar="N",
        help="draw N configurations, not the number in the file",
    )
    add_draw_arguments(sub)
    sub.add_argument(
        "--no-probe",
        action="store_true",
        help="train nothing; hours and measured memory are then left out",
    )
    sub.add_argument("--json", action="store_true", help="print one JSON object")


def check(args: argparse.Namespace) -> int:
    status = 0
    for path in args.files:
        try:
            space = load_space(path)
            trials = space.trials()
            warnings = space_warnings(space, corpus_to_check(space), trials)
        except ConfigError as error:
            print(error, file=sys.stderr)
            status = 2
            if args.json:
                problems = list(error.problems)
                print_json({"file": str(path), "ok": False, "problems": problems, "warnings": []})
            continue
        print_warnings(warnings, path)
        if warnings and args.strict:
            status = 2
        if args.json:
            found = {"trials": len(trials), "models": space.models, "searched": space.searched}
            rows = [warning.row() for warning in warnings]
            print_json({"file": str(path), "ok": True, "problems": [], "warnings": rows} | found)
        else:
            models, searched = " and ".join(space.models), ", ".join(space.searched) or "nothing"
            print(f"{path}: ok: {quantity(len(trials), 'trial')} of {models}, searching {searched}")
    return status


def corpus_to_check(space: Space) -> "Corpus | None":
    """Loads the corpus, so that `check` also finds problems such as unequal numbers of lines.

    Returns None for cmudict where the space sets neither lengths nor BLEU: then nothing in it can
    be wrong, and without numpy, which reading it imports, `check` is several times as fast.
    """
    from s2s_search.corpus.load import load_corpus

    measured = {"source.max_seq_len", "target.max_seq_len", BLEU}
    named = {dimension.key for dimension in space.dimensions}
    named |= {objective.name for objective in space.objectives}
    if space.corpus.get("name") == "cmudict" and not measured & named:
        return None
    try:
        return load_corpus(space.corpus)
    except ConfigError as error:
        raise ConfigError(error.problems, where=error.where or str(space.path)) from None


def sample(args: argparse.Namespace) -> int:
    space = load_space(args.file)
    trials = space.trials(args.trials, args.seed, overrides(args))[: args.trials]
    if len(trials) > 1:
        print_note_of_draws(space)
    if args.json:
        for config in trials:
            print_json(config)
        return 0
    constant: dict[str, object] = {}
    if len(trials) > 1:
        for key, value in trials[0].items():
            if all(trial.get(key) == value for trial in trials):
                constant[key] = value
    if constant:
        print("in every trial:", settings_line(constant))
    for k, config in enumerate(trials):
        differing = {key: value for key, value in config.items() if key not in constant}
        print(f"{trial_name(k)}:", settings_line(differing))
    return 0


def settings_line(config: Mapping[str, object]) -> str:
    words = []
    for key, value in config.items():
        text = json.dumps(value) if isinstance(value, dict) else value
        words.append(f"{key}={text}")
    return " ".join(words)


def plan(args: argparse.Namespace) -> int:
    from s2s_search.corpus.load import load_corpus
    from s2s_search.whatif.plan import make_plan

    space = load_space(args.file)
    problems: list[str] = []
    with collecting(problems, where=str(space.path)):
        trials = space.trials(args.trials, args.seed, overrides(args))
    with collecting(problems):
        corpus = load_corpus(space.corpus)
    if problems:
        raise ConfigError(problems, where=str(args.file))
    fixed = space.fixed(overrides(args)) if args.hparams else space
    warnings = space_warnings(fixed, corpus, trials)
    print_warnings(warnings, args.file)
    made = make_plan(space, corpus, trials, gpus=args.gpus, probed=not args.no_probe)
    command = search_command(args, "auto" if args.gpus and made.resources.gpu else None)
    if args.json:
        rows = [warning.row() for warning in warnings]
        print_json(asdict(made) | {"command": command, "warnings": rows})
    else:
        for heading, text in made.lines():
            print(f"{heading:<13}{text}")
        print(f"{'start':<13}{command}")
    if made.problems:
        raise ConfigError(made.problems, where=str(args.file))
    return 0


def search_command(args: argparse.Namespace, address: str | None) -> str:
    """Returns the command that starts the search that `plan` was asked about."""
    given = {
        "--trials": args.trials,
        "--seed": args.seed,
        "--hparams": args.hparams,
        "--address": address,
    }
    words = [*started_as(), "search", str(args.file)]
    for option, value in given.items():
        if value is not None:
            words += [option, str(value)]
    return shlex.join(words)
