"""Compares the values of a hyperparameter: the best of each, and the mean of the best few.

    python examples/which_attention.py runs/attention
    python examples/which_attention.py runs/monday runs/tuesday --key encoder.type --top 5

The mean of the best few says more than the best, as one lucky trial does not decide it. A value
with more configurations had more chances, and therefore the same share of every value is averaged.
The conclusion comes from a permutation test, which says how often equal values would differ as
much. Trials that a scheduler stopped early count with the value that they had reached.
"""

import argparse
import sys

from s2s_search import results
from s2s_search.hparams import ConfigError
from s2s_search.results.isolation import conclusion, isolated


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "folders", nargs="+", metavar="DIR", help="run folders of searches with the same metric"
    )
    parser.add_argument(
        "--key", default="attention.score_type", help="a searched hyperparameter, or `run`"
    )
    parser.add_argument(
        "--top",
        type=int,
        default=3,
        help="configurations averaged, for the value with the fewest (default: %(default)s)",
    )
    args = parser.parse_args()
    try:
        run = results.load_many(args.folders)
        table = isolated(run, args.key, args.top)
    except ConfigError as error:
        sys.exit(str(error))
    shown = table[["value", "n", "best", "top", "mean", "low", "high"]]
    print(f"{run.name}: {run.metric}, to {run.goal}")
    print(shown.to_string(index=False, float_format="{:.4f}".format))
    print(conclusion(table, run.minimizes(run.metric)))


if __name__ == "__main__":
    main()
