"""Tables in Markdown (GitHub's pipes)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from jepa_lab.tables.cells import Cell, Column, TextTable

_INVISIBLE = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]+")  # line ends would end the row
# An underscore within a word, as in validation_accuracy, means nothing in Markdown and reads better bare.
_SPECIAL = re.compile(r"([\\`*\[\]|~$#!]|(?<![0-9A-Za-z])_|_(?![0-9A-Za-z]))")


def render_markdown(tables: Sequence[tuple[TextTable, Sequence[str]]]) -> str:
    """Each table with its caption as a heading and its footnotes as a list."""
    return "\n".join(_render(table, footnotes) for table, footnotes in tables)


def escape_markdown(text: str) -> str:
    """The text as Markdown that shows it: no markup, no HTML, no end of a cell."""
    one_line = _INVISIBLE.sub(" ", text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _SPECIAL.sub(r"\\\1", one_line)


def _render(table: TextTable, footnotes: Sequence[str]) -> str:
    lines = [
        f"## {escape_markdown(table.caption)}",
        "",
        _line([f"{escape_markdown(column.heading)} {column.detail}".strip() for column in table.columns]),
        _line(["---:" if column.numeric else "---" for column in table.columns]),
        *(_line([_cell(cell, column) for cell, column in zip(row, table.columns, strict=True)]) for row in table.rows),
        "",
        *(f"- {escape_markdown(note)}" for note in footnotes),
        *([""] if footnotes else []),
    ]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(cell: Cell, column: Column) -> str:
    # The brackets of an interval begin no link, and read better bare.
    text = cell.text if column.numeric else escape_markdown(cell.text)
    return f"**{text}**" if cell.bold else text
