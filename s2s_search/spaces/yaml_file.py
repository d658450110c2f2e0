"""Search-space files: their YAML, each value with the line that it stands in, and the sections beside the parameters.

Scalars stay text: the table knows their kinds, where YAML would guess (1e-4 is text to it, and no is false).
"""

import math
import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import yaml

from s2s_search.corpus.load import check_corpus
from s2s_search.corpus.text import place_of
from s2s_search.errors import ConfigError, nearest, shown, unreadable
from s2s_search.hparams.arguments import FLOAT, INT, NAME, Argument
from s2s_search.hparams.table import ENTRIES, MODELS, TABLE, canonical_model
from s2s_search.hparams.values import convert
from s2s_search.metrics import GOALS, METRICS
from s2s_search.spaces.packaged import packaged_spaces

LEAST_SHARE = 0.0001  # of a processor: Ray counts them in ten thousandths
SECTIONS: dict[str, tuple[Argument, ...]] = {
    "metric": (
        Argument("name", NAME, "dev.loss", choices=tuple(METRICS)),
        Argument("goal", NAME, None, choices=GOALS),
    ),
    "search": (
        Argument("method", NAME, "random", choices=("random", "halton", "grid", "tpe")),
        Argument("trials", INT, None, minimum=1, maximum=1_000_000),
        Argument("seed", INT, 0, minimum=0, maximum=2**32 - 1),
        Argument("replicates", INT, 1, minimum=1, maximum=1000),
        Argument("retries", INT, 3, minimum=0, maximum=1000),
        Argument("hours", FLOAT, None, above=0),
        Argument("gpu_hours", FLOAT, None, above=0),
    ),
    "scheduler": (
        Argument("name", NAME, "asha", choices=("asha", "hyperband", "median", "pbt", "none")),
        Argument("max_steps", INT, None, minimum=1),
        Argument("grace_steps", INT, None, minimum=1),
        Argument("reduction_factor", FLOAT, 3.0, minimum=1.1),  # 1.00001 would give 690,779 rungs
        Argument("interval_steps", INT, None, minimum=1),
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
BEFORE = {  # wider laws of earlier versions, for the run folders that they wrote
    "scheduler": (Argument("reduction_factor", FLOAT, 3.0, above=1),),
}
PARTS = ("model", "corpus", *SECTIONS, "objectives", "parameters")
LINE_BREAK = re.compile(
    "\r\n|\r|\n"
)  # as editors count; to YAML U+0085, U+2028 and U+2029 break lines too
CORPUS_FILES = ("train", "dev", "test", "source_vocab", "target_vocab")  # of a corpus section
LARGEST_FILE = 200_000  # bytes, and values with aliases followed
SCALARS = {
    f"tag:yaml.org,2002:{kind}"
    for kind in ("str", "int", "float", "bool", "null", "timestamp", "merge", "value")
}
Place = tuple[str | int, ...]  # of a value in the file: keys and positions in lists


class Report:
    """Collects problems, each with the line of its place in the file, instead of stopping at the first."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.lines: dict[Place, int] = {}
        self.breaks: list[int] = []  # where each line of the file but the last ends
        self.problems: list[tuple[int, str]] = []

    def line_at(self, index: int) -> int:
        """Returns the line of a character of the file, counted from 1."""
        return bisect_right(self.breaks, index) + 1

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
            lines: dict[str, list[int]] = {}  # of each sentence
            for line, text in sorted(dict.fromkeys(self.problems), key=lambda problem: problem[0]):
                lines.setdefault(text, []).append(line)
            width = 0
            if len(lines) > 1:
                width = len(place_of([max(numbers[0] for numbers in lines.values())]))
            texts = []
            for text, numbers in lines.items():
                place = place_of(numbers)
                texts.append(f"{place:<{width}}{text}" if place else text)
            raise ConfigError(texts, self.where)


def read_parts(path: Path, report: Report) -> tuple[str, dict[str, object]]:
    """Returns the file's text and its sections, all lines in the report. Raises ConfigError when it is no YAML."""
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_FILE + 1)
    except (OSError, ValueError) as error:
        known = [*map(str, Path("search_spaces").rglob("*.yaml")), *packaged_spaces()]
        raise ConfigError(unreadable(path, error, known), report.where) from None
    if len(data) > LARGEST_FILE:
        raise ConfigError(
            f"is larger than {LARGEST_FILE} bytes; that is no search space", report.where
        )
    try:
        text = data.decode()
        report.breaks = [
            end for end in (match.end() for match in LINE_BREAK.finditer(text)) if end < len(text)
        ]
        parts = mapping(_tree(text, report), (), report)
    except UnicodeDecodeError as error:
        line = len(re.findall(b"\r\n|\r|\n", data[: error.start])) + 1
        raise ConfigError(
            f"line {line}: not UTF-8: byte 0x{data[error.start]:02x}", report.where
        ) from None
    except RecursionError:
        raise ConfigError("broken YAML: nested too deeply", report.where) from None
    for name in (name for name in parts if name not in PARTS):
        hint = (
            "; it belongs under parameters:"
            if name in TABLE or name in ENTRIES
            else nearest(name, PARTS)
        )
        report.add((name,), f"unknown section {shown(name)}{hint}")
    return text, parts


def _tree(text: str, report: Report) -> object:
    """Returns the file's values: dicts, lists, text and None."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        size = 0 if node is None else _expanded(node, {})
        if size > LARGEST_FILE:
            problem = (
                "an alias stands inside what it stands for"
                if size == math.inf
                else "too many values by aliases"
            )
            raise ConfigError(f"broken YAML: {problem}", report.where)
        return None if node is None else _plain(node, (), report)
    except yaml.MarkedYAMLError as error:
        begin, end = (
            mark.index if mark else 0 for mark in (error.context_mark, error.problem_mark)
        )
        is_key = "expected ':'" in str(
            error.problem
        )  # which YAML misses only where the next line begins
        line = report.line_at(begin if is_key else end or begin)
        hint = (
            "; indent with spaces, not tabs"
            if "\\t" in str(error.problem)
            else _odd_space(text, line, report)
        )
        what = " ".join(part for part in (error.context, error.problem) if part)
        problem = f"line {line}: broken YAML: {what}{hint}"
    except yaml.reader.ReaderError as error:
        character = shown(text[error.position])
        problem = f"line {report.line_at(error.position)}: broken YAML: character {character}"
    raise ConfigError(problem, report.where)


def _odd_space(text: str, line: int, report: Report) -> str:
    """Names the first character of a line that looks like a space, or like nothing, and is none to YAML.

    Where the line has none, the line before it: after a colon such a character makes the next line the wrong one.
    """
    ends = [0, *report.breaks, len(text)]
    for number in range(line, max(line - 2, 0), -1):
        for character in text[ends[number - 1] : ends[number]].removeprefix(
            "\ufeff" if number == 1 else ""
        ):
            is_odd = (
                unicodedata.category(character) in ("Zs", "Cf", "Zl", "Zp") and character != " "
            )
            if is_odd or character == "\x85":
                place = "the line" if number == line else f"line {number}"
                name = unicodedata.name(character, "NEXT LINE")
                return f"; {place} has a U+{ord(character):04X} ({name}), which YAML takes for no space"
    return ""


def _expanded(node: yaml.Node, sizes: dict[int, float]) -> float:
    """Returns the number of nodes from a node on, aliases followed; infinite when it contains itself."""
    if id(node) not in sizes:
        sizes[id(node)] = math.inf  # until its children are counted
        children = node.value if isinstance(node, yaml.CollectionNode) else ()
        nodes = chain.from_iterable(children) if isinstance(node, yaml.MappingNode) else children
        sizes[id(node)] = 1 + sum(_expanded(child, sizes) for child in nodes)
    return sizes[id(node)]


def _plain(node: yaml.Node, place: Place, report: Report) -> object:
    report.lines.setdefault(place, report.line_at(node.start_mark.index))
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, (*place, index), report) for index, item in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        result: dict[str, object] = {}
        for key, value in node.value:
            name, line = (
                str(key.value) if _is_text(key) else "",
                report.line_at(key.start_mark.index),
            )
            if not name or name in result:
                problem = (
                    f"{name} is given twice, first in line {report.lines[(*place, name)]}"
                    if name
                    else ""
                )
                report.problems.append((line, problem or "a key must be a name"))
                continue
            report.lines[(*place, name)] = line
            result[name] = _plain(value, (*place, name), report)
        return result
    if node.tag not in SCALARS:
        report.add(place, f"unknown tag {shown(node.tag)}")
    if not _is_text(node):
        report.add(place, f"half of a surrogate pair is no character: {shown(node.value)}")
    return None if node.tag == "tag:yaml.org,2002:null" else str(node.value)


def _is_text(node: yaml.Node) -> bool:
    r"""Says whether a node is a scalar that can be written down; "\ud800" cannot."""
    return isinstance(node, yaml.ScalarNode) and not re.search("[\ud800-\udfff]", node.value)


def described(value: object) -> str:
    """Returns the value as a message about its form shows it."""
    words = {dict: "a mapping", list: "a list", type(None): "nothing"}
    return words.get(type(value)) or shown(value)


def mapping(value: object, place: Place, report: Report) -> dict[str, object]:
    """Returns a mapping; reports anything else, and returns an empty one."""
    if isinstance(value, dict):
        return value
    label = (
        ".".join(map(str, place)).removeprefix("parameters.")
        or f"the file (sections: {', '.join(PARTS)})"
    )
    report.add(place, f"{label}: must be a mapping, but got {described(value)}")
    return {}


def listed(value: object) -> list[object]:
    """Returns a list; anything else as a list of one."""
    return value if isinstance(value, list) else [value]


def read_models(parts: Mapping[str, object], report: Report) -> tuple[str, ...]:
    """Returns the names of the models; all, when the file gives none that is known."""
    given, models = listed(parts.get("model", [])), list[str]()
    for value in given:
        with report.at("model"):
            models.append(canonical_model(value))
    if len(set(models)) < len(models):
        report.add(("model",), "model: a model is listed twice")
    if not given:
        report.add(("model",), f"model is missing; known: {', '.join(MODELS)}")
    return tuple(dict.fromkeys(models)) or MODELS


def read_section(
    name: str, parts: Mapping[str, object], report: Report, is_past: bool = False
) -> dict[str, Any]:
    """Returns the section's values in their kinds, defaults where it has none; all defaults when it has a problem.

    With `is_past` the section is of a search that has begun, perhaps under an earlier version.
    """
    arguments, before = (
        {argument.name: argument for argument in SECTIONS[name]},
        len(report.problems),
    )
    if is_past:
        arguments |= {argument.name: argument for argument in BEFORE.get(name, ())}
    defaults = {key: argument.default for key, argument in arguments.items()}
    values = dict(defaults)
    for key, given in mapping(parts.get(name, {}), (name,), report).items():
        if key not in arguments:
            report.add((name, key), f"{name}: unknown key {shown(key)}{nearest(key, arguments)}")
            continue
        with report.at(name, key, label=f"{name}.{key}: "):
            values[key] = convert(arguments[key], given)
    return values if len(report.problems) == before else defaults


def read_corpus(
    parts: Mapping[str, object], folder: Path, report: Report, files: bool = True
) -> dict[str, object]:
    """Returns the corpus section, its paths absolute: in the file they start from the file's own folder.

    With `files` False nobody looks whether its files are there.
    """
    value = parts.get("corpus", {"name": "cmudict"})
    corpus = mapping(value, ("corpus",), report)
    for key, given in corpus.items():
        values = [
            int(v) if isinstance(v, str) and re.fullmatch("-?[0-9]{1,15}", v) else v
            for v in listed(given)
        ]
        if "name" not in corpus and key in CORPUS_FILES:
            values = [str(folder / v) if isinstance(v, str) and v else v for v in values]
        corpus[key] = values if isinstance(given, list) else values[0]
    for key, problem in check_corpus(corpus, files) if isinstance(value, dict) else ():
        report.add(("corpus", key), f"corpus.{key}: {problem}" if key else f"corpus: {problem}")
    return corpus


def parse_corpus(text: str) -> dict[str, object]:
    """Returns the corpus that an argument names: one built in, a mapping as in a file, or the corpus of a file.

    Raises ConfigError with all problems.
    """
    report = Report("--corpus")
    if Path(text).suffix in (".yaml", ".yml"):
        path = Path(text)
        report.where = f"--corpus {text}"
        corpus = read_corpus(read_parts(path, report)[1], path.absolute().parent, report)
    else:
        value = _tree(text, report)
        corpus = read_corpus(
            {"corpus": value if isinstance(value, dict) else {"name": value}}, Path(), report
        )
        report.problems = [
            (0, problem) for _, problem in report.problems
        ]  # an argument has no lines
    report.fail()
    return corpus
