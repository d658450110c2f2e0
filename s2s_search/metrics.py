"""Metrics of predicted sequences against one or several references each: error rates and BLEU.

Predictions and references are sequences of tokens, ids or strings, without special tokens. Where several metrics
count at once, `pareto` says which results nothing beats.
"""

import math
from collections.abc import Hashable, Iterable, Sequence
from operator import le
from typing import Any

from rapidfuzz.distance.Levenshtein import distance

Tokens = Sequence[Hashable]


def error_rate(predictions: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> float:
    """Edits (insertions, deletions, substitutions) per reference token; with phones, the phoneme error rate.

    Each prediction counts against the reference that takes the fewest edits, the longest of several such. Where the
    references hold no token at all, the edits are divided by 1.
    """
    edits = tokens = 0
    for prediction, answers in zip(predictions, references, strict=True):
        fewest, minus_length = min((distance(prediction, answer), -len(answer)) for answer in answers)
        edits, tokens = edits + fewest, tokens - minus_length
    return edits / max(tokens, 1)


def word_error_rate(predictions: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> float:
    """The share of predictions that equal none of their references; the word error rate where a source is a word."""
    pairs = zip(predictions, references, strict=True)
    wrong = sum(all(list(prediction) != list(answer) for answer in answers) for prediction, answers in pairs)
    return wrong / len(predictions)


def bleu(predictions: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> float:
    """Corpus BLEU, 0 to 100, over the tokens as they are, by sacrebleu (Papineni et al., 2002; Post, 2018)."""
    names: dict[Hashable, str] = {}  # numbers for tokens, which may hold spaces; BLEU is indifferent to names

    def line(tokens: Tokens) -> str:
        return " ".join(names.setdefault(token, str(len(names))) for token in tokens)

    most = max(map(len, references))
    hypotheses, rows = [], []
    for prediction, answers in zip(predictions, references, strict=True):
        hypotheses.append(line(prediction))
        rows.append([*map(line, answers), *[None] * (most - len(answers))])
    score = _sacrebleu().corpus_score(hypotheses, list(zip(*rows, strict=True)))
    return float(score.score)


def bleu_signature(reference_counts: Iterable[int] = (1,)) -> str:
    """sacrebleu's signature of `bleu`; it names the number of references, or "var" where the given counts differ."""
    metric = _sacrebleu()
    counts = {int(count) for count in reference_counts}
    metric.num_refs = counts.pop() if len(counts) == 1 else -1
    return str(metric.get_signature())


def pareto(values: Sequence[Sequence[float | None]], goals: Sequence[str]) -> list[bool]:
    """Tells for each row whether it is on the Pareto front: no other is as good everywhere and better somewhere.

    A row has a number for each of the goals, "minimize" or "maximize". One with None or NaN or an infinity is never on
    the front.
    """
    signs = [1 if goal == "minimize" else -1 for goal in goals]
    costs: dict[int, tuple[float, ...]] = {}
    for index, row in enumerate(values):
        finite = [value for value in row if value is not None and math.isfinite(value)]
        if len(finite) == len(row):
            costs[index] = tuple(sign * value for sign, value in zip(signs, finite, strict=True))
    front: list[tuple[float, ...]] = []
    for cost in sorted(set(costs.values())):  # what beats a row comes before it
        if not any(all(map(le, other, cost)) for other in front):
            front.append(cost)
    return [costs.get(index) in front for index in range(len(values))]


def _sacrebleu() -> Any:
    from sacrebleu.metrics.bleu import BLEU  # imported late: it takes longer than the rest of the package

    return BLEU(tokenize="none", force=True)
