"""Search spaces: a YAML file becomes a function from the unit cube to configurations.

`load_space` reads and checks the file; docs/search_spaces.md is its grammar. `Space.at(u)` is the function. Random,
quasi-random and grid search are three ways to choose `u`; `Space.trials()` is what they run, in order. Where results
decide what is tried next, samplers.py does.
"""

import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, count, islice, product
from pathlib import Path
from typing import Any

from s2s_search.dimensions import Choice, Dimension, Flat, Range, Tie, checked, read_dimensions, value_of
from s2s_search.hparams import Hparams, overlay, resolve
from s2s_search.rules import RULES
from s2s_search.space_files import (
    LEAST_SHARE,
    METRICS,
    OBJECTIVES,
    SECTIONS,
    Place,
    Report,
    listed,
    read_corpus,
    read_models,
    read_parts,
    read_section,
)
from s2s_search.table import TABLE, ConfigError, nearest, owners, shown

BUDGET = ("train.max_steps", "train.seed")  # of a trial: from the sections, unless the parameters say otherwise


@dataclass(frozen=True)
class Metric:
    name: str
    goal: str  # "minimize" | "maximize"


@dataclass(frozen=True)
class Search:
    method: str
    trials: int | None  # draws, each multiplied by grids and replicates; None: all of a grid
    seed: int
    replicates: int
    retries: int = 3  # of a trial whose worker was lost
    hours: float | None = None  # budgets of the whole search
    gpu_hours: float | None = None


@dataclass(frozen=True)
class Scheduler:
    name: str
    max_steps: int
    grace_steps: int
    reduction_factor: float
    interval_steps: int | None = None  # pbt alone: from one perturbation to the next

    @property
    def pauses(self) -> bool:
        """Whether it stops a trial to start it again from its checkpoint, so that all may be alive at once."""
        return self.name in ("hyperband", "pbt")


@dataclass(frozen=True)
class Resources:
    """Of one trial; fractions share a processor."""

    cpu: float = 1.0
    gpu: float = 0.0

    @property
    def threads(self) -> int:
        """How many a trial computes with."""
        return max(1, int(self.cpu))

    @property
    def sharing(self) -> int:
        """How many trials share a GPU."""
        return int(1 / self.gpu + 1e-9) if 0 < self.gpu < 1 else 1  # 1 / (1 / 49) is a little below 49

    def fitting(self, cpus: float, gpus: float) -> int:
        """Returns how many trials run at once on so many CPUs and GPUs of one node. A share is of one GPU."""
        by_cpu = cpus / self.cpu + 1e-9
        if not self.gpu:
            return int(by_cpu)
        if self.gpu >= 1:
            return int(min(by_cpu, gpus // self.gpu))
        return int(min(by_cpu, int(gpus) * self.sharing))


@dataclass(frozen=True)
class Checkpoints:
    """Whose weights a search keeps: those of so many best trials, besides those that still run."""

    best: int = 10
    disk_gb: float | None = None


@dataclass(frozen=True)
class Space:
    """What is searched, and how. Each dimension comes after those that it depends on."""

    path: Path
    text: str
    name: str
    models: tuple[str, ...]
    corpus: dict[str, object]
    metric: Metric
    search: Search
    scheduler: Scheduler
    resources: Resources
    dimensions: tuple[Dimension, ...]
    checkpoints: Checkpoints = Checkpoints()
    further: tuple[Metric, ...] = ()  # objectives beside the metric
    is_fixed: bool = False  # by overrides: it may hold fewer configurations than the file asks for
    lines: Mapping[Place, int] = field(default_factory=dict, compare=False, repr=False)  # of the file, by place

    @property
    def objectives(self) -> tuple[Metric, ...]:
        """What a trial is judged by: the metric, and what tpe minimizes or maximizes beside it."""
        return (self.metric, *self.further)

    def line(self, place: Place) -> int:
        """Returns the line of the file in which a place stands, or the nearest place around it; 0 for neither."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 0) if place else 0

    @cached_property
    def varying(self) -> tuple[Dimension, ...]:
        return tuple(dimension for dimension in self.dimensions if dimension.varies)

    @property
    def searched(self) -> tuple[str, ...]:
        """The keys that vary, "model" included when there are several. Tied keys add nothing and are not there."""
        return tuple(dimension.key for dimension in self.varying)

    @property
    def mutable(self) -> tuple[str, ...]:
        """The searched keys that pbt mutates: those that may change while a trial goes on."""
        return tuple(key for key in self.searched if survives(key))

    @property
    def size(self) -> int:
        """How many numbers `at` takes."""
        return len(self.varying)

    def label(self, key: str, value: object) -> object:
        """Returns the name that the file gives a value, or the value."""
        domains = [d.domain for d in self.dimensions if d.key == key and isinstance(d.domain, Choice)]
        named = [pair for domain in domains for pair in domain.named.items()]
        return next((label for label, other in named if other == value), value)

    def at(self, u: Sequence[float]) -> Flat:
        """Returns the configuration at a point of the unit cube, one coordinate for each of `searched`."""
        if len(u) != self.size or not all(0 <= x <= 1 for x in u):
            raise ValueError(f"at needs {self.size} numbers from 0 to 1, but got {shown(u)}")
        return self._flat(_values_at(self.varying, u))

    def configuration(self, choose: Callable[[Dimension], object]) -> Flat:
        """Returns the partial configuration of the values that `choose` gives.

        It is asked for the varying dimensions that take part, one after the other, each after those it depends on.
        """
        flat: Flat = {}
        keys = {dimension.key for dimension in self.dimensions}
        for dimension in self.dimensions:
            key, domain = dimension.key, dimension.domain
            if not _active(dimension, flat):
                continue
            if isinstance(domain, Tie):
                flat |= {name: value for name, value in _tied(key, domain.key, flat) if name == key or name not in keys}
            else:
                flat[key] = choose(dimension) if dimension.varies else domain.at(0.0)
        return _copy(flat)

    def budgeted(self, flat: Flat, seed: int) -> Flat:
        """Returns the configuration with a trial's budget and seed, where the space does not set them itself."""
        own = {dimension.key for dimension in self.dimensions}
        budget: Flat = dict(zip(BUDGET, (self.scheduler.max_steps, seed), strict=True))
        return _copy(flat) | {key: value for key, value in budget.items() if key not in own}

    def draw(self, n: int, seed: int | None = None) -> list[Flat]:
        """Returns n valid configurations that differ when resolved. Raises ConfigError when there are fewer."""
        drawn = list(islice(chain.from_iterable(self._blocks(seed)), n))
        self._check_count(len(drawn), n)
        return drawn

    def grid(self) -> list[Flat]:
        """Returns all valid configurations. Raises ConfigError when a range has no steps or there are too many."""
        problems = [sentence for _, sentence in _grid_problems(self.varying)]
        if problems:
            raise ConfigError(problems, str(self.path))
        enumerated = replace(self, search=replace(self.search, method="grid"))
        return list(chain.from_iterable(enumerated._blocks(0)))

    def trials(
        self, trials: int | None = None, seed: int | None = None, overrides: Mapping[str, object] | None = None
    ) -> list[Flat]:
        """Returns what a search runs, in order: draws, each with all points of the grids, each with its replicates.

        For tpe, which chooses as results come, these are random draws: what it begins with, and what the space holds.
        Overrides win over the file, conditions and ties included; where they leave fewer configurations than the file
        asks for, these are all. Raises ConfigError.
        """
        space = self.fixed(overrides) if overrides else self
        wanted = self.search.trials if trials is None else trials
        if wanted is not None and wanted < 1:
            raise ConfigError(f"search.trials: must be at least 1, but got {wanted}", str(self.path))
        seed = self.search.seed if seed is None else seed
        blocks = list(islice(space._blocks(seed), wanted))
        is_demanded = trials is not None or not space.is_fixed
        if wanted is not None and is_demanded and self.search.method != "grid":
            space._check_count(len(blocks), wanted)
        each = product(chain.from_iterable(blocks), range(self.search.replicates))
        return [space.budgeted(flat, seed + replicate) for flat, replicate in each]

    def fixed(self, overrides: Mapping[str, object]) -> "Space":
        """Returns the space with some keys fixed; the others are drawn as before. Raises ConfigError."""
        report, values = Report("--hparams"), dict[str, object]()
        for key, value in overrides.items():
            with report.at():
                values[key] = checked(key, value, self.models)
        if "train.seed" in values and self.search.replicates > 1:
            report.add((), "train.seed: cannot be fixed, because replicates differ by it")
        kept = [d for d in self.dimensions if d.key not in values and d.key.rpartition(".")[0] not in values]
        constants = [Dimension(key, Choice((value,))) for key, value in values.items()]  # they depend on nothing
        order = sorted([*constants, *kept], key=lambda dimension: dimension.key != "model")
        space = replace(self, dimensions=tuple(order), is_fixed=True)
        for sentence in {} if report.problems else _probe(space).values():
            report.add((), sentence)
        report.fail()
        return space

    def _flat(self, chosen: Mapping[str, object]) -> Flat:
        return self.configuration(lambda dimension: chosen[dimension.key])

    def _points(self, seed: int) -> Iterator[Flat]:
        """Yields choices for the varying keys outside grids, without end; for a grid search, all choices."""
        if self.search.method == "grid":
            yield from _enumerated(self.varying)
            return
        free = [dimension for dimension in self.varying if not dimension.grid]
        cube = _halton if self.search.method == "halton" else _uniform
        yield from (_values_at(free, u) for u in cube([dimension.key for dimension in free], seed))

    def _blocks(self, seed: int | None) -> Iterator[list[Flat]]:
        """Yields for each point its valid configurations, one or a grid, that were not met before, if it has any.

        Ends when nothing new was found for long.
        """
        is_grid, seen, misses = self.search.method == "grid", set[Hparams](), 0
        size = math.prod(dimension.domain.size for dimension in self.varying if self._can_take_part(dimension))
        patience = math.inf if is_grid else 1000 + 20 * min(size, 2000)
        grids = [dimension for dimension in self.varying if dimension.grid and not is_grid]
        for point in self._points(self.search.seed if seed is None else seed):
            block = []
            for rest in _enumerated(grids):
                flat = self._flat(point | rest)
                complete = completed(flat)
                if complete is not None and complete not in seen:
                    seen.add(complete)
                    block.append(flat)
            if block:
                yield block
            misses = 0 if block else misses + 1
            if misses > patience:
                return

    def _can_take_part(self, dimension: Dimension) -> bool:
        """Says whether the keys that never vary leave a dimension's conditions room."""
        constants = {
            d.key: d.domain.values[0] for d in self.dimensions if isinstance(d.domain, Choice) and not d.varies
        }
        for parent in self.dimensions:
            allowed = () if parent.when else dimension.when.get(parent.key, ())
            if allowed and parent.key in constants and constants[parent.key] not in allowed:
                return False
        return True

    def _check_count(self, found: int, wanted: int) -> None:
        if found < wanted:
            law = f"{wanted} different configurations were asked for, but only {found} valid ones were found"
            raise ConfigError(f"search.trials: {law}", str(self.path))


def _values_at(dimensions: Sequence[Dimension], u: Sequence[float]) -> Flat:
    return {d.key: d.domain.at(x) for d, x in zip(dimensions, u, strict=True) if not isinstance(d.domain, Tie)}


def _enumerated(dimensions: Sequence[Dimension]) -> Iterator[Flat]:
    """Yields all choices for the dimensions' keys; one, of no key, when there are none."""
    points = [d.domain.points() for d in dimensions if not isinstance(d.domain, Tie)]
    yield from (dict(zip([d.key for d in dimensions], values, strict=True)) for values in product(*points))


def _copy(flat: Flat) -> Flat:
    return {key: dict(value) if isinstance(value, dict) else value for key, value in flat.items()}


def completed(flat: Mapping[str, object]) -> Hparams | None:
    """Returns the complete configuration, or None when it is invalid."""
    try:
        return resolve(str(flat.get("model")), flat)
    except ConfigError:
        return None


def survives(key: str) -> bool:
    """Tells whether a checkpoint stays good when the hyperparameter changes: it sizes nothing, and no state is its."""
    return (key.startswith("optimizer.") and key != "optimizer.name") or key.endswith("keep_prob")


def _active(dimension: Dimension, flat: Mapping[str, object]) -> bool:
    if dimension.key != "model" and flat["model"] not in owners(dimension.key):
        return False
    return all(value_of(parent, flat) in values for parent, values in dimension.when.items())


def _tied(key: str, source: str, flat: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    row, _, entry = source.rpartition(".")
    spec = flat.get(row)
    if source not in flat and isinstance(spec, dict) and entry in spec:
        yield key, spec[entry]
    for name, value in flat.items():
        if name == source or name.startswith(source + "."):
            yield key + name[len(source) :], value


def _uniform(keys: Sequence[str], seed: int) -> Iterator[list[float]]:
    """Yields points of the unit cube. Each key has its own stream: fixing one leaves the others as they were."""
    streams = [random.Random(f"{seed} {key}") for key in keys]
    while True:
        yield [stream.random() for stream in streams]


def _halton(keys: Sequence[str], seed: int) -> Iterator[list[float]]:
    """Yields the points of Halton's sequence, the digits of each coordinate permuted at random (Owen, 2017)."""
    primes = (n for n in count(2) if all(n % divisor for divisor in range(2, math.isqrt(n) + 1)))
    axes = []
    for key, base in zip(keys, primes, strict=False):
        digits = range(math.ceil(30 / math.log2(base)))
        axes.append((base, [random.Random(f"{seed} {key} {d}").sample(range(base), base) for d in digits]))
    for index in count():
        yield [sum(digit[index // b**d % b] / b ** (d + 1) for d, digit in enumerate(digits)) for b, digits in axes]


def _probe(space: Space) -> dict[str, str]:
    """Tries the space out; returns, by key, problems that no rule between keys explains, or that all draws have."""
    found: dict[str, str] = {}
    is_valid, reasons = False, list[str]()
    for draws, u in enumerate(islice(_uniform(space.searched, 0), 2000 if space.varying else 1)):
        if draws >= 200 and (is_valid or found):
            break
        flat = space.at(u)
        values, problems = overlay(str(flat["model"]), flat)
        found = {**dict(problems), **found}
        reasons = [] if problems else [sentence for rule in RULES for sentence in rule(values)]
        is_valid = is_valid or not (problems or reasons)
    many = "no valid configuration among 2000 draws: " if space.varying else ""
    return found if found or is_valid else {"": many + reasons[0]}


LARGEST_GRID = 100_000


def _grid_problems(dimensions: Iterable[Dimension]) -> list[tuple[str, str]]:
    """Returns why the dimensions cannot be enumerated: keys and sentences."""
    sizes = {dimension.key: dimension.domain.size for dimension in dimensions}
    if math.prod(sizes.values()) <= LARGEST_GRID:
        return []
    endless = [(key, f"{key}: a grid needs steps; give step or choices") for key in sizes if sizes[key] == math.inf]
    law = f"a grid may have at most {LARGEST_GRID} points, but this one has {math.prod(sizes.values()):.0f}"
    return endless or [(max(sizes, key=lambda key: sizes[key]), f"search.method: {law}")]


def load_space(path: str | Path, folder: str | Path | None = None, files: bool = True) -> Space:
    """Returns the space that a YAML file describes. Raises ConfigError with all its problems and their lines.

    The paths of its corpus start from `folder`, without one from the file's own. With `files` False the file is of a
    run folder: the files of the corpus need not be there, and what earlier versions accepted is accepted.
    """
    path, report = Path(path), Report(str(path))
    text, parts = read_parts(path, report)
    home = Path(folder or path.absolute().parent)
    models, corpus = read_models(parts, report), read_corpus(parts, home, report, files)
    metric, search, scheduler, resources, checkpoints = (
        read_section(name, parts, report, is_past=not files) for name in SECTIONS
    )
    before = len(report.problems)
    dimensions = read_dimensions(parts, models, report)
    are_whole = len(report.problems) == before
    follows = report if are_whole else Report(report.where)  # without a dimension nobody knows what follows from all
    keys = [dimension.key for dimension in dimensions]
    if search["replicates"] > 1 and "train.seed" in keys:
        report.add(("parameters", "train.seed"), "train.seed: cannot be set, because search.replicates differ by it")
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
        report.add(("search", "gpu_hours"), "search.gpu_hours: trials take no GPU; give resources.gpu, or search.hours")
    for key, sentence in _probe(space).items() if are_whole else ():
        near = [k for k in keys if key and (f"{k}.".startswith(f"{key}.") or f"{key}.".startswith(f"{k}."))]
        report.add(("parameters", *near[:1]), sentence)
    report.fail()
    return space


def _metric(section: Mapping[str, Any], report: Report) -> Metric:
    name, goal = section["name"], METRICS[section["name"]]
    if section["goal"] not in (None, goal):
        law = f"metric.goal: {name} can only be {goal}d, but goal = {section['goal']}"
        report.add(("metric", "goal"), law)
    return Metric(name, goal)


def _resources(section: Mapping[str, Any], report: Report) -> Resources:
    if 1 < section["gpu"] != int(section["gpu"]):
        report.add(("resources", "gpu"), f"resources.gpu: must be whole above 1, but gpu = {section['gpu']:g}")
    if 0 < section["gpu"] < LEAST_SHARE:
        law = f"resources.gpu: must be 0 or at least {LEAST_SHARE}"
        report.add(("resources", "gpu"), f"{law}, but gpu = {section['gpu']:g}")
    # Rounded down, so that as many trials fit as the shares say: Ray 2.60 makes 0.1666 of 1/6, but 0.6667 of 2/3.
    units = round(1 / LEAST_SHARE)
    return Resources(**{name: math.floor(amount * units + 1e-6) / units for name, amount in section.items()})


def _trials(search: Mapping[str, Any], dimensions: Sequence[Dimension], report: Report, follows: Report) -> int | None:
    """Returns the number of draws: as given, else 16 or fewer; reports what cannot be enumerated, or drawn as often."""
    is_grid, given = search["method"] == "grid", search["trials"]
    for key, problem in _grid_problems(d for d in dimensions if d.grid or is_grid):
        report.add(("parameters", key), problem)
    size = math.prod(dimension.domain.size for dimension in dimensions if not dimension.grid)
    if given and given > size and not is_grid:
        law = f"draws must differ, but trials = {given} and there {_are(size)}"
        follows.add(("search", "trials"), f"search.trials: {law}; method: grid runs each once")
    return given if is_grid or given else int(min(16, size))


def _are(configurations: float) -> str:
    return "is 1 configuration" if configurations == 1 else f"are {configurations:.0f} configurations"


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
        report.add(("scheduler", "grace_steps"), f"scheduler.grace_steps: {law}, k = 0, 1, ...; asha has one")
    if interval and name != "pbt":
        report.add(("scheduler", "interval_steps"), f"scheduler.interval_steps: only pbt has one, but name = {name}")
    if interval and interval > steps:
        law = f"must be at most max_steps, but interval_steps = {interval} and max_steps = {steps}"
        of_steps.add(("scheduler", "interval_steps"), f"scheduler.interval_steps: {law}")
    return Scheduler(name, steps, grace, factor, (interval or grace) if name == "pbt" else None)


def longest_training(dimensions: Iterable[Dimension]) -> int | None:
    """Returns the largest train.max_steps of the parameters; None where they do not name it."""
    ends: list[Any] = []
    for domain in (dimension.domain for dimension in dimensions if dimension.key == "train.max_steps"):
        ends += domain.values if isinstance(domain, Choice) else [domain.high] if isinstance(domain, Range) else []
    return max(ends, default=None)


def _further(parts: Mapping[str, object], metric: str, report: Report) -> tuple[Metric, ...]:
    """Returns the objectives beside the metric; reports those that are unknown or given twice."""
    found: dict[str, Metric] = {}
    for index, name in enumerate(listed(parts.get("objectives", []))):
        if not isinstance(name, str) or name not in OBJECTIVES:
            report.add(("objectives", index), f"objectives: unknown name {shown(name)}{nearest(name, OBJECTIVES)}")
        elif name == metric or name in found:
            where = "the metric, and an objective already" if name == metric else "listed twice"
            report.add(("objectives", index), f"objectives: {name} is {where}")
        else:
            found[name] = Metric(name, OBJECTIVES[name])
    return tuple(found.values())


def _check_tpe(space: Space, parts: Mapping[str, object], report: Report) -> None:
    """Reports what tpe cannot do, and what needs it."""
    if space.search.method != "tpe":
        if "objectives" in parts:
            report.add(("objectives",), f"objectives: need search.method tpe, but method = {space.search.method}")
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
            ("scheduler", "name"), f"scheduler.name: {law}; this file searches {', '.join(space.searched) or 'none'}"
        )
