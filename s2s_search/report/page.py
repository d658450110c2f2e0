"""What a report is set from: text, tables and figures, each as HTML and as Markdown.

In a text `code` is between backticks, the one markup there is. Whatever comes from a search goes through `code` or
stands in a table, so that no label, message or setting is taken for markup.
"""

import html
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from s2s_search.errors import printable

TEMPLATE = Path(__file__).with_name("template.html")
MARKDOWN_ROWS = 25  # of a ranking: as many as a reader of plain text wants
SHORT = 24  # letters that a cell keeps in one line

Rows = Sequence[Sequence[str]]


class Block(Protocol):
    """A part of a page."""

    def html(self) -> str: ...

    def markdown(self) -> str: ...


def code(text: object) -> str:
    """Foreign text as a part of a Text."""
    return (
        "`" + (printable(str(text)).replace("`", "'") or '""') + "`"
    )  # two backticks would begin other code


@dataclass(frozen=True)
class Text:
    text: str
    kind: str = ""  # "note": an aside that says how to read what follows; "warning"

    def html(self) -> str:
        return f"<p{_class(self.kind)}>{_inline(self.text)}</p>"

    def markdown(self) -> str:
        return self.text


@dataclass(frozen=True)
class Heading:
    text: str

    def html(self) -> str:
        return f"<h3>{html.escape(self.text)}</h3>"

    def markdown(self) -> str:
        return f"### {self.text}"


@dataclass(frozen=True)
class List:
    items: Sequence[str]

    def html(self) -> str:
        return "<ul>" + "".join(f"<li>{_inline(item)}</li>" for item in self.items) + "</ul>"

    def markdown(self) -> str:
        return "\n".join(f"- {item}" for item in self.items)


@dataclass(frozen=True)
class Code:
    """Lines to copy; with a title they are folded until they are asked for."""

    text: str
    title: str = ""

    def html(self) -> str:
        lines = f'<pre tabindex="0"><code>{html.escape(self.text)}</code></pre>'
        return (
            f"<details><summary>{html.escape(self.title)}</summary>{lines}</details>"
            if self.title
            else lines
        )

    def markdown(self) -> str:
        longest = max(map(len, re.findall("`+", self.text)), default=0)
        fence = "`" * max(3, longest + 1)  # indented lines would belong to a list before them
        title = f"{self.title}:\n\n" if self.title else ""
        return f"{title}{fence}\n{self.text}\n{fence}"


@dataclass(frozen=True)
class Table:
    """A table, `numbers` its columns that are set to the right; with a title it is folded until it is asked for."""

    columns: Sequence[str]
    rows: Rows
    numbers: Sequence[str] = ()
    title: str = ""

    def html(self) -> str:
        head = "".join(
            f'<th scope="col"{self._kind(k)}>{_breakable(name)}</th>'
            for k, name in enumerate(self.columns)
        )
        body = "".join(f"<tr>{self._cells(row)}</tr>" for row in self.rows)
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        table = f'<div class="scroll" tabindex="0" role="region" aria-label="table">{table}</div>'
        return (
            f"<details><summary>{html.escape(self.title)}</summary>{table}</details>"
            if self.title
            else table
        )

    def _cells(self, row: Sequence[str]) -> str:
        return "".join(
            f"<td{self._kind(k, text)}>{html.escape(text)}</td>" for k, text in enumerate(row)
        )

    def _kind(self, column: int, text: str = " " * SHORT) -> str:
        return _class(
            "number"
            if self.columns[column] in self.numbers
            else "short"
            if len(text) < SHORT
            else ""
        )

    def markdown(self) -> str:
        lines = [
            self.columns,
            ["---:" if column in self.numbers else "---" for column in self.columns],
            *self.rows,
        ]
        return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


@dataclass(frozen=True)
class Ranking(Table):
    """A table that the page sorts, filters and shows by the page, however many rows it has."""

    label: str = "ranking"

    def html(self) -> str:
        data = {
            "columns": self.columns,
            "numbers": [column in self.numbers for column in self.columns],
            "rows": self.rows,
        }
        return f'<div class="ranking" data-label="{html.escape(self.label)}">{_json(data)}</div>'

    def markdown(self) -> str:
        first = Table(self.columns, self.rows[:MARKDOWN_ROWS], self.numbers).markdown()
        left_out = len(self.rows) - MARKDOWN_ROWS
        return first + (f"\n\n{left_out:,} more in trials.csv" if left_out > 0 else "")


@dataclass(frozen=True)
class Figure:
    """A figure with a sentence that says how to read it; `run` is the number of the run whose trials it shows.

    width: pixels that it needs at least; where there are fewer, it is moved sideways.
    """

    figure: go.Figure
    caption: str
    run: int = 0
    title: str = ""
    width: int = 0

    def html(self) -> str:
        size = f"min-height:{self.figure.layout.height}px;min-width:{self.width}px"
        label = html.escape(f"{self.title} {self.caption}".replace("`", "").strip())
        heading = f"<h3>{_breakable(self.title)}</h3>" if self.title else ""
        data = _json(json.loads(self.figure.to_json()))
        plot = f'<div class="plot" data-run="{self.run}" style="{size}" role="img" aria-label="{label}">{data}</div>'
        if self.width:
            plot = (
                f'<div class="scroll" tabindex="0" role="region" aria-label="{label}">{plot}</div>'
            )
        return f"<figure>{heading}{plot}<figcaption>{_inline(self.caption)}</figcaption></figure>"

    def markdown(self) -> str:
        return "\n\n".join(
            filter(None, (f"### {code(self.title)}" if self.title else "", self.caption))
        )


@dataclass(frozen=True)
class Grid:
    """Small parts that stand beside one another where there is room."""

    parts: Sequence[Sequence[Block]]

    def html(self) -> str:
        parts = ("".join(block.html() for block in part) for part in self.parts)
        return '<div class="grid">' + "".join(f"<div>{part}</div>" for part in parts) + "</div>"

    def markdown(self) -> str:
        return "\n\n".join(
            filter(None, (block.markdown() for part in self.parts for block in part))
        )


@dataclass(frozen=True)
class Section:
    """A heading, a sentence on how to read what follows, and blocks: in a column a run, each under the run's name."""

    title: str
    how: str
    columns: Sequence[Sequence[Block]]
    names: Sequence[str] = ()

    @property
    def anchor(self) -> str:
        return re.sub("[^a-z]+", "-", self.title.lower()).strip("-")

    def html(self) -> str:
        how = Text(self.how, "note").html() if self.how else ""
        parts = []
        for name, blocks in zip(self.names or [""] * len(self.columns), self.columns, strict=True):
            heading = f'<p class="run">{html.escape(name)}</p>' if name else ""
            parts.append(f"<div>{heading}{''.join(block.html() for block in blocks)}</div>")
        columns = (
            f'<div class="columns">{"".join(parts)}</div>' if len(parts) > 1 else "".join(parts)
        )
        heading = (
            f'<h2 id="{self.anchor}"><a href="#{self.anchor}">{html.escape(self.title)}</a></h2>'
        )
        return f'<section aria-labelledby="{self.anchor}">{heading}{how}{columns}</section>'

    def markdown(self) -> str:
        parts = [f"## {self.title}", self.how]
        for name, blocks in zip(self.names or [""] * len(self.columns), self.columns, strict=True):
            parts += [f"**{code(name)}**" if name else "", *(block.markdown() for block in blocks)]
        return "\n\n".join(filter(None, parts))


def as_html(
    title: str,
    about: str,
    sections: Sequence[Section],
    labels: Sequence[Sequence[str]],
    dark: Mapping[str, str],
) -> str:
    """The page: one file that asks for nothing else.

    labels: for each run what is said of each of its trials where the pointer is on it; dark: colours and their twins.
    """
    contents = "".join(
        f'<li><a href="#{section.anchor}">{html.escape(section.title)}</a></li>'
        for section in sections
    )
    parts = {
        "TITLE": html.escape(title),
        "ABOUT": Text(about).html(),
        "CONTENTS": contents,
        "SECTIONS": "\n".join(section.html() for section in sections),
        "LABELS": _json(labels, "labels"),
        "DARK": _json(dark, "dark"),
        "PLOTLY": get_plotlyjs(),
    }
    return re.sub(
        r"\{\{([A-Z]+)\}\}", lambda match: parts[match[1]], TEMPLATE.read_text(encoding="utf-8")
    )


def as_markdown(title: str, about: str, sections: Iterable[Section]) -> str:
    return (
        "\n\n".join([f"# {_cell(title)}", about, *(section.markdown() for section in sections)])
        + "\n"
    )


def _inline(text: str) -> str:
    return re.sub("`([^`]*)`", r"<code>\1</code>", html.escape(text))


def _class(name: str) -> str:
    return f' class="{name}"' if name else ""


def _breakable(name: str) -> str:
    """A dotted name that may break behind its dots."""
    return html.escape(name).replace(".", ".<wbr>")


def _cell(text: str) -> str:
    """Text of a Markdown table, in which nothing is markup: no tag, link or code, and no end of a cell."""
    text = re.sub(r"([\\|<>`*\[\]~&]|(?<!\w)_|_(?!\w))", r"\\\1", printable(text))
    return re.sub(
        r"(?<=:)(?=//)|(?<=www)(?=\.)|(?=@)", r"\\", text
    )  # else a bare address becomes a link


def _json(data: Any, name: str = "") -> str:
    """Data inside a page; no text in it can end the element."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return f'<script type="application/json"{f" id={name}" if name else ""}>{text}</script>'
