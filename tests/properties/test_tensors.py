"""Public calls take integers of any type and layout, and no wrong tensor reaches the loops in C."""

import ctypes
import itertools
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from s2s_search.corpus.batches import Batch
from s2s_search.hparams.table import ENCODERS
from s2s_search.nn.cells import make_cell
from s2s_search.nn.fast import matmul, native
from s2s_search.nn.generate import beam_search, greedy
from s2s_search.nn.models import Seq2Seq
from s2s_search.nn.stacks import unroll
from s2s_search.training.evaluation import decode
from s2s_search.training.loss import target_mask, token_losses
from s2s_search.training.optimizers import Optimizer
from s2s_search.training.trial import training_step
from tests.models import BATCH, make, small

COMPILED = pytest.mark.skipif(native.LIBRARY is None, reason="no compiled loops")
UNSIGNED = [torch.uint8, torch.uint16, torch.uint32]


def strided(x: Tensor) -> Tensor:
    """Returns a tensor with the same numbers and others between them in memory."""
    return torch.stack([x, torch.full_like(x, 1)], dim=-1)[..., 0]


def lain_otherwise(x: Tensor) -> Iterator[Tensor]:
    """Yields the same numbers in other types and memory layouts."""
    for dtype in [torch.int32, torch.int16, torch.int8, *UNSIGNED]:
        yield x.to(dtype)
    yield strided(x)
    yield strided(x.int())
    yield torch.cat([torch.full_like(x[:1], 1), x])[1:]
    yield x.t().contiguous().t()
    yield x.int().t().contiguous().t()


def public_results(model: Seq2Seq, batch: Batch) -> list[Any]:
    """Returns the results of the public calls."""
    encoding = model.encode(batch.source_ids, batch.source_lengths)
    found = [*encoding.state, encoding.encoder_output.outputs, *model.decode(encoding, *batch[2:])]
    found += [*greedy(model, *batch[:2], 6), *greedy(model, *batch[:2], 6, keep_logits=True)]
    found += [
        *beam_search(model, *batch[:2], 6, 3),
        token_losses(model(batch), batch),
        target_mask(batch),
    ]
    answered = [
        decode(model, *batch[:2], small(inference__beam_search__beam_width=width))
        for width in (1, 2)
    ]
    model.zero_grad()
    rate_of_nothing = Optimizer(model.parameters(), "SGD", lambda step: 0.0, clip=-1.0)
    found += [model.loss(batch), *training_step(model, rate_of_nothing, batch, 0)]
    return [*found, *answered]


@pytest.mark.parametrize("cell", ["LSTMCell", "GRUCell", "BasicRNNCell"])
@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("name", ["BasicSeq2Seq", "AttentionSeq2Seq"])
def test_integers_of_any_type_and_layout_give_the_same(name: str, encoder: str, cell: str) -> None:
    model = make(small(name, cell, encoder__type=encoder))
    expected = public_results(model, BATCH)
    for tensors in zip(*(lain_otherwise(tensor) for tensor in BATCH), strict=True):
        for result, same in zip(public_results(model, Batch(*tensors)), expected, strict=True):
            assert same is None or isinstance(same, list) or result.dtype == same.dtype
            assert torch.equal(result, same) if isinstance(same, Tensor) else result == same


WRONG: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor], str]] = {
    "floats": (lambda ids: ids.double(), lambda n: n, "must be integers"),
    "float lengths": (lambda ids: ids, lambda n: n.double(), "must be integers"),
    "bools": (lambda ids: ids.bool(), lambda n: n, "must be integers"),
    "a row": (lambda ids: ids[0], lambda n: n[0], "with B >= 1"),
    "a row more": (lambda ids: ids, lambda n: torch.cat([n, n[:1]]), "with B >= 1"),
    "a row less": (lambda ids: ids, lambda n: n[1:], "with B >= 1"),
    "lengths of a column": (lambda ids: ids, lambda n: n.unsqueeze(1), "with B >= 1"),
    "no rows": (lambda ids: ids[:0], lambda n: n[:0], "with B >= 1"),
    "no positions": (lambda ids: ids[:, :0], lambda n: n * 0, "with B >= 1"),
    "too long": (lambda ids: ids, lambda n: n + 40, "as many as there are positions"),
    "negative": (lambda ids: ids, lambda n: n - 40, "as many as there are positions"),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("cell", ["LSTMCell", "BasicRNNCell"])
def test_other_tensors_are_refused(wrong: str, cell: str) -> None:
    model = make(small("AttentionSeq2Seq", cell))
    of_ids, of_lengths, message = WRONG[wrong]
    source = of_ids(BATCH.source_ids), of_lengths(BATCH.source_lengths)
    target = of_ids(BATCH.target_ids), of_lengths(BATCH.target_lengths)
    encoding = model.encode(*BATCH[:2])
    calls: list[Callable[[], object]] = [
        lambda: model.encode(*source),
        lambda: greedy(model, *source, 5),
        lambda: beam_search(model, *source, 5, 2),
        lambda: decode(model, *source, small()),
        lambda: model(Batch(*source, *BATCH[2:])),
        lambda: model.loss(Batch(*source, *BATCH[2:])),
        lambda: model.decode(encoding, *target),
        lambda: model.loss(Batch(*BATCH[:2], *target)),
    ]
    for call in calls:
        with pytest.raises((TypeError, ValueError), match=message):
            call()


def test_the_gradient_of_a_state_may_be_transposed() -> None:
    """The gradient of c is transposed where c is used as c.t()."""
    torch.manual_seed(0)
    cell = make_cell({"class": "LSTMCell", "num_units": 4}, 3).double()
    x = torch.randn(2, 5, 3).double()
    weights = torch.randn(4, 2).double()
    gradients = []
    for recurrence in (cell.recurrence, lambda: None):
        with mock.patch.object(cell, "recurrence", recurrence):
            _, (c, h) = unroll(cell, x, torch.tensor([5, 3]))
        gradients.append(
            torch.autograd.grad(((c + h).t() * weights).sum(), list(cell.parameters()))
        )
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("structure", native.STRUCTURES)
def test_a_misspelt_field_is_refused(structure: type[native.Arguments]) -> None:
    with pytest.raises(TypeError, match="has no int 'lenghts'"):
        structure(lenghts=3)
    with pytest.raises(TypeError, match="has no Tensor 'wieghts'"):
        structure(wieghts=torch.zeros(2))
    with pytest.raises(TypeError, match=f"has no Tensor '{structure._fields_[0][0]}'"):
        structure(**{structure._fields_[0][0]: torch.zeros(2)})  # a number, not a tensor
    with pytest.raises(TypeError, match="has no NoneType 'lenghts'"):
        structure(lenghts=None)
    with pytest.raises(AttributeError, match="no attribute 'lenghts'"):
        structure().lenghts = 3


@COMPILED
def test_a_library_whose_structures_differ_is_not_used() -> None:
    class Other:
        """The library with another offset of one field, or another size of one structure."""

        def __init__(self, different: tuple[bytes, bytes]) -> None:
            self.different, self.version = different, mock.Mock(side_effect=native.LIBRARY.version)

        def offset_float(self, *field: bytes) -> int:
            return int(native.LIBRARY.offset_float(*field)) + (8 if field == self.different else 0)

        def offset_double(self, *field: bytes) -> int:
            return int(native.LIBRARY.offset_double(*field))

    def agrees(*different: bytes) -> bool:
        library = Other(different)  # type: ignore[arg-type]
        parts = {
            name: mock.Mock(side_effect=getattr(library, name))
            for name in ("offset_float", "offset_double")
        }
        return native.agrees(mock.Mock(version=library.version, **parts))

    assert agrees(b"", b"")
    for structure in native.STRUCTURES:
        name = structure.__name__.removesuffix("Arguments").lower()
        for field in ("", *(field for field, *_ in structure._fields_)):
            assert not agrees(name.encode(), field.encode())
    assert native.LIBRARY.offset_float(b"cell", b"lenghts") == -1


@COMPILED
@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize(
    "settings", [{"attention.score_type": "bahdanau"}, {"attention.score_type": "dot"}]
)
@pytest.mark.parametrize("cell", ["LSTMCell", "GRUCell"])
def test_no_wrong_tensor_gets_an_address(
    cell: str, settings: dict[str, Any], backward: bool
) -> None:
    """Each tensor of each structure in turn comes in another type, with gaps, and too short."""
    model = make(small("AttentionSeq2Seq", cell, **settings))
    kept: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    real = native.run_loops

    def recorded(*args: Any, **kwargs: Any) -> None:
        kept.append((args, kwargs))
        real(*args, **kwargs)

    with (
        mock.patch.object(native, "run_loops", recorded),
        mock.patch.object(native, "run_greedy") as of_greedy,
    ):
        model.loss(BATCH).backward()
        greedy(model, *BATCH[:2], 6)
    directions = {"forward": False, "backward": True}
    checked = 0
    for (direction, dtype, cells, rows, *rest), _ in kept:
        if directions[direction] != backward:
            continue
        attention, dropouts = rest if rest else (None, ())
        for part in [*cells, *dropouts, *([] if attention is None else [attention])]:
            checked += refused(part, dtype, len(rows))
        with pytest.raises(ValueError, match="in a batch of"):
            real(direction, dtype, cells, [rows[0] + 1, *rows[1:]], *rest)
    if not backward:
        dtype, cells, attention, prediction = of_greedy.call_args.args
        for part in [*cells, attention, prediction]:
            checked += refused(part, dtype, 1)
    assert checked > 20


def refused(part: native.Arguments, dtype: torch.dtype, time: int) -> int:
    """Returns the number of tensors of a structure, once each is refused when it is wrong."""
    part.point(dtype, time)
    given = {name: tensor for name, tensor in part.tensors.items() if tensor.numel() > 1}
    for name, tensor in given.items():
        for other in (
            tensor.int(),
            tensor.half(),
            strided(tensor),
            tensor.flatten()[:-1],
            tensor.to("meta"),
        ):
            part.tensors[name] = other
            with pytest.raises(ValueError, match=f"{name} must be contiguous"):
                part.point(dtype, time)
        part.tensors[name] = tensor
    return len(given)


def test_products_of_matrices_that_panels_cannot_read_are_those_of_torch() -> None:
    """The start or the result is stored by columns, or a factor has no stride of 1."""
    a, b, start = torch.randn(6, 5), torch.randn(5, 7), torch.randn(7, 6).t()
    factors = [
        (a, a.repeat_interleave(2, dim=1)[:, ::2]),
        (b, b.repeat_interleave(2, dim=1)[:, ::2]),
    ]
    starts = [start, torch.stack([start[0], start[1]], dim=1)[:, 0], start[:1].expand(6, 7)]
    with (
        mock.patch.object(native, "multiplies_faster", return_value=native.LIBRARY is not None),
        mock.patch.object(matmul, "ENOUGH", 0),
        torch.no_grad(),
    ):
        for left, right, first in itertools.product(*factors, starts):
            torch.testing.assert_close(matmul.addmm(first, left, right), first + a @ b)
            out = torch.empty(7, 6).t()
            torch.testing.assert_close(matmul.addmm(first, left, right, out=out), first + a @ b)
            torch.testing.assert_close(matmul.mm(left, right, out=out), a @ b)
        with pytest.raises(RuntimeError, match="dtype"):
            matmul.mm(a, b.double())


@COMPILED
def test_panels_refuse_what_they_cannot_read() -> None:
    a, b, out = torch.randn(6, 5), torch.randn(5, 7), torch.empty(6, 7)
    wrong = [
        (None, a, b.double(), out),
        (None, a, b[1:], out),
        (None, a, b, out[1:]),
        (None, a, b, torch.empty(7, 6).t()),
        (torch.randn(6), a, b, out),
        (torch.randn(7, 6).t(), a, b, out),
        (None, a.repeat_interleave(2, dim=1)[:, ::2], b, out),
        (None, a, b, out.to("meta")),
    ]
    for matrices in wrong:
        with pytest.raises(ValueError, match="no product of panels"):
            native.multiply(*matrices)


def test_structures_are_numbers_of_64_bits() -> None:
    for structure in native.STRUCTURES:
        assert ctypes.sizeof(structure) == 8 * len(structure._fields_)
