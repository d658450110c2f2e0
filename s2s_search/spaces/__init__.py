"""The search spaces: a YAML file, its dimensions, and the configurations that are drawn from it.

May import: hparams, corpus and the ground floor; neither torch nor numpy.
"""

from s2s_search.spaces.load import load_space
from s2s_search.spaces.space import Space

__all__ = ["Space", "load_space"]
