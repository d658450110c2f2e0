"""The compiled loops of loops.c, where the installation found a C compiler; without them all runs on torch alone.

They run steps on the CPU, in place of the loops over `forward(t)` and `backward(t)` in `cell_loops` and
`attention_loops`, on the same buffers, and those of greedy decoding.
"""

import ctypes
from collections.abc import Mapping, Sequence
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

VERSION = 8  # of loops.c
TYPES = {torch.float32: ("float", "sgemm_"), torch.float64: ("double", "dgemm_")}
INDICES = {
    "lengths",
    "ids",
    "sources",
    "all_ids",
}  # tensors of int64; all others have the type of the loop

Shapes = Mapping[str, tuple[str, ...]]


def shapes(**tensors: str) -> Shapes:
    return {name: tuple(shape.split()) for name, shape in tensors.items()}


def fields(numbers: Sequence[str], tensors: Shapes) -> list[tuple[str, type]]:
    return [(name, ctypes.c_int64) for name in (*numbers, *tensors)]


class Arguments(ctypes.Structure):
    """A C structure of 64-bit numbers, and after them the addresses of tensors. What is left out is 0.

    TENSORS holds the shape of each tensor, in the structure's numbers and in those of `sizes`.
    """

    __slots__ = ("numbers", "tensors")  # and no others: an attribute that is no field raises
    NUMBERS: ClassVar[Sequence[str]] = ()
    TENSORS: ClassVar[Shapes] = {}

    def __init__(self, **values: Tensor | int | None) -> None:
        """Sets the numbers and keeps the tensors, whose addresses `point` sets.

        Raises:
            TypeError: the structure has no number, or no tensor, of a name.
        """
        self.tensors: dict[str, Tensor] = {}
        self.numbers: dict[str, int] = {}
        for name, value in values.items():
            if isinstance(value, Tensor) and name in self.TENSORS:
                self.tensors[name] = value
            elif isinstance(value, int) and name in self.NUMBERS:
                self.numbers[name] = value
            elif value is not None or not hasattr(self, name):
                raise TypeError(f"{type(self).__name__} has no {type(value).__name__} {name!r}")
        super().__init__(**self.numbers)

    def sizes(self) -> dict[str, int]:
        """The sizes of tensors that are no numbers of the structure."""
        return {}

    def point(self, dtype: torch.dtype, time: int = 0) -> None:
        """Sets the addresses of the tensors, for a loop of `time` steps on numbers of `dtype`.

        Raises:
            ValueError: a tensor does not lie one number after the other on the CPU, or has another type or size.
        """
        sizes = {"time": time, "states": time + 1, **self.numbers, **self.sizes()}
        addresses: dict[str, int] = {}
        for name, tensor in self.tensors.items():
            shape, count, expected = (
                self.TENSORS[name],
                1,
                torch.int64 if name in INDICES else dtype,
            )
            for size in shape:
                count *= sizes[size]
            lies_well = tensor.is_contiguous() and tensor.is_cpu
            if not lies_well or tensor.dtype is not expected or tensor.numel() != count:
                wanted = [sizes[size] for size in shape]
                found = f"{tensor.dtype} {list(tensor.shape)} on {tensor.device}, strides {list(tensor.stride())}"
                raise ValueError(
                    f"{name} must be contiguous {expected} {wanted} on cpu, but is {found}"
                )
            addresses[name] = tensor.data_ptr()
        super().__init__(**addresses)


class Blas(Arguments):
    """torch's matrix product and its threads."""

    __slots__ = ()
    NUMBERS = ("gemm", "threads")
    _fields_ = fields(NUMBERS, {})


class Product(Arguments):
    """Matrices of any steps, which `multiply` checks."""

    __slots__ = ()
    NUMBERS = (
        "n",
        "k",
        "m",
        "a_row",
        "a_column",
        "b_row",
        "b_column",
        "start_row",
        "c_row",
        "a",
        "b",
        "start",
        "c",
    )
    _fields_ = fields(NUMBERS, {})


class Cell(Arguments):
    __slots__ = ()
    NUMBERS = (
        "gru",
        "batch",
        "units",
        "below_units",
        "before",
        "after",
        "gate_rows",
        "inside_rows",
    )
    TENSORS = shapes(
        lengths="batch",
        gates="gate_rows batch gates",
        output="states batch units",
        inside="inside_rows batch units",
        half_tanh="inside_rows batch units",
        ids="time batch",
        table="words gates",
        weights="units recurrent_gates",
        candidate_weights="units units",
        below="time batch below_units",
        below_weights="below_units gates",
        d_output="states batch units",
        d_c="batch units",
        d_below="time batch below_units",
        scratch="two batch units",
    )
    _fields_ = fields(NUMBERS, TENSORS)

    def sizes(self) -> dict[str, int]:
        words = self.tensors["table"].shape[0] if "table" in self.tensors else 0
        gates, recurrent = (3, 2) if self.gru else (4, 4)
        return {
            "gates": gates * self.units,
            "recurrent_gates": recurrent * self.units,
            "words": words,
            "two": 2,
        }


class Dropout(Arguments):
    __slots__ = ()
    NUMBERS = ("batch", "units")
    TENSORS = shapes(
        **dict.fromkeys(("mask", "below", "output", "d_output", "d_below"), "time batch units")
    )
    _fields_ = fields(NUMBERS, TENSORS)


class Attention(Arguments):
    __slots__ = ()
    NUMBERS = (
        "additive",
        "batch",
        "positions",
        "query_units",
        "memory_units",
        "units",
        "hidden_rows",
    )
    TENSORS = shapes(
        query="time batch query_units",
        values="batch positions memory_units",
        keys="batch positions units",
        biases="batch positions",
        query_weights="query_units units",
        v="units",
        sources="batch",
        weights="time batch positions",
        context="states batch memory_units",
        hidden="hidden_rows batch positions units",
        scratch="batch units",
        d_weights="time batch positions",
        d_context="states batch memory_units",
        d_scores="time batch positions",
        d_query="time batch query_units",
        d_query_part="time batch units",
        d_keys="batch positions units",
        d_v="units",
    )
    _fields_ = fields(NUMBERS, TENSORS)


class Prediction(Arguments):
    __slots__ = ()
    NUMBERS = ("batch", "time", "output_units", "memory_units", "vocabulary", "end")
    TENSORS = shapes(
        ids="batch",
        sources="batch",
        all_ids="batch time",
        mix="inputs output_units",
        mix_biases="output_units",
        weights="vocabulary output_units",
        biases="vocabulary",
        mixed="batch output_units",
        logits="batch vocabulary",
    )
    _fields_ = fields(NUMBERS, TENSORS)

    def sizes(self) -> dict[str, int]:
        return {"inputs": self.output_units + self.memory_units}


STRUCTURES: tuple[type[Arguments], ...] = (Blas, Product, Cell, Dropout, Attention, Prediction)


def agrees(library: Any) -> bool:
    """Whether the library was built from this version's loops.c: its structures have the fields that they have here."""
    library.version.restype = library.offset_float.restype = library.offset_double.restype = (
        ctypes.c_int64
    )
    if library.version() != VERSION:
        return False
    for structure in STRUCTURES:
        name = structure.__name__.lower().encode()
        expected = {field: getattr(structure, field).offset for field, *_ in structure._fields_}
        expected[""] = ctypes.sizeof(structure)
        for offset in (library.offset_float, library.offset_double):
            if any(offset(name, field.encode()) != place for field, place in expected.items()):
                return False
    return True


def load() -> Any:
    """The library that the installation built, or None."""
    for suffix in EXTENSION_SUFFIXES:
        path = Path(__file__).with_name(f"loops{suffix}")
        if path.exists():
            try:
                library = ctypes.CDLL(str(path))
                return library if agrees(library) else None
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

    Raises:
        ValueError: a tensor does not lie as the loop reads it, or a step has more rows than the batch.
    """
    most = max(rows, default=0)
    for part in (*cells, *dropouts, *(() if attention is None else (attention,))):
        part.point(dtype, len(rows))
        if most > part.batch:
            raise ValueError(f"a step of {most} rows in a batch of {part.batch}")
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
    """Makes out [N, M] = start + a b, for a [N, K], b [K, M] and start [N, M] or [M], or None for zeros.

    Raises:
        ValueError: the matrices do not fit each other, or the product does not know how to read one of them.
    """
    (n, k), m = a.shape, b.shape[1]
    matrices = [a, b, out] if start is None else [a, b, out, start]
    fit = (
        b.shape[0] == k and out.shape == (n, m) and (start is None or start.shape in ((n, m), (m,)))
    )
    if not fit or not multipliable(*matrices):
        found = ", ".join(
            f"{x.dtype} {list(x.shape)} with strides {list(x.stride())}" for x in matrices
        )
        raise ValueError(f"no product of panels: {found}")
    start_row = start.stride(0) if start is not None and start.dim() == 2 else 0
    steps = {
        "a_row": a.stride(0),
        "a_column": a.stride(1),
        "b_row": b.stride(0),
        "b_column": b.stride(1),
    }
    steps |= {"start_row": start_row, "c_row": out.stride(0)}
    addresses = {"a": a.data_ptr(), "b": b.data_ptr(), "c": out.data_ptr()}
    product = Product(
        n=n, k=k, m=m, **steps, **addresses, start=None if start is None else start.data_ptr()
    )
    function("product", a.dtype)(ctypes.byref(product))


def multipliable(a: Tensor, b: Tensor, *others: Tensor) -> bool:
    """Whether the products of panels can read all matrices: they lie on the CPU and are of one type.

    One of the two steps of a and of b is 1, and so is the last step of the others.
    """
    for tensor in (a, b, *others):
        if tensor.dtype != a.dtype or not tensor.is_cpu:
            return False
    return 1 in a.stride() and 1 in b.stride() and all(tensor.stride(-1) == 1 for tensor in others)


def greedy(
    dtype: torch.dtype, cells: Sequence[Cell], attention: Attention | None, prediction: Prediction
) -> None:
    """Runs the loop over steps whose inputs are what the step before predicted.

    Raises:
        ValueError: a tensor does not lie as the loop reads it.
    """
    for part in (*cells, prediction, *(() if attention is None else (attention,))):
        part.point(dtype, 1)
    function("greedy", dtype)(
        ctypes.byref(blas(dtype)),
        (Cell * len(cells))(*cells),
        ctypes.c_int64(len(cells)),
        None if attention is None else ctypes.byref(attention),
        ctypes.byref(prediction),
    )
