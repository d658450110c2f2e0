"""The command line: run_search.py VERB ...; the verbs themselves are in the modules beside this one.

Imports stand inside the verbs, so that each waits only for what it needs.
Exit status: 0; 1 when a search failed, or a trial that was run again gave other numbers; 2 for what the user can mend;
130 after Ctrl-C; a search also after a SIGTERM or a SIGHUP.
"""

import argparse
import io
import os
import sys
from collections.abc import Callable

from s2s_search.cli import results, searches, spaces, trials, whatif
from s2s_search.errors import ConfigError


def main(argv: list[str] | None = None) -> int:
    """Runs a command and returns its exit status."""
    prepare_streams()
    parser = make_parser()
    try:
        status = run_verb(parser, argv)
        sys.stdout.flush()
        return status
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe, such as head, has seen enough
        discard_output()
        return 0
    except OSError as error:
        if takes_output():
            raise
        discard_output()
        print(f"standard output: cannot be written: {error.strerror}", file=sys.stderr)
        return 2


def run_verb(parser: argparse.ArgumentParser, argv: list[str] | None) -> int:
    """Returns the exit status of the verb that the arguments name."""
    try:
        args = parser.parse_args(argv)
    except SystemExit as end:  # after --help, or a message about the arguments
        return int(end.code or 0)
    if args.verb is None:
        parser.print_help()
        return 0
    status: int = args.run(args)
    return status


def takes_output() -> bool:
    """Returns whether standard output can be written. It tries a line break: a failed write does not name its file."""
    try:
        print(flush=True)
    except OSError:
        return False
    return True


def discard_output() -> None:
    """Sends standard output to nowhere, so that Python's flush at the exit does not fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def prepare_streams() -> None:
    """Makes standard output and standard error take any text.

    Pipes and files get UTF-8, whatever the locale. A terminal keeps its encoding, and characters that this lacks are
    escaped. What is written to a closed stream is lost; `print` would write it to the other one.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8"))
        elif isinstance(stream, io.TextIOWrapper):
            encoding = stream.encoding if stream.isatty() else "utf-8"
            stream.reconfigure(encoding=encoding, errors="backslashreplace")


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="run_search.py",
        description="Searches the hyperparameters of recurrent sequence-to-sequence models.",
        epilog="Without a file, search runs search_spaces/quickstart.yaml: both models, on how English is pronounced.",
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", title="verbs")

    def verb(
        name: str, run: Callable[[argparse.Namespace], int], text: str
    ) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        sub.set_defaults(run=run)
        return sub

    for group in (spaces, trials, searches, results, whatif):
        group.add_verbs(verb)
    return parser


__all__ = ["main"]
