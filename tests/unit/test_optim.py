"""Update rules equal plain loops over rows; the original's recorded numbers are in tests/golden."""

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from s2s_search.training.optimizers import (
    DECAY_FUNCTIONS,
    UPDATE_RULES,
    Adam,
    Optimizer,
    decayed_learning_rate,
    global_norm,
)

Rows = list[list[float]]


def plain_adam(p: float, g: float, lr: float, slots: dict[str, float], t: int) -> float:
    """Adam of TensorFlow 1.0: float32 coefficients, and powers by a float32 product each step."""
    one, beta1, beta2 = np.float32(1.0), np.float32(0.9), np.float32(0.999)
    power1, power2 = beta1, beta2
    for _ in range(t - 1):
        power1, power2 = np.float32(power1 * beta1), np.float32(power2 * beta2)
    m = slots["m"] = float(beta1) * slots.get("m", 0.0) + float(one - beta1) * g
    v = slots["v"] = float(beta2) * slots.get("v", 0.0) + float(one - beta2) * g * g
    alpha = np.float32(np.float32(lr) * np.sqrt(one - power2) / (one - power1))
    return p - float(alpha) * m / (math.sqrt(v) + 1e-8)


def plain_sgd(p: float, g: float, lr: float, slots: dict[str, float], t: int) -> float:
    return p - lr * g


def plain_momentum(p: float, g: float, lr: float, slots: dict[str, float], t: int) -> float:
    slots["a"] = 0.9 * slots.get("a", 0.0) + g
    return p - lr * slots["a"]


def plain_adagrad(p: float, g: float, lr: float, slots: dict[str, float], t: int) -> float:
    slots["n"] = slots.get("n", 0.1) + g * g
    return p - lr * g / math.sqrt(slots["n"])


def plain_rmsprop(p: float, g: float, lr: float, slots: dict[str, float], t: int) -> float:
    slots["s"] = 0.9 * slots.get("s", 1.0) + 0.1 * g * g
    return p - lr * g / math.sqrt(slots["s"] + 1e-10)


def plain_ftrl(p: float, g: float, lr: float, slots: dict[str, float], t: int) -> float:
    n = slots.get("n", 0.1)
    slots["n"] = n + g * g
    slots["z"] = slots.get("z", 0.0) + g - (math.sqrt(slots["n"]) - math.sqrt(n)) / lr * p
    return -slots["z"] * lr / math.sqrt(slots["n"])


PLAIN: dict[str, Callable[[float, float, float, dict[str, float], int], float]] = {
    "Adam": plain_adam,
    "SGD": plain_sgd,
    "Momentum": plain_momentum,
    "Adagrad": plain_adagrad,
    "RMSProp": plain_rmsprop,
    "Ftrl": plain_ftrl,
}


@pytest.mark.parametrize("weight_decay", [0.0, 0.7])
@pytest.mark.parametrize("name", UPDATE_RULES)
def test_dense_and_row_sparse_updates_equal_plain_loops(name: str, weight_decay: float) -> None:
    """Five updates of a matrix, and of an embedding whose looked-up rows change and repeat.

    Adam updates all rows, the other rules those that were looked up. Weight decay is for all rows.
    """
    torch.manual_seed(0)
    dense, embedding = (
        nn.Parameter(torch.randn(2, 3).double()),
        nn.Embedding(5, 3, sparse=True).double(),
    )
    optimizer = Optimizer(
        [dense, embedding.weight], name, lambda step: 0.1 / (step + 1), -1.0, weight_decay
    )
    plain = {
        "dense": dense.detach().numpy().copy(),
        "rows": embedding.weight.detach().numpy().copy(),
    }
    slots: dict[tuple[str, int, int], dict[str, float]] = {}
    for step, ids in enumerate([[0, 1, 1], [1, 3], [0, 0], [3, 1, 0, 1], [1]]):
        x = torch.randn(len(ids), 3).double()
        ((embedding(torch.tensor(ids)) * x).sum() + (dense**2).sum()).backward()
        gradients = {"dense": 2 * plain["dense"], "rows": np.zeros((5, 3))}
        for i, row in zip(ids, x.numpy(), strict=True):
            gradients["rows"][i] += row
        optimizer.step(step)
        for what, values in plain.items():
            for i, j in np.ndindex(values.shape):
                share = 0.1 / (step + 1) * weight_decay
                values[i, j] -= share * values[i, j]
                if "z" in (slot := slots.get((what, i, j), {})):  # Ftrl makes p of it
                    slot["z"] -= share * slot["z"]
            touched = range(len(values)) if what == "dense" or name == "Adam" else sorted(set(ids))
            for i in touched:
                for j in range(3):
                    slot = slots.setdefault((what, i, j), {})
                    lr = 0.1 / (step + 1)
                    values[i, j] = PLAIN[name](
                        values[i, j], gradients[what][i, j], lr, slot, step + 1
                    )
        np.testing.assert_allclose(dense.detach(), plain["dense"], rtol=1e-9)
        np.testing.assert_allclose(embedding.weight.detach(), plain["rows"], rtol=1e-9)


def test_weight_decay_of_ftrl_is_not_forgotten() -> None:
    """At a constant rate Ftrl is p -= lr g / sqrt(n) from its second update on, as Adagrad is."""
    p = nn.Parameter(torch.tensor([3.0]).double())
    optimizer = Optimizer([p], "Ftrl", lambda step: 0.1, -1.0, weight_decay=0.5)
    plain, n = 0.0, 0.1
    for step, gradient in enumerate([0.5, -0.2, 0.1, 0.3, -0.4]):
        p.grad = torch.tensor([gradient], dtype=torch.float64)
        optimizer.step(step)
        n += gradient**2
        if step == 0:
            plain = p.item()  # of a first update, which forgets p
        else:
            plain = plain - 0.1 * 0.5 * plain - 0.1 * gradient / math.sqrt(n)
        assert p.item() == pytest.approx(plain, rel=1e-12)


def test_weight_decay_is_not_clipped() -> None:
    """It takes its share although the clipped gradients are zero."""
    p = nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer = Optimizer([p], "SGD", lambda step: 0.1, clip=0.0, weight_decay=0.5)
    p.grad = torch.tensor([3.0, 4.0])
    optimizer.step(0)
    torch.testing.assert_close(p.detach(), torch.tensor([0.95, -1.9]))


@pytest.mark.parametrize("name", UPDATE_RULES)
def test_state_comes_back_bit_for_bit(name: str) -> None:
    def run(steps: range, p: nn.Parameter, state: dict[str, object] | None) -> Optimizer:
        optimizer = Optimizer([p], name, lambda step: 0.1, clip=0.5)
        if state is not None:
            optimizer.load_state_dict(state)
        for step in steps:
            ((p - step) ** 2).sum().backward()
            optimizer.step(step)
        return optimizer

    whole = nn.Parameter(torch.arange(4.0))
    run(range(6), whole, None)
    p = nn.Parameter(torch.arange(4.0))
    state = run(range(3), p, None).state_dict()
    p = nn.Parameter(p.detach().clone())
    run(range(3, 6), p, state)
    assert p.tolist() == whole.tolist()


def test_adam_computes_the_powers_of_any_step() -> None:
    """A trial may resume at any step, and its snapshot holds no powers."""
    one, steps = np.float32(1.0), 3000
    whole, expected = Adam([]), []
    power1, power2 = one, one
    for step in range(steps):
        power1, power2 = (
            np.float32(power1 * np.float32(0.9)),
            np.float32(power2 * np.float32(0.999)),
        )
        expected.append(
            float(np.float32(np.float32(0.02) * np.sqrt(one - power2) / (one - power1)))
        )
        assert whole.corrected(0.02, step) == expected[-1]
    resumed = Adam([])
    for step in (2500, 2501, 7, 7, 0, 2999):
        assert resumed.corrected(0.02, step) == expected[step]
    assert Adam([]).corrected(0.02, 10**6) == pytest.approx(0.02)
    assert Adam.SLOTS.keys() == {"m", "v"}


@pytest.mark.parametrize("clip, factor", [(20.0, 1.0), (1.0, 1 / 13), (0.0, 0.0), (-1.0, 1.0)])
@pytest.mark.parametrize("name", UPDATE_RULES)
def test_clipping_is_an_update_with_smaller_gradients(
    name: str, clip: float, factor: float
) -> None:
    results = []
    for scale, optimizer_clip in ((1.0, clip), (factor, -1.0)):
        parameters = [nn.Parameter(torch.tensor([1.0, 2.0])), nn.Parameter(torch.tensor([[3.0]]))]
        optimizer = Optimizer(parameters, name, lambda step: 0.1, clip=optimizer_clip)
        for p, gradient in zip(parameters, ([3.0, 4.0], [[12.0]]), strict=True):
            p.grad = torch.tensor(gradient) * scale
        assert float(optimizer.step(0)) == pytest.approx(13.0 * scale)
        results.append(parameters)
    torch.testing.assert_close(results[0], results[1])


@pytest.mark.parametrize("name", UPDATE_RULES)
def test_zero_gradients_change_nothing(name: str) -> None:
    p = nn.Parameter(torch.ones(3))
    optimizer = Optimizer([p], name, lambda step: 0.1, clip=5.0)
    p.grad = torch.zeros(3)
    assert float(optimizer.step(0)) == 0.0
    expected = 0.0 if name == "Ftrl" else 1.0  # the first update of Ftrl forgets p
    assert p.tolist() == [expected] * 3


def test_the_norm_counts_looked_up_positions() -> None:
    embedding = nn.Embedding(4, 2, sparse=True)
    embedding(torch.tensor([1, 1, 2])).sum().backward()
    assert embedding.weight.grad is not None
    norm = global_norm([embedding.weight.grad])
    # Not sqrt(2² + 2² + 1 + 1), the norm of the rows with equal positions summed.
    assert float(norm) == pytest.approx(math.sqrt(6))


@pytest.mark.parametrize("decay", ["polynomial_decay", "cosine_decay"])
def test_extensions_go_from_the_first_rate_to_the_least(decay: str) -> None:
    def rate(step: int) -> float:
        return decayed_learning_rate(step, 0.1, decay, decay_steps=10, start_at=5, minimum=0.02)

    assert [rate(step) for step in (0, 5)] == [0.1, 0.1]
    assert rate(10) == pytest.approx(0.06)
    assert [rate(step) for step in (15, 16, 10**6)] == pytest.approx([0.02] * 3)
    falling = [rate(step) for step in range(5, 16)]
    assert falling == sorted(falling, reverse=True)


@given(
    warmup=st.integers(0, 30),
    decay=st.sampled_from(["", *DECAY_FUNCTIONS]),
    start=st.integers(0, 20),
    staircase=st.booleans(),
)
def test_warmup_grows_the_decayed_rate_linearly(
    warmup: int, decay: str, start: int, staircase: bool
) -> None:
    """The plain loop adds 1 / warmup to the share of the rate at each update, up to 1."""

    def rate(step: int, **more: int) -> float:
        return decayed_learning_rate(
            step, 0.1, decay, 7, 0.6, start_at=start, staircase=staircase, **more
        )

    share = Fraction(0)
    for step in range(40):
        share = min(share + Fraction(1, warmup), Fraction(1)) if warmup else Fraction(1)
        expected = float(share) * rate(step)
        assert rate(step, warmup_steps=warmup) == pytest.approx(expected, rel=1e-12)
    assert rate(100, warmup_steps=warmup) == rate(100)


def test_the_least_rate_holds_for_every_decay() -> None:
    for decay in DECAY_FUNCTIONS:
        assert (
            decayed_learning_rate(10**6, 0.1, decay, decay_steps=1, decay_rate=0.5, minimum=0.01)
            == 0.01
        )
    assert decayed_learning_rate(0, 0.1, minimum=0.2) == 0.2  # raised, as in the original
