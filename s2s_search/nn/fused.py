"""Loops over time with a written-out backward: the same numbers as the plain loops of `cells` and `decoders`, sooner.

In the backward loop only the gradient of the state goes step by step. What of the derivatives the gradient does not
change is computed for all steps before it, and the gradient of every weight is one product over all steps after it.

B batch · S source positions · T steps of the loop · X input units · H cell units · G units of all gates (4 H, or 3 H
of a GRU) · M memory units · A attention units

Time comes first here. Of a buffer [T + 1, ...] the row t + 1 is what step t makes, row 0 what there is before it, and
d_ is the gradient of the loss. On a CPU a tanh costs three sigmoids, hence tanh(x) = 2 sigmoid(2 x) - 1 throughout.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

ENDLESS = 1e30  # its sigmoid is 1, that of its negative is 0, and the derivatives of both are 0

Rows = Sequence[int]  # how many rows of the batch each step computes: the first ones, never more than the step before


def at_each_step(tensor: Tensor, rows: Rows) -> tuple[Tensor, ...]:
    """The rows of [T, B, ...] that each step computes."""
    return tuple(part if n == len(part) else part[:n] for part, n in zip(tensor.unbind(), rows, strict=False))


def for_each_step(tensor: Tensor, rows: Rows) -> tuple[Tensor, ...]:
    """The rows of a tensor [B, ...] that each step needs."""
    return tuple(tensor if n == len(tensor) else tensor[:n] for n in rows)


def buffer(like: Tensor, time: int, shape: Sequence[int], rows: Rows) -> Tensor:
    """A buffer [time, *shape], zero where no step will write."""
    partly = bool(rows) and rows[-1] < shape[0]
    return like.new_zeros(time, *shape) if partly else like.new_empty(time, *shape)


class Flat:
    """Lays the rows that the steps compute one below the other, for products over all of them."""

    def __init__(self, rows: Rows, batch: int, like: Tensor) -> None:
        self.size = len(rows) * batch
        self.index: Tensor | None = None
        if sum(rows) < self.size:
            parts = [torch.arange(t * batch, t * batch + n, device=like.device) for t, n in enumerate(rows)]
            self.index = torch.cat(parts)

    def __call__(self, x: Tensor) -> Tensor:
        """Makes [N, ...] of [T, B, ...]."""
        x = x.flatten(0, 1)
        return x if self.index is None else x.index_select(0, self.index)

    def spread(self, x: Tensor) -> Tensor:
        """Makes [T * B, ...] of [N, ...], zero where no step computes."""
        return x if self.index is None else x.new_zeros(self.size, *x.shape[1:]).index_copy_(0, self.index, x)


class Steps:
    """The steps of one layer of cells.

    A step computes its gates [B, G] from x[t], from `below`, an input that is known only inside the loop, and from its
    state: [x, below] W_input + biases + the recurrent part, where either input may be missing. `weights` are W_input,
    then the cell's recurrent weights, then the biases.
    """

    GATES: int
    STATE: int  # tensors of the state

    def __init__(
        self, x: Tensor | None, rows: Rows, weights: Sequence[Tensor], state: Sequence[Tensor], doubled: int
    ) -> None:
        """Makes the buffers; `gates` hold what x and the biases give, that of the tanh, which is `doubled`, twice."""
        self.input_weights, *self.recurrent_weights, self.biases = weights
        batch, self.units = state[-1].shape
        time, self.rows, self.flat = len(rows), rows, Flat(rows, batch, self.biases)
        self.x, self.x_size = x, 0 if x is None else x.shape[-1]
        self.scale = torch.ones_like(self.biases)
        self.scale[doubled * self.units : (doubled + 1) * self.units] = 2.0
        scaled_weights, scaled_biases = self.input_weights * self.scale, self.biases * self.scale
        self.below_weights, self.scaled_below_weights = self.input_weights[self.x_size :], scaled_weights[self.x_size :]
        self.gates = self.biases.new_empty(time, batch, self.GATES * self.units)
        if x is None:
            self.gates.copy_(scaled_biases)
        else:
            gates = self.gates.view(time * batch, -1)
            if self.flat.index is None:
                torch.addmm(scaled_biases, self.flat(x), scaled_weights[: self.x_size], out=gates)
            else:
                part = torch.addmm(scaled_biases, self.flat(x), scaled_weights[: self.x_size])
                gates.index_copy_(0, self.flat.index, part)
        self.output = buffer(self.biases, time + 1, (batch, self.units), rows)
        self.output[0] = state[-1]

    def gate(self, k: int) -> Tensor:
        """A gate of all steps [T, B, H]."""
        return self.gates[..., k * self.units : (k + 1) * self.units]

    def stay(self, lengths: Tensor) -> None:
        """Makes the gates such that the state does not change at and after step lengths[b]."""
        raise NotImplementedError

    def forward(self, t: int, below: Tensor | None = None) -> None:
        """Computes output[t + 1]."""
        raise NotImplementedError

    def last_state(self, lengths: Tensor | None) -> tuple[Tensor, ...]:
        raise NotImplementedError

    def start_backward(
        self, d_output: Tensor | None, d_last: Sequence[Tensor | None], lengths: Tensor | None = None
    ) -> None:
        """Takes the gradients of output[1:] and of the last state, and makes of the gates their derivatives."""
        self.d_output = torch.empty_like(self.output)
        self.d_output[0] = 0.0
        if d_output is None:
            self.d_output.zero_()
        else:
            self.d_output[1:] = d_output
        if d_last and d_last[-1] is not None:
            self.d_output[last_rows(self.output, lengths)] += d_last[-1]

    def backward(self, t: int, d_below: Tensor | None = None) -> None:
        """Takes d_output[t + 1], makes of gates[t] its gradient, and adds to d_output[t] and d_below."""
        raise NotImplementedError

    def d_state(self) -> tuple[Tensor, ...]:
        """The gradient of the state before the first step."""
        raise NotImplementedError

    def d_recurrent_weights(self, d_gates: Tensor) -> tuple[Tensor, ...]:
        """For the gradient [N, G] of the gates."""
        raise NotImplementedError

    def d_x_and_weights(self, below: Tensor | None = None) -> tuple[Tensor | None, list[Tensor]]:
        """The gradients of x and of all weights, for `below` of all steps [T, B, ...]."""
        d_gates = self.flat(self.gates)
        d_x, d_input_weights = None, torch.empty_like(self.input_weights)
        if self.x is not None:
            d_x = self.flat.spread(d_gates @ self.input_weights[: self.x_size].t()).view_as(self.x)
            torch.mm(self.flat(self.x).t(), d_gates, out=d_input_weights[: self.x_size])
        if below is not None:
            torch.mm(self.flat(below).t(), d_gates, out=d_input_weights[self.x_size :])
        return d_x, [d_input_weights, *self.d_recurrent_weights(d_gates), d_gates.sum(0)]


def last_rows(output: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor] | int:
    """The index in output [T + 1, B, H] of what the last real step of each row made."""
    return -1 if lengths is None else (lengths, torch.arange(len(lengths), device=lengths.device))


def ended(time: int, lengths: Tensor) -> Tensor:
    """The mask [T, B, 1] of the steps at and after each row's length."""
    return (torch.arange(time, device=lengths.device).unsqueeze(1) >= lengths).unsqueeze(-1)


class LSTMSteps(Steps):
    """i, j, f, o = [x, below] W_input + h W + b,  c' = sigmoid(f + forget_bias) c + sigmoid(i) tanh(j),
    h' = sigmoid(o) tanh(c');  the state is c, h.
    """

    GATES, STATE = 4, 2

    def __init__(
        self, x: Tensor | None, rows: Rows, weights: Sequence[Tensor], state: Sequence[Tensor], forget_bias: float = 1.0
    ) -> None:
        *others, biases = weights
        biases = biases.clone()
        biases[2 * len(biases) // 4 : 3 * len(biases) // 4] += forget_bias
        super().__init__(x, rows, (*others, biases), state, doubled=1)
        self.scaled_weights = self.recurrent_weights[0] * self.scale
        # gates become sigmoid(i), sigmoid(2 j), sigmoid(f), sigmoid(o); half_tanh is sigmoid(2 c').
        self.twice_c, self.half_tanh = torch.empty_like(self.output), torch.empty_like(self.output)
        torch.mul(state[0], 2.0, out=self.twice_c[0])
        c, h = self.twice_c, self.output
        parts = (self.gates, *(self.gate(k) for k in range(4)), c, c[1:], self.half_tanh, h, h[1:])
        self.at = list(zip(*(at_each_step(part, rows) for part in parts), strict=True))

    def stay(self, lengths: Tensor) -> None:
        after = ended(len(self.gates), lengths)
        self.gate(0).masked_fill_(after, -ENDLESS)
        self.gate(2).masked_fill_(after, ENDLESS)

    def forward(self, t: int, below: Tensor | None = None) -> None:
        gates, i, j, f, o, twice_c, new_twice_c, half_tanh, h, new_h = self.at[t]
        if below is not None:
            gates.addmm_(below, self.scaled_below_weights)
        gates.addmm_(h, self.scaled_weights).sigmoid_()
        torch.mul(f, twice_c, out=new_twice_c).addcmul_(i, j, value=4.0).sub_(i, alpha=2.0)
        torch.sigmoid(new_twice_c, out=half_tanh)
        torch.neg(o, out=new_h).addcmul_(o, half_tanh, value=2.0)

    def last_state(self, lengths: Tensor | None) -> tuple[Tensor, ...]:
        return self.twice_c[-1] * 0.5, self.output[last_rows(self.output, lengths)]

    def start_backward(
        self, d_output: Tensor | None, d_last: Sequence[Tensor | None], lengths: Tensor | None = None
    ) -> None:
        super().start_backward(d_output, d_last, lengths)
        d_c = d_last[0] if d_last else None
        self.d_c = torch.zeros_like(self.twice_c[0]) if d_c is None else d_c.clone()
        i, j, f, o = (self.gate(k) for k in range(4))
        half_tanh = self.half_tanh[:-1]
        by_c = torch.addcmul(half_tanh, half_tanh, half_tanh, value=-1.0).mul_(o).mul_(4.0)  # of h'
        kept_f = f.clone()
        tanh_j, of_j = j * 2.0 - 1.0, i * 4.0
        self.gates.addcmul_(self.gates, self.gates, value=-1.0)  # sigmoid' = sigmoid (1 - sigmoid)
        i.mul_(tanh_j)
        j.mul_(of_j)
        f.mul_(self.twice_c[:-1]).mul_(0.5)
        o.mul_(half_tanh.mul_(2.0).sub_(1.0))
        of_c = self.gates.view(*self.gates.shape[:2], 4, self.units)[:, :, :3]
        d_h, d_cs = self.d_output, for_each_step(self.d_c, self.rows)
        parts = (self.gates, of_c, o, by_c, kept_f, d_h, d_h[1:])
        self.derivatives = list(zip(*(at_each_step(part, self.rows) for part in parts), d_cs, strict=True))
        self.weights_t, self.below_weights_t = self.recurrent_weights[0].t(), self.below_weights.t()

    def backward(self, t: int, d_below: Tensor | None = None) -> None:
        gates, of_c, of_h, by_c, f, d_previous, d_h, d_c = self.derivatives[t]
        d_c.addcmul_(d_h, by_c)
        of_c.mul_(d_c.unsqueeze(1))
        of_h.mul_(d_h)
        d_c.mul_(f)
        d_previous.addmm_(gates, self.weights_t)
        if d_below is not None:
            d_below.addmm_(gates, self.below_weights_t)

    def d_state(self) -> tuple[Tensor, ...]:
        return self.d_c, self.d_output[0]

    def d_recurrent_weights(self, d_gates: Tensor) -> tuple[Tensor, ...]:
        return (self.flat(self.output[:-1]).t() @ d_gates,)


class GRUSteps(Steps):
    """r, u, c = [x, below] W_input + b,  r, u = sigmoid(r, u + h W_gates),  c = tanh(c + (r * h) W_candidate),
    h' = u h + (1 - u) c;  the state is h.
    """

    GATES, STATE = 3, 1

    def __init__(self, x: Tensor | None, rows: Rows, weights: Sequence[Tensor], state: Sequence[Tensor]) -> None:
        super().__init__(x, rows, weights, state, doubled=2)
        self.scaled_candidate_weights = self.recurrent_weights[1] * 2.0
        # gates become sigmoid(r), sigmoid(u), tanh(c)
        self.reset_h = torch.empty_like(self.output[1:])
        r_and_u, h = self.gates[..., : 2 * self.units], self.output
        parts = (self.gates, r_and_u, *(self.gate(k) for k in range(3)), self.reset_h, h, h[1:])
        self.at = list(zip(*(at_each_step(part, rows) for part in parts), strict=True))

    def stay(self, lengths: Tensor) -> None:
        self.gate(1).masked_fill_(ended(len(self.gates), lengths), ENDLESS)

    def forward(self, t: int, below: Tensor | None = None) -> None:
        gates, r_and_u, r, u, c, reset_h, h, new_h = self.at[t]
        if below is not None:
            gates.addmm_(below, self.scaled_below_weights)
        r_and_u.addmm_(h, self.recurrent_weights[0]).sigmoid_()
        torch.mul(r, h, out=reset_h)
        c.addmm_(reset_h, self.scaled_candidate_weights).sigmoid_().mul_(2.0).sub_(1.0)
        torch.lerp(c, h, u, out=new_h)

    def last_state(self, lengths: Tensor | None) -> tuple[Tensor, ...]:
        return (self.output[last_rows(self.output, lengths)],)

    def start_backward(
        self, d_output: Tensor | None, d_last: Sequence[Tensor | None], lengths: Tensor | None = None
    ) -> None:
        super().start_backward(d_output, d_last, lengths)
        h = self.output[:-1]
        r, u, c = (self.gate(k) for k in range(3))
        kept_r, kept_u = r.clone(), u.clone()
        r.addcmul_(r, r, value=-1.0).mul_(h)
        u.addcmul_(u, u, value=-1.0).mul_(h - c)
        torch.mul(1.0 - kept_u, 1.0 - c * c, out=c)
        gates = self.gates[..., : 2 * self.units]
        parts = (self.gates, gates, r, u, c, kept_r, kept_u, self.d_output, self.d_output[1:])
        self.derivatives = list(zip(*(at_each_step(part, self.rows) for part in parts), strict=True))

    def backward(self, t: int, d_below: Tensor | None = None) -> None:
        gates, r_and_u, of_r, of_u, of_c, r, u, d_previous, d_h = self.derivatives[t]
        of_u.mul_(d_h)
        of_c.mul_(d_h)
        d_reset_h = of_c @ self.recurrent_weights[1].t()
        of_r.mul_(d_reset_h)
        d_previous.addcmul_(d_h, u).addcmul_(d_reset_h, r).addmm_(r_and_u, self.recurrent_weights[0].t())
        if d_below is not None:
            d_below.addmm_(gates, self.below_weights.t())

    def d_state(self) -> tuple[Tensor, ...]:
        return (self.d_output[0],)

    def d_recurrent_weights(self, d_gates: Tensor) -> tuple[Tensor, ...]:
        d_r_and_u, d_c = d_gates[:, : 2 * self.units], d_gates[:, 2 * self.units :]
        return self.flat(self.output[:-1]).t() @ d_r_and_u, self.flat(self.reset_h).t() @ d_c


@dataclass(frozen=True)
class Recurrence:
    """A cell as the loops here run it: the class of its steps, their weights and further arguments."""

    steps: type[Steps]
    weights: tuple[Tensor, ...]
    options: dict[str, Any] = field(default_factory=dict)


def unroll(
    recurrence: Recurrence, x: Tensor, lengths: Tensor, state: Sequence[Tensor]
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Runs a cell over x [T, B, X] of lengths [B]: its outputs [T, B, H] and the last state.

    Past a row's length its state stays and its outputs are not defined.
    """
    outputs, *last = Unroll.apply(recurrence, lengths, x, *recurrence.weights, *state)  # type: ignore[no-untyped-call]
    return outputs, tuple(last)


class Unroll(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, recurrence: Recurrence, lengths: Tensor, x: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        n = len(recurrence.weights)
        steps = recurrence.steps(x, [x.shape[1]] * len(x), tensors[:n], tensors[n:], **recurrence.options)
        steps.stay(lengths)
        for t in range(len(x)):
            steps.forward(t)
        keep(ctx, steps, tensors)
        ctx.lengths = lengths
        return steps.output[1:], *steps.last_state(lengths)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_outputs: Tensor | None, *d_last: Tensor | None) -> tuple[Tensor | None, ...]:
        steps: Steps = taken(ctx)
        steps.start_backward(d_outputs, d_last, ctx.lengths)
        for t in reversed(range(len(steps.gates))):
            steps.backward(t)
        d_x, d_weights = steps.d_x_and_weights()
        return None, None, d_x, *d_weights, *steps.d_state()


def keep(ctx: Any, loop: Any, tensors: Sequence[Tensor]) -> None:
    """Keeps the buffers of a loop for its backward, which overwrites them: it can be run once."""
    ctx.loop = loop
    ctx.save_for_backward(*tensors)
    ctx.set_materialize_grads(False)


def taken(ctx: Any) -> Any:
    _ = ctx.saved_tensors  # raises if they were changed since, or used up by a backward before
    if ctx.loop is None:
        raise RuntimeError("the backward of a fused loop can be run only once")
    loop, ctx.loop = ctx.loop, None
    return loop


class AttentionSteps:
    """The steps of attention: the weights and the context of each query, for values [B, S, M]."""

    def __init__(self, rows: Rows, values: Tensor) -> None:
        batch, positions, memory = values.shape
        self.rows, self.values = rows, values
        self.context = buffer(values, len(rows) + 1, (batch, memory), rows)
        self.context[0] = 0.0
        self.weights = buffer(values, len(rows), (batch, positions), rows)
        parts = (self.weights, self.weights.unsqueeze(2), self.context[1:].unsqueeze(2))
        self.at = list(zip(*(at_each_step(part, rows) for part in parts), for_each_step(values, rows), strict=True))

    def scores(self, t: int, query: Tensor) -> Tensor:
        """The scores [B, S] of a query [B, H], very low at padding."""
        raise NotImplementedError

    def d_scores_backward(self, t: int, d_scores: Tensor, d_query: Tensor) -> None:
        """Takes the gradient [B, S] of the scores, and adds to d_query."""
        raise NotImplementedError

    def d_tensors(self, queries: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of all that the scores are made of besides the queries [T, B, H]."""
        raise NotImplementedError

    def forward(self, t: int, query: Tensor) -> None:
        """Computes weights[t] and context[t + 1] for a query [B, H]."""
        weights, row_weights, new_context, values = self.at[t]
        torch.softmax(self.scores(t, query), dim=-1, out=weights)
        torch.bmm(row_weights, values, out=new_context)

    def start_backward(self, d_context: Tensor | None, d_weights: Tensor | None) -> None:
        self.d_context = torch.zeros_like(self.context)
        if d_context is not None:
            self.d_context[1:] = d_context
        self.d_weights = d_weights
        self.d_scores = buffer(self.weights, len(self.weights), self.weights.shape[1:], self.rows)
        parts = (self.weights, self.d_scores, self.d_context[1:].unsqueeze(2))
        values = for_each_step(self.values.transpose(1, 2), self.rows)
        self.derivatives = list(zip(*(at_each_step(part, self.rows) for part in parts), values, strict=True))

    def backward(self, t: int, d_query: Tensor) -> None:
        """Takes d_context[t + 1], and adds to d_query."""
        weights, d_scores, d_context, values_t = self.derivatives[t]
        d_weights = torch.bmm(d_context, values_t).squeeze(1)
        if self.d_weights is not None:
            d_weights += self.d_weights[t, : len(weights)]
        torch.ops.aten._softmax_backward_data.out(d_weights, weights, -1, weights.dtype, grad_input=d_scores)
        self.d_scores_backward(t, d_scores, d_query)

    def d_values(self) -> Tensor:
        return torch.bmm(self.weights.permute(1, 2, 0), self.d_context[1:].transpose(0, 1))


class DotSteps(AttentionSteps):
    """score = k · query + bias, for keys [B, S, H] and biases [B, S], very low at padding."""

    def __init__(self, rows: Rows, values: Tensor, keys: Tensor, biases: Tensor) -> None:
        super().__init__(rows, values)
        self.keys, self.keys_t = for_each_step(keys, rows), for_each_step(keys.transpose(1, 2), rows)
        self.row_biases = for_each_step(biases.unsqueeze(1), rows)

    def scores(self, t: int, query: Tensor) -> Tensor:
        return torch.baddbmm(self.row_biases[t], query.unsqueeze(1), self.keys_t[t]).squeeze(1)

    def d_scores_backward(self, t: int, d_scores: Tensor, d_query: Tensor) -> None:
        d_query.unsqueeze(1).baddbmm_(d_scores.unsqueeze(1), self.keys[t])

    def d_tensors(self, queries: Tensor) -> tuple[Tensor | None, ...]:
        return torch.bmm(self.d_scores.permute(1, 2, 0), queries.transpose(0, 1)), self.d_scores.sum(0)


class AdditiveSteps(AttentionSteps):
    """score = 2 v · sigmoid(2 (k + query W)) + bias, which is v · tanh(k + query W) but for a constant that cancels.

    For keys [B, S, A], biases [B, S], very low at padding and without gradient, W [H, A] and v [A].
    """

    def __init__(self, rows: Rows, values: Tensor, keys: Tensor, biases: Tensor, weights: Tensor, v: Tensor) -> None:
        super().__init__(rows, values)
        self.twice_keys, self.biases = for_each_step(keys * 2.0, rows), for_each_step(biases, rows)
        self.twice_weights, self.twice_v = weights * 2.0, v * 2.0
        self.hidden = values.new_empty(len(rows), *keys.shape)
        self.hidden_at = at_each_step(self.hidden, rows)

    def scores(self, t: int, query: Tensor) -> Tensor:
        hidden, biases = self.hidden_at[t], self.biases[t]
        torch.add(self.twice_keys[t], (query @ self.twice_weights).unsqueeze(1), out=hidden).sigmoid_()
        return torch.addmv(biases.flatten(), hidden.flatten(0, 1), self.twice_v).view_as(biases)

    def start_backward(self, d_context: Tensor | None, d_weights: Tensor | None) -> None:
        super().start_backward(d_context, d_weights)
        time, batch, _, units = self.hidden.shape
        self.d_query_part = buffer(self.hidden, time, (batch, units), self.rows)
        self.d_keys, self.d_v = torch.zeros_like(self.hidden[0]), torch.zeros_like(self.twice_v)

    def d_scores_backward(self, t: int, d_scores: Tensor, d_query: Tensor) -> None:
        hidden, d_query_part = self.hidden_at[t], self.d_query_part[t, : len(d_scores)]
        self.d_v.addmv_(hidden.flatten(0, 1).t(), d_scores.flatten())
        hidden.addcmul_(hidden, hidden, value=-1.0)  # sigmoid' = sigmoid (1 - sigmoid)
        torch.bmm(d_scores.unsqueeze(1), hidden, out=d_query_part.unsqueeze(1))
        d_query_part.mul_(self.twice_v)
        self.d_keys[: len(d_scores)].addcmul_(hidden, d_scores.unsqueeze(-1))
        d_query.addmm_(d_query_part, self.twice_weights.t())

    def d_tensors(self, queries: Tensor) -> tuple[Tensor | None, ...]:
        d_weights = (queries.flatten(0, 1).t() @ self.d_query_part.flatten(0, 1)).mul_(2.0)
        return self.d_keys * (self.twice_v * 2.0), None, d_weights, self.d_v * 2.0


@dataclass(frozen=True)
class Lookup:
    """Attention as the loop here runs it: the class of its steps, and what they take; `weights` are the scores'."""

    steps: type[AttentionSteps]
    values: Tensor
    keys: Tensor
    biases: Tensor
    weights: tuple[Tensor, ...] = ()

    def reordered(self, rows: Tensor) -> "Lookup":
        return Lookup(self.steps, self.values[rows], self.keys[rows], self.biases[rows], self.weights)


def attend(
    recurrences: Sequence[Recurrence], lookup: Lookup, x: Tensor, states: Sequence[Sequence[Tensor]], rows: Rows
) -> tuple[Tensor, Tensor, Tensor]:
    """Runs layers of cells, each over the outputs of the one below, with the top one's output as attention's query.

    y_t, s_t = cells([x_t, context_{t-1}], s_{t-1}),  context_t = attention(y_t),  for x [T, B, X].
    Returns the outputs [T, B, H], the contexts [T, B, M] and the weights [T, B, S]. Step t computes the first rows[t]
    rows only; the rest is zero.
    """
    layers = [tensor for r, state in zip(recurrences, states, strict=True) for tensor in (*r.weights, *state)]
    tensors = (*layers, lookup.values, lookup.keys, lookup.biases, *lookup.weights)
    result = Attend.apply(recurrences, lookup.steps, rows, x, *tensors)  # type: ignore[no-untyped-call]
    outputs, contexts, weights = result
    return outputs, contexts, weights


class Attend(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        recurrences: Sequence[Recurrence],
        attention_steps: type[AttentionSteps],
        rows: Rows,
        x: Tensor,
        *tensors: Tensor,
    ) -> tuple[Tensor, ...]:
        layers: list[Steps] = []
        rest = list(tensors)
        for r in recurrences:
            weights, state = taken_off(rest, len(r.weights)), taken_off(rest, r.steps.STATE)
            layers.append(r.steps(None if layers else x, rows, weights, state, **r.options))
        attention = attention_steps(rows, *rest)
        below = [attention.context, *(layer.output[1:] for layer in layers)]
        inputs = [at_each_step(tensor, rows) for tensor in below]
        for t in range(len(rows)):
            for layer, x_below in zip(layers, inputs, strict=False):
                layer.forward(t, x_below[t])
            attention.forward(t, inputs[-1][t])
        keep(ctx, (layers, attention, below, rows), tensors)
        return below[-1], attention.context[1:], attention.weights

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, d_outputs: Tensor | None, d_contexts: Tensor | None, d_weights: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        layers, attention, below, rows = taken(ctx)
        attention.start_backward(d_contexts, d_weights)
        for layer in layers:
            layer.start_backward(d_outputs if layer is layers[-1] else None, ())
        d_below = [attention.d_context, *(layer.d_output[1:] for layer in layers)]
        d_inputs = [at_each_step(tensor, rows) for tensor in d_below]
        for t in reversed(range(len(rows))):
            attention.backward(t, d_inputs[-1][t])
            for layer, d_input in zip(reversed(layers), reversed(d_inputs[:-1]), strict=True):
                layer.backward(t, d_input[t])
        d_x, d_layers = None, []
        for layer, tensor in zip(layers, [attention.context[:-1], *below[:-1][1:]], strict=True):
            d_layer_x, d_weights = layer.d_x_and_weights(tensor)
            d_x = d_layer_x if d_x is None else d_x
            d_layers += [*d_weights, *layer.d_state()]
        return None, None, None, d_x, *d_layers, attention.d_values(), *attention.d_tensors(below[-1])


def taken_off(tensors: list[Tensor], number: int) -> list[Tensor]:
    """Removes the first tensors of a list and returns them."""
    first, tensors[:] = tensors[:number], tensors[number:]
    return first
