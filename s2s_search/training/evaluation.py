"""Evaluation: the metrics of a model on a split, and its answers."""

import math
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from s2s_search import metrics
from s2s_search.corpus.batches import Batch, Indices, evaluation_batches, make_batch, moved
from s2s_search.corpus.corpus import Corpus, Split
from s2s_search.corpus.cuts import MOST_CELLS, Cells, cut_at_cells
from s2s_search.hparams.configuration import Hparams
from s2s_search.nn.ensembles import AnyEncoding, AnyModel, mean_attention, predictor
from s2s_search.nn.generate import Hypotheses, beam_search_from, greedy_from
from s2s_search.nn.stepping import selected
from s2s_search.runs.answers import Example
from s2s_search.training.footprint import row_cells
from s2s_search.training.loss import target_mask

UNMATCHED = -1  # an id that no model answers
EXAMPLES = 8  # number of dev sources whose answers are kept in full
MAP_CELLS = 2**16  # numbers in the largest attention map that is kept; nobody can read a larger one


def evaluate(model: AnyModel, split: Split, corpus: Corpus, hparams: Hparams) -> dict[str, float]:
    """Returns the dev.* metrics of a split, or of a sample of `train.eval_examples` sources.

    The sample is the same for every trial.

    Loss, perplexity and accuracy count every target. For error rates and BLEU every source is
    decoded once and compared with the best of its references.
    """
    return evaluation(model, split, corpus, hparams)[0]


@torch.no_grad()
def evaluation(
    model: AnyModel, split: Split, corpus: Corpus, hparams: Hparams
) -> tuple[dict[str, float], metrics.Edits]:
    """Returns the metrics, and the edits of each decoded source in the split's order."""
    device = next(model.parameters()).device
    sums = torch.zeros(3, dtype=torch.float64, device=device)  # loss, correct tokens, tokens
    decoded: dict[int, list[int]] = {}  # group of pairs with the same source -> answer
    for evaluated in evaluated_batches(model, split, corpus, hparams):
        sums += evaluated.scores.sums()
        decoded |= evaluated.answers
    predictions = [decoded[group] for group in sorted(decoded)]
    unk = corpus.target_vocab.unk
    references = [comparable_targets(split, group, unk) for group in sorted(decoded)]
    edits = metrics.nearest_edits(predictions, references)
    wrong = sum(errors > 0 for errors in edits.errors)
    of_answers = [sum(edits.errors), sum(edits.lengths), wrong, len(predictions)]
    counts = metrics.bleu_counts(predictions, references, metrics.PAIRS_AT_ONCE)
    of_bleu = [sum(column) for column in zip(*counts, strict=True)]
    return metrics.metrics_of([*sums.tolist(), *of_answers, *of_bleu]), edits


@torch.no_grad()
def source_sums(
    model: AnyModel,
    split: Split,
    corpus: Corpus,
    hparams: Hparams,
    part: int = 0,
    parts: int = 1,
    cells: Cells | None = None,
) -> npt.NDArray[np.float64]:
    """Returns what each source of a split adds to the sums of `metrics.SUMS`.

    Args:
        model: the model.
        split: the pairs, in G groups of one source with all its references.
        corpus: the corpus, for its vocabularies.
        hparams: the hyperparameters of the model, with those of decoding.
        cells: the numbers of a row in the largest tensor; None: by the hyperparameters.
        part: the number of the part that is evaluated, from 0.
        parts: the number of parts. A part has every `parts`-th batch, and the sums of all parts
            add up to those of the split.

    Returns:
        The sums [G, len(SUMS)]. What another part evaluates is 0.
    """
    groups = np.repeat(np.arange(len(split.groups) - 1), np.diff(split.groups))
    sums = np.zeros((len(split.groups) - 1, len(metrics.SUMS)))
    decoded: dict[int, list[int]] = {}
    for evaluated in evaluated_batches(model, split, corpus, hparams, part, parts, cells):
        rows = evaluated.scores.rows().cpu().numpy()
        np.add.at(sums[:, : rows.shape[1]], groups[evaluated.pairs], rows)
        decoded |= evaluated.answers
    if decoded:
        unk = corpus.target_vocab.unk
        references = [comparable_targets(split, group, unk) for group in decoded]
        of_answers = metrics.answer_sums(list(decoded.values()), references)
        sums[list(decoded), -len(of_answers[0]) :] = of_answers
    return sums


class TargetScores(NamedTuple):
    """How well a model predicts the targets of a batch, token by token, [B, T]."""

    losses: Tensor  # in nats; 0 after the end of a target
    correct: Tensor  # False after the end of a target
    counted: Tensor  # False after the end of a target

    def sums(self) -> Tensor:
        """Returns the loss, the number of correct tokens and the number of tokens, float64 [3]."""
        return torch.stack(
            [self.losses.sum(dtype=torch.float64), self.correct.sum(), self.counted.sum()]
        )

    def rows(self) -> Tensor:
        """Returns the sums of each row, float64 [B, 3]."""
        return torch.stack([each.sum(1, dtype=torch.float64) for each in self], dim=1)


class EvaluatedBatch(NamedTuple):
    """A batch of a split after its evaluation."""

    pairs: Indices  # the pairs of the batch, [B]
    scores: TargetScores
    answers: dict[int, list[int]]  # to the sources whose first pair is in the batch, by group


def evaluated_batches(
    model: AnyModel,
    split: Split,
    corpus: Corpus,
    hparams: Hparams,
    part: int = 0,
    parts: int = 1,
    cells: Cells | None = None,
) -> Iterator[EvaluatedBatch]:
    """Yields the batches of a split, or every `parts`-th of them from number `part` on, evaluated.

    The split is cut to `train.eval_examples` sources.
    """
    model.eval()
    device = next(model.parameters()).device
    first_pairs = {int(pair): group for group, pair in enumerate(split.groups[:-1])}
    batches = evaluation_batches(
        split,
        corpus.source_vocab,
        corpus.target_vocab,
        hparams["train.eval_batch_size"],
        hparams["train.eval_examples"],
        cells or row_cells(hparams, len(corpus.target_vocab)),
    )
    for batch, pairs in islice(batches, part, None, parts):
        rows = [row for row, pair in enumerate(pairs) if int(pair) in first_pairs]
        scores, answered = evaluate_batch(model, batch.to(device), hparams, rows)
        groups = [first_pairs[int(pairs[row])] for row in rows]
        yield EvaluatedBatch(pairs, scores, dict(zip(groups, answered, strict=True)))


def evaluate_batch(
    model: AnyModel, batch: Batch, hparams: Hparams, rows: Sequence[int]
) -> tuple[TargetScores, list[list[int]]]:
    """Returns the scores of the targets of a batch, and the answers to the sources of `rows`."""
    encoding = model.encode(batch.source_ids, batch.source_lengths)
    scores = target_scores(model, encoding, batch)
    if not rows:
        return scores, []
    chosen = selected(encoding, moved(torch.tensor(rows), scores.losses.device))
    return scores, answers(model, chosen, hparams)


def target_scores(model: AnyModel, encoding: AnyEncoding, batch: Batch) -> TargetScores:
    """Returns the scores of the targets of a batch.

    Logits are computed for a slice of steps at a time, with at most MOST_CELLS numbers.
    """
    predict = predictor(model, encoding, batch.target_ids, batch.target_lengths)
    targets, ended = batch.target_ids[:, 1:], ~target_mask(batch)
    dtype = next(model.parameters()).dtype
    losses, correct = torch.zeros_like(targets, dtype=dtype), torch.zeros_like(ended)
    steps = max(1, MOST_CELLS // (len(targets) * model.target_size))
    for first in range(0, targets.shape[1], steps):
        part = slice(first, first + steps)
        logits = predict(part)
        correct[:, part] = logits.argmax(-1) == targets[:, part]
        loss = F.cross_entropy(logits.flatten(0, 1), targets[:, part].flatten(), reduction="none")
        losses[:, part] = loss.view_as(targets[:, part])
    losses.masked_fill_(ended, 0.0)  # outputs past a row's end are not defined
    correct.masked_fill_(ended, False)
    return TargetScores(losses, correct, ~ended)


def group_targets(split: Split, group: int) -> list[list[int]]:
    """Returns all references of one source, as lists of target ids."""
    return [
        split.target(pair).tolist()
        for pair in range(int(split.groups[group]), int(split.groups[group + 1]))
    ]


def comparable_targets(split: Split, group: int, unk: int) -> list[list[int]]:
    """Returns the references of one source as error rates and BLEU compare them.

    An unknown token becomes UNMATCHED, which no answer equals: an answered UNK is an error.
    """
    targets = group_targets(split, group)
    return [[UNMATCHED if token == unk else token for token in target] for target in targets]


@torch.no_grad()
def examples(model: AnyModel, split: Split, corpus: Corpus, hparams: Hparams) -> list[Example]:
    """Returns a model's answers to EXAMPLES sources of a split, with attention.

    The sources are spread evenly over the split and are the same for all hyperparameters. `decode`
    would give the same answers. The attention weights are computed when the decoder reads its own
    answer: they are the weights that led to it, in greedy decoding and in beam search.
    """
    model.eval()
    device = next(model.parameters()).device
    groups = len(split.groups) - 1
    chosen = sorted({k * groups // EXAMPLES for k in range(EXAMPLES)})
    pairs = split.groups[chosen]
    sources = (split.source_offsets[pairs + 1] - split.source_offsets[pairs] + 1).tolist()
    longest = [hparams["inference.max_decode_length"] + 1] * len(pairs)
    answered: list[list[int]] = []
    maps: list[list[list[float]] | None] = []
    for part in cut_at_cells(sources, longest, row_cells(hparams, len(corpus.target_vocab))):
        batch = make_batch(split, pairs[part], corpus.source_vocab, corpus.target_vocab).to(device)
        encoding = model.encode(batch.source_ids, batch.source_lengths)
        answered += answers(model, encoding, hparams)
        maps += attention_maps(model, encoding, answered[part])
    kept: list[Example] = []
    for group, answer, attention in zip(chosen, answered, maps, strict=True):
        source = corpus.source_vocab.decode(split.source(int(split.groups[group])))
        targets = [corpus.target_vocab.decode(target) for target in group_targets(split, group)]
        kept.append(Example(source, targets, corpus.target_vocab.decode(answer), attention))
    return kept


def attention_maps(
    model: AnyModel, encoding: AnyEncoding, target_rows: list[list[int]]
) -> Sequence[list[list[float]] | None]:
    """Returns the attention weights of each encoded source with given target ids.

    A map has a row for each target id and END, and a column for each source id and END; its
    numbers are rounded to four decimals. It is None without attention, and where it would have more
    than MAP_CELLS numbers.
    """
    maps: list[list[list[float]] | None] = []
    for weights in attention_weights(model, encoding, target_rows):
        if weights is None or weights.numel() > MAP_CELLS:
            maps.append(None)
        else:
            maps.append(weights.double().round(decimals=4).tolist())
    return maps


def attention_weights(
    model: AnyModel, encoding: AnyEncoding, target_rows: Sequence[Sequence[int]]
) -> Sequence[Tensor | None]:
    """Returns the attention weights [T + 1, S + 1] of each encoded source with given target ids.

    The T target ids are without START and END. The last row and the last column are those of END.
    The weights are in the order of the given source. They are None without attention.
    """
    ids = [torch.tensor([model.start_id, *row, model.end_id]) for row in target_rows]
    source_lengths = encoding.lengths
    target_lengths = source_lengths.new_tensor([len(row) for row in ids])
    padded = pad_sequence(ids, batch_first=True).to(source_lengths.device)
    weights = mean_attention(model, encoding, padded, target_lengths)
    if weights is None:
        return [None] * len(ids)
    cut: list[Tensor | None] = []
    for each, rows, columns in zip(
        weights, (target_lengths - 1).tolist(), source_lengths.tolist(), strict=True
    ):
        cut.append(each[:rows, :columns])
    return cut


@torch.no_grad()
def decode(
    model: AnyModel, source_ids: Tensor, source_lengths: Tensor, hparams: Hparams
) -> list[list[int]]:
    """Returns the best target ids of each source, without END.

    Decoding is greedy, or by beam search if `inference.beam_search.beam_width` exceeds 1.
    """
    return answers(model, model.encode(source_ids, source_lengths), hparams)


def answers(model: AnyModel, encoding: AnyEncoding, hparams: Hparams) -> list[list[int]]:
    """Returns what `decode` returns, for encoded sources."""
    if hparams["inference.beam_search.beam_width"] > 1:
        beam = beam_of(model, encoding, hparams)
        ids, lengths = beam.ids[:, 0], beam.lengths[:, 0]
    else:
        ids, lengths, *_ = greedy_from(model, encoding, hparams["inference.max_decode_length"])
    rows = zip(ids.tolist(), lengths.tolist(), strict=True)
    return [without_end(row[:length], model.end_id) for row, length in rows]


class Hypothesis(NamedTuple):
    """An answer in ids, without END, and its score: that of `beam_search`."""

    ids: list[int]
    score: float


def hypotheses(model: AnyModel, encoding: AnyEncoding, hparams: Hparams) -> list[list[Hypothesis]]:
    """Returns the hypotheses of each encoded source, by beam search, the best first.

    They are as many as the beam is wide. There are fewer where a short decoding with a small
    vocabulary has fewer answers.
    """
    beam = beam_of(model, encoding, hparams)
    found = []
    for rows, lengths, scores in zip(*(tensor.tolist() for tensor in beam), strict=True):
        of_source: list[Hypothesis] = []
        for row, length, score in zip(rows, lengths, scores, strict=True):
            # Of a model whose weights are not finite, the best is kept all the same.
            if score > -math.inf or not of_source:
                of_source.append(Hypothesis(without_end(row[:length], model.end_id), score))
        found.append(of_source)
    return found


def beam_of(model: AnyModel, encoding: AnyEncoding, hparams: Hparams) -> Hypotheses:
    """Returns the result of beam search with the `inference.*` settings."""
    return beam_search_from(
        model,
        encoding,
        hparams["inference.max_decode_length"],
        hparams["inference.beam_search.beam_width"],
        hparams["inference.beam_search.length_penalty_weight"],
    )


def without_end(ids: list[int], end_id: int) -> list[int]:
    return ids[:-1] if ids and ids[-1] == end_id else ids
