"""Search-space files: YAML with a line for each value, and all sections but the parameters.

Scalars stay text, because only the table knows their kinds. YAML would guess: 1e-4 is text to it,
and no is false.
"""

import math
import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any

import yaml

from s2s_search.corpus.load import check_corpus
from s2s_search.corpus.text import line_prefix
from s2s_search.errors import ConfigError, nearest, shown, unreadable
from s2s_search.hparams.arguments import FLOAT, INT, NAME, Argument
from s2s_search.hparams.table import ENTRIES, MODELS, TABLE, canonical_model
from s2s_search.hparams.values import convert
from s2s_search.metrics import GOALS, METRICS
from s2s_search.spaces.packaged import packaged_spaces
from s2s_search.spaces.settings import METHODS, SCHEDULERS, VARIANTS

LEAST_SHARE = 0.0001  # the smallest share of a processor: Ray counts in ten thousandths
SECTIONS: dict[str, tuple[Argument, ...]] = {
    "metric": (
        Argument("name", NAME, "dev.loss", choices=tuple(METRICS)),
        Argument("goal", NAME, None, choices=GOALS),
    ),
    "search": (
        Argument("method", NAME, "random", choices=METHODS),
        Argument("trials", INT, None, minimum=1, maximum=1_000_000),
        Argument("seed", INT, 0, minimum=0, maximum=2**32 - 1),
        Argument("replicates", INT, 1, minimum=1, maximum=1000),
        Argument("retries", INT, 3, minimum=0, maximum=1000),
        Argument("hours", FLOAT, None, above=0),
        Argument("gpu_hours", FLOAT, None, above=0),
        Argument("trial_hours", FLOAT, None, above=0),
        Argument("max_at_once", INT, None, minimum=1, maximum=1_000_000),
    ),
    "scheduler": (
        Argument("name", NAME, "asha", choices=SCHEDULERS),
        Argument("variant", NAME, "stop", choices=VARIANTS),
        Argument("max_steps", INT, None, minimum=1),
        Argument("grace_steps", INT, None, minimum=1),
        Argument("reduction_factor", FLOAT, 3.0, minimum=1.1),  # 1.00001 would give 690,779 rungs
        Argument("interval_steps", INT, None, minimum=1),
        Argument("keep", INT, None, minimum=1),
        Argument("total_steps", INT, None, minimum=1),
    ),
    "resources": (
        Argument("cpu", FLOAT, 1.0, minimum=LEAST_SHARE),
        Argument("gpu", FLOAT, 0.0, minimum=0),
    ),
    "checkpoints": (
        Argument("best", INT, 10, minimum=1, maximum=1_000_000),
        Argument("disk_gb", FLOAT, None, above=0),
    ),
}
# The wider laws of earlier versions, for the run folders that these wrote.
BEFORE = {
    "scheduler": (Argument("reduction_factor", FLOAT, 3.0, above=1),),
}
SECTION_NAMES = (
    "model",
    "corpus",
    *SECTIONS,
    "objectives",
    "constraints",
    "first",
    "parameters",
)
# Lines are counted as editors count them. To YAML U+0085, U+2028 and U+2029 break lines, too.
LINE_BREAK = re.compile("\r\n|\r|\n")
CORPUS_FILES = ("train", "dev", "test", "source_vocab", "target_vocab")  # keys that name files
LARGEST_FILE = 200_000  # the limit of bytes, and of values after aliases are replaced
SCALARS = {
    f"tag:yaml.org,2002:{kind}"
    for kind in ("str", "int", "float", "bool", "null", "timestamp", "merge", "value")
}
KeyPath = tuple[
    str | int, ...
]  # the keys, and positions in lists, that lead to a value of the file


class Problems:
    """The problems of a file, each with its line. All are collected before the first is raised."""

    def __init__(self, where: str) -> None:
        self.where = where  # the name of the file in messages
        self.lines: dict[KeyPath, int] = {}  # the line of each value
        self.breaks: list[int] = []  # the index at which each line but the last ends
        self.found: list[tuple[int, str]] = []  # line and sentence; line 0 is the whole file

    def line_at(self, index: int) -> int:
        """Returns the line of a character of the file, counted from 1."""
        return bisect_right(self.breaks, index) + 1

    def add(self, key_path: KeyPath, problem: str) -> None:
        """Records a problem with the line of its value, or of the nearest value around it."""
        while key_path and key_path not in self.lines:
            key_path = key_path[:-1]
        self.found.append((self.lines.get(key_path, 0), problem))

    @contextmanager
    def at(self, *key_path: str | int, label: str = "") -> Iterator[None]:
        """Records a ValueError of the block as a problem at `key_path` and continues.

        Code after the block must cope with the missing value.
        """
        try:
            yield
        except ValueError as problem:
            self.add(key_path, f"{label}{problem}")

    def fail(self) -> None:
        """Raises ConfigError with all problems by line, if there are any."""
        if not self.found:
            return
        lines: dict[str, list[int]] = {}  # the lines of each sentence
        for line, text in sorted(dict.fromkeys(self.found), key=lambda problem: problem[0]):
            lines.setdefault(text, []).append(line)
        width = 0
        if len(lines) > 1:  # sentences stand below each other
            width = len(line_prefix([max(numbers[0] for numbers in lines.values())]))
        texts = []
        for text, numbers in lines.items():
            prefix = line_prefix(numbers)
            texts.append(f"{prefix:<{width}}{text}" if prefix else text)
        raise ConfigError(texts, self.where)


def read_parts(path: Path, problems: Problems) -> tuple[str, dict[str, object]]:
    """Returns the file's text and its sections, and sets the lines of the problems.

    Raises:
        ConfigError: the file cannot be read, or is no YAML.
    """
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_FILE + 1)
    except (OSError, ValueError) as error:
        known = [*map(str, Path("search_spaces").rglob("*.yaml")), *packaged_spaces()]
        raise ConfigError(unreadable(path, error, known), problems.where) from None
    if len(data) > LARGEST_FILE:
        raise ConfigError(
            f"is larger than {LARGEST_FILE} bytes; that is no search space", problems.where
        )
    try:
        text = data.decode()
        ends = [match.end() for match in LINE_BREAK.finditer(text)]
        problems.breaks = [end for end in ends if end < len(text)]
        parts = mapping(_tree(text, problems), (), problems)
    except UnicodeDecodeError as error:
        line = len(re.findall(b"\r\n|\r|\n", data[: error.start])) + 1
        problem = f"line {line}: not UTF-8: byte 0x{data[error.start]:02x}"
        raise ConfigError(problem, problems.where) from None
    except RecursionError:
        raise ConfigError("broken YAML: nested too deeply", problems.where) from None
    for name in parts:
        if name in SECTION_NAMES:
            continue
        hint = nearest(name, SECTION_NAMES)
        if name in TABLE or name in ENTRIES:
            hint = "; it belongs under parameters:"
        problems.add((name,), f"unknown section {shown(name)}{hint}")
    return text, parts


def _tree(text: str, problems: Problems) -> object:
    """Returns the file's values: dicts, lists, text and None.

    Raises:
        ConfigError: the text is no YAML.
    """
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        size = 0 if node is None else _expanded(node, {})
        if size > LARGEST_FILE:
            problem = "too many values by aliases"
            if size == math.inf:
                problem = "an alias is inside the value that it stands for"
            raise ConfigError(f"broken YAML: {problem}", problems.where)
        return None if node is None else _values_of(node, (), problems)
    except yaml.MarkedYAMLError as error:
        begin = error.context_mark.index if error.context_mark else 0
        end = error.problem_mark.index if error.problem_mark else 0
        # YAML notices a missing colon only where the next line begins.
        is_colon_missing = "expected ':'" in str(error.problem)
        line = problems.line_at(begin if is_colon_missing else end or begin)
        hint = _odd_space(text, line, problems)
        if "\\t" in str(error.problem):
            hint = "; indent with spaces, not tabs"
        what = " ".join(part for part in (error.context, error.problem) if part)
        problem = f"line {line}: broken YAML: {what}{hint}"
    except yaml.reader.ReaderError as error:
        character = shown(text[error.position])
        problem = f"line {problems.line_at(error.position)}: broken YAML: character {character}"
    raise ConfigError(problem, problems.where)


def _odd_space(text: str, line: int, problems: Problems) -> str:
    """Returns a hint at the first character of a line that only looks like a space.

    Invisible characters count, too. Such a character after a colon makes YAML complain about the
    next line, so the line before is looked at, too.
    """
    ends = [0, *problems.breaks, len(text)]
    for number in range(line, max(line - 2, 0), -1):
        characters = text[ends[number - 1] : ends[number]]
        if number == 1:
            characters = characters.removeprefix("\ufeff")
        for character in characters:
            is_like_space = unicodedata.category(character) in ("Zs", "Cf", "Zl", "Zp")
            if (is_like_space and character != " ") or character == "\x85":
                which = "the line" if number == line else f"line {number}"
                name = f"U+{ord(character):04X} ({unicodedata.name(character, 'NEXT LINE')})"
                return f"; {which} has a {name}, which is no space to YAML"
    return ""


def _expanded(node: yaml.Node, sizes: dict[int, float]) -> float:
    """Returns the number of nodes in a node, aliases replaced; infinite if it contains itself."""
    if id(node) not in sizes:
        # A node that is met again before its children are counted contains itself.
        sizes[id(node)] = math.inf
        children = node.value if isinstance(node, yaml.CollectionNode) else ()
        nodes = chain.from_iterable(children) if isinstance(node, yaml.MappingNode) else children
        sizes[id(node)] = 1 + sum(_expanded(child, sizes) for child in nodes)
    return sizes[id(node)]


def _values_of(node: yaml.Node, key_path: KeyPath, problems: Problems) -> object:
    """Returns the values of a node, and records the line of each value."""
    problems.lines.setdefault(key_path, problems.line_at(node.start_mark.index))
    if isinstance(node, yaml.SequenceNode):
        return [
            _values_of(item, (*key_path, index), problems) for index, item in enumerate(node.value)
        ]
    if isinstance(node, yaml.MappingNode):
        result: dict[str, object] = {}
        for key, value in node.value:
            name = str(key.value) if _is_text(key) else ""
            line = problems.line_at(key.start_mark.index)
            if not name:
                problems.found.append((line, "a key must be a name"))
                continue
            if name in result:
                first = problems.lines[(*key_path, name)]
                problems.found.append((line, f"{name} is given twice, first in line {first}"))
                continue
            problems.lines[(*key_path, name)] = line
            result[name] = _values_of(value, (*key_path, name), problems)
        return result
    if node.tag not in SCALARS:
        problems.add(key_path, f"unknown tag {shown(node.tag)}")
    if not _is_text(node):
        problems.add(key_path, f"half of a surrogate pair is no character: {shown(node.value)}")
    return None if node.tag == "tag:yaml.org,2002:null" else str(node.value)


def _is_text(node: yaml.Node) -> bool:
    r"""Returns whether a node is a scalar that can be encoded; "\ud800" cannot."""
    return isinstance(node, yaml.ScalarNode) and not re.search("[\ud800-\udfff]", node.value)


def described(value: object) -> str:
    """Returns what a value is, as a message about its form shows it."""
    words = {dict: "a mapping", list: "a list", type(None): "nothing"}
    return words.get(type(value)) or shown(value)


def mapping(value: object, key_path: KeyPath, problems: Problems) -> dict[str, object]:
    """Returns a mapping. Any other value is a problem, and an empty mapping is returned."""
    if isinstance(value, dict):
        return value
    label = ".".join(map(str, key_path)).removeprefix("parameters.")
    if not label:
        label = f"the file (sections: {', '.join(SECTION_NAMES)})"
    problems.add(key_path, f"{label}: must be a mapping, but got {described(value)}")
    return {}


def listed(value: object) -> list[object]:
    """Returns a list as it is, and any other value as a list of one."""
    return value if isinstance(value, list) else [value]


def read_models(parts: Mapping[str, object], problems: Problems) -> tuple[str, ...]:
    """Returns the names of the models; of all models, when the file names none that is known."""
    given = listed(parts.get("model", []))
    models: list[str] = []
    for value in given:
        with problems.at("model"):
            models.append(canonical_model(value))
    if len(set(models)) < len(models):
        problems.add(("model",), "model: a model is listed twice")
    if not given:
        problems.add(("model",), f"model is missing; known: {', '.join(MODELS)}")
    return tuple(dict.fromkeys(models)) or MODELS


def read_section(
    name: str, parts: Mapping[str, object], problems: Problems, is_past: bool = False
) -> dict[str, Any]:
    """Returns the values of a section, converted to their kinds, with defaults for missing ones.

    When the section has a problem, all values are defaults.

    Args:
        name: the section.
        parts: all sections of the file.
        problems: gets the problems.
        is_past: whether the search has begun, perhaps under an earlier version.
    """
    before = len(problems.found)
    arguments = {argument.name: argument for argument in SECTIONS[name]}
    if is_past:
        arguments |= {argument.name: argument for argument in BEFORE.get(name, ())}
    defaults = {key: argument.default for key, argument in arguments.items()}
    values = dict(defaults)
    for key, given in mapping(parts.get(name, {}), (name,), problems).items():
        if key not in arguments:
            problems.add((name, key), f"{name}: unknown key {shown(key)}{nearest(key, arguments)}")
            continue
        with problems.at(name, key, label=f"{name}.{key}: "):
            values[key] = convert(arguments[key], given)
    return values if len(problems.found) == before else defaults


def read_corpus(
    parts: Mapping[str, object], folder: Path, problems: Problems, files: bool = True
) -> dict[str, object]:
    """Returns the corpus section with absolute paths.

    Args:
        parts: all sections of the file.
        folder: where relative paths start.
        problems: gets the problems.
        files: False when the files of the corpus need not be there.
    """
    value = parts.get("corpus", {"name": "cmudict"})
    corpus = mapping(value, ("corpus",), problems)
    for key, given in corpus.items():
        is_path = "name" not in corpus and key in CORPUS_FILES
        values = [_corpus_value(item, folder if is_path else None) for item in listed(given)]
        corpus[key] = values if isinstance(given, list) else values[0]
    if isinstance(value, dict):
        for key, problem in check_corpus(corpus, files):
            problems.add(
                ("corpus", key), f"corpus.{key}: {problem}" if key else f"corpus: {problem}"
            )
    return corpus


def _corpus_value(value: object, folder: Path | None) -> object:
    """Returns a whole number for its text, and a path below `folder`; any other value as it is.

    In a mapping, fractions are numbers, too, and no value is a path.
    """
    if isinstance(value, Mapping):
        return {key: _number(inner) for key, inner in value.items()}
    if not isinstance(value, str):
        return value
    if re.fullmatch("-?[0-9]{1,15}", value):
        return int(value)
    return str(folder / value) if folder is not None and value else value


def _number(value: object) -> object:
    """Returns the number that a text is, a list with numbers, or else the value as it is."""
    if isinstance(value, list):
        return [_number(item) for item in value]
    converted = _corpus_value(value, None)
    if isinstance(converted, str):
        with suppress(ValueError):
            return convert(Argument("", FLOAT, 0.0), converted)
    return converted


def parse_corpus(text: str, argument: str = "--corpus") -> dict[str, object]:
    """Returns the corpus of an argument: a built-in one, a mapping, or the corpus of a file.

    Raises:
        ConfigError: with all problems.
    """
    problems = Problems(argument)
    if Path(text).suffix in (".yaml", ".yml"):
        path = Path(text)
        problems.where = f"{argument} {text}"
        corpus = read_corpus(read_parts(path, problems)[1], path.absolute().parent, problems)
    else:
        value = _tree(text, problems)
        spec = value if isinstance(value, dict) else {"name": value}
        corpus = read_corpus({"corpus": spec}, Path(), problems)
        # An argument has no lines.
        problems.found = [(0, problem) for _, problem in problems.found]
    problems.fail()
    return corpus
