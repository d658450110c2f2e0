"""Batches: pairs of a split as padded tensors, in the seeded order of training or sorted for evaluation.

B batch · S source positions · T target positions
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from s2s_search.corpus.corpus import Split
from s2s_search.corpus.cuts import Cells, cut_at_cells
from s2s_search.corpus.vocabulary import Vocabulary

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Lengths = npt.NDArray[np.int64]

Indices = npt.NDArray[np.int64]
BATCHES_PER_POOL = 100  # more: less padding; fewer: batches whose pairs have less in common


class Batch(NamedTuple):
    """Padded ids: source tokens END, and START target tokens END. Lengths count these; padding is UNK."""

    source_ids: Tensor  # [B, S] int64
    source_lengths: Tensor  # [B] int64
    target_ids: Tensor  # [B, T] int64
    target_lengths: Tensor  # [B] int64

    def to(self, device: torch.device | str) -> Batch:
        if torch.device(device).type == "cpu":
            return Batch(*(tensor.to(device) for tensor in self))
        together = moved(
            torch.cat([tensor.flatten() for tensor in self]), device
        )  # each copy costs the host time
        parts = torch.split(together, [tensor.numel() for tensor in self])
        return Batch(*(part.view(tensor.shape) for part, tensor in zip(parts, self, strict=True)))


def moved(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Returns a tensor of the host on a device; to a GPU from pinned memory, so that the host does not wait."""
    if torch.device(device).type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def slice_batch(batch: Batch, source_max: int | None, target_max: int | None) -> Batch:
    """Cuts sequences to a maximal length that counts START and END, as the original does in training: END can go."""
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
    """Makes the batch of the pairs with these indices, in their order, sliced to the maximal lengths if given."""
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
    """Ids [B, longest] and lengths [B] of the chosen sequences between the `first` ids and END."""
    begin, end = offsets[indices], offsets[indices + 1]
    lengths = len(first) + end - begin + 1
    ids = np.full((len(indices), lengths.max()), vocab.unk, np.int64)
    ids[:, : len(first)] = first
    places = begin[:, None] + np.arange(
        ids.shape[1] - len(first)
    )  # where each position's token lies
    inside = places < end[:, None]
    ids[:, len(first) :][inside] = tokens[places[inside]]
    ids[np.arange(len(indices)), lengths - 1] = vocab.end
    return torch.from_numpy(ids), torch.from_numpy(lengths)


class TrainingBatches(Iterator[Batch]):
    """Batches of like lengths without end: every pair once an epoch, in an order that (seed, epoch) alone decide.

    `position`, the number of batches given so far, is the whole state; it may be set. An epoch is shuffled and cut into
    pools, each pool sorted by source and target length and cut into batches, and all batches are shuffled again. Within
    a batch target lengths fall: a decoder's steps then need the first rows only.
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
        """Goes one batch ahead and returns the indices of its pairs."""
        epoch, k = divmod(self.position, self.batches_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._shuffled(epoch)
        self.position += 1
        return self._order[k]

    def _shuffled(self, epoch: int) -> list[Indices]:
        """The indices of each batch of an epoch."""
        random = np.random.default_rng([self.seed, epoch])
        pairs = random.permutation(len(self.split))
        sources = _clipped_lengths(self.split.source_offsets, 1, self.source_max)
        targets = _clipped_lengths(self.split.target_offsets, 2, self.target_max)
        up_and_down = np.where(sources % 2, targets, -targets)  # in turn: neighbours stay alike
        batches: list[Indices] = []
        for pool in _cut(pairs, self.batch_size * BATCHES_PER_POOL):
            alike = _cut(pool[np.lexsort((up_and_down[pool], sources[pool]))], self.batch_size)
            batches += [batch[np.argsort(-targets[batch], kind="stable")] for batch in alike]
        return [batches[k] for k in random.permutation(len(batches))]


def _clipped_lengths(offsets: Indices, specials: int, maximum: int | None) -> Indices:
    lengths = np.diff(offsets) + specials
    return lengths if maximum is None else np.minimum(lengths, maximum)


def _cut(indices: Indices, size: int) -> list[Indices]:
    return [indices[i : i + size] for i in range(0, len(indices), size)]


def evaluation_batches(
    split: Split,
    source_vocab: Vocabulary,
    target_vocab: Vocabulary,
    batch_size: int,
    examples: int = 0,
    cells: Cells | None = None,
) -> Iterator[tuple[Batch, Indices]]:
    """Batches of the whole split, sorted by length and not sliced, each with the indices of its pairs.

    With `examples` above 0, of that many groups only, chosen once and for all: a smaller part lies in a larger one.
    With `cells` a batch is cut where its largest tensor would have more than CELLS numbers.
    """
    groups = np.random.default_rng(0).permutation(len(split.groups) - 1)[: examples or None]
    chosen = np.zeros(len(split), bool)
    for group in groups:
        chosen[split.groups[group] : split.groups[group + 1]] = True
    pairs = np.flatnonzero(chosen)
    sources, targets = np.diff(split.source_offsets)[pairs], np.diff(split.target_offsets)[pairs]
    for indices in _cut(pairs[np.lexsort((targets, sources))], batch_size):
        for part in _bounded(split, indices, cells):
            yield make_batch(split, part, source_vocab, target_vocab), part


def _bounded(split: Split, indices: Indices, cells: Cells | None) -> Iterator[Indices]:
    """Cuts the indices of a batch into parts of at most CELLS numbers."""
    if cells is None:
        yield indices
        return
    sources = split.source_offsets[indices + 1] - split.source_offsets[indices] + 1
    targets = split.target_offsets[indices + 1] - split.target_offsets[indices] + 2
    for part in cut_at_cells(sources.tolist(), targets.tolist(), cells):
        yield indices[part]
