"""Attention: which source positions matter for the next target token.

B batch · S source positions · H query (decoder output) units · M memory (encoder output) units · A attention units
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from s2s_search.nn.cells import glorot, linear, positions_within
from s2s_search.nn.fused_attention import AdditiveSteps, DotSteps, Lookup


class Memory(NamedTuple):
    """What a decoder may look at: values [B, S, M], their keys [B, S, A], the mask [B, S] of real positions."""

    values: Tensor
    keys: Tensor
    mask: Tensor


class Attention(nn.Module):
    """Weighs the memory by its relevance to the decoder's output.

    dot       score = k · q                (Luong et al., 2015)
    bahdanau  score = v · tanh(k + q)      (Bahdanau et al., 2015)

    with k = W_k memory + b_k and q = W_q query + b_q, both of `attention.dim` units.
    """

    def __init__(self, query_size: int, memory_size: int, num_units: int, score_type: str) -> None:
        super().__init__()
        self.keys = linear(memory_size, num_units)
        self.query = linear(query_size, num_units)
        self.v = glorot(num_units) if score_type == "bahdanau" else None

    def precompute(self, values: Tensor, lengths: Tensor) -> Memory:
        """Projects values [B, S, M] of lengths [B] to keys, once for all decoding steps."""
        return Memory(values, self.keys(values), positions_within(lengths, values.shape[1]))

    def forward(self, query: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """Returns the context [B, M] and the weights [B, S], which are zero at padding, for a query [B, H]."""
        scores = self.scores(self.query(query), memory.keys)
        weights = torch.softmax(scores.masked_fill(~memory.mask, torch.finfo(scores.dtype).min), dim=-1)
        return (weights.unsqueeze(1) @ memory.values).squeeze(1), weights

    def scores(self, q: Tensor, keys: Tensor) -> Tensor:
        if self.v is None:
            return (keys @ q.unsqueeze(-1)).squeeze(-1)
        return torch.tanh(keys + q.unsqueeze(1)) @ self.v

    def lookup(self, memory: Memory) -> Lookup:
        """What the loop with a written-out backward needs of this attention to a memory."""
        weights, biases = self.query.weight, self.query.bias
        low = torch.finfo(memory.keys.dtype).min
        if self.v is None:  # k · (W_q query + b_q) = (k W_q) · query + k · b_q
            rows = (memory.keys @ biases).masked_fill(~memory.mask, low)
            return Lookup(DotSteps, memory.values, memory.keys @ weights, rows)
        rows = torch.zeros_like(memory.mask, dtype=memory.keys.dtype).masked_fill_(~memory.mask, low)
        return Lookup(AdditiveSteps, memory.values, memory.keys + biases, rows, (weights.t(), self.v))
