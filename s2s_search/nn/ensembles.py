"""Several models as one: the mean of their distributions over the next token.

B batch · S source positions · T target steps · V target vocabulary, special ids included
"""

from collections.abc import Callable, Sequence
from math import log
from typing import NamedTuple

import torch
from torch import Tensor, nn

from s2s_search.nn.models import Encoding, Seq2Seq


class Encodings(NamedTuple):
    """What each model of an ensemble makes of the same sources."""

    members: tuple[Encoding, ...]

    @property
    def lengths(self) -> Tensor:
        """The source lengths [B]."""
        return self.members[0].lengths


class Ensemble(nn.Module):
    """Models with equal vocabularies. They may differ in all else.

    p(next token) = sum_k p_k(next token) / K, for K models that have read the same tokens.

    Raises:
        ValueError: there is no model, or the sizes of vocabularies differ.
    """

    def __init__(self, models: Sequence[Seq2Seq]) -> None:
        super().__init__()
        sizes = {(m.source_embedding.num_embeddings, m.target_size) for m in models}
        if len(sizes) != 1:
            raise ValueError(f"an ensemble needs models of one vocabulary, but has {len(sizes)}")
        self.models = nn.ModuleList(models)
        self.start_id, self.end_id = models[0].start_id, models[0].end_id
        self.target_size = models[0].target_size

    def encode(self, source_ids: Tensor, source_lengths: Tensor) -> Encodings:
        """Returns what `Seq2Seq.encode` returns, of all models."""
        members: list[Encoding] = []
        for model in self.models:
            assert isinstance(model, Seq2Seq)
            members.append(model.encode(source_ids, source_lengths))
        return Encodings(tuple(members))


AnyModel = Seq2Seq | Ensemble
AnyEncoding = Encoding | Encodings


def members(model: AnyModel, encoding: AnyEncoding) -> list[tuple[Seq2Seq, Encoding]]:
    """Returns each model with what it makes of the sources; of a single model, itself."""
    if isinstance(model, Ensemble) and isinstance(encoding, Encodings):
        return list(zip(model.models, encoding.members, strict=True))  # type: ignore[arg-type]
    assert isinstance(model, Seq2Seq)
    assert isinstance(encoding, Encoding)
    return [(model, encoding)]


def predictor(
    model: AnyModel, encoding: AnyEncoding, target_ids: Tensor, target_lengths: Tensor
) -> Callable[[slice], Tensor]:
    """Returns what `Seq2Seq.predictor` returns; the logits of an ensemble are log probabilities."""
    predictors = []
    for member, of_member in members(model, encoding):
        predictors.append(member.predictor(of_member, target_ids, target_lengths))
    if isinstance(model, Seq2Seq):
        return predictors[0]
    return lambda steps: mean_log_probs([logits(steps) for logits in predictors])


def mean_attention(
    model: AnyModel, encoding: AnyEncoding, target_ids: Tensor, target_lengths: Tensor
) -> Tensor | None:
    """Returns what `Seq2Seq.attention` returns, or its mean over the models of an ensemble.

    Returns None if a model has no attention.
    """
    found = []
    for member, of_member in members(model, encoding):
        weights = member.attention(of_member, target_ids, target_lengths)
        if weights is None:
            return None
        found.append(weights)
    return torch.stack(found).mean(0)


def mean_log_probs(logits: Sequence[Tensor]) -> Tensor:
    """Returns the logarithm of the mean of the distributions that logits [..., V] stand for."""
    log_probs = torch.stack([each.log_softmax(-1) for each in logits])
    return log_probs.logsumexp(0) - log(len(logits))
