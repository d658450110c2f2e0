"""Freeze-thaw search and its proposals, without Ray: simulated searches over curves that a formula gives."""

import math
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest

from s2s_search.methods.freeze_thaw import FreezeThaw
from s2s_search.methods.make import make_pausing, make_sampler
from s2s_search.methods.pausing import NEW, TRAINS, WAITS
from s2s_search.methods.proposals import Proposals
from s2s_search.methods.reading import Reading
from s2s_search.spaces.dimensions import Flat
from s2s_search.spaces.load import load_space
from s2s_search.spaces.space import Space

SPACE = """
model: [BasicSeq2Seq, AttentionSeq2Seq]
corpus: {name: copy, train: 20, dev: 5, vocabulary: 5, min_length: 2, max_length: 5}
metric: {name: METRIC}
search: {trials: TRIALS, seed: 3}
scheduler: {name: freeze_thaw, max_steps: 200BUDGET}
parameters:
  attention.score_type: [dot, bahdanau]
  optimizer.learning_rate: {min: 1e-4, max: 1e-2, log: true}
  encoder.rnn_cell.dropout_input_keep_prob: {min: 0.5, max: 1.0}
  train.eval_every_steps: 20
"""


def space(
    folder: Path,
    metric: str = "dev.error_rate",
    trials: int = 40,
    budget: str = "",
    text: str = SPACE,
) -> Space:
    text = text.replace("METRIC", metric).replace("TRIALS", str(trials)).replace("BUDGET", budget)
    (folder / "space.yaml").write_text(text)
    return load_space(folder / "space.yaml")


def error(config: Flat, step: int) -> float:
    """Falls with the steps; the best is a rate of 1e-3 with attention."""
    rate = config["optimizer.learning_rate"]
    assert isinstance(rate, float)
    end = 0.1 + 0.2 * abs(math.log10(rate) + 3) + 0.1 * (config["model"] == "BasicSeq2Seq")
    return end + (0.9 - end) * math.exp(-step / 40)


class Simulated:
    """A search over `error`, whose workers report in turns. It can be killed and told its log again."""

    def __init__(self, known: Space, value: Callable[[Flat, int], float] = error) -> None:
        self.space, self.value = known, value
        sampler = make_sampler(known)
        assert isinstance(sampler, Proposals)
        self.sampler: Proposals = sampler
        scheduler = make_pausing(known.scheduler, known.metric.goal == "minimize", sampler)
        assert isinstance(scheduler, FreezeThaw)
        self.scheduler: FreezeThaw = scheduler
        self.configs: dict[int, Flat] = {}
        self.log: list[tuple[str, int]] = []

    def begin(self, number: int) -> None:
        self.log.append(("start", number))
        self.scheduler.begin(number, self.configs[number])

    @property
    def has_new(self) -> bool:
        return len(self.scheduler.trials) < len(self.sampler)

    def chosen(self) -> int | None:
        return self.scheduler.choose(self.has_new)

    def run(self, workers: int = 1, most: int = 10_000) -> None:
        training = self.scheduler.of(TRAINS)
        while len(self.log) < most:
            while len(training) < workers:
                number = self.chosen()
                if number is None:
                    break
                if number == NEW:
                    number = len(self.configs)
                    config = self.sampler.ask(number)
                    assert config is not None
                    self.configs[number] = config
                self.begin(number)
                training.append(number)
            if not training:
                return
            number = training.pop(0)
            if self.report(number):
                training.append(number)

    def report(self, number: int) -> bool:
        step = self.scheduler.trials[number].step + 20
        self.log.append(("report", number))
        value = self.value(self.configs[number], step)
        seconds = step / 10
        if self.is_last(step, value):
            self.scheduler.hear(number, Reading(step, value, seconds=seconds))
            self.scheduler.end(number)
            return False
        trains = self.scheduler.report(number, Reading(step, value, seconds=seconds), self.has_new)
        if trains:
            self.log.append(("on", number))
        return trains

    def is_last(self, step: int, value: float) -> bool:
        return step == self.space.scheduler.max_steps or value == self.space.metric.worst

    def told(self, log: list[tuple[str, int]]) -> "Simulated":
        """A search that hears a part of the log of this one."""
        other = Simulated(self.space, self.value)
        for kind, number in log:
            other.log.append((kind, number))
            if kind != "report":
                other.configs[number] = self.configs[number]
                other.scheduler.begin(number, self.configs[number])
                continue
            step = other.scheduler.trials[number].step + 20
            value = self.value(self.configs[number], step)
            other.scheduler.hear(number, Reading(step, value))
            if self.is_last(step, value):
                other.scheduler.end(number)
        return other


@pytest.mark.parametrize("workers", [1, 4, 64])
def test_it_finds_a_good_configuration_and_trains_it_to_the_end(
    tmp_path: Path, workers: int
) -> None:
    known = space(tmp_path)
    search = Simulated(known)
    search.run(workers)
    made = sum(trial.step for trial in search.scheduler.trials.values())
    budget = 40 * 200 / 4
    assert budget <= made < budget + 20
    ends = {n: error(config, 200) for n, config in search.configs.items()}
    best = min(ends, key=ends.__getitem__)
    draws = sorted(error(draw, 200) for draw in known.trials())
    assert ends[best] <= draws[2], "as good as the best of all draws, with a quarter of the steps"
    if workers < 64:  # with 64 the budget is spent at the first reports
        assert search.scheduler.trials[best].step == 200


@pytest.mark.parametrize(
    "trials, workers", [(5, 2), (6, 2), (9, 1), (9, 2), (20, 2), (20, 4), (40, 8)]
)
def test_a_small_budget_ends_with_a_trial_that_reached_its_end(
    tmp_path: Path, trials: int, workers: int
) -> None:
    """Reports under way count, so that the budget is exceeded by less than one report."""
    for seed in range(6):
        text = SPACE.replace("seed: 3", f"seed: {seed}")
        search = Simulated(space(tmp_path, trials=trials, text=text))
        search.run(workers)
        steps = [trial.step for trial in search.scheduler.trials.values()]
        assert max(steps) == 200
        assert trials * 200 / 4 <= sum(steps) < trials * 200 / 4 + 20


def test_while_the_model_knows_too_little_the_best_waiting_trial_trains(tmp_path: Path) -> None:
    search = Simulated(space(tmp_path, trials=4, budget=", total_steps: 800"))
    search.run(most=8)  # starts and first reports of the four trials
    costs = {n: trial.costs[-1] for n, trial in search.scheduler.trials.items()}
    assert search.scheduler.choose(False) == min(costs, key=costs.__getitem__) != 0


@pytest.mark.parametrize("seconds", [100.0, 137.0, 300.0])
def test_a_budget_of_hours_ends_with_a_trial_that_reached_its_end(
    tmp_path: Path, seconds: float
) -> None:
    """One worker, at a tenth of a second a step. A trial needs 20 s, and the last one is chosen in time."""
    search = Simulated(space(tmp_path, budget=", total_steps: 1000000"))
    trials = search.scheduler.trials

    def left() -> float:
        return seconds - sum(trial.seconds for trial in trials.values())

    search.scheduler.seconds_left = left
    while left() >= 2:  # one more report
        search.run(most=len(search.log) + 1)
    known = [n for n, trial in trials.items() if trial.step > 20]
    best = min(known, key=lambda n: error(search.configs[n], 200))
    assert trials[best].step == 200


def test_the_same_search_twice_and_after_a_kill(tmp_path: Path) -> None:
    known = space(tmp_path)
    calm = Simulated(known)
    calm.run()
    for killed in (5, 31, 60):
        search = Simulated(known)
        search.run(most=killed)
        again = search.told([entry for entry in search.log if entry[0] != "on"])
        # A trial that reported last waits, and is chosen again before anything else happens.
        again.run()
        starts = [entry for entry in calm.log if entry[0] == "report"]
        assert [entry for entry in again.log if entry[0] == "report"] == starts
        assert again.configs == calm.configs


def test_to_maximize_is_to_minimize_the_distance_from_the_best_value(tmp_path: Path) -> None:
    known = space(tmp_path, "dev.token_accuracy")
    up = Simulated(known, lambda config, step: 1 - error(config, step))
    up.run()
    (tmp_path / "down").mkdir()
    down = Simulated(space(tmp_path / "down"))
    down.run()
    assert up.log == down.log


def test_all_diverge(tmp_path: Path) -> None:
    known = space(tmp_path, trials=12)
    search = Simulated(known)
    worst = known.metric.worst
    assert worst is not None
    for number in range(12):
        assert search.scheduler.choose(True) == NEW
        config = search.sampler.ask(number)
        assert config is not None
        search.configs[number] = config
        search.begin(number)
        search.scheduler.hear(number, Reading(20, worst))
        search.scheduler.end(number)
    assert search.scheduler.choose(False) is None
    assert search.sampler.ask(12) is None


def test_some_diverge(tmp_path: Path) -> None:
    """Trials with a large rate diverge at their first report. The others are searched as ever."""
    known = space(tmp_path, trials=20)
    worst = known.metric.worst
    assert worst is not None

    def value(config: Flat, step: int) -> float:
        diverges = config["optimizer.learning_rate"] > 3e-3  # type: ignore[operator]
        return worst if diverges else error(config, step)

    search = Simulated(known, value)
    search.run(workers=3)
    trials = search.scheduler.trials
    ends = {n: value(config, 200) for n, config in search.configs.items()}
    broken = [trials[number].step for number, end in ends.items() if end == worst]
    assert broken
    assert set(broken) == {20}
    assert not search.scheduler.of(TRAINS)
    assert trials[min(ends, key=ends.__getitem__)].step == 200


@pytest.mark.parametrize("workers", [1, 64])
def test_of_equal_trials_the_budget_is_spent_all_the_same(tmp_path: Path, workers: int) -> None:
    known = space(tmp_path, trials=16)
    search = Simulated(known, lambda config, step: 0.5)
    search.run(workers)
    made = sum(trial.step for trial in search.scheduler.trials.values())
    budget = 16 * 200 / 4
    assert budget <= made < budget + 20
    assert not search.scheduler.of(TRAINS)


@pytest.mark.parametrize("workers", [3, 64])
def test_with_many_workers_it_follows_from_the_order_of_reports(
    tmp_path: Path, workers: int
) -> None:
    known = space(tmp_path, trials=16)
    search, again = Simulated(known), Simulated(known)
    search.run(workers)
    again.run(workers)
    assert again.log == search.log
    assert again.configs == search.configs
    # What it chose after a report is what one chooses that hears the log up to there.
    for length in range(20, len(search.log), 9):
        heard, (event, number) = search.told(search.log[:length]), search.log[length]
        begun = len(heard.scheduler.trials)
        if event == "start":
            assert heard.chosen() == (NEW if number == begun else number)


def test_the_budget_ends_it(tmp_path: Path) -> None:
    search = Simulated(space(tmp_path, budget=", total_steps: 200"))
    search.run()
    assert sum(trial.step for trial in search.scheduler.trials.values()) == 200
    assert search.scheduler.choose(True) is None
    assert search.scheduler.dropped(True) == search.scheduler.of(WAITS)


def test_proposals_are_draws_and_changes_of_the_best(tmp_path: Path) -> None:
    known = space(tmp_path)
    search = Simulated(known)
    search.run()
    configs = list(search.configs.values())
    complete = [known.complete(config) for config in configs]
    assert None not in complete
    assert len(set(complete)) == len(configs), "no configuration comes twice"
    drawn = {known.complete(draw) for draw in known.trials()}
    assert configs[:4] == known.trials()[:4], "it begins with the draws"
    assert any(each not in drawn for each in complete)
    assert all(config["train.max_steps"] == 200 for config in configs)
    for config in configs:
        assert ("attention.score_type" in config) == (config["model"] == "AttentionSeq2Seq")


def test_one_in_three_new_trials_is_the_next_draw(tmp_path: Path) -> None:
    search = Simulated(space(tmp_path))
    search.run(most=60)
    sampler = search.sampler
    expectation = sampler.surrogate.expectation()
    assert expectation is not None
    begun = [sampler.space.complete(config) for config in search.configs.values()]
    left = [draw for draw in search.space.trials() if sampler.space.complete(draw) not in begun]
    found = [sampler.best(number, expectation) for number in (24, 25, 26, 27)]
    are_next = [each is not None and each.config == left[0] for each in found]
    assert are_next == [True, False, False, True]


def test_new_configurations_near_the_prior_are_preferred_less_and_less(tmp_path: Path) -> None:
    """The weight is a power of the ratio of the densities, with an exponent that falls from 1."""
    text = SPACE.replace("min: 1e-4, max: 1e-2", "min: 1e-4, max: 1e-2, prior: 1e-3")
    sampler = Simulated(space(tmp_path, text=text)).sampler
    draws = sampler.space.trials()[:5]
    ratios = np.exp([sampler.space.log_prior(draw) for draw in draws])
    assert max(ratios) > 1 > min(ratios)
    for number, exponent in ((0, 1.0), (10, 0.5), (90, 0.1)):
        assert sampler._preference(draws, number) == pytest.approx(ratios**exponent)
    plain = Simulated(space(tmp_path)).sampler
    assert (plain._preference(draws, 0) == 1).all()


def test_the_sampler_looks_away_from_what_trains_and_not_from_what_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = Simulated(space(tmp_path))
    search.run(workers=3, most=40)
    assert search.scheduler.of(WAITS)
    surrogate, asked = search.sampler.surrogate, list[list[int]]()
    expectation = surrogate.expectation

    def recorded(training: Iterable[int] = ()) -> object:
        asked.append(list(training))
        return expectation(asked[-1])

    monkeypatch.setattr(surrogate, "expectation", recorded)
    search.sampler.ask(len(search.configs))
    assert asked == [search.scheduler.of(TRAINS)]


def test_it_begins_with_the_first_configurations(tmp_path: Path) -> None:
    text = SPACE.replace("METRIC", "dev.error_rate").replace("TRIALS", "20").replace("BUDGET", "")
    rates = [0.0001 * k for k in range(10, 22)]
    first = ", ".join(
        f"{{model: BasicSeq2Seq, optimizer.learning_rate: {rate:g}}}" for rate in rates
    )
    (tmp_path / "space.yaml").write_text(f"{text}first: [{first}]\n")
    search = Simulated(load_space(tmp_path / "space.yaml"))
    search.run()
    begun = [config["optimizer.learning_rate"] for config in search.configs.values()]
    assert begun[:12] == pytest.approx(rates)


def test_trials_elsewhere_are_taken_to_report_as_expected(tmp_path: Path) -> None:
    known = space(tmp_path)
    search = Simulated(known)
    search.run(most=60)
    surrogate = search.sampler.surrogate
    number = search.scheduler.of(WAITS)[0]
    vectors = np.array([surrogate.trials[number].vector])
    alone, kept_away = surrogate.expectation(), surrogate.expectation([number])
    assert alone is not None
    assert kept_away is not None
    means, deviations = alone.at_the_end(vectors, [number])
    means_away, deviations_away = kept_away.at_the_end(vectors, [number])
    assert means_away == pytest.approx(means, abs=0.05)
    assert deviations_away < deviations
