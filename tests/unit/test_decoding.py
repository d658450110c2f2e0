"""A trained model and lines of text: known and unknown tokens, and when an answer comes."""

import io
import os
import re
import select
import subprocess
import sys
import tracemalloc
import unicodedata
from codecs import BOM_UTF8
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from s2s_search.corpus.load import load_corpus
from s2s_search.corpus.text import LONGEST_LINE, read_lines, ready_lines
from s2s_search.corpus.vocabulary import Vocabulary
from s2s_search.errors import ConfigError
from s2s_search.hparams.configuration import resolve
from s2s_search.nn.models import Encoding, build_model
from s2s_search.runs.checkpoints import Checkpoints, keep_snapshots
from s2s_search.runs.folder import BEST
from s2s_search.training.trained_model import NAMED, SourceNotes, TrainedModel, load_trained
from s2s_search.training.trial import train
from tests.models import small

CALL = "import sys; from s2s_search.cli import main; sys.exit(main(sys.argv[1:]))"
# In Unicode form NFC.
WORDS = [("añol", "a n o l"), ("bel", "b e l"), ("cañ", "k a n"), ("le", "l e")] * 3
PATIENCE = 100  # seconds to wait for the answer of a process


def model_of(source: Sequence[str], delimiter: str = "", **overrides: object) -> TrainedModel:
    """Returns a model with random weights and given source tokens."""
    hparams = small(**overrides)
    vocabs = Vocabulary(tuple(source)), Vocabulary(("x", "y", "z"))
    torch.manual_seed(0)
    model = build_model(hparams, *map(len, vocabs)).eval()
    return TrainedModel(model, hparams, *vocabs, (delimiter, " "), 1, ("dev.loss", 1.0))


def said(trained: TrainedModel, *lines: str) -> list[str]:
    notes = SourceNotes(trained)
    return [*(sentence for line in lines for sentence in notes.of(line)), *notes.total()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder of a debug run; sources and targets have a letter outside ASCII."""
    folder = tmp_path_factory.mktemp("run")
    pairs = [(source, target.replace("n", "ñ")) for source, target in WORDS]
    (folder / "words.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in pairs), encoding="utf-8")
    tsv = str(folder / "words.tsv")
    corpus = load_corpus({"train": tsv, "dev": tsv, "source_delimiter": ""})
    settings = {
        "optimizer.learning_rate": 0.02,
        "train.max_steps": 120,
        "train.eval_every_steps": 60,
        "inference.max_decode_length": 8,
    }
    hparams = resolve("AttentionSeq2Seq", {**dict(small().flat()), **settings})
    reports = list(
        keep_snapshots(train(hparams, corpus), Checkpoints(folder), "dev.error_rate", "minimize")
    )
    assert reports[-1].metrics["dev.error_rate"] == 0  # so that answers are known
    return folder


# The tokens of a line


def test_a_model_knows_which_metric_chose_it(folder: Path) -> None:
    trained = load_trained(folder / BEST)
    assert trained.score == ("dev.error_rate", 0.0)


def test_a_source_ends_at_its_tab() -> None:
    trained = model_of("abc")
    assert [trained.source_tokens(line) for line in ("ab\tk a", "\tb", "c")] == [
        ["a", "b"],
        [],
        ["c"],
    ]
    assert list(trained.answers(["ab\tx y"])) == list(trained.answers(["ab"]))
    first, total = said(trained, "a", "ab\tx", "b\ty")
    assert first == "line 2: read up to its tab only, since no source of the corpus has a tab"
    assert total == "read up to a tab: 2 of 3 lines"


@pytest.mark.parametrize(
    "source, delimiter", [(["a", "\t"], ""), (["a", "b\tc"], " "), (["a", "b"], "\t")]
)
def test_a_tab_of_the_sources_ends_nothing(source: list[str], delimiter: str) -> None:
    trained = model_of(source, delimiter)
    line = delimiter.join(source)
    assert trained.source_tokens(line) == source
    assert said(trained, line) == []


def test_lines_are_decoded_as_if_alone() -> None:
    trained = model_of("abc")
    lines = ["a", "bc" * 30, "", "c" * 900, *["ab"] * 200, "b" * 400, "c"]
    expected = [answer for line in lines for answer in trained.answers([line])]
    assert list(trained.answers(lines)) == expected


def test_a_long_line_takes_no_memory_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    trained, shapes = model_of("abc"), []
    encode = trained.model.encode

    def noted(ids: torch.Tensor, lengths: torch.Tensor) -> Encoding:
        shapes.append(tuple(ids.shape))
        return encode(ids, lengths)

    monkeypatch.setattr(trained.model, "encode", noted)
    lines = ["a"] * 100 + ["b" * 300_000] + ["ab"] * 100
    assert len(list(trained.answers(lines))) == len(lines)
    assert sum(rows for rows, _ in shapes) == len(lines)
    gates = 4 * 5  # of 5 units
    assert all(rows == 1 or rows * longest * gates <= 2**24 for rows, longest in shapes)
    assert max(rows for rows, _ in shapes) >= 50


# Notes about tokens and lines


def test_unknown_characters_are_named_once_by_line_and_place() -> None:
    assert said(model_of("abc"), "ab", "aXbX", "", "Xq") == [
        "line 2: not in the source vocabulary and read as UNK: 'X' (character 2)",
        "line 4: not in the source vocabulary and read as UNK: 'q' (character 2)",
        "unknown: 4 of 8 characters, in 2 of 4 lines",
    ]
    assert said(model_of(["ab", "c"], " "), "ab  de c") == [
        "line 1: not in the source vocabulary and read as UNK: 'de' (token 2)",
        "unknown: 1 of 3 tokens, in 1 of 1 lines",
    ]


def test_what_would_mend_a_line_is_said() -> None:
    case, *total = said(model_of("abc"), "Abx")
    assert (
        "'A' (character 1), 'x' (character 3); in lower case, 1 instead of 2 would be unknown"
        in case
    )
    assert total[-1] == "in lower case, 1 of them would be known"
    composed, apart = model_of("cañ"), model_of(unicodedata.normalize("NFD", "cañ"))
    mark = "(U+0303 COMBINING TILDE) (character 4); in Unicode form NFC, 0 instead of 2 would be"
    assert mark in said(composed, unicodedata.normalize("NFD", "cañ"))[0].replace(
        "'n' (character 3), ", ""
    )
    assert "in Unicode form NFD, 0 instead of 1 would be unknown" in said(apart, "cañ")[0]
    spaced = said(model_of("abc", " "), "cab")[0]
    assert "with ' ' between its characters, 0 instead of 1 would be unknown" in spaced
    joined = said(model_of("abc"), "c a b")[0]
    assert "without its spaces, 0 instead of 2 would be unknown" in joined


def test_sources_that_are_longer_than_training_read_are_said() -> None:
    trained = model_of("ab", source__max_seq_len=4)  # three tokens and the end
    first, total = said(trained, "aba", "abab", "ababa")
    assert first == (
        "line 2: 4 characters, but training read the first 4 of a source, its end included "
        "(source.max_seq_len)"
    )
    assert total == "longer than source.max_seq_len: 2 of 3 lines"


def test_what_is_said_is_bounded() -> None:
    lines = ["".join(map(chr, range(0x4E00 + 30 * k, 0x4E00 + 30 * (k + 1)))) for k in range(100)]
    found = said(model_of("ab"), *lines, *lines, "\x1b[31m" * 6, "q" * 3)
    assert sum("CJK UNIFIED IDEOGRAPH" in sentence for sentence in found) == 1
    assert found[0].count("character ") == NAMED
    assert found[-1] == f"unknown: {6_000 + 30 + 3:,} of {6_033:,} characters, in 202 of 202 lines"
    assert len(said(model_of(["ab"], " "), "x" * 10_000)[0]) < 250
    assert not any("\x1b" in sentence for sentence in said(model_of("ab"), "\x1b[31m", "\u202e"))


# The moment of an answer


class Arriving(io.BufferedIOBase):
    """A pipe into which another process writes each piece when all before it has been read."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self.pieces = list(pieces)

    def read1(self, size: int = -1) -> bytes:
        return self.pieces.pop(0) if self.pieces else b""


@given(
    st.lists(
        st.sampled_from(
            [b"a", "ñ".encode()[:1], "ñ".encode()[1:], b"\n", b"\r", b"\r\n", b"\t", BOM_UTF8]
        )
    )
)
def test_lines_are_those_of_a_file_and_wait_for_no_other(
    tmp_path_factory, pieces: list[bytes]
) -> None:  # type: ignore[no-untyped-def]
    data = b"".join(pieces)
    path = tmp_path_factory.getbasetemp() / "lines"
    path.write_bytes(data)
    text = data.removeprefix(BOM_UTF8).replace(b"\r\n", b"\n")
    expected = [line.decode(errors="replace") for line in text.split(b"\n")]
    if not expected[-1]:
        expected.pop()
    with suppress(ConfigError):
        assert read_lines(path) == expected
    bad = [number for number, line in enumerate(expected, 1) if "\ufffd" in line]
    arriving = Arriving(pieces)
    lines = ready_lines(arriving, str(path), 2)
    read: list[str] = []
    problem = ""
    try:
        for some in lines:
            assert 1 <= len(some) <= 2
            read += some
            ended = b"".join(pieces[: len(pieces) - len(arriving.pieces)]).count(b"\n")
            assert len(read) == ended or not arriving.pieces  # all that came, before more is read
    except ConfigError as error:
        problem = str(error)
    assert read == expected
    named = [int(n) for text in re.findall("lines? ([0-9, ]+)", problem) for n in text.split(",")]
    assert sorted(named)[:5] == bad[:5]


class Endless(io.BufferedIOBase):
    """A line, then a line that does not end for a hundred times as long as a line may be."""

    def __init__(self) -> None:
        self.pieces = [b"a\nb"]
        self.left = 100 * LONGEST_LINE

    def read1(self, size: int = -1) -> bytes:
        if self.pieces:
            return self.pieces.pop()
        if self.left <= 0:
            return b""
        self.left -= size
        return b"\0" * size if self.left > 0 else b"\nc\n"


def test_a_line_that_is_too_long_has_its_place_and_takes_no_memory() -> None:
    lines = ready_lines(Endless(), "pipe", 9)
    assert next(lines) == ["a"]
    tracemalloc.start()
    assert next(lines) == ["", "c"]
    assert tracemalloc.get_traced_memory()[1] < 10 * LONGEST_LINE
    tracemalloc.stop()
    with pytest.raises(ConfigError, match=f"pipe: line 2: has more than {LONGEST_LINE:,} bytes"):
        next(lines)


@pytest.mark.parametrize("end", [b"", b"\r\n", b"\n"])
def test_the_longest_line_may_come_in_any_pieces(end: bytes) -> None:
    for size in (LONGEST_LINE, LONGEST_LINE + 1):
        pieces = [b"a" * size, *(end[k : k + 1] for k in range(len(end)))]
        found = []
        with suppress(ConfigError):
            for some in ready_lines(Arriving(pieces), "pipe", 9):
                found += some
        assert found == ["a" * size if size == LONGEST_LINE else ""]


def start(folder: Path, *argv: str, **streams: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", CALL, "decode", str(folder), *argv]
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen(command, **(pipes | streams))


def answer(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    assert select.select([process.stdout], [], [], PATIENCE)[0], "no answer"
    return process.stdout.readline().decode()


def test_another_process_asks_and_waits_for_each_answer(folder: Path) -> None:
    latin = os.environ | {"PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0", "LC_ALL": "C"}
    with start(folder, env=latin) as process:
        assert process.stdin is not None
        for given_line, expected in (
            ("bel", "b e l"),
            ("cañ", "k a ñ"),
            ("le\tl e", "l e"),
            ("añol\r", "a ñ o l"),
        ):
            process.stdin.write(f"{given_line}\n".encode())
            process.stdin.flush()
            assert answer(process) == expected + "\n"
        process.stdin.write(b"B\n\nbel\nle")
        out, err = process.communicate()
    assert out.decode().splitlines()[2:] == ["b e l", "l e"]
    assert out.count(b"\n") == 4
    assert process.returncode == 0
    first, *others = err.decode().splitlines()
    assert first.startswith(f"model: {folder / BEST}, step ")
    assert first.endswith("dev.error_rate 0; input: one source per line, split into characters")
    assert [line.partition(":")[0] for line in others] == [
        "standard input, line 3",
        "standard input, line 5",
        "standard input",
        "standard input",
        "standard input",
    ]


def test_a_pipe_that_another_process_made_non_blocking_is_read_to_its_end(folder: Path) -> None:
    read_end, write_end = os.pipe()
    os.set_blocking(read_end, False)
    with start(folder, stdin=read_end) as process:
        os.close(read_end)
        for _ in range(2):
            os.write(write_end, b"bel\n")
            assert answer(process) == "b e l\n"
        os.close(write_end)
        assert process.communicate()[0] == b""


def test_a_terminal(folder: Path) -> None:
    terminal, its_end = os.openpty()
    with start(folder, stdin=its_end) as process:
        os.close(its_end)
        for line in ("bel", "añol"):
            os.write(terminal, f"{line}\n".encode())
            assert answer(process) == {"bel": "b e l\n", "añol": "a ñ o l\n"}[line]
        os.write(terminal, b"le\x04\x04")  # a line without end, and the end of input
        out, err = process.communicate()
    os.close(terminal)
    assert (out, process.returncode) == (b"l e\n", 0)
    assert b", until Ctrl-D" in err


@pytest.mark.parametrize("command, out, status", [
    ("DECODE < /dev/null", "", 0),
    ("cat FOLDER/words.tsv | DECODE | head -2", "a ñ o l\nb e l\n", 0),
    ("yes bel | DECODE | head -2", "b e l\nb e l\n", 0),
    ("DECODE --input <(yes bel) | head -2", "b e l\nb e l\n", 0),
    ("printf 'bel\n\u0303\nle' | DECODE 2>&- | sed -n '1p;3p'", "b e l\nl e\n", 0),
    ("DECODE <&-", "", 2),
    ("DECODE 0>/dev/null", "", 2),
    ("DECODE --input FOLDER", "", 2),
    ("DECODE --input FOLDER/none", "", 2),
])  # fmt: skip
def test_inputs_of_a_shell(folder: Path, command: str, out: str, status: int) -> None:
    decode = f"{sys.executable} -c '{CALL}' decode {folder}"
    command = command.replace("DECODE", decode).replace("FOLDER", str(folder))
    found = subprocess.run(
        ["bash", "-c", command], capture_output=True, check=False, timeout=PATIENCE
    )
    assert (found.stdout.decode(), found.returncode) == (out, status)
    assert "Traceback" not in found.stderr.decode()
    assert not status or len(found.stderr.splitlines()) <= 2


def test_each_line_has_one_answer_whatever_it_is(folder: Path) -> None:
    lines = [
        b"bel",
        b"",
        b" ",
        b"\t",
        b"b\re\rl",
        b"\xff\xfebel",
        b"\0",
        "\u2028\x85\x0b\x0c".encode(),
    ]
    lines += [BOM_UTF8, b"\r", b"b" * 2000, b"b" * (LONGEST_LINE + 1), b"le"]
    for data in (b"\n".join(lines), b"\n".join(lines) + b"\n", b"\r\n".join(lines)):
        with start(folder) as process:
            out, err = process.communicate(data)
        answers = out.split(b"\n")
        assert answers.pop() == b""
        assert len(answers) == len(lines)
        assert (answers[0], answers[-1]) == (b"b e l", b"l e")
        assert process.returncode == 2
        *_, first, second = err.decode().splitlines()
        assert first.lstrip().startswith("standard input: line 6: byte 0xff is not valid UTF-8")
        assert second.lstrip() == "standard input: line 12: has more than 1,048,576 bytes"


def test_ctrl_c_ends_a_session(folder: Path) -> None:
    with start(folder) as process:
        assert process.stdin is not None
        process.stdin.write(b"bel\n")
        process.stdin.flush()
        assert answer(process) == "b e l\n"
        process.send_signal(2)
        out, err = process.communicate()
    assert (out, process.returncode) == (b"", 130)
    assert err.endswith(b"interrupted\n")
    assert b"Traceback" not in err
