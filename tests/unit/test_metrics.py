import math
from collections import Counter

import numpy as np
import pytest

from s2s_search.metrics import (
    COLUMNS,
    DEV,
    GOALS,
    METRICS,
    OBJECTIVES,
    PAIRS_AT_ONCE,
    REGISTRY,
    WORST,
    Edits,
    bleu,
    bleu_signature,
    error_rate,
    nearest_edits,
    word_error_rate,
)

ONE, TWO = [1, 2, 3, 4, 5], [7, 8]

# The worst that a model can earn: losses are computed in float32, and the longest answers to blank
# references are wrong in every token.
EARNED = {
    "train.loss": float(np.finfo(np.float32).max),
    "dev.loss": float(np.finfo(np.float32).max),
    "dev.perplexity": math.exp(100),
    "dev.token_accuracy": 0 / 5,
    "dev.error_rate": Edits([2**16] * 2**16, [0] * 2**16).error_rate * 2**16,
    "dev.word_error_rate": word_error_rate([TWO, TWO], [[ONE], [ONE]]),
    "dev.bleu": bleu([TWO], [[ONE]]),
}


def test_what_a_diverged_trial_reports_is_worse_than_anything_that_a_model_can_earn() -> None:
    assert set(EARNED) == set(WORST)
    for name, earned in EARNED.items():
        worst, goal = WORST[name], REGISTRY[name].goal
        assert math.isfinite(worst)
        assert worst > earned if goal == "minimize" else worst < earned, name


def test_every_metric_is_declared_once() -> None:
    for name, metric in {**METRICS, **OBJECTIVES, **REGISTRY}.items():
        assert metric.name == name
        assert metric.goal in GOALS
        assert metric is REGISTRY[name]
    assert len(REGISTRY) == len({metric.name for metric in REGISTRY.values()})
    assert tuple(METRICS) == tuple(metric.name for metric in DEV) == COLUMNS[: len(DEV)]
    assert {name for name, metric in REGISTRY.items() if metric.goal == "maximize"} == {
        "dev.token_accuracy",
        "dev.bleu",
    }


def test_error_rate_is_edits_per_reference_token() -> None:
    assert error_rate([ONE], [[ONE]]) == 0
    assert error_rate([[1, 3, 4, 9, 5, 6]], [[ONE]]) == 3 / 5
    assert error_rate([ONE, [7]], [[ONE], [TWO]]) == 1 / 7


def test_edits_are_those_of_each_prediction_to_its_nearest_reference() -> None:
    assert nearest_edits([[1, 2], [7], []], [[ONE, [1, 2, 3]], [TWO], [[]]]) == (
        [1, 1, 0],
        [3, 2, 0],
    )


def test_error_rate_takes_the_best_reference_and_its_length() -> None:
    assert error_rate([[1, 2]], [[ONE, [1, 2, 3]]]) == 1 / 3
    assert (
        error_rate([[1, 2, 3]], [[[1, 2], [1, 2, 3, 4], [2, 3]]]) == 1 / 4
    )  # of equal edits, the longest


def test_error_rate_of_empty_sequences() -> None:
    assert error_rate([[]], [[ONE]]) == 1
    assert error_rate([[], []], [[[]], [ONE, []]]) == 0
    assert error_rate([[1, 2], ONE], [[[]], [ONE]]) == 2 / 5
    assert error_rate([[1, 2]], [[[]]]) == 2


def test_word_error_rate_is_the_share_without_an_exact_match() -> None:
    assert word_error_rate([ONE, [], [7], TWO], [[TWO, ONE], [[]], [TWO], [ONE]]) == 1 / 2


def test_tokens_may_be_numpy_ids_or_strings() -> None:
    for tokens in (np.array(ONE, np.int32), tuple(ONE), ["a", "bc", "d e", "f", "g"]):
        assert error_rate([tokens[:4]], [[tokens]]) == 1 / 5
        assert word_error_rate([tokens], [[list(tokens)]]) == 0
        assert bleu([tokens], [[tokens]]) == pytest.approx(100)


def test_as_many_references_as_predictions() -> None:
    for metric in (error_rate, word_error_rate, bleu):
        with pytest.raises(ValueError, match="argument"):
            metric([ONE, TWO], [[ONE]])


def plain_bleu(predictions: list[list[int]], references: list[list[list[int]]]) -> float:
    """Returns BLEU as Papineni et al. (2002) define it.

    The reference length is the closest one, the shorter of two. An order without a match counts
    half a match, the next one a quarter, and so on.
    """
    matches, possible = [0] * 5, [0] * 5
    length = reference_length = 0
    for prediction, answers in zip(predictions, references, strict=True):
        length += len(prediction)
        reference_length += min(
            (abs(len(answer) - len(prediction)), len(answer)) for answer in answers
        )[1]
        for n in range(1, 5):
            found = ngrams(prediction, n)
            allowed = Counter[tuple[int, ...]]()
            for answer in answers:
                allowed |= ngrams(answer, n)
            matches[n] += (found & allowed).total()
            possible[n] += found.total()
    if not any(matches) or not all(possible[1:]):
        return 0.0
    halved, logs = 1.0, 0.0
    for n in range(1, 5):
        halved = halved if matches[n] else halved / 2
        logs += math.log((matches[n] or halved) / possible[n])
    return 100 * math.exp(min(0, 1 - reference_length / length) + logs / 4)


def ngrams(tokens: list[int], n: int) -> Counter[tuple[int, ...]]:
    return Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))


def test_bleu_is_that_of_a_plain_loop() -> None:
    rng = np.random.default_rng(0)
    for size in (1, 5, 40, 2 * PAIRS_AT_ONCE + 7):
        references = [
            [rng.integers(0, 4, rng.integers(0, 12)).tolist() for _ in range(1 + k % 3)]
            for k in range(size)
        ]
        predictions = [
            [t for t in answers[0] if rng.random() < 0.8] + [9] for answers in references
        ]
        assert bleu(predictions, references) == pytest.approx(plain_bleu(predictions, references))


def test_bleu_of_nothing_in_common_and_of_nothing() -> None:
    assert bleu([ONE], [[TWO]]) == 0
    assert bleu([[]], [[ONE]]) == 0
    assert bleu([[], ONE], [[[]], [ONE]]) == pytest.approx(100)
    assert bleu([[1, 2, 3]], [[[1, 2, 3]]]) == 0  # there is no four-gram


def test_bleu_takes_tokens_as_they_are() -> None:
    spaced = ["a", " ", "b c", ".", "'s"]
    assert bleu([spaced], [[spaced]]) == pytest.approx(100)
    assert bleu([["A", "b", "c", "d"]], [[["a", "b", "c", "d"]]]) < 80


def test_bleu_signature_names_its_settings() -> None:
    assert bleu_signature().startswith("nrefs:1|case:mixed|eff:no|tok:none|smooth:exp|version:")
    assert bleu_signature(np.array([1, 2, 1])).startswith("nrefs:var|")
