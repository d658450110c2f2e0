"""Training and evaluation of one trial, without Ray, and the trained model that answers.

May import: runs, nn, spaces, corpus, hparams and the ground floor. torch is imported when a name of this door is first
asked for, since the size of a model and its memory are computed without it.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from s2s_search.training.evaluation import evaluate
    from s2s_search.training.trained_model import SourceNotes, TrainedModel, load_trained
    from s2s_search.training.trial import train

__all__ = ["SourceNotes", "TrainedModel", "evaluate", "load_trained", "train"]
PLACES = {"train": "trial", "evaluate": "evaluation"}  # the others are in trained_model


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{PLACES.get(name, 'trained_model')}"), name)
