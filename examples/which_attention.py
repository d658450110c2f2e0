"""Which attention score? For each value of a hyperparameter its best configuration, and the mean of its best few.

    python examples/which_attention.py runs/attention
    python examples/which_attention.py runs/monday runs/tuesday --key encoder.type --top 5

The mean of the best few says more than the best: one lucky trial does not decide. A value with more configurations
had more chances, so of every value the same share is averaged. The conclusion comes from a permutation test: how often
equal values would come to lie as far apart. Trials that a scheduler stopped early count with what they reached.
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
        "--top", type=int, default=3, help="how many are averaged of the value that has fewest"
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
