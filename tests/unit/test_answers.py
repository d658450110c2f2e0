"""Answers: that they are the model's, that they make up the error rates, that damage is noticed."""

import itertools
import json
import math
import random
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from s2s_search.corpus.batches import evaluation_batches
from s2s_search.corpus.corpus import Corpus
from s2s_search.corpus.load import load_corpus
from s2s_search.hparams.configuration import Hparams, resolve
from s2s_search.nn.generate import beam_search, greedy
from s2s_search.nn.models import Seq2Seq, build_model
from s2s_search.runs.answers import Answers, Example, load_answers
from s2s_search.runs.checkpoints import Checkpoints, keep_snapshots
from s2s_search.training.evaluation import decode, evaluation, examples
from s2s_search.training.trial import Report, Trial, train
from tests.spaces import SMALL, distance

COPY = {
    "name": "copy",
    "train": 60,
    "dev": 20,
    "test": 1,
    "vocabulary": 4,
    "min_length": 1,
    "max_length": 6,
}
ANSWERS = Answers(
    20,
    [0, 2, 1],
    [3, 2, 0],
    [
        Example(["a", "é"], [["x"], ["x", "y"]], ["y"], [[0.25, 0.25, 0.5], [1.0, 0.0, 0.0]]),
        Example([], [["x"]], [], [[1.0]]),
        Example(["b"], [[]], ["x"], None),
    ],
)


@cache
def corpus_of(name: str) -> Corpus:
    return load_corpus({"name": "cmudict"} if name == "cmudict" else COPY)


@pytest.fixture
def corpus() -> Corpus:
    return corpus_of("copy")


def settings(model: str = "AttentionSeq2Seq", **more: object) -> Hparams:
    values: dict[str, object] = {
        **SMALL,
        "decoder.rnn_cell.dropout_input_keep_prob": 0.8,
        "optimizer.learning_rate": 0.03,
        "train.batch_size": 16,
        "train.max_steps": 30,
        "train.eval_batch_size": 7,
    }
    return resolve(model, values | {name.replace("__", "."): value for name, value in more.items()})


def model_of(hparams: Hparams, corpus: Corpus, seed: int = 1) -> Seq2Seq:
    """A model that answers at all lengths."""
    torch.manual_seed(seed)
    model = build_model(hparams, len(corpus.source_vocab), len(corpus.target_vocab)).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.uniform_(-1.0, 1.0)
        model.decoder.logits.bias[model.end_id] += 1.0  # type: ignore[union-attr, operator, index]
    return model


# What is written


CASES: list[tuple[str, str, dict[str, object]]] = [
    ("copy", "AttentionSeq2Seq", {}),
    ("copy", "BasicSeq2Seq", {}),
    ("copy", "AttentionSeq2Seq", {"train.eval_examples": 9, "source.reverse": True}),
    ("copy", "AttentionSeq2Seq", {"inference.beam_search.beam_width": 3}),
    ("cmudict", "AttentionSeq2Seq", {"train.eval_examples": 150, "train.eval_batch_size": 64}),
    (
        "cmudict",
        "BasicSeq2Seq",
        {"train.eval_examples": 150, "inference.beam_search.beam_width": 2},
    ),
]


@pytest.mark.parametrize("metric", ["dev.loss", "dev.word_error_rate"])
@pytest.mark.parametrize("name, model, more", CASES)
def test_the_errors_make_up_the_error_rates_of_the_best_report(
    tmp_path: Path, name: str, model: str, more: dict[str, object], metric: str
) -> None:
    corpus, hparams = corpus_of(name), settings(model, **more)
    reports = [
        r.metrics
        for r in keep_snapshots(train(hparams, corpus), Checkpoints(tmp_path), metric, "minimize")
    ]
    best = min(reports, key=lambda report: report[metric])
    answers = load_answers(str(tmp_path))
    assert answers is not None
    assert answers.step == best["step"]
    assert sum(answers.errors) / sum(answers.lengths) == best["dev.error_rate"]
    assert (
        sum(error > 0 for error in answers.errors) / len(answers.errors)
        == best["dev.word_error_rate"]
    )
    assert len(answers.errors) == (hparams["train.eval_examples"] or 20)


@pytest.mark.parametrize("name, wanted", [("copy", 0), ("copy", 9), ("cmudict", 200)])
def test_the_errors_are_those_of_each_source_by_itself_in_dev_order(name: str, wanted: int) -> None:
    corpus, hparams = corpus_of(name), settings(train__eval_examples=wanted)
    model, split = model_of(hparams, corpus), corpus.dev
    batches = evaluation_batches(split, corpus.source_vocab, corpus.target_vocab, 1, wanted)
    evaluated = {int(pair) for _, pairs in batches for pair in pairs}
    errors, lengths = [], []
    for first, end in itertools.pairwise(split.groups.tolist()):
        if first in evaluated:
            source = torch.tensor([[*split.source(first).tolist(), corpus.source_vocab.end]])
            (answer,) = decode(model, source, torch.tensor([source.shape[1]]), hparams)
            references = [split.target(pair).tolist() for pair in range(first, end)]
            fewest, length = min(
                (distance(answer, reference), -len(reference)) for reference in references
            )
            errors.append(fewest)
            lengths.append(-length)
    assert len(set(errors)) > 3
    assert evaluation(model, split, corpus, hparams)[1] == (errors, lengths)


SHAPES: list[dict[str, object]] = [
    {"source.reverse": False, "attention.score_type": "dot"},
    {"source.reverse": True, "attention.score_type": "bahdanau"},
    {"encoder.type": "StackBidirectionalRNNEncoder", "decoder.rnn_cell.num_layers": 2},
    {"encoder.type": "UnidirectionalRNNEncoder", "decoder.rnn_cell.residual_connections": True},
]


@pytest.mark.parametrize("more", SHAPES)
def test_attention_is_what_a_greedy_decoder_sees(corpus: Corpus, more: dict[str, object]) -> None:
    hparams = settings(**more)
    model = model_of(hparams, corpus)
    ended = 0
    for example in examples(model, corpus.dev, corpus, hparams):
        ids = torch.tensor([[*corpus.source_vocab.encode(example.source), corpus.source_vocab.end]])
        seen = greedy(model, ids, torch.tensor([ids.shape[1]]), 8, keep_logits=True)
        assert example.answer == corpus.target_vocab.decode(seen.ids[0].tolist())
        assert seen.weights is not None
        assert example.attention is not None
        attention, steps = torch.tensor(example.attention), seen.weights.shape[1]
        assert attention.shape == (len(example.answer) + 1, ids.shape[1])
        torch.testing.assert_close(attention[:steps], seen.weights[0], atol=1e-4, rtol=0)
        torch.testing.assert_close(attention.sum(1), torch.ones(len(attention)), atol=1e-3, rtol=0)
        ended += steps == len(example.answer) + 1
    assert ended > 0


def test_attention_of_a_beam_is_what_led_to_its_best_hypothesis(corpus: Corpus) -> None:
    hparams = settings(inference__beam_search__beam_width=3)
    model = model_of(hparams, corpus)
    found, other = (
        examples(model, corpus.dev, corpus, hparams),
        examples(model, corpus.dev, corpus, settings()),
    )
    assert [example.answer for example in found] != [example.answer for example in other]
    for example in found:
        ids = torch.tensor([[*corpus.source_vocab.encode(example.source), corpus.source_vocab.end]])
        beam = beam_search(model, ids, torch.tensor([ids.shape[1]]), 8, 3)
        answer = beam.ids[0, 0, : len(example.answer)].tolist()
        assert example.answer == corpus.target_vocab.decode(answer)
        encoding = model.encode(ids, torch.tensor([ids.shape[1]]))
        target = torch.tensor([[corpus.target_vocab.start, *answer, corpus.target_vocab.end]])
        weights = model.decode(encoding, target, torch.tensor([target.shape[1]])).weights
        assert weights is not None
        torch.testing.assert_close(
            torch.tensor(example.attention), weights[0].detach(), atol=1e-4, rtol=0
        )


def test_the_examples_are_the_same_of_every_model() -> None:
    corpus = corpus_of("cmudict")
    first, second = (
        examples(model_of(hparams, corpus), corpus.dev, corpus, hparams)
        for hparams in (settings(), settings("BasicSeq2Seq", train__eval_examples=5))
    )
    assert [(e.source, e.references) for e in first] == [(e.source, e.references) for e in second]
    assert [example.attention for example in second] == [None] * 8
    words = ["".join(example.source) for example in first]
    assert words == sorted(set(words))
    assert len({word[0] for word in words}) > 5  # from all over the alphabet


def test_references_are_all_of_a_source(corpus: Corpus) -> None:
    split = corpus.dev
    grouped = replace(split, groups=np.array([0, 3, 4, 20]))
    found = examples(model_of(settings(), corpus), grouped, corpus, settings())
    assert [len(example.references) for example in found] == [
        3,
        1,
        16,
    ]  # fewer than eight sources: all of them
    for example, pair in zip(found, (0, 3, 4), strict=True):
        assert example.source == corpus.source_vocab.decode(split.source(pair))
        expected = [
            corpus.target_vocab.decode(split.target(k))
            for k in range(pair, pair + len(example.references))
        ]
        assert example.references == expected


# What it costs a trial


def collected(reports: Iterable[Any]) -> list[dict[str, Any]]:
    times = {"seconds", "evaluation_seconds", "snapshot_seconds"}
    return [{key: value for key, value in r.metrics.items() if key not in times} for r in reports]


def test_answers_change_no_number(corpus: Corpus, tmp_path: Path) -> None:
    before = collected(train(settings(), corpus))
    assert (
        collected(
            keep_snapshots(train(settings(), corpus), Checkpoints(tmp_path), "step", "maximize")
        )
        == before
    )
    trial = Trial(settings(), corpus, torch.device("cpu"))
    trial.advance()
    state = torch.get_rng_state()
    assert trial.answers() == trial.answers()
    assert torch.equal(torch.get_rng_state(), state)


def test_answers_are_made_when_a_report_is_best(corpus: Corpus, tmp_path: Path) -> None:
    made: list[int] = []

    def counted() -> Iterator[Report]:
        for report in train(settings(), corpus):
            step = report.metrics["step"]
            value = {10: 2.0, 20: 1.0, 30: 3.0}[step]
            yield Report(
                report.metrics | {"dev.loss": value},
                report.snapshot,
                lambda report=report: made.append(report.metrics["step"]) or report.answers(),
            )

    collected(keep_snapshots(counted(), Checkpoints(tmp_path), "dev.loss", "minimize"))
    assert made == [10, 20]
    answers = load_answers(str(tmp_path))
    assert answers is not None
    assert answers.step == 20


def test_a_trial_that_goes_on_keeps_its_answers_until_it_is_better(
    corpus: Corpus, tmp_path: Path
) -> None:
    checkpoints = Checkpoints(tmp_path)
    collected(
        keep_snapshots(
            train(settings(train__max_steps=10), corpus), checkpoints, "dev.loss", "minimize"
        )
    )
    kept, before = load_answers(str(tmp_path)), checkpoints.newest()
    assert kept is not None
    assert before is not None
    for best, step in ((0.0, 10), (9.0, 20)):
        torch.save(before | {"best": best}, tmp_path / "best.pt")
        reports = train(settings(train__max_steps=20), corpus, snapshot=before)
        collected(keep_snapshots(reports, checkpoints, "dev.loss", "minimize", before))
        answers = load_answers(str(tmp_path))
        assert answers is not None
        assert answers.step == step
        assert (answers == kept) == (step == 10)


def test_a_diverged_trial_has_no_answers(corpus: Corpus, tmp_path: Path) -> None:
    hparams = settings(
        optimizer__name="SGD",
        optimizer__learning_rate=1e30,
        optimizer__clip_gradients=-1.0,
        train__eval_every_steps=30,
    )
    *_, last = keep_snapshots(train(hparams, corpus), Checkpoints(tmp_path), "dev.loss", "minimize")
    assert last.metrics["status"] == "diverged"
    assert last.answers() is None
    assert load_answers(str(tmp_path)) is None


# What is read


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_what_is_written_is_read(tmp_path: Path, scheme: str) -> None:
    place = f"{scheme}{tmp_path}/trial-00000"
    assert load_answers(place) is None
    Checkpoints(place).save({"step": 20}, True, ANSWERS)
    assert load_answers(place) == ANSWERS


def test_damage_gives_none(tmp_path: Path) -> None:
    rng, path = random.Random(0), tmp_path / "answers.json"
    whole = ANSWERS.text().encode()
    for at in range(len(whole)):
        path.write_bytes(whole[:at])
        assert load_answers(str(tmp_path)) is None
    for _ in range(500):
        spoilt = bytearray(whole)
        spoilt[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        path.write_bytes(spoilt)
        found = load_answers(str(tmp_path))
        if found is not None:  # a digit or a letter became another
            assert len(found.errors) == len(found.lengths) == 3
            for example in found.examples:
                size = (
                    None if example.attention is None else [len(row) for row in example.attention]
                )
                assert size in (None, [len(example.source) + 1] * (len(example.answer) + 1))


@pytest.mark.parametrize(
    "change",
    [
        {"step": None},
        {"step": 2.5},
        {"errors": [1, 2]},
        {"errors": [1, 2, -1]},
        {"errors": ["1", 2, 3]},
        {"lengths": None},
        {"examples": None},
        {"examples": [{"source": ["a"]}]},
        {"examples": [{"source": "a", "references": [], "answer": [], "attention": None}]},
        {"examples": [{"source": ["a"], "references": [[1]], "answer": [], "attention": None}]},
        {"examples": [{"source": ["a"], "references": [], "answer": [], "attention": [[1.0]]}]},
        {"examples": [{"source": [], "references": [], "answer": [], "attention": [[1.0], [1.0]]}]},
        {"examples": [{"source": [], "references": [], "answer": [], "attention": [[math.nan]]}]},
        {"more": 1},
    ],
)
def test_what_are_no_answers_is_none(tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "answers.json"
    path.write_text(json.dumps(json.loads(ANSWERS.text()) | change))
    assert load_answers(str(tmp_path)) is None


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", "7", '{"step": 1}'])
def test_another_file_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "answers.json").write_text(text)
    assert load_answers(str(tmp_path)) is None
