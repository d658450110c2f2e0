"""The classes of failure."""

import pytest

from s2s_search.failures import grouped, status_of


@pytest.mark.parametrize(
    "text, status",
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB", "out_of_memory"),
        ("RuntimeError: [enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory", "out_of_memory"),
        ("MemoryError", "out_of_memory"),
        ("ValueError: the memory of the encoder is empty", "failed"),
        ('Traceback\n  File "x.py", line 1, in f\n    raise MemoryError\nMemoryError\n', "out_of_memory"),
        ('Traceback\n  File "x.py", line 1, in f  # MemoryError\n    g()\nKeyError: 3\n', "failed"),
    ],
)
def test_the_status_of_an_error(text: str, status: str) -> None:
    assert status_of(text) == status


def test_failures_are_grouped_by_cause_with_what_only_they_share() -> None:
    def row(trial: str, status: str, message: str | None, cell: str, dim: int) -> dict[str, object]:
        return {"trial": trial, "status": status, "message": message, "cell": cell, "dim": dim, "same": 1}

    rows = [
        row("a", "failed", "ValueError: 3 is odd", "GRUCell", 8),
        row("b", "failed", "ValueError: 5 is odd", "GRUCell", 9),
        row("c", "failed", "KeyError: 'x'", "LSTMCell", 9),
        row("d", "finished", None, "LSTMCell", 8),
        row("e", "out_of_memory", "ValueError: 3 is odd", "LSTMCell", 8),
    ]
    first, *others = grouped(rows, ["cell", "dim", "same"])
    assert (first.trials, first.message, dict(first.shared)) == (
        ("a", "b"),
        "ValueError: 3 is odd",
        {"cell": "GRUCell"},
    )
    assert [failure.trials for failure in others] == [("c",), ("e",)]
