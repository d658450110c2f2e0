"""Search spaces: a YAML file becomes a function from the unit cube to configurations.

`load_space` reads and checks the file; docs/search_spaces.md is its grammar. `Space.at(u)` is the function. Random,
quasi-random and grid search are three ways to choose `u`; `Space.trials()` is what they run, in order. Where results
decide what is tried next, samplers.py does.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, islice, product
from pathlib import Path

from s2s_search.errors import ConfigError, shown
from s2s_search.hparams.configuration import Hparams, overlay, resolve
from s2s_search.hparams.rules import RULES
from s2s_search.hparams.table import owners
from s2s_search.metrics import Metric
from s2s_search.spaces.dimensions import Choice, Dimension, Flat, Tie, checked, value_of
from s2s_search.spaces.draws import halton, uniform
from s2s_search.spaces.settings import BUDGET, Checkpoints, Resources, Scheduler, Search
from s2s_search.spaces.yaml_file import (
    Place,
    Report,
)


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
    checkpoints: Checkpoints = field(default_factory=Checkpoints)
    further: tuple[Metric, ...] = ()  # objectives beside the metric
    is_fixed: bool = False  # by overrides: it may hold fewer configurations than the file asks for
    lines: Mapping[Place, int] = field(
        default_factory=dict, compare=False, repr=False
    )  # of the file, by place

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
        domains = [
            d.domain for d in self.dimensions if d.key == key and isinstance(d.domain, Choice)
        ]
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
                flat |= {
                    name: value
                    for name, value in _tied(key, domain.key, flat)
                    if name == key or name not in keys
                }
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
        problems = [sentence for _, sentence in grid_problems(self.varying)]
        if problems:
            raise ConfigError(problems, str(self.path))
        enumerated = replace(self, search=replace(self.search, method="grid"))
        return list(chain.from_iterable(enumerated._blocks(0)))

    def trials(
        self,
        trials: int | None = None,
        seed: int | None = None,
        overrides: Mapping[str, object] | None = None,
    ) -> list[Flat]:
        """Returns what a search runs, in order: draws, each with all points of the grids, each with its replicates.

        For tpe, which chooses as results come, these are random draws: what it begins with, and what the space holds.
        Overrides win over the file, conditions and ties included; where they leave fewer configurations than the file
        asks for, these are all. Raises ConfigError.
        """
        space = self.fixed(overrides) if overrides else self
        wanted = self.search.trials if trials is None else trials
        if wanted is not None and wanted < 1:
            raise ConfigError(
                f"search.trials: must be at least 1, but got {wanted}", str(self.path)
            )
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
        kept = [
            d
            for d in self.dimensions
            if d.key not in values and d.key.rpartition(".")[0] not in values
        ]
        constants = [
            Dimension(key, Choice((value,))) for key, value in values.items()
        ]  # they depend on nothing
        order = sorted([*constants, *kept], key=lambda dimension: dimension.key != "model")
        space = replace(self, dimensions=tuple(order), is_fixed=True)
        for sentence in {} if report.problems else draw_problems(space).values():
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
        cube = halton if self.search.method == "halton" else uniform
        yield from (_values_at(free, u) for u in cube([dimension.key for dimension in free], seed))

    def _blocks(self, seed: int | None) -> Iterator[list[Flat]]:
        """Yields for each point its valid configurations, one or a grid, that were not met before, if it has any.

        Ends when nothing new was found for long.
        """
        is_grid, seen, misses = self.search.method == "grid", set[Hparams](), 0
        size = math.prod(
            dimension.domain.size for dimension in self.varying if self._can_take_part(dimension)
        )
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
            d.key: d.domain.values[0]
            for d in self.dimensions
            if isinstance(d.domain, Choice) and not d.varies
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
    return {
        d.key: d.domain.at(x)
        for d, x in zip(dimensions, u, strict=True)
        if not isinstance(d.domain, Tie)
    }


def _enumerated(dimensions: Sequence[Dimension]) -> Iterator[Flat]:
    """Yields all choices for the dimensions' keys; one, of no key, when there are none."""
    points = [d.domain.points() for d in dimensions if not isinstance(d.domain, Tie)]
    yield from (
        dict(zip([d.key for d in dimensions], values, strict=True)) for values in product(*points)
    )


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


LARGEST_GRID = 100_000


def grid_problems(dimensions: Iterable[Dimension]) -> list[tuple[str, str]]:
    """Returns why the dimensions cannot be enumerated: keys and sentences."""
    sizes = {dimension.key: dimension.domain.size for dimension in dimensions}
    if math.prod(sizes.values()) <= LARGEST_GRID:
        return []
    endless = [
        (key, f"{key}: a grid needs steps; give step or choices")
        for key in sizes
        if sizes[key] == math.inf
    ]
    law = f"a grid may have at most {LARGEST_GRID} points, but this one has {math.prod(sizes.values()):.0f}"
    return endless or [(max(sizes, key=lambda key: sizes[key]), f"search.method: {law}")]


def draw_problems(space: Space) -> dict[str, str]:
    """Tries the space out; returns, by key, problems that no rule between keys explains, or that all draws have."""
    found: dict[str, str] = {}
    is_valid, reasons = False, list[str]()
    for draws, u in enumerate(islice(uniform(space.searched, 0), 2000 if space.varying else 1)):
        if draws >= 200 and (is_valid or found):
            break
        flat = space.at(u)
        values, problems = overlay(str(flat["model"]), flat)
        found = {**dict(problems), **found}
        reasons = [] if problems else [sentence for rule in RULES for sentence in rule(values)]
        is_valid = is_valid or not (problems or reasons)
    many = "no valid configuration among 2000 draws: " if space.varying else ""
    return found if found or is_valid else {"": many + reasons[0]}
