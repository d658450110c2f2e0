"""How much too good the best value of a search is, because it was chosen for being the best.

Needs numpy and pandas; neither Ray nor torch.
"""

import math
from dataclasses import dataclass

import numpy as np

from s2s_search.results.ranked import Ranked
from s2s_search.results.statistics import Floats, rate_half_width
from s2s_search.runs.answers import load_answers
from s2s_search.runs.log import first_event
from s2s_search.runs.storage import below, is_far, place_of

METRIC = "dev.error_rate"  # the only metric that the answers of single examples give
FEWEST_EXAMPLES = 20
HALVINGS = 200  # the number of random halves of the dev examples


@dataclass(frozen=True)
class Optimism:
    """The estimate, from the answers of `trials` trials to `examples` dev examples."""

    value: float  # how much lower the best error rate is than on other examples like these
    trials: int
    examples: int
    half: float = math.nan  # half the 95 % interval of the best error rate over its examples

    def sentence(self) -> str:
        chosen = f"chosen as the best of {self.trials:,} on the same {self.examples:,} dev examples"
        if self.value < 1e-4:
            said = (
                f"That the best trial was {chosen} makes its error rate less than 0.0001 too low."
            )
        else:
            said = f"The error rate of the best trial is about {self.value:.2g} too low, as it was "
            said += f"{chosen}."
        if not self.half > 0:  # no answers of this trial, or equal ones to all examples
            return f"{said} The luck of its seed is not in this, and is often larger."
        return (
            f"{said} Its {self.examples:,} dev examples alone leave this rate uncertain by "
            f"±{self.half:.2g} (95 % interval). Other seeds, which are in neither number, "
            "change it, too."
        )


def optimism(results: Ranked, fetch: bool = False) -> Optimism | None:
    """Estimates how much the choice of the best trial on the dev set flatters its error rate.

    The best trial on a random half of the dev examples is looked at on the other half, and the mean
    difference is taken over many halves. On all examples, the noise by which a trial is chosen is
    smaller by the square root of 2. The estimate does not know the noise of seeds and of reports.

    It is None for another metric than the error rate, without the answers of at least two trials to
    the same number of examples, for several runs, and where the answers are at a URL.

    fetch: read the answers at a URL, too.
    """
    if results.metric != METRIC or results.runs or results.log is None:
        return None
    place = place_of(first_event(results.folder), results.folder)
    if is_far(place) and not fetch:
        return None
    errors, lengths, half = [], [], math.nan
    best = str(results.best(1)["trial"].iloc[0]) if len(results.trials) else ""
    for trial in results.trials["trial"][results.trials[f"best.{METRIC}"].notna()]:
        answers = load_answers(below(place, str(trial)))
        if answers is not None:
            errors.append(answers.errors)
            lengths.append(answers.lengths)
            if str(trial) == best:
                half = rate_half_width(answers.errors, answers.lengths)
    sizes = {len(each) for each in errors}
    if len(errors) < 2 or len(sizes) != 1 or sizes.pop() < FEWEST_EXAMPLES:
        return None
    value = by_halves(np.array(errors, float), np.array(lengths, float))
    return Optimism(value, len(errors), len(errors[0]), half)


def by_halves(errors: Floats, lengths: Floats) -> float:
    """Returns the estimate for the errors and reference lengths of trials [trials, examples]."""
    rng = np.random.default_rng(0)
    examples = errors.shape[1]
    order = np.arange(examples) < examples // 2
    half = rng.permuted(np.tile(order, (HALVINGS, 1)), axis=1).T.astype(float)
    chosen_by = errors @ half / np.maximum(lengths @ half, 1)  # [trials, HALVINGS]
    looked_at = errors @ (1 - half) / np.maximum(lengths @ (1 - half), 1)
    best = chosen_by.argmin(axis=0)
    each = np.arange(HALVINGS)
    apart = looked_at[best, each] - chosen_by[best, each]
    return max(float(apart.mean()) / math.sqrt(2), 0.0)
