"""The old place of `trainable`, for one release: it is a name of s2s_search.tuning now."""

import warnings

from s2s_search.tuning.worker import trainable

__all__ = ["trainable"]

warnings.warn(
    "import trainable from s2s_search.tuning, not s2s_search.trainable",
    DeprecationWarning,
    stacklevel=2,
)
