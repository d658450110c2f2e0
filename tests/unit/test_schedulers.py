"""Which trial starts next, and how asha counts ranks, against plain loops and Tune's own FIFO."""

import random
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.schedulers import FIFOScheduler

from s2s_search.schedulers import Rung, Watched
from s2s_search.spaces import Scheduler


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("minimize", [True, False])
def test_a_rank_is_one_more_than_how_many_are_better(seed: int, minimize: bool) -> None:
    draw, rung = random.Random(seed), Rung(1)
    before: list[float] = []
    for k in range(40):
        value = draw.choice([draw.random(), float(draw.randrange(4))])
        better = [other for other in before if (other < value if minimize else other > value)]
        assert rung.add(str(k), value, minimize) == len(better) + 1
        before.append(value)


@pytest.mark.parametrize("seed", range(20))
def test_the_next_trial_is_the_one_that_tune_would_take(seed: int) -> None:
    draw = random.Random(seed)
    settings = Scheduler(name="none", max_steps=9, grace_steps=1, reduction_factor=3)
    watched, plain = Watched(FIFOScheduler(), settings, "dev.loss", True), FIFOScheduler()
    trials: list[Any] = []
    tune: Any = SimpleNamespace(get_trials=lambda: trials)

    def of(status: str) -> list[Any]:
        return [trial for trial in trials if trial.status == status]

    for k in range(200):
        what = draw.randrange(4)
        if what == 0:
            trials.append(SimpleNamespace(trial_id=str(k), status="PENDING"))
            watched.on_trial_add(tune, trials[-1])
        elif what == 1 and of("PENDING"):
            draw.choice(of("PENDING")[:3]).status = draw.choice(["RUNNING", "ERROR"])
        elif what == 2 and of("RUNNING"):
            draw.choice(of("RUNNING")).status = "TERMINATED"
        elif of("RUNNING"):  # lost: Tune puts it at the end
            lost = draw.choice(of("RUNNING"))
            lost.status = "PENDING"
            trials.remove(lost)
            trials.append(lost)
            watched.on_trial_add(tune, lost)
        assert watched.choose_trial_to_run(tune) is plain.choose_trial_to_run(tune)
