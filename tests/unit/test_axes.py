"""Axes of a search: isolation compared with plain loops, ends of ranges with answers by hand."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from s2s_search.report.axes import Axis, axes
from s2s_search.report.boundaries import Boundary, boundaries
from s2s_search.results.results import load
from s2s_search.spaces.dimensions import Choice, Dimension, Range
from s2s_search.spaces.load import load_space
from tests.runs import SPACE, write_run


def axis(dimension: Dimension, values: list[object], scores: list[float] | None = None) -> Axis:
    """An axis whose trials are named by their rank."""
    scores = scores or [0.1 + k / 1000 for k in range(len(values))]
    points = pd.DataFrame(
        {"value": values, "name": [str(value) for value in values], "score": scores}
    )
    points["trial"] = [f"trial-{k:05d}" for k in range(len(values))]
    points["status"], points["number"], points["configuration"] = (
        "finished",
        range(len(values)),
        range(len(values)),
    )
    names = tuple(map(str, dimension.domain.values)) if isinstance(dimension.domain, Choice) else ()
    ended = points[["value", "name"]].assign(lost=False)
    return Axis(dimension, names, points, ended, 0, minimizes=True)


def boundary(of: Axis) -> Boundary | None:
    """Returns the boundary of a single axis."""
    return next(iter(boundaries([of])), None)


def towards(end: float, n: int = 20, start: float = 1e-3) -> list[object]:
    """Returns values of a logarithmic range, the best first, that come from `start` to an end."""
    return [end * (start / end) ** (k / (n - 1)) for k in range(n)]


def rate(low: float = 1e-4, high: float = 1e-2) -> Dimension:
    return Dimension("optimizer.learning_rate", Range(low, high, log=True))


def test_isolation_is_what_a_loop_finds(tmp_path: Path) -> None:
    """At step 100, where a third of the trials was stopped."""
    run = load(write_run(tmp_path / "run"))
    (encoder,) = [
        found for found in axes(run, load_space(tmp_path / "run.yaml")) if found.is_scientific
    ]
    table = encoder.isolation().set_index("value")
    assert list(table.index) == ["UnidirectionalRNNEncoder", "BidirectionalRNNEncoder"]
    reports = run.reports[run.reports["step"] == 100].set_index("trial")["dev.error_rate"]
    for value, row in table.iterrows():
        named = run.trials[run.trials["encoder.type"] == value]["trial"]
        scores = sorted(reports[trial] for trial in named if trial in reports)
        top = (len(scores) + 1) // 2
        assert (row["n"], row["best"], row["top"]) == (len(scores), scores[0], top)
        assert row["mean"] == pytest.approx(sum(scores[:top]) / top)
        assert row["low"] < row["mean"] < row["high"]


def test_a_hyperparameter_that_takes_no_part_is_on_no_point(tmp_path: Path) -> None:
    run = load(write_run(tmp_path / "run"))
    found = {each.key: each for each in axes(run, load_space(tmp_path / "run.yaml"))}
    scored = run.trials[run.trials["best.dev.error_rate"].notna()]
    assert len(found["model"].points) == len(scored)
    active = scored["attention.dim"].notna()
    assert 0 < active.sum() < len(scored)
    assert (len(found["attention.dim"].points), found["attention.dim"].without) == (
        active.sum(),
        (~active).sum(),
    )
    assert list(found["encoder.rnn_cell.cell_spec"].names) == ["<script>alert(1)</script>", "large"]


def test_the_parts_of_a_range_hold_every_trial_once() -> None:
    values: list[object] = [1e-4 * 100 ** (k / 99) for k in range(100)]
    groups = dict(axis(rate(), values).groups())
    assert list(groups) == [
        "0.0001 to 0.000316",
        "0.000316 to 0.001",
        "0.001 to 0.00316",
        "0.00316 to 0.01",
    ]
    assert [len(points) for points in groups.values()] == [25, 25, 25, 25]


def test_a_value_without_trials_has_a_row_without_numbers() -> None:
    table = (
        axis(Dimension("attention.dim", Choice((32, 64))), [32] * 3).isolation().set_index("value")
    )
    assert table.loc["64", "n"] == 0
    assert math.isnan(table.loc["64", "mean"])


@pytest.mark.parametrize("best, end", [(towards(9.9e-3), "upper"), (towards(1.01e-4), "lower")])
def test_an_end_of_a_range_is_seen(best: list[object], end: str) -> None:
    found = boundary(axis(rate(), best))
    assert found is not None
    assert end in found.why
    options = yaml.safe_load(found.next)["optimizer.learning_rate"]
    assert options["log"]
    low, high = float(options["min"]), float(options["max"])
    assert low < (1e-2 if end == "upper" else 1e-4) < high
    assert math.log(high / low) == pytest.approx(math.log(100), rel=0.05)  # as wide as before


FEW: list[object] = [32, 64, 128] * 7


@pytest.mark.parametrize(
    "dimension, values",
    [
        (rate(), [1e-3] * 3 + [9.9e-3] * 17),  # only others are there
        (rate(), [9.9e-3] * 20),  # all at the end, and none to compare them with
        (rate(), [9.9e-3] + [1e-3] * 19),  # one alone
        (rate(), towards(9.9e-3, 9)),  # too few to say
        (rate(), towards(1e-3, start=1e-4)),  # they improve, but not towards an end
        (
            Dimension("decoder.rnn_cell.dropout_input_keep_prob", Range(0.5, 1.0)),
            towards(1.0, start=0.5),
        ),  # the law ends there
        (Dimension("attention.dim", Choice((32, 64))), [64] * 10 + [32] * 10),  # of two one is best
        (Dimension("attention.dim", Choice((32, 64, 128))), [128] * 2 + FEW),  # chance
        (Dimension("attention.dim", Choice((32, 64, 128))), [64] * 7 + [128] * 7 + [32] * 7),
        (Dimension("encoder.type", Choice(("A", "B", "C"))), ["C"] * 10 + ["B"] * 10),  # no order
        (
            Dimension("train.batch_size", Range(1, 9, step=1, whole=True)),
            [1] * 10 + [2] * 5 + [3] * 5,
        ),  # no smaller batch
        (
            Dimension("attention.dim", Range(1, 2, step=1, whole=True)),
            [2] * 10 + [1] * 10,
        ),  # of two values one is best
    ],
)
def test_what_is_no_end_that_could_go_on(dimension: Dimension, values: list[object]) -> None:
    assert boundary(axis(dimension, values)) is None


@pytest.mark.parametrize(
    "domain, value, following",
    [
        (Choice((32, 64, 128)), 128, {"choices": [64, 128, 256]}),
        (Choice((128, 32, 64)), 32, {"choices": [16, 32, 64]}),
        (Choice((10, 20, 30)), 30, {"choices": [20, 30, 40]}),
        (Choice((1, 2, 4)), 1, None),  # no half unit
        (Range(10, 50, step=10, whole=True), 50, {"min": 30, "max": 70, "step": 10}),
        (
            Range(10, 50, step=15, whole=True),
            40,
            {"min": 25, "max": 55, "step": 15},
        ),  # 50 is no point
        (Range(10, 202, step=15, whole=True), 190, {"min": 100, "max": 280, "step": 15}),
        (Range(100, 500, step=1, whole=True), 499, {"min": 300, "max": 700}),
    ],
)
def test_what_to_try_next(
    domain: Choice | Range, value: object, following: dict[str, object] | None
) -> None:
    steps = sorted(domain.values if isinstance(domain, Choice) else domain.points())
    if len(steps) > 8:
        values = towards(value, start=(steps[0] + steps[-1]) / 2)
    else:
        near = steps if value == steps[0] else steps[::-1]
        values = [step for step in near for _ in range(8)]
    found = boundary(axis(Dimension("attention.dim", domain), values))
    assert (found and yaml.safe_load(found.next)) == (following and {"attention.dim": following})


def test_towards_a_zero_that_is_not_allowed_the_next_range_is_logarithmic() -> None:
    found = boundary(
        axis(
            Dimension("optimizer.learning_rate", Range(0.001, 0.01)), towards(0.00101, start=0.005)
        )
    )
    assert found is not None
    assert yaml.safe_load(found.next) == {
        "optimizer.learning_rate": {"min": 0.0001, "max": 0.0055, "log": True}
    }


def test_what_to_try_next_is_a_search_space_and_keeps_role_and_condition(tmp_path: Path) -> None:
    text = SPACE.replace(
        "{min: 1e-4, max: 1e-2, log: true}",
        "{min: 1e-4, max: 1e-2, log: true, role: nuisance, "
        "when: {encoder.rnn_cell.cell_spec: large}}",
    )
    run = load(
        write_run(
            tmp_path / "run",
            text=text,
            loss=lambda k, config: 0.3 - config.get("optimizer.learning_rate", 0),
        )
    )
    found = {each.key: each for each in axes(run, load_space(tmp_path / "run.yaml"))}
    following = boundary(found["optimizer.learning_rate"])
    assert following is not None
    lines = [line if "1e-4" not in line else f"  {following.next}" for line in text.splitlines()]
    path = tmp_path / "next.yaml"
    path.write_text("\n".join(lines))
    (dimension,) = [
        each for each in load_space(path).dimensions if each.key == "optimizer.learning_rate"
    ]
    assert dimension.role == "nuisance"
    assert dimension.when
    assert isinstance(dimension.domain, Range)
    assert dimension.domain.high > 1e-2


def test_equal_results_lie_at_no_end() -> None:
    assert boundary(axis(rate(), towards(9.9e-3), [0.2] * 20)) is None
    steps: list[object] = [step for step in (128, 64, 32) for _ in range(8)]
    assert (
        boundary(axis(Dimension("attention.dim", Choice((32, 64, 128))), steps, [0.2] * 24)) is None
    )


@pytest.mark.slow
@pytest.mark.parametrize("n", [10, 16, 32, 64])
def test_chance_names_an_end_in_at_most_5_of_100_reports(n: int) -> None:
    """A report of two ranges, a list of three numbers and one of four; 300 reports."""
    rng, wrong = np.random.default_rng(n), 0
    lists = {key: Choice(values) for key, values in {
        "attention.dim": (32, 64, 128), "embedding.dim": (16, 32, 64, 128)}.items()}  # fmt: skip
    for _ in range(300):
        scores = sorted(rng.normal(size=n).tolist())
        found = [axis(rate(), (1e-4 * 100 ** rng.random(n)).tolist(), scores)]
        keep = Dimension("optimizer.lr_decay_rate", Range(0.5, 0.9))
        found.append(axis(keep, rng.uniform(0.5, 0.9, n).tolist(), scores))
        for key, choice in lists.items():
            found.append(
                axis(Dimension(key, choice), rng.choice(choice.values, n).tolist(), scores)
            )
        wrong += bool(boundaries(found))
    assert wrong / 300 <= 0.05 + 3 * 0.0126  # 5 % of 300, and three deviations of that
