"""The results of searches as pandas tables, and what can be concluded from them.

    from s2s_search import results
    run = results.load("runs/attention")   # run.trials, run.reports, run.best(5)

May import: runs, spaces, hparams and the ground floor; pandas; SciPy and Optuna late. Needs neither
torch nor Ray.
"""

from s2s_search.results.many import load_many
from s2s_search.results.results import Results, load

__all__ = ["Results", "load", "load_many"]
