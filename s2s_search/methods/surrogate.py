"""What a search has seen of its trials, and what it expects of them at the end.

A value counts as its distance from the perfect value, on a logarithmic scale: from 0.2 to 0.1 is as
far as from 0.4 to 0.2. A report of a divergence counts as the worst value of all. Early in training
the loss counts in place of the metric.

What is expected follows from the reports alone, in the order in which they came. A search that was
killed and hears its reports again expects the same.

Trials of earlier searches have negative numbers. The model learns from them, and nothing more is
expected of them.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.special import ndtr
from threadpoolctl import ThreadpoolController

from s2s_search.methods.features import Features
from s2s_search.methods.gaussian_process import Floats, GaussianProcess, Points, Whole
from s2s_search.methods.reading import Reading
from s2s_search.methods.samplers import EarlierCurve, fitted
from s2s_search.metrics import Metric
from s2s_search.spaces.space import Space

FEWEST = 16  # the least number of reports from which anything is expected
GROWTH = 1.25  # the model is fitted again after 16, 20, 25, 32, ... reports
MOST_POINTS = 400  # with more reports, the model sees fewer of each trial, and then fewer trials
EARLIER_POINTS = 100  # how many of these may be of earlier searches
CLIPPED = 0.9  # the quantile of distances from which on a report is just bad
KEPT = (6, 4, 3, 2, 1)  # how many reports of a trial the model sees
SIDES = 1.96  # deviations on either side of the mean in a 95 % interval
# The matrices are small, and trials take the cores: with a thread for each core, the model waits.
BLAS = ThreadpoolController()


@dataclass
class Seen:
    """A trial that has begun: the vector of its configuration, and its reports."""

    vector: Floats
    steps: list[int] = field(default_factory=list)
    distances: list[float] = field(default_factory=list)  # inf for a divergence
    losses: list[float] = field(default_factory=list)  # NaN where it is not known

    @property
    def step(self) -> int:
        return self.steps[-1] if self.steps else 0


@dataclass(frozen=True)
class Scale:
    """How distances become values of about mean 0 and deviation 1."""

    mean: float
    deviation: float
    least: float  # a smaller distance counts as this one
    worst: float  # a larger distance, or a divergence, counts as this one

    def values(self, distances: Sequence[float]) -> Floats:
        logs: Floats = np.log(np.clip(distances, self.least, self.worst))
        return (logs - self.mean) / self.deviation

    def distance(self, scaled: float) -> float:
        return math.exp(scaled * self.deviation + self.mean)


def scale_of(distances: Iterable[float]) -> Scale | None:
    """Returns the scale of some distances; None where none of them is a finite number."""
    seen = np.array([distance for distance in distances if not math.isnan(distance)])
    known = seen[np.isfinite(seen)]
    if len(known) == 0:
        return None
    least = max(1e-3 * float(np.median(known)), 1e-12)
    worst = max(float(np.quantile(known, CLIPPED)), least)
    logs = np.log(np.clip(seen, least, worst))
    return Scale(float(logs.mean()), max(float(logs.std()), 1e-6), least, worst)


@dataclass(frozen=True)
class Scales:
    """How reports become what the model sees of them."""

    metric: Scale
    loss: Scale | None  # None where no loss is known

    def values(self, distances: Sequence[float], losses: Sequence[float], times: Floats) -> Floats:
        """Returns values of about mean 0 and deviation 1.

        A first report counts by its loss, a last one by the metric, and one between them by a mean
        with the weights 1 - time and time. Early in training the loss says more about the end: most
        answers are still wrong, whatever the model has learned. Other trials may report even before
        the time 0, which is that of the first report.
        """
        values = self.metric.values(distances)
        if self.loss is None:
            return values
        early, weights = self.loss.values(losses), np.clip(times, 0, 1)
        return np.where(np.isnan(early), values, weights * values + (1 - weights) * early)


@dataclass(frozen=True)
class Fit:
    """The parameters of the model that were fitted to the first reports, and their scales."""

    reports: int
    theta: Floats
    scales: Scales


@dataclass(frozen=True)
class End:
    """What is expected of a trial: its best value by the last step, with a 95 % interval.

    `chance` is the probability that it beats the best report so far; nothing beats a perfect one.
    How often such intervals are right is in docs/search_efficiency.md.
    """

    value: float
    low: float
    high: float
    chance: float

    @property
    def percent(self) -> str:
        return f"{100 * self.chance:.0f} %" if self.chance >= 0.01 else "less than 1 %"


class Expectation:
    """What the model expects after some reports.

    Args:
        process: the model, conditioned on the reports.
        rows: the row of each trial in it.
        scale: the scale of its values.
        least: the least distance that each trial has reported.
        last: the step at the end of a trial.
        metric: the metric.
    """

    def __init__(
        self,
        process: GaussianProcess,
        rows: Mapping[int, int],
        scale: Scale,
        least: Mapping[int, float],
        last: int,
        metric: Metric,
    ) -> None:
        self._process, self._rows, self._scale = process, rows, scale
        self._least = least
        own = [distance for number, distance in least.items() if number >= 0]
        self._best = min(own, default=math.inf)
        self._last, self._metric = last, metric
        # The trial of which the best value is expected at the end, whatever the reports so far. An
        # earlier search does not hand over its trials: one of this search leads, once there is one.
        known = [row for number, row in rows.items() if number >= 0] or list(rows.values())
        leaders = np.array(known)
        means = process.means(process.vectors[leaders], np.ones(len(leaders)), leaders)
        self._leader = known[int(np.argmin(means))]

    def knows(self, number: int) -> bool:
        """Returns whether the model has seen a report of a trial. It sees a limited number."""
        return number in self._rows

    def at_the_end(self, vectors: Floats, numbers: Sequence[int | None]) -> tuple[Floats, Floats]:
        """Returns mean and deviation of the scaled value at the end of each trial.

        Args:
            vectors: the vectors of configurations.
            numbers: the trial of each; None for one that has not begun.
        """
        own = self._own(numbers)
        with BLAS.limit(limits=1, user_api="blas"):
            return self._process.predict(vectors, np.ones(len(own)), own)

    def gains(self, vectors: Floats, numbers: Sequence[int | None]) -> Floats:
        """Returns the expected improvement (Jones et al., 1998) on the best trial so far.

        That is the trial of which the best value is expected at its end. Early in a search every
        trial is expected to become better than the best report. A configuration that hardly differs
        from that of the best trial gains little, because both values are uncertain alike. The best
        trial itself counts by its own uncertainty, because only training shows what it is worth.

        Args:
            vectors: the vectors of configurations.
            numbers: the trial of each; None for one that has not begun.
        """
        own = self._own(numbers)
        with BLAS.limit(limits=1, user_api="blas"):
            better, deviations = self._process.apart(vectors, np.ones(len(own)), own, self._leader)
            _, alone = self._process.predict(vectors, np.ones(len(own)), own)
        deviations = np.where(own == self._leader, alone, deviations)
        ratios = better / deviations
        density = np.exp(-(ratios**2) / 2) / math.sqrt(2 * math.pi)
        gains: Floats = deviations * (ratios * ndtr(ratios) + density)
        return gains

    def _own(self, numbers: Sequence[int | None]) -> Whole:
        """Returns the row of each trial in the process; -1 for one that has not begun."""
        return np.array([-1 if n is None else self._rows.get(n, -1) for n in numbers])

    def end(self, vector: Floats, number: int | None) -> End:
        """Returns what is expected of a trial; `number` is None for one that has not begun.

        What a trial has reported already it keeps, whatever comes.
        """
        (mean,), (deviation,) = self.at_the_end(vector[None], [number])
        has = math.inf if number is None else self._least.get(number, math.inf)
        ends = [mean + k * deviation for k in (0.0, -SIDES, SIDES)]
        value, *interval = (self._value(min(self._scale.distance(end), has)) for end in ends)
        best = float(self._scale.values([self._best])[0])
        chance = float(ndtr((best - mean) / deviation)) if self._best > 0 else 0.0
        return End(value, min(interval), max(interval), chance)

    def sentence(self, vector: Floats, number: int | None) -> str:
        """Says what a trial is expected to reach, and whether it may win."""
        end, best = self.end(vector, number), self._value(self._best)
        expected = (
            f"{end.value:.3g} ({end.low:.3g} to {end.high:.3g}) is expected by step {self._last:,}"
        )
        if math.isinf(self._best):  # only divergences so far
            return expected
        return (
            f"{expected}; the best so far is {best:.4g}, and the chance to beat it is {end.percent}"
        )

    def _value(self, distance: float) -> float:
        """Returns the value of the metric at a distance from the perfect one."""
        return self._metric.perfect + (distance if self._metric.goal == "minimize" else -distance)


class Surrogate:
    """A model of all reports of a search so far.

    Args:
        space: the space of the search.
        first: the step of a trial's first report.
    """

    def __init__(self, space: Space, first: int) -> None:
        self.features = Features(space)
        self.last = space.scheduler.max_steps
        self.first = min(first, self.last)
        self.trials: dict[int, Seen] = {}
        self._space, self._metric = space, space.metric
        self._reports: list[int] = []  # the trial of each report, in the order of reports
        self._fit: Fit | None = None
        # The newest expectation, and what it was asked for.
        self._newest: tuple[object, Expectation | None] | None = None

    def begin(self, number: int, config: Mapping[str, object]) -> None:
        if number not in self.trials:
            self.trials[number] = Seen(self.features.of(config))

    def learn(self, curves: Iterable[EarlierCurve]) -> tuple[int, int]:
        """Takes curves of earlier searches as data; returns how many are used and how many not.

        A curve is used when the space contains its configuration, whatever its budget and seed, and
        when it has a report within the steps of a trial of this search.
        """
        taken = skipped = 0
        for config, points in curves:
            flat = fitted(self._space, config)
            within = [point for point in points if point[0] <= self.last]
            if flat is None or not within:
                skipped += 1
                continue
            taken += 1
            self.begin(-taken, flat)
            for step, value, loss in within:
                self.report(-taken, Reading(step, value, math.nan if loss is None else loss))
        return taken, skipped

    def report(self, number: int, reading: Reading) -> None:
        """Adds a report; one of a step that the trial has reported is no news."""
        seen = self.trials[number]
        if reading.step > seen.step:
            value = reading.value
            is_known = value != self._metric.worst and math.isfinite(value)
            seen.steps.append(reading.step)
            seen.distances.append(abs(value - self._metric.perfect) if is_known else math.inf)
            seen.losses.append(reading.loss if is_known else math.inf)
            if number >= 0:
                self._reports.append(number)

    def _earlier(self) -> dict[int, int]:
        """Returns the number of reports of each trial of earlier searches."""
        return {n: len(seen.steps) for n, seen in self.trials.items() if n < 0 and seen.steps}

    def expectation(self, training: Iterable[int] = ()) -> Expectation | None:
        """Returns what the model expects now; None while it knows too little.

        A trial that trains is taken to make its next report as expected. The model therefore looks
        elsewhere (the kriging believer of Ginsbourger et al., 2010).
        """
        asked = len(self._reports), len(self.trials), tuple(training)
        if self._newest is None or self._newest[0] != asked:
            with BLAS.limit(limits=1, user_api="blas"):
                self._newest = asked, self._expected(asked[2])
        return self._newest[1]

    def _expected(self, training: Sequence[int]) -> Expectation | None:
        fit = self._fitted()
        if fit is None:
            return None
        made = {number: len(seen.steps) for number, seen in self.trials.items() if seen.steps}
        process, rows = self._process(fit.scales, made)
        process.theta = fit.theta
        process.condition()
        under_way = [number for number in training if self.trials[number].step < self.last]
        if under_way:
            vectors = np.array([self.trials[number].vector for number in under_way])
            steps = [self.trials[number].step + self.first for number in under_way]
            own = np.array([rows.get(number, -1) for number in under_way])
            means = process.means(vectors, self._times(steps), own)
            for number in under_way:
                rows.setdefault(number, len(rows))
            more = Points(np.array([rows[n] for n in under_way]), self._times(steps))
            process = process.believing(self._vectors(rows), more, means)
        return Expectation(process, rows, fit.scales.metric, self._least(), self.last, self._metric)

    def _least(self) -> dict[int, float]:
        """Returns the least distance from the perfect value that each trial has reported."""
        return {number: min(seen.distances) for number, seen in self.trials.items() if seen.steps}

    def _vectors(self, numbers: Iterable[int]) -> Floats:
        return np.array([self.trials[number].vector for number in numbers])

    def _times(self, steps: Sequence[int]) -> Floats:
        """Returns the logarithms of steps, 0 at the first report and 1 at the end."""
        if self.first == self.last:  # the first report is the last one
            return np.ones(len(steps))
        span = math.log(self.last / self.first)
        return np.log(np.array(steps) / self.first) / span

    def _fitted(self) -> Fit | None:
        """Returns the model that was fitted last, by the reports up to then."""
        count, due = len(self._reports), FEWEST
        if sum(self._earlier().values()) >= FEWEST:
            due = 0
        if count < due:
            return None
        while (following := max(math.ceil(due * GROWTH), FEWEST)) <= count:
            due = following
        if self._fit is None or self._fit.reports != due:
            self._fit = self._fit_to(due)
        return self._fit

    def _fit_to(self, count: int) -> Fit | None:
        """Fits the model to the first reports of the search."""
        made = self._earlier()
        for number in self._reports[:count]:
            made[number] = made.get(number, 0) + 1
        distances, losses = list[float](), list[float]()
        for number, most in made.items():
            distances += self.trials[number].distances[:most]
            losses += self.trials[number].losses[:most]
        scale = scale_of(distances)
        if scale is None:
            return None
        scales = Scales(scale, scale_of(losses))
        process, _ = self._process(scales, made)
        process.fit()
        return Fit(count, process.theta, scales)

    def _process(
        self, scales: Scales, made: Mapping[int, int]
    ) -> tuple[GaussianProcess, dict[int, int]]:
        """Returns the process of the first reports of trials, and the row of each trial in it."""
        rows: dict[int, int] = {}
        which, steps, distances, losses = [], [], [], []
        newest = {n: self.trials[n].distances[count - 1] for n, count in made.items()}
        earlier = {number: count for number, count in made.items() if number < 0}
        own = {number: count for number, count in made.items() if number >= 0}
        kept = thinned(earlier, newest, EARLIER_POINTS)
        left = MOST_POINTS - sum(map(len, kept.values()))
        for number, places in (kept | thinned(own, newest, left)).items():
            seen = self.trials[number]
            rows[number] = len(rows)
            for place in places:
                which.append(rows[number])
                steps.append(seen.steps[place])
                distances.append(seen.distances[place])
                losses.append(seen.losses[place])
        times = self._times(steps)
        points = Points(np.array(which), times)
        values = scales.values(distances, losses, times)
        process = GaussianProcess(self._vectors(rows), self.features.keys, points, values)
        return process, rows


def thinned(
    made: Mapping[int, int], newest: Mapping[int, float], most_points: int = MOST_POINTS
) -> dict[int, list[int]]:
    """Returns the places of the reports of each trial that a model sees, by trial.

    They are the first, the last and some between them in equal ratios. With too many of them it is
    fewer of each trial. In the end it is only the last one of the trials with the most reports, and
    of those with as many reports the ones with the best newest report.

    Args:
        made: the number of reports of each trial.
        newest: the distance of its newest report from the perfect value.
        most_points: the largest number of reports.
    """
    for most in KEPT:
        found = {number: places(count, most) for number, count in made.items()}
        if sum(map(len, found.values())) <= most_points:
            return found
    longest = sorted(made, key=lambda number: (-made[number], newest[number], number))[:most_points]
    return {number: found[number] for number in sorted(longest)}


def places(count: int, most: int) -> list[int]:
    """Returns at most `most` of the places 0 to count - 1, the last among them."""
    if count <= most:
        return list(range(count))
    if most == 1:
        return [count - 1]
    return sorted({round(count ** (k / (most - 1))) - 1 for k in range(most)})
