"""The metrics that a trial reports: the registry of them, error rates, and BLEU.

Goals, worst values and the columns of tables are derived from the registry. Predictions and
references are sequences of tokens, ids or strings, without special tokens. rapidfuzz and sacrebleu
are imported late, because commands that compute no metric read the registry too.
"""

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

MINIMIZE, MAXIMIZE = GOALS = ("minimize", "maximize")
BEYOND_ALL = 1e99  # greater than any loss in float32, exp(100) and any number of edits


@dataclass(frozen=True)
class Metric:
    """A number that trials report and that can be compared.

    Attributes:
        name: the key of the number in a report.
        goal: "minimize" or "maximize".
        about: what it is, as a phrase.
        worst: what a diverged trial reports: a finite number that is worse than any that a model
            can earn, so that asha and median rank the trial behind all others. None for costs,
            which a diverged trial reports as measured.
        perfect: the best value that a model can have.
    """

    name: str
    goal: str
    about: str
    worst: float | None = None
    perfect: float = 0.0


LOSS = Metric("dev.loss", MINIMIZE, "cross-entropy, in nats a token", worst=BEYOND_ALL)
# A model is measured on the dev split. A search can be judged by any of these.
DEV = (
    LOSS,
    Metric("dev.perplexity", MINIMIZE, "the exponential of the loss", BEYOND_ALL, perfect=1.0),
    Metric(
        "dev.token_accuracy",
        MAXIMIZE,
        "the share of tokens that are predicted right, given those before them",
        worst=-1.0,  # 0 at least, when no token is right
        perfect=1.0,
    ),
    Metric("dev.error_rate", MINIMIZE, "edits a reference token", worst=BEYOND_ALL),
    # 1 at most, when no answer is right
    Metric("dev.word_error_rate", MINIMIZE, "the share of answers with an error", worst=2.0),
    # 0 at least, when no n-gram is right
    Metric("dev.bleu", MAXIMIZE, "BLEU of the answers, at most 100", worst=-1.0, perfect=100.0),
)
TRAIN_LOSS = Metric("train.loss", MINIMIZE, "cross-entropy, in nats a token", worst=BEYOND_ALL)
SECONDS = Metric("seconds", MINIMIZE, "the time of training")
EVALUATION_SECONDS = Metric("evaluation_seconds", MINIMIZE, "the time of evaluation")
COSTS = (Metric("parameters", MINIMIZE, "the number of weights"), SECONDS, EVALUATION_SECONDS)

METRICS = {metric.name: metric for metric in DEV}
OBJECTIVES = {metric.name: metric for metric in (*DEV, *COSTS)}  # what a search may optimize
REGISTRY = {metric.name: metric for metric in (*DEV, TRAIN_LOSS, *COSTS)}
WORST = {metric.name: metric.worst for metric in (TRAIN_LOSS, *DEV) if metric.worst is not None}
COLUMNS = (*METRICS, TRAIN_LOSS.name, "learning_rate")  # of the tables, in their order

# What the targets and the answers of one source add to the sums of which all metrics are made.
SUMS = (
    *("loss", "correct", "tokens"),  # of all its targets: nats, correct tokens, tokens
    *("errors", "length"),  # of its answer: see Edits
    *("wrong", "sources"),  # 1 if the answer equals no reference; 1
    *("predicted", "reference"),  # see bleu_counts
    *(f"matched.{n}" for n in range(1, 5)),
    *(f"counted.{n}" for n in range(1, 5)),
)

MEASURED_SPLITS = ("dev", "test")  # the parts of a corpus on which a trained model is measured

Tokens = Sequence[Hashable]

PAIRS_AT_ONCE = 512


class Edits(NamedTuple):
    """The edits between each of N predictions and its nearest reference.

    An edit is an insertion, a deletion or a substitution. The nearest reference is the one that
    takes the fewest edits, and among several such the longest.
    """

    errors: list[int]  # the number of edits of each prediction
    lengths: list[int]  # the number of tokens of the nearest reference

    @property
    def error_rate(self) -> float:
        """Returns edits per reference token; edits in all where the references hold no token."""
        return sum(self.errors) / max(sum(self.lengths), 1)

    @property
    def word_error_rate(self) -> float:
        """Returns the share of predictions that equal none of their references."""
        return sum(edits > 0 for edits in self.errors) / len(self.errors)


def metrics_of(sums: Sequence[float], split: str = "dev") -> dict[str, float]:
    """Returns the metrics of a split, given the sums over its sources in the order of SUMS."""
    loss, correct, tokens, errors, length, wrong, sources, *counts = sums
    return {
        f"{split}.loss": loss / tokens,
        f"{split}.perplexity": math.exp(min(loss / tokens, 100.0)),
        f"{split}.token_accuracy": correct / tokens,
        f"{split}.error_rate": errors / max(length, 1),
        f"{split}.word_error_rate": wrong / sources,
        f"{split}.bleu": bleu_of(counts),
    }


def answer_sums(
    predictions: Sequence[Tokens], references: Sequence[Sequence[Tokens]]
) -> list[list[float]]:
    """Returns the sums of SUMS that come from answers, a row for each of N predictions."""
    edits = nearest_edits(predictions, references)
    counts = bleu_counts(predictions, references)
    rows = []
    for errors, length, counted in zip(*edits, counts, strict=True):
        rows.append([float(value) for value in (errors, length, errors > 0, 1, *counted)])
    return rows


def nearest_edits(predictions: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> Edits:
    """Returns the edits of N predictions, each with one or several references."""
    from rapidfuzz.distance.Levenshtein import distance

    errors, lengths = list[int](), list[int]()
    for prediction, answers in zip(predictions, references, strict=True):
        fewest, minus_length = min(
            (distance(prediction, answer), -len(answer)) for answer in answers
        )
        errors.append(fewest)
        lengths.append(-minus_length)
    return Edits(errors, lengths)


def error_rate(predictions: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> float:
    """Returns edits per token of the nearest reference; for phones, the phoneme error rate."""
    return nearest_edits(predictions, references).error_rate


def word_error_rate(predictions: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> float:
    """Returns the share of predictions that equal none of their references.

    Where a source is a word, that is the word error rate.
    """
    return nearest_edits(predictions, references).word_error_rate


def bleu(predictions: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> float:
    """Returns corpus BLEU, 0 to 100, by sacrebleu (Papineni et al., 2002; Post, 2018).

    The tokens are counted as they are given.
    """
    rows = bleu_counts(predictions, references, PAIRS_AT_ONCE)
    return bleu_of([sum(column) for column in zip(*rows, strict=True)])


def bleu_counts(
    predictions: Sequence[Tokens], references: Sequence[Sequence[Tokens]], at_once: int = 1
) -> list[list[int]]:
    """Returns what BLEU counts, in a row for each `at_once` predictions.

    The sum of rows is the row of all their predictions. A row has the number of tokens of the
    predictions, that of the references nearest in length, the numbers of matched 1-, 2-, 3- and
    4-grams, and the numbers of all of them in the predictions.
    """
    # Tokens get numbers as names, because sacrebleu splits text at spaces and a token may hold one.
    # BLEU does not depend on the names.
    names: dict[Hashable, str] = {}

    def line(tokens: Tokens) -> str:
        return " ".join(names.setdefault(token, str(len(names))) for token in tokens)

    metric = _sacrebleu()
    most = max(map(len, references))
    pairs = list(zip(predictions, references, strict=True))
    counts = []
    for first in range(0, len(pairs), at_once):  # all lines at once would take megabytes
        part = pairs[first : first + at_once]
        rows = [[*map(line, answers), *[None] * (most - len(answers))] for _, answers in part]
        score = metric.corpus_score(
            [line(prediction) for prediction, _ in part], list(zip(*rows, strict=True))
        )
        counts.append([score.sys_len, score.ref_len, *score.counts, *score.totals])
    return counts


def bleu_of(counts: Sequence[float]) -> float:
    """Returns the BLEU of a row of `bleu_counts`, or of a sum of rows."""
    metric = _sacrebleu()
    order = metric.max_ngram_order
    predicted_length, reference_length, *grams = map(int, counts)  # sacrebleu takes no 3.0
    score = metric.compute_bleu(
        grams[:order],
        grams[order:],
        predicted_length,
        reference_length,
        metric.smooth_method,
        metric.smooth_value,
    )
    return float(score.score)


def bleu_signature(reference_counts: Iterable[int] = (1,)) -> str:
    """Returns sacrebleu's signature of `bleu`.

    It names the number of references, or "var" where the given counts differ.
    """
    metric = _sacrebleu()
    counts = {int(count) for count in reference_counts}
    metric.num_refs = counts.pop() if len(counts) == 1 else -1
    return str(metric.get_signature())


def _sacrebleu() -> Any:
    # Late, because sacrebleu takes longer to import than the rest of the package.
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(tokenize="none", force=True)
