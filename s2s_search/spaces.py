"""Search spaces: a YAML file becomes a function from the unit cube to configurations.

`load_space` reads and checks the file; docs/search_spaces.md is its grammar. `Space.at(u)` is the function. Random,
quasi-random and grid search are three ways to choose `u`; `Space.trials()` is what a search runs, in order.
"""

import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, count, islice, product
from pathlib import Path

from s2s_search.hparams import RULES, Hparams, check_spec, convert, overlay
from s2s_search.table import (
    ENTRIES,
    SPEC,
    TABLE,
    Argument,
    ConfigError,
    canonical_model,
    declared,
    owners,
    shown,
)

Flat = dict[str, object]  # a partial configuration by dotted names, "model" among them


@dataclass(frozen=True)
class Choice:
    """One of several values, all equally likely; a constant is a choice of one. Labels name values that are specs."""

    values: tuple[object, ...]
    labels: tuple[str, ...] = ()

    def at(self, u: float) -> object:
        return self.values[min(int(u * len(self.values)), len(self.values) - 1)]

    def points(self) -> tuple[object, ...]:
        return self.values

    def __contains__(self, value: object) -> bool:
        return value in self.values

    @property
    def size(self) -> float:
        return len(self.values)


@dataclass(frozen=True)
class Range:
    """Numbers from low to high, both included: evenly spread, or (log) their logarithms; on multiples of a step."""

    low: float
    high: float
    log: bool = False
    step: float | None = None  # None: continuous
    whole: bool = False

    def at(self, u: float) -> object:
        end = self.high if self.step is None else self.low + self.size * self.step  # a point stands for its interval
        logs = (math.log(self.low), math.log(end)) if self.log else (0.0, 0.0)
        x = math.exp(logs[0] + u * (logs[1] - logs[0])) if self.log else self.low + u * (end - self.low)
        if self.step is not None:
            return self._point(min(int((x - self.low) / self.step), int(self.size) - 1))
        digits = 5 - math.floor(math.log10(x if self.log else self.high - self.low))
        return min(max(round(x, digits), self.low), self.high)  # a rate of 0.000351827 reads better than 17 digits

    def points(self) -> tuple[object, ...]:
        return tuple(self._point(index) for index in range(int(self.size)))

    def __contains__(self, value: object) -> bool:
        if self.step is None or not isinstance(value, int | float) or not self.low <= value <= self.high:
            return False
        return self._point(round((value - self.low) / self.step)) == value

    @property
    def size(self) -> float:
        return math.inf if self.step is None else math.floor((self.high - self.low) / self.step + 1e-9) + 1

    def _point(self, index: int) -> object:
        assert self.step is not None
        x = self.low + index * self.step
        return int(x) if self.whole else min(max(float(f"{x:.12g}"), self.low), self.high)


@dataclass(frozen=True)
class Tie:
    """The value of another key; of a spec, also its single entries."""

    key: str
    size = 1.0


@dataclass(frozen=True)
class Dimension:
    """A key of the file: what values it takes, and under which conditions it takes part at all."""

    key: str
    domain: Choice | Range | Tie
    when: Mapping[str, tuple[object, ...]] = field(default_factory=dict)
    role: str | None = None  # "scientific" | "nuisance"
    grid: bool = False

    @property
    def varies(self) -> bool:
        return self.domain.size > 1


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


@dataclass(frozen=True)
class Scheduler:
    name: str
    max_steps: int
    grace_steps: int
    reduction_factor: float


@dataclass(frozen=True)
class Resources:
    """Of one trial; fractions share a processor."""

    cpu: float
    gpu: float


# -------------------------------------------------------------------------------------------------- the space


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

    @cached_property
    def varying(self) -> tuple[Dimension, ...]:
        return tuple(dimension for dimension in self.dimensions if dimension.varies)

    @property
    def searched(self) -> tuple[str, ...]:
        """The keys that vary, "model" included when there are several. Tied keys add nothing and are not there."""
        return tuple(dimension.key for dimension in self.varying)

    @property
    def size(self) -> int:
        """How many numbers `at` takes."""
        return len(self.varying)

    def label(self, key: str, value: object) -> object:
        """Returns the name that the file gives a value, or the value."""
        domains = [d.domain for d in self.dimensions if d.key == key and isinstance(d.domain, Choice)]
        named = [pair for domain in domains for pair in zip(domain.labels, domain.values, strict=False)]
        return next((label for label, other in named if other == value), value)

    def at(self, u: Sequence[float]) -> Flat:
        """Returns the configuration at a point of the unit cube, one coordinate for each of `searched`."""
        if len(u) != self.size or not all(0 <= x <= 1 for x in u):
            raise ValueError(f"at needs {self.size} numbers from 0 to 1, but got {shown(u)}")
        return self._flat(_values_at(self.varying, u))

    def draw(self, n: int, seed: int | None = None) -> list[Flat]:
        """Returns n valid configurations that differ when resolved. Raises ConfigError when there are fewer."""
        drawn = list(islice(chain.from_iterable(self._blocks(seed)), n))
        self._check_count(len(drawn), n)
        return drawn

    def grid(self) -> list[Flat]:
        """Returns all valid configurations. Raises ConfigError when a range has no steps or there are too many."""
        problems = [sentence for _, sentence in grid_problems(self.varying)]
        if problems:
            raise ConfigError(problems, str(self.path))
        enumerated = replace(self, search=replace(self.search, method="grid"))
        return list(chain.from_iterable(enumerated._blocks(0)))

    def trials(
        self, trials: int | None = None, seed: int | None = None, overrides: Mapping[str, object] | None = None
    ) -> list[Flat]:
        """Returns what a search runs, in order: draws, each with all points of the grids, each with its replicates.

        Overrides win over the file, conditions and ties included. Raises ConfigError.
        """
        space = self.fixed(overrides) if overrides else self
        wanted = self.search.trials if trials is None else trials
        if wanted is not None and wanted < 1:
            raise ConfigError(f"search.trials: must be at least 1, but got {wanted}", str(self.path))
        seed = self.search.seed if seed is None else seed
        blocks = list(islice(space._blocks(seed), wanted))
        if wanted is not None and self.search.method != "grid":
            space._check_count(len(blocks), wanted)
        own = {dimension.key for dimension in space.dimensions}
        result = []
        for flat, replicate in product(chain.from_iterable(blocks), range(self.search.replicates)):
            ours: Flat = {"train.max_steps": self.scheduler.max_steps, "train.seed": seed + replicate}
            result.append(_copy(flat) | {key: value for key, value in ours.items() if key not in own})
        return result

    def fixed(self, overrides: Mapping[str, object]) -> "Space":
        """Returns the space with some keys fixed; the others are drawn as before. Raises ConfigError."""
        values, problems = dict[str, object](), list[str]()
        for key, value in overrides.items():
            try:
                values[key] = typed(key, value, self.models)
            except ValueError as problem:
                problems.append(str(problem))
        if "train.seed" in values and self.search.replicates > 1:
            problems.append("train.seed: cannot be fixed, because replicates differ by it")
        kept = [d for d in self.dimensions if d.key not in values and d.key.rpartition(".")[0] not in values]
        constants = [Dimension(key, Choice((value,))) for key, value in values.items()]  # they depend on nothing
        order = sorted([*constants, *kept], key=lambda dimension: dimension.key != "model")
        space = replace(self, dimensions=tuple(order))
        problems = problems or list(probe(space).values())
        if problems:
            raise ConfigError(problems, "hparams")
        return space

    def _flat(self, chosen: Mapping[str, object]) -> Flat:
        """Returns the partial configuration of the values chosen for the varying keys."""
        flat: Flat = {}
        keys = {dimension.key for dimension in self.dimensions}
        for dimension in self.dimensions:
            key, domain = dimension.key, dimension.domain
            if not _active(dimension, flat):
                continue
            if isinstance(domain, Tie):
                flat |= {name: value for name, value in _tied(key, domain.key, flat) if name == key or name not in keys}
            else:
                flat[key] = chosen[key] if dimension.varies else domain.at(0.0)
        return _copy(flat)

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
        patience = math.inf if is_grid else 1000 + 20 * min(math.prod(d.domain.size for d in self.varying), 2000)
        grids = [dimension for dimension in self.varying if dimension.grid and not is_grid]
        for point in self._points(self.search.seed if seed is None else seed):
            block = []
            for rest in _enumerated(grids):
                flat = self._flat(point | rest)
                complete = _resolved(flat)
                if complete is not None and complete not in seen:
                    seen.add(complete)
                    block.append(flat)
            if block:
                yield block
            misses = 0 if block else misses + 1
            if misses > patience:
                return

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


def _resolved(flat: Flat) -> Hparams | None:
    """Returns the complete configuration, or None when it is invalid."""
    values, problems = overlay(str(flat["model"]), flat)
    return None if problems or any(rule(values) for rule in RULES) else Hparams(str(flat["model"]), values)


def _active(dimension: Dimension, flat: Mapping[str, object]) -> bool:
    if dimension.key != "model" and flat["model"] not in owners(dimension.key):
        return False
    return all(value_of(parent, flat) in values for parent, values in dimension.when.items())


def value_of(key: str, flat: Mapping[str, object]) -> object:
    """Returns a key's value in a partial configuration, its default where it is not set; None when it has none."""
    if key in flat:
        return flat[key]
    model, (row, _, entry) = str(flat["model"]), key.rpartition(".")
    if model not in owners(key):
        return None
    if key in TABLE:
        return TABLE[key].default_for(model)
    spec = flat.get(row, TABLE[row].default_for(model))
    return spec.get(entry, ENTRIES[key].default) if isinstance(spec, dict) else None


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


def probe(space: Space) -> dict[str, str]:
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


def grid_problems(dimensions: Iterable[Dimension]) -> list[tuple[str, str]]:
    """Returns why the dimensions cannot be enumerated: keys and sentences."""
    sizes = {dimension.key: dimension.domain.size for dimension in dimensions}
    if math.prod(sizes.values()) <= LARGEST_GRID:
        return []
    endless = [(key, f"{key}: a grid needs steps; give step or choices") for key in sizes if sizes[key] == math.inf]
    law = f"a grid may have at most {LARGEST_GRID} points, but this one has {math.prod(sizes.values()):.0f}"
    return endless or [(max(sizes, key=lambda key: sizes[key]), f"search.method: {law}")]


def check_owner(key: str, models: Sequence[str]) -> Argument:
    """Returns the declaration of a key. Raises ValueError when it is unknown or belongs to none of the models."""
    argument = declared(key)
    if not set(owners(key)) & set(models):
        raise ValueError(f"{key} belongs to {' and '.join(owners(key))}, and this file searches {', '.join(models)}")
    return argument


def typed(key: str, value: object, models: Sequence[str]) -> object:
    """Returns a key's value in its kind. Raises ValueError with whole sentences; a spec may still lack arguments."""
    if key == "model":
        name = canonical_model(value)
        if name not in models:
            raise ValueError(f"model: {name} is not searched here; known: {', '.join(models)}")
        return name
    argument = check_owner(key, models)
    if argument.kind is not SPEC:
        try:
            return convert(argument, value)
        except ValueError as problem:
            raise ValueError(f"{key}: {problem}") from None
    if not isinstance(value, Mapping):
        raise ValueError(f"{key}: must be {SPEC.value}, but got {shown(value)}")
    spec, problems = check_spec(key, dict(value))
    if problems:
        raise ValueError("; ".join(sentence for _, sentence in problems))
    return spec


def load_space(path: str | Path) -> Space:
    """Returns the space that a YAML file describes. Raises ConfigError with all its problems and their lines."""
    from s2s_search.space_files import read_space

    return read_space(Path(path))
