"""Estimates what a search will cost: steps, parameters, hours, memory and disk space.

    trials -> courses -> rungs, steps
           -> parameters -> probes of a few models -> memory, hours
                         -> checkpoints -> disk

torch is imported in the functions that need it, so that the others do not wait for it.
"""

import math
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from s2s_search.corpus.corpus import Corpus
from s2s_search.hparams.configuration import Hparams, resolve
from s2s_search.machine import busy_cores, usable_cores
from s2s_search.runs.folder import trial_name
from s2s_search.spaces.dimensions import Flat
from s2s_search.spaces.rungs import Rung, brackets
from s2s_search.spaces.settings import CheckpointSettings, Resources, Scheduler
from s2s_search.spaces.space import Space
from s2s_search.training.footprint import device_memory, memory_problem
from s2s_search.training.size import checkpoint_bytes, count_parameters, size_text
from s2s_search.tuning.disk import disk_needed, disk_problems, sampled_trials
from s2s_search.whatif.courses import Course, Span, expected_rungs, make_courses, total
from s2s_search.whatif.probes import Probe, run_probes

VARIANTS = {
    "asha": "the stopping variant: asynchronous, without the promotions of Li et al. (2020)",
    "hyperband": "successive halving in brackets, whose trials wait for each other "
    "(Li et al., 2018)",
    "median": "from grace_steps on, a trial worse than the median of the others is stopped "
    "(Golovin et al., 2017)",
    "pbt": "all trials run to their end; the worse copy the weights of the better "
    "(Jaderberg et al., 2017)",
    "pasha": "asha whose trials wait at rungs, with few rungs at first (Bohdal et al., 2023)",
    "first_reports": "all trials reach grace_steps; the best few of them run to their end "
    "(Egele et al., 2023)",
    "freeze_thaw": "trials run for one report at a time; a model of all reports chooses which "
    "(Swersky et al., 2014)",
    "none": "all trials run to their end",
}
PROMOTION = "trials wait at rungs until they are among the best there (Li et al., 2020)"
HALVING = ("asha", "pasha", "hyperband")
BUSY = 0.3  # the number of cores with other work from which on a plan mentions them
RUNGS_SHOWN = 8  # also of brackets; rungs are many where train.eval_every_steps is searched


@dataclass(frozen=True)
class Plan:
    """What a search will cost. Trials are named by their numbers; None: not measured, or unknown.

    models: the number of trials of each model
    steps: training steps of all trials
    parameters: the number of parameters of each trial that was counted
    worker_hours: the hours of all workers together
    wall_hours: the hours from the first step to the last
    max_at_once: search.max_at_once, where more trials would fit; otherwise None
    checkpoint_bytes: the size of the largest checkpoint
    disk_bytes: the size of all checkpoints that are kept at one time
    busy_cores: the number of cores with other work before the probes
    problems: why the search would be refused, or would fail
    """

    trials: int
    models: Mapping[str, int]
    method: str
    scheduler: Scheduler
    resources: Resources
    checkpoints: CheckpointSettings
    rungs: tuple[Rung, ...]
    steps: Span
    parameters: Mapping[int, int]
    probes: tuple[Probe, ...]
    gpus: int | None
    trials_at_once: int
    max_at_once: int | None
    worker_hours: Span | None
    wall_hours: Span | None
    checkpoint_bytes: int
    disk_bytes: int
    free_bytes: int
    busy_cores: float | None
    problems: tuple[str, ...]

    def lines(self) -> Iterator[tuple[str, str]]:
        """Yields the plan in words, as headings and texts."""
        models = ", ".join(f"{n} {model}" for model, n in self.models.items())
        yield "trials", f"{self.trials} by {self.method} search: {models}"
        is_promotion = self.scheduler.name == "asha" and self.scheduler.promotes
        about = PROMOTION if is_promotion else VARIANTS[self.scheduler.name]
        yield "scheduler", f"{self.scheduler.name}: {about}"
        yield from self._rung_lines()
        yield "steps", span(self.steps, "{:,.0f}".format)
        yield "parameters", self._sizes()
        for one in self.probes:
            yield "probe", _probe_text(one)
        if self.busy_cores is not None and self.busy_cores >= BUSY:
            yield (
                "",
                f"{self.busy_cores:.1f} of {usable_cores()} cores were busy with other work when "
                "the probes began: on idle cores steps take less time",
            )
        yield "at once", self._room()
        for heading, hours in (("worker time", self.worker_hours), ("wall time", self.wall_hours)):
            if hours is not None:
                yield heading, span(hours.times(3600), duration_in_words) + self._pace()
        memory = max((one.memory_bytes or 0 for one in self.probes), default=0)
        if memory > 0:
            yield "memory", f"at most {size_text(memory)} per trial, and Ray's own"
        kept = self.disk_bytes // self.checkpoint_bytes
        disk = (
            f"{size_text(self.disk_bytes)} for {kept} checkpoints of up to "
            f"{size_text(self.checkpoint_bytes)}; {size_text(self.free_bytes)} free"
        )
        if self.checkpoints.disk_gb is not None:
            disk += f", {self.checkpoints.disk_gb:g} GB allowed"
        yield "disk", disk

    def _rung_lines(self) -> Iterator[tuple[str, str]]:
        if not self.rungs:
            return
        *compared, end = self.rungs
        reached = [f"step {rung.step:,} by {rung.trials:.3g}" for rung in compared[:RUNGS_SHOWN]]
        if len(compared) > RUNGS_SHOWN:
            reached.append("...")
        reached.append(f"the end (at most step {end.step:,}) by {end.trials:.3g} trials")
        yield "rungs", f"ideally reached: {', '.join(reached)}"
        if self.scheduler.promotes:
            yield "", "fewer pass at first: a share of the trials there, rounded down"
        elif self.scheduler.name == "asha":
            yield (
                "",
                "more pass in practice: a trial is compared only with earlier ones, "
                "and the first at a rung always passes",
            )
        else:
            yield "brackets", self._brackets()

    def _brackets(self) -> str:
        """Returns hyperband's brackets in words, in the order in which trials fill them."""
        firsts = [bracket[0] for bracket in brackets(self.scheduler, self.trials)]
        shown = [f"{first.trials:.0f} from step {first.step:,}" for first in firsts[:RUNGS_SHOWN]]
        if len(firsts) > RUNGS_SHOWN:
            shown.append("...")
        return ", ".join(shown)

    def _sizes(self) -> str:
        smallest = min(self.parameters, key=self.parameters.__getitem__)
        largest = max(self.parameters, key=self.parameters.__getitem__)
        text = f"{self.parameters[smallest]:,} ({trial_name(smallest)})"
        if largest != smallest:
            text += f" to {self.parameters[largest]:,} ({trial_name(largest)})"
        if len(self.parameters) < self.trials:
            text += f", in a sample of {len(self.parameters)} trials"
        return text

    def _pace(self) -> str:
        """Returns under which condition the hours are right."""
        if not self.resources.gpu:
            return ""
        if any(one.device == "cpu" for one in self.probes):
            return ", measured on the CPU here, not on a GPU"
        if self.resources.gpu < 1:
            return ", if trials that share a GPU do not wait for each other"
        return ""

    def _room(self) -> str:
        needed = f"each takes {self.resources.cpu:g} CPU and {self.resources.gpu:g} GPU"
        if self.max_at_once is not None:
            return f"{self.trials_at_once}, as many as search.max_at_once allows; {needed}"
        if self.gpus is None:
            return f"{self.trials_at_once} on this machine; {needed}"
        if self.resources.gpu:
            return f"{self.trials_at_once} on {self.gpus} GPUs with enough CPUs; {needed}"
        return (
            f"{self.trials_at_once} on this machine's CPUs; {needed}, so --gpus makes no difference"
        )


def _probe_text(one: Probe) -> str:
    text = (
        f"{trial_name(one.trial)}: {1000 * one.step_seconds:.3g} ms per step, "
        f"{duration_in_words(one.evaluation_seconds)} per evaluation, "
        f"on the {one.device.upper()} here"
    )
    if one.at_once > 1:
        text += f", {one.at_once} at once"
    return text


def make_plan(
    space: Space,
    corpus: Corpus,
    trials: Sequence[Flat],
    *,
    gpus: int | None = None,
    probed: bool = True,
) -> Plan:
    """Plans the search of a space's trials; its run folder would be on this disk.

    With many trials, the models of a sample are counted and stand for all.

    Args:
        space: the search space.
        corpus: its corpus.
        trials: the configurations that the search would run.
        gpus: the number of GPUs of a cluster; None: plan for this machine.
        probed: also train a few of the models for a moment, with one evaluation each.

    Raises:
        ConfigError: a model is too large to be probed.
    """
    hparams = [resolve(str(flat["model"]), flat) for flat in trials]
    courses = make_courses(hparams, space.scheduler)
    counted = sampled_trials(len(trials))
    parameters = {k: count_parameters(hparams[k], corpus) for k in counted}
    fitting = min(trials_at_once(space.resources, gpus), len(trials))
    at_once = space.search.at_once(fitting)
    checkpoint = max(checkpoint_bytes(parameters[k], hparams[k]) for k in counted)
    disk = disk_needed(checkpoint, at_once, len(trials), space)
    free = shutil.disk_usage(".").free
    usable = free if gpus is None else disk  # a cluster has its own storage, of unknown size
    probes: tuple[Probe, ...] = ()
    worker = wall = busy_before = None
    if probed:
        work = {k: parameters[k] * hparams[k]["train.batch_size"] for k in counted}
        chosen = {k: hparams[k] for k in trials_to_probe(work)}
        processes = space.search.at_once(min(trials_here(space.resources), len(trials)))
        busy_before = busy_cores()
        probes = tuple(
            run_probes(chosen, parameters, corpus, space.corpus, space.resources, processes)
        )
        seconds = [trial_seconds(courses[k], *interpolated(probes, work, k)) for k in counted]
        limit = 3600 * (space.search.trial_hours or math.inf)  # of one trial
        seconds = [one.at_most(limit) for one in seconds]
        worker = total(seconds).times(len(trials) / len(counted) / 3600)
        longest = max(one.most for one in seconds) / 3600
        busy = at_once
        if not space.resources.gpu:
            busy = min(at_once, usable_cores())  # more trials than cores wait for each other
        if at_once > 0:
            wall = wall_hours(worker, busy, longest)
    return Plan(
        trials=len(trials),
        models=dict(Counter(own.model for own in hparams)),
        method=space.search.method,
        scheduler=space.scheduler,
        resources=space.resources,
        checkpoints=space.checkpoints,
        rungs=expected_rungs(courses) if space.scheduler.name in HALVING else (),
        steps=total(one.steps for one in courses),
        parameters=parameters,
        probes=probes,
        gpus=gpus,
        trials_at_once=at_once,
        max_at_once=None if at_once == fitting else space.search.max_at_once,
        worker_hours=worker,
        wall_hours=wall,
        checkpoint_bytes=checkpoint,
        disk_bytes=disk,
        free_bytes=free,
        busy_cores=busy_before,
        problems=(
            *room_problems(space.resources, gpus),
            *memory_problems(
                space.resources,
                at_once,
                {k: hparams[k] for k in counted},
                parameters,
                corpus,
                probes,
            ),
            *disk_problems(disk, usable, space.checkpoints),
        ),
    )


def trials_to_probe(work: Mapping[int, int]) -> list[int]:
    """Returns the trials with the least, the median and the most work, without repetition."""
    first: dict[int, int] = {}
    for trial, amount in work.items():
        first.setdefault(amount, trial)
    ranked = [first[amount] for amount in sorted(first)]
    return [ranked[k] for k in sorted({0, len(ranked) // 2, len(ranked) - 1})]


# Seconds


def interpolated(
    probes: Sequence[Probe], work: Mapping[int, int], trial: int
) -> tuple[float, float]:
    """Returns the seconds of a step and of an evaluation of a trial.

    They are interpolated between the probes, linearly in the work of a step.
    """
    import numpy as np

    known = [work[one.trial] for one in probes]
    step = np.interp(work[trial], known, [one.step_seconds for one in probes])
    evaluation = np.interp(work[trial], known, [one.evaluation_seconds for one in probes])
    return float(step), float(evaluation)


def trial_seconds(course: Course, step_seconds: float, evaluation_seconds: float) -> Span:
    """Returns the seconds that a trial takes."""
    return total([course.steps.times(step_seconds), course.evaluations.times(evaluation_seconds)])


def wall_hours(worker: Span, busy: int, longest: float) -> Span:
    """Returns the hours from the first step to the last.

    `busy` trials run at a time, and the longest trial takes `longest` hours.
    """
    return Span(max(worker.least / busy, longest), max(worker.most / busy, longest))


def trials_at_once(resources: Resources, gpus: int | None) -> int:
    """Returns the number of trials that run at once on this machine.

    Where trials take GPUs and `gpus` is given: on that number of GPUs, with enough CPUs.
    """
    if gpus is not None and resources.gpu:
        return resources.fitting(math.inf, gpus)
    return resources.fitting(usable_cores(), local_gpus() if resources.gpu else 0)


def trials_here(resources: Resources) -> int:
    """Returns the number of processes that probe a trial at once.

    It is the number of trials that a search runs at once on this machine, but at most one per core.
    """
    if resources.gpu and local_gpus():
        here = trials_at_once(resources, None)
    else:
        here = int(usable_cores() / resources.cpu)
    return min(max(1, here), usable_cores())


def memory_problems(
    resources: Resources,
    at_once: int,
    hparams: Mapping[int, Hparams],
    parameters: Mapping[int, int],
    corpus: Corpus,
    probes: Sequence[Probe],
) -> list[str]:
    """Returns which trial does not fit into memory, alone or with others; empty if all fit.

    Args:
        resources: what a trial takes. Where that is a GPU and this machine has none, nothing is
            known, and the list is empty.
        at_once: the number of trials that run at once.
        hparams: the configurations of the counted trials.
        parameters: their numbers of parameters.
        corpus: the corpus, whose longest pairs need the most memory.
        probes: what was measured.
    """
    import torch

    if resources.gpu and not local_gpus():
        return []
    device = torch.device("cuda" if resources.gpu else "cpu")
    for trial, own in hparams.items():
        problem = memory_problem(own, corpus, parameters[trial], device)
        if problem:
            return [f"memory: {trial_name(trial)} {problem}"]
    sharing = resources.sharing if resources.gpu else max(at_once, 1)
    memory = device_memory(device, sharing)
    measured, trial = max(((one.memory_bytes or 0, one.trial) for one in probes), default=(0, 0))
    if sharing * measured <= memory:
        return []
    return [
        f"memory: {trial_name(trial)} takes {size_text(measured)}, and {sharing} such trials at "
        f"once take {size_text(sharing * measured)}, but only {size_text(memory)} are usable; "
        "with a larger resources.cpu fewer run at once"
    ]


def local_gpus() -> int:
    import torch

    return torch.cuda.device_count()


def room_problems(resources: Resources, gpus: int | None) -> list[str]:
    """Returns why not even one trial can run; empty if one can."""
    if trials_at_once(resources, gpus) > 0:
        return []
    needed = f"a trial needs {resources.cpu:g} CPU and {resources.gpu:g} GPU"
    if gpus is not None and resources.gpu:
        return [f"resources.gpu: {needed}, but --gpus = {gpus}"]
    here = local_gpus() if resources.gpu else 0
    there = f"this process may use {usable_cores()} CPU and {here} GPU"
    return [f"resources: {needed}, but {there}; --gpus N plans for a cluster"]


# Words


def duration_in_words(seconds: float) -> str:
    """Returns seconds in words, such as 2.5 min."""
    unit, length = "s", 1
    if seconds >= 2 * 3600:
        unit, length = "h", 3600
    elif seconds >= 2 * 60:
        unit, length = "min", 60
    amount = seconds / length
    if amount < 1000:
        return f"{amount:,.3g} {unit}"
    return f"{amount:,.0f} {unit}"


def span(amount: Span, words: Callable[[float], str]) -> str:
    """Returns both ends of an amount in words, or one of them if they read the same."""
    least, most = words(amount.least), words(amount.most)
    if least == most:
        return least
    return f"{least} if only the best continue, {most} if all do"
