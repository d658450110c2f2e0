"""Measures how long the text of a corpus takes to become numbers, and how much memory.

The text is a million pairs, unless --pairs says otherwise, of 22 tokens on each side, drawn from
100 numbers. It is loaded in a process of its own, with an empty cache.

    python -m benchmarks.text
"""

import argparse
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from s2s_search.corpus import load_corpus

TOKENS = 22  # on each side of a pair
DIFFERENT = 100  # the number of different tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="load the files of this folder")
    args = parser.parse_args()
    if args.folder is not None:
        measure(args.folder)
        return
    with tempfile.TemporaryDirectory() as folder:
        for part, pairs in (("train", args.pairs), ("dev", 2_000)):
            write(Path(folder) / f"{part}.tsv", pairs, part)
        command = [sys.executable, "-m", "benchmarks.text", "--folder", folder]
        subprocess.run(command, check=True, env=os.environ | {"XDG_CACHE_HOME": folder})


def write(path: Path, pairs: int, seed: str) -> None:
    """Writes the pairs of a part."""
    rng = random.Random(seed)
    tokens = [str(k) for k in range(DIFFERENT)]
    with path.open("w") as file:
        for _ in range(pairs):
            source, target = rng.choices(tokens, k=TOKENS), rng.choices(tokens, k=TOKENS)
            file.write(f"{' '.join(source)}\t{' '.join(target)}\n")


def measure(folder: Path) -> None:
    """Loads the corpus of a folder, and prints what that took."""
    spec = {part: str(folder / f"{part}.tsv") for part in ("train", "dev")}
    for name in ("encoded", "from the cache"):
        processor, clock = time.process_time(), time.perf_counter()
        pairs = len(load_corpus(spec).train)
        processor, clock = time.process_time() - processor, time.perf_counter() - clock
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
        seconds = f"{processor:.1f} s of processor time, {clock:.1f} s"
        print(f"{pairs:,} pairs, {name}: {seconds}, at most {peak:.0f} MB")


if __name__ == "__main__":
    main()
