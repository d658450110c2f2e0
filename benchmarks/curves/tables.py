"""Keeps the curves of a search as tables, for `replay FOLDER --league`.

    python benchmarks/curves/tables.py RUN FOLDER

The tables hold numbers and configurations: no names of machines, and no text of the corpus.
"""

import json
import shutil
import sys
from pathlib import Path

import pandas as pd

from s2s_search.runs.state import load_history

REPORTED = ("trial", "step", "status", "seconds", "evaluation_seconds", "parameters")


def main(run: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    reports = pd.read_parquet(run / "reports.parquet")
    measured = [
        name
        for name in map(str, reports)
        if name.startswith(("dev.", "train.")) or name in REPORTED
    ]
    table = reports[measured]
    table.to_parquet(folder / "reports.parquet", index=False, compression="zstd")
    trials = [
        {"trial": trial.name, "status": trial.status, "config": json.dumps(trial.config)}
        for trial in load_history(run).trials.values()
    ]
    pd.DataFrame(trials).to_parquet(folder / "trials.parquet", index=False, compression="zstd")
    shutil.copy(run / "space.yaml", folder / "space.yaml")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
