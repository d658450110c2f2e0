"""Which attention score? For each value of a hyperparameter its best trial, and the mean of its best few.

    python examples/which_attention.py runs/attention
    python examples/which_attention.py runs/monday runs/tuesday --key encoder.type --top 5

The mean of the best few says more than the best: one lucky trial does not decide. Its interval is the bootstrap's at
95 %; where the intervals of two values overlap, the search has not told them apart. Trials that a scheduler stopped
early count with what they reached. A value with more trials had more chances: give all as many, by `grid:`.
"""

import argparse
import math
import sys

import pandas as pd

from s2s_search import results
from s2s_search.comparison import interval
from s2s_search.table import ConfigError


def isolated(run: results.Results, key: str, top: int) -> pd.DataFrame:
    """A row for each value of a key, best first: how many trials, the best, and the mean of the best `top`."""
    score = run.measure(run.metric)
    ranked = run.best(None).dropna(subset=[key, score])
    rows = []
    for value, trials in ranked.groupby(key, sort=False):  # the first of a group is its best
        scores = trials[score].head(top)
        low, high = interval(scores)
        rows.append({key: value, "trials": len(trials), "best": scores.iloc[0], "top": len(scores),
                     "mean": scores.mean(), "low": low, "high": high})  # fmt: skip
    return pd.DataFrame(rows)


def conclusion(table: pd.DataFrame, run: results.Results, key: str) -> str:
    """What the table allows to say of its best two values."""
    if len(table) < 2:
        return f"only one value of {key} has results: there is nothing to compare"
    ranked = table.sort_values("mean", ascending=run.minimizes(run.metric))
    first, second = ranked.iloc[0], ranked.iloc[1]
    names = f"{first[key]!s} and {second[key]!s}"
    if math.isnan(first["low"]) or math.isnan(second["low"]):
        return f"{names}: too few trials for an interval"
    if max(first["low"], second["low"]) <= min(first["high"], second["high"]):
        return f"{names}: their intervals overlap, and this search does not tell them apart"
    return f"{names}: their intervals are apart, and {first[key]!s} is ahead in {run.metric}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", metavar="DIR", help="run folders of searches with the same metric")
    parser.add_argument("--key", default="attention.score_type", help="a searched hyperparameter, or `run`")
    parser.add_argument("--top", type=int, default=3, help="how many of a value's best trials are averaged")
    args = parser.parse_args()
    try:
        run = results.load_many(args.folders)
        table = isolated(run, run.column(args.key), args.top)
    except ConfigError as error:
        sys.exit(str(error))
    print(f"{run.name}: {run.metric}, to {run.goal}")
    print(table.to_string(index=False, float_format="{:.4f}".format))
    print(conclusion(table, run, args.key))


if __name__ == "__main__":
    main()
