"""The section `first`: configurations that are run before all draws."""

from collections.abc import Mapping, Sequence

from s2s_search.errors import nearest
from s2s_search.spaces.dimensions import Choice, Dimension, Flat, Tie
from s2s_search.spaces.parameters import check_owner, named_value
from s2s_search.spaces.yaml_file import Problems, described, listed

DEFAULT = "default"  # the word that stands for a configuration that names no value


def read_first(
    parts: Mapping[str, object],
    dimensions: Sequence[Dimension],
    models: Sequence[str],
    method: str,
    problems: Problems,
) -> tuple[tuple[int, Flat], ...]:
    """Returns the values that each configuration of `first` names, with its place in the list.

    Configurations with a wrong key or value are problems, and are left out.

    Args:
        parts: all sections of the file.
        dimensions: the dimensions of the file.
        models: the models of the file.
        method: the method of the search.
        problems: gets the problems.
    """
    known = {dimension.key: dimension for dimension in dimensions}
    parameters = parts.get("parameters")
    given = parameters if isinstance(parameters, dict) else {}
    found = []
    for index, entry in enumerate(listed(parts.get("first", []))):
        before = len(problems.found)
        named: Flat = {}
        if isinstance(entry, dict):
            for key, value in entry.items():
                if key in given and key not in known:
                    continue  # its problem is known
                with problems.at("first", index, key, label="first: "):
                    named[key] = _named(key, value, known, models, method)
        elif entry != DEFAULT:
            law = f"first: must be {DEFAULT}, or a mapping from searched keys to values"
            problems.add(("first", index), f"{law}, but got {described(entry)}")
        if len(problems.found) == before:
            found.append((index, named))
    return tuple(found)


def _named(
    key: str, value: object, known: Mapping[str, Dimension], models: Sequence[str], method: str
) -> object:
    """Returns the value that a configuration names for a key. Raises ValueError."""
    if key not in known:
        check_owner(key, models)
        raise ValueError(f"{key} is not set in this file{nearest(key, known)}")
    dimension = known[key]
    domain = dimension.domain
    if isinstance(domain, Tie):
        raise ValueError(f"{key} cannot be named, because it follows {domain.key}")
    if dimension.grid and method != "grid":
        raise ValueError(f"{key} cannot be named, because each configuration is run with its grid")
    found = named_value(key, value, domain, models)
    if not domain.allows(found):
        given = described(value)
        if isinstance(domain, Choice) and len(domain.values) == 1:
            raise ValueError(f"{key}: this file sets it to {domain.values[0]}, but got {given}")
        raise ValueError(f"{key}: must be {domain.law}, but got {given}")
    return found
