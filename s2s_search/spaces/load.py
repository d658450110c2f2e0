"""Loads a search space from its YAML file and checks it."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from s2s_search.errors import nearest, shown
from s2s_search.hparams.table import TABLE
from s2s_search.metrics import METRICS, OBJECTIVES, Metric
from s2s_search.spaces.dimensions import Choice, Dimension, Range, read_dimensions
from s2s_search.spaces.packaged import space_file
from s2s_search.spaces.settings import Checkpoints, Resources, Scheduler, Search
from s2s_search.spaces.space import Space, draw_problems, grid_problems
from s2s_search.spaces.yaml_file import (
    LEAST_SHARE,
    SECTIONS,
    Report,
    listed,
    read_corpus,
    read_models,
    read_parts,
    read_section,
)


def load_space(path: str | Path, folder: str | Path | None = None, files: bool = True) -> Space:
    """Returns the space that a YAML file describes. Raises ConfigError with all its problems and their lines.

    Where there is no such file, the path can be the name of a packaged space, such as britz_2017/attention.
    The paths of its corpus start from `folder`, without one from the file's own. With `files` False the file is of a
    run folder: the files of the corpus need not be there, and what earlier versions accepted is accepted.
    """
    path, report = space_file(Path(path)), Report(str(path))
    text, parts = read_parts(path, report)
    home = Path(folder or path.absolute().parent)
    models, corpus = read_models(parts, report), read_corpus(parts, home, report, files)
    metric, search, scheduler, resources, checkpoints = (
        read_section(name, parts, report, is_past=not files) for name in SECTIONS
    )
    before = len(report.problems)
    dimensions = read_dimensions(parts, models, report)
    are_whole = len(report.problems) == before
    follows = (
        report if are_whole else Report(report.where)
    )  # without a dimension nobody knows what follows from all
    keys = [dimension.key for dimension in dimensions]
    if search["replicates"] > 1 and "train.seed" in keys:
        report.add(
            ("parameters", "train.seed"),
            "train.seed: cannot be set, because search.replicates differ by it",
        )
    space = Space(
        path,
        text,
        path.stem,
        models,
        corpus,
        _metric(metric, report),
        Search(**{**search, "trials": _trials(search, dimensions, report, follows)}),
        _scheduler(scheduler, dimensions, report, follows),
        _resources(resources, report),
        dimensions,
        Checkpoints(**checkpoints),
        _further(parts, metric["name"], report),
        lines=report.lines,
    )
    _check_tpe(space, parts, report)
    _check_pbt(space, report, follows)
    if space.search.gpu_hours and not space.resources.gpu:
        report.add(
            ("search", "gpu_hours"),
            "search.gpu_hours: trials take no GPU; give resources.gpu, or search.hours",
        )
    for key, sentence in draw_problems(space).items() if are_whole else ():
        near = [
            k
            for k in keys
            if key and (f"{k}.".startswith(f"{key}.") or f"{key}.".startswith(f"{k}."))
        ]
        report.add(("parameters", *near[:1]), sentence)
    report.fail()
    return space


def _metric(section: Mapping[str, Any], report: Report) -> Metric:
    metric = METRICS[section["name"]]
    if section["goal"] not in (None, metric.goal):
        law = f"metric.goal: {metric.name} can only be {metric.goal}d, but goal = {section['goal']}"
        report.add(("metric", "goal"), law)
    return metric


def _resources(section: Mapping[str, Any], report: Report) -> Resources:
    if 1 < section["gpu"] != int(section["gpu"]):
        report.add(
            ("resources", "gpu"),
            f"resources.gpu: must be whole above 1, but gpu = {section['gpu']:g}",
        )
    if 0 < section["gpu"] < LEAST_SHARE:
        law = f"resources.gpu: must be 0 or at least {LEAST_SHARE}"
        report.add(("resources", "gpu"), f"{law}, but gpu = {section['gpu']:g}")
    # Rounded down, so that as many trials fit as the shares say: Ray 2.60 makes 0.1666 of 1/6, but 0.6667 of 2/3.
    units = round(1 / LEAST_SHARE)
    return Resources(
        **{name: math.floor(amount * units + 1e-6) / units for name, amount in section.items()}
    )


def _trials(
    search: Mapping[str, Any], dimensions: Sequence[Dimension], report: Report, follows: Report
) -> int | None:
    """Returns the number of draws: as given, else 16 or fewer; reports what cannot be enumerated, or drawn as often."""
    is_grid, given = search["method"] == "grid", search["trials"]
    for key, problem in grid_problems(d for d in dimensions if d.grid or is_grid):
        report.add(("parameters", key), problem)
    size = math.prod(dimension.domain.size for dimension in dimensions if not dimension.grid)
    if given and given > size and not is_grid:
        law = f"draws must differ, but trials = {given} and there {_are(size)}"
        follows.add(("search", "trials"), f"search.trials: {law}; method: grid runs each once")
    return given if is_grid or given else int(min(16, size))


def _are(configurations: float) -> str:
    return (
        "is 1 configuration" if configurations == 1 else f"are {configurations:.0f} configurations"
    )


def _scheduler(
    section: Mapping[str, Any], dimensions: Sequence[Dimension], report: Report, follows: Report
) -> Scheduler:
    """Returns the scheduler; without max_steps it takes the largest train.max_steps of the parameters."""
    steps, factor = section["max_steps"], section["reduction_factor"]
    largest = longest_training(dimensions)
    if largest and steps and largest > steps:
        problem = f"must be at most scheduler.max_steps = {steps}, but goes up to {largest}"
        report.add(("parameters", "train.max_steps"), f"train.max_steps: {problem}")
    of_steps = report if steps else follows
    steps = steps or largest or TABLE["train.max_steps"].default
    grace = section["grace_steps"] or max(1, int(steps / factor**2))
    if grace > steps:
        law = f"must be at most max_steps, but grace_steps = {grace} and max_steps = {steps}"
        of_steps.add(("scheduler", "grace_steps"), f"scheduler.grace_steps: {law}")
    name, interval = section["name"], section["interval_steps"]
    if section["grace_steps"] and name == "hyperband":
        law = f"hyperband has none, but grace_steps = {grace}; its brackets begin at max_steps / {factor:g}^k"
        report.add(
            ("scheduler", "grace_steps"),
            f"scheduler.grace_steps: {law}, k = 0, 1, ...; asha has one",
        )
    if interval and name != "pbt":
        report.add(
            ("scheduler", "interval_steps"),
            f"scheduler.interval_steps: only pbt has one, but name = {name}",
        )
    if interval and interval > steps:
        law = f"must be at most max_steps, but interval_steps = {interval} and max_steps = {steps}"
        of_steps.add(("scheduler", "interval_steps"), f"scheduler.interval_steps: {law}")
    return Scheduler(name, steps, grace, factor, (interval or grace) if name == "pbt" else None)


def longest_training(dimensions: Iterable[Dimension]) -> int | None:
    """Returns the largest train.max_steps of the parameters; None where they do not name it."""
    ends: list[Any] = []
    for domain in (
        dimension.domain for dimension in dimensions if dimension.key == "train.max_steps"
    ):
        ends += (
            domain.values
            if isinstance(domain, Choice)
            else [domain.high]
            if isinstance(domain, Range)
            else []
        )
    return max(ends, default=None)


def _further(parts: Mapping[str, object], metric: str, report: Report) -> tuple[Metric, ...]:
    """Returns the objectives beside the metric; reports those that are unknown or given twice."""
    found: dict[str, Metric] = {}
    for index, name in enumerate(listed(parts.get("objectives", []))):
        if not isinstance(name, str) or name not in OBJECTIVES:
            report.add(
                ("objectives", index),
                f"objectives: unknown name {shown(name)}{nearest(name, OBJECTIVES)}",
            )
        elif name == metric or name in found:
            where = "the metric, and an objective already" if name == metric else "listed twice"
            report.add(("objectives", index), f"objectives: {name} is {where}")
        else:
            found[name] = OBJECTIVES[name]
    return tuple(found.values())


def _check_tpe(space: Space, parts: Mapping[str, object], report: Report) -> None:
    """Reports what tpe cannot do, and what needs it."""
    if space.search.method != "tpe":
        if "objectives" in parts:
            report.add(
                ("objectives",),
                f"objectives: need search.method tpe, but method = {space.search.method}",
            )
        return
    for dimension in space.dimensions:
        if dimension.grid:
            law = "search.method: tpe chooses every value itself; write choices, not grid"
            report.add(("parameters", dimension.key, "grid"), law)
    if space.search.replicates > 1:
        law = f"tpe runs each configuration once, but replicates = {space.search.replicates}; use random"
        report.add(("search", "replicates"), f"search.replicates: {law}")


def _check_pbt(space: Space, report: Report, follows: Report) -> None:
    if space.scheduler.name == "pbt" and space.search.method == "tpe":
        law = "tpe learns from settings that stay, and pbt changes them; take random or halton"
        report.add(("search", "method"), f"search.method: {law}")
    if space.scheduler.name == "pbt" and not space.mutable:
        law = "pbt needs a searched key that a checkpoint survives: optimizer.* without optimizer.name, or a keep_prob"
        follows.add(
            ("scheduler", "name"),
            f"scheduler.name: {law}; this file searches {', '.join(space.searched) or 'none'}",
        )
