"""Loops over time with a written-out gradient: the numbers of the plain loops of `cells`, faster.

Only the gradient of the state is computed step by step. The factors of the derivatives that do not
depend on it are computed for all steps before the backward loop. The gradient of every weight is
one product over all steps, after the loop. Where loops.c is compiled, the loops over `forward(t)`
and `backward(t)` run there (native.py). The order of the calls is in the docstring of nn/fast.

B batch · T steps · X input units · H cell units · G units of all gates (LSTM 4 H, GRU 3 H)

Time is the first dimension. Step t reads row t of a state buffer [T + 1, ...] and writes row t + 1;
in reverse it reads row t + 1 and writes row t. The prefix d_ means the gradient of the loss.
loops.c has no fast tanh, hence tanh(x) = 2 sigmoid(2 x) - 1 there. The loops in torch use tanh.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from s2s_search.nn.fast import native
from s2s_search.nn.fast.matmul import addmm, mm, sum_rows

ENDLESS = 1e30  # sigmoid(ENDLESS) is 1, sigmoid(-ENDLESS) is 0, and both derivatives are 0

# The number of rows that each step computes: the first ones of the batch. It never grows.
Rows = Sequence[int]


def at_each_step(tensor: Tensor, rows: Rows) -> tuple[Tensor, ...]:
    """Returns for each step the rows of a tensor [T, B, ...] that the step computes, as views."""
    return tuple(
        part if n == len(part) else part[:n] for part, n in zip(tensor.unbind(), rows, strict=False)
    )


def for_each_step(tensor: Tensor, rows: Rows) -> tuple[Tensor, ...]:
    """Returns for each step the rows of a tensor [B, ...] that the step needs, as views."""
    return tuple(tensor if n == len(tensor) else tensor[:n] for n in rows)


def buffer(like: Tensor, time: int, shape: Sequence[int], rows: Rows) -> Tensor:
    """Returns a buffer [time, *shape] that is zero where no step will write."""
    partly = bool(rows) and rows[-1] < shape[0]
    return like.new_zeros(time, *shape) if partly else like.new_empty(time, *shape)


class FlatRows:
    """Gathers the N rows that all steps compute, for one product over all of them."""

    def __init__(self, rows: Rows, batch: int, like: Tensor) -> None:
        self.size = len(rows) * batch
        self.index: Tensor | None = None
        if sum(rows) < self.size:
            parts = [
                torch.arange(t * batch, t * batch + n, device=like.device)
                for t, n in enumerate(rows)
            ]
            self.index = torch.cat(parts)

    def __call__(self, x: Tensor) -> Tensor:
        """Returns the computed rows [N, ...] of a tensor [T, B, ...]."""
        x = x.flatten(0, 1)
        return x if self.index is None else x.index_select(0, self.index)

    def spread(self, x: Tensor) -> Tensor:
        """Returns a tensor [T * B, ...] of computed rows [N, ...], zero where no step computes."""
        if self.index is None:
            return x
        return x.new_zeros(self.size, *x.shape[1:]).index_copy_(0, self.index, x)


@dataclass(frozen=True)
class TokenInputs:
    """The ids [T, B] and the table [V, X] that a loop's x comes from: x[t, b] = table[ids[t, b]].

    When the table has fewer rows than there are tokens, its products are cheaper than those of x.
    """

    ids: Tensor
    table: Tensor


class Steps:
    """The steps of one layer of cells, with the buffers of one batch.

    A step computes its gates [B, G] as [x, below] W_input + biases + the recurrent part of the
    state. The input x [T, B, X] is known before the loop. The input `below` [T, B, ...] is the
    output buffer of the layer below, which the loop fills. Either input may be missing.

    The buffers change their meaning. `gates` hold the inputs' part at first, the gates after
    `forward`, and the gradient of the gates' inputs after `backward`.
    """

    GATES: int  # number of gates
    STATE: int  # number of tensors in the state

    def __init__(
        self,
        rows: Rows,
        x: Tensor | None,
        below: Tensor | None,
        weights: Sequence[Tensor],
        state: Sequence[Tensor],
        lengths: Tensor | None = None,
        reverse: bool = False,
        tokens: TokenInputs | None = None,
        differentiable: bool = True,
    ) -> None:
        """Makes the buffers of the forward loop, with the part of x and the biases computed.

        Args:
            rows: The number of rows that each step computes.
            x: [T, B, X], or None.
            below: [T, B, ...], which the loop fills before each step, or None.
            weights: W_input, the cell's recurrent weights, the biases.
            state: The state before the first step, [B, H] each.
            lengths: [B]; at and after step lengths[b] the state of row b stays. None when the
                rows[t] rows of each step all change.
            reverse: True to go from the last step to the first.
            tokens: Where x comes from, if x is a row of a table.
            differentiable: False when no gradient will be asked for. The compiled loop then keeps
                only the newest steps of the cell state, and of gates that come from a table.
        """
        self.input_weights, *self.recurrent_weights, self.biases = weights
        batch, self.units = state[-1].shape
        self.rows, self.lengths, self.reverse = rows, lengths, reverse
        self.flat = FlatRows(rows, batch, self.biases)
        self.before, self.after = (1, 0) if reverse else (0, 1)
        self.x, self.below = x, below
        self.x_size = 0 if x is None else x.shape[-1]
        self.tokens: TokenInputs | None = None
        if tokens is not None and len(tokens.table) < tokens.ids.numel():
            self.tokens = tokens
        self.compiled = native.usable(self.biases)
        self.below_weights = self.input_weights[self.x_size :]
        self.kept = differentiable or not self.compiled
        self.make_gates(x, batch)
        self.make_buffers(state)

    def make_gates(self, x: Tensor | None, batch: int) -> None:
        """Makes `gates` and fills them with x W_x + biases.

        With tokens, a table [V, G] of these sums is computed, one row for each token. The compiled
        loop looks its rows up step by step; the torch loop finds them in `gates`.
        """
        x_weights, biases = self.input_weights[: self.x_size], self.biases
        self.ids: Tensor | None = None
        self.table: Tensor | None = None
        if self.tokens is not None:
            self.ids = self.tokens.ids.contiguous()
            self.table = addmm(biases, self.tokens.table, x_weights)
        steps = 1 if self.table is not None and not self.kept else len(self.rows)
        self.gates = biases.new_empty(steps, batch, self.GATES * self.units)
        if self.ids is not None and self.table is not None:
            if not self.compiled:
                torch.index_select(self.table, 0, self.ids.flatten(), out=self.gates.flatten(0, 1))
        elif x is None:
            self.gates.copy_(biases)
        elif self.flat.index is None:
            addmm(biases, self.flat(x), x_weights, out=self.gates.flatten(0, 1))
        else:
            self.gates.flatten(0, 1).index_copy_(
                0, self.flat.index, addmm(biases, self.flat(x), x_weights)
            )

    def make_buffers(self, state: Sequence[Tensor]) -> None:
        """Makes the buffers of the states, with the state before the first step in its row."""
        self.output = self.state_buffer(state[-1])

    def state_buffer(self, first: Tensor, whole: bool = True) -> Tensor:
        """Returns a buffer [T + 1, B, H] with `first` [B, H] as the state before the first step.

        When it need not be whole it has two rows: row t of the whole buffer is row t % 2.
        """
        length = len(self.rows) + 1 if whole else 2
        made = buffer(first, length, first.shape, self.rows)
        row = len(self.rows) % length if self.reverse else 0
        made[row] = first
        return made

    def gate(self, k: int) -> Tensor:
        """Returns the gate of index k at all steps [T, B, H], a view."""
        return self.gates[..., k * self.units : (k + 1) * self.units]

    def previous(self, states: Tensor) -> Tensor:
        """Returns the state before each step [T, B, H], a view."""
        return states[self.before : self.before + len(self.rows)]

    def made(self, states: Tensor) -> Tensor:
        """Returns the state after each step [T, B, H], a view."""
        return states[self.after : self.after + len(self.rows)]

    def start(self) -> None:
        """Prepares the torch loop: the views that each `forward` reads and writes."""
        raise NotImplementedError

    def forward(self, t: int, below: Tensor | None) -> None:
        """Computes step t: its gates, and the state after it in the buffers."""
        raise NotImplementedError

    def last_state(self) -> tuple[Tensor, ...]:
        """Returns the state after each row's last real step, [B, H] each, once the loop has run."""
        raise NotImplementedError

    def last(self) -> tuple[Tensor, Tensor] | int:
        """Returns the index in `output` of the state after each row's last real step."""
        if self.reverse:
            return 0
        if self.lengths is None:
            return -1
        return self.lengths, torch.arange(len(self.lengths), device=self.output.device)

    def ended(self) -> Tensor:
        """Returns the mask [T, B, 1] of the steps at and after each row's length."""
        assert self.lengths is not None
        steps = torch.arange(len(self.rows), device=self.gates.device)
        return (steps.unsqueeze(1) >= self.lengths).unsqueeze(-1)

    def take_gradients(
        self,
        d_output: Tensor | None,
        d_last: Sequence[Tensor | None],
        d_below: Tensor | None = None,
    ) -> None:
        """Makes the buffers of the backward loop and fills in the gradients that are known.

        Args:
            d_output: The gradient of the outputs [T, B, H], or None for zeros.
            d_last: The gradients of the last state, each [B, H] or None; empty for all zeros.
            d_below: [T, B, ...], to which the loop adds the gradient of `below`; None without it.
        """
        self.d_output, self.d_below = torch.empty_like(self.output), d_below
        self.d_output[-1 if self.reverse else 0] = 0.0
        if d_output is None:
            self.d_output.zero_()
        else:
            self.made(self.d_output).copy_(d_output)
        if d_last and d_last[-1] is not None:
            self.d_output[self.last()] += d_last[-1]

    def start_backward(self) -> None:
        """Prepares the torch loop: replaces the gates by their derivatives, and makes the views."""
        raise NotImplementedError

    def backward(self, t: int, d_below: Tensor | None) -> None:
        """Computes step t of the backward loop.

        The gradient of the gates' inputs replaces gates[t]. The gradients of the state before the
        step and of `below` are added to their buffers.
        """
        raise NotImplementedError

    def arguments(self, backward: bool) -> native.CellArguments:
        """Returns the structure that the compiled loop reads; it keeps all its tensors alive."""
        raise NotImplementedError

    def shared_arguments(self, backward: bool) -> dict[str, Tensor | int | None]:
        """Returns the fields of the structure that LSTM and GRU have in common."""
        width = 0 if self.below is None else self.below.shape[-1]
        shared: dict[str, Tensor | int | None] = {
            "batch": self.output.shape[1],
            "units": self.units,
            "below_units": width,
            "before": self.before,
            "after": self.after,
            "lengths": self.lengths,
            "gates": self.gates,
            "gate_rows": len(self.gates),
            "ids": self.ids,
            "table": self.table,
            "output": self.output,
            "weights": self.recurrent_weights[0],
            "below": self.below,
            "below_weights": self.below_weights,
        }
        if backward:
            shared |= {"d_output": self.d_output, "d_below": self.d_below}
        return shared

    def d_first_state(self) -> tuple[Tensor, ...]:
        """Returns the gradient of the state before the first step, [B, H] each."""
        raise NotImplementedError

    def d_recurrent_weights(self, d_gates: Tensor) -> tuple[Tensor, ...]:
        """Returns the gradients of the recurrent weights, from the gradient [N, G] of the gates."""
        raise NotImplementedError

    def d_x_and_weights(self) -> tuple[Tensor | None, list[Tensor]]:
        """Returns the gradient of x [T, B, X], or None, and the gradients of all weights."""
        d_gates = self.flat(self.gates)
        d_x, d_input_weights = None, torch.empty_like(self.input_weights)
        if self.x is not None:
            d_rows = mm(d_gates, self.input_weights[: self.x_size].t())
            d_x = self.flat.spread(d_rows).view_as(self.x)
            if self.tokens is None:
                mm(self.flat(self.x).t(), d_gates, out=d_input_weights[: self.x_size])
            else:
                d_table = sum_rows(d_gates, self.flat(self.tokens.ids), len(self.tokens.table))
                mm(self.tokens.table.t(), d_table, out=d_input_weights[: self.x_size])
        if self.below is not None:
            mm(self.flat(self.below).t(), d_gates, out=d_input_weights[self.x_size :])
        return d_x, [d_input_weights, *self.d_recurrent_weights(d_gates), d_gates.sum(0)]


class LSTMSteps(Steps):
    """The steps of an LSTM, with the state c, h.

    i, j, f, o = [x, below] W_input + h W + b
    c' = sigmoid(f) c + sigmoid(i) tanh(j)
    h' = sigmoid(o) tanh(c')
    """

    GATES, STATE = 4, 2

    def make_buffers(self, state: Sequence[Tensor]) -> None:
        super().make_buffers(state)
        # The torch loop keeps c and tanh(c), and the gates become the sigmoids of i, f and o. The
        # compiled loop keeps 2 c and sigmoid(2 c), and a gate becomes sigmoid(2 j) besides. The
        # row of tanh(c) before the first step is never read.
        self.c = self.state_buffer(state[0] * 2.0 if self.compiled else state[0], self.kept)
        self.tanh_c = self.state_buffer(state[0], self.kept)

    def start(self) -> None:
        if self.lengths is not None:
            self.gate(0).masked_fill_(self.ended(), -ENDLESS)
            self.gate(2).masked_fill_(self.ended(), ENDLESS)
        self.tanh_j = torch.empty_like(self.output[1:])
        parts = (
            self.gates,
            *(self.gate(k) for k in range(4)),
            self.tanh_j,
            self.previous(self.c),
            self.made(self.c),
            self.made(self.tanh_c),
            self.previous(self.output),
            self.made(self.output),
        )
        self.at = list(zip(*(at_each_step(part, self.rows) for part in parts), strict=True))

    def forward(self, t: int, below: Tensor | None) -> None:
        gates, i, j, f, o, tanh_j, c, new_c, tanh_c, h, new_h = self.at[t]
        if below is not None:
            gates.addmm_(below, self.below_weights)
        gates.addmm_(h, self.recurrent_weights[0])
        torch.tanh(j, out=tanh_j)
        gates.sigmoid_()
        torch.mul(f, c, out=new_c).addcmul_(i, tanh_j)
        torch.tanh(new_c, out=tanh_c)
        torch.mul(o, tanh_c, out=new_h)

    def last_state(self) -> tuple[Tensor, ...]:
        last = 0 if self.reverse else len(self.rows) % len(self.c)
        c = self.c[last]
        return c * 0.5 if self.compiled else c.clone(), self.output[self.last()]

    def take_gradients(
        self,
        d_output: Tensor | None,
        d_last: Sequence[Tensor | None],
        d_below: Tensor | None = None,
    ) -> None:
        super().take_gradients(d_output, d_last, d_below)
        d_c = d_last[0] if d_last else None
        self.d_c = torch.zeros_like(self.c[0])
        if d_c is not None:
            self.d_c.copy_(d_c)

    def start_backward(self) -> None:
        i, j, f, o = (self.gate(k) for k in range(4))
        tanh_j, tanh_c = self.tanh_j, self.made(self.tanh_c)
        by_c = o - o * tanh_c * tanh_c  # the derivative of h' by c'
        kept_f = f.clone()
        of_j = i - i * tanh_j * tanh_j
        self.gates.addcmul_(self.gates, self.gates, value=-1.0)  # sigmoid' = sigmoid (1 - sigmoid)
        i.mul_(tanh_j)
        j.copy_(of_j)
        f.mul_(self.previous(self.c))
        o.mul_(tanh_c)
        of_c = self.gates.view(*self.gates.shape[:2], 4, self.units)[:, :, :3]
        d_h, d_cs = self.d_output, for_each_step(self.d_c, self.rows)
        parts = (self.gates, of_c, o, by_c, kept_f, self.previous(d_h), self.made(d_h))
        self.derivatives = list(
            zip(*(at_each_step(part, self.rows) for part in parts), d_cs, strict=True)
        )
        self.weights_t = self.recurrent_weights[0].t()
        self.below_weights_t = self.below_weights.t()

    def backward(self, t: int, d_below: Tensor | None) -> None:
        gates, of_c, of_h, by_c, f, d_previous, d_h, d_c = self.derivatives[t]
        d_c.addcmul_(d_h, by_c)
        of_c.mul_(d_c.unsqueeze(1))
        of_h.mul_(d_h)
        d_c.mul_(f)
        d_previous.addmm_(gates, self.weights_t)
        if d_below is not None:
            d_below.addmm_(gates, self.below_weights_t)

    def arguments(self, backward: bool) -> native.CellArguments:
        given = self.shared_arguments(backward)
        given |= {
            "inside": self.c,
            "inside_rows": len(self.c),
            "half_tanh": self.tanh_c,
        }
        return native.CellArguments(**given, d_c=self.d_c if backward else None)

    def d_first_state(self) -> tuple[Tensor, ...]:
        return self.d_c, self.d_output[-1 if self.reverse else 0]

    def d_recurrent_weights(self, d_gates: Tensor) -> tuple[Tensor, ...]:
        return (mm(self.flat(self.previous(self.output)).t(), d_gates),)


class GRUSteps(Steps):
    """The steps of a GRU, with the state h.

    r, u, c = [x, below] W_input + b
    r, u = sigmoid([r, u] + h W_gates)
    c = tanh(c + (r * h) W_candidate)
    h' = u h + (1 - u) c
    """

    GATES, STATE = 3, 1

    def make_buffers(self, state: Sequence[Tensor]) -> None:
        super().make_buffers(state)
        # The gates become sigmoid(r), sigmoid(u), tanh(c). reset_h is r * h.
        self.reset_h = torch.empty_like(self.output[1:] if self.kept else self.output[:1])

    def start(self) -> None:
        if self.lengths is not None:
            self.gate(1).masked_fill_(self.ended(), ENDLESS)
        r_and_u, h = self.gates[..., : 2 * self.units], self.output
        parts = (
            self.gates,
            r_and_u,
            *(self.gate(k) for k in range(3)),
            self.reset_h,
            self.previous(h),
            self.made(h),
        )
        self.at = list(zip(*(at_each_step(part, self.rows) for part in parts), strict=True))

    def forward(self, t: int, below: Tensor | None) -> None:
        gates, r_and_u, r, u, c, reset_h, h, new_h = self.at[t]
        if below is not None:
            gates.addmm_(below, self.below_weights)
        r_and_u.addmm_(h, self.recurrent_weights[0]).sigmoid_()
        torch.mul(r, h, out=reset_h)
        c.addmm_(reset_h, self.recurrent_weights[1]).tanh_()
        torch.lerp(c, h, u, out=new_h)

    def last_state(self) -> tuple[Tensor, ...]:
        return (self.output[self.last()],)

    def start_backward(self) -> None:
        h = self.previous(self.output)
        r, u, c = (self.gate(k) for k in range(3))
        kept_r, kept_u = r.clone(), u.clone()
        r.addcmul_(r, r, value=-1.0).mul_(h)
        u.addcmul_(u, u, value=-1.0).mul_(h - c)
        torch.mul(1.0 - kept_u, 1.0 - c * c, out=c)
        gates, d_h = self.gates[..., : 2 * self.units], self.d_output
        parts = (self.gates, gates, r, u, c, kept_r, kept_u, self.previous(d_h), self.made(d_h))
        self.derivatives = list(
            zip(*(at_each_step(part, self.rows) for part in parts), strict=True)
        )
        self.weights_t, self.candidate_weights_t = (w.t() for w in self.recurrent_weights)
        self.below_weights_t = self.below_weights.t()

    def backward(self, t: int, d_below: Tensor | None) -> None:
        gates, r_and_u, of_r, of_u, of_c, r, u, d_previous, d_h = self.derivatives[t]
        of_u.mul_(d_h)
        of_c.mul_(d_h)
        d_reset_h = of_c @ self.candidate_weights_t
        of_r.mul_(d_reset_h)
        d_previous.addcmul_(d_h, u).addcmul_(d_reset_h, r).addmm_(r_and_u, self.weights_t)
        if d_below is not None:
            d_below.addmm_(gates, self.below_weights_t)

    def arguments(self, backward: bool) -> native.CellArguments:
        given = self.shared_arguments(backward)
        given |= {
            "gru": 1,
            "inside": self.reset_h,
            "inside_rows": len(self.reset_h),
            "candidate_weights": self.recurrent_weights[1],
        }
        if backward:
            given |= {"scratch": self.output.new_empty(2, *self.output.shape[1:])}
        return native.CellArguments(**given)

    def d_first_state(self) -> tuple[Tensor, ...]:
        return (self.d_output[-1 if self.reverse else 0],)

    def d_recurrent_weights(self, d_gates: Tensor) -> tuple[Tensor, ...]:
        d_r_and_u, d_c = d_gates[:, : 2 * self.units], d_gates[:, 2 * self.units :]
        h, reset_h = self.flat(self.previous(self.output)), self.flat(self.reset_h)
        return mm(h.t(), d_r_and_u), mm(reset_h.t(), d_c)


@dataclass(frozen=True)
class Recurrence:
    """A cell as these loops run it: the class of its steps, and their weights in its order."""

    steps: type[Steps]
    weights: tuple[Tensor, ...]


def unroll_layer(
    recurrence: Recurrence,
    x: Tensor,
    lengths: Tensor,
    state: Sequence[Tensor],
    reverse: bool = False,
    tokens: TokenInputs | None = None,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Runs a cell over all positions of a batch.

    Args:
        recurrence: The cell.
        x: The inputs [T, B, X].
        lengths: The number of real positions of each row [B].
        state: The state before the first step, [B, H] each. In reverse it must be zeros: the loop
            begins in the padding, where the h of an LSTM is not kept.
        reverse: True to go from the last position to the first.
        tokens: Where x comes from, if x is a row of a table.

    Returns:
        The outputs [T, B, H], which are not defined past a row's length, and the state after each
        row's last step.
    """
    outputs, *last = Unroll.apply(  # type: ignore[no-untyped-call]
        recurrence,
        lengths,
        reverse,
        tokens,
        torch.is_grad_enabled(),
        x,
        *recurrence.weights,
        *state,
    )
    return outputs, tuple(last)


class Unroll(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        recurrence: Recurrence,
        lengths: Tensor,
        reverse: bool,
        tokens: TokenInputs | None,
        differentiable: bool,
        x: Tensor,
        *tensors: Tensor,
    ) -> tuple[Tensor, ...]:
        n = len(recurrence.weights)
        rows, weights, state = [x.shape[1]] * len(x), tensors[:n], tensors[n:]
        steps = recurrence.steps(
            rows, x, None, weights, state, lengths, reverse, tokens, differentiable
        )
        run_forward(steps)
        keep(ctx, steps, tensors)
        return steps.made(steps.output), *steps.last_state()

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, d_outputs: Tensor | None, *d_last: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        steps: Steps = taken(ctx)
        steps.take_gradients(d_outputs, d_last)
        run_backward(steps)
        d_x, d_weights = steps.d_x_and_weights()
        return None, None, None, None, None, d_x, *d_weights, *steps.d_first_state()


def run_forward(steps: Steps) -> None:
    """Runs the forward loop of one layer, compiled or in torch."""
    if steps.compiled:
        native.run_loops(
            "forward", steps.gates.dtype, [steps.arguments(backward=False)], steps.rows
        )
        return
    steps.start()
    for t in range(len(steps.rows))[:: -1 if steps.reverse else 1]:
        steps.forward(t, None)


def run_backward(steps: Steps) -> None:
    """Runs the backward loop of one layer, compiled or in torch."""
    if steps.compiled:
        native.run_loops(
            "backward", steps.gates.dtype, [steps.arguments(backward=True)], steps.rows
        )
        return
    steps.start_backward()
    for t in range(len(steps.rows))[:: 1 if steps.reverse else -1]:
        steps.backward(t, None)


def keep(ctx: Any, loop: Any, tensors: Sequence[Tensor]) -> None:
    """Keeps a loop for its backward, which overwrites the buffers and so can run only once."""
    ctx.loop = loop
    ctx.save_for_backward(*tensors)
    ctx.set_materialize_grads(False)


def taken(ctx: Any) -> Any:
    """Returns the loop that `keep` kept, and forgets it.

    Raises:
        RuntimeError: a backward has run before, or a weight or a state was changed in place since.
    """
    _ = ctx.saved_tensors  # torch raises here when one was changed or freed
    if ctx.loop is None:
        raise RuntimeError("the backward of a fused loop can be run only once")
    loop, ctx.loop = ctx.loop, None
    return loop
