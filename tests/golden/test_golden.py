"""Both models equal the numbers recorded from the original, as data/README.md describes them."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from s2s_search.corpus.batches import Batch, slice_batch
from s2s_search.hparams.configuration import resolve
from s2s_search.nn.generate import greedy
from s2s_search.nn.models import Seq2Seq
from s2s_search.tf_variables import export_variables
from s2s_search.training.loss import target_mask, token_losses
from s2s_search.training.optimizers import make_optimizer
from tests.golden.recorded import Recorded

ATOL = 1e-5  # the recorded numbers agree with float64 within 1e-6


def close(actual: Tensor | None, expected: np.ndarray, what: str, atol: float = ATOL) -> None:
    assert actual is not None, what
    np.testing.assert_allclose(actual.detach().numpy(), expected, rtol=0, atol=atol, err_msg=what)


def test_training_mode(case: Recorded) -> None:
    model, batch = case.model().train(), case.training_batch()
    encoding = model.encode(batch.source_ids, batch.source_lengths)
    close(encoding.encoder_output.outputs, case["mid/encoder_outputs"], "encoder outputs")
    for kind, state in (
        ("encoder_final", encoding.encoder_output.final_state),
        ("decoder_initial", encoding.state),
    ):
        recorded = case.group(f"mid/{kind}_state/")
        assert len(state) == len(recorded)
        for k, tensor in enumerate(state):
            close(tensor, recorded[str(k)], f"{kind} state {k}")
    output = model.decode(encoding, batch.target_ids, batch.target_lengths)
    close(output.logits, case["train/logits"], "logits")
    np.testing.assert_array_equal(
        output.logits.argmax(-1) * target_mask(batch), case["train/predicted_ids"]
    )
    if "train/attention_scores" in case:
        close(output.weights, case["train/attention_scores"], "attention scores")
        close(output.contexts, case["train/attention_context"], "attention context")
    losses = token_losses(output.logits, batch)
    close(losses, case["train/losses"], "losses")
    close(losses.sum() / (batch.target_lengths - 1).sum(), case["train/loss"], "loss")


def test_evaluation_mode(case: Recorded) -> None:
    if "eval/logits" not in case:
        assert not case.facts["sliced"]
        return
    model, batch = case.model().eval(), case.batch()
    logits = model(batch)
    close(logits, case["eval/logits"], "logits")
    losses = token_losses(logits, batch)
    close(losses, case["eval/losses"], "losses")
    close(losses.sum() / (batch.target_lengths - 1).sum(), case["eval/loss"], "loss")


def test_greedy_decoding(case: Recorded) -> None:
    model, batch = case.model().eval(), case.batch()
    max_length = int(case.hparams["inference.max_decode_length"])
    generated = greedy(model, batch.source_ids, batch.source_lengths, max_length, keep_logits=True)
    np.testing.assert_array_equal(generated.ids, case["infer/predicted_ids"])
    close(generated.logits, case["infer/logits"], "logits")
    if "infer/attention_scores" in case:
        close(generated.weights, case["infer/attention_scores"], "attention scores")


def updates(
    case: Recorded,
) -> Iterator[tuple[int, float, float, Tensor, Mapping[str, Tensor | None], Seq2Seq]]:
    """Trains as the original did.

    Yields the update, the loss before it, the learning rate, the norm of the gradients, the
    gradients before clipping, and the model after the update.
    """
    model = case.model().train()
    optimizer = make_optimizer(model.parameters(), case.hparams)
    for update in range(3):
        batch = case.training_batch(
            "batch2/" if update == 1 and case.facts["alternating_batches"] else ""
        )
        loss = mean_loss(model, batch)
        loss.backward()
        gradients = gradients_by_name(model)
        norm = optimizer.step(update)
        yield update, loss.item(), optimizer.schedule(update), norm, gradients, model


def mean_loss(model: Seq2Seq, batch: Batch) -> Tensor:
    return model.loss(batch) / (batch.target_lengths - 1).sum()


def gradients_by_name(model: Seq2Seq) -> dict[str, Tensor | None]:
    """Returns dense gradients by variable name, in the original's orientation, None without one."""
    gradients = copy.deepcopy(model)
    for gradient, parameter in zip(gradients.parameters(), model.parameters(), strict=True):
        gradient.data = (
            torch.full_like(parameter, torch.nan)
            if parameter.grad is None
            else parameter.grad.to_dense()
        )
    by_name = {name: torch.from_numpy(array) for name, array in export_variables(gradients).items()}
    return {name: None if array.isnan().all() else array for name, array in by_name.items()}


def test_gradients(case: Recorded) -> None:
    for update, _, _, _, gradients, _ in updates(case):
        prefix = "grad/" if update == 0 else f"grad{update + 1}/"
        recorded = case.group(prefix)
        assert recorded.keys() == gradients.keys() or update > 0
        for name, expected in recorded.items():
            if name in case.facts["no_gradient"]:
                assert gradients[name] is None, (
                    f"{name} has a gradient, and in the original it has none"
                )
            elif name not in case.facts["noise_gradient"]:
                close(gradients[name], expected, f"update {update + 1}: gradient of {name}")


def test_updates(case: Recorded) -> None:
    compared = 0
    for update, loss, rate, norm, gradients, model in updates(case):
        np.testing.assert_allclose(loss, case["step/loss"][update], rtol=0, atol=ATOL)
        np.testing.assert_allclose(rate, case["step/lr"][update], rtol=1e-6)
        np.testing.assert_allclose(norm, case["step/global_norm"][update], rtol=1e-5)
        if update == 0:
            dense = torch.stack([g.norm() for g in gradients.values() if g is not None]).norm()
            np.testing.assert_allclose(dense, case["train/global_norm_dense"], rtol=1e-5)
        after = export_variables(model)
        for name, expected in case.group(f"after{update + 1}/").items():
            if name not in case.facts["noise_gradient"]:
                # Adam's first update divides a gradient by its own size, so that the rounding of a
                # tiny gradient shows.
                atol = max(ATOL, 20 * case.facts["after3_sensitivity"].get(name, 0.0))
                close(
                    torch.from_numpy(after[name]),
                    expected,
                    f"after update {update + 1}: {name}",
                    atol,
                )
                compared += 1
        last = model
    np.testing.assert_allclose(
        mean_loss(last, case.training_batch()).item(), case["step/loss"][3], rtol=0, atol=ATOL
    )
    assert compared


def test_export_is_the_inverse_of_load(case: Recorded) -> None:
    exported, recorded = export_variables(case.model()), case.group("var/")
    assert exported.keys() == recorded.keys()
    for name, array in exported.items():
        np.testing.assert_array_equal(array, recorded[name])


def test_learning_rate(schedule: Mapping[str, Any]) -> None:
    hparams = resolve("BasicSeq2Seq", schedule["hparams"])
    rates = [
        make_optimizer([torch.nn.Parameter(torch.zeros(1))], hparams).schedule(step)
        for step in schedule["steps"]
    ]
    np.testing.assert_allclose(rates, schedule["lr"], rtol=1e-5)


CALM = 1e-4  # largest distance of a trajectory's twin at which losses are compared


def test_trajectory(trajectory: Recorded) -> None:
    """The losses are at most five times as far from the original's as its perturbed twin.

    The twin started 1e-7 apart, about a rounding error. Once it is 1e-4 away, only the level is
    compared.
    """
    model = trajectory.model().train()
    optimizer = make_optimizer(model.parameters(), trajectory.hparams)
    losses, norms = [], []
    for update in range(trajectory.facts["steps"]):
        loss = mean_loss(model, narrowed(trajectory.batch(row=update)))
        loss.backward()
        norms.append(float(optimizer.step(update)))
        losses.append(loss.item())
    recorded, twin = trajectory["loss"], trajectory["loss_perturbed"]
    assert not strays(losses, recorded, twin)
    chaos = distance_so_far(recorded, twin)
    still = chaos < CALM / 10
    np.testing.assert_allclose(np.array(norms)[still], trajectory["global_norm"][still], rtol=1e-4)
    # The loss falls from 2.7 to 0.10, that of the twin to 0.12.
    assert 1 / 3 < np.mean(losses[-50:]) / recorded[-50:].mean() < 3
    if chaos[-1] < CALM:
        heldout = trajectory.batch("heldout/")
        model.eval()
        assert mean_loss(model, heldout).item() == pytest.approx(
            float(trajectory["heldout/loss"]), abs=CALM
        )
        max_length = trajectory.facts["heldout_decode_max_length"]
        generated = greedy(model, heldout.source_ids, heldout.source_lengths, max_length)
        np.testing.assert_array_equal(generated.ids, trajectory["heldout/predicted_ids"])


def distance_so_far(losses: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns for each step the largest distance of two trajectories up to it."""
    distance: np.ndarray = np.maximum.accumulate(np.abs(losses - others))
    return distance


def strays(losses: Sequence[float], recorded: np.ndarray, twin: np.ndarray) -> list[int]:
    """Returns the steps at which losses are too far from the recorded ones.

    Allowed are five times the twin's largest distance so far, and four float32 roundings of a loss.
    No step counts once the twin is CALM away, however early that is.
    """
    chaos = distance_so_far(recorded, twin)
    allowed = 4 * np.spacing(np.float32(recorded.max())) + 5 * chaos
    return np.flatnonzero((np.abs(np.array(losses) - recorded) > allowed) & (chaos < CALM)).tolist()


@pytest.mark.parametrize("calm", [0, 1, 146, 300])
def test_a_trajectory_may_be_calm_for_any_number_of_steps(calm: int) -> None:
    recorded = np.linspace(2.7, 0.1, 300, dtype=np.float32)
    twin = recorded + np.float32(1e-6)
    twin[calm:] += np.float32(0.1)
    assert strays(recorded.tolist(), recorded, twin) == []
    for step in range(300):
        losses = recorded.copy()
        losses[step] += np.float32(1e-5)
        assert strays(losses.tolist(), recorded, twin) == ([step] if step < calm else [])


def narrowed(batch: Batch) -> Batch:
    """Cuts a batch to its longest row: the trajectories are padded to their longest batch."""
    return slice_batch(batch, None, None)
