"""The table in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from jepa_lab.reports.cells import TextTable

_WIDE = 170


def print_text_table(table: TextTable, footnotes: Sequence[str], console: Console) -> None:
    """Print a table; names fold rather than being cut. A narrow terminal gets fewer columns, and says so."""
    shown = list(range(len(table.columns)))
    if console.width < _WIDE:
        shown = [index for index in shown if table.columns[index].essential]
    drawn = RichTable(title=Text(table.caption), title_justify="left")
    for index in shown:
        column = table.columns[index]
        heading = Text(column.heading + (f"\n{column.detail}" if column.detail else ""), overflow="fold")
        drawn.add_column(heading, justify="right" if column.numeric else "left", overflow="fold")
    for row in table.rows:
        drawn.add_row(*(Text(row[index].text, style="bold" if row[index].bold else "") for index in shown))
    console.print(drawn)
    if len(shown) < len(table.columns):
        left_out = [column.heading for index, column in enumerate(table.columns) if index not in shown]
        console.print(Text(f"Not shown in {console.width} columns: {', '.join(left_out)}."))
    for note in footnotes:
        console.print(Text(f"- {note}"))
