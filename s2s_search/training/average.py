"""The exponential average of a model's weights."""

import copy

import torch
from torch import Tensor

from s2s_search.nn.models import Seq2Seq


class Average:
    """A model whose weights are the average of another model's weights after each update.

    The weights p_t after update t count decay times as much as those after update t + 1:

    a_t = sum over i <= t of decay^(t - i) p_i, divided by the sum of decay^(t - i)

    The initial weights do not count. The average is therefore useful from the first update on.
    """

    def __init__(self, trained: Seq2Seq, decay: float) -> None:
        self.model = copy.deepcopy(trained).requires_grad_(False)
        self.decay = decay
        self.weights: list[Tensor] = list(trained.parameters())
        self.averages: list[Tensor] = list(self.model.parameters())

    @torch.no_grad()
    def update(self, updates: int) -> None:
        """Counts the weights after an update; `updates` is the number of updates so far."""
        share = (1 - self.decay) / (1 - self.decay**updates)
        torch._foreach_lerp_(self.averages, self.weights, share)
