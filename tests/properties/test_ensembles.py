"""An ensemble equals a plain loop over its models, which reads one source at a time over lists."""

from collections.abc import Sequence
from contextlib import nullcontext

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from s2s_search.hparams.configuration import Hparams
from s2s_search.nn.ensembles import Ensemble, mean_attention
from s2s_search.nn.generate import beam_search, greedy
from s2s_search.nn.models import Seq2Seq
from s2s_search.training.evaluation import target_scores
from tests.models import BATCH, batch_of, make, small
from tests.properties.test_generate import MANY, SOURCES, STEPS, leaving_at_once, model_of
from tests.properties.test_models import configurations

Hypothesis = tuple[tuple[int, ...], float]
members = st.lists(configurations(), min_size=1, max_size=3)


def mean_probabilities(
    models: Sequence[Seq2Seq], source: list[int], ids: Sequence[int]
) -> torch.Tensor:
    """Returns the mean of the models' probabilities of the token after ids, [V]."""
    total = torch.zeros(())
    for model in models:
        logits = model(batch_of([source], [list(ids)]))[0, len(ids)]
        total = total + logits.exp() / logits.exp().sum()
    return total / len(models)


def plain_search(
    models: Sequence[Seq2Seq], source: list[int], width: int, weight: float
) -> list[Hypothesis]:
    """Returns the best hypotheses of one source and their scores, best first."""
    end = models[0].end_id

    def score(ids: tuple[int, ...], log_p: float) -> float:
        return log_p / ((5 + len(ids) - (ids[-1] == end)) / 6) ** weight

    beam: list[Hypothesis] = [((), 0.0)]
    for _ in range(STEPS):
        candidates = []
        for ids, log_p in beam:
            if ids and ids[-1] == end:
                candidates.append((ids, log_p))
                continue
            for k, p in enumerate(mean_probabilities(models, source, ids).log().tolist()):
                candidates.append(((*ids, k), log_p + p))
        beam = sorted(candidates, key=lambda each: score(*each), reverse=True)[:width]
    return [(ids, score(ids, log_p)) for ids, log_p in beam]


def models_of(configurations: Sequence[Hparams], forced: bool = False) -> list[Seq2Seq]:
    return [model_of(hparams, forced, seed) for seed, hparams in enumerate(configurations)]


@settings(max_examples=30, deadline=None)
@given(members, st.booleans(), st.booleans())
def test_greedy_search_is_a_plain_loop_over_the_models(
    configurations: list[Hparams], forced: bool, leaving: bool
) -> None:
    models = models_of(configurations, forced)
    with leaving_at_once() if leaving else nullcontext():
        result = greedy(Ensemble(models), MANY.source_ids, MANY.source_lengths, STEPS)
    for row, source in enumerate(SOURCES):
        ((ids, _),) = plain_search(models, source, 1, 0.0)
        assert result.ids[row, : result.lengths[row]].tolist() == list(ids)


@settings(max_examples=20, deadline=None)
@given(members, st.integers(2, 4), st.sampled_from([0.0, 1.0, 3.0]), st.booleans())
def test_beam_search_is_a_plain_loop_over_the_models(
    configurations: list[Hparams], width: int, weight: float, forced: bool
) -> None:
    models = models_of(configurations, forced)
    with leaving_at_once():
        beam = beam_search(
            Ensemble(models), MANY.source_ids, MANY.source_lengths, STEPS, width, weight
        )
    for row, source in enumerate(SOURCES):
        expected = plain_search(models, source, width, weight)
        assert beam.scores[row].tolist() == pytest.approx([score for _, score in expected])
        for k, (ids, _) in enumerate(expected):
            found = beam.ids[row, k, : beam.lengths[row, k]].tolist()
            same = [
                list(other) for other, score in expected if score == pytest.approx(expected[k][1])
            ]
            assert found == list(ids) or found in same  # equal scores may change places


@settings(max_examples=20, deadline=None)
@given(members)
def test_the_scores_of_targets_are_those_of_mean_probabilities(
    configurations: list[Hparams],
) -> None:
    models = models_of(configurations)
    ensemble = Ensemble(models)
    encoding = ensemble.encode(BATCH.source_ids, BATCH.source_lengths)
    with torch.no_grad():
        scores = target_scores(ensemble, encoding, BATCH)
        probabilities = torch.stack([F.softmax(model(BATCH), -1) for model in models]).mean(0)
    for row, length in enumerate(BATCH.target_lengths.tolist()):
        for t in range(length - 1):
            wanted = int(BATCH.target_ids[row, t + 1])
            expected = -float(probabilities[row, t, wanted].log())
            assert float(scores.losses[row, t]) == pytest.approx(expected)
            assert bool(scores.correct[row, t]) == (int(probabilities[row, t].argmax()) == wanted)
    assert int(scores.counted.sum()) == int((BATCH.target_lengths - 1).sum())


def test_attention_is_the_mean_in_the_order_of_the_source() -> None:
    models = [
        make(small(source__reverse=reverse), seed).eval()
        for seed, reverse in enumerate((True, False))
    ]
    ensemble = Ensemble(models)
    target = BATCH.target_ids, BATCH.target_lengths
    with torch.no_grad():
        encoding = ensemble.encode(BATCH.source_ids, BATCH.source_lengths)
        found = mean_attention(ensemble, encoding, *target)
        each = [model.decode(model.encode(*BATCH[:2]), *target).weights for model in models]
    assert found is not None
    for row, steps in enumerate((BATCH.target_lengths - 1).tolist()):
        for t in range(steps):
            first, second = (weights[row, t] for weights in each)  # type: ignore[index]
            torch.testing.assert_close(found[row, t], (first + second) / 2)
    with_none = Ensemble([models[0], make(small("BasicSeq2Seq")).eval()])
    assert mean_attention(with_none, with_none.encode(*BATCH[:2]), *target) is None


def test_models_of_other_vocabularies_are_refused() -> None:
    models = [make(small()), Seq2Seq.__new__(Seq2Seq)]
    models[1].__dict__.update(models[0].__dict__ | {"target_size": 9})
    with pytest.raises(ValueError, match="one vocabulary, but has 2"):
        Ensemble(models)
    with pytest.raises(ValueError, match="but has 0"):
        Ensemble([])
