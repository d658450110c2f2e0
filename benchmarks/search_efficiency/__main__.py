"""Compares search methods of other tools over recorded curves: rows of `replay --league`.

    pip install -e ".[benchmarks]"
    python -m benchmarks.search_efficiency benchmarks/curves/cmudict --orders 20

Each method prints a line of JSON. The simulated search is that of `replay --league`. The
recorded configuration nearest to a proposal trains, of those that have not begun.
"""

import argparse
import importlib
import json
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

from s2s_search.errors import nearest
from s2s_search.whatif.league import Method, league_row, orders_of, raced
from s2s_search.whatif.pool import TARGETS, Pool, load_pool

TOOLS = ("optuna", "syne_tune", "smac", "neps")


def installed() -> dict[str, Callable[[Pool, int], Method]]:
    """Returns the methods of the tools that are installed, by name."""
    methods: dict[str, Callable[[Pool, int], Method]] = {}
    for tool in TOOLS:
        try:
            module = importlib.import_module(f"benchmarks.search_efficiency.with_{tool}")
        except ModuleNotFoundError as error:
            print(f"{tool} is left out: there is no {error.name}", file=sys.stderr)
            continue
        print(f"{module.PACKAGE} {metadata.version(module.PACKAGE)}", file=sys.stderr)
        methods |= module.METHODS
    return methods


def chosen(names: str) -> dict[str, Callable[[Pool, int], Method]]:
    known = installed()
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    for name in wanted:
        if name not in known:
            raise SystemExit(f"--methods: unknown method {name!r}{nearest(name, known)}")
    return {name: known[name] for name in wanted or known}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.search_efficiency",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="a run folder, or a folder of recorded curves")
    parser.add_argument("--methods", default="", help="names, separated by commas; default: all")
    parser.add_argument("--orders", type=int, default=20, help="simulated searches of each method")
    parser.add_argument("--workers", type=int, default=4, help="trials that train at once")
    parser.add_argument("--within", type=float, default=0.01, help="margin of the target")
    parser.add_argument(
        "--target", choices=TARGETS, default=TARGETS[0], help="of `replay --league`"
    )
    args = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    pools = list(orders_of(load_pool(args.folder), args.orders, 1.0))
    settings = args.workers, args.within, args.target
    for name, make in chosen(args.methods).items():
        outcomes = []
        for seed, pool in enumerate(pools):
            begin = time.process_time()
            outcomes.append(raced(pool, make(pool, seed), *settings))
            seconds = time.process_time() - begin
            reached = outcomes[-1].to_target
            print(f"{name} {seed}: {reached:.4g}, {seconds:.0f} s", file=sys.stderr, flush=True)
        print(json.dumps(league_row(name, outcomes)), flush=True)


if __name__ == "__main__":
    main()
