"""Attention: which source positions matter for the next target token.

B batch · S source positions · H query (decoder output) units · M memory (encoder output) units · A attention units
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from s2s_search.nn.cells import glorot, linear
from s2s_search.nn.fast.attention_loops import AdditiveSteps, DotSteps, Lookup
from s2s_search.nn.fast.matmul import addmm, multi_dot
from s2s_search.nn.stacks import positions_within


class Memory(NamedTuple):
    """What a decoder may look at: values [B, S, M], and what their scores are made of.

    keys, [B, S, H] with dot scores and [B, S, A] with additive ones, and biases [B, S], very low at padding.
    """

    values: Tensor
    keys: Tensor
    biases: Tensor


class Attention(nn.Module):
    """Weighs the memory by its relevance to the decoder's output.

    dot       score = k · q                (Luong et al., 2015)
    bahdanau  score = v · tanh(k + q)      (Bahdanau et al., 2015)

    with k = W_k memory + b_k and q = W_q query + b_q, both of `attention.dim` units. What depends on the memory alone
    is computed once for all queries, so that the scores are made as

    dot       score = (W_q' W_k memory) · query + (W_k memory + b_k) · b_q
    bahdanau  score = v · tanh((W_k memory + b_k + b_q) + W_q query)

    The first leaves out b_k · W_q query, which is the same at all positions and cancels in the softmax.
    """

    def __init__(self, query_size: int, memory_size: int, num_units: int, score_type: str) -> None:
        super().__init__()
        self.keys = linear(memory_size, num_units)
        self.query = linear(query_size, num_units)
        self.v = glorot(num_units) if score_type == "bahdanau" else None

    def precompute(self, values: Tensor, lengths: Tensor) -> Memory:
        """Makes the memory of values [B, S, M] of lengths [B], once for all decoding steps."""
        padding = ~positions_within(lengths, values.shape[1])
        low = torch.finfo(values.dtype).min
        if self.v is not None:
            biases = torch.zeros_like(padding, dtype=values.dtype)
            keys = addmm(
                self.keys.bias + self.query.bias, values.flatten(0, 1), self.keys.weight.t()
            )
            return Memory(
                values, keys.view(*values.shape[:2], -1), biases.masked_fill_(padding, low)
            )
        to_units, to_query = self.keys.weight.t(), self.query.weight
        keys = multi_dot(values.flatten(0, 1), to_units, to_query)
        biases = values @ (to_units @ self.query.bias) + self.keys.bias @ self.query.bias
        return Memory(values, keys.view(*values.shape[:2], -1), biases.masked_fill(padding, low))

    def forward(self, query: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """Returns the context [B, M] and the weights [B, S], which are zero at padding, for a query [B, H]."""
        weights = torch.softmax(self.scores(query, memory.keys) + memory.biases, dim=-1)
        return (weights.unsqueeze(1) @ memory.values).squeeze(1), weights

    def scores(self, query: Tensor, keys: Tensor) -> Tensor:
        """The scores [B, S] of a query [B, H] without their biases."""
        if self.v is None:
            return (keys @ query.unsqueeze(-1)).squeeze(-1)
        return torch.tanh(keys + (query @ self.query.weight.t()).unsqueeze(1)) @ self.v

    def lookup(self, memory: Memory) -> Lookup:
        """What the loop with a written-out backward needs of this attention to a memory."""
        if self.v is None:
            return Lookup(DotSteps, *memory)
        return Lookup(AdditiveSteps, *memory, (self.query.weight.t(), self.v))
