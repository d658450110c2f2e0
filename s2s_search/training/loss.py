"""The loss of a training step: the cross-entropy of each target token, without padding."""

import torch
from torch import Tensor
from torch.nn import functional as F

from s2s_search.corpus.batches import Batch


def token_losses(logits: Tensor, batch: Batch) -> Tensor:
    """Cross-entropy [B, T] in nats of the logits [B, T, V] against batch.target_ids[:, 1:]; zero past a row's end."""
    targets = batch.target_ids[:, 1:].long()
    losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view_as(
        targets
    )
    return losses * target_mask(batch)


def target_mask(batch: Batch) -> Tensor:
    """The mask [B, T] of the target tokens to predict."""
    steps = torch.arange(batch.target_ids.shape[1] - 1, device=batch.target_ids.device)
    return steps < (batch.target_lengths.long() - 1).unsqueeze(1)
