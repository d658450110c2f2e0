"""The trial as a generator: it reports, resumes bit for bit, and ends in order."""

import copy
import ctypes
import io
import math
import os
import platform
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as settings_of_tests
from hypothesis import strategies as st

from s2s_search.corpus import cuts
from s2s_search.corpus.batches import make_batch
from s2s_search.corpus.corpus import Corpus
from s2s_search.corpus.load import load_corpus
from s2s_search.hparams.configuration import Hparams, resolve
from s2s_search.hparams.table import CELLS
from s2s_search.metrics import METRICS, REGISTRY, WORST, bleu
from s2s_search.nn.generate import greedy
from s2s_search.nn.models import build_model
from s2s_search.runs.checkpoints import Checkpoints, keep_snapshots
from s2s_search.training import evaluation as evaluations
from s2s_search.training import trial
from s2s_search.training.evaluation import evaluate, evaluation, examples
from s2s_search.training.process_memory import keep_freed_memory, release_freed_memory
from s2s_search.training.trained_model import load_trained
from s2s_search.training.trial import train
from tests.models import small
from tests.spaces import distance

TIMES = {"seconds", "evaluation_seconds"}


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return load_corpus(
        {"name": "reverse", "train": 90, "dev": 20, "test": 5, "vocabulary": 6, "max_length": 7}
    )


def settings(**more: object) -> Hparams:
    values = {
        "embedding.dim": 8,
        "encoder.type": "BidirectionalRNNEncoder",
        "encoder.rnn_cell.cell_spec.num_units": 8,
        "decoder.rnn_cell.cell_spec.num_units": 8,
        "decoder.rnn_cell.dropout_input_keep_prob": 0.8,
        "encoder.rnn_cell.dropout_output_keep_prob": 0.7,
        "attention.dim": 8,
        "optimizer.learning_rate": 0.01,
        "train.batch_size": 16,
        "train.max_steps": 20,
        "train.eval_every_steps": 5,
        "inference.max_decode_length": 12,
    }
    return resolve(
        "AttentionSeq2Seq",
        values | {name.replace("__", "."): value for name, value in more.items()},
    )


def collected(reports: Any) -> list[dict[str, Any]]:
    return [{k: v for k, v in report.metrics.items() if k not in TIMES} for report in reports]


@pytest.mark.parametrize("cell", CELLS)
def test_every_cell_trains_and_is_evaluated(corpus: Corpus, cell: str) -> None:
    """Encoder and decoder have the cell; a report and its answers are made."""
    (report,) = train(small(cell=cell, train__max_steps=1), corpus)
    assert report.metrics["status"] == "finished"
    assert report.answers() is not None


def test_a_snapshot_is_made_once_a_report(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[int] = []
    save = torch.save
    monkeypatch.setattr(
        torch, "save", lambda what, path: (saved.append(what["step"]), save(what, path))
    )
    seconds = []
    for report in keep_snapshots(
        train(settings(train__max_steps=12), corpus), Checkpoints(tmp_path), "step", "maximize"
    ):
        seconds.append(report.metrics["snapshot_seconds"])
        assert (tmp_path / "best.pt").read_bytes() == (tmp_path / "last.pt").read_bytes()
    assert saved == [5, 10, 12]
    assert seconds == sorted(seconds)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "answers.json",
        "best.pt",
        "last.pt",
        "previous.pt",
    ]


def test_the_mean_loss_between_two_reports_counts_every_token(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There are more tokens than float32 can count one by one."""
    counts = iter([2**24, 1, 1, 1])

    def step(*_: object) -> tuple[torch.Tensor, torch.Tensor]:
        tokens = torch.tensor(next(counts))
        return (3 * tokens).float(), tokens

    monkeypatch.setattr(trial, "training_step", step)
    assert trial.Trial(settings(), corpus, torch.device("cpu")).train_steps(4) == 3.0


def test_reports(corpus: Corpus) -> None:
    reports = [report.metrics for report in train(settings(train__max_steps=12), corpus)]
    assert [report["step"] for report in reports] == [5, 10, 12]
    assert [report["status"] for report in reports] == ["running", "running", "finished"]
    for report in reports:
        assert report["dev.perplexity"] == pytest.approx(math.exp(report["dev.loss"]))
        assert 0 <= report["dev.token_accuracy"] <= 1
        assert 0 <= report["evaluation_seconds"] <= report["seconds"]
        assert report["learning_rate"] == 0.01
        assert set(WORST) <= set(report)
    sizes = len(corpus.source_vocab), len(corpus.target_vocab)
    parameters = sum(p.numel() for p in build_model(settings(), *sizes).parameters())
    assert {report["parameters"] for report in reports} == {parameters}


NEW = (
    "optimizer.warmup_steps",
    "optimizer.weight_decay",
    "train.average_decay",
    "train.label_smoothing",
    "train.patience",
)
RULES = ("Adam", "Momentum", "RMSProp", "Ftrl", "Adagrad", "SGD")


@pytest.mark.parametrize(
    "more",
    [
        *({"optimizer__name": name} for name in RULES),
        {"train__label_smoothing": 0.1},
        {"optimizer__warmup_steps": 15},
        {"train__average_decay": 0.9},
        {"train__patience": 3},
        {"optimizer__weight_decay": 0.1},
        {"optimizer__weight_decay": 0.1, "optimizer__name": "Ftrl"},
    ],
    ids=str,
)
def test_resumes_bit_for_bit_in_mid_epoch_with_dropout(
    corpus: Corpus, more: dict[str, object]
) -> None:
    """train(20) == train(10) + snapshot to bytes and back + train(10); an epoch has six batches."""
    hparams = settings(**more)
    whole = list(train(hparams, corpus))
    expected = collected(whole)
    buffer = io.BytesIO()
    for report in train(hparams, corpus):
        if report.metrics["step"] == 10:
            torch.save(report.snapshot(), buffer)
            break
    torch.manual_seed(999)
    buffer.seek(0)
    snapshot = torch.load(buffer, weights_only=True)
    resumed = list(train(hparams, corpus, snapshot=snapshot))
    assert collected(resumed) == expected[2:]
    last, last_resumed = whole[-1].snapshot(), resumed[-1].snapshot()
    assert last.keys() == last_resumed.keys()
    for weights in {"model", "trained"} & last.keys():
        for key, tensor in last[weights].items():
            assert torch.equal(tensor, last_resumed[weights][key]), key
    assert torch.equal(last["random"]["cpu"], last_resumed["random"]["cpu"])


def test_a_finished_trial_has_nothing_left_to_do(corpus: Corpus) -> None:
    hparams = settings(train__max_steps=5)
    (report,) = train(hparams, corpus)
    assert list(train(hparams, corpus, snapshot=report.snapshot())) == []


def test_what_happens_between_reports_changes_nothing(corpus: Corpus) -> None:
    def disturbed() -> Any:
        for report in train(settings(), corpus):
            torch.manual_seed(5)
            torch.rand(100)
            yield report

    assert collected(disturbed()) == collected(train(settings(), corpus))


def test_label_smoothing_changes_the_training_loss_and_not_what_dev_loss_means(
    corpus: Corpus,
) -> None:
    """With a rate of almost 0 the models are equal, and so are their dev losses."""
    losses = []
    for share in (0.0, 0.5):
        hparams = settings(
            train__label_smoothing=share, optimizer__learning_rate=1e-12, train__max_steps=5
        )
        (report,) = collected(train(hparams, corpus))
        losses.append((report["train.loss"], report["dev.loss"]))
    assert losses[0][0] != losses[1][0]
    assert losses[0][1] == pytest.approx(losses[1][1], rel=1e-6)


@settings_of_tests(max_examples=15)
@given(decay=st.floats(0.01, 0.999), seed=st.integers(0, 99), steps=st.integers(1, 7))
def test_the_average_of_the_weights_equals_a_plain_sum(
    corpus: Corpus, decay: float, seed: int, steps: int
) -> None:
    """Training itself is as without; the average is summed over the weights after each update."""
    hparams = {"train__seed": seed, "train__max_steps": steps, "train__eval_every_steps": 1}
    after = [
        [p.double().numpy() for p in copy.deepcopy(report.snapshot())["model"].values()]
        for report in train(settings(**hparams), corpus)
    ]
    (last,) = train(
        settings(**hparams | {"train__eval_every_steps": steps}, train__average_decay=decay), corpus
    )
    snapshot, total = last.snapshot(), sum(decay**age for age in range(steps))
    for number, tensor in enumerate(snapshot["model"].values()):
        expected = sum(decay**age * weights[number] for age, weights in enumerate(reversed(after)))
        np.testing.assert_allclose(tensor, expected / total, rtol=1e-4, atol=1e-6)
    for number, tensor in enumerate(snapshot["trained"].values()):
        assert (tensor.double().numpy() == after[-1][number]).all()


def test_the_average_of_the_weights_is_what_is_evaluated_saved_and_decoded(
    corpus: Corpus, tmp_path: Path
) -> None:
    hparams = settings(train__average_decay=0.9)
    reports = train(hparams, corpus)
    for report in keep_snapshots(reports, Checkpoints(tmp_path), "dev.loss", "minimize"):
        expected = {key: report.metrics[key] for key in METRICS if key.startswith("dev.")}
        for name in ("best.pt", "last.pt"):
            trained = load_trained(tmp_path / name)
            if trained.step == report.metrics["step"]:
                assert evaluate(trained.model, corpus.dev, corpus, hparams) == expected
    newest = {report.metrics["dev.loss"] for report in train(settings(), corpus)}
    assert report.metrics["dev.loss"] not in newest


def test_a_checkpoint_from_before_some_hyperparameters_loads_and_resumes(
    corpus: Corpus, tmp_path: Path
) -> None:
    expected = collected(train(settings(), corpus))
    reports = keep_snapshots(
        train(settings(), corpus), Checkpoints(tmp_path), "dev.loss", "minimize"
    )
    next(reports)
    last, old = next(reports), torch.load(tmp_path / "last.pt", weights_only=True)
    for name in NEW:
        del old["hparams"][name]
    torch.save(old, tmp_path / "old.pt")
    trained = load_trained(tmp_path / "old.pt")
    assert trained.hparams == settings()
    assert evaluate(trained.model, corpus.dev, corpus, settings()) == {
        name: last.metrics[name] for name in METRICS if name.startswith("dev.")
    }
    assert collected(train(settings(), corpus, snapshot=old)) == expected[2:]


def test_the_seed_decides(corpus: Corpus) -> None:
    torch.manual_seed(123)
    first = collected(train(settings(), corpus))
    torch.manual_seed(321)
    assert collected(train(settings(), corpus)) == first
    other = collected(train(settings(train__seed=1), corpus))
    assert other[0]["dev.loss"] != first[0]["dev.loss"]


def test_divergence_is_a_result(corpus: Corpus) -> None:
    hparams = settings(
        optimizer__name="SGD", optimizer__learning_rate=1e30, optimizer__clip_gradients=-1.0
    )
    *_, last = collected(train(hparams, corpus))
    assert last["status"] == "diverged"
    assert last["step"] < 20
    assert {name: last[name] for name in WORST} == WORST
    assert all(math.isfinite(value) for value in WORST.values())


def test_a_model_whose_losses_are_huge_is_still_better_than_a_diverged_one(corpus: Corpus) -> None:
    model = build_model(settings(), len(corpus.source_vocab), len(corpus.target_vocab))
    with torch.no_grad():
        for weight in model.decoder.logits.parameters():
            weight.mul_(1e30)
    measured = evaluate(model, corpus.dev, corpus, settings())
    assert 1e20 < measured["dev.loss"] < math.inf
    for name in METRICS:
        if REGISTRY[name].goal == "minimize":
            assert measured[name] < WORST[name]
        else:
            assert measured[name] > WORST[name]


def test_a_model_learns_to_reverse() -> None:
    corpus = load_corpus(
        {"name": "reverse", "train": 2000, "dev": 100, "test": 5, "vocabulary": 5, "max_length": 6}
    )
    hparams = settings(
        train__max_steps=500,
        train__eval_every_steps=500,
        encoder__rnn_cell__dropout_output_keep_prob=1.0,
        decoder__rnn_cell__dropout_input_keep_prob=1.0,
        encoder__rnn_cell__cell_spec__num_units=24,
        decoder__rnn_cell__cell_spec__num_units=24,
    )
    (report,) = collected(train(hparams, corpus))
    assert report["dev.error_rate"] < 0.1
    assert report["dev.token_accuracy"] > 0.9
    assert report["dev.bleu"] > 80


def test_evaluation_equals_a_plain_loop(corpus: Corpus) -> None:
    """The loop sums over single examples, with its own edit distance and exact matches."""
    hparams = settings(train__eval_batch_size=7)
    torch.manual_seed(0)
    model = build_model(hparams, len(corpus.source_vocab), len(corpus.target_vocab))
    measured = evaluate(model, corpus.dev, corpus, hparams)
    model.eval()
    loss = correct = tokens = edits = length = wrong = 0.0
    for i in range(len(corpus.dev)):
        batch = make_batch(
            corpus.dev, torch.tensor([i]).numpy(), corpus.source_vocab, corpus.target_vocab
        )
        log_p = torch.log_softmax(model(batch)[0], -1)
        wanted = batch.target_ids[0, 1:]
        loss -= float(log_p[torch.arange(len(wanted)), wanted].detach().sum())
        correct += float((log_p.argmax(-1) == wanted).sum())
        tokens += len(wanted)
        ids = greedy(model, batch.source_ids, batch.source_lengths, 12).ids[0].tolist()
        ids = ids[: ids.index(model.end_id)] if model.end_id in ids else ids
        reference = wanted[:-1].tolist()
        edits += distance(ids, reference)
        length += len(reference)
        wrong += ids != reference
    assert measured["dev.loss"] == pytest.approx(loss / tokens, rel=1e-5)
    assert measured["dev.token_accuracy"] == pytest.approx(correct / tokens)
    assert measured["dev.error_rate"] == pytest.approx(edits / length)
    assert measured["dev.word_error_rate"] == pytest.approx(wrong / len(corpus.dev))


def test_an_answer_of_unk_is_an_error_where_the_reference_is_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the plain loop over words, an unknown word of the reference equals nothing."""
    (tmp_path / "train.tsv").write_text("a b c d e\tv w x y z\n")
    targets = [["?", "!", "?", "?"], ["v", "w", "?", "y", "z"], ["v", "w", "x", "y", "z"]]
    (tmp_path / "dev.tsv").write_text("".join(f"a b\t{' '.join(target)}\n" for target in targets))
    files = {"train": str(tmp_path / "train.tsv"), "dev": str(tmp_path / "dev.tsv")}
    unknown = load_corpus(files)
    known, vocab = unknown.target_vocab.tokens, unknown.target_vocab
    answers = [["UNK"] * 4, ["v", "w", "UNK", "y", "z"], ["v", "w", "x", "y", "z"]]
    numbered = [vocab.encode(answer) for answer in answers]
    monkeypatch.setattr(
        "s2s_search.training.evaluation.answers", lambda model, encoding, hparams: numbered
    )
    hparams = settings()
    model = build_model(hparams, len(unknown.source_vocab), len(vocab))
    measured = evaluate(model, unknown.dev, unknown, hparams)
    references = [
        [token if token in known else "nothing" for token in target] for target in targets
    ]
    edits = [
        distance(answer, reference) for answer, reference in zip(answers, references, strict=True)
    ]
    assert edits == [4, 1, 0]
    assert measured["dev.error_rate"] == pytest.approx(sum(edits) / 14)
    assert measured["dev.word_error_rate"] == pytest.approx(2 / 3)
    assert measured["dev.bleu"] == pytest.approx(
        bleu(answers, [[reference] for reference in references])
    )
    assert measured["dev.bleu"] < 60


def test_evaluation_encodes_a_batch_once(corpus: Corpus) -> None:
    hparams = settings(train__eval_batch_size=7)
    model = build_model(hparams, len(corpus.source_vocab), len(corpus.target_vocab))
    with mock.patch.object(model, "encode", wraps=model.encode) as encode:
        evaluate(model, corpus.dev, corpus, hparams)
    assert encode.call_count == 3  # 20 pairs


@pytest.mark.parametrize(
    "model, more",
    [
        ("AttentionSeq2Seq", {}),
        ("AttentionSeq2Seq", {"attention.score_type": "bahdanau"}),
        (
            "AttentionSeq2Seq",
            {"decoder.rnn_cell.cell_spec": {"class": "LSTMBlockCell", "num_units": 8}},
        ),
        ("BasicSeq2Seq", {}),
        ("BasicSeq2Seq", {"inference.beam_search.beam_width": 3}),
    ],
)
def test_batches_cut_at_any_size_give_the_same_metrics(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch, model: str, more: dict[str, object]
) -> None:
    """One limit cuts nothing, one cuts batches and steps of logits, one leaves single rows."""
    sizes = {
        "encoder.rnn_cell.cell_spec.num_units": 8,
        "decoder.rnn_cell.cell_spec.num_units": 8,
        "embedding.dim": 8,
    }
    hparams = resolve(model, {**sizes, **more, "inference.max_decode_length": 12})
    torch.manual_seed(0)
    built = build_model(hparams, len(corpus.source_vocab), len(corpus.target_vocab))
    alone = resolve(model, {**hparams, "train.eval_batch_size": 1})
    expected, edits = evaluation(built, corpus.dev, corpus, alone)
    wanted = examples(built, corpus.dev, corpus, hparams)
    rows: list[int] = []
    encode = built.encode
    monkeypatch.setattr(
        built, "encode", lambda ids, lengths: (rows.append(len(ids)), encode(ids, lengths))[1]
    )
    for limit, most in ((2**24, 20), (1000, 4), (1, 1)):
        monkeypatch.setattr(cuts, "MOST_CELLS", limit)
        monkeypatch.setattr(evaluations, "MOST_CELLS", limit)
        measured, found = evaluation(built, corpus.dev, corpus, hparams)
        assert found == edits
        for name in ("dev.token_accuracy", "dev.error_rate", "dev.word_error_rate", "dev.bleu"):
            assert measured[name] == expected[name]
        assert measured["dev.loss"] == pytest.approx(expected["dev.loss"], rel=1e-6)
        assert sum(rows) == 20
        assert 0 < max(rows) <= most
        answered = examples(built, corpus.dev, corpus, hparams)
        assert [each.answer for each in answered] == [each.answer for each in wanted]
        assert [each.source for each in answered] == [each.source for each in wanted]
        for each, other in zip(answered, wanted, strict=True):
            assert each.attention == (
                other.attention and [pytest.approx(row, abs=1e-4) for row in other.attention]
            )
        rows.clear()


LONG = """
import sys, torch
from s2s_search.corpus import load_corpus
from s2s_search.hparams import resolve
from s2s_search.nn.fast import native
from s2s_search.nn.models import build_model
from s2s_search.whatif.probes import peak_memory
from s2s_search.training.evaluation import evaluation, examples
torch.set_num_threads(1)
corpus = load_corpus({"train": ["train", "train"], "dev": ["dev", "dev"]})
overrides = {"attention.score_type": sys.argv[1], "inference.max_decode_length": 10}
hparams = resolve("AttentionSeq2Seq", overrides)
if sys.argv[2] == "torch":
    native.LIBRARY = None
model = build_model(hparams, len(corpus.source_vocab), len(corpus.target_vocab))
cpu = torch.device("cpu")
evaluation(model, corpus.train, corpus, hparams)
before = peak_memory(cpu)
evaluation(model, corpus.dev, corpus, hparams)
examples(model, corpus.dev, corpus, hparams)
print((peak_memory(cpu) - before) // 2**20)
"""


@pytest.mark.skipif(
    sys.platform != "linux", reason="elsewhere a process counts the peak of its parent, too"
)
@pytest.mark.parametrize(
    "score, loops", [("dot", "compiled"), ("bahdanau", "compiled"), ("bahdanau", "torch")]
)
def test_one_long_line_takes_no_more_memory_than_alone(
    tmp_path: Path, score: str, loops: str
) -> None:
    """A line of 1,500 tokens among 127 short ones.

    In one batch they took 2 GB, and the scores of torch's loop 1 GB.
    """
    short = " ".join("abcdefgh"[:6])
    (tmp_path / "train").write_text(f"{short}\n" * 20)
    (tmp_path / "dev").write_text(f"{short}\n" * 127 + " ".join("ab" * 750) + "\n")
    command = [sys.executable, "-c", LONG, score, loops]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert int(ran.stdout) < 200


def test_an_attention_map_that_nobody_can_read_is_left_out(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    hparams = settings()
    model = build_model(hparams, len(corpus.source_vocab), len(corpus.target_vocab))
    every = examples(model, corpus.dev, corpus, hparams)
    sizes = [(len(each.answer) + 1) * (len(each.source) + 1) for each in every]
    monkeypatch.setattr(evaluations, "MAP_CELLS", sorted(sizes)[4])
    some = examples(model, corpus.dev, corpus, hparams)
    assert [each.attention is None for each in some] == [size > sorted(sizes)[4] for size in sizes]
    assert [each.answer for each in some] == [each.answer for each in every]


def resident() -> int:
    """Returns the memory of this process in MB."""
    return (
        int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 2**20
    )


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="other C libraries keep what they like"
)
def test_freed_memory_is_kept_until_it_is_released() -> None:
    keep_freed_memory()
    blocks = [torch.zeros(2**18) for _ in range(100)]  # of a MB
    full = resident()
    blocks.clear()
    kept = resident()
    release_freed_memory()
    assert full - kept < 20
    assert kept - resident() > 80


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="other C libraries keep what they like"
)
def test_freed_memory_is_released_by_each_thread_that_a_trial_ran_in() -> None:
    """Each thread has an arena of its own in glibc, whose free end `malloc_trim` keeps."""
    libc = ctypes.CDLL(None)
    libc.malloc.argtypes, libc.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
    libc.free.argtypes = [ctypes.c_void_p]

    def trial() -> None:
        keep_freed_memory()
        block = libc.malloc(50 * 2**20)
        ctypes.memset(block, 1, 50 * 2**20)
        libc.free(block)
        release_freed_memory()
        released.release()
        over.wait()

    released, over = threading.Semaphore(0), threading.Event()
    threads = [threading.Thread(target=trial) for _ in range(8)]
    before = resident()
    for thread in threads:
        thread.start()
        released.acquire()
    grown = resident() - before
    over.set()
    for thread in threads:
        thread.join()
    assert grown < 40  # of 400
