"""The model of configurations and steps: against finite differences, dense algebra, and what must not matter."""

import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from s2s_search.methods.features import Features
from s2s_search.methods.gaussian_process import JITTER, GaussianProcess, Points, squares
from s2s_search.methods.reading import Reading
from s2s_search.methods.surrogate import (
    MOST_POINTS,
    Scales,
    Surrogate,
    places,
    scale_of,
    thinned,
)
from s2s_search.spaces.load import load_space
from s2s_search.spaces.space import Space

SPACE = """
model: [BasicSeq2Seq, AttentionSeq2Seq]
corpus: {name: copy, train: 20, dev: 5, vocabulary: 5, min_length: 2, max_length: 5}
metric: {name: METRIC}
search: {trials: 40, seed: 3}
scheduler: {name: freeze_thaw, max_steps: 160}
parameters:
  attention.score_type: [dot, bahdanau]
  attention.dim: {min: 8, max: 64, log: true}
  optimizer.learning_rate: {min: 1e-4, max: 1e-2, log: true}
  train.eval_every_steps: 20
"""


def space(folder: Path, metric: str = "dev.error_rate") -> Space:
    (folder / "space.yaml").write_text(SPACE.replace("METRIC", metric))
    return load_space(folder / "space.yaml")


def process(seed: int, trials: int = 7, points: int = 20) -> GaussianProcess:
    rng = np.random.default_rng(seed)
    which = rng.integers(0, trials, points)
    vectors, keys = rng.normal(size=(trials, 4)), np.array([0, 0, 1, 2])
    made = GaussianProcess(
        vectors, keys, Points(which, rng.uniform(size=points)), rng.normal(size=points)
    )
    made.theta = made.start + 0.3 * rng.normal(size=len(made.start))
    return made


@pytest.mark.parametrize("seed", range(5))
def test_the_gradient_of_the_likelihood(seed: int) -> None:
    made = process(seed)
    made._squares = squares(made.vectors, made.vectors, made.keys)
    _, gradient = made._loss(made.theta)
    for k in range(len(made.theta)):
        step = 1e-5 * np.eye(len(made.theta))[k]
        numeric = (made._loss(made.theta + step)[0] - made._loss(made.theta - step)[0]) / 2e-5
        assert gradient[k] == pytest.approx(numeric, rel=1e-4, abs=1e-5)


def test_the_optimizer_may_try_parameters_at_which_numbers_overflow() -> None:
    """It did with recorded curves of 12 trials: a length of exp(-1000) is 0, by which nothing can be divided."""
    made = process(0)
    made._squares = squares(made.vectors, made.vectors, made.keys)
    with np.errstate(all="raise"):
        for far in (-1000.0, 1000.0):
            for k in range(len(made.start)):
                loss, gradient = made._loss(made.start + far * np.eye(len(made.start))[k])
                assert loss > made._loss(made.start)[0]
                assert np.isfinite(gradient).all()


def kernel(made: GaussianProcess, a: tuple[int, float], b: tuple[int, float]) -> float:
    """The covariance of two points as the docstring of the module says it, by scalars."""
    lengths, parts = np.exp(made.theta[:3]), np.exp(2 * made.theta[3:8])
    always, step, curve, trial, trial_step = parts
    difference = made.vectors[a[0]] - made.vectors[b[0]]
    r = math.sqrt(5 * float(np.sum(difference**2 / lengths[made.keys] ** 2)))
    alike = (1 + r + r**2 / 3) * math.exp(-r)
    when = math.exp(-((a[1] - b[1]) ** 2) / 2 / math.exp(made.theta[-2]) ** 2)
    own = (trial + trial_step * when) if a[0] == b[0] else 0.0
    return grown(made, a[1]) * grown(made, b[1]) * (alike * (always + step * when) + own) + (
        curve * when
    )


def grown(made: GaussianProcess, time: float) -> float:
    """The deviation between trials at a time, as a share of that at the time 1."""
    return float(math.exp(made.theta[-1]) ** (time - 1))


@pytest.mark.parametrize("seed", range(3))
def test_predictions_are_those_of_dense_algebra(seed: int) -> None:
    made = process(seed)
    points = list(zip(made.points.trials, made.points.times, strict=True))
    noise = math.exp(2 * made.theta[8])
    covariance = np.array([[kernel(made, p, q) for q in points] for p in points])
    covariance += (noise + JITTER) * np.eye(len(points))
    wanted = [(k, 1.0) for k in range(7)]
    cross = np.array([[kernel(made, w, p) for p in points] for w in wanted])
    solved = np.linalg.solve(covariance, cross.T)
    means = solved.T @ made.values
    variances = [kernel(made, w, w) - cross[k] @ solved[:, k] for k, w in enumerate(wanted)]
    made.condition()
    found, deviations = made.predict(made.vectors, np.ones(7), np.arange(7))
    np.testing.assert_allclose(found, means, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(deviations**2, variances, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_differences_are_those_of_dense_algebra(seed: int) -> None:
    """Seen trials and one new configuration, at two times, against trial 2 at its end."""
    made = process(seed)
    new = np.array([[0.3, -0.2, 0.5, 0.1]])
    vectors, own = np.concatenate([made.vectors, new]), np.array([*range(7), -1])
    times = np.array([1.0, 0.4] * 4)
    made.condition()
    found, deviations = made.apart(vectors, times, own, 2)
    points = list(zip(made.points.trials, made.points.times, strict=True))
    noise = math.exp(2 * made.theta[8]) + JITTER
    covariance = np.array([[kernel(made, p, q) for q in points] for p in points])
    inverse = np.linalg.inv(covariance + noise * np.eye(len(points)))
    # The new configuration as an eighth trial, without the two parts of a trial's own.
    made.vectors = vectors
    luck = sum(np.exp(2 * made.theta[6:8]))
    for k in range(8):
        pair = [(k, times[k]), (2, 1.0)]
        cross = np.array([[kernel(made, p, q) for q in points] for p in pair])
        joint = np.array([[kernel(made, p, q) for q in pair] for p in pair])
        joint[0, 0] -= luck * (k == 7) * grown(made, times[k]) ** 2
        joint -= cross @ inverse @ cross.T
        means = cross @ inverse @ made.values
        assert found[k] == pytest.approx(means[1] - means[0], rel=1e-5, abs=1e-6)
        variance = joint[0, 0] + joint[1, 1] - 2 * joint[0, 1]
        assert deviations[k] ** 2 == pytest.approx(variance, rel=1e-4, abs=1e-6)


def test_a_key_that_takes_no_part_adds_nothing(tmp_path: Path) -> None:
    known = space(tmp_path)
    features = Features(known)
    draws = known.draw(60, 1)
    basic = [draw for draw in draws if draw["model"] == "BasicSeq2Seq"]
    names = [dimension.key for dimension in known.varying]
    of_attention = np.isin(features.keys, [names.index(n) for n in names if "attention" in n])
    for draw in basic:
        assert not features.of(draw)[of_attention].any()
    vectors = np.array([features.of(draw) for draw in draws])
    assert np.abs(vectors).max() <= math.sqrt(0.5)
    scores = {draw.get("attention.score_type"): features.of(draw) for draw in draws}
    column = features.keys == names.index("attention.score_type")
    apart = scores["dot"][column] - scores["bahdanau"][column]
    assert np.linalg.norm(apart) == pytest.approx(1)


def told(known: Space, reports: list[tuple[int, int, float]]) -> Surrogate:
    surrogate, draws = Surrogate(known, 20), known.draw(40, 3)
    for number, step, value in reports:
        surrogate.begin(number, draws[number])
        surrogate.report(number, Reading(step, value))
    return surrogate


def reports(seed: int = 0, trials: int = 12) -> list[tuple[int, int, float]]:
    rng = np.random.default_rng(seed)
    made = [(n, 20 * k, float(rng.uniform(0.2, 1))) for n in range(trials) for k in (1, 2, 3)]
    return sorted(made, key=lambda report: report[1])


def test_what_is_expected_follows_from_the_reports_alone(tmp_path: Path) -> None:
    """One that was asked all the time expects the same as one that hears the log after a kill."""
    known = space(tmp_path)
    asked, draws = Surrogate(known, 20), known.draw(40, 3)
    for number, step, value in reports():
        asked.begin(number, draws[number])
        asked.report(number, Reading(step, value))
        asked.expectation([number])
    vectors = np.array([asked.features.of(draw) for draw in draws[:15]])
    numbers = [*range(12), None, None, None]
    answers = []
    for surrogate in (asked, told(known, reports())):
        expectation = surrogate.expectation([1, 5])
        assert expectation is not None
        answers.append(expectation.at_the_end(vectors, numbers))
    np.testing.assert_array_equal(answers[0], answers[1])


@pytest.mark.parametrize(
    "metric, worst, good", [("dev.error_rate", 1e30, 0.1), ("dev.bleu", -1.0, 90.0)]
)
def test_a_divergence_is_bad_news_and_no_more(
    tmp_path: Path, metric: str, worst: float, good: float
) -> None:
    known = space(tmp_path, metric)
    worst = known.metric.worst if known.metric.worst is not None else worst
    scale = 100 if metric == "dev.bleu" else 1
    made = [(n, s, scale * v) for n, s, v in reports()]
    made[0] = (made[0][0], made[0][1], worst)
    surrogate = told(known, [*made, (3, 80, good)])
    expectation = surrogate.expectation()
    assert expectation is not None
    vectors = np.array([surrogate.trials[n].vector for n in (0, 3)])
    means, deviations = expectation.at_the_end(vectors, [0, 3])
    assert np.isfinite(means).all()
    assert np.isfinite(deviations).all()
    assert means[1] < means[0]


def test_early_in_training_the_loss_counts_and_at_the_end_the_metric() -> None:
    rng = np.random.default_rng(4)
    errors, losses = rng.uniform(0.2, 0.9, (2, 40))
    of_errors, of_losses = scale_of(errors), scale_of(losses)
    assert of_errors is not None
    for time, loss_counts in ((-0.2, 1.0), (0.0, 1.0), (0.5, 0.5), (1.0, 0.0)):
        times = np.full(40, time)
        seen = Scales(of_errors, of_losses).values(list(errors), list(losses), times)
        expected = (1 - loss_counts) * standard(errors) + loss_counts * standard(losses)
        np.testing.assert_allclose(seen, expected)
    # Where no loss is known, only the metric counts.
    for some in (Scales(of_errors, None), Scales(of_errors, of_losses)):
        seen = some.values(list(errors), [math.nan] * 40, np.zeros(40))
        np.testing.assert_allclose(seen, standard(errors))


def standard(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logarithms without the worst tenth, of mean 0 and deviation 1."""
    logs = np.log(np.minimum(values, np.quantile(values, 0.9)))
    return (logs - logs.mean()) / logs.std()


def test_where_trials_report_once_only_the_metric_counts(tmp_path: Path) -> None:
    surrogate, draws = Surrogate(space(tmp_path), 160), space(tmp_path).draw(20, 3)
    errors = [0.2 + 0.03 * number for number in range(20)]
    for number, error in enumerate(errors):
        surrogate.begin(number, draws[number])
        surrogate.report(number, Reading(160, error, loss=1 - error))
    expectation = surrogate.expectation()
    assert expectation is not None
    np.testing.assert_allclose(expectation._process.values, standard(np.array(errors)))


def test_earlier_trials_are_known_before_the_first_report(tmp_path: Path) -> None:
    """One of two configurations was the better one before. Of this search neither has reported."""
    known, made = space(tmp_path), reports()
    surrogate, draws = Surrogate(known, 20), known.draw(40, 3)
    for number, step, value in made:
        surrogate.begin(-1 - number, draws[number])
        worse = 0.8 if number == 0 else 0.3 if number == 1 else value
        surrogate.report(-1 - number, Reading(step, worse))
    expectation = surrogate.expectation()
    assert expectation is not None
    vectors = np.array([surrogate.features.of(draws[number]) for number in (0, 1)])
    means, _ = expectation.at_the_end(vectors, [None, None])
    assert means[1] < means[0]
    assert expectation._best == math.inf, "no trial of this search has reported"
    # A trial of this search leads from its first report on, though an earlier one was better.
    surrogate.begin(0, draws[0])
    surrogate.report(0, Reading(20, 0.9))
    after = surrogate.expectation()
    assert after is not None
    assert after._leader == after._rows[0]
    assert after._best == 0.9


def test_what_is_said_of_a_trial_is_what_the_model_expects(tmp_path: Path) -> None:
    """By hand for error rates, of which the perfect one is 0."""
    surrogate = told(space(tmp_path), [*reports(), (3, 80, 0.4)])
    expectation = surrogate.expectation()
    assert expectation is not None
    assert surrogate._fit is not None
    scale = surrogate._fit.scales.metric
    made = [*reports(), (3, 80, 0.4)]
    for number in (3, 5):
        least = min(value for n, _, value in made if n == number)
        vector = surrogate.trials[number].vector
        (mean,), (deviation,) = expectation.at_the_end(vector[None], [number])
        log = scale.mean + scale.deviation * mean
        side = 1.96 * scale.deviation * deviation
        # What it has reported it keeps.
        value, low, high = (min(math.exp(log + k * side), least) for k in (0, -1, 1))
        best = min(0.4, *(value for *_, value in reports()))
        ratio = (math.log(best) - log) / (scale.deviation * deviation)
        chance = (1 + math.erf(ratio / math.sqrt(2))) / 2
        said = f"{100 * chance:.0f} %" if chance >= 0.01 else "less than 1 %"
        assert expectation.sentence(vector, number) == (
            f"{value:.3g} ({low:.3g} to {high:.3g}) is expected by step 160; the best so "
            f"far is {best:.4g}, and the chance to beat it is {said}"
        )


def test_nothing_beats_a_perfect_value(tmp_path: Path) -> None:
    surrogate = told(space(tmp_path), [*reports(), (3, 80, 0.0)])
    expectation = surrogate.expectation()
    assert expectation is not None
    for number in (3, 5):
        assert expectation.end(surrogate.trials[number].vector, number).chance == 0


def test_all_equal_and_all_diverged_do_no_harm(tmp_path: Path) -> None:
    known = space(tmp_path)
    same = told(known, [(n, s, 0.5) for n, s, _ in reports()]).expectation()
    assert same is not None
    vectors = np.zeros((2, len(Features(known).keys)))
    means, deviations = same.at_the_end(vectors, [None, None])
    assert np.isfinite([*means, *deviations, *same.gains(vectors, [None, None])]).all()
    worst = known.metric.worst
    assert worst is not None
    assert told(known, [(n, s, worst) for n, s, _ in reports()]).expectation() is None


@pytest.mark.parametrize("trials, reports", [(10, 3), (60, 40), (300, 40), (2000, 40)])
def test_the_model_sees_a_bounded_number_of_reports(trials: int, reports: int) -> None:
    found = thinned(dict.fromkeys(range(trials), reports), {n: n / 7 % 1 for n in range(trials)})
    assert 0 < sum(map(len, found.values())) <= MOST_POINTS
    assert all(kept[-1] == reports - 1 for kept in found.values())
    for count in range(1, 50):
        for most in (1, 2, 3, 6):
            kept = places(count, most)
            assert kept == sorted(set(kept))
            assert kept[-1] == count - 1
            assert len(kept) <= most


def test_of_too_many_trials_the_longest_and_best_are_seen() -> None:
    made = {number: 2 if number < 10 else 1 for number in range(1000)}
    newest = {number: abs(number - 700.5) for number in made}
    found = thinned(made, newest)
    assert len(found) == MOST_POINTS
    assert set(range(10)) < set(found)
    others = [number for number in found if number >= 10]
    assert others == list(range(others[0], others[0] + len(others)))
    assert others[0] < 700.5 < others[-1]
    assert abs((others[0] + others[-1]) / 2 - 700.5) <= 0.5
