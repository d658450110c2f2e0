"""What `decode` writes, against plain loops: best answers, scores, UNK replaced, attention."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from s2s_search.cli.command_line import main
from s2s_search.corpus.vocabulary import Vocabulary
from s2s_search.errors import ConfigError
from s2s_search.nn.models import build_model
from s2s_search.runs.checkpoints import Checkpoints
from s2s_search.training.answer_form import AnswerForm
from s2s_search.training.trained_model import TrainedModel
from s2s_search.training.unk_replacement import load_replacements
from tests.models import small

SOURCE, TARGET = tuple("abcd"), ("x", "y", "z")
LINES = ["abca", "", "b", "aqa", "d" * 9]
WIDTH, PENALTY = (f"inference__beam_search__{x}" for x in ("beam_width", "length_penalty_weight"))


def trained(seed: int, unk_bias: float = 0.0, **overrides: object) -> TrainedModel:
    """Returns a model with random weights; with a bias it prefers UNK, or avoids it."""
    hparams = small(**overrides)
    vocabs = Vocabulary(SOURCE), Vocabulary(TARGET)
    torch.manual_seed(seed)
    model = build_model(hparams, *map(len, vocabs), source_length=12).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.uniform_(-1.5, 1.5)
        model.decoder.logits.bias[vocabs[1].unk] += unk_bias
    return TrainedModel(model, hparams, *vocabs, ("", " "), 1, ("dev.loss", 1.0))


def reading(made: TrainedModel, line: str, target: Sequence[str]) -> tuple[list[float], np.ndarray]:
    """Returns the log probabilities of an answer's tokens and END, and the weights [T + 1, S + 1].

    The decoder reads the answer token by token.
    """
    model, vocabulary = made.model, made.target_vocab
    names = [*TARGET, "UNK", "SEQUENCE_START"]
    ids = [names.index(token) for token in target] + [vocabulary.end]
    source = torch.tensor([[*made.source_vocab.encode(line), made.source_vocab.end]])
    log_probs, weights = [], []
    with torch.no_grad():
        encoding = model.encode(source, torch.tensor([source.shape[1]]))
        state = model.decoder.start(encoding.state, encoding.memory)
        last = vocabulary.start
        for i in ids:
            x = model.decoder_input(torch.tensor([last]), encoding.extra)
            logits, state, of_step = model.decoder.step(x, state, encoding.memory)
            log_probs.append(float(logits.log_softmax(-1)[0, i]))
            if of_step is not None:
                row = of_step[0].numpy()
                weights.append(row[::-1] if model.reverse_source else row)
            last = i
    return log_probs, np.array(weights)


def split(answer: str) -> list[str]:
    return answer.split(" ") if answer else []


@given(
    st.integers(0, 99),
    st.sampled_from([0.0, 0.7]),
    st.sampled_from(["AttentionSeq2Seq", "BasicSeq2Seq"]),
)
def test_the_best_answers_have_the_scores_of_their_tokens(
    seed: int, penalty: float, name: str
) -> None:
    made = trained(seed, model=name, **{WIDTH: 4, PENALTY: penalty})
    form = AnswerForm(made, count=3, scores=True)
    best = AnswerForm(made)
    for number, (line, ranked) in enumerate(zip(LINES, form.ranked(LINES), strict=True), start=1):
        rows = [row.split("\t") for row in form.rows(number, line, ranked)]
        assert [row[:2] for row in rows] == [[str(number), str(rank)] for rank in (1, 2, 3)]
        scores = [float(row[2]) for row in rows]
        assert scores == sorted(scores, reverse=True)
        assert len({row[3] for row in rows}) == 3
        for row, score in zip(rows, scores, strict=True):
            target = split(row[3])
            log_probs, _ = reading(made, line, target)
            if len(target) == 7:  # inference.max_decode_length: END was not decoded
                log_probs.pop()
            divisor = ((5 + len(target)) / 6) ** penalty
            assert score == pytest.approx(sum(log_probs) / divisor, rel=1e-4, abs=1e-4)
        (alone,) = [list(best.rows(1, line, answers)) for answers in best.ranked([line])]
        assert alone == [rows[0][3]]


def test_the_score_of_a_greedy_answer_is_its_log_probability() -> None:
    made = trained(3)
    form = AnswerForm(made, scores=True)
    answers = list(made.answers(LINES))
    for line, ranked, answer in zip(LINES, form.ranked(LINES), answers, strict=True):
        (row,) = form.rows(1, line, ranked)
        score, text = row.split("\t")
        assert text == answer
        log_probs, _ = reading(made, line, split(answer))
        assert float(score) == pytest.approx(sum(log_probs[:7]), rel=1e-4, abs=1e-4)


def test_there_are_no_answers_that_do_not_exist() -> None:
    made = trained(0, **{WIDTH: 40, "inference__max_decode_length": 1})
    for ranked in made.ranked(LINES, count=40):
        found = [" ".join(answer.tokens) for answer in ranked]
        assert sorted(found) == sorted(["", "SEQUENCE_START", "UNK", *TARGET])


def replaced(made: TrainedModel, line: str, answer: str, mapping: Mapping[str, str]) -> str:
    _, weights = reading(made, line, split(answer))
    tokens = []
    for t, token in enumerate(split(answer)):
        if token == "UNK" and line:
            best = 0
            for s in range(len(line)):
                if weights[t, s] > weights[t, best]:
                    best = s
            token = mapping.get(line[best], line[best])
        tokens.append(token)
    return " ".join(token for token in tokens if token)


@given(st.integers(0, 99), st.booleans(), st.sampled_from([1, 3]))
def test_unk_becomes_the_source_token_with_the_highest_weight(
    seed: int, reverse: bool, width: int
) -> None:
    made = trained(seed, 2.0, source__reverse=reverse, **{WIDTH: width})
    answers = list(made.answers(LINES))
    assert any("UNK" in answer for answer in answers) or seed
    for mapping in ({}, {"a": "A", "q": "y z", "d": ""}):
        form = AnswerForm(
            made, unk_replace=True, replacements={a: split(b) for a, b in mapping.items()}
        )
        for line, ranked, answer in zip(LINES, form.ranked(LINES), answers, strict=True):
            assert list(form.rows(1, line, ranked)) == [replaced(made, line, answer, mapping)]


def test_replacements_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "map"
    path.write_text("a\tA B\n\n b\tC\n", encoding="utf-8")
    assert load_replacements(path, (" ", " ")) == {"a": ["A", "B"], "b": ["C"]}
    path.write_text("a\tA\nab\nab\tC\nc\tC\td\na\tB\n")
    with pytest.raises(ConfigError) as found:
        load_replacements(path, ("", " "))
    assert [problem.removeprefix(f"{path}: ") for problem in found.value.problems] == [
        "line 2: must be a source token, one tab and what replaces it, but is 'ab'",
        "line 3: must be a source token, one tab and what replaces it, but is 'ab\\tC'",
        "line 4: must be a source token, one tab and what replaces it, but is 'c\\tC\\td'",
        "line 5: 'a' is in line 1 already",
    ]


def test_tokens_of_columns_are_copied_and_replaced_without_their_column(tmp_path: Path) -> None:
    hparams = small()
    source = Vocabulary(("a", "b", "\tN", "\tPL"))
    target = Vocabulary(("x",))
    torch.manual_seed(0)
    model = build_model(hparams, len(source), len(target)).eval()
    with torch.no_grad():
        model.decoder.logits.bias[target.unk] += 9
    made = TrainedModel(model, hparams, source, target, (("", ";"), " "), 1, ("dev.loss", 1.0))
    (tmp_path / "map").write_text("a\tA\nPL\tP P\n")
    replacements = load_replacements(tmp_path / "map", made.delimiters)
    assert replacements == {"a": ["A"], "PL": ["P", "P"]}
    form = AnswerForm(made, unk_replace=True, replacements=replacements)
    lines = ["ab\tN;PL", "\tPL", "\tXY"]
    found = [
        list(form.rows(1, line, ranked))
        for line, ranked in zip(lines, form.ranked(lines), strict=True)
    ]
    assert set(found[0][0].split(" ")) <= {"A", "b", "N", "P"}
    assert found[1:] == [[" ".join(["P"] * 14)], [" ".join(["XY"] * 7)]]


@pytest.mark.parametrize("width", [1, 3])
def test_a_model_that_is_not_finite_answers_each_line_too(width: int) -> None:
    made = trained(0, **{WIDTH: width})
    with torch.no_grad():
        made.model.decoder.logits.bias.fill_(math.nan)  # type: ignore[union-attr]
    assert len(list(made.answers(LINES))) == len(LINES)
    form = AnswerForm(made, scores=True, unk_replace=True)
    for line, ranked in zip(LINES, form.ranked(LINES), strict=True):
        assert len(list(form.rows(1, line, ranked))) == 1


# The command


def folder_of(made: TrainedModel, folder: Path) -> Path:
    """Writes a model as the folder of a debug run."""
    folder.mkdir()
    Checkpoints(folder).save(
        {
            "hparams": {"model": made.hparams.model, **made.hparams.flat()},
            "model": made.model.state_dict(),
            "source_tokens": SOURCE,
            "target_tokens": TARGET,
            "delimiters": made.delimiters,
            "step": 1,
            "report": {"status": "finished", "dev.loss": 1.0},
            "best": 1.0,
        },
        is_best=True,
    )
    return folder


def ask(
    capsys: pytest.CaptureFixture[str], folder: Path, *argv: object
) -> tuple[int, list[str], str]:
    (folder / "lines").write_text("".join(f"{line}\n" for line in LINES))
    status = main(["decode", str(folder), "--input", str(folder / "lines"), *map(str, argv)])
    out, err = capsys.readouterr()
    return status, out.splitlines(), err


def test_everything_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = trained(1, 2.0, source__max_seq_len=12)
    folder = folder_of(made, tmp_path / "run")
    assert ask(capsys, folder)[:2] == (0, list(made.answers(LINES)))
    (folder / "map").write_text("a\tA\n")
    file = tmp_path / "weights.npz"
    options = ["--beam", 3, "--n-best", 2, "--scores", "--unk-replace"]
    status, rows, _ = ask(
        capsys, folder, *options, "--unk-map", folder / "map", "--attention", file
    )
    assert status == 0
    assert [row.split("\t")[:2] for row in rows] == [[str(n), r] for n in range(1, 6) for r in "12"]
    made = trained(1, 2.0, source__max_seq_len=12, **{WIDTH: 3})
    with np.load(file) as arrays:
        assert arrays.files == [f"arr_{k}" for k in range(5)]
        for k, (line, answer) in enumerate(zip(LINES, made.answers(LINES), strict=True)):
            score, text = rows[2 * k].split("\t")[2:]
            assert math.isfinite(float(score))
            assert text == replaced(made, line, answer, {"a": "A"})
            _, weights = reading(made, line, split(answer))
            np.testing.assert_allclose(arrays[f"arr_{k}"], weights, atol=1e-6)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "weights.npz"]


def test_what_a_model_cannot_give_is_said_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folder_of(trained(0, model="BasicSeq2Seq", source__max_seq_len=12), tmp_path / "run")
    (folder / "map").write_text("ab\tA\n")
    wishes = [
        "--n-best",
        2,
        "--unk-replace",
        "--unk-map",
        folder / "map",
        "--attention",
        tmp_path / "no" / "x",
    ]
    status, rows, err = ask(capsys, folder, *wishes)
    assert (status, rows) == (2, [])
    assert [line.strip() for line in err.splitlines()] == [
        f"{folder}: 5 problems",
        "--n-best 2: must be at most the beam width, which is 1; --beam 2 widens it",
        "--unk-replace: needs the weights of attention, and BasicSeq2Seq has none",
        "--attention: needs the weights of attention, and BasicSeq2Seq has none",
        f"--unk-map {folder / 'map'}: line 1: must be a source token, one tab and what replaces it, "
        "but is 'ab\\tA'",
        f"--attention {tmp_path / 'no' / 'x'}: cannot be written: No such file or directory",
    ]
    status, _, err = ask(capsys, folder, "--unk-map", folder / "map")
    assert (status, err) == (
        2,
        f"{folder}: --unk-map {folder / 'map'}: does nothing without --unk-replace\n",
    )
    status, _, err = ask(capsys, folder, "--unk-replace", "--unk-map", folder / "none")
    assert status == 2
    assert f"--unk-map {folder / 'none'}: " in err
    assert "No such file or directory; did you mean" in err


def test_an_attention_file_is_whole_or_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_of(trained(0, source__max_seq_len=12), tmp_path / "run")
    monkeypatch.setattr("s2s_search.training.answer_form.AnswerForm.rows", lambda *a: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        ask(capsys, folder, "--attention", tmp_path / "x.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    monkeypatch.undo()
    (folder / "bad").write_bytes(b"a\n\xff\nb\n")
    argv = [
        "decode",
        str(folder),
        "--input",
        str(folder / "bad"),
        "--attention",
        str(tmp_path / "x.npz"),
    ]
    assert main(argv) == 2
    assert len(capsys.readouterr().out.splitlines()) == 3
    with np.load(tmp_path / "x.npz") as arrays:
        assert len(arrays.files) == 3
