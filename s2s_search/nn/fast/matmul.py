"""Matrix products over many rows: by torch, or by products.h on one CPU thread if that is faster.

And sums of rows by id, whose numbers are the same at every repetition on every device.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from s2s_search.nn.fast import native

# The largest number of sums that a product computes on a GPU. For more, sorting is estimated to be
# faster. Neither was measured: nothing here has run on a GPU yet.
MOST_ROWS = 1024
# The smallest product for our kernel, in multiplications. For a smaller one, the call costs as much
# as it saves.
ENOUGH = 250_000


def mm(a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    """Returns a b, for a [N, K] and b [K, M]."""
    return torch.mm(a, b, out=out) if in_torch(a, b, out) else multiplied(None, a, b, out)


def addmm(start: Tensor, a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    """Returns start + a b, for a [N, K], b [K, M] and start [N, M] or [M]; `out` may be `start`."""
    if in_torch(a, b, start, out):
        return torch.addmm(start, a, b, out=out)
    return multiplied(start, a, b, out)


def multi_dot(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Returns a b c, for a [N, K], b [K, L] and c [L, M], in the cheaper order."""
    (n, k), (inner, m) = a.shape, c.shape
    from_left = n * k * inner + n * inner * m < k * inner * m + n * k * m
    return mm(mm(a, b), c) if from_left else mm(a, mm(b, c))


def sum_rows(values: Tensor, ids: Tensor, rows: int) -> Tensor:
    """Returns the sums [rows, D] of values [N, D]: row r sums the values whose id [N] is r.

    On a GPU index_add_ adds in another order each time, so that the last bits would differ from run
    to run.
    """
    if values.is_cpu:
        return values.new_zeros(rows, values.shape[1]).index_add_(0, ids, values)
    if rows <= MOST_ROWS:
        return sums_by_product(values, ids, rows)
    return sums_in_order(values, ids, rows)


def sums_by_product(values: Tensor, ids: Tensor, rows: int) -> Tensor:
    """Returns what `sum_rows` does, by a product with the matrix [rows, N] of `row == id`."""
    chosen = torch.arange(rows, device=ids.device).unsqueeze(1) == ids
    return chosen.to(values.dtype) @ values


def sums_in_order(values: Tensor, ids: Tensor, rows: int) -> Tensor:
    """Returns what `sum_rows` does, by index_put_: on a GPU it sorts the ids and adds in order."""
    return values.new_zeros(rows, values.shape[1]).index_put_((ids,), values, accumulate=True)


def in_torch(a: Tensor, b: Tensor, *others: Tensor | None) -> bool:
    """Returns True when torch should compute the product.

    It is small, our kernel is missing or not faster, or our kernel cannot read the matrices.
    """
    if a.numel() * b.shape[1] < ENOUGH:
        return True
    if not (native.usable(a) and native.multiplies_faster()):
        return True
    return not native.multipliable(a, b, *(tensor for tensor in others if tensor is not None))


def multiplied(start: Tensor | None, a: Tensor, b: Tensor, out: Tensor | None) -> Tensor:
    """Returns start + a b by our kernel, with a gradient unless `out` is given."""
    if out is None and torch.is_grad_enabled():
        made: Tensor = Product.apply(start, a, b)  # type: ignore[no-untyped-call]
        return made
    made = a.new_empty(len(a), b.shape[1]) if out is None else out
    native.multiply(start, a, b, made)
    return made


class Product(torch.autograd.Function):
    """start + a b by our kernel, with its gradient."""

    @staticmethod
    def forward(ctx: Any, start: Tensor | None, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        ctx.start = None if start is None else start.dim()  # 1 for [M], 2 for [N, M]
        return multiplied(start, a, b, None)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_made: Tensor) -> tuple[Tensor | None, ...]:
        a, b = ctx.saved_tensors
        d_made = d_made.contiguous()
        d_start: Tensor | None = None
        if ctx.start == 2:
            d_start = d_made
        elif ctx.start == 1:
            d_start = d_made.sum(0)
        _, of_a, of_b = ctx.needs_input_grad
        d_a = mm(d_made, b.t()) if of_a else None
        d_b = mm(a.t(), d_made) if of_b else None
        return d_start, d_a, d_b
