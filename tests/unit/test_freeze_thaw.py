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
    folder: Path, metric: str = "dev.error_rate", trials: int = 40, budget: str = ""
) -> Space:
    text = SPACE.replace("METRIC", metric).replace("TRIALS", str(trials)).replace("BUDGET", budget)
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

    def run(self, workers: int = 1, most: int = 10_000) -> None:
        training = self.scheduler.of(TRAINS)
        while len(self.log) < most:
            while len(training) < workers:
                number = self.scheduler.choose(len(self.configs) < len(self.sampler))
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
        if step == self.space.scheduler.max_steps:
            self.scheduler.hear(number, step, value)
            self.scheduler.end(number)
            return False
        return self.scheduler.report(number, step, value, len(self.configs) < len(self.sampler))

    def told(self) -> "Simulated":
        """A search that hears the log of this one, as after a kill."""
        other = Simulated(self.space, self.value)
        other.configs = dict(self.configs)
        for kind, number in self.log:
            other.log.append((kind, number))
            if kind == "start":
                other.scheduler.begin(number, self.configs[number])
                continue
            step = other.scheduler.trials[number].step + 20
            value = self.value(self.configs[number], step)
            other.scheduler.hear(number, step, value)
            if step == self.space.scheduler.max_steps:
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
    assert budget <= made <= budget + 20 * workers
    ends = {n: error(config, 200) for n, config in search.configs.items()}
    best = min(ends, key=ends.__getitem__)
    draws = sorted(error(draw, 200) for draw in known.trials())
    assert ends[best] <= draws[2], "as good as the best of all draws, with a quarter of the steps"
    if workers < 64:  # with 64 the budget is spent at the first reports
        assert search.scheduler.trials[best].step == 200


def test_the_same_search_twice_and_after_a_kill(tmp_path: Path) -> None:
    known = space(tmp_path)
    calm = Simulated(known)
    calm.run()
    for killed in (5, 31, 60):
        search = Simulated(known)
        search.run(most=killed)
        again = search.told()
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
        search.scheduler.hear(number, 20, worst)
        search.scheduler.end(number)
    assert search.scheduler.choose(False) is None
    assert search.sampler.ask(12) is None


def test_the_budget_ends_it(tmp_path: Path) -> None:
    search = Simulated(space(tmp_path, budget=", total_steps: 100"))
    search.run()
    assert sum(trial.step for trial in search.scheduler.trials.values()) == 100
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
