"""The loss over a decoder's outputs, with a written-out gradient.

It keeps one tensor of the size of the logits, where autograd would keep several.

N target positions · H cell output units · M memory units · V vocabulary
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from s2s_search.nn.fast.matmul import addmm, mm


def cross_entropy(
    targets: Tensor,
    live: Tensor,
    outputs: Tensor,
    contexts: Tensor | None,
    mix: nn.Linear | None,
    logits: nn.Linear,
    smoothing: float = 0.0,
) -> Tensor:
    """Returns the cross-entropy in nats, summed over the live positions, a scalar.

    With attention -log softmax(logits(tanh(mix([y, context]))))[target], without attention
    -log softmax(logits(y))[target]. Label smoothing mixes this, as 1 - smoothing to smoothing, with
    the mean of -log softmax over the vocabulary.

    Args:
        targets: The target ids [N].
        live: [N], 1 or True where a position counts.
        outputs: The cell's outputs y [N, H].
        contexts: The contexts [N, M] of attention, or None.
        mix: The layer over outputs and contexts, or None without attention.
        logits: The layer that makes the logits [N, V].
        smoothing: The share of label smoothing.
    """
    of_attention: list[Tensor] = []
    if contexts is not None and mix is not None:
        of_attention = [contexts, mix.weight, mix.bias]
    result: Tensor = CrossEntropy.apply(  # type: ignore[no-untyped-call]
        targets, live, smoothing, logits.weight, logits.bias, outputs, *of_attention
    )
    return result


class CrossEntropy(torch.autograd.Function):
    """`cross_entropy` with its gradient: `forward` replaces the logits by their gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        targets: Tensor,
        live: Tensor,
        smoothing: float,
        weight: Tensor,
        bias: Tensor,
        outputs: Tensor,
        contexts: Tensor | None = None,
        mix_weight: Tensor | None = None,
        mix_bias: Tensor | None = None,
    ) -> Tensor:
        hidden = outputs
        if contexts is not None and mix_weight is not None and mix_bias is not None:
            of_output, of_context = torch.split(
                mix_weight, [outputs.shape[1], contexts.shape[1]], dim=1
            )
            hidden = addmm(mix_bias, outputs, of_output.t())
            addmm(hidden, contexts, of_context.t(), out=hidden)
            hidden.mul_(2.0).sigmoid_().mul_(2.0).sub_(1.0)  # tanh, faster on a CPU
        logits = addmm(bias, hidden, weight.t())
        log_p = torch.log_softmax(logits, dim=-1, out=logits)
        targets = targets.unsqueeze(1)
        of_targets = log_p.gather(1, targets).squeeze(1)
        if smoothing:
            of_targets = torch.lerp(of_targets, log_p.mean(1), smoothing)
        loss = -(of_targets * live).sum()
        d_logits = log_p.exp_().scatter_add_(
            1, targets, torch.full_like(targets, smoothing - 1, dtype=log_p.dtype)
        )
        if smoothing:
            d_logits.sub_(smoothing / weight.shape[0])
        d_logits.mul_(live.unsqueeze(1))
        ctx.save_for_backward(weight, outputs, contexts, mix_weight, hidden, d_logits)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_loss: Tensor) -> tuple[Tensor | None, ...]:
        weight, outputs, contexts, mix_weight, hidden, d_logits = ctx.saved_tensors
        d_hidden = mm(d_logits, weight).mul_(d_loss)
        d_weight, d_bias = mm(d_logits.t(), hidden).mul_(d_loss), d_logits.sum(0).mul_(d_loss)
        if contexts is None:
            return None, None, None, d_weight, d_bias, d_hidden
        d_mixed = torch.ops.aten.tanh_backward(d_hidden, hidden)
        of_output, of_context = mix_weight.split([outputs.shape[1], contexts.shape[1]], dim=1)
        d_mix_weight = torch.cat([mm(d_mixed.t(), outputs), mm(d_mixed.t(), contexts)], dim=1)
        d_inputs = mm(d_mixed, of_output), mm(d_mixed, of_context)
        return None, None, None, d_weight, d_bias, *d_inputs, d_mix_weight, d_mixed.sum(0)
