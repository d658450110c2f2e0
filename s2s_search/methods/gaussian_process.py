"""A Gaussian process on configurations and steps, fitted to curves of different lengths.

The value of a configuration x at a step is a sum of five parts, each with its own variance:

- what x is worth at every step;
- what x is worth at this step, alike at steps whose logarithms are near;
- what is common to all curves at this step;
- how this trial differs from others of the same x, at every step and at this one;
- noise.

Trials differ more and more while they train. The deviations of the parts that differ between trials
therefore grow with the logarithm of the step.

Configurations are alike by Matern's kernel (nu = 5/2) with a length of its own for each key.
Swersky et al. (2014) describe such a model of paused trials, Rasmussen and Williams (2006, chapters
2 and 5) the algebra. Lengths and variances are those that make the curves and a weak prior most
likely.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.optimize import minimize

Floats = NDArray[np.float64]
Whole = NDArray[np.intp]

# The parameters of the kernel beside the lengths of the keys are logarithms: of six deviations in
# the order of the docstring, of the length of the steps, and of how many times as large the
# deviations between trials are at the end. Each has a normal prior of deviation 1 around its start.
START = np.log([0.7, 0.5, 0.5, 0.1, 0.1, 0.05])
STEP_LENGTH = np.log(0.5)
SPREAD = 1.0
JITTER = 1e-8  # added to the noise, so that equal points can be told apart
FAR = 6.0  # deviations of the prior beyond which no parameter goes; there, numbers overflow
MOST_STEPS = 40  # of the optimizer in a fit


@dataclass(frozen=True)
class Points:
    """Observed or wanted points: the number of a trial in a table of vectors, and a time.

    The time is the logarithm of the step, 0 at the first report and 1 at the last step.
    """

    trials: Whole
    times: Floats


def squares(a: Floats, b: Floats, keys: Whole) -> Floats:
    """Returns the squared distance of each pair by each key, of shape (keys, a, b)."""
    found = np.zeros((int(keys.max()) + 1, len(a), len(b)))
    for column, key in enumerate(keys):
        found[key] += np.subtract.outer(a[:, column], b[:, column]) ** 2
    return found


def matern(squared: Floats) -> tuple[Floats, Floats]:
    """Returns Matern's kernel (nu = 5/2) of squared distances, and its derivative by them."""
    root = np.sqrt(5 * squared)
    falling = np.exp(-root)
    return (1 + root + root**2 / 3) * falling, -5 / 6 * (1 + root) * falling


def near(times: Floats, others: Floats, length: float) -> tuple[Floats, Floats]:
    """Returns how alike times are, and the derivative by the logarithm of the length."""
    squared = np.subtract.outer(times, others) ** 2 / length**2
    alike = np.exp(-squared / 2)
    return alike, alike * squared


class GaussianProcess:
    """The model of some vectors of configurations (trials x entries).

    Args:
        vectors: one vector for each trial that was observed.
        keys: for each entry of a vector, the number of its key.
        points: the observed points.
        values: the observed values, of about mean 0 and deviation 1.
    """

    def __init__(self, vectors: Floats, keys: Whole, points: Points, values: Floats) -> None:
        self.vectors, self.keys, self.points, self.values = vectors, keys, points, values
        self._count = count = int(keys.max()) + 1  # of keys
        # Hvarfner et al. (2024): with more keys, each of them matters less.
        self.start = np.concatenate(
            [np.full(count, np.log(0.6 * np.sqrt(count))), START, [STEP_LENGTH, SPREAD]]
        )
        self.theta = self.start

    def fit(self) -> None:
        """Finds the parameters."""
        self._squares = squares(self.vectors, self.vectors, self.keys)
        options = {"maxiter": MOST_STEPS}
        found = minimize(self._loss, self.start, jac=True, method="L-BFGS-B", options=options)
        self.theta = found.x

    def condition(self) -> None:
        """Prepares `predict` for the parameters `theta`."""
        squared = self._between(self.vectors, self.theta)
        covariance, *_ = self._covariance(self.theta, squared)
        self._lower = np.linalg.cholesky(covariance)
        self._weights = cho_solve((self._lower, True), self.values)

    def believing(self, vectors: Floats, points: Points, values: Floats) -> "GaussianProcess":
        """Returns the process with some more points, and the same parameters.

        Args:
            vectors: one vector for each trial, those of this process first.
            points: the further points.
            values: their values.
        """
        all_points = Points(
            np.concatenate([self.points.trials, points.trials]),
            np.concatenate([self.points.times, points.times]),
        )
        more = GaussianProcess(
            vectors, self.keys, all_points, np.concatenate([self.values, values])
        )
        more.theta = self.theta
        more.condition()
        return more

    def means(self, vectors: Floats, times: Floats, own: Whole) -> Floats:
        """Returns the means of `predict`, which cost much less than the deviations."""
        found: Floats = self._cross(vectors, times, own)[0] @ self._weights
        return found

    def predict(self, vectors: Floats, times: Floats, own: Whole) -> tuple[Floats, Floats]:
        """Returns mean and deviation of the value without noise, for each vector and its time.

        Of a new trial it is the value of its configuration: the luck of the trial does not count.

        Args:
            vectors: the vectors of configurations.
            times: the time for each.
            own: for each the number of the observed trial that it is; -1 for a new trial.
        """
        cross, prior = self._cross(vectors, times, own)
        mean: Floats = cross @ self._weights
        part = solve_triangular(self._lower, cross.T, lower=True)
        variance = prior - (part**2).sum(0)
        return mean, np.sqrt(np.maximum(variance, 1e-10))

    def apart(self, vectors: Floats, times: Floats, own: Whole, best: int) -> tuple[Floats, Floats]:
        """Returns mean and deviation of how much lower each value is than that of one trial.

        What is uncertain about both values alike does not count. Configurations that hardly differ
        therefore have a small deviation, however uncertain they are.

        Args:
            vectors: the vectors of configurations.
            times: the time for each.
            own: for each the number of the observed trial that it is; -1 for a new trial.
            best: the number of the observed trial, whose value at the time 1 counts.
        """
        one = np.ones(1)
        cross, prior = self._cross(vectors, times, own)
        cross_of_best, prior_of_best = self._cross(self.vectors[[best]], one, np.array([best]))
        part = solve_triangular(self._lower, cross.T, lower=True)
        part_of_best = solve_triangular(self._lower, cross_of_best.T, lower=True)
        alike, _ = matern(self._between(vectors, self.theta)[:, [best]])
        when, _ = near(times, one, float(np.exp(self.theta[-2])))
        spread = self._spread(times, one)
        both = self._joined(alike, when, (own == best)[:, None], spread)[:, 0]
        both -= (part * part_of_best).sum(0)
        variance = prior - (part**2).sum(0) + prior_of_best - (part_of_best**2).sum(0) - 2 * both
        mean: Floats = (cross_of_best @ self._weights) - cross @ self._weights
        return mean, np.sqrt(np.maximum(variance, 1e-10))

    def _spread(self, times: Floats, others: Floats) -> Floats:
        """Returns the variance between trials at each pair of times; 1 at the end."""
        found: Floats = np.exp(self.theta[-1] * (np.add.outer(times, others) - 2))
        return found

    def _joined(
        self, alike: Floats, when: Floats, same: NDArray[np.bool_], spread: Floats
    ) -> Floats:
        """Returns the covariances of pairs without noise.

        Args:
            alike: how alike the configurations of each pair are.
            when: how alike their times are.
            same: whether both are one trial.
            spread: the variance between trials at their times; 1 at the end.
        """
        count = self._count
        always, step, curve, trial, trial_step, _ = np.exp(2 * self.theta[count : count + 6])
        between = alike * (always + step * when) + same * (trial + trial_step * when)
        found: Floats = spread * between + curve * when
        return found

    def _cross(self, vectors: Floats, times: Floats, own: Whole) -> tuple[Floats, Floats]:
        """Returns the covariances of wanted and observed points, and the variances of wanted ones.

        Their shapes are (wanted, observed) and (wanted,).
        """
        alike, _ = matern(self._between(vectors, self.theta))
        when, _ = near(times, self.points.times, float(np.exp(self.theta[-2])))
        same = np.equal.outer(own, self.points.trials)
        one = np.ones(len(vectors))
        spread = self._spread(times, self.points.times)
        cross = self._joined(alike[:, self.points.trials], when, same, spread)
        alone = np.exp(self.theta[-1] * (2 * times - 2))
        return cross, self._joined(one, one, own >= 0, alone)

    def _between(self, vectors: Floats, theta: Floats) -> Floats:
        """Returns the squared distances between vectors and those of the observed trials."""
        scale = np.exp(-theta[self.keys])
        a, b = vectors * scale, self.vectors * scale
        products: Floats = a @ b.T
        between = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * products
        found: Floats = np.maximum(between, 0)
        return found

    def _covariance(self, theta: Floats, squared: Floats) -> tuple[Floats, ...]:
        count = self._count
        always, step, curve, trial, trial_step, noise = np.exp(2 * theta[count : count + 6])
        alike, slope = matern(squared)
        which = self.points.trials
        when, by_length = near(self.points.times, self.points.times, float(np.exp(theta[-2])))
        ages = np.add.outer(self.points.times, self.points.times) - 2
        spread = np.exp(theta[-1] * ages)
        same = spread * np.equal.outer(which, which)
        of_pairs = spread * alike[np.ix_(which, which)]
        covariance = of_pairs * (always + step * when) + curve * when
        covariance += same * (trial + trial_step * when)
        covariance[np.diag_indices(len(which))] += noise + JITTER
        return covariance, of_pairs, slope, when, by_length, same, spread, ages

    def _loss(self, theta: Floats) -> tuple[float, Floats]:
        """Returns the negative logarithm of the posterior of the parameters, and its gradient."""
        count, n = self._count, len(self.values)
        residual = theta - self.start
        if np.abs(residual).max() > FAR:
            return 1e10, residual
        squared = self._between(self.vectors, theta)
        covariance, of_pairs, slope, when, by_length, same, spread, ages = self._covariance(
            theta, squared
        )
        try:
            factor = cho_factor(covariance, lower=True)
        except np.linalg.LinAlgError:
            return 1e10, np.zeros_like(theta)
        weights = cho_solve(factor, self.values)
        inverse = cho_solve(factor, np.eye(n))
        loss = (
            self.values @ weights / 2 + np.log(np.diag(factor[0])).sum() + residual @ residual / 2
        )
        towards = inverse - np.outer(weights, weights)
        variances = np.exp(2 * theta[count : count + 6])
        always, step, curve, trial, trial_step, noise = variances
        gradient = np.empty_like(theta)
        # By the lengths: pairs of points of two trials share one derivative.
        per_pair = towards * spread * (always + step * when)
        which = self.points.trials
        summed = np.zeros((len(self.vectors), n))
        np.add.at(summed, which, per_pair)
        of_trials = np.zeros((len(self.vectors), len(self.vectors)))
        np.add.at(of_trials.T, which, summed.T)
        weighted = of_trials * slope
        lengths = np.exp(2 * theta[:count])
        gradient[:count] = -np.tensordot(self._squares, weighted, 2) / lengths
        parts = (of_pairs, of_pairs * when, when, same, same * when)
        for k, part in enumerate(parts):
            gradient[count + k] = variances[k] * (towards * part).sum()
        gradient[count + 5] = noise * np.trace(towards)
        changing = of_pairs * step + curve + same * trial_step
        gradient[-2] = (towards * changing * by_length).sum() / 2
        growing = of_pairs * (always + step * when) + same * (trial + trial_step * when)
        gradient[-1] = (towards * growing * ages).sum() / 2
        return float(loss), gradient + residual
