"""Search methods: which configuration a trial gets, and which trial trains next.

Samplers give configurations, and some learn from results. Some schedulers pause trials and go on
with them; those of Ray Tune are in `tuning`. A Gaussian process models the values of all trials at
all steps. Imports numpy and the search spaces, SciPy and Optuna late; neither Ray nor torch.
"""

from s2s_search.methods.make import make_sampler

__all__ = ["make_sampler"]
