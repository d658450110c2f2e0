"""Prints the error of a search's best model on the test part, which no trial has seen.

    python examples/error_on_test.py runs/words
    python examples/error_on_test.py runs/words --trial trial-00003

Choose the trial by its error on dev, and read the test part only once. If you choose a trial by its
error on test, that error is too good.
"""

import argparse
import sys

from s2s_search import results
from s2s_search.corpus import load_corpus
from s2s_search.hparams import ConfigError, resolve
from s2s_search.results.kept import kept_checkpoints
from s2s_search.training import evaluate, load_trained


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", metavar="DIR", help="the run folder of a search")
    parser.add_argument(
        "--trial", metavar="NAME", help="a trial in place of the best one, such as trial-00003"
    )
    args = parser.parse_args()
    try:
        run = results.load(args.folder)
        kept = kept_checkpoints(run, [args.trial] if args.trial else None)
        trial, checkpoint = next(kept, (None, ""))
        if trial is None:
            raise ConfigError(f"there is no checkpoint of {args.trial or 'any trial'}", args.folder)
        corpus = load_corpus(run.space().corpus)
        if corpus.test is None:
            raise ConfigError("the corpus has no test part", args.folder)
        trained = load_trained(checkpoint)
    except ConfigError as error:
        sys.exit(str(error))
    whole = resolve(
        trained.hparams.model, {**trained.hparams, "train.eval_examples": 0}
    )  # all of test
    found = evaluate(trained.model, corpus.test, corpus, whole)
    print(f"{trial} at step {trained.step:,}, on {len(corpus.test.groups) - 1:,} test sources:")
    for name, value in found.items():
        print(f"{name.replace('dev.', 'test.'):<22}{value:.4g}")


if __name__ == "__main__":
    main()
