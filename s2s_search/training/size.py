"""The size of a model: its number of parameters, and the bytes of its snapshot."""

from s2s_search.corpus.corpus import Corpus
from s2s_search.hparams import model_size
from s2s_search.hparams.configuration import Hparams

FLOAT_BYTES = 4  # of a float32
STATE_BYTES = 10_000  # of the random states and the names in a snapshot
TENSOR_BYTES = 5_000  # of the description of all weights, or of all tensors of a slot


def count_parameters(hparams: Hparams, corpus: Corpus) -> int:
    """Returns the number of parameters of the model that a trial on the corpus trains."""
    sizes = (len(corpus.source_vocab), len(corpus.target_vocab))
    return model_size.count_parameters(hparams, *sizes)


def checkpoint_bytes(parameters: int, hparams: Hparams) -> int:
    """Returns the bytes of a snapshot: float32 weights and optimizer slots, and their description.

    An average of the weights is a copy more. The tokens of the vocabularies are left out: their
    embeddings take far more.
    """
    from s2s_search.training.optimizers import UPDATE_RULES

    copies = 1 + len(UPDATE_RULES[hparams["optimizer.name"]].SLOTS)
    if hparams["train.average_decay"]:
        copies += 1
    return copies * (FLOAT_BYTES * parameters + TENSOR_BYTES) + STATE_BYTES


def size_text(size: float) -> str:
    """Returns a number of bytes as text, such as 1.5 MB."""
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            break
        size /= 1000
    return f"{size:.3g} {unit}"
