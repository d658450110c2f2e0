"""Training and evaluation of one trial, without Ray, and the trained model that answers.

May import: runs, nn, spaces, corpus, hparams and the ground floor. torch is imported when a name of
this door is first used, since `size` and `footprint` work without it.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from s2s_search.training.ensemble import load_ensemble
    from s2s_search.training.evaluation import evaluate
    from s2s_search.training.trained_model import SourceNotes, TrainedModel, load_trained
    from s2s_search.training.trial import train

__all__ = ["SourceNotes", "TrainedModel", "evaluate", "load_ensemble", "load_trained", "train"]
# The modules of the names; those of the others are in trained_model.
MODULES = {"train": "trial", "evaluate": "evaluation", "load_ensemble": "ensemble"}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f"{__name__}.{MODULES.get(name, 'trained_model')}")
    return getattr(module, name)
