"""Search spaces: a YAML file becomes a function from the unit cube to configurations.

`load_space` reads and checks the file; docs/search_spaces.md is its grammar. `Space.at(u)` is the function. Random,
quasi-random and grid search are three ways to choose `u`; `Space.trials()` is what a search runs, in order.
"""

import math
import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, count, islice, product
from pathlib import Path
from typing import Any

import yaml

from s2s_search.hparams import (
    BOOL,
    ENTRIES,
    FLOAT,
    INT,
    MODELS,
    NAME,
    REQUIRED,
    RULES,
    SPEC,
    TABLE,
    Argument,
    ConfigError,
    Hparams,
    canonical_model,
    check_spec,
    convert,
    declared,
    nearest,
    overlay,
    owners,
    shown,
)

Flat = dict[str, object]  # a partial configuration by dotted names, "model" among them


# ------------------------------------------------------------------------------------------ what a key may be


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
        problems = [sentence for _, sentence in _grid_problems(self.varying)]
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
        report, values = _Report("hparams"), dict[str, object]()
        for key, value in overrides.items():
            with report.at():
                values[key] = _typed(key, value, self.models)
        if "train.seed" in values and self.search.replicates > 1:
            report.add((), "train.seed: cannot be fixed, because replicates differ by it")
        kept = [d for d in self.dimensions if d.key not in values and d.key.rpartition(".")[0] not in values]
        constants = [Dimension(key, Choice((value,))) for key, value in values.items()]  # they depend on nothing
        order = sorted([*constants, *kept], key=lambda dimension: dimension.key != "model")
        space = replace(self, dimensions=tuple(order))
        for sentence in {} if report.problems else _probe(space).values():
            report.add((), sentence)
        report.fail()
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


# --------------------------------------------------------------------------------------------------- the file

METRICS = {
    "dev.loss": "minimize",
    "dev.perplexity": "minimize",
    "dev.token_accuracy": "maximize",
    "dev.error_rate": "minimize",
    "dev.word_error_rate": "minimize",
    "dev.bleu": "maximize",
}
SECTIONS: dict[str, tuple[Argument, ...]] = {
    "metric": (
        Argument("name", NAME, "dev.loss", choices=tuple(METRICS)),
        Argument("goal", NAME, None, choices=("minimize", "maximize")),
    ),
    "search": (
        Argument("method", NAME, "random", choices=("random", "halton", "grid")),
        Argument("trials", INT, None, minimum=1, maximum=1_000_000),
        Argument("seed", INT, 0, minimum=0, maximum=2**32 - 1),
        Argument("replicates", INT, 1, minimum=1, maximum=1000),
    ),
    "scheduler": (
        Argument("name", NAME, "asha", choices=("asha", "none")),
        Argument("max_steps", INT, None, minimum=1),
        Argument("grace_steps", INT, None, minimum=1),
        Argument("reduction_factor", FLOAT, 3.0, above=1),
    ),
    "resources": (Argument("cpu", FLOAT, 1.0, above=0), Argument("gpu", FLOAT, 0.0, minimum=0)),
}
PARTS = ("model", "corpus", *SECTIONS, "parameters")
OPTIONS = ("choices", "grid", "same_as", "min", "max", "log", "step", "when", "role")
ROLE = Argument("role", NAME, None, choices=("scientific", "nuisance"))
MOST_STEPS = 10**16  # of a range: whole numbers are exact up to there
LARGEST_FILE = 200_000  # bytes, and values with aliases followed
SCALARS = {
    f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "timestamp", "merge", "value")
}
Place = tuple[str | int, ...]  # of a value in the file: keys and positions in lists


def load_space(path: str | Path) -> Space:
    """Returns the space that a YAML file describes. Raises ConfigError with all its problems and their lines."""
    path, report = Path(path), _Report(str(path))
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_FILE + 1)
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot be read: {getattr(error, 'strerror', None) or error}", str(path)) from None
    if len(data) > LARGEST_FILE:
        raise ConfigError(f"is larger than {LARGEST_FILE} bytes; that is no search space", str(path))
    try:
        text = data.decode("utf-8")
        tree = _tree(text, report)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"line {line}: not UTF-8: byte 0x{data[error.start]:02x}", str(path)) from None
    except RecursionError:
        raise ConfigError("broken YAML: nested too deeply", str(path)) from None
    return _space(path, text, tree, report)


class _Report:
    """Collects problems, each with the line of its place in the file, instead of stopping at the first."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.lines: dict[Place, int] = {}
        self.problems: list[tuple[int, str]] = []

    def add(self, place: Place, problem: str) -> None:
        while place and place not in self.lines:
            place = place[:-1]
        self.problems.append((self.lines.get(place, 0), problem))

    @contextmanager
    def at(self, *place: str | int, label: str = "") -> Iterator[None]:
        """Makes a ValueError a problem of the place, which the code after it must live with."""
        try:
            yield
        except ValueError as problem:
            self.add(place, f"{label}{problem}")

    def fail(self) -> None:
        """Raises ConfigError when there are problems."""
        if self.problems:
            numbered = sorted(dict.fromkeys(self.problems), key=lambda problem: problem[0])
            width = len(f"line {numbered[-1][0]}:") * (len(numbered) > 1)
            lines = [f"{f'line {n}:':<{width}} {text}" if n else text for n, text in numbered]
            raise ConfigError(lines, self.where)


def _tree(text: str, report: _Report) -> object:
    """Returns the file's values as dicts, lists, text and None, their lines in the report. Raises ConfigError.

    Scalars stay text: the table knows their kinds, where YAML would guess (1e-4 is text to it, and no is false).
    """
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        size = 0 if node is None else _expanded(node, {})
        if size > LARGEST_FILE:
            problem = "an alias stands inside what it stands for" if size == math.inf else "too many values by aliases"
            raise ConfigError(f"broken YAML: {problem}", report.where)
        return None if node is None else _plain(node, (), report)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        hint = "; indent with spaces, not tabs" if "\\t" in str(error.problem) else ""
        what = " ".join(part for part in (error.context, error.problem) if part)
        problem = f"line {mark.line + 1 if mark else 1}: broken YAML: {what}{hint}"
    except yaml.reader.ReaderError as error:
        character = shown(text[error.position])
        problem = f"line {text.count(chr(10), 0, error.position) + 1}: broken YAML: character {character}"
    raise ConfigError(problem, report.where)


def _expanded(node: yaml.Node, sizes: dict[int, float]) -> float:
    """Returns the number of nodes from a node on, aliases followed; infinite when it contains itself."""
    if id(node) not in sizes:
        sizes[id(node)] = math.inf  # until its children are counted
        children = node.value if isinstance(node, yaml.CollectionNode) else ()
        nodes = chain.from_iterable(children) if isinstance(node, yaml.MappingNode) else children
        sizes[id(node)] = 1 + sum(_expanded(child, sizes) for child in nodes)
    return sizes[id(node)]


def _plain(node: yaml.Node, place: Place, report: _Report) -> object:
    report.lines.setdefault(place, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, (*place, index), report) for index, item in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        result: dict[str, object] = {}
        for key, value in node.value:
            name, line = str(key.value) if isinstance(key, yaml.ScalarNode) else "", key.start_mark.line + 1
            if not name or name in result:
                problem = f"{name} is given twice, first in line {report.lines[(*place, name)]}" if name else ""
                report.problems.append((line, problem or "a key must be a name"))
                continue
            report.lines[(*place, name)] = line
            result[name] = _plain(value, (*place, name), report)
        return result
    if node.tag not in SCALARS:
        report.add(place, f"unknown tag {shown(node.tag)}")
    return None if node.tag == "tag:yaml.org,2002:null" else str(node.value)


def _described(value: object) -> str:
    words = {dict: "a mapping", list: "a list", type(None): "nothing"}
    return words.get(type(value)) or shown(value)


def _mapping(value: object, place: Place, report: _Report) -> dict[str, object]:
    """Returns a mapping; reports anything else."""
    if isinstance(value, dict):
        return value
    label = ".".join(str(part) for part in (place[1:] if place[1:] and place[0] == "parameters" else place))
    label = label or f"the file (sections: {', '.join(PARTS)})"
    report.add(place, f"{label}: must be a mapping, but got {_described(value)}")
    return {}


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def _space(path: Path, text: str, tree: object, report: _Report) -> Space:
    """Returns the space. Raises ConfigError with all problems of the file."""
    parts = _mapping(tree, (), report)
    for name in (name for name in parts if name not in PARTS):
        hint = "; it belongs under parameters:" if name in TABLE or name in ENTRIES else nearest(name, PARTS)
        report.add((name,), f"unknown section {shown(name)}{hint}")
    models = _models(parts, report)
    corpus = _corpus(parts.get("corpus", {"name": "cmudict"}), path.absolute().parent, report)
    metric, search, scheduler, resources = (_section(name, parts.get(name, {}), report) for name in SECTIONS)
    if metric["goal"] not in (None, METRICS[metric["name"]]):
        law = f"metric.goal: {metric['name']} can only be {METRICS[metric['name']]}d, but goal = {metric['goal']}"
        report.add(("metric", "goal"), law)
    if 1 < resources["gpu"] != int(resources["gpu"]):
        report.add(("resources", "gpu"), f"resources.gpu: must be whole above 1, but gpu = {resources['gpu']:g}")
    before = len(report.problems)
    dimensions = _dimensions(_mapping(parts.get("parameters", {}), ("parameters",), report), models, report)
    can_be_tried = len(report.problems) == before
    keys = [dimension.key for dimension in dimensions]
    if search["replicates"] > 1 and "train.seed" in keys:
        report.add(("parameters", "train.seed"), "train.seed: cannot be set, because search.replicates differ by it")
    space = Space(
        path,
        text,
        path.stem,
        models,
        corpus,
        Metric(metric["name"], METRICS[metric["name"]]),
        Search(search["method"], _trials(search, dimensions, report), search["seed"], search["replicates"]),
        _scheduler(scheduler, dimensions, report),
        Resources(resources["cpu"], resources["gpu"]),
        dimensions,
    )
    for key, sentence in _probe(space).items() if can_be_tried else ():
        near = [k for k in keys if key and (f"{k}.".startswith(f"{key}.") or f"{key}.".startswith(f"{k}."))]
        report.add(("parameters", *near[:1]), sentence)
    report.fail()
    return space


def _models(parts: Mapping[str, object], report: _Report) -> tuple[str, ...]:
    models = []
    for value in _listed(parts.get("model", [])):
        with report.at("model"):
            models.append(canonical_model(value))
    if len(set(models)) < len(models):
        report.add(("model",), "model: a model is listed twice")
    if not _listed(parts.get("model", [])):
        report.add(("model",), f"model is missing; known: {', '.join(MODELS)}")
    return tuple(dict.fromkeys(models)) or MODELS


def _section(name: str, value: object, report: _Report) -> dict[str, Any]:
    """Returns the section's values in their kinds, defaults where it has none; all defaults when it has a problem."""
    arguments, before = {argument.name: argument for argument in SECTIONS[name]}, len(report.problems)
    defaults = {key: argument.default for key, argument in arguments.items()}
    values = dict(defaults)
    for key, given in _mapping(value, (name,), report).items():
        if key not in arguments:
            report.add((name, key), f"{name}: unknown key {shown(key)}{nearest(key, arguments)}")
            continue
        with report.at(name, key, label=f"{name}.{key}: "):
            values[key] = convert(arguments[key], given)
    return values if len(report.problems) == before else defaults


def _corpus(value: object, folder: Path, report: _Report) -> dict[str, object]:
    """Returns the corpus section, its paths absolute: in the file they start from the file's own folder."""
    from s2s_search.corpus import check_corpus

    corpus = _mapping(value, ("corpus",), report)
    for key, given in corpus.items():
        values = [int(v) if isinstance(v, str) and re.fullmatch("-?[0-9]{1,15}", v) else v for v in _listed(given)]
        if "name" not in corpus and key in ("train", "dev", "test", "source_vocab", "target_vocab"):
            values = [str(folder / v) if isinstance(v, str) and v else v for v in values]
        corpus[key] = values if isinstance(given, list) else values[0]
    for key, problem in check_corpus(corpus) if isinstance(value, dict) else ():
        report.add(("corpus", key), f"corpus.{key}: {problem}" if key else f"corpus: {problem}")
    return corpus


def _trials(search: Mapping[str, Any], dimensions: Sequence[Dimension], report: _Report) -> int | None:
    """Returns the number of draws: as given, else 16 or fewer; reports what cannot be enumerated, or drawn as often."""
    is_grid, given = search["method"] == "grid", search["trials"]
    for key, problem in _grid_problems(d for d in dimensions if d.grid or is_grid):
        report.add(("parameters", key), problem)
    size = math.prod(dimension.domain.size for dimension in dimensions if not dimension.grid)
    if given and given > size and not is_grid:
        law = f"draws must differ, but trials = {given} and there are {size:.0f} configurations"
        report.add(("search", "trials"), f"search.trials: {law}; method: grid runs each once")
    return given if is_grid or given else int(min(16, size))


def _scheduler(section: Mapping[str, Any], dimensions: Sequence[Dimension], report: _Report) -> Scheduler:
    """Returns the scheduler; without max_steps it takes the largest train.max_steps of the parameters."""
    steps, factor = section["max_steps"], section["reduction_factor"]
    ends: list[Any] = []
    for domain in (dimension.domain for dimension in dimensions if dimension.key == "train.max_steps"):
        ends += domain.values if isinstance(domain, Choice) else [domain.high] if isinstance(domain, Range) else []
    largest = max(ends, default=None)
    if largest and steps and largest > steps:
        problem = f"must be at most scheduler.max_steps = {steps}, but goes up to {largest}"
        report.add(("parameters", "train.max_steps"), f"train.max_steps: {problem}")
    default: Any = TABLE["train.max_steps"].default
    steps = steps or largest or default
    grace = section["grace_steps"] or max(1, int(steps / factor**2))
    if grace > steps:
        law = f"must be at most max_steps, but grace_steps = {grace} and max_steps = {steps}"
        report.add(("scheduler", "grace_steps"), f"scheduler.grace_steps: {law}")
    return Scheduler(section["name"], steps, grace, factor)


# ----------------------------------------------------------------------------------------------- its parameters


def _check_owner(key: str, models: Sequence[str]) -> Argument:
    """Returns the declaration of a key. Raises ValueError when it is unknown or belongs to none of the models."""
    argument = declared(key)
    if not set(owners(key)) & set(models):
        raise ValueError(f"{key} belongs to {' and '.join(owners(key))}, and this file searches {', '.join(models)}")
    return argument


def _typed(key: str, value: object, models: Sequence[str]) -> object:
    """Returns a key's value in its kind. Raises ValueError with whole sentences; a spec may still lack arguments."""
    if key == "model":
        name = canonical_model(value)
        if name not in models:
            raise ValueError(f"model: {name} is not searched here; known: {', '.join(models)}")
        return name
    argument = _check_owner(key, models)
    if argument.kind is not SPEC:
        try:
            return convert(argument, value)
        except ValueError as problem:
            raise ValueError(f"{key}: {problem}") from None
    if not isinstance(value, Mapping):
        raise ValueError(f"{key}: must be {SPEC.value}, but got {_described(value)}")
    spec, problems = check_spec(key, dict(value))
    if problems:
        raise ValueError("; ".join(sentence for _, sentence in problems))
    return spec


def _dimensions(parameters: Mapping[str, object], models: tuple[str, ...], report: _Report) -> tuple[Dimension, ...]:
    """Returns the dimensions, each after those that it depends on."""
    found, before = {"model": Dimension("model", Choice(models))}, len(report.problems)
    for key, value in parameters.items():
        with report.at("parameters", key):
            if key == "model":
                raise ValueError("model is a section of its own, beside parameters:")
            _check_owner(key, models)
            dimension = _dimension(key, value, models, report)
            if dimension:
                found[key] = dimension
    for key, value in parameters.items():
        if isinstance(value, dict) and "when" in value:
            place = ("parameters", key, "when")
            when = _conditions(_mapping(value["when"], place, report), place, found, models, report)
            found |= {key: replace(found[key], when=when)} if key in found else {}
    ordered = _ordered(found, report)
    if len(report.problems) == before:
        for dimension in ordered:
            _check_links(dimension, found, models, report)
    return ordered


def _dimension(key: str, value: object, models: Sequence[str], report: _Report) -> Dimension | None:
    """Returns what the file says of a key, conditions aside; None when that was reported. Raises ValueError."""
    place: Place = ("parameters", key)
    if not isinstance(value, dict) or (declared(key).kind is SPEC and "class" in value):
        choice = _choice(key, _listed(value), place, models, report)
        return Dimension(key, choice) if choice else None
    for name in (name for name in value if name not in OPTIONS):
        report.add((*place, name), f"{key}: unknown word {shown(name)}{nearest(name, OPTIONS)}")
    ways = [name for name in ("choices", "grid", "same_as") if name in value]
    ways += ["min and max"] * any(name in value for name in ("min", "max", "log", "step"))
    if len(ways) != 1:
        raise ValueError(
            f"{key}: needs one of choices, grid, same_as, or min and max, but has {' and '.join(ways) or 'none'}"
        )
    role: object = None
    with report.at(*place, "role", label=f"{key}: role: "):
        role = convert(ROLE, value.get("role"))
    if ways == ["same_as"]:
        domain: Choice | Range | Tie | None = _tie(key, value["same_as"], models)
    elif ways == ["min and max"]:
        domain = _range(key, value, models, report)
    else:
        domain = _choice(key, value[ways[0]], (*place, ways[0]), models, report)
    return Dimension(key, domain, role=str(role) if role else None, grid=ways == ["grid"]) if domain else None


def _tie(key: str, source: object, models: Sequence[str]) -> Tie:
    kind, other = declared(key).kind, _check_owner(str(source), models).kind
    if kind is not other:
        raise ValueError(f"{key}: same_as: {key} is {kind.value}, but {source} is {other.value}")
    return Tie(str(source))


def _choice(key: str, items: object, place: Place, models: Sequence[str], report: _Report) -> Choice | None:
    if not isinstance(items, list | dict):
        raise ValueError(f"{key}: {place[-1]} must be a list, or a mapping from labels, but got {_described(items)}")
    values: list[object] = []
    for name, item in items.items() if isinstance(items, dict) else enumerate(items):
        with report.at(*place, name):
            value = _typed(key, item, models)
            if value in values:
                raise ValueError(f"{key}: {shown(value)} is listed twice")
            values.append(value)
    if not items:
        raise ValueError(f"{key}: the list of choices is empty")
    return Choice(tuple(values), tuple(items) if isinstance(items, dict) else ()) if len(values) == len(items) else None


def _range(key: str, options: Mapping[str, object], models: Sequence[str], report: _Report) -> Range | None:
    kind, before = declared(key).kind, len(report.problems)
    if kind not in (INT, FLOAT):
        raise ValueError(f"{key}: min and max are for numbers, and this is {kind.value}")
    ends: dict[str, Any] = {}
    for name in ("min", "max"):
        if name not in options:
            raise ValueError(f"{key}: {name} is missing")
        with report.at("parameters", key, name):
            ends[name] = _typed(key, options[name], models)
    words: dict[str, Any] = {"log": False, "step": 1 if kind is INT else None}
    for word in (Argument("log", BOOL, REQUIRED), Argument("step", kind, REQUIRED, above=0)):
        if word.name in options:
            with report.at("parameters", key, word.name, label=f"{key}: {word.name} "):
                words[word.name] = convert(word, options[word.name])
    if len(report.problems) > before:
        return None
    low, high, step = ends["min"], ends["max"], words["step"]
    if low >= high:
        raise ValueError(f"{key}: min must be below max, but min = {low} and max = {high}")
    if words["log"] and low <= 0:
        raise ValueError(f"{key}: log needs min above 0, but min = {low}")
    if step is not None and not (high - low) / MOST_STEPS <= step <= high - low:
        law = "step must be at most max - min and at least 1e-16 of it"
        raise ValueError(f"{key}: {law}, but step = {step} and max - min = {high - low:g}")
    return Range(low, high, words["log"], step, kind is INT)


def _conditions(
    when: Mapping[str, object],
    place: Place,
    dimensions: Mapping[str, Dimension],
    models: Sequence[str],
    report: _Report,
) -> dict[str, tuple[object, ...]]:
    """Returns the values that each parent must have one of; a label stands for its value."""
    conditions = {}
    for parent, given in when.items():
        domain = dimensions[parent].domain if parent in dimensions else None
        labelled = zip(domain.labels, domain.values, strict=False) if isinstance(domain, Choice) else ()
        named = dict(labelled)
        values = []
        for value in _listed(given):
            with report.at(*place, parent, label=f"{place[1]}: when: "):
                if named and not isinstance(value, dict) and value not in named:
                    raise ValueError(f"{parent} has no choice {_described(value)}{nearest(value, named)}")
                values.append(named[str(value)] if isinstance(value, str) and named else _typed(parent, value, models))
        conditions[parent] = tuple(values)
    return conditions


def _parents(dimension: Dimension, keys: Iterable[str]) -> list[str]:
    """Returns those of the keys that a dimension's conditions and tie look at."""
    tie = [dimension.domain.key] if isinstance(dimension.domain, Tie) else []
    rows = [key.rpartition(".")[0] for key in (*dimension.when, *tie) if key in ENTRIES]
    entries = [key for key in keys if key in ENTRIES and key.rpartition(".")[0] in tie]
    return [key for key in (*dimension.when, *tie, *rows, *entries) if key in keys]


def _ordered(dimensions: Mapping[str, Dimension], report: _Report) -> tuple[Dimension, ...]:
    """Returns the dimensions, parents first; reports circles."""
    done: dict[str, Dimension] = {}

    def visit(key: str, path: tuple[str, ...]) -> None:
        if key in path:
            circle = " -> ".join([*path[path.index(key) :], key])
            report.add(("parameters", key), f"{key}: when and same_as go in a circle: {circle}")
        elif key not in done:
            for parent in _parents(dimensions[key], dimensions):
                visit(parent, (*path, key))
            done[key] = dimensions[key]

    for key in dimensions:
        visit(key, ())
    return tuple(done.values())


def _check_links(
    dimension: Dimension, dimensions: Mapping[str, Dimension], models: Sequence[str], report: _Report
) -> None:
    """Reports a tie to a key that the file does not set, and a condition that can never hold."""
    key, domain = dimension.key, dimension.domain
    if isinstance(domain, Tie) and not _parents(replace(dimension, when={}), dimensions):
        report.add(("parameters", key, "same_as"), f"{key}: same_as: {domain.key} is not set in this file")
    for parent, values in dimension.when.items():
        for value in values:
            if not _can_be(parent, value, dimensions, models):
                law = f"{key}: when: {parent} can never be {shown(value)} in this file"
                report.add(("parameters", key, "when", parent), law)


def _can_be(key: str, value: object, dimensions: Mapping[str, Dimension], models: Sequence[str]) -> bool:
    """Tells whether a key can ever have a value."""
    dimension, row = dimensions.get(key), dimensions.get(key.rpartition(".")[0])
    if dimension is None and row is not None and isinstance(row.domain, Tie):
        return True
    if dimension is None or dimension.when:
        specs = [{row.key: spec} for spec in row.domain.points()] if row and not isinstance(row.domain, Tie) else [{}]
        if any(value_of(key, {"model": model, **spec}) == value for model in models for spec in specs):
            return True
    if dimension is None or isinstance(dimension.domain, Tie):
        return dimension is not None and isinstance(dimension.domain, Tie)
    return value in dimension.domain
