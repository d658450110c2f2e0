"""A search space: a function from the unit cube to configurations.

docs/search_spaces.md describes the file, and `load_space` reads and checks it. These are the ways
through a space:

    space.yaml ── load_space ──> Space ── fixed(overrides) ──> Space with constants
                                   │
                                   ├── at(u)                  one point of the unit cube
                                   ├── chosen(named)          named values, and defaults elsewhere
                                   ├── configuration(choose)  one point, value by value
                                   ├── draw(n, seed)          n random points, no two alike
                                   ├── grid()                 all points
                                   └── trials(n, seed)        what a search runs

`trials` takes draws or the grid, as the file says, and adds replicates, budgets and seeds. Points
that are invalid or break a constraint are left out, except by `at` and `configuration`.

All of them call `configuration`, which leaves out keys whose conditions do not hold, and copies
tied values. The result is a partial configuration: `hparams.resolve` adds the defaults. Where
results decide which configuration is next, methods/samplers.py calls `configuration`.
"""

import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, islice, product
from pathlib import Path

from s2s_search.corpus.load import load_corpus
from s2s_search.errors import ConfigError, shown
from s2s_search.hparams.configuration import Hparams, overlay, resolve
from s2s_search.hparams.model_size import count_parameters
from s2s_search.hparams.rules import RULES
from s2s_search.hparams.table import TABLE, owners, spec_classes
from s2s_search.metrics import Metric
from s2s_search.spaces.constraints import PARAMETERS, Constraint
from s2s_search.spaces.dimensions import Choice, Dimension, Flat, Tie, value_of
from s2s_search.spaces.draws import halton, uniform
from s2s_search.spaces.parameters import checked
from s2s_search.spaces.settings import (
    BUDGET,
    LEARNING,
    CheckpointSettings,
    Resources,
    Scheduler,
    SearchSettings,
)
from s2s_search.spaces.yaml_file import KeyPath, Problems

LEANING = 0.25  # the share of the draws that lean towards the priors


@dataclass(frozen=True)
class Space:
    """What is searched, and how. Each dimension comes after the dimensions that it depends on."""

    path: Path
    text: str  # the content of the file
    name: str
    models: tuple[str, ...]
    corpus: dict[str, object]
    metric: Metric
    search: SearchSettings
    scheduler: Scheduler
    resources: Resources
    dimensions: tuple[Dimension, ...]
    checkpoints: CheckpointSettings = field(default_factory=CheckpointSettings)
    further: tuple[Metric, ...] = ()  # objectives beside the metric
    constraints: tuple[Constraint, ...] = ()
    # The configurations that are run before all draws: the values that each of them names.
    first: tuple[Flat, ...] = ()
    # True after `fixed`: the space may hold fewer configurations than the file asks for.
    is_fixed: bool = False
    # The line of each key path of the file, for messages.
    lines: Mapping[KeyPath, int] = field(default_factory=dict, compare=False, repr=False)

    @property
    def objectives(self) -> tuple[Metric, ...]:
        """Returns what tpe optimizes: the metric and the further objectives."""
        return (self.metric, *self.further)

    def line(self, key_path: KeyPath) -> int:
        """Returns the line of a value of the file, or of a value around it; 0 for neither."""
        while key_path and key_path not in self.lines:
            key_path = key_path[:-1]
        return self.lines.get(key_path, 0) if key_path else 0

    @cached_property
    def varying(self) -> tuple[Dimension, ...]:
        """Returns the dimensions with more than one value."""
        return tuple(dimension for dimension in self.dimensions if dimension.varies)

    @property
    def searched(self) -> tuple[str, ...]:
        """Returns the keys of the varying dimensions, with "model" when there are several models.

        Tied keys are not among them, because they follow from others.
        """
        return tuple(dimension.key for dimension in self.varying)

    @property
    def learner(self) -> str | None:
        """Returns what chooses configurations by earlier results (tpe, gp, freeze_thaw), if any."""
        if self.search.method in LEARNING:
            return self.search.method
        return self.scheduler.name if self.scheduler.name == "freeze_thaw" else None

    @property
    def mutable(self) -> tuple[str, ...]:
        """Returns the searched keys that pbt changes: those that a checkpoint survives."""
        return tuple(key for key in self.searched if survives(key))

    @property
    def size(self) -> int:
        """Returns the number of coordinates that `at` takes."""
        return len(self.varying)

    @property
    def couplings(self) -> tuple[str, ...]:
        """Returns which parts of the file make drawn keys depend on each other."""
        found = ["constraints"] if self.constraints else []
        if any(dimension.prior for dimension in self.varying):
            found.append("priors")
        return tuple(found)

    def label(self, key: str, value: object) -> object:
        """Returns the label that the file gives to a value of a key, or the value itself."""
        for dimension in self.dimensions:
            if dimension.key == key and isinstance(dimension.domain, Choice):
                for label, labelled in dimension.domain.named.items():
                    if labelled == value:
                        return label
        return value

    def at(self, u: Sequence[float]) -> Flat:
        """Returns the configuration at a point, with one coordinate for each of `searched`."""
        if len(u) != self.size or not all(0 <= x <= 1 for x in u):
            raise ValueError(f"at needs {self.size} numbers from 0 to 1, but got {shown(u)}")
        return self.flat(_values_at(self.varying, u))

    def configuration(self, choose: Callable[[Dimension], object]) -> Flat:
        """Returns the partial configuration of the values that `choose` returns.

        `choose` is called for the varying dimensions that take part, each after the dimensions that
        it depends on.
        """
        flat: Flat = {}
        keys = {dimension.key for dimension in self.dimensions}
        for dimension in self.dimensions:
            key, domain = dimension.key, dimension.domain
            if not _active(dimension, flat):
                continue
            if isinstance(domain, Tie):
                for name, value in _tied(key, domain.key, flat).items():
                    if name == key or name not in keys:  # an entry of its own wins over a tied spec
                        flat[name] = value
            elif dimension.varies:
                flat[key] = choose(dimension)
            else:
                flat[key] = domain.at(0.0)
        return _copy(flat)

    def chosen(self, named: Mapping[str, object]) -> Flat:
        """Returns the configuration with given values of some varying keys.

        Every other varying key has its default, or what the space has nearest to it: the nearest
        number, else the first value of a choice, else the middle of a range.
        """
        known: Flat = {}
        for dimension in self.dimensions:
            if isinstance(dimension.domain, Choice) and not dimension.varies:
                known[dimension.key] = dimension.domain.values[0]

        def choose(dimension: Dimension) -> object:
            key, domain = dimension.key, dimension.domain
            assert not isinstance(domain, Tie)
            if key in named:
                known[key] = named[key]
            else:
                known[key] = domain.nearest(None if key == "model" else value_of(key, known))
            return known[key]

        return self.configuration(choose)

    def crossed(self, point: Flat, made: Callable[[Flat], Flat]) -> Iterator[Flat]:
        """Yields the configurations of a point: with grids, one for each point of the grids."""
        is_grid = self.search.method == "grid"
        grids = [dimension for dimension in self.varying if dimension.grid and not is_grid]
        for rest in enumerated(grids):
            yield made(point | rest)

    @cached_property
    def vocabulary_sizes(self) -> tuple[int, int]:
        """Returns the sizes of the corpus's vocabularies, which the size of a model depends on.

        Raises:
            ConfigError: the corpus cannot be read.
        """
        corpus = load_corpus(self.corpus)
        return len(corpus.source_vocab), len(corpus.target_vocab)

    def complete(self, flat: Flat) -> Hparams | None:
        """Returns the complete configuration; None when it is invalid or breaks a constraint."""
        complete = completed(flat)
        if complete is None or any(self.broken(flat, complete)):
            return None
        return complete

    def broken(self, flat: Flat, complete: Hparams) -> list[str | None]:
        """Returns for each constraint what breaks it in a valid configuration, None if it holds."""

        def number(name: str) -> float | None:
            value = self._value(name, flat, complete)
            return float(value) if isinstance(value, int | float) else None

        return [constraint.broken(number) for constraint in self.constraints]

    def _value(self, name: str, flat: Flat, complete: Hparams) -> object:
        """Returns the value of a side of a constraint; None where it takes no part."""
        if name == PARAMETERS:
            return count_parameters(complete, *self.vocabulary_sizes)
        keys = {dimension.key for dimension in self.dimensions}
        row, _, entry = name.rpartition(".")
        if name not in flat and (name in keys or (row in keys and row not in flat)):
            return None
        if name in BUDGET:
            return self.budgeted(flat, self.search.seed)[name]
        if name in TABLE:
            return complete.get(name)
        spec = complete[row]
        for argument in spec_classes(row)[spec["class"]]:
            if argument.name == entry:
                return spec.get(entry, argument.default)
        return None

    def budgeted(self, flat: Flat, seed: int) -> Flat:
        """Returns a configuration with the budget and seed that the space does not set itself."""
        own = {dimension.key for dimension in self.dimensions}
        budget: Flat = dict(zip(BUDGET, (self.scheduler.max_steps, seed), strict=True))
        return _copy(flat) | {key: value for key, value in budget.items() if key not in own}

    def log_prior(self, flat: Mapping[str, object]) -> float:
        """Returns the log of how much more likely a configuration is drawn than without priors.

        It is 0 without priors, and never below log(3/4), because three of four draws do not lean.

        Raises:
            ValueError: the space does not contain a value.
        """
        ratio = 1.0
        for dimension in self.varying:
            if dimension.prior is not None and dimension.key in flat:
                assert not isinstance(dimension.domain, Tie)
                ratio *= dimension.prior.ratio(dimension.domain, flat[dimension.key])
        return math.log(1 - LEANING + LEANING * ratio)

    def draw(self, n: int, seed: int | None = None) -> list[Flat]:
        """Returns n valid configurations, no two of which are equal when resolved.

        Raises:
            ConfigError: there are fewer.
        """
        drawn = list(islice(chain.from_iterable(self._blocks(seed)), n))
        self._check_count(len(drawn), n)
        return drawn

    def grid(self) -> list[Flat]:
        """Returns all valid configurations.

        Raises:
            ConfigError: a range has no steps, or there are too many points.
        """
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
        """Returns the configurations that a search runs, in order, each with its budget and seed.

        Those of `first` come before the draws. Each draw is combined with every point of the grids,
        and each combination is repeated once for each replicate. For tpe, which chooses when
        results are known, they are the random draws with which it begins.

        Args:
            trials: the number of draws, those of `first` included; None takes the number of the
                file.
            seed: the seed of the draws; None takes the seed of the file.
            overrides: values that win over the file, with its conditions and ties. With overrides
                there may be fewer configurations than the file asks for.

        Raises:
            ConfigError: an override is wrong, or there are fewer configurations than wanted.
        """
        space = self.fixed(overrides) if overrides else self
        wanted = self.search.trials if trials is None else trials
        if wanted is not None and wanted < 1:
            raise ConfigError(
                f"search.trials: must be at least 1, but got {wanted}", str(self.path)
            )
        seed = self.search.seed if seed is None else seed
        blocks = list(islice(space._blocks(seed, space.first), wanted))
        is_demanded = trials is not None or not space.is_fixed
        if wanted is not None and is_demanded and self.search.method != "grid":
            space._check_count(len(blocks), wanted)
        elif not blocks:
            law = "satisfies the constraints" if self.constraints else "is valid"
            problem = f"search.trials: no configuration that {law} was found"
            raise ConfigError(problem, str(self.path))
        each = product(chain.from_iterable(blocks), range(self.search.replicates))
        return [space.budgeted(flat, seed + replicate) for flat, replicate in each]

    def fixed(self, overrides: Mapping[str, object]) -> "Space":
        """Returns the space with some keys fixed to values; the other keys are drawn as before.

        Raises:
            ConfigError: with all wrong keys and values, or when no configuration is valid.
        """
        problems = Problems("--hparams")
        values: dict[str, object] = {}
        for key, value in overrides.items():
            with problems.at():
                values[key] = checked(key, value, self.models)
        if "train.seed" in values and self.search.replicates > 1:
            problems.add((), "train.seed: cannot be fixed, because replicates differ by it")
        # Constants depend on nothing, so they come first, and the model before them.
        dimensions = [Dimension(key, Choice((value,))) for key, value in values.items()]
        for dimension in self.dimensions:
            spec = dimension.key.rpartition(".")[0]
            if dimension.key not in values and spec not in values:
                dimensions.append(dimension)
        dimensions.sort(key=lambda dimension: dimension.key != "model")
        space = replace(self, dimensions=tuple(dimensions), is_fixed=True)
        if not problems.found:
            for sentence in draw_problems(space).values():
                problems.add((), sentence)
        problems.fail()
        return space

    def flat(self, chosen: Mapping[str, object]) -> Flat:
        """Returns the configuration with the given value of each varying key."""
        return self.configuration(lambda dimension: chosen[dimension.key])

    def _points(self, seed: int | str, leaning: bool = False) -> Iterator[Flat]:
        """Yields values of the varying keys outside grids, without end.

        For a grid search it yields all values of all varying keys. Leaning points lie near the
        priors.
        """
        if self.search.method == "grid":
            yield from enumerated(self.varying)
            return
        free = [dimension for dimension in self.varying if not dimension.grid]
        cube = halton if self.search.method == "halton" else uniform
        for u in cube([dimension.key for dimension in free], seed):
            point = _values_at(free, u)
            if leaning:
                for dimension, x in zip(free, u, strict=True):
                    if dimension.prior is not None and not isinstance(dimension.domain, Tie):
                        point[dimension.key] = dimension.prior.at(dimension.domain, x)
            yield point

    def _blocks(self, seed: int | None, first: Sequence[Flat] = ()) -> Iterator[list[Flat]]:
        """Yields the new valid configurations of each point, where it has any.

        A point has one configuration, or with grids one for each point of the grids. The blocks end
        when many points in a row had nothing new.

        Args:
            seed: the seed of the draws; None takes the seed of the file.
            first: the values that are named by the configurations before all draws.
        """
        seed = self.search.seed if seed is None else seed
        seen = set[Hparams]()
        yield from self._new_blocks((self.crossed(named, self.chosen) for named in first), seen)
        has_priors = any(dimension.prior for dimension in self.varying)
        if has_priors and self.search.method != "grid":
            yield from self._mixed_blocks(seed, seen)
        else:
            yield from self._new_blocks(self._crossed_points(self._points(seed)), seen)

    def _mixed_blocks(self, seed: int, seen: set[Hparams]) -> Iterator[list[Flat]]:
        """Yields blocks of which about one in four leans towards the priors.

        The others are those without priors, each at its number. Where one kind has nothing new
        left, the other kind goes on.
        """
        plain = self._new_blocks(self._crossed_points(self._points(seed)), set())
        points = self._points(f"{seed} prior", leaning=True)
        leaning = self._new_blocks(self._crossed_points(points), seen)
        rng = random.Random(f"{seed} prior")
        left = []
        for block in plain:
            kinds = [self._new_blocks([block], seen), leaning]
            if rng.random() < LEANING:
                kinds.reverse()
                left.append(block)
            new = next(chain.from_iterable(kinds), None)
            if new is not None:
                yield new
        yield from self._new_blocks(left, seen)

    def _crossed_points(self, points: Iterable[Flat]) -> Iterator[Iterator[Flat]]:
        for point in points:
            yield self.crossed(point, self.flat)

    def _new_blocks(
        self, blocks: Iterable[Iterable[Flat]], seen: set[Hparams]
    ) -> Iterator[list[Flat]]:
        """Yields of each block what is valid and new, where there is any, and adds it to `seen`."""
        misses = 0
        sizes = [d.domain.size for d in self.varying if self._can_take_part(d)]
        patience = math.inf
        if self.search.method != "grid":
            patience = 1000 + 20 * min(math.prod(sizes), 2000)
        for block in blocks:
            new = []
            for flat in block:
                complete = self.complete(flat)
                if complete is not None and complete not in seen:
                    seen.add(complete)
                    new.append(flat)
            if new:
                yield new
            misses = 0 if new else misses + 1
            if misses > patience:
                return

    def _can_take_part(self, dimension: Dimension) -> bool:
        """Returns False when a key that never varies breaks a condition of the dimension."""
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
            law = f"{wanted} different configurations were asked for"
            fact = f"only {found} valid ones were found"
            if self.constraints:
                fact = f"only {found} valid ones that satisfy the constraints were found"
            raise ConfigError(f"search.trials: {law}, but {fact}", str(self.path))


def _values_at(dimensions: Sequence[Dimension], u: Sequence[float]) -> Flat:
    """Returns the value of each dimension at its coordinate."""
    return {
        d.key: d.domain.at(x)
        for d, x in zip(dimensions, u, strict=True)
        if not isinstance(d.domain, Tie)
    }


def enumerated(dimensions: Sequence[Dimension]) -> Iterator[Flat]:
    """Yields all combinations of values of the dimensions; of no dimension, one empty dict."""
    points = [d.domain.points() for d in dimensions if not isinstance(d.domain, Tie)]
    keys = [dimension.key for dimension in dimensions]
    for values in product(*points):
        yield dict(zip(keys, values, strict=True))


def _copy(flat: Flat) -> Flat:
    """Returns a copy that shares no spec with the original."""
    return {key: dict(value) if isinstance(value, dict) else value for key, value in flat.items()}


def completed(flat: Mapping[str, object]) -> Hparams | None:
    """Returns the complete configuration, or None when it is invalid."""
    try:
        return resolve(str(flat.get("model")), flat)
    except ConfigError:
        return None


def survives(key: str) -> bool:
    """Returns whether a checkpoint stays usable when the hyperparameter changes.

    Such a key decides neither the size of a tensor nor which state an optimizer has.
    """
    of_optimizer = key.startswith("optimizer.") and key != "optimizer.name"
    return of_optimizer or key.endswith("keep_prob") or key == "train.label_smoothing"


def _active(dimension: Dimension, flat: Mapping[str, object]) -> bool:
    """Returns whether a dimension takes part: the model has the key, and its conditions hold."""
    if dimension.key != "model" and flat["model"] not in owners(dimension.key):
        return False
    return all(value_of(parent, flat) in values for parent, values in dimension.when.items())


def _tied(key: str, source: str, flat: Mapping[str, object]) -> Flat:
    """Returns the values of a tied key and of its entries, as the source has them."""
    tied: Flat = {}
    row, _, entry = source.rpartition(".")
    spec = flat.get(row)
    if source not in flat and isinstance(spec, dict) and entry in spec:
        tied[key] = spec[entry]
    for name, value in flat.items():
        if name == source or name.startswith(source + "."):
            tied[key + name[len(source) :]] = value
    return tied


LARGEST_GRID = 100_000  # the largest number of points


def grid_problems(dimensions: Iterable[Dimension]) -> list[tuple[str, str]]:
    """Returns why the dimensions cannot be enumerated, as pairs of a key and a sentence."""
    sizes = {dimension.key: dimension.domain.size for dimension in dimensions}
    points = math.prod(sizes.values())
    if points <= LARGEST_GRID:
        return []
    endless = [key for key in sizes if sizes[key] == math.inf]
    if endless:
        return [(key, f"{key}: a grid needs steps; give step or choices") for key in endless]
    largest = max(sizes, key=lambda key: sizes[key])
    law = f"a grid may have at most {LARGEST_GRID} points, but this one has {points:.0f}"
    return [(largest, f"search.method: {law}")]


def draw_problems(space: Space) -> dict[str, str]:
    """Returns the problems of configurations that are drawn to try the space out, by key.

    These are all problems of single values that a draw has. Rules between keys may fail for some
    draws; when they fail for all draws, the key "" has the sentence of the last one.
    """
    found: dict[str, str] = {}
    reasons: list[str] = []
    is_valid = False
    for draws, u in enumerate(islice(uniform(space.searched, 0), 2000 if space.varying else 1)):
        if draws >= 200 and (is_valid or found):
            break
        flat = space.at(u)
        values, problems = overlay(str(flat["model"]), flat)
        if problems:
            found = {**dict(problems), **found}
            continue
        reasons = [sentence for rule in RULES for sentence in rule(values)]
        is_valid = is_valid or not reasons
    if found or is_valid:
        return found
    many = "no valid configuration among 2000 draws: " if space.varying else ""
    return {"": many + reasons[0]}
