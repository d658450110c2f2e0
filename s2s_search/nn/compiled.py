"""The compiled loops of loops.c, where the installation found a C compiler; without them all runs on torch alone.

They run steps on the CPU, in place of the loops over `forward(t)` and `backward(t)` in fused.py and fused_attention.py,
on the same buffers, and those of greedy decoding.
"""

import ctypes
from collections.abc import Sequence
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

VERSION = 7  # of loops.c
TYPES = {torch.float32: ("float", "sgemm_"), torch.float64: ("double", "dgemm_")}


class Arguments(ctypes.Structure):
    """A C structure of 64-bit numbers and addresses; a tensor stands for its address, what is left out is 0."""

    def __init__(self, **values: Tensor | int | None) -> None:
        for name, value in values.items():
            setattr(self, name, value.data_ptr() if isinstance(value, Tensor) else value or 0)


def fields(names: str) -> list[tuple[str, type]]:
    return [(name, ctypes.c_int64) for name in names.split()]


class Blas(Arguments):
    """torch's matrix product and its threads."""

    _fields_ = fields("gemm threads")


class Product(Arguments):
    _fields_ = fields("n k m a_row a_column b_row b_column start_row c_row a b start c")


class Cell(Arguments):
    _fields_ = fields(
        "gru batch units below_units before after gate_rows inside_rows lengths gates output inside half_tanh ids table"
        " weights candidate_weights below below_weights d_output d_c d_below scratch"
    )


class Dropout(Arguments):
    _fields_ = fields("batch units mask below output d_output d_below")


class Attention(Arguments):
    _fields_ = fields(
        "additive batch positions query_units memory_units units hidden_rows query values keys biases query_weights v"
        " sources weights context hidden scratch d_weights d_context d_scores d_query d_query_part d_keys d_v"
    )


class Prediction(Arguments):
    _fields_ = fields(
        "batch time output_units memory_units vocabulary end ids sources all_ids mix mix_biases weights biases mixed"
        " logits"
    )


def load() -> Any:
    """The library that the installation built, or None."""
    for suffix in EXTENSION_SUFFIXES:
        path = Path(__file__).with_name(f"loops{suffix}")
        if path.exists():
            try:
                library = ctypes.CDLL(str(path))
                library.version.restype = ctypes.c_int64
                return library if library.version() == VERSION else None
            except (OSError, AttributeError):  # made for another machine
                return None
    return None


def load_blas() -> Any:
    """The library in which torch has its matrix products, or None."""
    for name in ("libtorch_cpu.so", "libtorch_cpu.dylib"):
        path = Path(torch.__file__).with_name("lib") / name
        if path.exists():
            return ctypes.CDLL(str(path))
    return None


LIBRARY, BLAS = load(), load_blas()


def usable(tensor: Tensor) -> bool:
    """Whether the compiled loops take such tensors."""
    if LIBRARY is None or tensor.device.type != "cpu" or tensor.dtype not in TYPES:
        return False
    return hasattr(BLAS, TYPES[tensor.dtype][1])


def multiplies_sooner() -> bool:
    """Whether `multiply` is sooner than torch: only on one thread, and on processors that torch's BLAS underrates."""
    return LIBRARY is not None and torch.get_num_threads() == 1 and bool(LIBRARY.product_pays())


def function(name: str, dtype: torch.dtype) -> Any:
    return getattr(LIBRARY, f"{name}_{TYPES[dtype][0]}")


def blas(dtype: torch.dtype) -> Blas:
    address = ctypes.cast(getattr(BLAS, TYPES[dtype][1]), ctypes.c_void_p).value
    return Blas(gemm=address, threads=torch.get_num_threads())


def run(
    direction: str,
    dtype: torch.dtype,
    cells: Sequence[Cell],
    rows: Sequence[int],
    attention: Attention | None = None,
    dropouts: Sequence[Dropout] = (),
) -> None:
    """Runs the `forward` or the `backward` loop over all steps, of which step t computes the first rows[t] rows.

    With attention there is a dropout before each of the cells and before attention.
    """
    function(direction, dtype)(
        ctypes.byref(blas(dtype)),
        (Cell * len(cells))(*cells),
        ctypes.c_int64(len(cells)),
        (Dropout * len(dropouts))(*dropouts),
        None if attention is None else ctypes.byref(attention),
        ctypes.c_int64(len(rows)),
        (ctypes.c_int64 * len(rows))(*rows),
    )


def multiply(start: Tensor | None, a: Tensor, b: Tensor, out: Tensor) -> None:
    """Makes out [N, M] = start + a b, for a [N, K], b [K, M] and start [N, M] or [M], or None for zeros."""
    (n, k), m = a.shape, b.shape[1]
    start_row = start.stride(0) if start is not None and start.dim() == 2 else 0
    steps = {"a_row": a.stride(0), "a_column": a.stride(1), "b_row": b.stride(0), "b_column": b.stride(1)}
    steps |= {"start_row": start_row, "c_row": out.stride(0)}
    product = Product(n=n, k=k, m=m, **steps, a=a, b=b, start=start, c=out)
    function("product", a.dtype)(ctypes.byref(product))


def greedy(dtype: torch.dtype, cells: Sequence[Cell], attention: Attention | None, prediction: Prediction) -> None:
    """Runs the loop over steps whose inputs are what the step before predicted."""
    function("greedy", dtype)(
        ctypes.byref(blas(dtype)),
        (Cell * len(cells))(*cells),
        ctypes.c_int64(len(cells)),
        None if attention is None else ctypes.byref(attention),
        ctypes.byref(prediction),
    )
