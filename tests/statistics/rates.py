"""How often each kind of sentence is true, false or silent, over many simulated searches.

`python -m tests.statistics.rates --runs 200` prints the table of docs/statistics.md. It can be interrupted.
"""

import argparse
import itertools
import json
import os
import shutil
import tempfile
import zlib
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from tests.statistics.claims import FALSE, TRUE, claims
from tests.statistics.kinds import KINDS

Counts = dict[str, Counter[str]]


def counted(kind: str, first: int, last: int) -> Counts:
    """Counts the claims about the searches of a kind with the seeds first to last - 1, by kind of sentence."""
    found: Counts = {}
    for seed in range(first, last):
        rng = np.random.default_rng([zlib.crc32(kind.encode()), seed])
        folder = Path(tempfile.mkdtemp(prefix="simulated-"))
        try:
            for sentence, judged in claims(KINDS[kind], folder / "run", rng).items():
                found.setdefault(sentence, Counter())[judged] += 1
        finally:
            shutil.rmtree(folder)
    return found


def rates(kind: str, runs: int, pool: ProcessPoolExecutor) -> Counts:
    """Returns the counts of `runs` searches of a kind."""
    parts = np.linspace(0, runs, 2 * (os.cpu_count() or 1) + 1).astype(int)
    jobs = [
        pool.submit(counted, kind, int(first), int(last))
        for first, last in itertools.pairwise(parts)
    ]
    found: Counts = {}
    for job in jobs:
        for sentence, counts in job.result().items():
            found.setdefault(sentence, Counter()).update(counts)
    return found


def table(counts: Mapping[str, Counts]) -> str:
    """Returns a Markdown table: a row per kind of search, and false and true claims in percent of its searches."""
    sentences = list(dict.fromkeys(sentence for found in counts.values() for sentence in found))
    rows = [["searches", "n", *sentences], ["---", *["---:"] * (len(sentences) + 1)]]
    for kind, found in counts.items():
        cells = [f"{_percent(found[name])}" if name in found else "" for name in sentences]
        rows.append([kind, str(max(each.total() for each in found.values())), *cells])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _percent(counts: Counter[str]) -> str:
    false, true = (f"{100 * counts[each] / counts.total():.0f}" for each in (FALSE, TRUE))
    return f"{false} / {true}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200, help="the number of searches of a kind")
    parser.add_argument(
        "--counts",
        type=Path,
        default=Path("rates.json"),
        help="kept here; what is there is not run",
    )
    parser.add_argument("words", nargs="*", help="only kinds whose names contain one of these")
    args = parser.parse_args()
    known: dict[str, Counts] = {}
    if args.counts.exists():
        for kind, found in json.loads(args.counts.read_text()).items():
            known[kind] = {sentence: Counter(each) for sentence, each in found.items()}
    with ProcessPoolExecutor() as pool:
        for kind in KINDS:
            if kind not in known and (not args.words or any(word in kind for word in args.words)):
                known[kind] = rates(kind, args.runs, pool)
                args.counts.write_text(json.dumps(known, indent=1))
    print(table({kind: known[kind] for kind in KINDS if kind in known}))


if __name__ == "__main__":
    main()
