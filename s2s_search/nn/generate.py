"""Decoding without a target: greedy and beam search over the step of any decoder.

B batch · T steps taken · S source positions · K beam width · V vocabulary
"""

from typing import NamedTuple

import torch
from torch import Tensor

from s2s_search.nn.attention import Memory
from s2s_search.nn.encoders import EncoderOutput
from s2s_search.nn.models import Encoding, Seq2Seq


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
    encoding = model.encode(source_ids, source_lengths)
    state = model.decoder.start(encoding.state, encoding.memory)
    ids = torch.full_like(source_lengths, model.start_id)
    live = torch.ones_like(ids, dtype=torch.bool)
    steps: list[tuple[Tensor, Tensor | None, Tensor | None]] = []
    lengths = torch.zeros_like(ids)
    for _ in range(max_length):
        logits, state, weights = model.decoder.step(model.decoder_input(ids, encoding.extra), state, encoding.memory)
        ids = logits.argmax(dim=-1) * live
        row = live.unsqueeze(1)
        steps.append((ids, logits * row if keep_logits else None, None if weights is None else weights * row))
        lengths = lengths + live
        live = live & (ids != model.end_id)
        if not live.any():
            break
    all_ids, all_logits, all_weights = (stacked(column) for column in zip(*steps, strict=True))
    assert all_ids is not None
    if all_weights is not None:
        all_weights = model.source_order(all_weights, source_lengths)
    return Generated(all_ids, lengths, all_logits, all_weights)


def stacked(column: tuple[Tensor | None, ...]) -> Tensor | None:
    tensors = [tensor for tensor in column if tensor is not None]
    return torch.stack(tensors, dim=1) if tensors else None


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
    encoding = repeated(model.encode(source_ids, source_lengths), k)
    state = model.decoder.start(encoding.state, encoding.memory)
    first = torch.arange(k, device=source_ids.device) == 0
    log_probs = (
        torch.zeros_like(encoding.encoder_output.outputs[:, 0, 0]).view(batch, k).masked_fill(~first, -torch.inf)
    )
    finished = torch.zeros_like(log_probs, dtype=torch.bool)
    lengths = torch.zeros_like(log_probs, dtype=torch.long)
    ids = lengths.new_full((batch, k, 1), model.start_id)
    scores = log_probs
    for _ in range(max_length):
        x = model.decoder_input(ids[:, :, -1].flatten(), encoding.extra)
        logits, state, _ = model.decoder.step(x, state, encoding.memory)
        step = torch.log_softmax(logits, dim=-1).view(batch, k, -1)
        vocabulary = step.shape[-1]
        is_end = torch.arange(vocabulary, device=step.device) == model.end_id
        only_end = torch.zeros_like(step[0, 0]).masked_fill(~is_end, -torch.inf)
        total = log_probs.unsqueeze(-1) + torch.where(finished.unsqueeze(-1), only_end, step)
        longer = lengths.unsqueeze(-1) + (~finished.unsqueeze(-1) & ~is_end)
        penalty = ((5.0 + longer) / 6.0) ** length_penalty_weight
        scores, best = (total / penalty).flatten(1).topk(k)
        parent, token = best // vocabulary, best % vocabulary
        log_probs = total.flatten(1).gather(1, best)
        lengths = longer.flatten(1).gather(1, best)
        was_finished = finished.gather(1, parent)
        finished = was_finished | (token == model.end_id)
        ids = torch.cat([ids.gather(1, parent.unsqueeze(-1).expand_as(ids)), token.unsqueeze(-1)], dim=-1)
        rows = (parent + k * torch.arange(batch, device=parent.device).unsqueeze(1)).flatten()
        state = tuple(tensor[rows] for tensor in state)
        if finished.all():
            break
    ids = ids[:, :, 1:]
    lengths = lengths + finished
    past = torch.arange(ids.shape[-1], device=ids.device) >= lengths.unsqueeze(-1)
    return Hypotheses(ids.masked_fill(past, 0), lengths, scores)


def repeated(encoding: Encoding, times: int) -> Encoding:
    """The encoding with each row `times` times in a row."""

    def each(tensor: Tensor) -> Tensor:
        return tensor.repeat_interleave(times, dim=0)

    outputs, final_state, lengths = encoding.encoder_output
    return Encoding(
        EncoderOutput(each(outputs), tuple(map(each, final_state)), each(lengths)),
        tuple(map(each, encoding.state)),
        None if encoding.extra is None else each(encoding.extra),
        None if encoding.memory is None else Memory(*map(each, encoding.memory)),
    )
