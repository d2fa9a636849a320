"""The table in the terminal."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from jepa_lab.reports.cells import TextTable

_WIDE = 170
_LONG_NAME = 16
_JOINTS = re.compile(r"(?<=[/_.])(?=\w)")


def print_text_table(table: TextTable, footnotes: Sequence[str], console: Console) -> None:
    """Print a table; names fold rather than being cut. A narrow terminal gets fewer columns, and says so."""
    shown = _shown_columns(table, console.width)
    drawn = RichTable(title=Text(table.caption), title_justify="left")
    for index in shown:
        column = table.columns[index]
        words = column.heading if console.width >= _WIDE else _JOINTS.sub("\n", column.heading)
        heading = Text(words + (f"\n{column.detail}" if column.detail else ""), overflow="fold")
        drawn.add_column(heading, justify="right" if column.numeric else "left", overflow="fold")
    for row in table.rows:
        drawn.add_row(*(Text(row[index].text, style="bold" if row[index].bold else "") for index in shown))
    console.print(drawn)
    if len(shown) < len(table.columns):
        left_out = [column.heading for index, column in enumerate(table.columns) if index not in shown]
        console.print(Text(f"Not shown in {console.width} columns: {', '.join(left_out)}."))
    for note in footnotes:
        console.print(Text(f"- {note}"))


def _shown_columns(table: TextTable, width: int) -> list[int]:
    """Indices of the columns that fit: essential ones, as many of those with words as keep their words whole."""
    shown = list(range(len(table.columns)))
    if width >= _WIDE:
        return shown
    shown = [index for index in shown if table.columns[index].essential]
    droppable = [index for index in shown[1:] if not table.columns[index].numeric]
    while droppable and sum(_least_width(table, index) + 3 for index in shown) >= width:
        shown.remove(droppable.pop())
    return shown


def _least_width(table: TextTable, index: int) -> int:
    """Characters of the longest word of a column; a word of the first may be folded, since names can be long."""
    column = table.columns[index]
    pieces = [*_JOINTS.split(column.heading), *column.detail.split()]
    pieces += [word for row in table.rows for word in row[index].text.split()]
    longest = max(map(len, pieces), default=0)
    return longest if index else min(longest, _LONG_NAME)
