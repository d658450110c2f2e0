"""Loads a search space from its YAML file and checks it."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from s2s_search.errors import ConfigError, nearest, shown
from s2s_search.hparams.configuration import Hparams
from s2s_search.hparams.table import TABLE
from s2s_search.metrics import METRICS, OBJECTIVES, Metric
from s2s_search.spaces.constraints import PARAMETERS, read_constraints
from s2s_search.spaces.dimensions import Choice, Dimension, Flat, Range
from s2s_search.spaces.feasibility import constraint_problems, first_problems
from s2s_search.spaces.first import read_first
from s2s_search.spaces.packaged import space_file
from s2s_search.spaces.parameters import read_dimensions
from s2s_search.spaces.settings import (
    KEEP,
    LEARNING,
    SETTINGS_OF,
    STOP,
    CheckpointSettings,
    Resources,
    Scheduler,
    SearchSettings,
)
from s2s_search.spaces.space import (
    Space,
    draw_problems,
    grid_problems,
)
from s2s_search.spaces.yaml_file import (
    LEAST_SHARE,
    SECTIONS,
    Problems,
    listed,
    read_corpus,
    read_models,
    read_parts,
    read_section,
)

# Schedulers without a step at which trials are first compared, and what there is instead.
WITHOUT_GRACE = {
    "hyperband": (
        "its brackets begin at max_steps / {factor:g}^k, k = 0, 1, ...; asha has grace_steps"
    ),
    "freeze_thaw": "it compares trials at every report; train.eval_every_steps sets these",
}


def load_space(path: str | Path, folder: str | Path | None = None, files: bool = True) -> Space:
    """Returns the space that a YAML file describes.

    Args:
        path: the file, or the name of a packaged space such as britz_2017/attention.
        folder: where relative paths of the corpus start; None stands for the folder of the file.
        files: False for the file of a run folder. Then the files of the corpus need not be there,
            and what earlier versions accepted is accepted.

    Raises:
        ConfigError: with all problems of the file and their lines.
    """
    problems = Problems(str(path))
    path = space_file(Path(path))
    text, parts = read_parts(path, problems)
    models = read_models(parts, problems)
    corpus = read_corpus(parts, Path(folder or path.absolute().parent), problems, files)
    has_corpus = not problems.found
    metric, search, scheduler, resources, checkpoints = (
        read_section(name, parts, problems, is_past=not files) for name in SECTIONS
    )
    before = len(problems.found)
    dimensions = read_dimensions(parts, models, problems)
    are_whole = len(problems.found) == before
    # When a dimension has a problem, problems that follow from all dimensions are not known. They
    # are collected where nobody reads them.
    derived = problems if are_whole else Problems(problems.where)
    keys = [dimension.key for dimension in dimensions]
    if search["replicates"] > 1 and "train.seed" in keys:
        problems.add(
            ("parameters", "train.seed"),
            "train.seed: cannot be set, because search.replicates differ by it",
        )
    first = read_first(parts, dimensions, models, search["method"], problems)
    space = Space(
        path,
        text,
        path.stem,
        models,
        corpus,
        _metric(metric, problems),
        SearchSettings(
            **{
                **search,
                "trials": _number_of_draws(search, dimensions, len(first), problems, derived),
            }
        ),
        _scheduler(scheduler, dimensions, problems, derived),
        _resources(resources, problems),
        dimensions,
        CheckpointSettings(**checkpoints),
        _further(parts, metric["name"], problems),
        read_constraints(parts, models, problems),
        tuple(named for _, named in first),
        lines=problems.lines,
    )
    _check_grid(space, problems)
    _check_learning(space, parts, problems)
    _check_pbt(space, problems, derived)
    if space.search.gpu_hours and not space.resources.gpu:
        problems.add(
            ("search", "gpu_hours"),
            "search.gpu_hours: trials take no GPU; give resources.gpu, or search.hours",
        )
    if are_whole:
        for key, sentence in draw_problems(space).items():
            problems.add(("parameters", *_nearest_key(key, keys)), sentence)
        named = [name for constraint in space.constraints for name in constraint.names]
        if files and (has_corpus or PARAMETERS not in named):
            _check_configurations(space, first, problems)
    problems.fail()
    return space


def _nearest_key(key: str, keys: Iterable[str]) -> tuple[str, ...]:
    """Returns the key of the file that sets a hyperparameter or a part of it, if there is one."""
    for other in keys:
        if key and (f"{other}.".startswith(f"{key}.") or f"{key}.".startswith(f"{other}.")):
            return (other,)
    return ()


def _metric(section: Mapping[str, Any], problems: Problems) -> Metric:
    """Returns the metric. A goal that it cannot have is a problem."""
    metric = METRICS[section["name"]]
    if section["goal"] not in (None, metric.goal):
        law = f"metric.goal: {metric.name} can only be {metric.goal}d, but goal = {section['goal']}"
        problems.add(("metric", "goal"), law)
    return metric


def _resources(section: Mapping[str, Any], problems: Problems) -> Resources:
    """Returns the resources of a trial. A number of GPUs that Ray does not take is a problem."""
    gpu = section["gpu"]
    law = ""
    if gpu > 1 and gpu != int(gpu):
        law = "must be whole above 1"
    elif 0 < gpu < LEAST_SHARE:
        law = f"must be 0 or at least {LEAST_SHARE}"
    if law:
        problems.add(("resources", "gpu"), f"resources.gpu: {law}, but gpu = {gpu:g}")
    # Ray 2.60 counts in ten thousandths, and makes 0.1666 of 1/6 but 0.6667 of 2/3. Shares are
    # rounded down here, so that as many trials fit as the shares say.
    units = round(1 / LEAST_SHARE)
    shares = {name: math.floor(amount * units + 1e-6) / units for name, amount in section.items()}
    return Resources(**shares)


def _number_of_draws(
    search: Mapping[str, Any],
    dimensions: Sequence[Dimension],
    first: int,
    problems: Problems,
    derived: Problems,
) -> int | None:
    """Returns the number of draws; None for all points of a grid.

    It is the number in the file. Without one it is 16, or fewer when the space is smaller. It is a
    problem when a grid is endless or too large, or when the file asks for more draws than there
    are configurations, or for fewer than `first` has.
    """
    is_grid = search["method"] == "grid"
    given: int | None = search["trials"]
    for key, problem in grid_problems(d for d in dimensions if d.grid or is_grid):
        problems.add(("parameters", key), problem)
    size = math.prod(dimension.domain.size for dimension in dimensions if not dimension.grid)
    if given and given > size and not is_grid:
        law = f"draws must differ, but trials = {given} and there {_are(size)}"
        derived.add(("search", "trials"), f"search.trials: {law}; method: grid runs each once")
    if given and given < first:
        law = f"must be at least the number of configurations in first, which is {first}"
        problems.add(("search", "trials"), f"search.trials: {law}, but trials = {given}")
    if is_grid or given:
        return given
    return max(int(min(16, size)), first)


def _are(configurations: float) -> str:
    if configurations == 1:
        return "is 1 configuration"
    return f"are {configurations:.0f} configurations"


def _scheduler(
    section: Mapping[str, Any],
    dimensions: Sequence[Dimension],
    problems: Problems,
    derived: Problems,
) -> Scheduler:
    """Returns the scheduler. Settings that do not fit each other or the parameters are problems.

    Where the section has no max_steps, it is the largest train.max_steps of the parameters.
    """
    steps = section["max_steps"]
    factor = section["reduction_factor"]
    largest = longest_training(dimensions)
    if largest and steps and largest > steps:
        problem = f"must be at most scheduler.max_steps = {steps}, but goes up to {largest}"
        problems.add(("parameters", "train.max_steps"), f"train.max_steps: {problem}")
    # Without max_steps, problems with it follow from the dimensions.
    of_steps = problems if steps else derived
    steps = steps or largest or TABLE["train.max_steps"].default
    grace = section["grace_steps"] or max(1, int(steps / factor**2))
    if grace > steps:
        law = f"must be at most max_steps, but grace_steps = {grace} and max_steps = {steps}"
        of_steps.add(("scheduler", "grace_steps"), f"scheduler.grace_steps: {law}")
    name, interval = section["name"], section["interval_steps"]
    if section["grace_steps"] and name in WITHOUT_GRACE:
        law = f"{name} has no grace_steps, but grace_steps = {grace}"
        why = WITHOUT_GRACE[name].format(factor=factor)
        problems.add(("scheduler", "grace_steps"), f"scheduler.grace_steps: {law}; {why}")
    for key, names in SETTINGS_OF.items():
        if section[key] not in (None, STOP) and name not in names:
            law = f"only {' and '.join(names)} has {key}, but name = {name}"
            problems.add(("scheduler", key), f"scheduler.{key}: {law}")
    total = section["total_steps"]
    if total and total < steps:
        law = f"must be at least max_steps, but total_steps = {total} and max_steps = {steps}"
        why = "no trial would reach its end"
        of_steps.add(("scheduler", "total_steps"), f"scheduler.total_steps: {law}; {why}")
    if interval and interval > steps:
        law = f"must be at most max_steps, but interval_steps = {interval} and max_steps = {steps}"
        of_steps.add(("scheduler", "interval_steps"), f"scheduler.interval_steps: {law}")
    return Scheduler(
        name,
        steps,
        grace,
        factor,
        interval_steps=(interval or grace) if name == "pbt" else None,
        variant=section["variant"],
        keep=section["keep"] or KEEP,
        total_steps=section["total_steps"],
    )


def longest_training(dimensions: Iterable[Dimension]) -> int | None:
    """Returns the largest train.max_steps of the parameters; None where they do not set it."""
    ends: list[Any] = []
    for dimension in dimensions:
        if dimension.key == "train.max_steps":
            if isinstance(dimension.domain, Choice):
                ends += dimension.domain.values
            elif isinstance(dimension.domain, Range):
                ends.append(dimension.domain.high)
    return max(ends, default=None)


def _further(parts: Mapping[str, object], metric: str, problems: Problems) -> tuple[Metric, ...]:
    """Returns the objectives beside the metric. Unknown and repeated names are problems."""
    found: dict[str, Metric] = {}
    for index, name in enumerate(listed(parts.get("objectives", []))):
        if not isinstance(name, str) or name not in OBJECTIVES:
            law = f"unknown name {shown(name)}{nearest(name, OBJECTIVES)}"
            problems.add(("objectives", index), f"objectives: {law}")
        elif name == metric or name in found:
            where = "the metric, which is always an objective" if name == metric else "listed twice"
            problems.add(("objectives", index), f"objectives: {name} is {where}")
        else:
            found[name] = OBJECTIVES[name]
    return tuple(found.values())


def _check_grid(space: Space, problems: Problems) -> None:
    """Records weights and priors as problems where the method runs every value anyway."""
    if space.search.method != "grid":
        return
    for dimension in space.dimensions:
        if dimension.prior is not None:
            law = "a prior decides how often a value is drawn, and method grid runs each value"
            problems.add(("parameters", dimension.key, "prior"), f"{dimension.key}: {law}")
        if isinstance(dimension.domain, Choice) and dimension.domain.weights:
            law = "weights decide how often a value is drawn, and method grid runs each value"
            problems.add(("parameters", dimension.key, "weights"), f"{dimension.key}: {law}")


def _check_configurations(
    space: Space, first: Sequence[tuple[int, Flat]], problems: Problems
) -> None:
    """Records constraints that hold nowhere, and wrong configurations of `first`, as problems."""
    try:
        found = list(constraint_problems(space))
        for key_path, sentence in found:
            problems.add(key_path, sentence)
        if not found:
            _check_first(space, first, problems)
    except ConfigError as error:  # the corpus, which decides the number of parameters
        where = f"{error.where}: " if error.where else ""
        for problem in error.problems:
            problems.add(("corpus",), f"corpus: {where}{problem}")


def _check_first(space: Space, first: Sequence[tuple[int, Flat]], problems: Problems) -> None:
    """Records configurations of `first` that cannot be run, or are the same, as problems."""
    places: dict[Hparams, int] = {}
    for index, named in first:
        before = len(problems.found)
        for key_path, sentence in first_problems(space, index, named):
            problems.add(key_path, sentence)
        if len(problems.found) > before:
            continue
        for flat in space.crossed(named, space.chosen):
            complete = space.complete(flat)
            if complete is not None and places.setdefault(complete, index) != index:
                line = space.line(("first", places[complete]))
                law = f"first: it is the same configuration as that of line {line}"
                problems.add(("first", index), law)
                break


def _check_learning(space: Space, parts: Mapping[str, object], problems: Problems) -> None:
    """Records settings that a method which learns cannot do, and objectives that need tpe."""
    method, scheduler = space.search.method, space.scheduler.name
    if method != "tpe" and "objectives" in parts:
        problems.add(("objectives",), f"objectives: need search.method tpe, but method = {method}")
    if scheduler == "freeze_thaw" and method not in ("random", "halton"):
        law = f"freeze_thaw chooses configurations itself, but method = {method}"
        problems.add(("search", "method"), f"search.method: {law}; take random or halton")
    if method in LEARNING:
        section, name = "search.method", method
    elif scheduler == "freeze_thaw":
        section, name = "scheduler.name", scheduler
    else:
        return
    for dimension in space.dimensions:
        if dimension.grid:
            law = f"{section}: {name} chooses every value itself; write choices, not grid"
            problems.add(("parameters", dimension.key, "grid"), law)
    if space.search.replicates > 1:
        law = f"{name} runs each configuration once, but replicates = {space.search.replicates}"
        problems.add(("search", "replicates"), f"search.replicates: {law}; use random")


def _check_pbt(space: Space, problems: Problems, derived: Problems) -> None:
    """Records settings with which pbt cannot work as problems."""
    if space.scheduler.name != "pbt":
        return
    if space.search.method in LEARNING:
        method = space.search.method
        law = f"{method} learns from configurations that stay the same, and pbt changes them"
        problems.add(("search", "method"), f"search.method: {law}; take random or halton")
    if not space.mutable:
        law = "pbt needs a searched key that may change in training"
        keys = "optimizer.* without optimizer.name, a keep_prob, or train.label_smoothing"
        fact = f"this file searches {', '.join(space.searched) or 'none'}"
        derived.add(("scheduler", "name"), f"scheduler.name: {law}: {keys}; {fact}")
