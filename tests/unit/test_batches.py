from itertools import chain, islice

import numpy as np
import pytest
import torch

from s2s_search.corpus import cuts
from s2s_search.corpus.batches import (
    Batch,
    TrainingBatches,
    evaluation_batches,
    make_batch,
    slice_batch,
)
from s2s_search.corpus.corpus import Corpus, Split
from s2s_search.corpus.load import load_corpus
from s2s_search.corpus.vocabulary import Vocabulary

LETTERS = Vocabulary(("a", "b", "c"))  # UNK 3, START 4, END 5


def split_of(pairs: list[tuple[str, str]], group_sizes: list[int] | None = None) -> Split:
    def side(k: int) -> tuple[np.ndarray, np.ndarray]:
        ids = [LETTERS.encode(pair[k]) for pair in pairs]
        return np.array(list(chain(*ids)), np.int32), np.cumsum([0, *map(len, ids)], dtype=np.int64)

    return Split(
        *side(0), *side(1), np.cumsum([0, *(group_sizes or [1] * len(pairs))], dtype=np.int64)
    )


@pytest.fixture(scope="module")
def toy() -> Corpus:
    return load_corpus(
        {"name": "copy", "train": 45, "dev": 50, "test": 1, "min_length": 1, "max_length": 9}
    )


@pytest.fixture(scope="module")
def cmudict() -> Corpus:
    return load_corpus({"name": "cmudict"})


def batches_of(corpus: Corpus, **options: int) -> TrainingBatches:
    given = {"batch_size": 8, "seed": 1, **options}
    return TrainingBatches(corpus.train, corpus.source_vocab, corpus.target_vocab, **given)


def indices_of(batches: TrainingBatches, count: int) -> list[list[int]]:
    return [batches.next_indices().tolist() for _ in range(count)]


def test_batch_of_three_pairs() -> None:
    split = split_of([("ab", "c"), ("", "abc"), ("c", "")])
    batch = make_batch(split, np.array([2, 0, 1]), LETTERS, LETTERS)
    assert batch.source_ids.tolist() == [[2, 5, 3], [0, 1, 5], [5, 3, 3]]
    assert batch.source_lengths.tolist() == [2, 3, 1]
    assert batch.target_ids.tolist() == [[4, 5, 3, 3, 3], [4, 2, 5, 3, 3], [4, 0, 1, 2, 5]]
    assert batch.target_lengths.tolist() == [2, 3, 5]
    assert {tensor.dtype for tensor in batch} == {torch.int64}


def test_slicing_counts_special_ids_and_can_cut_the_end_off() -> None:
    split = split_of([("abc", "abc"), ("a", "a")])
    batch = make_batch(split, np.array([0, 1]), LETTERS, LETTERS, source_max=3, target_max=4)
    assert batch.source_ids.tolist() == [[0, 1, 2], [0, 5, 3]]
    assert batch.source_lengths.tolist() == [3, 2]
    assert batch.target_ids.tolist() == [[4, 0, 1, 2], [4, 0, 5, 3]]
    assert batch.target_lengths.tolist() == [4, 3]


def test_slicing_narrows_to_the_longest_row() -> None:
    ids, lengths = torch.arange(12).view(2, 6), torch.tensor([2, 4])
    batch = slice_batch(Batch(ids, lengths, ids, lengths), None, 3)
    assert [tuple(tensor.shape) for tensor in batch] == [(2, 4), (2,), (2, 3), (2,)]
    assert batch.target_lengths.tolist() == [2, 3]


def test_batch_moves_as_a_whole() -> None:
    batch = make_batch(split_of([("a", "b")]), np.array([0]), LETTERS, LETTERS).to("meta")
    assert isinstance(batch, Batch)
    assert {tensor.device.type for tensor in batch} == {"meta"}


def test_target_lengths_fall_within_a_batch(toy: Corpus) -> None:
    for batch in islice(batches_of(toy, target_max=7), 20):
        assert batch.target_lengths.tolist() == sorted(batch.target_lengths.tolist(), reverse=True)


def test_every_pair_once_an_epoch_in_another_order_each(toy: Corpus) -> None:
    batches = batches_of(toy)
    epochs = [indices_of(batches, batches.batches_per_epoch) for _ in range(3)]
    assert all(sorted(chain(*epoch)) == list(range(45)) for epoch in epochs)
    assert all(sorted(map(len, epoch)) == [5, 8, 8, 8, 8, 8] for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert batches.position == 18


def test_seed_and_nothing_else_decides_the_order(toy: Corpus) -> None:
    torch.manual_seed(1)
    first = indices_of(batches_of(toy), 9)
    np.random.seed(2)
    torch.manual_seed(2)
    assert first == indices_of(batches_of(toy), 9)
    assert first != indices_of(batches_of(toy, seed=2), 9)


@pytest.mark.parametrize("position", [0, 1, 5, 6, 7, 12, 17])
def test_resumed_batches_are_the_rest_of_the_undisturbed_ones(toy: Corpus, position: int) -> None:
    undisturbed = [next(batch) for batch in [batches_of(toy, source_max=7)] * 20]
    batches = batches_of(toy, source_max=7, position=position)
    assert all(same(next(batches), batch) for batch in undisturbed[position:])
    batches.position = position
    assert same(next(batches), undisturbed[position])


def same(one: Batch, other: Batch) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_one_small_batch_an_epoch_when_there_are_few_pairs(toy: Corpus) -> None:
    assert [len(indices) for indices in indices_of(batches_of(toy, batch_size=100), 2)] == [45, 45]


@pytest.mark.parametrize("batch_size", [32, 64])
def test_little_padding_and_no_trend_of_lengths_on_cmudict(
    cmudict: Corpus, batch_size: int
) -> None:
    batches = batches_of(cmudict, batch_size=batch_size, source_max=40, target_max=40)
    epoch = [next(batches) for _ in range(batches.batches_per_epoch)]
    tokens = sum(int(batch.source_lengths.sum() + batch.target_lengths.sum()) for batch in epoch)
    cells = sum(batch.source_ids.numel() + batch.target_ids.numel() for batch in epoch)
    assert 1 - tokens / cells < 0.04
    lengths = [batch.source_lengths.float().mean().item() for batch in epoch]
    assert abs(np.corrcoef(lengths, np.arange(len(lengths)))[0, 1]) < 3 / len(lengths) ** 0.5
    assert abs(np.corrcoef(lengths[1:], lengths[:-1])[0, 1]) < 3 / len(lengths) ** 0.5


def test_neighbours_of_a_pair_change_from_epoch_to_epoch(cmudict: Corpus) -> None:
    batches = batches_of(cmudict, batch_size=32)
    neighbours = []
    for _ in range(2):
        epoch = indices_of(batches, batches.batches_per_epoch)
        neighbours.append(next(set(indices) for indices in epoch if 1000 in indices))
    assert len(neighbours[0] & neighbours[1]) < 5


def test_evaluation_covers_the_split_sorted_and_unsliced(toy: Corpus) -> None:
    batches = list(evaluation_batches(toy.dev, toy.source_vocab, toy.target_vocab, 8))
    indices = [i for _, chosen in batches for i in chosen.tolist()]
    lengths = [length for batch, _ in batches for length in batch.source_lengths.tolist()]
    assert sorted(indices) == list(range(50))
    assert lengths == sorted(lengths) == sorted(len(toy.dev.source(i)) + 1 for i in range(50))
    for batch, chosen in batches:
        assert same(batch, make_batch(toy.dev, chosen, toy.source_vocab, toy.target_vocab))


@pytest.mark.parametrize("limit", [1, 30, 100, 1000, 10**6])
def test_evaluation_batches_are_cut_at_the_cells_of_their_longest_rows(
    toy: Corpus, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    monkeypatch.setattr(cuts, "MOST_CELLS", limit)
    whole = list(evaluation_batches(toy.dev, toy.source_vocab, toy.target_vocab, 8))
    parts = list(
        evaluation_batches(
            toy.dev, toy.source_vocab, toy.target_vocab, 8, cells=lambda s, t: s * t + 1
        )
    )
    assert [i for _, part in parts for i in part] == [i for _, batch in whole for i in batch]
    for batch, _ in parts:
        rows, source, target = (
            len(batch.source_ids),
            batch.source_ids.shape[1],
            batch.target_ids.shape[1],
        )
        assert rows == 1 or rows * (source * target + 1) <= limit
    if limit == 10**6:
        assert len(parts) == len(whole) == 7
    if limit == 1:
        assert len(parts) == 50


def test_a_part_for_evaluation_is_whole_groups_and_lies_in_larger_parts() -> None:
    split = split_of(
        [("a", "b"), ("b", "a"), ("b", "c"), ("c", "a"), ("c", "b"), ("c", "c"), ("aa", "a")],
        [1, 2, 3, 1],
    )

    def part(examples: int) -> set[int]:
        return {
            i
            for _, chosen in evaluation_batches(split, LETTERS, LETTERS, 2, examples)
            for i in chosen.tolist()
        }

    groups = [{0}, {1, 2}, {3, 4, 5}, {6}]
    for examples in (1, 2, 3):
        assert part(examples) < part(examples + 1)
        assert sum(group <= part(examples) for group in groups) == examples
        assert part(examples) == set().union(
            *(group for group in groups if group <= part(examples))
        )
    assert part(0) == part(4) == part(5) == set(range(7))
