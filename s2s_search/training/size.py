"""The size of a model: its number of parameters, and the bytes of its snapshot."""

from typing import Any

from s2s_search.corpus.corpus import Corpus
from s2s_search.hparams.configuration import Hparams

FLOAT_BYTES = 4  # of a float32
STATE_BYTES = 10_000  # of the random states and the names in a snapshot
TENSOR_BYTES = 5_000  # of the description of all weights, or of all tensors of a slot


def count_parameters(hparams: Hparams, corpus: Corpus) -> int:
    """Returns the number of a model's parameters, without the memory that they would take."""
    import torch
    from torch.overrides import TorchFunctionMode

    from s2s_search.nn.models import build_model

    class Uninitialized(TorchFunctionMode):
        """Skips the random initial weights.

        To draw them on the meta device, torch 2.13 imports its compiler, which takes a second.
        """

        def __torch_function__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            if function.__name__.endswith(("uniform_", "normal_")):
                return args[0] if args else kwargs["tensor"]
            return function(*args, **(kwargs or {}))

    with torch.device("meta"), Uninitialized():
        model = build_model(hparams, len(corpus.source_vocab), len(corpus.target_vocab))
    return sum(p.numel() for p in model.parameters())


def checkpoint_bytes(parameters: int, optimizer_name: str) -> int:
    """Returns the bytes of a snapshot: float32 weights and optimizer slots, and their description.

    The tokens of the vocabularies are left out: their embeddings take far more.
    """
    from s2s_search.training.optimizers import UPDATE_RULES

    copies = 1 + len(UPDATE_RULES[optimizer_name].SLOTS)
    return copies * (FLOAT_BYTES * parameters + TENSOR_BYTES) + STATE_BYTES


def size_text(size: float) -> str:
    """Returns a number of bytes as text, such as 1.5 MB."""
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            break
        size /= 1000
    return f"{size:.3g} {unit}"
