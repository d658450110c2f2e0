"""Matrix products over many rows: torch's, or on one thread of a CPU those of products.h where they are sooner.

And sums of rows by their ids, which come out the same every time on every device.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from s2s_search.nn.fast import native

MOST_ROWS = 1024  # of a sum by a product: of more, sorting is estimated to be faster on a GPU; neither was measured
ENOUGH = 250_000  # products of two numbers: of fewer, the call costs what it saves


def mm(a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    """a b for a [N, K] and b [K, M]."""
    return torch.mm(a, b, out=out) if in_torch(a, b, out) else multiplied(None, a, b, out)


def addmm(start: Tensor, a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    """start + a b for a [N, K], b [K, M] and start [N, M] or [M]; `out` may be `start`."""
    return (
        torch.addmm(start, a, b, out=out)
        if in_torch(a, b, start, out)
        else multiplied(start, a, b, out)
    )


def multi_dot(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """a b c for a [N, K], b [K, L] and c [L, M], in the cheaper order."""
    (n, k), (inner, m) = a.shape, c.shape
    from_left = n * k * inner + n * inner * m < k * inner * m + n * k * m
    return mm(mm(a, b), c) if from_left else mm(a, mm(b, c))


def sum_rows(values: Tensor, ids: Tensor, rows: int) -> Tensor:
    """Returns the sums [rows, D] of the values [N, D] that have the same of the ids [N].

    On a GPU index_add_ adds in another order each time, so that the last bits differ from run to run.
    """
    if values.is_cpu:
        return values.new_zeros(rows, values.shape[1]).index_add_(0, ids, values)
    return (
        sums_by_product(values, ids, rows)
        if rows <= MOST_ROWS
        else sums_in_order(values, ids, rows)
    )


def sums_by_product(values: Tensor, ids: Tensor, rows: int) -> Tensor:
    """`sum_rows` as a product with the matrix [rows, N] that is 1 where an id is that of the row."""
    chosen = torch.arange(rows, device=ids.device).unsqueeze(1) == ids
    return chosen.to(values.dtype) @ values


def sums_in_order(values: Tensor, ids: Tensor, rows: int) -> Tensor:
    """`sum_rows` by index_put_, which on a GPU sorts the ids and adds in the order of the values."""
    return values.new_zeros(rows, values.shape[1]).index_put_((ids,), values, accumulate=True)


def in_torch(a: Tensor, b: Tensor, *others: Tensor | None) -> bool:
    """True when torch should compute the product: it is small, our kernel is missing or not faster, or the matrices do
    not lie as our kernel reads them."""
    if a.numel() * b.shape[1] < ENOUGH or not (native.usable(a) and native.multiplies_faster()):
        return True
    return not native.multipliable(a, b, *(tensor for tensor in others if tensor is not None))


def multiplied(start: Tensor | None, a: Tensor, b: Tensor, out: Tensor | None) -> Tensor:
    if out is None and torch.is_grad_enabled():
        made: Tensor = Product.apply(start, a, b)  # type: ignore[no-untyped-call]
        return made
    made = a.new_empty(len(a), b.shape[1]) if out is None else out
    native.multiply(start, a, b, made)
    return made


class Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, start: Tensor | None, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        ctx.start = None if start is None else start.dim()
        return multiplied(start, a, b, None)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_made: Tensor) -> tuple[Tensor | None, ...]:
        a, b = ctx.saved_tensors
        d_made = d_made.contiguous()
        d_start = d_made.sum(0) if ctx.start == 1 else d_made if ctx.start == 2 else None
        _, of_a, of_b = ctx.needs_input_grad
        return d_start, mm(d_made, b.t()) if of_a else None, mm(a.t(), d_made) if of_b else None
