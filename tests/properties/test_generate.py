"""Greedy and beam search equal searches over lists, one source at a time.

The searches over lists take their numbers from the teacher-forced model.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from s2s_search.hparams.configuration import Hparams
from s2s_search.nn import generate
from s2s_search.nn.generate import beam_search, greedy
from s2s_search.nn.models import Encoding, Seq2Seq
from s2s_search.nn.stepping import Stepper, make_stepper
from tests.models import TARGET_SIZE, batch_of, make, small
from tests.properties.test_device import Operations
from tests.properties.test_models import configurations

STEPS, END = 5, TARGET_SIZE - 1
SOURCES = [[1, 2, 3, 4], [5, 0], [2], [], [4, 4, 1], [0, 3, 5, 1, 2]]
MANY = batch_of(SOURCES, [[]] * 6)

Hypothesis = tuple[tuple[int, ...], float]


def model_of(hparams: Hparams, forced: bool, seed: int = 3) -> Seq2Seq:
    """Returns a model; with `forced` no sequence ends before the last step."""
    model = make(hparams, seed).eval()
    with torch.no_grad():  # so that sequences end at all lengths
        model.decoder.logits.bias[END] += 1.0  # type: ignore[union-attr, operator, index]
    model.end_id = -1 if forced else END
    return model


def plain_score(model: Seq2Seq, source: list[int], ids: list[int], weight: float) -> float:
    """Returns the score of a hypothesis, computed from all its steps at once."""
    logits = model(batch_of([source], [ids]))[0, : len(ids)]
    log_p = torch.log_softmax(logits, -1).gather(1, torch.tensor(ids)[:, None]).sum().item()
    return log_p / ((5 + len(ids) - (ids[-1] == model.end_id)) / 6) ** weight


def plain_search(model: Seq2Seq, source: list[int], width: int, weight: float) -> list[Hypothesis]:
    """Returns the best hypotheses of one source and their scores, best first."""

    def score(hypothesis: Hypothesis) -> float:
        ids, log_p = hypothesis
        length = len(ids) - (ids[-1] == model.end_id)
        return log_p / ((5 + length) / 6) ** weight

    beam: list[Hypothesis] = [((), 0.0)]
    for _ in range(STEPS):
        candidates = [(ids, log_p) for ids, log_p in beam if ids and ids[-1] == model.end_id]
        for ids, log_p in set(beam) - set(candidates):
            logits = model(batch_of([source], [ids]))[0, len(ids)]
            candidates += [
                ((*ids, k), log_p + p) for k, p in enumerate(torch.log_softmax(logits, -1).tolist())
            ]
        beam = sorted(candidates, key=score, reverse=True)[:width]
    return [(ids, score((ids, log_p))) for ids, log_p in beam]


@settings(max_examples=40, deadline=None)
@given(configurations(), st.booleans(), st.sampled_from(["as one loop", "step by step"]))
def test_greedy_search_is_a_plain_search(hparams: Hparams, forced: bool, way: str) -> None:
    model = model_of(hparams, forced)
    with nullcontext() if way == "as one loop" else leaving_at_once():
        result = greedy(model, MANY.source_ids, MANY.source_lengths, STEPS)
    for row, source in enumerate(SOURCES):
        ((ids, _),) = plain_search(model, source, 1, 0.0)
        assert result.lengths[row] == len(ids)
        assert result.ids[row].tolist() == [*ids, *[0] * (result.ids.shape[1] - len(ids))]


@settings(max_examples=30, deadline=None)
@given(configurations(), st.integers(2, 4), st.sampled_from([0.0, 1.0, 3.0]), st.booleans())
def test_beam_search_is_a_plain_search(
    hparams: Hparams, width: int, weight: float, forced: bool
) -> None:
    model = model_of(hparams, forced)
    with leaving_at_once():
        beam = beam_search(model, MANY.source_ids, MANY.source_lengths, STEPS, width, weight)
    for row, source in enumerate(SOURCES):
        for k, (ids, score) in enumerate(plain_search(model, source, width, weight)):
            found = beam.ids[row, k, : beam.lengths[row, k]].tolist()
            if found != list(ids):  # two of equal score may change places
                assert plain_score(model, source, found, weight) == pytest.approx(score)
            assert not beam.ids[row, k, len(found) :].any()
            assert float(beam.scores[row, k]) == pytest.approx(score)


@pytest.mark.parametrize("score_type", ["dot", "bahdanau", None])
@pytest.mark.parametrize("cell, layers", [("BasicLSTMCell", 1), ("GRUCell", 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_has_ended_changes_nothing_for_the_others(
    score_type: str | None, cell: str, layers: int, dtype: torch.dtype
) -> None:
    """For any END, 50 sources get the tokens that they get without an END, up to the END."""
    overrides = {"encoder.rnn_cell.num_layers": layers, "decoder.rnn_cell.num_layers": layers}
    overrides |= {} if score_type is None else {"attention.score_type": score_type}
    hparams = small("BasicSeq2Seq" if score_type is None else "AttentionSeq2Seq", cell, **overrides)
    model = make(hparams, 0, dtype).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(3.0)  # so that sources get different answers
    sources = batch_of(
        [[(3 * k + j * k) % 8 for j in range(1 + k % 5)] for k in range(50)], [[]] * 50
    )
    model.end_id = -1
    endless = greedy(model, sources.source_ids, sources.source_lengths, 12).ids.tolist()
    lengths = set()
    for model.end_id in range(TARGET_SIZE):
        ids, ends, *_ = greedy(model, sources.source_ids, sources.source_lengths, 12)
        for row, n, expected in zip(ids.tolist(), ends.tolist(), endless, strict=True):
            assert n == (expected.index(model.end_id) + 1 if model.end_id in expected else 12)
            assert row == expected[:n] + [0] * (len(row) - n)
            lengths.add(n)
    assert len(lengths) > 3


@contextmanager
def leaving_at_once() -> Iterator[None]:
    """Decodes step by step, and removes sources from the batch as soon as they have ended."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generate, "greedy_ids", lambda *_: None)
        patch.setattr(generate, "SHARE_LEFT", 1.0)
        yield


@contextmanager
def rows_of_steps() -> Iterator[list[int]]:
    """Collects the number of rows that each step computes."""
    rows: list[int] = []

    class Counting:
        def __init__(self, stepper: Stepper) -> None:
            self.stepper, self.start = stepper, stepper.start

        def step(self, ids: torch.Tensor, state: tuple[torch.Tensor, ...]) -> object:
            rows.append(len(ids))
            return self.stepper.step(ids, state)

        def select(self, sources: torch.Tensor) -> "Counting":
            return Counting(self.stepper.select(sources))

    def counting(model: Seq2Seq, encoding: Encoding, beams: int) -> Counting:
        return Counting(make_stepper(model, encoding, beams))

    with pytest.MonkeyPatch.context() as patch, leaving_at_once():
        patch.setattr(generate, "make_stepper", counting)
        yield rows


@settings(max_examples=25, deadline=None)
@given(configurations(), st.booleans(), st.integers(1, 3))
def test_a_source_leaves_the_batch_when_all_of_it_has_ended(
    hparams: Hparams, forced: bool, width: int
) -> None:
    model = model_of(hparams, forced)
    with rows_of_steps() as rows:
        lengths = greedy(model, MANY.source_ids, MANY.source_lengths, STEPS).lengths
    assert rows == [int((lengths > t).sum()) for t in range(int(lengths.max()))]
    with rows_of_steps() as rows:
        longest = beam_search(
            model, MANY.source_ids, MANY.source_lengths, STEPS, width
        ).lengths.amax(1)
    assert rows == [width * int((longest > t).sum()) for t in range(int(longest.max()))]


@settings(max_examples=30, deadline=None)
@given(configurations(), st.integers(1, STEPS + 1))
def test_to_look_seldom_changes_nothing(hparams: Hparams, every: int) -> None:
    """On a GPU decoding looks for ended rows at some steps only; each look waits for the device."""
    model, sources = model_of(hparams, forced=False), (MANY.source_ids, MANY.source_lengths)
    expected = (
        greedy(model, *sources, STEPS, keep_logits=True),
        beam_search(model, *sources, STEPS, 3),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generate, "looked_at", lambda steps, device: range(every - 1, steps, every))
        seldom = (
            greedy(model, *sources, STEPS, keep_logits=True),
            beam_search(model, *sources, STEPS, 3),
        )
        torch.testing.assert_close(seldom, expected)
        encoded = model.encode(*sources)
        patch.setattr(generate, "greedy_ids", lambda *_: None)
        with Operations() as decoding:
            generate.greedy_from(model, encoded, STEPS)
    waits = decoding.names.count("_local_scalar_dense")
    assert waits <= STEPS // every + 1
    if every > STEPS:
        assert waits == 1
        assert "nonzero" not in decoding.names
