"""Compares the values of a hyperparameter: the best of each, and the mean of the better half.

    python examples/which_attention.py runs/attention
    python examples/which_attention.py runs/monday runs/tuesday --key encoder.type

The mean of the better half says more than the best, as one lucky trial does not decide it, and a
value with more configurations had more chances. The conclusion comes from a permutation test, which
says how often equal values would differ as much. If a scheduler stopped trials, values at the last
step that all trials reached are compared.
"""

import argparse
import sys

from s2s_search import results
from s2s_search.hparams import ConfigError
from s2s_search.results.isolation import conclusion, isolated
from s2s_search.results.scores import comparable


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
    args = parser.parse_args()
    try:
        run = results.load_many(args.folders)
        table = isolated(run, args.key)
    except ConfigError as error:
        sys.exit(str(error))
    shown = table[["value", "n", "best", "top", "mean", "low", "high"]]
    print(f"{run.name}: {run.metric}, to {run.goal}, {comparable(run).phrase}")
    print(shown.to_string(index=False, float_format="{:.4f}".format))
    print(conclusion(table, run.minimizes(run.metric)))


if __name__ == "__main__":
    main()
