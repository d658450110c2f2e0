"""Axes of a search: isolation compared with plain loops, ends of ranges with answers by hand."""

import math
from pathlib import Path

import pandas as pd
import pytest
import yaml

from s2s_search.report.axes import Axis, axes, boundary
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
    return Axis(dimension, names, points, 0, minimizes=True)


def rate(low: float = 1e-4, high: float = 1e-2) -> Dimension:
    return Dimension("optimizer.learning_rate", Range(low, high, log=True))


def test_isolation_is_what_a_loop_finds(tmp_path: Path) -> None:
    run = load(write_run(tmp_path / "run"))
    (encoder,) = [
        found for found in axes(run, load_space(tmp_path / "run.yaml")) if found.is_scientific
    ]
    table = encoder.isolation(top=3).set_index("value")
    assert list(table.index) == ["UnidirectionalRNNEncoder", "BidirectionalRNNEncoder"]
    scored = run.trials[run.trials["best.dev.error_rate"].notna()]
    fewest = min((scored["encoder.type"] == value).sum() for value in table.index)
    for value, row in table.iterrows():
        scores = sorted(scored[scored["encoder.type"] == value]["best.dev.error_rate"])
        top = round(3 * len(scores) / fewest)
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


@pytest.mark.parametrize(
    "best, end",
    [
        ([9.9e-3] + [1e-3] * 20, "upper"),
        ([1.01e-4] + [1e-3] * 20, "lower"),
        ([1e-3] + [9.9e-3] * 20, "upper"),
    ],
)
def test_an_end_of_a_range_is_seen(best: list[object], end: str) -> None:
    found = boundary(axis(rate(), best))
    assert found is not None
    assert end in found.why
    options = yaml.safe_load(found.next)["optimizer.learning_rate"]
    assert options["log"]
    low, high = float(options["min"]), float(options["max"])
    assert low < (1e-2 if end == "upper" else 1e-4) < high
    assert math.log(high / low) == pytest.approx(math.log(100), rel=0.05)  # as wide as before


@pytest.mark.parametrize(
    "dimension, values",
    [
        (rate(), [1e-3] * 3 + [9.9e-3] * 17),  # only others are there
        (rate(), [9.9e-3] * 9),  # too few to say
        (
            Dimension("decoder.rnn_cell.dropout_input_keep_prob", Range(0.5, 1.0)),
            [1.0] * 20,
        ),  # the law ends there
        (Dimension("attention.dim", Choice((32, 64))), [64] * 20),  # of two values one is best
        (Dimension("attention.dim", Choice((32, 64, 128))), [128] + [64] * 20),  # chance
        (Dimension("encoder.type", Choice(("A", "B", "C"))), ["C"] * 20),  # no order
        (
            Dimension("train.batch_size", Range(1, 9, step=1, whole=True)),
            [1] * 20,
        ),  # no smaller batch
        (
            Dimension("attention.dim", Range(1, 2, step=1, whole=True)),
            [2] * 20,
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
    found = boundary(axis(Dimension("attention.dim", domain), [value] * 20))
    assert (found and yaml.safe_load(found.next)) == (following and {"attention.dim": following})


def test_towards_a_zero_that_is_not_allowed_the_next_range_is_logarithmic() -> None:
    found = boundary(axis(Dimension("optimizer.learning_rate", Range(0.001, 0.01)), [0.00101] * 20))
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
