"""The loops with a written-out gradient, compiled or not, equal the plain loops for any lengths."""

import copy
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from itertools import count
from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from s2s_search.corpus.batches import Batch
from s2s_search.hparams.configuration import Hparams
from s2s_search.hparams.table import ENCODERS
from s2s_search.nn.cells import GRUCell, LSTMCell, make_cell
from s2s_search.nn.fast import native
from s2s_search.nn.models import Seq2Seq
from s2s_search.nn.stacks import Embedded, StackedCell, unroll
from s2s_search.training.loss import token_losses
from tests.models import BATCH, SOURCE_SIZE, TARGET_SIZE, batch_of, make, small

CELLS = st.sampled_from(
    [
        {"class": "BasicLSTMCell", "forget_bias": 0.3},
        {"class": "LSTMCell"},
        {"class": "GRUCell"},
        {"class": "GRUBlockCell"},
    ]
)


def spec(cell: dict[str, Any], units: int) -> dict[str, Any]:
    return cell | {"cell_size" if cell["class"] == "GRUBlockCell" else "num_units": units}


@contextmanager
def plain_loops() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for cell in (LSTMCell, GRUCell):
            patch.setattr(cell, "recurrence", lambda self: None)
        yield


@contextmanager
def uncompiled() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "LIBRARY", None)
        yield


# Where no C compiler was found, the first two are the same.
LOOPS = {"compiled": nullcontext, "torch": uncompiled, "plain": plain_loops}


@settings(max_examples=60)
@given(
    CELLS,
    st.integers(1, 20),
    st.lists(st.integers(0, 6), min_size=1, max_size=4),
    st.integers(0, 2),
    st.data(),
)
def test_unroll(
    cell: dict[str, Any], units: int, lengths: list[int], more: int, data: st.DataObject
) -> None:
    torch.manual_seed(data.draw(st.integers(0, 99)))
    made = make_cell(spec(cell, units), 3).double()
    batch, time = len(lengths), max([*lengths, 1]) + more
    x = torch.randn(batch, time, 3).double().requires_grad_()
    reverse = data.draw(st.booleans())
    scale = 0.0 if reverse else 1.0
    state = tuple(
        (torch.randn(batch, size).double() * scale).requires_grad_() for size in made.state_sizes
    )
    within = torch.arange(time) < torch.tensor(lengths).unsqueeze(1)
    used = data.draw(st.sampled_from(["outputs", "state", "both"]))
    weigh = [
        torch.randn(batch, time, units).double() * within.unsqueeze(-1),
        *(torch.randn(batch, units) for _ in state),
    ]
    results = []
    for loops in LOOPS.values():
        with loops():
            outputs, last = unroll(made, x, torch.tensor(lengths), state, reverse)
        parts = [outputs * within.unsqueeze(-1), *last]
        chosen = {"outputs": slice(1), "state": slice(1, None), "both": slice(None)}[used]
        loss = sum(
            ((a * b).sum() for a, b in zip(parts[chosen], weigh[chosen], strict=True)),
            torch.zeros(()),
        )
        wanted = [x, *([] if reverse else state), *made.parameters()]
        gradients = torch.autograd.grad(loss, wanted)
        results.append((parts, gradients))
    torch.testing.assert_close(results[0], results[2])
    torch.testing.assert_close(results[1], results[2])


@given(
    CELLS,
    st.lists(st.integers(0, 6), min_size=1, max_size=4),
    st.booleans(),
    st.integers(2, 30),
    st.data(),
)
def test_unroll_without_gradients(
    cell: dict[str, Any], lengths: list[int], reverse: bool, words: int, data: st.DataObject
) -> None:
    """The inputs are looked up in a table, which has fewer rows than there are inputs, or more."""
    torch.manual_seed(data.draw(st.integers(0, 99)))
    made = make_cell(spec(cell, 5), 3).double()
    table = torch.randn(words, 3).double()
    ids = torch.randint(words, (len(lengths), max([*lengths, 1])))
    x, ends = Embedded(table[ids], ids, table), torch.tensor(lengths)
    within = (torch.arange(ids.shape[1]) < ends.unsqueeze(1)).unsqueeze(-1)
    with torch.no_grad():
        results = []
        for loops in LOOPS.values():
            with loops():
                outputs, last = unroll(made, x.vectors, ends, None, reverse, x.tokens())
            results.append([outputs * within, *last])
    torch.testing.assert_close(results[0], results[2])
    torch.testing.assert_close(results[1], results[2])


@st.composite
def configurations(draw: st.DrawFn, dropout: bool = False) -> Hparams:
    keep_prob = st.sampled_from([0.3, 0.6, 1.0]) if dropout else st.just(1.0)
    return small(
        "AttentionSeq2Seq",
        **{
            "decoder.rnn_cell.dropout_input_keep_prob": draw(keep_prob),
            "decoder.rnn_cell.dropout_output_keep_prob": draw(keep_prob),
            "encoder.type": draw(st.sampled_from(ENCODERS)),
            "bridge_spec": {"class": draw(st.sampled_from(["ZeroBridge", "InitialStateBridge"]))},
            "encoder.rnn_cell.cell_spec": spec(draw(CELLS), draw(st.integers(2, 4))),
            "decoder.rnn_cell.cell_spec": spec(draw(CELLS), draw(st.integers(2, 4))),
            "encoder.rnn_cell.num_layers": draw(st.integers(1, 2)),
            "decoder.rnn_cell.num_layers": draw(st.integers(1, 3)),
            "attention.score_type": draw(st.sampled_from(["dot", "bahdanau"])),
            "attention.dim": draw(st.integers(1, 5)),
        },
    )


sources = st.lists(st.lists(st.integers(0, SOURCE_SIZE - 4), max_size=5), min_size=1, max_size=4)
target = st.lists(st.integers(0, TARGET_SIZE - 4), max_size=5)


def values_and_gradients(model: Seq2Seq, batch: Batch) -> list[Tensor | None]:
    model.zero_grad()
    encoding = model.encode(batch.source_ids, batch.source_lengths)
    output = model.decode(encoding, batch.target_ids, batch.target_lengths)
    assert output.weights is not None
    assert output.contexts is not None
    loss = (
        token_losses(output.logits, batch).sum()
        + (output.weights**2).sum()
        + (output.contexts**3).sum()
    )
    loss.backward()
    gradients = [None if p.grad is None else p.grad.to_dense() for p in model.parameters()]
    return [loss, *output, *gradients]


@settings(max_examples=60)
@given(configurations(), sources, st.data())
def test_a_model(hparams: Hparams, sources: list[list[int]], data: st.DataObject) -> None:
    model = make(hparams)
    padding = data.draw(st.sampled_from([(0, 0), (2, 1)]))
    batch = batch_of(sources, [data.draw(target) for _ in sources], padding=padding)

    results = []
    for loops in LOOPS.values():
        with loops():
            results.append(values_and_gradients(model, batch))
    torch.testing.assert_close(results[0], results[2])
    torch.testing.assert_close(results[1], results[2])
    with torch.no_grad():  # the compiled loops then keep fewer steps
        encoding = model.encode(batch.source_ids, batch.source_lengths)
        output = model.decode(encoding, batch.target_ids, batch.target_lengths)
    torch.testing.assert_close([*output], results[2][1 : 1 + len(output)])
    model.zero_grad()
    model.loss(batch).backward()
    made = [None if p.grad is None else p.grad.to_dense() for p in model.parameters()]
    model.zero_grad()
    loss = token_losses(model(batch), batch).sum()
    loss.backward()
    torch.testing.assert_close(model.loss(batch), loss)
    torch.testing.assert_close(
        made, [None if p.grad is None else p.grad.to_dense() for p in model.parameters()]
    )
    for single, double in zip(
        values_and_gradients(copy.deepcopy(model).float(), batch), results[2], strict=True
    ):
        if single is not None:
            torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=1e-5)


@settings(max_examples=40)
@given(
    st.sampled_from(["AttentionSeq2Seq", "BasicSeq2Seq"]),
    sources,
    st.floats(0, 1, exclude_max=True),
    st.data(),
)
def test_label_smoothing_equals_a_plain_loop(
    name: str, sources: list[list[int]], share: float, data: st.DataObject
) -> None:
    """Every token of the vocabulary is a target, with its share of the probability."""
    model = make(small(name))
    padding = data.draw(st.sampled_from([(0, 0), (2, 1)]))
    batch = batch_of(sources, [data.draw(target) for _ in sources], padding=padding)
    results = []
    for smoothed in (True, False):
        model.zero_grad()
        if smoothed:
            loss = model.loss(batch, share)
        else:
            loss = torch.zeros(())
            log_p = torch.log_softmax(model(batch), -1)
            for row, length in enumerate(batch.target_lengths.tolist()):
                for t in range(length - 1):
                    for token in range(TARGET_SIZE):
                        wanted = share / TARGET_SIZE
                        if token == batch.target_ids[row, t + 1]:
                            wanted += 1 - share
                        loss = loss - wanted * log_p[row, t, token]
        loss.backward()
        gradients = [None if p.grad is None else p.grad.to_dense() for p in model.parameters()]
        results.append((loss, gradients))
    torch.testing.assert_close(results[0], results[1])


class Drawn:
    """Records the dropout of a loop over all layers at every step, for use in the plain loop."""

    def __init__(self, cell: StackedCell) -> None:
        self.cell, self.steps = cell, (divmod(n, len(cell.layers)) for n in count())

    @contextmanager
    def recorded(self) -> Iterator[None]:
        def dropped(x: Tensor) -> Tensor:
            self.x_mask = StackedCell.dropped(self.cell, torch.ones_like(x))
            return x if self.cell.input_keep_prob == 1.0 else x * self.x_mask

        def masks(time: int, below: Tensor) -> list[Tensor | None]:
            self.masks = StackedCell.masks(self.cell, time, below)
            return self.masks

        with mock.patch.multiple(self.cell, dropped=dropped, masks=masks):
            yield

    @contextmanager
    def repeated(self) -> Iterator[None]:
        def step_of(mask: Tensor | None) -> Tensor:
            return torch.ones(1, 1) if mask is None else mask[self.t]

        def dropped(x: Tensor) -> Tensor:
            self.t, self.layer = next(self.steps)
            if self.layer > 0:
                return x * step_of(self.masks[self.layer])
            inputs = self.x_mask.shape[-1]
            return torch.cat(
                [x[:, :inputs] * self.x_mask[:, self.t], x[:, inputs:] * step_of(self.masks[0])],
                dim=-1,
            )

        def joined(x: Tensor, y: Tensor) -> Tensor:
            return y * step_of(self.masks[-1]) if self.layer == len(self.cell.layers) - 1 else y

        with mock.patch.multiple(self.cell, dropped=dropped, joined=joined):
            yield


@settings(max_examples=60)
@given(configurations(dropout=True), sources, st.data())
def test_a_model_with_dropout(
    hparams: Hparams, sources: list[list[int]], data: st.DataObject
) -> None:
    """Target lengths fall, as in training, so that no row of a mask changes its place."""
    model = make(hparams)
    targets = sorted([data.draw(target) for _ in sources], key=len, reverse=True)
    batch = batch_of(sources, targets, padding=data.draw(st.sampled_from([(0, 0), (2, 1)])))
    drawn = Drawn(model.decoder.cell)
    results = []
    for name, loops in LOOPS.items():
        torch.manual_seed(1)
        with loops(), drawn.repeated() if name == "plain" else drawn.recorded():
            results.append(values_and_gradients(model, batch))
    torch.testing.assert_close(results[0], results[2])
    torch.testing.assert_close(results[1], results[2])


@given(configurations(dropout=True))
def test_a_model_drops_nothing_in_evaluation(hparams: Hparams) -> None:
    model = make(hparams).eval()
    with plain_loops():
        expected = values_and_gradients(model, BATCH)
    torch.testing.assert_close(values_and_gradients(model, BATCH), expected)


def test_masks_keep_what_dropout_keeps() -> None:
    torch.manual_seed(0)
    cell = StackedCell({"class": "GRUCell", "num_units": 30}, 3, 2, 0.8, 0.5)
    masks = cell.masks(40, torch.empty(20, 10))
    ones = [torch.ones(20, 40, units) for units in (10, 30, 30)]
    twice = cell.dropped(cell.joined(ones[1], ones[1]))
    for mask, same in zip(
        masks, [cell.dropped(ones[0]), twice, cell.joined(ones[2], ones[2])], strict=True
    ):
        assert mask is not None
        assert mask.shape == (40, 20, same.shape[-1])
        torch.testing.assert_close(mask.unique(), same.unique())
        assert mask.mean().item() == pytest.approx(1.0, abs=0.03)
        assert len(mask.flatten(1).unique(dim=0)) == 40  # every step has a mask of its own
        assert len(mask.transpose(0, 1).flatten(1).unique(dim=0)) == 20
    assert cell.eval().masks(40, torch.empty(20, 10)) == [None] * 3


def test_an_installation_with_a_compiler_has_the_compiled_loops() -> None:
    if shutil.which("cc") is None and shutil.which("gcc") is None:
        pytest.skip("no C compiler: torch's loops are used")
    assert native.usable(torch.zeros(1))


def test_sigmoids_of_the_compiled_loops_are_exact_and_never_overflow() -> None:
    """A GRU of one unit with h = 1 and a candidate of 0: its output after a step is sigmoid(u)."""
    u = torch.cat(
        [torch.linspace(-120, 120, 100_001), torch.tensor([-1e30, 1e30, torch.nan])]
    ).unsqueeze(1)
    cell = make_cell({"class": "GRUCell", "num_units": 1}, 1)
    with torch.no_grad():
        for p in cell.parameters():
            p.zero_()
        cell.input_weights[0, 1] = 1.0
        outputs, _ = unroll(
            cell, u.unsqueeze(1), torch.ones(len(u), dtype=torch.long), (torch.ones(len(u), 1),)
        )
    torch.testing.assert_close(
        outputs.flatten(), torch.sigmoid(u).flatten(), rtol=1e-6, atol=1e-37, equal_nan=True
    )


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["BasicLSTMCell", "GRUCell"]),
    st.integers(1, 45),
    st.one_of(st.integers(1, 70), st.just(128)),
    st.sampled_from([(torch.float32, 2e-5), (torch.float64, 1e-12)]),
    st.sampled_from([1, 2]),
)
def test_compiled_products_take_any_number_of_rows_and_units(
    cell: str, rows: int, units: int, precision: tuple[torch.dtype, float], threads: int
) -> None:
    """On one thread the loops may use panels, on more threads they use BLAS."""
    dtype, tolerance = precision
    torch.manual_seed(rows)
    layer = make_cell({"class": cell, "num_units": units}, 3).to(dtype)
    x, lengths = torch.randn(rows, 3, 3, dtype=dtype), torch.full((rows,), 3)
    results = []
    for loop in (nullcontext, plain_loops):
        with loop(), mock.patch.object(torch, "get_num_threads", return_value=threads):
            outputs, _ = unroll(layer, x, lengths)
            results.append(
                [outputs, *torch.autograd.grad(outputs.square().mean(), list(layer.parameters()))]
            )
    torch.testing.assert_close(*results, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    "cell",
    [
        {"class": "LSTMCell", "use_peepholes": True},
        {"class": "LSTMCell", "num_proj": 2},
        {"class": "LSTMCell", "cell_clip": 1.0},
        {"class": "BasicLSTMCell", "activation": "relu"},
        {"class": "GRUCell", "activation": "relu"},
        {"class": "LSTMBlockCell"},
        {"class": "CoupledInputForgetGateLSTMCell"},
        {"class": "LayerNormBasicLSTMCell"},
        {"class": "BasicRNNCell"},
    ],
)
def test_other_cells_take_the_plain_loop(cell: dict[str, Any]) -> None:
    assert make_cell(spec(cell, 3), 2).recurrence() is None


def test_layers_with_residual_connections_take_the_plain_loop() -> None:
    layer = {"class": "GRUCell", "num_units": 3}
    assert StackedCell(layer, 3, 2, residual_connections=True).recurrences() is None
    assert StackedCell(layer, 3, 1, residual_connections=True).recurrences() is not None


def test_a_second_backward_is_refused() -> None:
    cell = make_cell({"class": "GRUCell", "num_units": 3}, 2)
    outputs, _ = unroll(cell, torch.randn(2, 3, 2), torch.tensor([3, 2]), (torch.zeros(2, 3),))
    loss = outputs.sum()
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="only once"):
        loss.backward()
