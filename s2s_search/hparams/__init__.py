"""The hyperparameters: the table that declares them, and a model's complete configuration.

May import: errors and metrics; the standard library only.
"""

from s2s_search.errors import ConfigError
from s2s_search.hparams.configuration import Hparams, defaults, resolve

__all__ = ["ConfigError", "Hparams", "defaults", "resolve"]
