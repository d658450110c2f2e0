"""Metrics of predicted sequences against one or several references each: error rates and BLEU.

Predictions and references are sequences of tokens, ids or strings, without special tokens. Where several metrics
count at once, `pareto` says which results nothing beats.
"""

from collections.abc import Hashable, Iterable, Sequence
from typing import Any, NamedTuple

from rapidfuzz.distance.Levenshtein import distance

Tokens = Sequence[Hashable]

LINES_AT_ONCE = 512


class Edits(NamedTuple):
    """What separates each of N predictions from its nearest reference, and that reference's length.

    errors counts edits: insertions, deletions and substitutions. Nearest is the reference that takes the fewest edits,
    the longest of several such.
    """

    errors: list[int]
    lengths: list[int]

    @property
    def error_rate(self) -> float:
        """Edits per reference token; where the references hold no token at all, the edits are divided by 1."""
        return sum(self.errors) / max(sum(self.lengths), 1)

    @property
    def word_error_rate(self) -> float:
        """The share of predictions that equal none of their references."""
        return sum(edits > 0 for edits in self.errors) / len(self.errors)


def nearest_edits(predictions: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> Edits:
    """The edits of N predictions, each with one or several references."""
    errors, lengths = list[int](), list[int]()
    for prediction, answers in zip(predictions, references, strict=True):
        fewest, minus_length = min(
            (distance(prediction, answer), -len(answer)) for answer in answers
        )
        errors.append(fewest)
        lengths.append(-minus_length)
    return Edits(errors, lengths)


def error_rate(predictions: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> float:
    """Edits to the nearest reference per token of it, over all predictions; with phones, the phoneme error rate."""
    return nearest_edits(predictions, references).error_rate


def word_error_rate(predictions: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> float:
    """The share of predictions that equal none of their references; the word error rate where a source is a word."""
    return nearest_edits(predictions, references).word_error_rate


def bleu(predictions: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> float:
    """Corpus BLEU, 0 to 100, over the tokens as they are, by sacrebleu (Papineni et al., 2002; Post, 2018)."""
    names: dict[
        Hashable, str
    ] = {}  # numbers for tokens, which may hold spaces; BLEU is indifferent to names

    def line(tokens: Tokens) -> str:
        return " ".join(names.setdefault(token, str(len(names))) for token in tokens)

    metric, most = _sacrebleu(), max(map(len, references))
    pairs = list(zip(predictions, references, strict=True))
    matched, counted = [0] * metric.max_ngram_order, [0] * metric.max_ngram_order
    predicted_length = reference_length = 0
    for first in range(0, len(pairs), LINES_AT_ONCE):  # all lines at once would take megabytes
        part = pairs[first : first + LINES_AT_ONCE]
        rows = [[*map(line, answers), *[None] * (most - len(answers))] for _, answers in part]
        score = metric.corpus_score(
            [line(prediction) for prediction, _ in part], list(zip(*rows, strict=True))
        )
        matched = [a + b for a, b in zip(matched, score.counts, strict=True)]
        counted = [a + b for a, b in zip(counted, score.totals, strict=True)]
        predicted_length += score.sys_len
        reference_length += score.ref_len
    whole = metric.compute_bleu(
        matched,
        counted,
        predicted_length,
        reference_length,
        metric.smooth_method,
        metric.smooth_value,
    )
    return float(whole.score)


def bleu_signature(reference_counts: Iterable[int] = (1,)) -> str:
    """sacrebleu's signature of `bleu`; it names the number of references, or "var" where the given counts differ."""
    metric = _sacrebleu()
    counts = {int(count) for count in reference_counts}
    metric.num_refs = counts.pop() if len(counts) == 1 else -1
    return str(metric.get_signature())


def _sacrebleu() -> Any:
    from sacrebleu.metrics.bleu import (
        BLEU,
    )  # imported late: it takes longer than the rest of the package

    return BLEU(tokenize="none", force=True)
