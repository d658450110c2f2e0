"""The blocks of a report: text, tables and figures, each as HTML and as Markdown.

The only markup of a text is `code` between backticks. Whatever comes from a search goes through
`code` or stands in a table, so that no label, message or setting is taken for markup.
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
MARKDOWN_ROWS = 25  # the most rows of a ranking in Markdown
SHORT = 24  # a cell with fewer characters is not broken into lines

TableRows = Sequence[Sequence[str]]


class Block(Protocol):
    """A part of a page."""

    def html(self) -> str: ...

    def markdown(self) -> str: ...


def code(text: object) -> str:
    """Returns text that comes from a search as code, to be put into a Text."""
    # Two backticks without anything between them would begin other code, so empty text is quoted.
    inside = printable(str(text)).replace("`", "'") or '""'
    return f"`{inside}`"


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
    """Lines to copy. With a title, the lines are folded until a reader opens them."""

    text: str
    title: str = ""

    def html(self) -> str:
        lines = f'<pre tabindex="0"><code>{html.escape(self.text)}</code></pre>'
        return _folded(self.title, lines)

    def markdown(self) -> str:
        # A fence, because indented lines would belong to a list before them.
        longest = max(map(len, re.findall("`+", self.text)), default=0)
        fence = "`" * max(3, longest + 1)
        title = f"{self.title}:\n\n" if self.title else ""
        return f"{title}{fence}\n{self.text}\n{fence}"


@dataclass(frozen=True)
class Table:
    """A table. With a title, the table is folded until a reader opens it.

    numbers: the columns that are aligned to the right.
    """

    columns: Sequence[str]
    rows: TableRows
    numbers: Sequence[str] = ()
    title: str = ""

    def html(self) -> str:
        head = ""
        for k, name in enumerate(self.columns):
            head += f'<th scope="col"{self._kind(k)}>{_breakable(name)}</th>'
        body = "".join(f"<tr>{self._cells(row)}</tr>" for row in self.rows)
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        table = f'<div class="scroll" tabindex="0" role="region" aria-label="table">{table}</div>'
        return _folded(self.title, table)

    def _cells(self, row: Sequence[str]) -> str:
        cells = ""
        for k, text in enumerate(row):
            cells += f"<td{self._kind(k, text)}>{html.escape(text)}</td>"
        return cells

    def _kind(self, column: int, text: str = " " * SHORT) -> str:
        if self.columns[column] in self.numbers:
            return _class("number")
        if len(text) < SHORT:
            return _class("short")
        return ""

    def markdown(self) -> str:
        rule = ["---:" if column in self.numbers else "---" for column in self.columns]
        lines = [self.columns, rule, *self.rows]
        return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


@dataclass(frozen=True)
class Ranking(Table):
    """A table that a reader of the page can sort and filter, and that shows its rows in parts."""

    label: str = "ranking"

    def html(self) -> str:
        data = {
            "columns": self.columns,
            "numbers": [column in self.numbers for column in self.columns],
            "rows": self.rows,
        }
        return f'<div class="ranking" data-label="{html.escape(self.label)}">{_json(data)}</div>'

    def markdown(self) -> str:
        text = Table(self.columns, self.rows[:MARKDOWN_ROWS], self.numbers).markdown()
        left_out = len(self.rows) - MARKDOWN_ROWS
        if left_out > 0:
            text += f"\n\n{left_out:,} more in trials.csv"
        return text


@dataclass(frozen=True)
class Figure:
    """A figure with a caption that says how to read it.

    run: the number of the run whose trials the figure shows
    width: the least width in pixels; on a narrower page the figure can be scrolled sideways
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
        plot = (
            f'<div class="plot" data-run="{self.run}" style="{size}" role="img" '
            f'aria-label="{label}">{data}</div>'
        )
        if self.width:
            region = f'class="scroll" tabindex="0" role="region" aria-label="{label}"'
            plot = f"<div {region}>{plot}</div>"
        return f"<figure>{heading}{plot}<figcaption>{_inline(self.caption)}</figcaption></figure>"

    def markdown(self) -> str:
        heading = f"### {code(self.title)}" if self.title else ""
        return _paragraphs([heading, self.caption])


@dataclass(frozen=True)
class Grid:
    """Small parts, side by side where the page is wide enough."""

    parts: Sequence[Sequence[Block]]

    def html(self) -> str:
        cells = ""
        for part in self.parts:
            cells += f"<div>{''.join(block.html() for block in part)}</div>"
        return f'<div class="grid">{cells}</div>'

    def markdown(self) -> str:
        return _paragraphs(block.markdown() for part in self.parts for block in part)


@dataclass(frozen=True)
class Section:
    """A heading, a sentence on how to read the section, and its blocks.

    columns: the blocks of each run, side by side
    names: the names of the runs, as headings of the columns; none if there is one run
    """

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
        columns = "".join(parts)
        if len(parts) > 1:
            columns = f'<div class="columns">{columns}</div>'
        link = f'<a href="#{self.anchor}">{html.escape(self.title)}</a>'
        heading = f'<h2 id="{self.anchor}">{link}</h2>'
        return f'<section aria-labelledby="{self.anchor}">{heading}{how}{columns}</section>'

    def markdown(self) -> str:
        parts = [f"## {self.title}", self.how]
        for name, blocks in zip(self.names or [""] * len(self.columns), self.columns, strict=True):
            if name:
                parts.append(f"**{code(name)}**")
            parts += [block.markdown() for block in blocks]
        return _paragraphs(parts)


def as_html(
    title: str,
    about: str,
    sections: Sequence[Section],
    labels: Sequence[Sequence[str]],
    dark: Mapping[str, str],
) -> str:
    """Returns the page as one file that loads nothing else.

    Args:
        title: the title of the page.
        about: the sentence below the title.
        sections: the sections of the page.
        labels: for each run, the text that the pointer shows for each of its trials.
        dark: for each colour of a figure, the colour that a dark page shows instead.
    """
    contents = ""
    for section in sections:
        contents += f'<li><a href="#{section.anchor}">{html.escape(section.title)}</a></li>'
    parts = {
        "TITLE": html.escape(title),
        "ABOUT": Text(about).html(),
        "CONTENTS": contents,
        "SECTIONS": "\n".join(section.html() for section in sections),
        "LABELS": _json(labels, "labels"),
        "DARK": _json(dark, "dark"),
        "PLOTLY": get_plotlyjs(),
    }
    template = TEMPLATE.read_text(encoding="utf-8")
    return re.sub(r"\{\{([A-Z]+)\}\}", lambda match: parts[match[1]], template)


def as_markdown(title: str, about: str, sections: Iterable[Section]) -> str:
    """Returns the report as Markdown."""
    parts = [f"# {_cell(title)}", about]
    parts += [section.markdown() for section in sections]
    return "\n\n".join(parts) + "\n"


def _paragraphs(texts: Iterable[str]) -> str:
    """Returns the texts that are not empty, with a blank line between them."""
    return "\n\n".join(text for text in texts if text)


def _folded(title: str, content: str) -> str:
    """Returns HTML that is folded under a title; as it is if there is no title."""
    if not title:
        return content
    return f"<details><summary>{html.escape(title)}</summary>{content}</details>"


def _inline(text: str) -> str:
    return re.sub("`([^`]*)`", r"<code>\1</code>", html.escape(text))


def _class(name: str) -> str:
    return f' class="{name}"' if name else ""


def _breakable(name: str) -> str:
    """Returns a dotted name that the browser may break after its dots."""
    return html.escape(name).replace(".", ".<wbr>")


def _cell(text: str) -> str:
    """Returns text for a cell of a Markdown table, escaped so that nothing in it is markup."""
    text = re.sub(r"([\\|<>`*\[\]~&]|(?<!\w)_|_(?!\w))", r"\\\1", printable(text))
    # Without these backslashes, Markdown turns a bare address into a link.
    return re.sub(r"(?<=:)(?=//)|(?<=www)(?=\.)|(?=@)", r"\\", text)


def _json(data: Any, name: str = "") -> str:
    """Returns data as an element of a page. No text in the data can end the element."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    identity = f" id={name}" if name else ""
    return f'<script type="application/json"{identity}>{text}</script>'
