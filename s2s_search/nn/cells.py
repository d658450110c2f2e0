"""The recurrent cells, by the names that a `cell_spec` gives them.

B batch · I input units · H cell units · O output units (H, or the width of the projection)
A state is a flat tuple of [B, ...] tensors: layer by layer, and c before h in an LSTM.
"""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s2s_search.corpus.batches import moved
from s2s_search.nn.fast import cell_loops
from s2s_search.nn.fast.matmul import addmm

State = tuple[Tensor, ...]

ACTIVATION_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda x: x,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
}


def glorot(*shape: int) -> nn.Parameter:
    """Returns a Glorot-uniform parameter (Glorot & Bengio, 2010).

    The length of a vector is both its fan-in and its fan-out.
    """
    limit = math.sqrt(6.0 / (shape[0] + shape[-1]))
    return nn.Parameter(torch.empty(shape).uniform_(-limit, limit))


def kernel(inputs: int, outputs: int, gates: int) -> tuple[nn.Parameter, nn.Parameter]:
    """Returns a Glorot-uniform matrix [inputs + outputs, gates] in two parts.

    The first part has the rows that multiply the input, the second those that multiply the state.
    A loop that cut one matrix at every step would sum gradients of the whole matrix at every step.
    """
    whole = glorot(inputs + outputs, gates).detach()
    return nn.Parameter(whole[:inputs].clone()), nn.Parameter(whole[inputs:].clone())


def constant(value: float, size: int) -> nn.Parameter:
    """Returns a parameter [size] of equal values."""
    return nn.Parameter(torch.full((size,), value))


class Linear(nn.Linear):
    """torch's linear layer, x [..., I] -> [..., O], with the products of fast.matmul."""

    def forward(self, x: Tensor) -> Tensor:
        return addmm(self.bias, x.flatten(0, -2), self.weight.t()).view(
            *x.shape[:-1], self.out_features
        )


def linear(inputs: int, outputs: int) -> Linear:
    """Returns a linear layer with Glorot-uniform weights and zero biases."""
    layer = Linear(inputs, outputs)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def dropout(x: Tensor, keep_prob: float, training: bool) -> Tensor:
    """Returns x, in training with dropout.

    Dropout zeroes each value with probability 1 - keep_prob and divides the others by keep_prob.
    """
    mask = dropout_mask(x, keep_prob) if training else None
    return x if mask is None else x * mask


def dropout_mask(like: Tensor, keep_prob: float) -> Tensor | None:
    """Returns random factors for a dropout: 1 / keep_prob with probability keep_prob, else 0.

    They are drawn on the CPU. What a GPU draws depends on its model, so a trial would take another
    course on another GPU. Returns None when nothing is dropped.
    """
    if keep_prob < 1.0:
        mask = torch.empty_like(like, device="cpu").bernoulli_(keep_prob).div_(keep_prob)
        return moved(mask, like.device)
    return None


class Cell(nn.Module):
    """Maps an input and a state to an output and the next state.

    `project` computes the part that depends on the input alone, so that `unroll` calls it once for
    all positions. In the equations below [x, h] W means x `input_weights` + h `recurrent_weights`.
    """

    input_weights: nn.Parameter  # [I, gates]

    def __init__(self, input_size: int, output_size: int, state_sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.input_size, self.output_size, self.state_sizes = input_size, output_size, state_sizes

    def initial_state(self, batch_size: int, like: Tensor) -> State:
        """Returns a state of zeros, [B, size] each, of the type and on the device of `like`."""
        return tuple(like.new_zeros(batch_size, size) for size in self.state_sizes)

    def project(self, inputs: Tensor) -> Tensor:
        """Returns the inputs' part of the gates [..., gates], for inputs [..., I]."""
        raise NotImplementedError

    def step(self, projected: Tensor, state: State) -> tuple[Tensor, State]:
        """Returns the output [B, O] and the next state, for a projected input [B, gates]."""
        raise NotImplementedError

    def forward(self, inputs: Tensor, state: State) -> tuple[Tensor, State]:
        return self.step(self.project(inputs), state)

    def recurrence(self) -> cell_loops.Recurrence | None:
        """Returns this cell in the form that the fast loops take; None if they do not know it."""
        return None


class BasicRNNCell(Cell):
    """A simple recurrent cell: h' = tanh([x, h] W + b)."""

    def __init__(self, input_size: int, num_units: int, activation: str = "tanh") -> None:
        super().__init__(input_size, num_units, (num_units,))
        self.activation = ACTIVATION_FUNCTIONS[activation]
        self.input_weights, self.recurrent_weights = kernel(input_size, num_units, num_units)
        self.biases = constant(0.0, num_units)

    def project(self, inputs: Tensor) -> Tensor:
        return inputs @ self.input_weights + self.biases

    def step(self, projected: Tensor, state: State) -> tuple[Tensor, State]:
        h = self.activation(torch.addmm(projected, state[0], self.recurrent_weights))
        return h, (h,)


class GRUCell(Cell):
    """A gated recurrent unit (Cho et al., 2014).

    r, u = sigmoid([x, h] W_gates + b_gates)
    c = tanh([x, r * h] W_candidate + b_candidate)
    h' = u * h + (1 - u) * c

    torch's GRU multiplies by r after the candidate's product; this one does so before, as the
    original does.
    """

    def __init__(self, input_size: int, num_units: int, activation: str = "tanh") -> None:
        super().__init__(input_size, num_units, (num_units,))
        self.activation = ACTIVATION_FUNCTIONS[activation]
        gate_inputs, self.gate_weights = kernel(input_size, num_units, 2 * num_units)
        candidate_inputs, self.candidate_weights = kernel(input_size, num_units, num_units)
        self.input_weights = nn.Parameter(
            torch.cat([gate_inputs, candidate_inputs], dim=1).detach()
        )
        self.biases = nn.Parameter(torch.cat([torch.ones(2 * num_units), torch.zeros(num_units)]))

    def project(self, inputs: Tensor) -> Tensor:
        return inputs @ self.input_weights + self.biases

    def step(self, projected: Tensor, state: State) -> tuple[Tensor, State]:
        (h,) = state
        gates, candidate = torch.split(projected, [2 * self.output_size, self.output_size], dim=-1)
        r, u = torch.sigmoid(torch.addmm(gates, h, self.gate_weights)).chunk(2, dim=-1)
        c = self.activation(torch.addmm(candidate, r * h, self.candidate_weights))
        h = torch.lerp(c, h, u)
        return h, (h,)

    def recurrence(self) -> cell_loops.Recurrence | None:
        if self.activation is not torch.tanh:
            return None
        weights = (self.input_weights, self.gate_weights, self.candidate_weights, self.biases)
        return cell_loops.Recurrence(cell_loops.GRUSteps, weights)


class GRUBlockCell(GRUCell):
    """The original's fused GRU: the equations of GRUCell, with the size called `cell_size`."""

    def __init__(self, input_size: int, cell_size: int) -> None:
        super().__init__(input_size, cell_size)


class LSTMCell(Cell):
    """A long short-term memory (Hochreiter & Schmidhuber, 1997).

    i, j, f, o = [x, h] W + b
    c' = clip(sigmoid(f + forget_bias + w_f * c) * c + sigmoid(i + w_i * c) * tanh(j))
    h' = clip((sigmoid(o + w_o * c') * tanh(c')) W_projection)

    `use_peepholes` adds the w terms and `num_proj` the projection (both as in Sak et al., 2014),
    `cell_clip` and `proj_clip` add the clips. Without `state_is_tuple` the state is one tensor
    [c, h].
    """

    def __init__(
        self,
        input_size: int,
        num_units: int,
        use_peepholes: bool = False,
        cell_clip: float | None = None,
        num_proj: int | None = None,
        proj_clip: float | None = None,
        forget_bias: float = 1.0,
        state_is_tuple: bool = True,
        activation: str = "tanh",
    ) -> None:
        output = num_proj or num_units
        super().__init__(
            input_size, output, (num_units, output) if state_is_tuple else (num_units + output,)
        )
        self.num_units, self.forget_bias = num_units, forget_bias
        self.cell_clip, self.proj_clip = cell_clip, proj_clip
        self.activation = ACTIVATION_FUNCTIONS[activation]
        self.make_gates(use_peepholes)
        self.projection = glorot(num_units, num_proj) if num_proj else None

    def make_gates(self, use_peepholes: bool) -> None:
        """Makes the parameters of the gates."""
        n = self.num_units
        self.input_weights, self.recurrent_weights = kernel(
            self.input_size, self.output_size, 4 * n
        )
        self.biases: nn.Parameter | None = constant(0.0, 4 * n)
        self.w_i_diag, self.w_f_diag, self.w_o_diag = (
            glorot(n) if use_peepholes else None for _ in range(3)
        )

    def project(self, inputs: Tensor) -> Tensor:
        projected = inputs @ self.input_weights
        return projected if self.biases is None else projected + self.biases

    def step(self, projected: Tensor, state: State) -> tuple[Tensor, State]:
        if len(state) == 2:
            c, h = state
        else:
            c, h = torch.split(state[0], [self.num_units, self.output_size], dim=-1)
        c, o = self.remember(torch.addmm(projected, h, self.recurrent_weights), c)
        h = torch.sigmoid(o) * self.activation(c)
        if self.projection is not None:
            h = h @ self.projection
            if self.proj_clip is not None:
                h = h.clamp(-self.proj_clip, self.proj_clip)
        if len(state) == 2:
            return h, (c, h)
        return h, (torch.cat([c, h], dim=-1),)

    def remember(self, gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the new c and the output gate before its sigmoid, both [B, H]."""
        i, j, f, o = gates.chunk(4, dim=-1)
        if self.w_i_diag is not None and self.w_f_diag is not None:
            i, f = i + self.w_i_diag * c, f + self.w_f_diag * c
        c = self.clip(
            torch.sigmoid(f + self.forget_bias) * c + torch.sigmoid(i) * self.activation(j)
        )
        if self.w_o_diag is not None:
            o = o + self.w_o_diag * c
        return c, o

    def clip(self, c: Tensor) -> Tensor:
        """Returns c within +-`cell_clip`, if there is one."""
        return c if self.cell_clip is None else c.clamp(-self.cell_clip, self.cell_clip)

    def recurrence(self) -> cell_loops.Recurrence | None:
        # The loops know the equations of this class with tanh: a subclass may have its own.
        if type(self).remember is not LSTMCell.remember or self.activation is not torch.tanh:
            return None
        extras = (self.w_i_diag, self.cell_clip, self.projection)  # proj_clip needs a projection
        if any(extra is not None for extra in extras):
            return None
        if self.biases is None or len(self.state_sizes) != 2:
            return None
        forget_bias = torch.zeros_like(self.biases)
        forget_bias[2 * self.num_units : 3 * self.num_units] = self.forget_bias
        weights = (self.input_weights, self.recurrent_weights, self.biases + forget_bias)
        return cell_loops.Recurrence(cell_loops.LSTMSteps, weights)


class BasicLSTMCell(LSTMCell):
    """An LSTM without peepholes, clipping and projection (Zaremba et al., 2014)."""

    def __init__(
        self,
        input_size: int,
        num_units: int,
        forget_bias: float = 1.0,
        state_is_tuple: bool = True,
        activation: str = "tanh",
    ) -> None:
        super().__init__(
            input_size,
            num_units,
            forget_bias=forget_bias,
            state_is_tuple=state_is_tuple,
            activation=activation,
        )


class LSTMBlockCell(LSTMCell):
    """The original's fused LSTM: c is always clipped to +-3.

    Its gradient has two peculiarities, which are kept because they decide what a model learns. It
    ignores the clip. In the gradient of c, the peepholes w_o and w_f are exchanged.
    """

    def __init__(
        self, input_size: int, num_units: int, forget_bias: float = 1.0, use_peephole: bool = False
    ) -> None:
        super().__init__(
            input_size,
            num_units,
            use_peepholes=use_peephole,
            cell_clip=3.0,
            forget_bias=forget_bias,
        )

    def remember(self, gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        if self.w_i_diag is None or self.w_f_diag is None or self.w_o_diag is None:
            return super().remember(gates, c)
        i, j, f, o = gates.chunk(4, dim=-1)
        i, f = i + self.w_i_diag * c, f + peephole(self.w_f_diag, c, self.w_o_diag)
        c = self.clip(
            torch.sigmoid(f + self.forget_bias) * c + torch.sigmoid(i) * self.activation(j)
        )
        return c, o + peephole(self.w_o_diag, c, self.w_f_diag)

    def clip(self, c: Tensor) -> Tensor:
        return c + (super().clip(c) - c).detach()


def peephole(w: Tensor, c: Tensor, w_backward: Tensor) -> Tensor:
    """Returns w * c, with w_backward as its derivative by c."""
    return w * c.detach() + w_backward.detach() * (c - c.detach())


class CoupledInputForgetGateLSTMCell(LSTMCell):
    """An LSTM whose input gate is one minus its forget gate (Greff et al., 2015).

    j, f, o = [x, h] W + b
    """

    def __init__(
        self,
        input_size: int,
        num_units: int,
        use_peepholes: bool = False,
        num_proj: int | None = None,
        proj_clip: float | None = None,
        forget_bias: float = 1.0,
        state_is_tuple: bool = False,
        activation: str = "tanh",
    ) -> None:
        super().__init__(
            input_size,
            num_units,
            use_peepholes=use_peepholes,
            num_proj=num_proj,
            proj_clip=proj_clip,
            forget_bias=forget_bias,
            state_is_tuple=state_is_tuple,
            activation=activation,
        )

    def make_gates(self, use_peepholes: bool) -> None:
        n = self.num_units
        self.input_weights, self.recurrent_weights = kernel(
            self.input_size, self.output_size, 3 * n
        )
        self.biases = constant(0.0, 3 * n)
        self.w_i_diag = None
        self.w_f_diag, self.w_o_diag = (glorot(n) if use_peepholes else None for _ in range(2))

    def remember(self, gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        j, f, o = gates.chunk(3, dim=-1)
        if self.w_f_diag is not None:
            f = f + self.w_f_diag * c
        c = torch.lerp(self.activation(j), c, torch.sigmoid(f + self.forget_bias))
        if self.w_o_diag is not None:
            o = o + self.w_o_diag * c
        return c, o


class LayerNormBasicLSTMCell(LSTMCell):
    """An LSTM with layer normalisation (Ba et al., 2016) and dropout of the candidate.

    Each gate and the new c are normalised. The normalised gates have no bias, `forget_bias` is
    added after the normalisation, and the normalised c is the state. The dropout (Semeniuta et al.,
    2016) works in training only.
    """

    GATES = ("input", "transform", "forget", "output", "state")

    def __init__(
        self,
        input_size: int,
        num_units: int,
        forget_bias: float = 1.0,
        activation: str = "tanh",
        layer_norm: bool = True,
        norm_gain: float = 1.0,
        norm_shift: float = 0.0,
        dropout_keep_prob: float = 1.0,
    ) -> None:
        super().__init__(input_size, num_units, forget_bias=forget_bias, activation=activation)
        self.dropout_keep_prob = dropout_keep_prob
        self.gamma = self.beta = None
        if layer_norm:
            self.biases = None
            self.gamma = nn.ParameterDict(
                {gate: constant(norm_gain, num_units) for gate in self.GATES}
            )
            self.beta = nn.ParameterDict(
                {gate: constant(norm_shift, num_units) for gate in self.GATES}
            )

    def norm(self, x: Tensor, gate: str) -> Tensor:
        """Returns x [B, H] normalised, scaled and shifted, or x itself without `layer_norm`."""
        if self.gamma is None or self.beta is None:
            return x
        return F.layer_norm(x, x.shape[-1:], self.gamma[gate], self.beta[gate], eps=1e-12)

    def remember(self, gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        i, j, f, o = (
            self.norm(gate, name)
            for gate, name in zip(gates.chunk(4, dim=-1), self.GATES[:4], strict=True)
        )
        j = dropout(self.activation(j), self.dropout_keep_prob, self.training)
        return self.norm(torch.sigmoid(f + self.forget_bias) * c + torch.sigmoid(i) * j, "state"), o


CELL_CLASSES: dict[str, type[Cell]] = {
    cell.__name__: cell
    for cell in (
        BasicLSTMCell,
        LSTMCell,
        GRUCell,
        BasicRNNCell,
        LayerNormBasicLSTMCell,
        CoupledInputForgetGateLSTMCell,
        LSTMBlockCell,
        GRUBlockCell,
    )
}


def make_cell(spec: Mapping[str, object], input_size: int) -> Cell:
    """Returns the cell that a spec describes.

    Such a spec is {"class": "LSTMCell", "num_units": 128, "use_peepholes": True}.
    """
    arguments = {name: value for name, value in spec.items() if name != "class"}
    return CELL_CLASSES[str(spec["class"])](input_size, **arguments)  # type: ignore[arg-type]
