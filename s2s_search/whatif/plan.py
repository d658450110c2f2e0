"""What a search will cost, said before it starts: steps, parameters, hours, memory and the disk of its checkpoints.

    trials -> courses -> rungs, steps
           -> parameters -> probes of a few models -> memory, hours
                         -> checkpoints -> disk

torch is imported where GPUs are counted, so that the rest does not wait for it.
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
from s2s_search.spaces.settings import Checkpoints, Resources, Scheduler
from s2s_search.spaces.space import Space
from s2s_search.training.footprint import device_memory, memory_problem
from s2s_search.training.size import checkpoint_bytes, count_parameters, size_text
from s2s_search.tuning.disk import disk_needed, disk_problems, sample
from s2s_search.whatif.courses import Course, Range, make_courses, rungs, total
from s2s_search.whatif.probes import Probe, run_probes

VARIANTS = {
    "asha": "the stopping variant: asynchronous, without the promotion that Li et al. (2020) describe",
    "hyperband": "brackets of halving, whose trials wait for each other (Li et al., 2018)",
    "median": "from grace_steps on, trials worse than the median of the others stop (Golovin et al., 2017)",
    "pbt": "all run to their end, the worse from the weights of the better (Jaderberg et al., 2017)",
    "none": "all run to their end",
}
HALVING = ("asha", "hyperband")
BUSY = 0.3  # cores that are busy with other work, from which on a plan says so
RUNGS_SHOWN = 8  # they are many where train.eval_every_steps is searched; and brackets


@dataclass(frozen=True)
class Plan:
    """What a search will cost. A trial is named by its number; None is what was not measured, or cannot be.

    models: how many trials of each · steps: updates of all trials · parameters: of each trial that was counted ·
    worker_hours: of all trials · wall_hours: from the first step to the last · checkpoint_bytes: of the largest
    snapshot · disk_bytes: of all that are kept at a time · busy_cores: with other work, before the probes ·
    problems: why the search would be refused, or fail
    """

    trials: int
    models: Mapping[str, int]
    method: str
    scheduler: Scheduler
    resources: Resources
    checkpoints: Checkpoints
    rungs: tuple[Rung, ...]
    steps: Range
    parameters: Mapping[int, int]
    probes: tuple[Probe, ...]
    gpus: int | None
    trials_at_once: int
    worker_hours: Range | None
    wall_hours: Range | None
    checkpoint_bytes: int
    disk_bytes: int
    free_bytes: int
    busy_cores: float | None
    problems: tuple[str, ...]

    def lines(self) -> Iterator[tuple[str, str]]:
        """The plan in words: headings and texts."""
        models = ", ".join(f"{n} {model}" for model, n in self.models.items())
        yield "trials", f"{self.trials} by {self.method} search: {models}"
        yield "scheduler", f"{self.scheduler.name}: {VARIANTS[self.scheduler.name]}"
        yield from self._rung_lines()
        yield "steps", span(self.steps, "{:,.0f}".format)
        yield "parameters", self._sizes()
        for one in self.probes:
            times = f"{1000 * one.step_seconds:.3g} ms a step, {duration(one.evaluation_seconds)} an evaluation"
            together = f", {one.at_once} at once" if one.at_once > 1 else ""
            yield (
                "probe",
                f"{trial_name(one.trial)}: {times}, on the {one.device.upper()} here{together}",
            )
        if self.busy_cores is not None and self.busy_cores >= BUSY:
            law = "were busy with other work when the probes began: on idle cores steps take less time"
            yield "", f"{self.busy_cores:.1f} of {usable_cores()} cores {law}"
        yield "at once", self._room()
        for heading, hours in (("worker time", self.worker_hours), ("wall time", self.wall_hours)):
            if hours is not None:
                yield heading, span(hours.times(3600), duration) + self._pace()
        if memory := max((one.memory_bytes or 0 for one in self.probes), default=0):
            yield "memory", f"{size_text(memory)} a trial at most, besides Ray"
        limit = (
            "" if self.checkpoints.disk_gb is None else f", {self.checkpoints.disk_gb:g} GB allowed"
        )
        kept = f"checkpoints of up to {size_text(self.checkpoint_bytes)}; {size_text(self.free_bytes)} free{limit}"
        yield (
            "disk",
            f"{size_text(self.disk_bytes)} for {self.disk_bytes // self.checkpoint_bytes} {kept}",
        )

    def _rung_lines(self) -> Iterator[tuple[str, str]]:
        if self.rungs:
            *compared, end = self.rungs
            shown = [f"step {rung.step:,} by {rung.trials:.3g}" for rung in compared[:RUNGS_SHOWN]]
            dots = ["..."] if len(compared) > RUNGS_SHOWN else []
            reached = ", ".join(
                [*shown, *dots, f"the end (at most step {end.step:,}) by {end.trials:.3g}"]
            )
            yield "rungs", f"reached ideally: {reached}"
            if self.scheduler.name == "asha":
                yield (
                    "",
                    "more pass, as trials are compared when they come: the first at a rung always pass",
                )
            else:
                yield "brackets", self._brackets()

    def _brackets(self) -> str:
        """The brackets of hyperband, in the order in which trials fill them."""
        firsts = [bracket[0] for bracket in brackets(self.scheduler, self.trials)]
        shown = [f"{first.trials:.0f} from step {first.step:,}" for first in firsts[:RUNGS_SHOWN]]
        return ", ".join([*shown, "..."] if len(firsts) > RUNGS_SHOWN else shown)

    def _sizes(self) -> str:
        smallest, largest = (
            choose(self.parameters, key=self.parameters.__getitem__) for choose in (min, max)
        )
        sizes = [
            f"{self.parameters[k]:,} ({trial_name(k)})" for k in dict.fromkeys((smallest, largest))
        ]
        some = (
            ""
            if len(self.parameters) == self.trials
            else f", of {len(self.parameters)} trials drawn as a sample"
        )
        return " to ".join(sizes) + some

    def _pace(self) -> str:
        if not self.resources.gpu:
            return ""
        if any(one.device == "cpu" for one in self.probes):
            return ", at the pace of the CPU here, not of a GPU"
        return (
            ", if those that share a GPU do not wait for each other"
            if self.resources.gpu < 1
            else ""
        )

    def _room(self) -> str:
        needed = f"each takes {self.resources.cpu:g} CPU and {self.resources.gpu:g} GPU"
        if self.gpus is None:
            return f"{self.trials_at_once} on this machine; {needed}"
        if self.resources.gpu:
            return f"{self.trials_at_once} on {self.gpus} GPUs with CPUs enough; {needed}"
        return f"{self.trials_at_once} on this machine's CPUs; {needed}, so that --gpus changes nothing"


def make_plan(
    space: Space,
    corpus: Corpus,
    trials: Sequence[Flat],
    *,
    gpus: int | None = None,
    probed: bool = True,
) -> Plan:
    """Plans the search of a space's trials, on this machine or on `gpus` GPUs; its run folder would be on this disk.

    Of more than COUNTED trials a sample is counted and stands for all. `probed`: also trains a few of the models for a
    moment, with one evaluation each. Raises ConfigError when a model is too large for that.
    """
    hparams = [resolve(str(flat["model"]), flat) for flat in trials]
    courses = make_courses(hparams, space.scheduler)
    counted = sample(len(trials))
    parameters = {k: count_parameters(hparams[k], corpus) for k in counted}
    at_once = min(trials_at_once(space.resources, gpus), len(trials))
    checkpoint = max(checkpoint_bytes(parameters[k], hparams[k]["optimizer.name"]) for k in counted)
    disk, free = disk_needed(checkpoint, at_once, len(trials), space), shutil.disk_usage(".").free
    usable = free if gpus is None else disk  # a cluster has a storage of its own
    probes: tuple[Probe, ...] = ()
    worker = wall = busy_before = None
    if probed:
        work = {k: parameters[k] * hparams[k]["train.batch_size"] for k in counted}
        chosen = {k: hparams[k] for k in spread(work)}
        processes = min(trials_here(space.resources), len(trials))
        busy_before = busy_cores()
        probes = tuple(
            run_probes(chosen, parameters, corpus, space.corpus, space.resources, processes)
        )
        seconds = [trial_seconds(courses[k], *between(probes, work, k)) for k in counted]
        worker = total(seconds).times(len(trials) / len(counted) / 3600)
        longest = max(one.most for one in seconds) / 3600
        busy = (
            at_once if space.resources.gpu else min(at_once, usable_cores())
        )  # others wait for a processor
        wall = wall_hours(worker, busy, longest) if at_once else None
    return Plan(
        trials=len(trials),
        models=dict(Counter(own.model for own in hparams)),
        method=space.search.method,
        scheduler=space.scheduler,
        resources=space.resources,
        checkpoints=space.checkpoints,
        rungs=rungs(courses) if space.scheduler.name in HALVING else (),
        steps=total(one.steps for one in courses),
        parameters=parameters,
        probes=probes,
        gpus=gpus,
        trials_at_once=at_once,
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


def spread(work: Mapping[int, int]) -> list[int]:
    """The trials with the least, the middle and the most work, one of each amount."""
    first: dict[int, int] = {}
    for trial, amount in work.items():
        first.setdefault(amount, trial)
    ranked = [first[amount] for amount in sorted(first)]
    return [ranked[k] for k in sorted({0, len(ranked) // 2, len(ranked) - 1})]


# Seconds


def between(probes: Sequence[Probe], work: Mapping[int, int], trial: int) -> tuple[float, float]:
    """The seconds of a step and of an evaluation of any trial, interpolated by work between the probes."""
    import numpy as np

    known = [work[one.trial] for one in probes]
    step = np.interp(work[trial], known, [one.step_seconds for one in probes])
    evaluation = np.interp(work[trial], known, [one.evaluation_seconds for one in probes])
    return float(step), float(evaluation)


def trial_seconds(course: Course, step_seconds: float, evaluation_seconds: float) -> Range:
    return total([course.steps.times(step_seconds), course.evaluations.times(evaluation_seconds)])


def wall_hours(worker: Range, busy: int, longest: float) -> Range:
    """The hours of a search of these worker hours, `busy` trials at a time; one of them takes `longest` hours."""
    return Range(max(worker.least / busy, longest), max(worker.most / busy, longest))


def trials_at_once(resources: Resources, gpus: int | None) -> int:
    """How many trials run at once: on this machine, or where they take GPUs, on so many with CPUs enough."""
    if gpus is not None and resources.gpu:
        return resources.fitting(math.inf, gpus)
    return resources.fitting(usable_cores(), local_gpus() if resources.gpu else 0)


def trials_here(resources: Resources) -> int:
    """How many processes probe a trial at once: as many as a search runs on this machine, but one for each core."""
    here = (
        trials_at_once(resources, None)
        if resources.gpu and local_gpus()
        else int(usable_cores() / resources.cpu)
    )
    return min(max(1, here), usable_cores())


def memory_problems(
    resources: Resources,
    at_once: int,
    hparams: Mapping[int, Hparams],
    parameters: Mapping[int, int],
    corpus: Corpus,
    probes: Sequence[Probe],
) -> list[str]:
    """Says which trial does not fit into memory alone, or so many at once. It knows no memory of GPUs elsewhere."""
    import torch

    if resources.gpu and not local_gpus():
        return []
    device = torch.device("cuda" if resources.gpu else "cpu")
    for trial, own in hparams.items():
        if problem := memory_problem(own, corpus, parameters[trial], device):
            return [f"memory: {trial_name(trial)} {problem}"]
    sharing = resources.sharing if resources.gpu else max(at_once, 1)
    memory = device_memory(device, sharing)
    measured, trial = max(((one.memory_bytes or 0, one.trial) for one in probes), default=(0, 0))
    if sharing * measured <= memory:
        return []
    takes = f"{trial_name(trial)} takes {size_text(measured)}, {sharing} like it at once {size_text(sharing * measured)}"
    return [
        f"memory: {takes}, and there are {size_text(memory)}; a larger resources.cpu runs fewer at once"
    ]


def local_gpus() -> int:
    import torch

    return torch.cuda.device_count()


def room_problems(resources: Resources, gpus: int | None) -> list[str]:
    """Says what is wrong when not even one trial has room."""
    if trials_at_once(resources, gpus) > 0:
        return []
    needed = f"a trial needs {resources.cpu:g} CPU and {resources.gpu:g} GPU"
    if gpus is not None and resources.gpu:
        return [f"resources.gpu: {needed}, but --gpus = {gpus}"]
    there = (
        f"this process may use {usable_cores()} CPU and {local_gpus() if resources.gpu else 0} GPU"
    )
    return [f"resources: {needed}, but {there}; --gpus N plans for a cluster"]


# Words


def duration(seconds: float) -> str:
    """Seconds in words: 2.5 min."""
    unit, length = next(
        ((u, n) for u, n in (("h", 3600), ("min", 60)) if seconds >= 2 * n), ("s", 1)
    )
    return (
        f"{seconds / length:,.3g} {unit}"
        if seconds / length < 1000
        else f"{seconds / length:,.0f} {unit}"
    )


def span(amount: Range, words: Callable[[float], str]) -> str:
    least, most = words(amount.least), words(amount.most)
    return least if least == most else f"{least} if only the best go on, {most} if all do"
