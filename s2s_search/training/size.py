"""The size of a model: its parameters, and the bytes of its snapshot."""

from typing import TYPE_CHECKING, Any

from s2s_search.corpus.corpus import Corpus
from s2s_search.hparams.configuration import Hparams

if TYPE_CHECKING:
    pass

STATE_BYTES, TENSOR_BYTES = (
    10_000,
    5_000,
)  # random numbers and names; what describes the tensors of weights, of a slot


def count_parameters(hparams: Hparams, corpus: Corpus) -> int:
    """The number of a model's parameters; the model takes no memory."""
    import torch
    from torch.overrides import TorchFunctionMode

    from s2s_search.nn.models import build_model

    class Uninitialized(TorchFunctionMode):
        """Draws no initial weights: on the meta device torch 2.13 would import its compiler for that, for a second."""

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
    """The bytes of a snapshot: weights and the optimizer's slots, float32, and what describes them.

    A corpus with a large vocabulary adds its tokens, which are little beside their embeddings.
    """
    from s2s_search.training.optimizers import RULES

    copies = 1 + len(RULES[optimizer_name].SLOTS)
    return copies * (FLOAT_BYTES * parameters + TENSOR_BYTES) + STATE_BYTES


def size_text(size: float) -> str:
    """Bytes in words: 1.5 MB."""
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            break
        size /= 1000
    return f"{size:.3g} {unit}"


# What a trial takes at least

FLOAT_BYTES = 4  # of a float32
