"""What the program claims about a simulated search, and whether that is true.

A sentence is read as a user reads it, by its words. What the worlds declare is the truth.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy import stats

from s2s_search.report import conclusions
from s2s_search.report.runs import ReportedRun, read_runs
from s2s_search.results.compare import compare
from s2s_search.results.results import Results
from tests.statistics.worlds import SCORE, STEPS, World, write

TRUE, FALSE, SILENT = "true", "false", "silent"
VALUES = ("dot", "bahdanau")
SIDES = [f"{SCORE}={value}" for value in VALUES]


def claims(world: World, folder: Path, rng: np.random.Generator) -> dict[str, str]:
    """Runs one search of a world, and returns TRUE, FALSE or SILENT for each kind of sentence.

    Of several sentences of a kind, one that is false decides, then one that is true.
    """
    write(world, folder, rng)
    run = read_runs([folder])[0]
    found: dict[str, str] = {}
    for kind, judged in (
        *_of_compare(world, run.results),
        *_of_report(world, run),
        *_plain(world, run.results),
    ):
        known = found.setdefault(kind, judged)
        found[kind] = next(each for each in (FALSE, TRUE, SILENT) if each in (known, judged))
    return found


def _of_compare(world: World, results: Results) -> Iterator[tuple[str, str]]:
    if results.trials[SCORE].nunique() < len(VALUES):
        return  # of 8 random trials all may have the same value
    for line in compare([results.folder], *SIDES):
        at = re.match(r"at step (\d+)", line)
        step = int(at.group(1)) if at else STEPS[-1]
        kind = "compare at a common step" if at else "compare"
        interval = re.search(r"95 % interval (\S+) to (\S+)\)", line)
        if interval is not None and "difference" in line:
            said = None
            if "not distinguishable" not in line:
                said = VALUES[0] if f"{SIDES[0]} is better" in line else VALUES[1]
            yield kind, _judged(said, world.better_at(step))
            low, high = map(float, interval.groups())
            yield f"{kind}: interval", TRUE if low <= world.difference_at(step) <= high else FALSE
        if "Fisher" in line:
            is_claim = "more than chance" in line
            yield "compare: diverged", _matters(is_claim, SCORE in world.losing)


def _of_report(world: World, run: ReportedRun) -> Iterator[tuple[str, str]]:
    lines = [*conclusions.influences(run)]
    step = run.scores.step or STEPS[-1]
    yield "report: which value", SILENT
    yield "report: what mattered", SILENT
    yield "report: acts together", SILENT
    yield "report: diverged", SILENT
    for line in lines:
        if line.startswith(f"`{SCORE}`: ") and "more than chance" in line:
            said = (
                VALUES[0]
                if "`dot` is better" in line or "`bahdanau` is worse" in line
                else VALUES[1]
            )
            # The report says that it counts a trial that diverged as the worst.
            better = "bahdanau" if SCORE in world.losing else world.better_at(step)
            yield "report: which value", _judged(said, better)
        elif key := re.match(r"`([^`]+)` explains ", line):
            yield "report: what mattered", _matters(True, key.group(1) in world.matters)
        elif pair := re.match(r"The better value of `([^`]+)` depends on `([^`]+)`", line):
            yield "report: acts together", _matters(True, set(pair.groups()) == set(world.together))
        elif lost := re.match(r"With `(\S+) .*diverged or failed", line):
            yield "report: diverged", _matters(True, lost.group(1) in world.losing)
    ends = [found.key for found in run.boundaries]
    yield "report: ends of ranges", SILENT
    for key in ends:
        yield "report: ends of ranges", _matters(True, key in world.effects)


def _judged(said: str | None, better: str | None) -> str:
    if said is None:
        return SILENT
    return TRUE if said == better else FALSE


def _matters(is_claim: bool, is_so: bool) -> str:
    if not is_claim:
        return SILENT
    return TRUE if is_so else FALSE


def _plain(world: World, results: Results) -> Iterator[tuple[str, str]]:
    """What Welch's t test of the finished trials says at 5 %."""
    trials = results.trials
    ends = trials["best.dev.error_rate"].where(trials["status"] == "finished")
    a, b = (ends[trials[SCORE] == value].dropna().to_numpy(float) for value in VALUES)
    if min(len(a), len(b)) < 2:
        return
    found = stats.ttest_ind(a, b, equal_var=False)
    better = VALUES[int(found.statistic > 0)] if found.pvalue <= 0.05 else None
    yield "Welch's t test", _judged(better, world.better_at(STEPS[-1]))
