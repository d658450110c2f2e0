"""Compares search methods by the models that they hand over after equal time.

    python -m benchmarks.equal_time FOLDER --seeds 10 --minutes 4

For each seed the searches of all methods run side by side, each with as many workers as the machine
has cores. Whatever else the machine does slows all of them alike. When the time is over, the best
model of each is measured on the words of CMUdict's test part, which chose nothing. The space is
curves/cmudict.yaml with 800 steps for a trial and a report every 40.

The run folders stay in FOLDER. A search that has ended is not run again, so that a comparison can
be continued. A search that was killed is run again from its start.
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from s2s_search import results
from s2s_search.machine import usable_cores

HERE = Path(__file__).parent
RUN = [sys.executable, str(HERE.parent / "run_search.py")]
STEPS, EVERY = 800, 40
TRIALS = 400  # more than begin in the time
METHODS = {
    "asha, random draws": ("random", f"{{name: asha, max_steps: {STEPS}}}"),
    "promotion, gp": (
        "gp",
        f"{{name: asha, variant: promote, max_steps: {STEPS}, grace_steps: {EVERY}}}",
    ),
    "freeze_thaw": (
        "random",
        f"{{name: freeze_thaw, max_steps: {STEPS}, total_steps: {STEPS * TRIALS}}}",
    ),
}


def space_text(method: str, seed: int, minutes: float) -> str:
    """Returns the space file of a search."""
    name, scheduler = METHODS[method]
    budget = f"trials: {TRIALS}, seed: {seed}, hours: {minutes / 60:.6f}"
    budget += f", max_at_once: {usable_cores()}"
    lines = []
    for line in (HERE / "curves" / "cmudict.yaml").read_text().splitlines():
        if line.startswith("search:"):
            line = f"search: {{method: {name}, {budget}}}"
        elif line.startswith("scheduler:"):
            line = f"scheduler: {scheduler}"
        elif "train.eval_every_steps" in line:
            line = f"  train.eval_every_steps: {EVERY}"
        lines.append(line.replace("choices: [1600]", f"choices: [{STEPS}]"))
    return "\n".join(lines) + "\n"


def folder_of(root: Path, method: str, seed: int) -> Path:
    return root / f"{seed:02}-{method.replace(', ', '-').replace(' ', '-')}"


def search(root: Path, seed: int, minutes: float) -> None:
    """Runs the searches of one seed side by side, those that have not ended."""
    running = []
    for method in METHODS:
        folder = folder_of(root, method, seed)
        if folder.exists() and results.load(folder).status in ("out of budget", "finished"):
            continue
        shutil.rmtree(folder, ignore_errors=True)
        file = root / f"{folder.name}.yaml"
        file.write_text(space_text(method, seed, minutes))
        command = [*RUN, "search", str(file), "--out", str(folder)]
        with open(root / f"{folder.name}.log", "w") as log:
            running.append(subprocess.Popen(command, stdout=log, stderr=log))
    for process in running:
        process.wait()


def measured(root: Path, method: str, seed: int) -> dict[str, Any]:
    """Returns what a search handed over, and what it cost."""
    folder = folder_of(root, method, seed)
    kept = folder / "handed_over.json"
    if not kept.exists():
        command = [*RUN, "evaluate", str(folder), "--split", "test", "--json"]
        kept.write_text(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    told = json.loads(kept.read_text().splitlines()[0])
    run = results.load(folder)
    ends = run.reports.groupby("trial").tail(1)
    return {
        "seed": seed,
        "method": method,
        "error_rate": told["test.error_rate"],
        "dev_error_rate": float(run.trials["best.dev.error_rate"].min()),
        "trials": len(run.trials),
        "full_trials": round(float(ends["step"].sum()) / STEPS, 1),
        "worker_seconds": round(float(ends["seconds"].sum()), 1),
    }


def comparisons(table: pd.DataFrame) -> Iterator[str]:
    """Yields a sentence for each pair of methods: differences are paired by seed."""
    wide = table.pivot(index="seed", columns="method", values="error_rate")
    for method in list(METHODS)[1:]:
        for other in METHODS:
            if other == method:
                break
            gains = (wide[other] - wide[method]).dropna()
            if len(gains) < 2:
                continue
            half = stats.t.ppf(0.975, len(gains) - 1) * gains.std() / np.sqrt(len(gains))
            yield (
                f"{method}: better than {other} in {(gains > 0).sum()} of {len(gains)}, "
                f"by {gains.mean():.4f} +- {half:.4f} (95 % interval of the mean)"
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.equal_time", description=__doc__.splitlines()[0]
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first", type=int, default=1, help="the first seed (default: 1)")
    parser.add_argument("--minutes", type=float, default=4.0, help="of each search")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for seed in range(args.first, args.first + args.seeds):
        search(args.folder, seed, args.minutes)
        for method in METHODS:
            rows.append(measured(args.folder, method, seed))
            print(json.dumps(rows[-1]), flush=True)
    table = pd.DataFrame(rows)
    table.to_csv(args.folder / "handed_over.csv", index=False)
    columns = ["error_rate", "dev_error_rate", "trials", "full_trials", "worker_seconds"]
    print(table.groupby("method", sort=False)[columns].median().to_string())
    print("\n".join(comparisons(table)))


if __name__ == "__main__":
    main()
