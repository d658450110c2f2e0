"""A comparison of A with B: the units that are compared, and what the result says."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from s2s_search.errors import ConfigError
from s2s_search.results.evaluations import compared
from s2s_search.results.scores import EXAMPLES
from s2s_search.results.sides import BROKEN, ComparedTrial, Side, compared_trials, named_side
from s2s_search.results.statistics import (
    LEAST,
    LEVEL,
    Comparison,
    apart,
    better_or_worse,
    rate_difference_interval,
)
from s2s_search.runs.answers import load_answers
from s2s_search.runs.state import History, load_history
from s2s_search.runs.storage import is_far, shown_place
from s2s_search.statuses import COMPLETE, STOPPED

EVERY = "train.eval_every_steps"


Value = tuple[ComparedTrial, float]  # a trial that counts, and what it counts with


@dataclass(frozen=True)
class Design:
    """The units that a comparison counts: draws, configurations or seeds.

    Trials of one draw of a space with grids differ in the keys of the grids alone. They share the
    luck of the draw, so they are one unit. If both sides ran the same draws or configurations, the
    sides are compared within each of these, so that it does not matter how they differ.
    """

    unit: str  # "draw", "configuration" or "seed"
    is_paired: bool = False
    grids: frozenset[str] = frozenset()
    one_sided: frozenset[str] = frozenset()  # keys in which the two sides of a block may differ

    def of(self, run: ComparedTrial) -> object:
        """Returns what is equal for the trials of one unit, on both sides if they are paired."""
        if self.unit == "seed":
            return run.seed
        if self.unit == "draw":
            return run.rest(self.grids | self.one_sided)
        return run.rest(self.one_sided) if self.is_paired else run.configuration

    def block(self, run: ComparedTrial) -> str:
        """Returns what is equal for trials that differ in the compared keys and the seed alone."""
        return run.rest(self.one_sided)


def design_of(left: Side, right: Side) -> Design:
    """Returns how two sides are compared: by the largest units, and paired if they share them."""
    sides = (left, right)
    if all(len({run.configuration for run in side.runs}) <= 1 for side in sides):
        return Design("seed")
    grids = frozenset(key for side in sides for run in side.runs for key in run.grids)
    keys = [{key for run in side.runs for key in run.trial.config} for side in sides]
    one_sided = frozenset({left.key, right.key} - {""}) | (keys[0] ^ keys[1])
    if grids:
        by_draws = Design("draw", True, grids, one_sided)
        draws = [{by_draws.of(run) for run in side.runs} for side in sides]
        if _are_shared(*draws):
            return by_draws
        if draws[0] != draws[1] or len(draws[0]) > 1:
            return Design("draw", False, grids)
    by_configurations = Design("configuration", True, grids, one_sided)
    if _are_shared(*({by_configurations.of(run) for run in side.runs} for side in sides)):
        return by_configurations
    return Design("configuration")


def _are_shared(left: set[object], right: set[object]) -> bool:
    """Returns whether both sides have several units in common, and half of the smaller side's."""
    common = len(left & right)
    return common >= 2 and 2 * common >= min(len(left), len(right))


@dataclass(frozen=True)
class Question:
    """Two sides, how they are compared, and by what."""

    left: Side
    right: Side
    design: Design
    metric: str
    goal: str
    margin: float | None = None

    @property
    def sides(self) -> tuple[Side, Side]:
        return self.left, self.right

    @property
    def runs(self) -> list[ComparedTrial]:
        return [*self.left.runs, *self.right.runs]

    @property
    def ended(self) -> list[ComparedTrial]:
        return [*self.left.ended, *self.right.ended]

    @property
    def common_step(self) -> int | None:
        """Returns the last step at which all trials that ended well have a report, if any."""
        steps = [set(run.curve) for run in self.ended]
        return max(set.intersection(*steps), default=None) if steps else None

    def pairs_of_values(self) -> Iterator[str]:
        """Yields how many pairs of values there are, if the sides are one of several."""
        tried = self.left.tried
        if self.left.key == self.right.key and tried > 2:
            yield (
                f"one of {math.comb(tried, 2):,} pairs of values of {self.left.key}, for which "
                "nothing corrects"
            )

    def reservations(self) -> Iterator[str]:
        """Yields what no claim about these sides covers, as phrases."""
        if not any(side.key or side.is_fresh for side in self.sides):
            yield "unless they were chosen by these results"
        for learner in sorted({run.learner for run in self.runs} - {""}):
            yield f"of trials that {learner} chose by earlier results"
        keys = {side.key for side in self.sides if side.key}
        yield from self.pairs_of_values()
        couplings: set[str] = set()
        for run in self.runs:
            if not keys <= run.grids:  # every draw is run with all values of a grid
                couplings.update(run.couplings)
        if keys and couplings:
            causes = " and ".join(sorted(couplings))
            yield f"of trials whose other settings may depend on this one by {causes}"


def compare(
    folders: Sequence[Path], a: str, b: str, fetch: bool = False, margin: float | None = None
) -> Iterator[str]:
    """Compares A with B, and yields the lines that say the result.

    Each of A and B is a trial or a setting:

    - The name or number of a trial names the configuration of that trial of the first folder. It
      stands for all trials of that configuration, in all folders and with all seeds. If it was
      replicated, only the replicates count, because the results of the others were what chose it.
    - A setting, such as attention.score_type=dot, stands for all trials that have it. Replicates do
      not count, unless all folders are of replicates. They are replicates of the best
      configurations, which may all be on one side.

    Finished trials count, with their best reports. If some trials were stopped, a second comparison
    counts them, too, at the last step at which all trials reported. A configuration and seed counts
    once. `Design` says what the units of a comparison are. If each side is one configuration, the
    evaluations of the first folder are compared, too.

    Args:
        folders: the run folders.
        a: a trial or a setting.
        b: another trial or setting.
        fetch: True to read also answers that lie at a URL.
        margin: a difference of the metric that is too small to matter; None: none is.

    Raises:
        ConfigError: a folder is no run folder or is named twice; the folders differ in metric, goal
            or corpus; A or B names no trial, or both name the same trial; their trials were
            evaluated on different dev examples; or one of two trials has replicates alone.
    """
    histories = [load_history(folder) for folder in folders]
    _check_alike(folders, histories)
    runs = [
        list(compared_trials(folder, history))
        for folder, history in zip(folders, histories, strict=True)
    ]
    problems: list[str] = []
    left, right = (named_side(text, runs, folders[0], problems) for text in (a, b))
    problems += _unfair(a, b, left, right)
    if problems:
        raise ConfigError(problems)
    for folder, history in zip(folders, histories, strict=True):
        if history.is_running:
            yield f"{folder} is still running: what follows may change"
    metric, goal = histories[0].search["metric"], histories[0].search["goal"]
    question = Question(left, right, design_of(left, right), metric, goal, margin)
    yield from _cautions(question)
    known = [run.flat() for run in [*left.finished, *right.finished]]
    intervals = sorted({_whole(flat[EVERY]) for flat in known if EVERY in flat})
    if len(intervals) > 1:
        yield (
            f"they reported every {intervals[0]:,} to {intervals[-1]:,} steps: the best of more "
            "reports is better by luck, so only values at the same step are compared"
        )
    else:
        yield from _at_the_best_reports(question)
    yield from _at_a_common_step(question, len(intervals) > 1)
    yield from _on_examples(question, fetch)
    configurations = [{run.configuration for run in side.runs} for side in question.sides]
    if all(len(of_side) == 1 for of_side in configurations):
        of_a, of_b = (
            {run.trial.name for run in runs[0] if run.configuration in of_side}
            for of_side in configurations
        )
        reservation = "".join(f", {phrase}" for phrase in question.pairs_of_values())
        names = (left.name, right.name)
        yield from compared(folders[0], names, (of_a, of_b), metric, goal, reservation)


def _unfair(a: str, b: str, left: Side, right: Side) -> Iterator[str]:
    """Yields why two sides cannot be compared."""
    others = {id(run) for run in right.runs}
    if both := [run.trial.name for run in left.runs if id(run) in others]:
        yield f"{a} and {b} both name {', '.join(both[:4])}{', ...' if len(both) > 4 else ''}"
    examples = {_whole(run.flat().get(EXAMPLES)) for run in [*left.runs, *right.runs]}
    if len(examples) > 1:
        numbers = " and ".join(f"{number:,}" for number in sorted(examples))
        yield (
            f"{EXAMPLES} is {numbers} in trials of {a} and {b}: they were evaluated on different "
            "dev examples, so that their numbers would not compare"
        )
    if not left.key and not right.key and left.is_fresh != right.is_fresh:
        fresh, chosen = (left, right) if left.is_fresh else (right, left)
        yield (
            f"{fresh.name} has replicates in these folders and {chosen.name} has none: fresh seeds "
            "do not compare with results by which a trial was chosen; name replicates of both, or "
            "of neither"
        )


def _compared(
    question: Question,
    values: Sequence[Sequence[Value]],
    scope: Sequence[str] = (),
    reservations: Sequence[str] = (),
) -> Comparison:
    """Returns the comparison of the values of two sides.

    Args:
        question: the two sides.
        values: for each side the trials that count, each with its value; NaN if it diverged or
            failed.
        scope: which trials are compared, as phrases.
        reservations: what a claim does not cover, as phrases.
    """
    design = question.design
    units: list[dict[object, list[Value]]] = [{}, {}]
    for of_side, known in zip(units, values, strict=True):
        for run, value in known:
            of_side.setdefault(design.of(run), []).append((run, value))
    left, right = [], []
    if design.is_paired:
        for unit in units[0]:
            pair = _within_blocks(design, units[0][unit], units[1].get(unit, []))
            if pair is not None:
                left.append(pair[0])
                right.append(pair[1])
    else:
        left, right = ([_mean(found) for found in of_side.values()] for of_side in units)
    return Comparison(
        (question.left.name, question.right.name),
        (left, right),
        question.metric,
        question.goal,
        design.unit,
        design.is_paired,
        "".join(f", {phrase}" for phrase in scope),
        "".join(f", {phrase}" for phrase in [*reservations, *question.reservations()]),
        question.margin,
    )


def _within_blocks(
    design: Design, left: Sequence[Value], right: Sequence[Value]
) -> tuple[float, float] | None:
    """Returns the means of both sides over the blocks that both have; None if there is none.

    Only blocks with a value on both sides count, if there are any.
    """
    blocks: list[dict[str, list[Value]]] = [{}, {}]
    for of_side, known in zip(blocks, (left, right), strict=True):
        for run, value in known:
            of_side.setdefault(design.block(run), []).append((run, value))
    common, whole = [], []
    for block in blocks[0]:
        if block in blocks[1]:
            pair = _mean(blocks[0][block]), _mean(blocks[1][block])
            common.append(pair)
            if not any(map(math.isnan, pair)):
                whole.append(pair)
    if not common:
        return None
    return _mean_of([a for a, _ in whole or common]), _mean_of([b for _, b in whole or common])


def _mean(values: Sequence[Value]) -> float:
    return _mean_of([value for _, value in values])


def _mean_of(values: Sequence[float]) -> float:
    """Returns the mean of the values that are known; NaN if none is."""
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def _at_the_best_reports(question: Question) -> Iterator[str]:
    """Compares the finished trials by their best reports.

    Where a scheduler stopped trials it concludes nothing: of a side whose trials learn slowly, only
    the best ones were left.
    """
    counts = [f"{len(side.finished)} of {len(side.runs)}" for side in question.sides]
    among = f"among the trials that finished ({' and '.join(counts)})"
    if any(run.trial.status == "stopped" for run in question.runs):
        means = " against ".join(map(_finished_mean, question.sides))
        why = "the scheduler chose these, so nothing is concluded"
        yield f"{among}: {question.metric} {means}; {why}"
        return
    scope = []
    if any(not run.is_finished for run in question.runs):
        scope.append(among)
    steps = sorted({run.trial.step for run in question.runs if run.is_finished})
    if len(steps) > 1:
        scope.append(f"which made {steps[0]:,} to {steps[-1]:,} steps")
    comparison = _compared(question, _best_values(question), scope)
    yield comparison.sentence()
    yield from comparison.pairs()


def _best_values(question: Question) -> list[list[Value]]:
    """Returns for each side the trials that finished or broke, with the values of best reports."""
    values: list[list[Value]] = []
    for side in question.sides:
        broken = [(run, math.nan) for run in side.runs if run.is_broken]
        values.append([(run, run.value) for run in side.finished] + broken)
    return values


def _finished_mean(side: Side) -> str:
    values = [run.value for run in side.finished]
    return f"{sum(values) / len(values):.4g}" if values else "none"


def _at_a_common_step(question: Question, is_wanted: bool) -> Iterator[str]:
    """Compares all trials at the last step at which all that ended well have a report.

    It yields nothing when no trial was stopped for being worse, unless it `is_wanted`.
    """
    ended = question.ended
    if not ended or not (is_wanted or any(run.trial.status == "stopped" for run in ended)):
        return
    step = question.common_step
    if step is None:
        yield (
            f"there is no step at which all {len(ended)} trials that finished or were stopped have "
            "a report, so they are not compared at equal steps"
        )
        return
    reached = sum(step in run.curve for run in question.runs)
    reservations = []
    if any(run.trial.step > step for run in question.runs):
        reservations.append("which later steps may reverse")
    comparison = _compared(question, _values_at(question, step), reservations=reservations)
    yield (
        f"at step {step:,}, which {reached} of {len(question.runs)} trials reached: "
        f"{comparison.sentence()}"
    )
    for pairs in comparison.pairs():
        yield f"at step {step:,}: {pairs}"


def _values_at(question: Question, step: int) -> list[list[Value]]:
    """Returns for each side the trials with a report at a step, or that broke before it."""
    values: list[list[Value]] = []
    for side in question.sides:
        known = [(run, run.curve[step]) for run in side.runs if step in run.curve]
        broken = [(run, math.nan) for run in side.runs if run.is_broken and step not in run.curve]
        values.append(known + broken)
    return values


def settings_compared(
    folder: Path, history: History, a: str, b: str
) -> tuple[Comparison, int | None] | None:
    """Returns the comparison of two settings of one search, and the step of the values.

    They are the values of the best reports, with the step None, if all trials that ended well
    finished. Otherwise they are those at the last common step. The result is None where `compare`
    would refuse, or has nothing to compare.
    """
    problems: list[str] = []
    runs = [list(compared_trials(folder, history))]
    left, right = (named_side(text, runs, folder, problems) for text in (a, b))
    if problems or list(_unfair(a, b, left, right)):
        return None
    design = design_of(left, right)
    question = Question(left, right, design, history.search["metric"], history.search["goal"])
    if not any(run.trial.status == "stopped" for run in question.runs):
        found, step = _compared(question, _best_values(question)), None
    elif question.common_step is not None:
        step = question.common_step
        found = _compared(question, _values_at(question, step))
    else:
        return None
    return (found, step) if all(found.known) else None


def _check_alike(folders: Sequence[Path], histories: Sequence[History]) -> None:
    first = histories[0].search
    times = Counter(folder.resolve() for folder in folders)
    problems = [
        f"{folder} is named {count} times; a run counts once"
        for folder, count in times.items()
        if count > 1
    ]
    for folder, history in zip(folders[1:], histories[1:], strict=True):
        search = history.search
        if (search["metric"], search["goal"]) != (first["metric"], first["goal"]):
            by, of_first = (f"{each['metric']} ({each['goal']})" for each in (search, first))
            problems.append(f"{folder} ranks by {by}, but {folders[0]} by {of_first}")
        if search.get("corpus", {}).get("fingerprint") != first.get("corpus", {}).get(
            "fingerprint"
        ):
            problems.append(
                f"{folder} is of another corpus than {folders[0]}: their numbers would not compare"
            )
    if problems:
        raise ConfigError(problems)


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0  # a log may hold anything


def _cautions(question: Question) -> Iterator[str]:
    """Says which trials count on each side, and where the comparison is not fair."""
    yield from map(Side.line, question.sides)
    if any(run.is_broken for run in question.runs):
        yield _broken(question)


def _broken(question: Question) -> str:
    """Says how many units of each side diverged or failed, and whether the sides differ in that."""
    from scipy.stats import fisher_exact  # late, as scipy.stats takes a second to import

    table, shares = [], []
    for side in question.sides:
        ended = [run for run in side.runs if run.trial.status in (*BROKEN, *COMPLETE, STOPPED)]
        units = {question.design.of(run) for run in ended}
        broken = {question.design.of(run) for run in ended if run.is_broken}
        table.append([len(broken), len(units) - len(broken)])
        shares.append(f"{len(broken)} of {len(units)}")
    p = fisher_exact(table).pvalue
    said = "which may be chance"
    if p <= 1 - LEVEL:
        said = ", ".join(["more than chance", *question.pairs_of_values()])
    return (
        f"{question.design.unit}s in which a trial diverged or failed: {shares[0]} of "
        f"{question.left.name}, {shares[1]} of {question.right.name}; {said} "
        f"(p = {p:.2g} by Fisher's test)"
    )


def _on_examples(question: Question, fetch: bool) -> Iterator[str]:
    """Compares the best models of both sides on the dev examples, if they have recorded answers.

    The best of more models is better by luck, so each side has as many models as the smaller one.
    """
    count = min(len(side.finished) for side in question.sides)
    if count == 0:
        return
    models, names = [], []
    for side in question.sides:
        ranked = sorted(
            side.finished[:count], key=lambda run: run.value, reverse=question.goal == "maximize"
        )
        models.append(ranked[0])
        of = ranked[0].seed
        if len(side.finished) > count:
            of += f", the best of the first {count}" if count > 1 else ", the first"
        elif count > 1:
            of += f", the best of {count}"
        names.append(f"the model of {shown_place(ranked[0].place)} (seed {of})")
    far = [shown_place(run.place) for run in models if is_far(run.place) and not fetch]
    if far:
        yield (
            f"not compared on single dev examples: the answers lie at {' and '.join(far)}, where "
            "--fetch reads them"
        )
        return
    answers = [load_answers(run.place) for run in models]
    missing = [
        shown_place(run.place) for run, found in zip(models, answers, strict=True) if found is None
    ]
    if missing:
        yield (
            "not compared on single dev examples: there is no answers.json in "
            f"{' and '.join(missing)}"
        )
        return
    of_a, of_b = ((found.errors, found.lengths) for found in answers if found is not None)
    if len(of_a[0]) != len(of_b[0]):
        yield (
            f"not compared on single dev examples: they answered {len(of_a[0]):,} and "
            f"{len(of_b[0]):,} of them"
        )
        return
    if len(of_a[0]) < LEAST:
        yield (
            f"not compared on single dev examples: they answered {len(of_a[0])}, and {LEAST} are "
            "needed to say anything"
        )
        return
    difference, low, high = rate_difference_interval(of_a, of_b)
    claim = f"{names[0]} against {names[1]}, which differ alike on all examples"
    if high - low > 1e-12:
        claim = better_or_worse(names[0], names[1], (low, high), "minimize")[0]
    rates = " against ".join(
        f"{sum(errors) / max(sum(lengths), 1):.4g}" for errors, lengths in (of_a, of_b)
    )
    by = (
        f"error rate {rates}, {apart(difference, (low, high))}, paired over {len(of_a[0]):,} dev "
        "examples"
    )
    yield f"{claim}: {by}; this says nothing about other seeds"
