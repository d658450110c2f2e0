"""Attention: which source positions matter for the next target token.

B batch · S source positions · H query (decoder output) units · M memory (encoder output) units
A attention units
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from s2s_search.nn.cells import glorot, linear
from s2s_search.nn.fast.attention_loops import AdditiveSteps, DotSteps, Lookup
from s2s_search.nn.fast.matmul import addmm, multi_dot
from s2s_search.nn.stacks import positions_within


class Memory(NamedTuple):
    """What a decoder attends to.

    The values [B, S, M] are the encoder's outputs. The scores are computed from the keys, [B, S, H]
    of dot scores and [B, S, A] of additive ones, and the biases [B, S], very low at padding.
    """

    values: Tensor
    keys: Tensor
    biases: Tensor


class Attention(nn.Module):
    """Weighs the memory by its relevance to the decoder's output.

    dot       score = k · q                (Luong et al., 2015)
    bahdanau  score = v · tanh(k + q)      (Bahdanau et al., 2015)

    Here k = W_k memory + b_k and q = W_q query + b_q, both of `attention.dim` units. The parts that
    depend on the memory alone are computed once for all queries. The scores are therefore

    dot       score = (W_q' W_k memory) · query + (W_k memory + b_k) · b_q
    bahdanau  score = v · tanh((W_k memory + b_k + b_q) + W_q query)

    The dot score leaves out b_k · W_q query, which is the same at all positions and so cancels in
    the softmax.
    """

    def __init__(self, query_size: int, memory_size: int, num_units: int, score_type: str) -> None:
        super().__init__()
        self.keys = linear(memory_size, num_units)
        self.query = linear(query_size, num_units)
        self.v = glorot(num_units) if score_type == "bahdanau" else None

    def precompute(self, values: Tensor, lengths: Tensor) -> Memory:
        """Returns the memory of values [B, S, M] of lengths [B], once for all decoding steps."""
        padding = ~positions_within(lengths, values.shape[1])
        low = torch.finfo(values.dtype).min
        to_units, rows = self.keys.weight.t(), values.flatten(0, 1)
        if self.v is not None:
            keys = addmm(self.keys.bias + self.query.bias, rows, to_units)
            biases = torch.zeros_like(padding, dtype=values.dtype)
        else:
            keys = multi_dot(rows, to_units, self.query.weight)
            biases = values @ (to_units @ self.query.bias) + self.keys.bias @ self.query.bias
        return Memory(values, keys.view(*values.shape[:2], -1), biases.masked_fill(padding, low))

    def forward(self, query: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """Returns the context [B, M] and the weights [B, S] of a query [B, H].

        The weights are zero at padding.
        """
        weights = torch.softmax(self.scores(query, memory.keys) + memory.biases, dim=-1)
        return (weights.unsqueeze(1) @ memory.values).squeeze(1), weights

    def scores(self, query: Tensor, keys: Tensor) -> Tensor:
        """Returns the scores [B, S] of a query [B, H] without their biases."""
        if self.v is None:
            return (keys @ query.unsqueeze(-1)).squeeze(-1)
        return torch.tanh(keys + (query @ self.query.weight.t()).unsqueeze(1)) @ self.v

    def lookup(self, memory: Memory) -> Lookup:
        """Returns this attention to a memory in the form that the fast loop takes."""
        if self.v is None:
            return Lookup(DotSteps, *memory)
        return Lookup(AdditiveSteps, *memory, (self.query.weight.t(), self.v))
