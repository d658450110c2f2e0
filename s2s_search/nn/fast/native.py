"""The compiled loops of loops.c, if the installation found a C compiler; else torch runs all loops.

On the CPU the compiled loops replace the loops over `forward(t)` and `backward(t)` in `cell_loops`
and `attention_loops`, on the same buffers. Greedy decoding and matrix products are compiled too.

A call has three parts. A structure is made with its numbers and tensors, which it keeps alive.
`run` or `greedy` checks each tensor and sets its address (`Arguments.point`). Then C runs, and
writes into the tensors. `multiply` does all three by itself.
"""

import ctypes
from collections.abc import Mapping, Sequence
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

VERSION = 8  # must equal VERSION in loops.c
# The suffix of the C functions for each type of numbers, and the name of BLAS's matrix product.
TYPES = {torch.float32: ("float", "sgemm_"), torch.float64: ("double", "dgemm_")}
# The tensors of int64; all others have the type of the loop.
INDICES = {"lengths", "ids", "sources", "all_ids"}

Shapes = Mapping[str, tuple[str, ...]]


def shapes(**tensors: str) -> Shapes:
    """Returns {tensor: names of its sizes} from the names as text, separated by spaces."""
    return {name: tuple(shape.split()) for name, shape in tensors.items()}


def fields(numbers: Sequence[str], tensors: Shapes) -> list[tuple[str, type]]:
    """Returns the fields of a structure: 64 bits each, in the order that loops.c declares them."""
    return [(name, ctypes.c_int64) for name in (*numbers, *tensors)]


class Arguments(ctypes.Structure):
    """A C structure: 64-bit numbers, then the addresses of tensors. A field that is left out is 0.

    TENSORS holds the shape of each tensor, as names of the structure's numbers and of `sizes`.
    """

    __slots__ = ("numbers", "tensors")  # a misspelt attribute raises instead of being added
    NUMBERS: ClassVar[Sequence[str]] = ()
    TENSORS: ClassVar[Shapes] = {}

    def __init__(self, **values: Tensor | int | None) -> None:
        """Sets the numbers and keeps the tensors alive; `point` sets their addresses later.

        Raises:
            TypeError: the structure has no number, or no tensor, of a given name.
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
        """Returns the sizes in TENSORS that are not numbers of the structure."""
        return {}

    def point(self, dtype: torch.dtype, time: int = 0) -> None:
        """Sets the addresses of the tensors, for a loop of `time` steps on numbers of `dtype`.

        Only the number of values is compared, not the shape: loops.c computes the places itself.

        Raises:
            ValueError: a tensor is not contiguous, not on the CPU, or of another type or size.
        """
        sizes = {"time": time, "states": time + 1, **self.numbers, **self.sizes()}
        addresses: dict[str, int] = {}
        for name, tensor in self.tensors.items():
            shape = self.TENSORS[name]
            expected = torch.int64 if name in INDICES else dtype
            count = 1
            for size in shape:
                count *= sizes[size]
            lies_well = tensor.is_contiguous() and tensor.is_cpu
            if not lies_well or tensor.dtype is not expected or tensor.numel() != count:
                wanted = [sizes[size] for size in shape]
                raise ValueError(
                    f"{name} must be contiguous {expected} {wanted} on cpu, but is {tensor.dtype} "
                    f"{list(tensor.shape)} on {tensor.device}, strides {list(tensor.stride())}"
                )
            addresses[name] = tensor.data_ptr()
        super().__init__(**addresses)


class Blas(Arguments):
    """The address of torch's matrix product, and its number of threads."""

    __slots__ = ()
    NUMBERS = ("gemm", "threads")
    _fields_ = fields(NUMBERS, {})


class ProductArguments(Arguments):
    """The addresses and strides of the matrices of a product, which `multiply` checks itself."""

    __slots__ = ()
    STRIDES = ("a_row", "a_column", "b_row", "b_column", "start_row", "c_row")
    NUMBERS = ("n", "k", "m", *STRIDES, "a", "b", "start", "c")
    _fields_ = fields(NUMBERS, {})


class CellArguments(Arguments):
    """A layer of cells: `cell_t` in loops.c."""

    __slots__ = ()
    STEPS = ("before", "after", "gate_rows", "inside_rows")
    NUMBERS = ("gru", "batch", "units", "below_units", *STEPS)
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


class DropoutArguments(Arguments):
    """A dropout between two layers: `dropout_t` in loops.c."""

    __slots__ = ()
    NUMBERS = ("batch", "units")
    TENSORS = shapes(
        **dict.fromkeys(("mask", "below", "output", "d_output", "d_below"), "time batch units")
    )
    _fields_ = fields(NUMBERS, TENSORS)


class AttentionArguments(Arguments):
    """Attention, dot or additive: `attention_t` in loops.c."""

    __slots__ = ()
    UNITS = ("query_units", "memory_units", "units")
    NUMBERS = ("additive", "batch", "positions", *UNITS, "hidden_rows")
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
    """The logits and ids of greedy decoding: `prediction_t` in loops.c."""

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


STRUCTURES: tuple[type[Arguments], ...] = (
    Blas,
    ProductArguments,
    CellArguments,
    DropoutArguments,
    AttentionArguments,
    Prediction,
)


def agrees(library: Any) -> bool:
    """Returns True when the library was built from this version's loops.c.

    Its version, and the size of each structure and the offset of each field, equal those here.
    """
    for name in ("version", "offset_float", "offset_double"):
        getattr(library, name).restype = ctypes.c_int64
    if library.version() != VERSION:
        return False
    for structure in STRUCTURES:
        name_in_c = structure.__name__.removesuffix("Arguments").lower().encode()
        expected = {field: getattr(structure, field).offset for field, *_ in structure._fields_}
        expected[""] = ctypes.sizeof(structure)
        for field, known in expected.items():
            for offset in (library.offset_float, library.offset_double):
                if offset(name_in_c, field.encode()) != known:
                    return False
    return True


def load_library() -> Any:
    """Returns the library that the installation built, or None when there is none that agrees."""
    for suffix in EXTENSION_SUFFIXES:
        path = Path(__file__).with_name(f"loops{suffix}")
        if path.exists():
            try:
                library = ctypes.CDLL(str(path))
                return library if agrees(library) else None
            except (OSError, AttributeError):  # built for another machine, or by an old version
                return None
    return None


def load_blas() -> Any:
    """Returns the library in which torch has its matrix products, or None."""
    for name in ("libtorch_cpu.so", "libtorch_cpu.dylib"):
        path = Path(torch.__file__).with_name("lib") / name
        if path.exists():
            return ctypes.CDLL(str(path))
    return None


LIBRARY, BLAS = load_library(), load_blas()


def usable(tensor: Tensor) -> bool:
    """Returns True when the compiled loops accept the type and device of a tensor."""
    if LIBRARY is None or tensor.device.type != "cpu" or tensor.dtype not in TYPES:
        return False
    return hasattr(BLAS, TYPES[tensor.dtype][1])


def multiplies_faster() -> bool:
    """Returns True when `multiply` is faster than torch on this processor and its threads.

    That is so on one thread of an AMD processor with vectors of 512 bits, which torch's BLAS does
    not use there.
    """
    return LIBRARY is not None and torch.get_num_threads() == 1 and bool(LIBRARY.product_pays())


def function(name: str, dtype: torch.dtype) -> Any:
    """Returns the C function of a name for numbers of a type."""
    return getattr(LIBRARY, f"{name}_{TYPES[dtype][0]}")


def blas(dtype: torch.dtype) -> Blas:
    """Returns torch's matrix product for numbers of a type, as C takes it."""
    address = ctypes.cast(getattr(BLAS, TYPES[dtype][1]), ctypes.c_void_p).value
    return Blas(gemm=address, threads=torch.get_num_threads())


def run_loops(
    direction: str,
    dtype: torch.dtype,
    cells: Sequence[CellArguments],
    rows: Sequence[int],
    attention: AttentionArguments | None = None,
    dropouts: Sequence[DropoutArguments] = (),
) -> None:
    """Runs the loop over all steps; the buffers of the structures then hold what the steps made.

    Args:
        direction: "forward" or "backward".
        dtype: The type of all tensors except indices.
        cells: One structure a layer, from the bottom.
        rows: The number of rows that each step computes, the first ones of the batch.
        attention: None for a layer alone.
        dropouts: With attention, one before each layer and one before attention.

    Raises:
        ValueError: a tensor has another type, size or device than the loop reads, or a step has
            more rows than the batch.
    """
    parts: list[CellArguments | DropoutArguments | AttentionArguments] = [*cells, *dropouts]
    if attention is not None:
        parts.append(attention)
    most = max(rows, default=0)
    for part in parts:
        part.point(dtype, len(rows))
        if most > part.batch:
            raise ValueError(f"a step of {most} rows in a batch of {part.batch}")
    call(
        direction,
        dtype,
        cells,
        (DropoutArguments * len(dropouts))(*dropouts),
        pointer(attention),
        ctypes.c_int64(len(rows)),
        (ctypes.c_int64 * len(rows))(*rows),
    )


def run_greedy(
    dtype: torch.dtype,
    cells: Sequence[CellArguments],
    attention: AttentionArguments | None,
    prediction: Prediction,
) -> None:
    """Runs the loop of greedy decoding: the input of a step is the token that the last predicted.

    Args:
        dtype: The type of all tensors except indices.
        cells: One structure a layer, from the bottom, with buffers for one step.
        attention: None for a decoder without attention.
        prediction: Holds the ids of all steps after the call.

    Raises:
        ValueError: a tensor has another type, size or device than the loop reads.
    """
    parts: list[CellArguments | AttentionArguments | Prediction] = [*cells, prediction]
    if attention is not None:
        parts.append(attention)
    for part in parts:
        part.point(dtype, 1)
    call("greedy", dtype, cells, pointer(attention), pointer(prediction))


def call(name: str, dtype: torch.dtype, cells: Sequence[CellArguments], *others: Any) -> None:
    """Calls a loop of loops.c with BLAS, the layers, and the arguments of its own."""
    layers = (CellArguments * len(cells))(*cells)
    function(name, dtype)(pointer(blas(dtype)), layers, ctypes.c_int64(len(cells)), *others)


def pointer(structure: Arguments | None) -> Any:
    """Returns the address of a structure as C takes it, or None for C's null."""
    return None if structure is None else ctypes.byref(structure)


def multiply(start: Tensor | None, a: Tensor, b: Tensor, out: Tensor) -> None:
    """Computes out = start + a b in place of torch.

    Args:
        start: [N, M] or [M], or None for zeros; it may be `out`.
        a: [N, K].
        b: [K, M].
        out: [N, M].

    Raises:
        ValueError: the shapes do not fit each other, or `multipliable` is False for the matrices.
    """
    (n, k), m = a.shape, b.shape[1]
    matrices = [a, b, out]
    fit = b.shape[0] == k and out.shape == (n, m)
    start_row = 0  # of a start [M]: each row of the result begins with the same numbers
    if start is not None:
        matrices.append(start)
        fit = fit and start.shape in ((n, m), (m,))
        start_row = start.stride(0) if start.dim() == 2 else 0
    if not fit or not multipliable(*matrices):
        found = ", ".join(
            f"{x.dtype} {list(x.shape)} with strides {list(x.stride())}" for x in matrices
        )
        raise ValueError(f"no product of panels: {found}")
    product = ProductArguments(
        n=n,
        k=k,
        m=m,
        a_row=a.stride(0),
        a_column=a.stride(1),
        b_row=b.stride(0),
        b_column=b.stride(1),
        start_row=start_row,
        c_row=out.stride(0),
        a=a.data_ptr(),
        b=b.data_ptr(),
        start=None if start is None else start.data_ptr(),
        c=out.data_ptr(),
    )
    function("product", a.dtype)(pointer(product))


def multipliable(a: Tensor, b: Tensor, *others: Tensor) -> bool:
    """Returns True when `multiply` can read all matrices.

    They lie on the CPU and have one type. One stride of a and one of b is 1, and so is the last
    stride of the others.
    """
    for tensor in (a, b, *others):
        if tensor.dtype != a.dtype or not tensor.is_cpu:
            return False
    return 1 in a.stride() and 1 in b.stride() and all(tensor.stride(-1) == 1 for tensor in others)
