"""A search on Ray Tune.

This is the only room that imports Ray. It does so when one of its names is first used.

May import: display, results, training, runs and the rooms below.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from s2s_search.tuning.search import Outcome
    from s2s_search.tuning.start import replicate_search, resume_search, run_search
    from s2s_search.tuning.worker import trainable

__all__ = ["Outcome", "replicate_search", "resume_search", "run_search", "trainable"]


def __getattr__(name: str) -> object:
    if name == "trainable":
        from s2s_search.tuning.worker import trainable

        return trainable
    if name in __all__:
        from s2s_search.tuning import start

        return getattr(start, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
