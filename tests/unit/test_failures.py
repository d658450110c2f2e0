"""The classes of failure."""

import mmap
import traceback
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch

from s2s_search.runs.failures import error_message, grouped, status_of


@pytest.mark.parametrize(
    "text, status",
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB", "out_of_memory"),
        (
            "RuntimeError: [enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't "
            "allocate memory",
            "out_of_memory",
        ),
        ("torch.AcceleratorError: CUDA error: out of memory", "out_of_memory"),
        ("torch.AcceleratorError: CUDA error: an illegal memory access was encountered", "failed"),
        ("RuntimeError: CUDA driver error: out of memory", "out_of_memory"),
        ("RuntimeError: cuDNN error: CUDNN_STATUS_ALLOC_FAILED", "out_of_memory"),
        (
            "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling "
            "`cublasCreate(handle)`",
            "out_of_memory",
        ),
        (
            "RuntimeError: CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling "
            "`cublasCreate(handle)`",
            "failed",
        ),
        (
            "numpy._core._exceptions._ArrayMemoryError: Unable to allocate 7.11 PiB for an array",
            "out_of_memory",
        ),
        ("OSError: [Errno 12] Cannot allocate memory", "out_of_memory"),
        ("RuntimeError: std::bad_alloc", "out_of_memory"),
        ("MemoryErrors: 3", "failed"),
        ("MemoryError", "out_of_memory"),
        ("ValueError: the memory of the encoder is empty", "failed"),
        (
            'Traceback\n  File "x.py", line 1, in f\n    raise MemoryError\nMemoryError\n',
            "out_of_memory",
        ),
        ('Traceback\n  File "x.py", line 1, in f  # MemoryError\n    g()\nKeyError: 3\n', "failed"),
    ],
)
def test_the_status_of_an_error(text: str, status: str) -> None:
    assert status_of(text) == status


@pytest.mark.parametrize("allocate", [np.empty, torch.empty, bytearray, partial(mmap.mmap, -1)])
def test_the_memory_errors_of_this_machine_are_known(allocate: Callable[[int], object]) -> None:
    try:
        allocate(10**16)
    except Exception:
        assert status_of(traceback.format_exc()) == "out_of_memory"
    else:
        pytest.fail("this machine has ten petabytes")


def test_failures_are_grouped_by_cause_with_what_only_they_share() -> None:
    def row(trial: str, status: str, message: str | None, cell: str, dim: int) -> dict[str, object]:
        return {
            "trial": trial,
            "status": status,
            "message": message,
            "cell": cell,
            "dim": dim,
            "same": 1,
        }

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


def test_a_failure_alone_shares_nothing_and_what_did_not_fail_is_no_group() -> None:
    rows = [
        {"trial": "a", "status": "lost", "message": None, "dim": 8},
        {"trial": "b", "status": "diverged", "dim": 9},
    ]
    (only,) = grouped(rows, ["dim"])
    assert (only.status, only.message, only.trials, only.shared) == ("lost", "", ("a",), {})


def test_what_all_have_is_shared_by_none() -> None:
    rows = [
        {"trial": str(k), "status": "failed", "message": "E", "dim": 8, "cell": k % 2 or None}
        for k in range(4)
    ]
    rows[0]["status"] = rows[2]["status"] = "finished"
    assert [dict(failure.shared) for failure in grouped(rows, ["dim", "cell"])] == [{"cell": 1}]


def test_what_another_trial_has_too_is_not_only_theirs() -> None:
    rows = [
        {"trial": str(k), "status": "finished", "message": None, "model": "A", "dim": k}
        for k in range(4)
    ]
    rows += [{"trial": "4", "status": "finished", "message": None, "model": "B", "dim": 4}]
    for row in rows[:2]:
        row |= {"status": "failed", "message": "E", "dim": 9}
    (only,) = grouped(rows, ["model", "dim"])
    assert only.shared == {"dim": 9}
    (every,) = grouped(rows[:2], ["model", "dim"])
    assert every.shared == {}


@pytest.mark.parametrize("text", ["", "\n", 'Traceback\n  File "x.py", line 1, in f\n'])
def test_an_error_without_a_message_has_a_status(text: str) -> None:
    assert error_message(text) == "failed without a message"
    assert status_of(text) == "failed"
