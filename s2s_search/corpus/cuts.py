"""Cuts rows into parts whose largest tensor is bounded, so that a long line takes no more memory than alone."""

from collections.abc import Callable, Iterator, Sequence

CELLS = (
    2**24
)  # numbers in the largest tensor of a batch in evaluation and decoding: 64 MB as float32
Cells = Callable[
    [int, int], int
]  # numbers in the largest tensor of a row with so many source and target positions


def cut_at_cells(sources: Sequence[int], targets: Sequence[int], cells: Cells) -> Iterator[slice]:
    """Cuts rows of these lengths into parts of at most CELLS numbers; a row that has more is a part of its own."""
    begin = longest_source = longest_target = 0
    for row, (source, target) in enumerate(zip(sources, targets, strict=True)):
        longest_source, longest_target = max(longest_source, source), max(longest_target, target)
        if row > begin and (row + 1 - begin) * cells(longest_source, longest_target) > CELLS:
            yield slice(begin, row)
            begin, longest_source, longest_target = row, source, target
    yield slice(begin, len(sources))
