"""Batches against a loop over pairs, edit distance against its recursion, and what must hold for any input."""

from functools import cache
from itertools import chain

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from s2s_search.corpus.batches import (
    Batch,
    TrainingBatches,
    evaluation_batches,
    make_batch,
    slice_batch,
)
from s2s_search.corpus.corpus import Split
from s2s_search.corpus.vocabulary import Vocabulary
from s2s_search.metrics import error_rate, word_error_rate

SOURCE, TARGET = Vocabulary(("a", "b")), Vocabulary(("x", "y", "z"))
SEQUENCES = st.lists(st.integers(0, 2), max_size=7)
PAIRS = st.lists(st.tuples(SEQUENCES, SEQUENCES), min_size=1, max_size=30)
MAXIMA = st.none() | st.integers(1, 9)


def split_of(pairs: list[tuple[list[int], list[int]]]) -> Split:
    def side(k: int) -> tuple[np.ndarray, np.ndarray]:
        ids = [pair[k] for pair in pairs]
        return np.array(list(chain(*ids)), np.int32), np.cumsum([0, *map(len, ids)])

    return Split(*side(0), *side(1), np.arange(len(pairs) + 1))


def plain_batch(
    pairs: list[tuple[list[int], list[int]]], source_max: int | None, target_max: int | None
) -> Batch:
    sources = [[*source, SOURCE.end][:source_max] for source, _ in pairs]
    targets = [[TARGET.start, *target, TARGET.end][:target_max] for _, target in pairs]
    return Batch(*plain_padding(sources, SOURCE.unk), *plain_padding(targets, TARGET.unk))


def plain_padding(rows: list[list[int]], padding: int) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(map(len, rows))
    return torch.tensor([row + [padding] * (longest - len(row)) for row in rows]), torch.tensor(
        [*map(len, rows)]
    )


def same(one: Batch, other: Batch) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@given(PAIRS, st.randoms(use_true_random=False), MAXIMA, MAXIMA)
def test_batch_is_that_of_a_loop(pairs, random, source_max, target_max) -> None:
    indices = random.choices(range(len(pairs)), k=5)
    batch = make_batch(split_of(pairs), np.array(indices), SOURCE, TARGET, source_max, target_max)
    assert same(batch, plain_batch([pairs[i] for i in indices], source_max, target_max))


@given(PAIRS, MAXIMA, MAXIMA)
def test_slicing_is_that_of_a_loop_and_slicing_again_changes_nothing(
    pairs, source_max, target_max
) -> None:
    whole = make_batch(split_of(pairs), np.arange(len(pairs)), SOURCE, TARGET)
    sliced = slice_batch(whole, source_max, target_max)
    assert same(sliced, plain_batch(pairs, source_max, target_max))
    assert same(slice_batch(sliced, source_max, target_max), sliced)


@given(PAIRS, st.integers(1, 8), st.integers(0, 5), MAXIMA)
def test_an_epoch_is_a_permutation(pairs, batch_size, seed, source_max) -> None:
    batches = TrainingBatches(split_of(pairs), SOURCE, TARGET, batch_size, seed, source_max)
    for _ in range(2):
        epoch = [batches.next_indices().tolist() for _ in range(batches.batches_per_epoch)]
        assert sorted(chain(*epoch)) == list(range(len(pairs)))
        assert sorted(map(len, epoch))[1:] == [batch_size] * (len(epoch) - 1)


@given(PAIRS, st.integers(1, 8), st.integers(0, 20))
def test_batches_resume_anywhere(pairs, batch_size, position) -> None:
    split = split_of(pairs)
    undisturbed = TrainingBatches(split, SOURCE, TARGET, batch_size, seed=3)
    ahead = [next(undisturbed) for _ in range(position + 5)][position:]
    resumed = TrainingBatches(split, SOURCE, TARGET, batch_size, seed=3, position=position)
    assert all(same(next(resumed), batch) for batch in ahead)
    assert resumed.position == undisturbed.position


@given(PAIRS, st.integers(1, 8), st.integers(0, 31))
def test_evaluation_batches_hold_distinct_pairs(pairs, batch_size, examples) -> None:
    batches = list(evaluation_batches(split_of(pairs), SOURCE, TARGET, batch_size, examples))
    indices = [i for _, chosen in batches for i in chosen.tolist()]
    assert len(indices) == len(set(indices)) == min(examples or len(pairs), len(pairs))
    assert all(
        same(batch, plain_batch([pairs[i] for i in chosen], None, None))
        for batch, chosen in batches
    )


def edits(one: list[int], other: list[int]) -> int:
    """Levenshtein's recursion."""

    @cache
    def between(i: int, j: int) -> int:
        if i == 0 or j == 0:
            return i + j
        substituted = between(i - 1, j - 1) + (one[i - 1] != other[j - 1])
        return min(substituted, between(i - 1, j) + 1, between(i, j - 1) + 1)

    return between(len(one), len(other))


@st.composite
def answered(draw) -> tuple[list[list[int]], list[list[list[int]]]]:
    references = draw(st.lists(st.lists(SEQUENCES, min_size=1, max_size=3), min_size=1, max_size=6))
    return [draw(SEQUENCES | st.sampled_from(answers)) for answers in references], references


@given(answered())
def test_error_rates_are_those_of_a_plain_loop(predicted) -> None:
    predictions, references = predicted
    total = length = wrong = 0
    for prediction, answers in zip(predictions, references, strict=True):
        fewest = min(edits(prediction, answer) for answer in answers)
        total += fewest
        length += max(len(answer) for answer in answers if edits(prediction, answer) == fewest)
        wrong += prediction not in answers
    assert error_rate(predictions, references) == total / max(length, 1)
    assert word_error_rate(predictions, references) == wrong / len(predictions)


@given(answered())
def test_error_rates_ignore_the_order_of_references(predicted) -> None:
    predictions, references = predicted
    backwards = [answers[::-1] for answers in references]
    assert error_rate(predictions, references) == error_rate(predictions, backwards)
    assert word_error_rate(predictions, references) == word_error_rate(predictions, backwards)


@given(st.lists(SEQUENCES, min_size=1, max_size=5))
def test_perfect_predictions_have_no_errors(sequences) -> None:
    references = [[sequence, [*sequence, 1]] for sequence in sequences]
    assert error_rate(sequences, references) == word_error_rate(sequences, references) == 0
