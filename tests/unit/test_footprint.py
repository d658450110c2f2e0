"""The lower bound of a trial's memory, held to real processes, and its message."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from s2s_search.cli import command_line
from s2s_search.corpus.load import load_corpus
from s2s_search.hparams.configuration import resolve
from s2s_search.hparams.table import CELLS
from s2s_search.runs.failures import status_of
from s2s_search.statuses import OUT_OF_MEMORY
from s2s_search.training import footprint
from s2s_search.training.footprint import largest_batch

TAKEN = """
import json, sys, torch
from s2s_search.corpus import load_corpus
from s2s_search.training.footprint import largest_batch
from s2s_search.hparams import resolve
from s2s_search.hparams.table import CELLS
from s2s_search.whatif.probes import peak_memory, take_largest_batches
from s2s_search.training.trial import Trial
torch.set_num_threads(1)
model, given, words, length = json.loads(sys.argv[1])
toy = {"name": "copy", "train": 64, "dev": 8, "test": 1, "vocabulary": words}
small = load_corpus({**toy, "min_length": 2, "max_length": 3})
large = load_corpus({**toy, "min_length": length, "max_length": length})
hparams = resolve(model, {"source.max_seq_len": 9999, "target.max_seq_len": 9999, **given})
cpu = torch.device("cpu")
take_largest_batches(Trial(hparams, small, cpu))
before = peak_memory(cpu)
take_largest_batches(Trial(hparams, large, cpu))
print(largest_batch(hparams, large).bytes, peak_memory(cpu) - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(
    sys.platform != "linux", reason="elsewhere a process counts the peak of its parent, too"
)
@pytest.mark.parametrize(
    "model, given, words, length, what",
    [
        (
            "AttentionSeq2Seq",
            {"attention.score_type": "bahdanau"},
            20,
            200,
            "a training batch of 32 pairs",
        ),
        (
            "BasicSeq2Seq",
            {"encoder.type": "BidirectionalRNNEncoder"},
            20,
            600,
            "a training batch of 32 pairs",
        ),
        (
            "AttentionSeq2Seq",
            {},
            20_000,
            38,
            "the logits of 32 pairs over 20,003 target tokens in training",
        ),
    ],
)
def test_a_batch_takes_at_least_what_is_said(
    model: str, given: dict[str, object], words: int, length: int, what: str
) -> None:
    command = [sys.executable, "-c", TAKEN, json.dumps([model, given, words, length])]
    least, taken = map(
        int, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    )
    assert least <= taken <= 3 * least
    toy = {"name": "copy", "train": 64, "dev": 8, "test": 1, "vocabulary": words}
    corpus = load_corpus({**toy, "min_length": length, "max_length": length})
    limits = {"source.max_seq_len": 9999, "target.max_seq_len": 9999}
    need = largest_batch(resolve(model, {**limits, **given}), corpus)
    assert what in need.what
    assert need.bytes == least


def test_a_long_dev_line_is_what_a_trial_needs_memory_for(tmp_path: Path) -> None:
    """A pair of 100,000 tokens on both sides needs 40 GB for attention weights alone."""
    for name, longest in (("train", 10), ("dev", 100_000)):
        (tmp_path / name).write_text("a b c\n" * 200 + " ".join("ab" * (longest // 2)) + "\n")
    files = {part: [str(tmp_path / part)] * 2 for part in ("train", "dev")}
    corpus = load_corpus(files)
    need = largest_batch(resolve("AttentionSeq2Seq", {}), corpus)
    assert need.bytes == 4 * 100_001 * 100_002
    assert need.what == "the evaluation of a dev pair of 100,001 source and 100,002 target tokens"
    assert largest_batch(resolve("BasicSeq2Seq", {}), corpus).bytes < 10**9


@pytest.mark.parametrize("pairs, rows", [(40, 8), (64, 32), (33, 1), (4000, 32)])
def test_the_longest_pairs_are_in_the_last_batch_of_a_small_corpus(
    tmp_path: Path, pairs: int, rows: int
) -> None:
    corpus = load_corpus(
        {"name": "copy", "train": pairs, "dev": 2, "test": 1, "min_length": 30, "max_length": 30}
    )
    need = largest_batch(resolve("AttentionSeq2Seq", {"attention.score_type": "bahdanau"}), corpus)
    assert f"a training batch of {rows} pairs" in need.what


def test_a_trial_that_cannot_fit_says_so_before_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = load_corpus({"name": "copy", "train": 64, "dev": 8, "test": 1})
    hparams = resolve("AttentionSeq2Seq", {})
    footprint.check_memory(hparams, corpus, torch.device("cpu"))
    monkeypatch.setattr(footprint, "usable_memory", lambda processes: 5_000_000)
    with pytest.raises(
        MemoryError, match=r"takes at least .* of memory, and there are 5 MB"
    ) as error:
        footprint.check_memory(hparams, corpus, torch.device("cpu"))
    assert status_of(f"MemoryError: {error.value}") == OUT_OF_MEMORY
    out = tmp_path / "out"
    assert command_line.main(["debug", "--corpus", "copy", "--steps", "2", "--out", str(out)]) == 2
    said = capsys.readouterr()
    assert "a trial of this configuration takes at least" in said.err
    assert "Traceback" not in said.err
    assert not out.exists()


@pytest.mark.parametrize("cell", CELLS)
def test_every_cell_is_counted(cell: str) -> None:
    """Some cells have another name for their size."""
    corpus = load_corpus({"name": "copy", "train": 64, "dev": 8, "test": 1, "vocabulary": 3})
    spec = {"class": cell, "cell_size" if cell == "GRUBlockCell" else "num_units": 128}
    sides = {f"{side}.rnn_cell.cell_spec": spec for side in ("encoder", "decoder")}
    assert largest_batch(resolve("BasicSeq2Seq", sides), corpus).bytes > 32 * 4 * 2 * 128
