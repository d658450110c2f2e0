"""The loop of an attention decoder with a written-out gradient, as in `cell_loops`.

B batch · S source positions · T steps · X input units · H cell units · M memory units
A attention units

Time is the first dimension. Step t writes row t + 1 of a buffer [T + 1, ...]. The prefix d_ means
the gradient of the loss. The order of the calls is in the docstring of nn/fast.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from s2s_search.nn.fast import native
from s2s_search.nn.fast.cell_loops import (
    Recurrence,
    Rows,
    Steps,
    TokenInputs,
    at_each_step,
    buffer,
    for_each_step,
    keep,
    taken,
)
from s2s_search.nn.fast.matmul import mm


class AttentionSteps:
    """The steps of attention, with the buffers of one batch.

    A step computes the weights [B, S] and the context [B, M] of its query, the output [B, H] of
    the top layer.
    """

    def __init__(
        self,
        rows: Rows,
        values: Tensor,
        keys: Tensor,
        biases: Tensor,
        *weights: Tensor,
        differentiable: bool = True,
    ) -> None:
        """Makes the buffers of the forward loop.

        Args:
            rows: The number of rows that each step computes.
            values: [B, S, M].
            keys: [B, S, H] of dot scores, [B, S, A] of additive ones.
            biases: [B, S], added to the scores; very low at padding.
            weights: The parameters of the scores, if they have any.
            differentiable: False when no gradient will be asked for. Only the contexts and the
                weights are then kept of each step.
        """
        self.kept = differentiable
        batch, positions, memory = values.shape
        self.rows, self.values, self.keys = rows, values.contiguous(), keys.contiguous()
        self.biases = biases.contiguous()
        # The row of values and keys that each row attends to [B]; None for its own. Greedy
        # decoding sets it, since there rows move up when others end.
        self.sources: Tensor | None = None
        self.context = buffer(values, len(rows) + 1, (batch, memory), rows)
        self.context[0] = 0.0
        self.weights = buffer(values, len(rows), (batch, positions), rows)

    def start(self) -> None:
        """Prepares the torch loop: the views that each `forward` reads and writes."""
        # The scores of all steps begin with the biases: on a GPU one launch in place of one a step.
        scores = self.biases.expand_as(self.weights).contiguous()
        parts = (scores, self.weights, self.weights.unsqueeze(2), self.context[1:].unsqueeze(2))
        values = for_each_step(self.values, self.rows)
        self.at = list(zip(*(at_each_step(part, self.rows) for part in parts), values, strict=True))

    def forward(self, t: int, query: Tensor) -> None:
        """Computes weights[t] and context[t + 1] of a query [B, H]."""
        scores, weights, row_weights, new_context, values = self.at[t]
        self.add_scores(t, query, scores)
        torch.softmax(scores, dim=-1, out=weights)
        torch.bmm(row_weights, values, out=new_context)

    def add_scores(self, t: int, query: Tensor, scores: Tensor) -> None:
        """Adds the scores of a query [B, H] to their biases in `scores` [B, S]."""
        raise NotImplementedError

    def take_gradients(self, d_context: Tensor | None, d_weights: Tensor | None) -> None:
        """Makes the buffers of the backward loop and fills in the gradients that are known.

        Args:
            d_context: The gradient of the contexts [T, B, M], or None for zeros.
            d_weights: The gradient of the weights [T, B, S], or None for zeros.
        """
        self.d_context = torch.zeros_like(self.context)
        if d_context is not None:
            self.d_context[1:] = d_context
        self.d_weights = None if d_weights is None else d_weights.contiguous()
        self.d_scores = buffer(self.weights, len(self.weights), self.weights.shape[1:], self.rows)

    def start_backward(self) -> None:
        """Prepares the torch loop: the views that each `backward` reads and writes."""
        parts = (self.weights, self.d_scores, self.d_context[1:].unsqueeze(2))
        values = for_each_step(self.values.transpose(1, 2), self.rows)
        self.derivatives = list(
            zip(*(at_each_step(part, self.rows) for part in parts), values, strict=True)
        )

    def backward(self, t: int, d_query: Tensor) -> None:
        """Reads d_context[t + 1] and adds the gradient of the query to d_query [B, H]."""
        weights, d_scores, d_context, values_t = self.derivatives[t]
        d_weights = torch.bmm(d_context, values_t).squeeze(1)
        if self.d_weights is not None:
            d_weights += self.d_weights[t, : len(weights)]
        torch.ops.aten._softmax_backward_data.out(
            d_weights, weights, -1, weights.dtype, grad_input=d_scores
        )
        self.d_scores_backward(t, d_scores, d_query)

    def d_scores_backward(self, t: int, d_scores: Tensor, d_query: Tensor) -> None:
        """Adds the gradient of the query to d_query [B, H], given that of the scores [B, S]."""
        raise NotImplementedError

    def arguments(
        self, queries: Tensor, d_queries: Tensor | None = None
    ) -> native.AttentionArguments:
        """Returns the structure that the compiled loop reads.

        `queries` [T, B, H] are the buffer of all queries. In the backward loop `d_queries` is the
        buffer to which it adds their gradients.
        """
        raise NotImplementedError

    def shared_arguments(
        self, queries: Tensor, d_queries: Tensor | None
    ) -> dict[str, Tensor | int | None]:
        """Returns the fields of the structure that both kinds of attention have in common."""
        given: dict[str, Tensor | int | None] = {
            "batch": self.values.shape[0],
            "positions": self.values.shape[1],
            "query_units": queries.shape[-1],
            "memory_units": self.values.shape[-1],
            "units": self.keys.shape[-1],
            "query": queries,
            "values": self.values,
            "keys": self.keys,
            "biases": self.biases,
            "sources": self.sources,
            "weights": self.weights,
            "context": self.context,
        }
        if d_queries is not None:
            given |= {
                "d_context": self.d_context,
                "d_scores": self.d_scores,
                "d_weights": self.d_weights,
                "d_query": d_queries,
            }
        return given

    def d_values(self) -> Tensor:
        """Returns the gradient of the values [B, S, M]."""
        return torch.bmm(self.weights.permute(1, 2, 0), self.d_context[1:].transpose(0, 1))

    def d_tensors(self, queries: Tensor) -> tuple[Tensor | None, ...]:
        """Returns the gradients of keys, biases and the parameters of the scores.

        `queries` are [T, B, H]. None stands for a tensor that needs no gradient.
        """
        raise NotImplementedError


class DotSteps(AttentionSteps):
    """Dot scores: score = k · query + bias, for keys k [B, S, H] and biases [B, S]."""

    def start(self) -> None:
        super().start()
        self.keys_t = for_each_step(self.keys.transpose(1, 2), self.rows)

    def add_scores(self, t: int, query: Tensor, scores: Tensor) -> None:
        scores.unsqueeze(1).baddbmm_(query.unsqueeze(1), self.keys_t[t])

    def start_backward(self) -> None:
        super().start_backward()
        self.keys_at = for_each_step(self.keys, self.rows)

    def d_scores_backward(self, t: int, d_scores: Tensor, d_query: Tensor) -> None:
        d_query.unsqueeze(1).baddbmm_(d_scores.unsqueeze(1), self.keys_at[t])

    def arguments(
        self, queries: Tensor, d_queries: Tensor | None = None
    ) -> native.AttentionArguments:
        return native.AttentionArguments(**self.shared_arguments(queries, d_queries))

    def d_tensors(self, queries: Tensor) -> tuple[Tensor | None, ...]:
        d_keys = torch.bmm(self.d_scores.permute(1, 2, 0), queries.transpose(0, 1))
        return d_keys, self.d_scores.sum(0)


class AdditiveSteps(AttentionSteps):
    """Additive scores: score = 2 v · sigmoid(2 (k + query W)) + bias.

    That is v · tanh(k + query W) + bias plus a constant, which cancels in the softmax. The keys k
    are [B, S, A], the biases [B, S] without gradient, W is [H, A] and v [A].
    """

    def __init__(
        self,
        rows: Rows,
        values: Tensor,
        keys: Tensor,
        biases: Tensor,
        weights: Tensor,
        v: Tensor,
        differentiable: bool = True,
    ) -> None:
        super().__init__(rows, values, keys * 2.0, biases, differentiable=differentiable)
        self.twice_weights, self.twice_v = (weights * 2.0).contiguous(), v * 2.0
        self.hidden = values.new_empty(len(rows) if self.kept else 1, *keys.shape)

    def start(self) -> None:
        super().start()
        self.keys_at = for_each_step(self.keys, self.rows)
        self.hidden_at = at_each_step(self.hidden.expand(len(self.rows), -1, -1, -1), self.rows)

    def add_scores(self, t: int, query: Tensor, scores: Tensor) -> None:
        hidden = self.hidden_at[t]
        torch.add(self.keys_at[t], (query @ self.twice_weights).unsqueeze(1), out=hidden).sigmoid_()
        scores.view(-1).addmv_(hidden.flatten(0, 1), self.twice_v)

    def take_gradients(self, d_context: Tensor | None, d_weights: Tensor | None) -> None:
        super().take_gradients(d_context, d_weights)
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

    def arguments(
        self, queries: Tensor, d_queries: Tensor | None = None
    ) -> native.AttentionArguments:
        given = self.shared_arguments(queries, d_queries)
        given |= {
            "additive": 1,
            "query_weights": self.twice_weights,
            "v": self.twice_v,
            "hidden": self.hidden,
            "hidden_rows": len(self.hidden),
        }
        if d_queries is None:
            projected_query = self.keys.new_empty(len(self.keys), self.keys.shape[-1])
            return native.AttentionArguments(**given, scratch=projected_query)
        gradients = {"d_query_part": self.d_query_part, "d_keys": self.d_keys, "d_v": self.d_v}
        return native.AttentionArguments(**given, **gradients)

    def d_tensors(self, queries: Tensor) -> tuple[Tensor | None, ...]:
        d_weights = mm(queries.flatten(0, 1).t(), self.d_query_part.flatten(0, 1)).mul_(2.0)
        return self.d_keys * (self.twice_v * 2.0), None, d_weights, self.d_v * 2.0


class Dropout:
    """A dropout between two layers: output[t] = mask[t] * below[t], for both [T, B, ...].

    It stands before each layer and before attention. Without a mask, `output` is `below` itself
    and `d_output` is `d_below`, so that its steps have nothing to do.
    """

    def __init__(self, rows: Rows, below: Tensor, mask: Tensor | None) -> None:
        self.rows, self.below, self.mask = rows, below, mask
        self.output = below if mask is None else buffer(below, len(rows), below.shape[1:], rows)

    def start(self) -> None:
        """Prepares the torch loop: the views that each `forward` reads and writes."""
        if self.mask is not None:
            parts = (self.mask, self.below, self.output)
            self.at = list(zip(*(at_each_step(part, self.rows) for part in parts), strict=True))

    def forward(self, t: int) -> None:
        """Computes output[t]."""
        if self.mask is not None:
            mask, below, output = self.at[t]
            torch.mul(mask, below, out=output)

    def take_gradients(self, d_below: Tensor, d_output: Tensor | None = None) -> None:
        """Makes the gradient buffer of the output.

        `d_below` is the buffer to which the loop adds the gradient of `below`. `d_output` is the
        part of the output's gradient that is known before the loop, or None for zeros.
        """
        self.d_below = d_below
        self.d_output = d_below if self.mask is None else torch.zeros_like(d_below)
        if d_output is not None:
            self.d_output.copy_(d_output)

    def start_backward(self) -> None:
        """Prepares the torch loop: the views that each `backward` reads and writes."""
        if self.mask is not None:
            parts = (self.mask, self.d_below, self.d_output)
            self.derivatives = list(
                zip(*(at_each_step(part, self.rows) for part in parts), strict=True)
            )

    def backward(self, t: int) -> None:
        """Adds mask[t] * d_output[t] to d_below[t]."""
        if self.mask is not None:
            mask, d_below, d_output = self.derivatives[t]
            d_below.addcmul_(mask, d_output)

    def arguments(self, backward: bool) -> native.DropoutArguments:
        """Returns the structure that the compiled loop reads."""
        _, batch, units = self.below.shape
        given = {"mask": self.mask, "below": self.below, "output": self.output}
        if backward:
            given |= {"d_output": self.d_output, "d_below": self.d_below}
        return native.DropoutArguments(batch=batch, units=units, **given)


@dataclass(frozen=True)
class Lookup:
    """Attention as this loop runs it: the class of its steps, and their tensors.

    values [B, S, M] · keys [B, S, H] or [B, S, A] · biases [B, S] · the parameters of the scores
    """

    steps: type[AttentionSteps]
    values: Tensor
    keys: Tensor
    biases: Tensor
    weights: tuple[Tensor, ...] = ()

    def reordered(self, rows: Tensor) -> "Lookup":
        """Returns the same attention for the batch in the order of `rows` [B]."""
        return Lookup(
            self.steps, self.values[rows], self.keys[rows], self.biases[rows], self.weights
        )


def attend(
    recurrences: Sequence[Recurrence],
    lookup: Lookup,
    x: Tensor,
    states: Sequence[Sequence[Tensor]],
    rows: Rows,
    masks: Sequence[Tensor | None],
    tokens: TokenInputs | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Runs all steps of a decoder with attention.

    y_t, s_t = cells([x_t, context_{t-1}], s_{t-1})
    context_t = attention(y_t)

    Args:
        recurrences: The cells of the layers, each over the outputs of the one below.
        lookup: Attention, whose query is the output of the top layer.
        x: The inputs [T, B, X].
        states: The state of each layer before the first step, [B, H] each.
        rows: The number of rows that each step computes, the first ones of the batch.
        masks: Dropout's masks, None for none: of the contexts [T, B, M] that the first layer
            reads, then of the outputs [T, B, H] of each layer.
        tokens: Where x comes from, if x is a row of a table.

    Returns:
        The outputs [T, B, H] after dropout, the contexts [T, B, M] and the weights [T, B, S]. Rows
        that a step does not compute are zero.
    """
    layers: list[Tensor] = []
    for recurrence, state in zip(recurrences, states, strict=True):
        layers += [*recurrence.weights, *state]
    tensors = (*layers, lookup.values, lookup.keys, lookup.biases, *lookup.weights)
    outputs, contexts, weights = Attend.apply(  # type: ignore[no-untyped-call]
        recurrences, lookup.steps, rows, masks, tokens, torch.is_grad_enabled(), x, *tensors
    )
    return outputs, contexts, weights


class Attend(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        recurrences: Sequence[Recurrence],
        attention_steps: type[AttentionSteps],
        rows: Rows,
        masks: Sequence[Tensor | None],
        tokens: TokenInputs | None,
        differentiable: bool,
        x: Tensor,
        *tensors: Tensor,
    ) -> tuple[Tensor, ...]:
        rest = list(tensors)
        of_layers = [
            (taken_off(rest, len(r.weights)), taken_off(rest, r.steps.STATE)) for r in recurrences
        ]
        attention = attention_steps(rows, *rest, differentiable=differentiable)
        layers: list[Steps] = []
        dropouts = [Dropout(rows, attention.context[:-1], masks[0])]
        for r, (weights, state), mask in zip(recurrences, of_layers, masks[1:], strict=True):
            below = dropouts[-1].output
            is_first = not layers
            layer = r.steps(
                rows,
                x if is_first else None,
                below,
                weights,
                state,
                tokens=tokens if is_first else None,
                differentiable=differentiable,
            )
            layers.append(layer)
            dropouts.append(Dropout(rows, layer.output[1:], mask))
        run_forward(layers, dropouts, attention)
        keep(ctx, (layers, dropouts, attention), tensors)
        return dropouts[-1].output, attention.context[1:], attention.weights

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, d_outputs: Tensor | None, d_contexts: Tensor | None, d_weights: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        layers, dropouts, attention = taken(ctx)
        attention.take_gradients(d_contexts, d_weights)
        d_below = attention.d_context[:-1]
        for layer, dropout in zip(layers, dropouts[:-1], strict=True):
            dropout.take_gradients(d_below)
            layer.take_gradients(None, (), dropout.d_output)
            d_below = layer.d_output[1:]
        dropouts[-1].take_gradients(d_below, d_outputs)
        run_backward(layers, dropouts, attention)
        d_x, d_layers = None, []
        for layer in layers:
            d_layer_x, d_layer_weights = layer.d_x_and_weights()
            if d_x is None:  # only the first layer has an x
                d_x = d_layer_x
            d_layers += [*d_layer_weights, *layer.d_first_state()]
        queries = dropouts[-1].output
        return *[None] * 6, d_x, *d_layers, attention.d_values(), *attention.d_tensors(queries)


def run_forward(
    layers: Sequence[Steps], dropouts: Sequence[Dropout], attention: AttentionSteps
) -> None:
    """Runs the forward loop, compiled or in torch.

    At each step every layer follows its dropout, from the bottom, and attention follows the last.
    """
    last, rows = dropouts[-1], attention.rows
    if layers[0].compiled:
        cells = [layer.arguments(backward=False) for layer in layers]
        dropped = [dropout.arguments(backward=False) for dropout in dropouts]
        native.run_loops(
            "forward", last.output.dtype, cells, rows, attention.arguments(last.output), dropped
        )
        return
    parts: list[Steps | Dropout | AttentionSteps] = [*layers, *dropouts, attention]
    for part in parts:
        part.start()
    inputs = [at_each_step(dropout.output, rows) for dropout in dropouts]
    for t in range(len(rows)):
        for layer, dropout, layer_input in zip(layers, dropouts[:-1], inputs[:-1], strict=True):
            dropout.forward(t)
            layer.forward(t, layer_input[t])
        last.forward(t)
        attention.forward(t, inputs[-1][t])


def run_backward(
    layers: Sequence[Steps], dropouts: Sequence[Dropout], attention: AttentionSteps
) -> None:
    """Runs the backward loop, compiled or in torch: the steps of `run` in the opposite order."""
    last, rows = dropouts[-1], attention.rows
    if layers[0].compiled:
        cells = [layer.arguments(backward=True) for layer in layers]
        dropped = [dropout.arguments(backward=True) for dropout in dropouts]
        of_attention = attention.arguments(last.output, last.d_output)
        native.run_loops("backward", last.output.dtype, cells, rows, of_attention, dropped)
        return
    parts: list[Steps | Dropout | AttentionSteps] = [*layers, *dropouts, attention]
    for part in parts:
        part.start_backward()
    d_inputs = [at_each_step(dropout.d_output, rows) for dropout in dropouts]
    for t in reversed(range(len(rows))):
        attention.backward(t, d_inputs[-1][t])
        last.backward(t)
        for layer, dropout, d_input in zip(
            layers[::-1], dropouts[-2::-1], d_inputs[-2::-1], strict=True
        ):
            layer.backward(t, d_input[t])
            dropout.backward(t)


def taken_off(tensors: list[Tensor], number: int) -> list[Tensor]:
    """Removes the first `number` tensors from a list and returns them."""
    first, tensors[:] = tensors[:number], tensors[number:]
    return first
