"""What the model of gp or freeze_thaw expects of trials that did not train to their ends."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from s2s_search.methods.make import make_surrogate
from s2s_search.methods.reading import reading_of
from s2s_search.runs.state import History
from s2s_search.spaces.settings import MODELS
from s2s_search.spaces.space import Space

if TYPE_CHECKING:
    from s2s_search.methods.surrogate import End

UNDECIDED = ("stopped", "running")


@dataclass(frozen=True)
class Promise:
    """A trial, the step and the value of its newest report, and what is expected at its end."""

    trial: str
    step: int
    value: float
    end: "End"


def promises(history: History, space: Space) -> list[Promise]:
    """Returns what is expected of the trials that were stopped or wait, the best chance first.

    It is empty for a search without a model, and while the model knows too little.
    """
    search, trials = history.search, history.trials
    if space.learner not in MODELS or not trials:
        return []
    if search.get("overrides"):
        space = space.fixed(search["overrides"])
    surrogate = make_surrogate(space, next(iter(trials.values())).config)
    surrogate.learn(search.get("warm_start_curves", ()))
    for trial in trials.values():
        surrogate.begin(trial.number, trial.config)
    for event, _ in history.news:
        reading = reading_of(event, space.metric.name)
        if reading is not None:
            surrogate.report(trials[event["trial"]].number, reading)
    expectation = surrogate.expectation()
    if expectation is None:
        return []
    found = []
    for trial in trials.values():
        seen = surrogate.trials[trial.number]
        if trial.status in UNDECIDED and expectation.knows(trial.number):
            newest = reading_of(trial.news[-1].event, space.metric.name)
            if newest is None or math.isinf(seen.distances[-1]):
                continue  # it diverged, and the search was killed before it said so
            end = expectation.end(seen.vector, trial.number)
            found.append(Promise(trial.name, newest.step, newest.value, end))
    return sorted(found, key=lambda promise: -promise.end.chance)
