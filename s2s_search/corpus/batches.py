"""Batches: pairs of a split as padded tensors.

Training takes them in a seeded order, and evaluation sorts them by length.
B is the number of pairs in a batch, S the number of source positions and T the number of target
positions.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from s2s_search.corpus.corpus import Split
from s2s_search.corpus.cuts import Cells, cut_at_cells
from s2s_search.corpus.vocabulary import Vocabulary

Indices = npt.NDArray[np.int64]
# Larger pools mean less padding. Smaller pools mean batches that mix more.
BATCHES_PER_POOL = 100


class Batch(NamedTuple):
    """Padded ids of B pairs.

    A source is its tokens and END, a target is START, its tokens and END. Lengths count START and
    END. The ids after the end of a sequence are UNK.
    """

    source_ids: Tensor  # [B, S] int64
    source_lengths: Tensor  # [B] int64
    target_ids: Tensor  # [B, T] int64
    target_lengths: Tensor  # [B] int64

    def to(self, device: torch.device | str) -> Batch:
        """Returns the batch on a device."""
        if torch.device(device).type == "cpu":
            return Batch(*(tensor.to(device) for tensor in self))
        # One copy instead of four, because each copy costs the host time.
        together = moved(torch.cat([tensor.flatten() for tensor in self]), device)
        parts = torch.split(together, [tensor.numel() for tensor in self])
        return Batch(*(part.view(tensor.shape) for part, tensor in zip(parts, self, strict=True)))


def moved(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Returns a tensor of the host on a device.

    The copy to a GPU starts from pinned memory, so that the host does not wait for it.
    """
    if torch.device(device).type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def slice_batch(batch: Batch, source_max: int | None, target_max: int | None) -> Batch:
    """Returns a batch whose sequences are cut to maximal lengths, as the original does in training.

    The lengths count START and END, so that END is lost where a sequence is cut.
    """
    source = _sliced(batch.source_ids, batch.source_lengths, source_max)
    return Batch(*source, *_sliced(batch.target_ids, batch.target_lengths, target_max))


def _sliced(ids: Tensor, lengths: Tensor, maximum: int | None) -> tuple[Tensor, Tensor]:
    lengths = lengths if maximum is None else lengths.clamp(max=maximum)
    return ids[:, : int(lengths.max())], lengths


def make_batch(
    split: Split,
    indices: Indices,
    source_vocab: Vocabulary,
    target_vocab: Vocabulary,
    source_max: int | None = None,
    target_max: int | None = None,
) -> Batch:
    """Returns the batch of some pairs, in their order.

    Args:
        split: all pairs.
        indices: the pairs of the batch, [B].
        source_vocab: the vocabulary of the sources.
        target_vocab: the vocabulary of the targets.
        source_max: the length to which sources are cut, END included; None cuts nothing.
        target_max: the length to which targets are cut, START and END included; None cuts nothing.
    """
    source = _padded(split.source_tokens, split.source_offsets, indices, source_vocab, first=[])
    target = _padded(
        split.target_tokens, split.target_offsets, indices, target_vocab, first=[target_vocab.start]
    )
    return slice_batch(Batch(*source, *target), source_max, target_max)


def _padded(
    tokens: npt.NDArray[np.int32],
    offsets: Indices,
    indices: Indices,
    vocab: Vocabulary,
    first: list[int],
) -> tuple[Tensor, Tensor]:
    """Returns padded ids and lengths of some sequences, each between the `first` ids and END.

    Args:
        tokens: the ids of all sequences, one after the other.
        offsets: the places in `tokens` where sequences begin and end, [N + 1].
        indices: the chosen sequences, [B].
        vocab: the vocabulary with the special ids.
        first: the ids before the tokens of a sequence: START, or none.

    Returns:
        Ids [B, longest length] and lengths [B], both int64.
    """
    begin, end = offsets[indices], offsets[indices + 1]
    lengths = len(first) + end - begin + 1
    ids = np.full((len(indices), lengths.max()), vocab.unk, np.int64)
    ids[:, : len(first)] = first
    positions = np.arange(ids.shape[1] - len(first))
    places = begin[:, None] + positions  # the place in `tokens` of each position of each row
    inside = places < end[:, None]
    ids[:, len(first) :][inside] = tokens[places[inside]]
    ids[np.arange(len(indices)), lengths - 1] = vocab.end
    return torch.from_numpy(ids), torch.from_numpy(lengths)


class TrainingBatches(Iterator[Batch]):
    """Endless batches of pairs with similar lengths: every pair once per epoch.

    The order of an epoch follows from the seed and the number of the epoch alone. The pairs of an
    epoch are shuffled and cut into pools. Each pool is sorted by source and target length and cut
    into batches, and then all batches are shuffled. Within a batch target lengths fall, so that
    late steps of a decoder need the first rows only.

    `position`, the number of batches given so far, is the whole state, and it may be set.
    """

    def __init__(
        self,
        split: Split,
        source_vocab: Vocabulary,
        target_vocab: Vocabulary,
        batch_size: int,
        seed: int,
        source_max: int | None = None,
        target_max: int | None = None,
        position: int = 0,
    ) -> None:
        self.split, self.source_vocab, self.target_vocab = split, source_vocab, target_vocab
        self.batch_size, self.seed = batch_size, seed
        self.source_max, self.target_max = source_max, target_max
        self.position = position
        self.batches_per_epoch = -(-len(split) // batch_size)
        self._epoch, self._order = -1, [np.empty(0, np.int64)]

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        indices = self.next_indices()
        return make_batch(
            self.split,
            indices,
            self.source_vocab,
            self.target_vocab,
            self.source_max,
            self.target_max,
        )

    def next_indices(self) -> Indices:
        """Returns the indices of the pairs of the next batch, and moves on by one batch."""
        epoch, k = divmod(self.position, self.batches_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._shuffled(epoch)
        self.position += 1
        return self._order[k]

    def _shuffled(self, epoch: int) -> list[Indices]:
        """Returns the indices of the pairs of each batch of an epoch."""
        random = np.random.default_rng([self.seed, epoch])
        pairs = random.permutation(len(self.split))
        sources = _clipped_lengths(self.split.source_offsets, 1, self.source_max)
        targets = _clipped_lengths(self.split.target_offsets, 2, self.target_max)
        # Targets are sorted up and down in turn, so that neighbours are alike where the source
        # length changes.
        up_and_down = np.where(sources % 2, targets, -targets)
        batches: list[Indices] = []
        for pool in _parts(pairs, self.batch_size * BATCHES_PER_POOL):
            order = np.lexsort((up_and_down[pool], sources[pool]))
            for batch in _parts(pool[order], self.batch_size):
                batches.append(batch[np.argsort(-targets[batch], kind="stable")])
        return [batches[k] for k in random.permutation(len(batches))]


def _clipped_lengths(offsets: Indices, specials: int, maximum: int | None) -> Indices:
    lengths = np.diff(offsets) + specials
    return lengths if maximum is None else np.minimum(lengths, maximum)


def _parts(indices: Indices, size: int) -> list[Indices]:
    return [indices[i : i + size] for i in range(0, len(indices), size)]


def evaluation_batches(
    split: Split,
    source_vocab: Vocabulary,
    target_vocab: Vocabulary,
    batch_size: int,
    examples: int = 0,
    cells: Cells | None = None,
) -> Iterator[tuple[Batch, Indices]]:
    """Yields the batches of a split by length, not sliced, each with the indices of its pairs.

    Args:
        split: the pairs.
        source_vocab: the vocabulary of the sources.
        target_vocab: the vocabulary of the targets.
        batch_size: the number of pairs in a batch.
        examples: the number of groups that are taken; 0 takes all. The choice is always the same,
            and a smaller choice is a part of a larger one.
        cells: gives the size of a row's largest tensor. With it, a batch is cut where its largest
            tensor would have more than MOST_CELLS numbers.
    """
    groups = np.random.default_rng(0).permutation(len(split.groups) - 1)[: examples or None]
    chosen = np.zeros(len(split), bool)
    for group in groups:
        chosen[split.groups[group] : split.groups[group + 1]] = True
    pairs = np.flatnonzero(chosen)
    sources, targets = np.diff(split.source_offsets)[pairs], np.diff(split.target_offsets)[pairs]
    for indices in _parts(pairs[np.lexsort((targets, sources))], batch_size):
        for part in _bounded(split, indices, cells):
            yield make_batch(split, part, source_vocab, target_vocab), part


def _bounded(split: Split, indices: Indices, cells: Cells | None) -> Iterator[Indices]:
    """Yields a batch in parts, whose largest tensor has at most MOST_CELLS numbers."""
    if cells is None:
        yield indices
        return
    sources = split.source_offsets[indices + 1] - split.source_offsets[indices] + 1
    targets = split.target_offsets[indices + 1] - split.target_offsets[indices] + 2
    for part in cut_at_cells(sources.tolist(), targets.tolist(), cells):
        yield indices[part]
