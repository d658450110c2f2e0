"""Products by panels equal torch's in values and gradients, for any sizes, strides and starts."""

import itertools
from pathlib import Path
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from s2s_search.nn.fast import matmul, native

CPU_INFO = Path("/proc/cpuinfo")


@pytest.fixture(autouse=True, scope="module")
def _panels():
    """Every product uses panels, also on processors where torch is as fast."""
    if native.LIBRARY is None or not CPU_INFO.exists() or "avx512f" not in CPU_INFO.read_text():
        pytest.skip("no compiled loops, or no vectors of 512 bits")
    with (
        mock.patch.object(native, "multiplies_faster", return_value=True),
        mock.patch.object(matmul, "ENOUGH", 0),
    ):
        yield


def factor(rows: int, columns: int, way: str, dtype: torch.dtype) -> Tensor:
    """Returns a random matrix, stored by rows, by columns, or as a part of a larger one by rows."""
    if way == "columns":
        return torch.randn(columns, rows, dtype=dtype).t()
    if way == "part":
        return torch.randn(rows + 2, columns + 5, dtype=dtype)[1:-1, 2:-3]
    return torch.randn(rows, columns, dtype=dtype)


def near(made: Tensor, expected: Tensor, depth: int) -> None:
    eps = torch.finfo(made.dtype).eps
    torch.testing.assert_close(made, expected, rtol=0.0, atol=8 * eps * (depth + 8))


sizes = st.one_of(st.integers(1, 70), st.sampled_from([128, 256, 257, 449, 600, 1024]))
ways = st.sampled_from(["rows", "columns", "part"])
dtypes = st.sampled_from([torch.float32, torch.float64])


@settings(max_examples=150, deadline=None)
@given(
    sizes, sizes, sizes, ways, ways, dtypes, st.sampled_from(["none", "vector", "matrix", "out"])
)
def test_products_are_those_of_torch(
    n: int, k: int, m: int, a_way: str, b_way: str, dtype: torch.dtype, start_kind: str
) -> None:
    torch.manual_seed(n + k + m)
    a, b = factor(n, k, a_way, dtype), factor(k, m, b_way, dtype)
    start = (
        torch.randn(m, dtype=dtype) if start_kind == "vector" else torch.randn(n, m, dtype=dtype)
    )
    expected = a.double() @ b.double()
    expected = (expected if start_kind == "none" else expected + start.double()).to(dtype)
    with torch.no_grad(), mock.patch.object(native, "multiply", wraps=native.multiply) as used:
        if start_kind == "none":
            made = matmul.mm(a, b)
        else:
            made = matmul.addmm(start, a, b, out=start if start_kind == "out" else None)
    assert used.called
    near(made, expected, k)
    assert start_kind != "out" or made is start


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(1, 40),
    ways,
    ways,
    st.sampled_from([None, 1, 2]),
)
def test_gradients_are_those_of_torch(
    n: int, k: int, m: int, a_way: str, b_way: str, start: int | None
) -> None:
    torch.manual_seed(n + k + m)
    tensors = [factor(n, k, a_way, torch.float64), factor(k, m, b_way, torch.float64)]
    tensors += (
        [] if start is None else [torch.randn((m,) if start == 1 else (n, m), dtype=torch.float64)]
    )
    weights = torch.randn(n, m, dtype=torch.float64)
    a, b, *starts = (tensor.requires_grad_() for tensor in tensors)
    with mock.patch.object(native, "multiply", wraps=native.multiply) as used:
        made = matmul.addmm(*starts, a, b) if starts else matmul.mm(a, b)
        gradients = torch.autograd.grad((made * weights).sum(), (a, b, *starts))
    assert used.call_count == 3
    expected = torch.autograd.grad(
        ((a @ b + (starts[0] if starts else 0.0)) * weights).sum(), (a, b, *starts)
    )
    for gradient, of_torch in zip(gradients, expected, strict=True):
        near(gradient, of_torch, max(n, m))


@pytest.mark.parametrize("sizes", [(50, 40, 3, 40), (5, 40, 30, 40)])
def test_a_product_of_three_is_that_of_torch(sizes: tuple[int, ...]) -> None:
    factors = [torch.randn(*shape, dtype=torch.float64) for shape in itertools.pairwise(sizes)]
    with torch.no_grad():
        near(matmul.multi_dot(*factors), torch.linalg.multi_dot(factors), 4000)


def test_a_number_that_is_not_finite_stays_one() -> None:
    a, b = torch.ones(30, 40), torch.ones(40, 50)
    a[7, 3], b[5, 44] = torch.inf, torch.nan
    with torch.no_grad():
        torch.testing.assert_close(matmul.mm(a, b), a @ b, equal_nan=True)
