"""Reads a search-space file: YAML with the line of every value, checked, all problems at once.

docs/search_spaces.md is the grammar.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import yaml

from s2s_search.hparams import convert
from s2s_search.spaces import (
    Choice,
    Dimension,
    Metric,
    Range,
    Resources,
    Scheduler,
    Search,
    Space,
    Tie,
    check_owner,
    grid_problems,
    probe,
    typed,
    value_of,
)
from s2s_search.table import (
    BOOL,
    ENTRIES,
    FLOAT,
    INT,
    MODELS,
    NAME,
    REQUIRED,
    SPEC,
    TABLE,
    Argument,
    ConfigError,
    canonical_model,
    declared,
    nearest,
    shown,
)

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


def read_space(path: Path) -> Space:
    """Returns the space that a YAML file describes. Raises ConfigError with all its problems and their lines."""
    report = _Report(str(path))
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
    for key, sentence in probe(space).items() if can_be_tried else ():
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
    for key, problem in grid_problems(d for d in dimensions if d.grid or is_grid):
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


def _dimensions(parameters: Mapping[str, object], models: tuple[str, ...], report: _Report) -> tuple[Dimension, ...]:
    """Returns the dimensions, each after those that it depends on."""
    found, before = {"model": Dimension("model", Choice(models))}, len(report.problems)
    for key, value in parameters.items():
        with report.at("parameters", key):
            if key == "model":
                raise ValueError("model is a section of its own, beside parameters:")
            check_owner(key, models)
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
    kind, other = declared(key).kind, check_owner(str(source), models).kind
    if kind is not other:
        raise ValueError(f"{key}: same_as: {key} is {kind.value}, but {source} is {other.value}")
    return Tie(str(source))


def _choice(key: str, items: object, place: Place, models: Sequence[str], report: _Report) -> Choice | None:
    if not isinstance(items, list | dict):
        raise ValueError(f"{key}: {place[-1]} must be a list, or a mapping from labels, but got {_described(items)}")
    values: list[object] = []
    for name, item in items.items() if isinstance(items, dict) else enumerate(items):
        with report.at(*place, name):
            value = typed(key, item, models)
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
            ends[name] = typed(key, options[name], models)
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
                values.append(named[str(value)] if isinstance(value, str) and named else typed(parent, value, models))
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
