"""Cuts of a batch into parts whose largest tensor is bounded.

Without them, one long line would take the memory of a whole batch of such lines.
"""

from collections.abc import Callable, Iterator, Sequence

# The limit of numbers in the largest tensor of a batch in evaluation and decoding: 64 MB as
# float32.
MOST_CELLS = 2**24
# Returns the numbers that one row has in the largest tensor, from its source and target positions.
Cells = Callable[[int, int], int]


def cut_at_cells(sources: Sequence[int], targets: Sequence[int], cells: Cells) -> Iterator[slice]:
    """Yields slices of the rows of a batch, each of at most MOST_CELLS numbers.

    A row that has more numbers alone is a slice of its own.

    Args:
        sources: the source length of each row.
        targets: the target length of each row.
        cells: gives the numbers of a row from the longest source and target length of its slice.
    """
    begin = longest_source = longest_target = 0
    for row, (source, target) in enumerate(zip(sources, targets, strict=True)):
        longest_source = max(longest_source, source)
        longest_target = max(longest_target, target)
        numbers = (row + 1 - begin) * cells(longest_source, longest_target)
        if numbers > MOST_CELLS and row > begin:
            yield slice(begin, row)
            begin, longest_source, longest_target = row, source, target
    yield slice(begin, len(sources))
