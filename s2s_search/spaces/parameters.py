"""The section `parameters` of a search-space file, read as dimensions."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from s2s_search.errors import nearest, printable, quantity, shown
from s2s_search.hparams.arguments import BOOL, FLOAT, INT, NAME, REQUIRED, SPEC, Argument
from s2s_search.hparams.configuration import check_spec
from s2s_search.hparams.table import ENTRIES, SPECS, Problem, canonical_model, declared, owners
from s2s_search.hparams.values import convert, typed
from s2s_search.spaces.dimensions import Choice, Dimension, Flat, Prior, Range, Tie, value_of
from s2s_search.spaces.yaml_file import KeyPath, Problems, described, listed, mapping

OPTIONS = (
    "choices",
    "weights",
    "grid",
    "same_as",
    "min",
    "max",
    "log",
    "step",
    "prior",
    "spread",
    "when",
    "role",
)
ROLE = Argument("role", NAME, None, choices=("scientific", "nuisance"))
WEIGHT = Argument("weight", FLOAT, REQUIRED, above=0)
SPREAD = Argument("spread", FLOAT, REQUIRED, minimum=0.01, maximum=0.5)
MOST_STEPS = 10**16  # the largest number of steps in a range: float64 has 16 digits


def check_owner(key: str, models: Sequence[str]) -> Argument:
    """Returns the declaration of a key.

    Raises:
        ValueError: the key is unknown, or none of the models has it.
    """
    argument = declared(key)
    if not set(owners(key)) & set(models):
        fact = f"{key} belongs to {' and '.join(owners(key))}"
        raise ValueError(f"{fact}, and this file searches {', '.join(models)}")
    return argument


def checked(key: str, value: object, models: Sequence[str]) -> object:
    """Returns the value of a key, converted to its kind. A spec may still lack arguments.

    Raises:
        ValueError: with whole sentences about the key or its value.
    """
    if key == "model":
        name = canonical_model(value)
        if name not in models:
            raise ValueError(f"model: {name} is not searched here; known: {', '.join(models)}")
        return name
    check_owner(key, models)
    in_kind = typed(key, value)
    problems: list[Problem] = []
    if isinstance(in_kind, dict):
        in_kind, problems = check_spec(key, in_kind)
    if problems:
        raise ValueError("; ".join(sentence for _, sentence in problems))
    return in_kind


def read_dimensions(
    parts: Mapping[str, object], models: tuple[str, ...], problems: Problems
) -> tuple[Dimension, ...]:
    """Returns the dimensions of the section `parameters`, parents before children."""
    parameters = mapping(parts.get("parameters", {}), ("parameters",), problems)
    found = {"model": Dimension("model", Choice(models))}
    before = len(problems.found)
    for key, value in parameters.items():
        with problems.at("parameters", key):
            if key == "model":
                raise ValueError("model is a section of its own, beside parameters:")
            check_owner(key, models)
            dimension = _dimension(key, value, models, problems)
            if dimension:
                found[key] = dimension
    # A condition may name a label of a spec. The labels of a spec with a problem are not known.
    nameless = {name for name in parameters if name in SPECS and name not in found}
    for key, value in parameters.items():
        if isinstance(value, dict) and "when" in value:
            key_path = ("parameters", key, "when")
            given = mapping(value["when"], key_path, problems)
            given = {parent: values for parent, values in given.items() if parent not in nameless}
            when = _conditions(given, key_path, found, models, problems)
            if key in found:
                found[key] = replace(found[key], when=when)
    ordered = _ordered(found, problems)
    if len(problems.found) == before:
        for dimension in ordered:
            _check_links(dimension, found, models, problems)
    return ordered


def _dimension(
    key: str, value: object, models: Sequence[str], problems: Problems
) -> Dimension | None:
    """Returns the dimension of a key without conditions; None when a problem was recorded.

    Raises:
        ValueError: with a problem that was not recorded.
    """
    key_path: KeyPath = ("parameters", key)
    if not isinstance(value, dict) or (declared(key).kind is SPEC and "class" in value):
        choice = _choice(key, listed(value), key_path, models, problems)
        return Dimension(key, choice) if choice else None
    unknown = [name for name in value if name not in OPTIONS]
    for name in unknown:
        problems.add(
            (*key_path, name), f"{key}: unknown word {shown(name)}{nearest(name, OPTIONS)}"
        )
    ways = [name for name in ("choices", "grid", "same_as") if name in value]
    if any(name in value for name in ("min", "max", "log", "step")):
        ways.append("min and max")
    if unknown and not ways:
        return None  # the unknown word is probably the one that is needed
    if len(ways) != 1:
        law = "needs one of choices, grid, same_as, or min and max"
        raise ValueError(f"{key}: {law}, but has {' and '.join(ways) or 'none'}")
    role: object = None
    with problems.at(*key_path, "role", label=f"{key}: role: "):
        role = convert(ROLE, value.get("role"))
    if ways == ["same_as"]:
        domain: Choice | Range | Tie | None = _tie(key, value["same_as"], models)
    elif ways == ["min and max"]:
        domain = _range(key, value, models, problems)
    else:
        domain = _choice(key, value[ways[0]], (*key_path, ways[0]), models, problems)
    if "weights" in value:
        if ways != ["choices"]:
            raise ValueError(f"{key}: weights are for choices, but this has {ways[0]}")
        if isinstance(domain, Choice):
            domain = _weighted(key, domain, value["weights"], problems)
    prior = _prior(key, value, domain, models, problems)
    if domain is None:
        return None
    name = str(role) if role else None
    return Dimension(key, domain, role=name, grid=ways == ["grid"], prior=prior)


def _tie(key: str, source: object, models: Sequence[str]) -> Tie:
    """Returns the tie of a key to another. Raises ValueError when their kinds differ."""
    kind = declared(key).kind
    other = check_owner(str(source), models).kind
    if kind is not other:
        raise ValueError(f"{key}: same_as: {key} is {kind.value}, but {source} is {other.value}")
    return Tie(str(source))


def _choice(
    key: str, items: object, key_path: KeyPath, models: Sequence[str], problems: Problems
) -> Choice | None:
    """Returns the choice of a list, or of a mapping from labels; None when a value is a problem.

    Raises:
        ValueError: `items` is neither, or empty.
    """
    if not isinstance(items, list | dict):
        law = f"{key_path[-1]} must be a list, or a mapping from labels"
        raise ValueError(f"{key}: {law}, but got {described(items)}")
    named: dict[Any, object] = items if isinstance(items, dict) else dict(enumerate(items))
    values: list[object] = []
    for name, item in named.items():
        with problems.at(*key_path, name):
            if isinstance(name, str) and printable(name) != name:
                raise ValueError(f"{key}: a label holds a control character: {shown(name)}")
            value = checked(key, item, models)
            if value in values:
                raise ValueError(f"{key}: {shown(value)} is listed twice")
            values.append(value)
    if not items:
        raise ValueError(f"{key}: the list of choices is empty")
    if len(values) < len(items):
        return None
    return Choice(tuple(values), tuple(items) if isinstance(items, dict) else ())


def _weighted(key: str, choice: Choice, given: object, problems: Problems) -> Choice | None:
    """Returns the choice with weights; None when a weight is a problem.

    Raises:
        ValueError: the weights have not the form of the choices.
    """
    names: Sequence[Any] = choice.labels or range(len(choice.values))
    named: dict[Any, object]
    if choice.labels:
        if not isinstance(given, dict):
            law = "weights must be a mapping from the labels of choices"
            raise ValueError(f"{key}: {law}, but got {described(given)}")
        named = given
    else:
        if not isinstance(given, list):
            law = "weights must be a list, as choices are"
            raise ValueError(f"{key}: {law}, but got {described(given)}")
        if len(given) != len(names):
            choices, weights_given = quantity(len(names), "choice"), quantity(len(given), "weight")
            fact = f"{choices} and {weights_given} are given"
            raise ValueError(f"{key}: each choice needs a weight, but {fact}")
        named = dict(enumerate(given))
    before = len(problems.found)
    weights: dict[Any, Any] = {}
    for name, item in named.items():
        with problems.at("parameters", key, "weights", name, label=f"{key}: weights: "):
            if name not in names:
                raise ValueError(f"there is no choice {shown(name)}{nearest(name, names)}")
            weights[name] = convert(WEIGHT, item)
    for name in names:
        if name not in named:
            problems.add(("parameters", key, "weights"), f"{key}: weights: {name} has no weight")
    if len(problems.found) > before:
        return None
    return replace(choice, weights=tuple(weights[name] for name in names))


def _prior(
    key: str,
    options: Mapping[str, object],
    domain: Choice | Range | Tie | None,
    models: Sequence[str],
    problems: Problems,
) -> Prior | None:
    """Returns the prior of a key; None when it has none, or when an option is a problem."""
    if "prior" not in options:
        if "spread" in options:
            law = f"{key}: spread is how far draws lie from a prior, and there is no prior"
            problems.add(("parameters", key, "spread"), law)
        return None
    before = len(problems.found)
    spread: Any = None
    with problems.at("parameters", key, "prior", label="prior of "):
        if "grid" in options or "same_as" in options:
            raise ValueError(f"{key}: only choices, or min and max, can have one")
        if domain is not None and not isinstance(domain, Tie):
            value = named_value(key, options["prior"], domain, models)
            if not domain.allows(value):
                shown_value = described(options["prior"])
                raise ValueError(f"{key}: must be {domain.law}, but got {shown_value}")
    if "spread" in options:
        with problems.at("parameters", key, "spread", label=f"{key}: spread "):
            if isinstance(domain, Choice):
                raise ValueError("is for min and max, and this has choices")
            spread = convert(SPREAD, options["spread"])
    if domain is None or len(problems.found) > before:
        return None
    return Prior(value) if spread is None else Prior(value, spread)


def _range(
    key: str, options: Mapping[str, object], models: Sequence[str], problems: Problems
) -> Range | None:
    """Returns the range of a key; None when an option is a problem. Raises ValueError."""
    kind = declared(key).kind
    before = len(problems.found)
    if kind not in (INT, FLOAT):
        raise ValueError(f"{key}: min and max are for numbers, and this is {kind.value}")
    ends: dict[str, Any] = {}
    for name in ("min", "max"):
        if name not in options:
            raise ValueError(f"{key}: {name} is missing")
        with problems.at("parameters", key, name):
            ends[name] = checked(key, options[name], models)
    words: dict[str, Any] = {"log": False, "step": 1 if kind is INT else None}
    for word in (Argument("log", BOOL, REQUIRED), Argument("step", kind, REQUIRED, above=0)):
        if word.name in options:
            with problems.at("parameters", key, word.name, label=f"{key}: {word.name} "):
                words[word.name] = convert(word, options[word.name])
    if len(problems.found) > before:
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
    key_path: KeyPath,
    dimensions: Mapping[str, Dimension],
    models: Sequence[str],
    problems: Problems,
) -> dict[str, tuple[object, ...]]:
    """Returns the allowed values of each key that a `when` names.

    Labels are replaced by the values that they name.

    Args:
        when: the conditions as the file has them.
        key_path: the keys that lead to the conditions in the file.
        dimensions: the dimensions by their keys.
        models: the models of the file.
        problems: gets the problems.
    """
    conditions = {}
    for parent, given in when.items():
        domain = dimensions[parent].domain if parent in dimensions else None
        values = []
        for value in listed(given):
            with problems.at(*key_path, parent, label=f"{key_path[1]}: when: "):
                values.append(named_value(parent, value, domain, models))
        conditions[parent] = tuple(values)
    return conditions


def named_value(
    key: str, value: object, domain: Choice | Range | Tie | None, models: Sequence[str]
) -> object:
    """Returns the value of a key that a label or a value in the file names.

    Raises:
        ValueError: there is no such label, or the value breaks the law of the key.
    """
    named = domain.named if isinstance(domain, Choice) else {}
    if named and not isinstance(value, dict) and value not in named:
        raise ValueError(f"{key} has no choice {described(value)}{nearest(value, named)}")
    if named and isinstance(value, str):
        return named[value]
    return checked(key, value, models)


def _parents(dimension: Dimension, keys: Iterable[str]) -> list[str]:
    """Returns the keys, among `keys`, on which the conditions and the tie of a dimension depend."""
    tie = [dimension.domain.key] if isinstance(dimension.domain, Tie) else []
    rows = [key.rpartition(".")[0] for key in (*dimension.when, *tie) if key in ENTRIES]
    entries = [key for key in keys if key in ENTRIES and key.rpartition(".")[0] in tie]
    return [key for key in (*dimension.when, *tie, *rows, *entries) if key in keys]


def _ordered(dimensions: Mapping[str, Dimension], problems: Problems) -> tuple[Dimension, ...]:
    """Returns the dimensions with parents before children. Circles are problems."""
    done: dict[str, Dimension] = {}

    def visit(key: str, path: tuple[str, ...]) -> None:
        if key in path:
            circle = " -> ".join([*path[path.index(key) :], key])
            problems.add(("parameters", key), f"{key}: when and same_as go in a circle: {circle}")
        elif key not in done:
            for parent in _parents(dimensions[key], dimensions):
                visit(parent, (*path, key))
            done[key] = dimensions[key]

    for key in dimensions:
        visit(key, ())
    return tuple(done.values())


def _check_links(
    dimension: Dimension,
    dimensions: Mapping[str, Dimension],
    models: Sequence[str],
    problems: Problems,
) -> None:
    """Records a tie to a key that is not set, and a condition that never holds, as problems."""
    key, domain = dimension.key, dimension.domain
    if isinstance(domain, Tie) and not _parents(replace(dimension, when={}), dimensions):
        law = f"{key}: same_as: {domain.key} is not set in this file"
        problems.add(("parameters", key, "same_as"), law)
    for parent, values in dimension.when.items():
        for value in values:
            if not _can_be(parent, value, dimensions, models):
                law = f"{key}: when: {parent} can never be {shown(value)} in this file"
                problems.add(("parameters", key, "when", parent), law)


def _can_be(
    key: str, value: object, dimensions: Mapping[str, Dimension], models: Sequence[str]
) -> bool:
    """Returns whether a key can ever have a value."""
    dimension = dimensions.get(key)
    if dimension is not None:
        if isinstance(dimension.domain, Tie) or value in dimension.domain:
            return True
        if not dimension.when:
            return False
    # Where no dimension sets the key, it has its default, or the value of an entry of its spec.
    specs: list[Flat] = [{}]
    row = key.rpartition(".")[0]
    if row in dimensions:
        domain = dimensions[row].domain
        if not isinstance(domain, Tie):
            specs = [{row: spec} for spec in domain.points()]
        elif dimension is None:
            return True
    for model in models:
        for spec in specs:
            if value_of(key, {"model": model, **spec}) == value:
                return True
    return False
