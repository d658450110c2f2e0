"""The command line: run_search.py VERB ...; the verbs are in the modules beside this one.

Each verb imports what it needs inside its function, so that no verb waits for another's libraries.

Exit status: 0: success. 1: a search failed, or `rerun --check` found other numbers.
2: the user can correct the error. 130: Ctrl-C; for a search also SIGTERM and SIGHUP.
"""

import argparse
import io
import os
import sys
from collections.abc import Callable

from s2s_search.cli import (
    corpora,
    debug,
    evaluations,
    exports,
    results,
    searches,
    spaces,
    trials,
    whatif,
)
from s2s_search.errors import ConfigError, started_as


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
    except BrokenPipeError:  # the reader of the pipe, such as `head`, has closed it
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
    except SystemExit as end:  # argparse has printed the help, or what is wrong
        return int(end.code or 0)
    if args.verb is None:
        parser.print_help()
        return 0
    status: int = args.run(args)
    return status


def takes_output() -> bool:
    """Returns whether standard output can be written.

    An OSError of a failed write does not name the file, so a line break is written as a test.
    """
    try:
        print(flush=True)
    except OSError:
        return False
    return True


def discard_output() -> None:
    """Redirects standard output to the null device, so that the flush at exit does not fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def prepare_streams() -> None:
    """Makes standard output and standard error accept any text.

    Pipes and files get UTF-8, whatever the locale. A terminal keeps its encoding; characters
    outside this encoding are escaped. A stream that was closed before the start is replaced by the
    null device: the next file that is opened would take its number and receive its text.
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
        prog=started_as()[-1],
        description="Searches the hyperparameters of recurrent sequence-to-sequence models.",
        epilog="Without a file, `search` runs the quickstart: both models learn to pronounce "
        "English words. FILE can also be the name of a search space that comes with the package, "
        "such as britz_2017/attention.",
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", title="verbs")

    def verb(
        name: str, run: Callable[[argparse.Namespace], int], text: str
    ) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        sub.set_defaults(run=run)
        return sub

    for group in (spaces, corpora, debug, trials, searches, results, evaluations, exports, whatif):
        group.add_verbs(verb)
    return parser


__all__ = ["main"]
