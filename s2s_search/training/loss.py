"""The cross-entropy of each target token, without padding.

B batch · T target steps · V target vocabulary
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from s2s_search.corpus.batches import Batch


def token_losses(logits: Tensor, batch: Batch, label_smoothing: float = 0.0) -> Tensor:
    """Returns the cross-entropy [B, T] in nats of logits [B, T, V], zero past a row's end.

    The targets are batch.target_ids[:, 1:].
    """
    targets = batch.target_ids[:, 1:].long()
    losses = F.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), reduction="none", label_smoothing=label_smoothing
    )
    return losses.view_as(targets) * target_mask(batch)


def target_mask(batch: Batch) -> Tensor:
    """Returns the mask [B, T] of the target tokens to predict."""
    steps = torch.arange(batch.target_ids.shape[1] - 1, device=batch.target_ids.device)
    return steps < (batch.target_lengths.long() - 1).unsqueeze(1)
