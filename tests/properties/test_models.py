"""Properties of every model: padding, neighbours in a batch, loops, dropout and search."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from s2s_search.hparams.configuration import Hparams
from s2s_search.hparams.table import CELLS, ENCODERS
from s2s_search.nn import stepping
from s2s_search.nn.cells import make_cell
from s2s_search.nn.generate import beam_search, greedy
from s2s_search.nn.models import Seq2Seq
from s2s_search.nn.stacks import StackedCell, reverse_sequence, unroll
from s2s_search.nn.stepping import PlainStepper, PreparedStepper, make_stepper
from s2s_search.training.loss import token_losses
from tests.models import BATCH, SOURCE_SIZE, TARGET_SIZE, batch_of, cell_spec, make, small

BRIDGES = (
    {"class": "ZeroBridge"},
    {"class": "InitialStateBridge", "activation_fn": "tanh"},
    {"class": "InitialStateBridge", "bridge_input": "outputs"},
    {"class": "ConcatInputBridge", "num_units": 2},
)


@st.composite
def configurations(draw: st.DrawFn) -> Hparams:
    model = draw(st.sampled_from(["BasicSeq2Seq", "AttentionSeq2Seq"]))
    more: dict[str, object] = {
        "encoder.type": draw(st.sampled_from(ENCODERS)),
        "source.reverse": draw(st.booleans()),
        "bridge_spec": draw(st.sampled_from(BRIDGES)),
    }
    for side in ("encoder", "decoder"):
        more[f"{side}.rnn_cell.cell_spec"] = cell_spec(
            draw(st.sampled_from(sorted(CELLS))), draw(st.integers(2, 5))
        )
        more[f"{side}.rnn_cell.num_layers"] = draw(st.integers(1, 3))
        more[f"{side}.rnn_cell.residual_connections"] = draw(st.booleans())
    if model == "AttentionSeq2Seq":
        more["attention.score_type"] = draw(st.sampled_from(["dot", "bahdanau"]))
    return small(model, **more)


sources = st.lists(st.lists(st.integers(0, SOURCE_SIZE - 4), max_size=5), min_size=1, max_size=4)
target = st.lists(st.integers(0, TARGET_SIZE - 4), max_size=5)


def loss_and_gradients(model: Seq2Seq, batch: object) -> tuple[Tensor, list[Tensor]]:
    model.zero_grad()
    loss = token_losses(model(batch), batch).sum()  # type: ignore[arg-type]
    loss.backward()
    return loss, [
        torch.zeros_like(p) if p.grad is None else p.grad.to_dense() for p in model.parameters()
    ]


@settings(max_examples=60)
@given(configurations(), sources, st.data())
def test_padding_and_neighbours_change_nothing(
    hparams: Hparams, sources: list[list[int]], data: st.DataObject
) -> None:
    targets = [data.draw(target) for _ in sources]
    model = make(hparams)
    tight, wide = batch_of(sources, targets), batch_of(sources, targets, padding=(3, 2))
    loss, gradients = loss_and_gradients(model, tight)
    wide_loss, wide_gradients = loss_and_gradients(model, wide)
    torch.testing.assert_close(wide_loss, loss)
    torch.testing.assert_close(wide_gradients, gradients)
    model.eval()
    together = greedy(model, wide.source_ids, wide.source_lengths, 7, keep_logits=True)
    logits = model(wide)
    for row, (source, wanted) in enumerate(zip(sources, targets, strict=True)):
        alone = batch_of([source], [wanted])
        steps = len(wanted) + 1
        torch.testing.assert_close(model(alone)[0], logits[row, :steps])
        assert not logits[row, steps:].any()
        by_itself = greedy(model, alone.source_ids, alone.source_lengths, 7, keep_logits=True)
        n = int(by_itself.lengths)
        assert n == together.lengths[row]
        assert by_itself.ids[0].tolist() == together.ids[row, :n].tolist()
        assert by_itself.logits is not None
        assert together.logits is not None
        torch.testing.assert_close(by_itself.logits[0], together.logits[row, :n])
        if by_itself.weights is not None and together.weights is not None:
            width = len(source) + 1
            torch.testing.assert_close(by_itself.weights[0], together.weights[row, :n, :width])
            assert not together.weights[row, :, width:].any()


@settings(max_examples=40)
@given(configurations())
def test_teacher_forcing_equals_stepping(hparams: Hparams) -> None:
    model = make(hparams).eval()
    encoding = model.encode(BATCH.source_ids, BATCH.source_lengths)
    state = model.decoder.start(encoding.state, encoding.memory)
    logits = model(BATCH)
    for t in range(BATCH.target_ids.shape[1] - 1):
        x = model.decoder_input(BATCH.target_ids[:, t], encoding.extra)
        expected, state, _ = model.decoder.step(x, state, encoding.memory)
        live = t < BATCH.target_lengths - 1
        torch.testing.assert_close(logits[live, t], expected[live])


@settings(max_examples=80)
@given(configurations(), st.integers(1, 3), st.booleans(), st.booleans())
def test_prepared_steps_equal_plain_steps(
    hparams: Hparams, beams: int, table: bool, project_values: bool
) -> None:
    """Logits, states and weights are equal, for all sources of a batch and for some of them."""
    model = make(hparams).eval()
    if model.decoder.cell.residual:
        assert isinstance(
            make_stepper(model, model.encode(BATCH.source_ids, BATCH.source_lengths), 1),
            PlainStepper,
        )
        return
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(stepping, "ROWS_OF_A_TABLE", 10 if table else 0)
        patch.setattr(stepping, "MEMORY_OVER_POSITIONS", 0 if project_values else 100)
        encoding = model.encode(BATCH.source_ids, BATCH.source_lengths)
        plain, prepared = (
            PlainStepper(model, encoding, beams),
            PreparedStepper(model, encoding, beams),
        )
        sources = torch.tensor([2, 0])
        for one, other in ((plain, prepared), (plain.select(sources), prepared.select(sources))):
            state, same = one.start(), other.start()
            for t in range(3):
                ids = (torch.arange(len(state[0])) + t) % TARGET_SIZE
                logits, state, weights = one.step(ids, state)
                same_logits, same, same_weights = other.step(ids, same)
                torch.testing.assert_close(same_logits, logits)
                torch.testing.assert_close(same_weights, weights)
                context_or_weights = (
                    [weights]
                    if weights is not None and project_values and beams > 1
                    else state[-1:]
                )
                torch.testing.assert_close(same, (*state[:-1], *context_or_weights))


@settings(max_examples=40)
@given(configurations())
def test_greedy_is_a_beam_of_one(hparams: Hparams) -> None:
    model = make(hparams, seed=3).eval()
    best = greedy(model, BATCH.source_ids, BATCH.source_lengths, 6)
    beam = beam_search(model, BATCH.source_ids, BATCH.source_lengths, 6, beam_width=1)
    assert beam.ids[:, 0].tolist() == best.ids.tolist()
    assert beam.lengths[:, 0].tolist() == best.lengths.tolist()


@pytest.mark.parametrize("weight", [0.0, 0.6, 1.5])
@pytest.mark.parametrize("model_name", ["BasicSeq2Seq", "AttentionSeq2Seq"])
def test_a_beam_as_wide_as_the_tree_finds_the_best(model_name: str, weight: float) -> None:
    model, steps = make(small(model_name), seed=5).eval(), 3
    source = batch_of([[1, 2, 3]], [[]])
    end = TARGET_SIZE - 1
    tree = [
        ids
        for n in range(1, steps + 1)
        for ids in itertools.product(range(TARGET_SIZE), repeat=n)
        if end not in ids[:-1] and (ids[-1] == end or n == steps)
    ]

    def score(ids: tuple[int, ...]) -> float:
        target_ids = torch.tensor([[TARGET_SIZE - 2, *ids]])
        batch = source._replace(target_ids=target_ids, target_lengths=torch.tensor([len(ids) + 1]))
        log_p = -float(token_losses(model(batch), batch).detach().sum())
        return log_p / ((5 + len(ids) - (ids[-1] == end)) / 6) ** weight

    ranked = sorted(tree, key=score, reverse=True)
    beam = beam_search(model, source.source_ids, source.source_lengths, steps, len(tree), weight)
    for k in range(20):
        n = int(beam.lengths[0, k])
        assert tuple(beam.ids[0, k, :n].tolist()) == ranked[k]
        assert float(beam.scores[0, k]) == pytest.approx(score(ranked[k]))


@pytest.mark.parametrize("name", CELLS)
def test_unroll_is_the_loop_of_its_docstring(name: str) -> None:
    torch.manual_seed(0)
    cell = make_cell(cell_spec(name, 4), 3).double()
    inputs, lengths = torch.randn(3, 5, 3).double(), torch.tensor([5, 2, 0])
    outputs, last = unroll(cell, inputs, lengths)
    state = cell.initial_state(3, inputs)
    for t in range(5):
        y, new = cell(inputs[:, t], state)
        live = t < lengths
        torch.testing.assert_close(outputs[live, t], y[live])
        state = tuple(torch.where(live.unsqueeze(1), n, s) for n, s in zip(new, state, strict=True))
    torch.testing.assert_close(last, state)


@settings(max_examples=30)
@given(st.lists(st.lists(st.integers(1, 9), max_size=6), min_size=1, max_size=4))
def test_reverse_sequence(rows: list[list[int]]) -> None:
    width = 6
    x = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    expected = [row[::-1] + [0] * (width - len(row)) for row in rows]
    lengths = torch.tensor([len(row) for row in rows])
    assert reverse_sequence(x, lengths).tolist() == expected
    deep = x.unsqueeze(-1).expand(-1, -1, 2)
    assert reverse_sequence(deep, lengths)[..., 1].tolist() == expected


class TestDropout:
    """Dropout of (almost) all outputs shows which values it changes."""

    def stack(self, input_keep: float, output_keep: float, residual: bool = False) -> StackedCell:
        torch.manual_seed(1)
        return StackedCell(
            cell_spec("GRUCell", 4), 4, 2, input_keep, output_keep, residual
        ).double()

    def run(self, stack: StackedCell) -> tuple[Tensor, tuple[Tensor, ...]]:
        x = torch.linspace(-1, 1, 24).double().view(2, 3, 4)
        return stack.unroll(x, torch.tensor([3, 2]))

    def test_evaluation_drops_nothing(self) -> None:
        dropped, plain = self.stack(0.3, 0.4).eval(), self.stack(1.0, 1.0).train()
        torch.testing.assert_close(self.run(dropped), self.run(plain))

    def test_states_of_the_first_layer_are_never_dropped(self) -> None:
        (_, states), (_, plain) = self.run(self.stack(1.0, 1e-12)), self.run(self.stack(1.0, 1.0))
        torch.testing.assert_close(states[0], plain[0])
        assert not torch.allclose(states[1], plain[1])  # its input was dropped

    def test_outputs_are_dropped_before_the_residual_sum(self) -> None:
        outputs, _ = self.run(self.stack(1.0, 1e-12, residual=True))
        x = torch.linspace(-1, 1, 24).double().view(2, 3, 4)
        torch.testing.assert_close(outputs[0], x[0])
        torch.testing.assert_close(outputs[1, :2], x[1, :2])

    def test_residual_inputs_are_not_dropped(self) -> None:
        outputs, _ = self.run(self.stack(1e-12, 1e-12, residual=True))
        assert outputs[0].tolist() == torch.linspace(-1, 1, 24).double().view(2, 3, 4)[0].tolist()

    def test_kept_values_are_divided_by_the_keep_probability(self) -> None:
        torch.manual_seed(0)
        stack = StackedCell(cell_spec("GRUCell", 40), 4, 1, 1.0, 0.25).double()
        (outputs, _), (plain, _) = self.run(stack.train()), self.run(stack.eval())
        kept = outputs != 0
        assert 0.15 < kept.double().mean() < 0.35
        torch.testing.assert_close(outputs[kept], plain[kept] / 0.25)

    def test_every_position_has_its_own_mask(self) -> None:
        torch.manual_seed(0)
        stack = StackedCell(cell_spec("BasicRNNCell", 50), 2, 1, 1.0, 0.5)
        outputs, _ = stack.unroll(torch.ones(1, 4, 2), torch.tensor([4]))
        masks = {tuple(row) for row in (outputs[0] == 0).tolist()}
        assert len(masks) == 4
