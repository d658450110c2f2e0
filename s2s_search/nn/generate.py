"""Decoding without a target: greedy and beam search over the step of any decoder.

B batch · T steps taken · S source positions · K beam width · V vocabulary
"""

from typing import NamedTuple

import torch
from torch import Tensor

from s2s_search.nn.models import Seq2Seq
from s2s_search.nn.stepping import make_stepper


class Generated(NamedTuple):
    """Target ids [B, T], END included and 0 after it; lengths [B], END included; what greedy decoding saw on the way.

    logits [B, T, V] (None unless asked for) and weights [B, T, S] (None without attention) are zero after a row's END.
    Weights are in the order of the given source.
    """

    ids: Tensor
    lengths: Tensor
    logits: Tensor | None = None
    weights: Tensor | None = None


class Hypotheses(NamedTuple):
    """The beam of each source, best first: ids [B, K, T], END included and 0 after it; lengths and scores [B, K]."""

    ids: Tensor
    lengths: Tensor
    scores: Tensor


@torch.no_grad()
def greedy(
    model: Seq2Seq, source_ids: Tensor, source_lengths: Tensor, max_length: int, keep_logits: bool = False
) -> Generated:
    """Takes the likeliest token at every step, up to END or `max_length`, for source_ids [B, S] of lengths [B]."""
    stepper = make_stepper(model, model.encode(source_ids, source_lengths), beams=1)
    state = stepper.start()
    ids = torch.full_like(source_lengths, model.start_id)
    rows = torch.arange(len(ids), device=ids.device)  # those that are still decoded
    live = torch.ones_like(ids, dtype=torch.bool)
    lengths = torch.zeros_like(ids)
    steps: list[tuple[Tensor, ...]] = []
    for _ in range(max_length):
        logits, state, weights = stepper.step(ids, state)
        ids = logits.argmax(dim=-1)
        seen = [ids * live, *([logits * live.unsqueeze(1)] if keep_logits else [])]
        seen += [] if weights is None else [weights * live.unsqueeze(1)]
        steps.append(tuple(spread(tensor, rows, len(lengths)) for tensor in seen))
        lengths[rows] += live
        live = live & (ids != model.end_id)
        left = int(live.sum())
        if left == 0:
            break
        if left <= len(rows) // 2:
            stay = live.nonzero().squeeze(1)
            stepper, rows, ids, live = stepper.select(stay), rows[stay], ids[stay], live[stay]
            state = tuple(tensor[stay] for tensor in state)
    all_ids, *others = (torch.stack(column, dim=1) for column in zip(*steps, strict=True))
    all_logits = others.pop(0) if keep_logits else None
    all_weights = model.source_order(others[0], source_lengths) if others else None
    return Generated(all_ids, lengths, all_logits, all_weights)


def spread(values: Tensor, rows: Tensor, count: int) -> Tensor:
    """Values [n, ...] of some of `count` rows, with zeros for the others."""
    if len(rows) == count:
        return values
    return values.new_zeros(count, *values.shape[1:]).index_copy(0, rows, values)


@torch.no_grad()
def beam_search(
    model: Seq2Seq,
    source_ids: Tensor,
    source_lengths: Tensor,
    max_length: int,
    beam_width: int,
    length_penalty_weight: float = 0.0,
) -> Hypotheses:
    """Keeps the `beam_width` best hypotheses at every step, for source_ids [B, S] of lengths [B].

    score = log p / ((5 + length) / 6) ** length_penalty_weight, where the length does not count END (Wu et al., 2016;
    the original's beam search). A finished hypothesis keeps its score.
    """
    batch, k = len(source_ids), beam_width
    stepper = make_stepper(model, model.encode(source_ids, source_lengths), beams=k)
    state = stepper.start()
    ids = source_ids.new_full((batch, k, 1), model.start_id)
    lengths = torch.zeros_like(ids[..., 0])
    finished = torch.zeros_like(lengths, dtype=torch.bool)
    log_probs = scores = torch.where(torch.arange(k, device=ids.device) == 0, 0.0, -torch.inf).expand(batch, k)
    sources = torch.arange(batch, device=ids.device).unsqueeze(1)
    for _ in range(max_length):
        logits, state, _ = stepper.step(ids[..., -1].flatten(), state)
        step = torch.log_softmax(logits, dim=-1).view(batch, k, -1)
        vocabulary = step.shape[-1]
        is_end = torch.arange(vocabulary, device=ids.device) == model.end_id
        step = torch.where(finished.unsqueeze(-1), torch.where(is_end, 0.0, -torch.inf), step)
        total = log_probs.unsqueeze(-1) + step
        longer = lengths.unsqueeze(-1) + (~finished.unsqueeze(-1) & ~is_end)
        score = total / ((5.0 + longer) / 6.0) ** length_penalty_weight if length_penalty_weight else total
        scores, best = score.flatten(1).topk(k)
        parent, token = best // vocabulary, best % vocabulary
        log_probs = total.flatten(1).gather(1, best)
        lengths = longer.flatten(1).gather(1, best)
        finished = finished.gather(1, parent) | (token == model.end_id)
        ids = torch.cat([ids.gather(1, parent.unsqueeze(-1).expand_as(ids)), token.unsqueeze(-1)], dim=-1)
        rows = (parent + k * sources).flatten()
        state = tuple(tensor.index_select(0, rows) for tensor in state)
        if finished.all():
            break
    ids, lengths = ids[:, :, 1:], lengths + finished
    past = torch.arange(ids.shape[-1], device=ids.device) >= lengths.unsqueeze(-1)
    return Hypotheses(ids.masked_fill(past, 0), lengths, scores)
