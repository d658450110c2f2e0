"""Update rules, clipping and learning-rate decay as the original computes them."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.adam import adam

from s2s_search.hparams.configuration import Hparams
from s2s_search.nn.fast.matmul import sum_rows


def make_optimizer(parameters: Iterable[nn.Parameter], hparams: Hparams) -> "Optimizer":
    """Returns the optimizer that the `optimizer.*` hyperparameters describe."""

    def schedule(step: int) -> float:
        return decayed_learning_rate(
            step,
            initial=hparams["optimizer.learning_rate"],
            decay_type=hparams["optimizer.lr_decay_type"],
            decay_steps=hparams["optimizer.lr_decay_steps"],
            decay_rate=hparams["optimizer.lr_decay_rate"],
            start_at=hparams["optimizer.lr_start_decay_at"],
            stop_at=hparams["optimizer.lr_stop_decay_at"],
            minimum=hparams["optimizer.lr_min_learning_rate"],
            staircase=hparams["optimizer.lr_staircase"],
            warmup_steps=hparams["optimizer.warmup_steps"],
        )

    return Optimizer(
        parameters,
        hparams["optimizer.name"],
        schedule,
        hparams["optimizer.clip_gradients"],
        hparams["optimizer.weight_decay"],
    )


def decayed_learning_rate(
    step: int,
    initial: float,
    decay_type: str = "",
    decay_steps: int = 100,
    decay_rate: float = 0.99,
    start_at: int = 0,
    stop_at: int = 10**9,
    minimum: float = 1e-12,
    staircase: bool = False,
    warmup_steps: int = 0,
) -> float:
    """Returns the learning rate of the update at `step`, counted from 0.

    Args:
        step: The update.
        initial: The rate up to `start_at`.
        decay_type: A name of DECAY_FUNCTIONS, or "" for a constant rate.
        decay_steps: The steps in which the progress p grows by 1.
        decay_rate: The factor of the decay.
        start_at: The last step with the initial rate. After it the rate is a function of
            p = (min(step, stop_at) - start_at) / decay_steps.
        stop_at: The step after which the rate stays.
        minimum: The smallest rate, 0 for none. As in the original, it holds before `start_at` too.
        staircase: True to round p down to a whole number.
        warmup_steps: The number of first updates whose rate, also a smallest one, is multiplied by
            (step + 1) / warmup_steps. 0 for none.
    """
    rate = initial
    if decay_type and step > start_at:
        p = (min(step, stop_at) - start_at) / decay_steps
        if staircase:
            p = math.floor(p)
        rate = DECAY_FUNCTIONS[decay_type](initial, decay_rate, p, minimum)
    if minimum:
        rate = max(rate, minimum)
    if step < warmup_steps:
        rate *= (step + 1) / warmup_steps
    return rate


# (initial rate, decay rate, progress p, smallest rate) -> rate. The last two are extensions, on
# which the original raises.
DECAY_FUNCTIONS: dict[str, Callable[[float, float, float, float], float]] = {
    "exponential_decay": lambda initial, rate, p, least: initial * rate**p,
    "natural_exp_decay": lambda initial, rate, p, least: initial * math.exp(-rate * p),
    "inverse_time_decay": lambda initial, rate, p, least: initial / (1 + rate * p),
    "polynomial_decay": lambda initial, rate, p, least: (
        least + (initial - least) * (1 - min(p, 1.0))
    ),
    "cosine_decay": lambda initial, rate, p, least: (
        least + (initial - least) * (1 + math.cos(math.pi * min(p, 1.0))) / 2
    ),
}


class Optimizer:
    """Clips the gradients by their global norm, then updates the parameters.

    As in the original, the norm counts the gradient of an embedding once for each looked-up
    position, not for each row. A negative `clip` never clips, and a `clip` of 0 zeroes all
    gradients. Weight decay is decoupled from the gradients (Loshchilov & Hutter, 2019).
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        name: str,
        schedule: Callable[[int], float],
        clip: float,
        weight_decay: float = 0.0,
    ) -> None:
        self.parameters = list(parameters)
        self.rule = UPDATE_RULES[name](self.parameters)
        self.schedule, self.clip, self.weight_decay = schedule, clip, weight_decay

    def step(self, step: int) -> Tensor:
        """Updates all parameters that have a gradient, and frees the gradients.

        Returns the norm of the gradients before clipping, a scalar.
        """
        norm = global_norm([p.grad for p in self.parameters if p.grad is not None])
        lr = self.schedule(step)
        if self.weight_decay:
            self.rule.decay(lr * self.weight_decay)
        self.rule.step(step, lr, clip_factor(norm, self.clip))
        for p in self.parameters:
            p.grad = None
        return norm

    def state_dict(self) -> dict[str, list[Tensor]]:
        """Returns the slots of the update rule by name, each with one tensor for each parameter."""
        return self.rule.slots

    def load_state_dict(self, state: Mapping[str, list[Tensor]]) -> None:
        """Copies the values of saved slots."""
        for name, slot in self.rule.slots.items():
            for tensor, saved in zip(slot, state[name], strict=True):
                tensor.copy_(saved)


@torch.no_grad()
def global_norm(gradients: Iterable[Tensor]) -> Tensor:
    """Returns the norm of all gradients together, a scalar.

    A row-sparse gradient counts once for each looked-up position, not for each row.
    """
    values = [g._values() if g.is_sparse else g for g in gradients]
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(values)))
    return norm


def clip_factor(norm: Tensor, clip: float) -> Tensor | None:
    """Returns the factor that clips all gradients, clip * min(1 / norm, 1 / clip), a scalar.

    Returns None for a negative `clip`, which never clips.
    """
    if clip < 0:
        return None
    if clip == 0:
        return torch.zeros_like(norm)
    return clip * torch.clamp(1 / norm, max=1 / clip)


class Rule:
    """An update rule, with the slots that it keeps for each parameter.

    A row-sparse gradient updates the looked-up rows and their slots only. Gradients of the same row
    are summed first. The optimizer classes of torch.optim are not used: their rules differ from the
    original's, and importing them costs a second.
    """

    SLOTS: ClassVar[Mapping[str, float]] = {}  # name of a slot -> initial value

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        self.parameters = parameters
        self.slots = {
            name: [torch.full_like(p, value, requires_grad=False) for p in parameters]
            for name, value in self.SLOTS.items()
        }

    @torch.no_grad()
    def decay(self, share: float) -> None:
        """Takes a share from every parameter that has a gradient, p -= share p, in all its rows."""
        used: list[Tensor] = [p for p in self.parameters if p.grad is not None]
        torch._foreach_add_(used, used, alpha=-share)

    @torch.no_grad()
    def step(self, step: int, lr: float, factor: Tensor | None = None) -> None:
        """Updates every parameter that has a gradient.

        Args:
            step: The number of updates before this one.
            lr: The learning rate.
            factor: A scalar that multiplies all gradients, or None.
        """
        if factor is not None:
            gradients = [p.grad for p in self.parameters if p.grad is not None]
            torch._foreach_mul_([g._values() if g.is_sparse else g for g in gradients], factor)
        for i, p in enumerate(self.parameters):
            if p.grad is None:
                continue
            slots = {name: slot[i] for name, slot in self.slots.items()}
            if not p.grad.is_sparse:
                self.update(p, p.grad, lr, slots)
            elif p.is_cpu:
                self.update_rows(p, p.grad, lr, slots)
            else:
                self.update_all_rows(p, p.grad, lr, slots)

    def update_rows(
        self, p: Tensor, gradient: Tensor, lr: float, slots: Mapping[str, Tensor]
    ) -> None:
        """Updates the looked-up rows of p and of its slots.

        Args:
            p: The parameter [V, E].
            gradient: Its row-sparse gradient.
            lr: The learning rate.
            slots: The slots of the parameter [V, E], by name.
        """
        gradient = gradient.coalesce()
        (rows,) = gradient.indices()
        p_rows = p[rows]
        slot_rows = {name: slot[rows] for name, slot in slots.items()}
        self.update(p_rows, gradient.values(), lr, slot_rows)
        p[rows] = p_rows
        for name, slot in slots.items():
            slot[rows] = slot_rows[name]

    def update_all_rows(
        self, p: Tensor, gradient: Tensor, lr: float, slots: Mapping[str, Tensor]
    ) -> None:
        """Does what `update_rows` does, on a GPU.

        There the host would wait for the number of looked-up rows. All rows are updated, and the
        others get their values back.
        """
        (ids,), values = gradient._indices(), gradient._values()
        looked_up = torch.zeros_like(p[:, :1], dtype=torch.bool).index_fill_(0, ids, True)
        new_p = p.clone()
        new_slots = {name: slot.clone() for name, slot in slots.items()}
        self.update(new_p, sum_rows(values, ids, len(p)), lr, new_slots)
        p.copy_(torch.where(looked_up, new_p, p))
        for name, slot in slots.items():
            slot.copy_(torch.where(looked_up, new_slots[name], slot))

    def update(self, p: Tensor, gradient: Tensor, lr: float, slots: Mapping[str, Tensor]) -> None:
        """Updates p and its slots in place. The arguments are tensors of one shape."""
        raise NotImplementedError


def dense(gradient: Tensor) -> Tensor:
    """Returns a gradient as a tensor of its parameter's shape."""
    if not gradient.is_sparse:
        return gradient
    return sum_rows(gradient._values(), gradient._indices()[0], len(gradient))


class Adam(Rule):
    """Adam (Kingma & Ba, 2015) with epsilon on the uncorrected second moment.

    m = 0.9 m + 0.1 g
    v = 0.999 v + 0.001 g²
    p -= lr sqrt(1 - 0.999^t) / (1 - 0.9^t) m / (sqrt(v) + 1e-8)

    As in the original, every row of an embedding is updated, also those that were not looked up.
    The coefficients are float32, and so is each product in the powers of 0.9 and 0.999. With exact
    powers, 1 - 0.999^t would differ from the original's by up to 1.5e-5 in the first steps.
    """

    SLOTS: ClassVar[Mapping[str, float]] = {"m": 0.0, "v": 0.0}
    BETA1, BETA2 = np.float32(0.9), np.float32(0.999)
    # The step that torch is told: its own bias correction, with exact powers, is 1 there.
    ENDLESS = 1e9

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        super().__init__(parameters)
        self.steps, self.power1, self.power2 = 0, np.float32(1.0), np.float32(1.0)

    def corrected(self, lr: float, step: int) -> float:
        """Returns lr sqrt(1 - 0.999^t) / (1 - 0.9^t) for t = step + 1.

        Any step may follow any other: after a smaller one the powers are computed from 1 again.
        """
        if step < self.steps:
            self.steps, self.power1, self.power2 = 0, np.float32(1.0), np.float32(1.0)
        while self.steps <= step:
            self.power1, self.power2 = self.power1 * self.BETA1, self.power2 * self.BETA2
            self.steps += 1
        one = np.float32(1.0)
        return float(np.float32(lr) * np.sqrt(one - self.power2) / (one - self.power1))

    @torch.no_grad()
    def step(self, step: int, lr: float, factor: Tensor | None = None) -> None:
        used = [i for i, p in enumerate(self.parameters) if p.grad is not None]
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        steps = torch.full((len(used),), self.ENDLESS, device=self.parameters[0].device)
        adam(
            [self.parameters[i] for i in used],
            [dense(g) for g in gradients],
            [self.slots["m"][i] for i in used],
            [self.slots["v"][i] for i in used],
            max_exp_avg_sqs=[],
            state_steps=list(steps.unbind()),
            fused=True,
            amsgrad=False,
            beta1=float(self.BETA1),
            beta2=float(self.BETA2),
            lr=self.corrected(lr, step),
            weight_decay=0.0,
            eps=1e-8,
            maximize=False,
            grad_scale=None if factor is None else (1 / factor).float(),  # torch divides by it
        )


class SGD(Rule):
    """Stochastic gradient descent: p -= lr g."""

    def update(self, p: Tensor, gradient: Tensor, lr: float, slots: Mapping[str, Tensor]) -> None:
        p.sub_(gradient, alpha=lr)


class Momentum(Rule):
    """Momentum: a = 0.9 a + g,  p -= lr a."""

    SLOTS: ClassVar[Mapping[str, float]] = {"a": 0.0}

    def update(self, p: Tensor, gradient: Tensor, lr: float, slots: Mapping[str, Tensor]) -> None:
        p.sub_(slots["a"].mul_(0.9).add_(gradient), alpha=lr)


class Adagrad(Rule):
    """Adagrad (Duchi et al., 2011): n += g²,  p -= lr g / sqrt(n), where n starts at 0.1."""

    SLOTS: ClassVar[Mapping[str, float]] = {"n": 0.1}

    def update(self, p: Tensor, gradient: Tensor, lr: float, slots: Mapping[str, Tensor]) -> None:
        p.addcdiv_(gradient, slots["n"].addcmul_(gradient, gradient).sqrt(), value=-lr)


class RMSProp(Rule):
    """RMSProp: s = 0.9 s + 0.1 g²,  p -= lr g / sqrt(s + 1e-10), where s starts at 1."""

    SLOTS: ClassVar[Mapping[str, float]] = {"s": 1.0}

    def update(self, p: Tensor, gradient: Tensor, lr: float, slots: Mapping[str, Tensor]) -> None:
        s = slots["s"].mul_(0.9).addcmul_(gradient, gradient, value=0.1)
        p.addcdiv_(gradient, (s + 1e-10).sqrt_(), value=-lr)


class Ftrl(Rule):
    """FTRL (McMahan et al., 2013) without regularisation.

    n' = n + g²
    z += g - (sqrt(n') - sqrt(n)) / lr p
    p = -lr z / sqrt(n')

    n starts at 0.1. As in the original, the first update replaces the initial value of p.
    """

    SLOTS: ClassVar[Mapping[str, float]] = {"n": 0.1, "z": 0.0}

    @torch.no_grad()
    def decay(self, share: float) -> None:
        """Takes a share from p, and from z, out of which the next update makes p."""
        super().decay(share)
        used = [
            z for p, z in zip(self.parameters, self.slots["z"], strict=True) if p.grad is not None
        ]
        torch._foreach_add_(used, used, alpha=-share)

    def update(self, p: Tensor, gradient: Tensor, lr: float, slots: Mapping[str, Tensor]) -> None:
        n, z = slots["n"], slots["z"]
        root = n.sqrt()
        new_root = n.addcmul_(gradient, gradient).sqrt()
        z.add_(gradient).addcmul_(new_root - root, p, value=-1 / lr)
        p.copy_(z / new_root).mul_(-lr)


UPDATE_RULES: dict[str, type[Rule]] = {
    rule.__name__: rule for rule in (Adam, SGD, Momentum, Adagrad, RMSProp, Ftrl)
}
