"""Decoding without a target: greedy and beam search over the step of any decoder.

B batch · T decoded steps · S source positions · K beam width · V target vocabulary
"""

from typing import NamedTuple

import torch
from torch import Tensor

from s2s_search.nn.ensembles import AnyEncoding, AnyModel
from s2s_search.nn.fast.greedy_loop import greedy_ids
from s2s_search.nn.models import Encoding, Seq2Seq
from s2s_search.nn.stacks import positions_within
from s2s_search.nn.stepping import make_stepper

# The share of live rows in the batch at which rows that have ended are removed. Copying the others
# takes time too.
SHARE_LEFT = 0.65
# The number of steps between two looks for ended rows on a GPU, where each look waits for the
# device.
TOKENS_BETWEEN_LOOKS = 8


class Generated(NamedTuple):
    """The result of greedy decoding.

    The ids [B, T] include END and are 0 after it; the lengths [B] include END. The logits [B, T, V]
    and the attention weights [B, T, S] are None unless asked for, and zero after a row's END. The
    weights are in the order of the given source. They are None without attention and for an
    ensemble, whose logits are log probabilities.
    """

    ids: Tensor
    lengths: Tensor
    logits: Tensor | None = None
    weights: Tensor | None = None


class Hypotheses(NamedTuple):
    """The hypotheses of each source, best first.

    The ids [B, K, T] include END and are 0 after it; the lengths [B, K] include END. The scores
    [B, K] are those of `beam_search`.
    """

    ids: Tensor
    lengths: Tensor
    scores: Tensor


@torch.no_grad()
def greedy(
    model: AnyModel,
    source_ids: Tensor,
    source_lengths: Tensor,
    max_length: int,
    keep_logits: bool = False,
) -> Generated:
    """Decodes with the most probable token at every step, up to END or `max_length` tokens.

    Args:
        model: The model, or an ensemble.
        source_ids: [B, S].
        source_lengths: [B].
        max_length: The largest number of tokens, END included.
        keep_logits: True to return logits and attention weights too.
    """
    return greedy_from(model, model.encode(source_ids, source_lengths), max_length, keep_logits)


@torch.no_grad()
def greedy_from(
    model: AnyModel, encoding: AnyEncoding, max_length: int, keep_logits: bool = False
) -> Generated:
    """Returns what `greedy` returns, for encoded sources."""
    if not keep_logits and isinstance(model, Seq2Seq) and isinstance(encoding, Encoding):
        compiled = greedy_ids(model, encoding, max_length)
        if compiled is not None:
            return Generated(*cut_at_end(compiled, model.end_id))
    source_lengths = encoding.lengths
    stepper = make_stepper(model, encoding, beams=1)
    state = stepper.start()
    ids = torch.full_like(source_lengths, model.start_id)
    rows = torch.arange(len(ids), device=ids.device)  # indices of the rows still in the batch
    ended = torch.zeros_like(ids, dtype=torch.bool)
    all_ids = ids.new_zeros(len(ids), max_length)
    seen: list[tuple[Tensor, ...]] = []
    looks = looked_at(max_length, ids.device)
    for t in range(max_length):
        logits, state, weights = stepper.step(ids, state)
        ids = logits.argmax(dim=-1)
        all_ids[rows, t] = ids
        if keep_logits:
            found = [logits] if weights is None else [logits, weights]
            seen.append(tuple(scatter_rows(x, rows, len(all_ids)) for x in found))
        ended |= ids == model.end_id
        if t in looks:
            left = len(rows) - int(ended.sum())
            if left == 0:
                break
            if left <= SHARE_LEFT * len(rows):
                stay = (~ended).nonzero().squeeze(1)
                stepper = stepper.select(stay)
                rows, ids, ended = rows[stay], ids[stay], ended[stay]
                state = tuple(tensor[stay] for tensor in state)
    all_ids, lengths = cut_at_end(all_ids, model.end_id)
    steps = all_ids.shape[1]
    past = ~positions_within(lengths, steps).unsqueeze(-1)
    kept = [
        torch.stack(column, dim=1)[:, :steps].masked_fill(past, 0.0)
        for column in zip(*seen, strict=True)
    ]
    weights = None
    if len(kept) > 1 and isinstance(model, Seq2Seq):
        weights = model.source_order(kept[1], source_lengths)
    return Generated(all_ids, lengths, kept[0] if kept else None, weights)


def looked_at(steps: int, device: torch.device) -> range:
    """Returns the steps after which decoding looks for rows that have ended."""
    every = 1 if device.type == "cpu" else TOKENS_BETWEEN_LOOKS
    return range(every - 1, steps, every)


def scatter_rows(values: Tensor, rows: Tensor, count: int) -> Tensor:
    """Returns a tensor [count, ...] with values [n, ...] at the indices `rows` [n], else zeros."""
    if len(rows) == count:
        return values
    return values.new_zeros(count, *values.shape[1:]).index_copy(0, rows, values)


def cut_at_end(ids: Tensor, end_id: int) -> tuple[Tensor, Tensor]:
    """Returns ids [..., T] that are 0 after the first END, and the lengths [...] with END.

    T is the length of the longest row.
    """
    is_end = ids == end_id
    within = is_end.cumsum(-1) - is_end.long() == 0
    lengths = within.sum(-1)
    return (ids * within)[..., : int(lengths.max())], lengths


@torch.no_grad()
def beam_search(
    model: AnyModel,
    source_ids: Tensor,
    source_lengths: Tensor,
    max_length: int,
    beam_width: int,
    length_penalty_weight: float = 0.0,
) -> Hypotheses:
    """Decodes with the `beam_width` best hypotheses at every step.

    score = log p / ((5 + length) / 6) ** length_penalty_weight (Wu et al., 2016). As in the
    original, the length does not count END, and a finished hypothesis keeps its score.

    Args:
        model: The model, or an ensemble.
        source_ids: [B, S].
        source_lengths: [B].
        max_length: The largest number of tokens, END included.
        beam_width: The number of hypotheses of each source.
        length_penalty_weight: 0 for log p as the score.
    """
    encoding = model.encode(source_ids, source_lengths)
    return beam_search_from(model, encoding, max_length, beam_width, length_penalty_weight)


@torch.no_grad()
def beam_search_from(
    model: AnyModel,
    encoding: AnyEncoding,
    max_length: int,
    beam_width: int,
    length_penalty_weight: float = 0.0,
) -> Hypotheses:
    """Returns what `beam_search` returns, for encoded sources."""
    source_lengths, k = encoding.lengths, beam_width
    batch, device = len(source_lengths), source_lengths.device
    stepper = make_stepper(model, encoding, beams=k)
    state = stepper.start()
    ids = source_lengths.new_full((batch * k,), model.start_id)
    is_end = torch.arange(model.target_size, device=device) == model.end_id
    only_end = torch.where(is_end, 0.0, -torch.inf)  # a finished hypothesis adds END at no cost
    beam = torch.arange(k, device=device)
    lengths = source_lengths.new_zeros(batch, k)
    finished = torch.zeros_like(lengths, dtype=torch.bool)
    # All hypotheses begin alike, so the first step may continue one of them only.
    log_probs = torch.where(beam == 0, 0.0, -torch.inf).expand(batch, k)
    sources = torch.arange(batch, device=device)  # indices of the sources still in the batch
    parents, tokens = beam.repeat(max_length, batch, 1), lengths.new_zeros(max_length, batch, k)
    scores = torch.zeros_like(lengths, dtype=state[0].dtype)
    looks = looked_at(max_length, device)
    for t in range(max_length):
        logits, state, _ = stepper.step(ids, state)
        step = torch.log_softmax(logits, dim=-1).view(len(sources), k, -1)
        step = torch.where(finished.unsqueeze(-1), only_end, step)
        total = step.add_(log_probs.unsqueeze(-1)).flatten(1)
        if length_penalty_weight:
            penalty = ((5.0 + (lengths.unsqueeze(-1) + ~is_end)) / 6.0) ** length_penalty_weight
            scores[sources], best = (total / penalty.flatten(1)).topk(k)
            log_probs = total.gather(1, best)
        else:
            log_probs, best = total.topk(k)
            scores[sources] = log_probs
        parent, token = best // len(is_end), best % len(is_end)
        parents[t, sources], tokens[t, sources] = parent, token
        finished = finished.gather(1, parent) | (token == model.end_id)
        lengths = lengths.gather(1, parent) + ~finished
        rows = parent + k * torch.arange(len(sources), device=device).unsqueeze(1)
        if t in looks:
            live = ~finished.all(dim=1)
            left = int(live.sum())
            if left == 0:
                break
            if left <= SHARE_LEFT * len(live):
                stay = live.nonzero().squeeze(1)
                stepper = stepper.select(stay)
                sources, rows, token = sources[stay], rows[stay], token[stay]
                log_probs, finished, lengths = log_probs[stay], finished[stay], lengths[stay]
        ids = token.flatten()
        state = tuple(tensor.index_select(0, rows.flatten()) for tensor in state)
    all_ids, all_lengths = cut_at_end(traced(parents[: t + 1], tokens[: t + 1]), model.end_id)
    return Hypotheses(all_ids, all_lengths, scores)


def traced(parents: Tensor, tokens: Tensor) -> Tensor:
    """Returns the ids [B, K, T] of the last hypotheses.

    `tokens` [T, B, K] are the tokens of each step, and `parents` [T, B, K] the indices of the
    hypotheses that they continue.
    """
    at = torch.arange(tokens.shape[2], device=tokens.device).expand(tokens.shape[1:])
    ids = []
    for parent, token in zip(reversed(parents.unbind()), reversed(tokens.unbind()), strict=True):
        ids.append(token.gather(1, at))
        at = parent.gather(1, at)
    return torch.stack(ids[::-1], dim=-1)
