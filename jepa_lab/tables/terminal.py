"""A table in the terminal: no column is left out, no word is broken that has room, every line fits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from jepa_lab.tables.cells import Cell, Column, TextTable
from jepa_lab.tables.widths import GAP, Block, blocks_of
from jepa_lab.tables.wrapping import shown, wrap


def print_text_table(table: TextTable, footnotes: Sequence[str], console: Console) -> None:
    """Print a table with its caption and footnotes. Columns that do not fit beside the others follow below them."""
    if table.caption:
        print_wrapped(table.caption, console, style="bold")
        console.print()
    table = _printable(table)
    for number, block in enumerate(blocks_of(table, console.width)):
        if number:
            console.print()
        for line in _lines(table, block, console):
            _print_line(line, console)
    if footnotes:
        console.print()
    print_notes(footnotes, console)


def table_as_lines(table: TextTable, footnotes: Sequence[str]) -> str:
    """What `print_text_table` prints to this terminal, as text."""
    console = Console(highlight=False)
    with console.capture() as capture:
        print_text_table(table, footnotes, console)
    return capture.get()


def print_notes(notes: Iterable[str], console: Console) -> None:
    """Print sentences as a list."""
    for note in notes:
        print_wrapped(note, console, first="- ", rest="  ")


def print_wrapped(text: str, console: Console, *, first: str = "", rest: str = "", style: str = "") -> None:
    """Print a text in lines that fit; no word is broken that has room.

    Args:
        first, rest: before the first line and before the others, equally long.
    """
    for number, line in enumerate(wrap(shown(text), console.width - len(first))):
        _print_line(Text(f"{rest if number else first}{line}", style=style), console)


def print_hanging(name: str, text: str, console: Console, *, indent: int, style: str) -> None:
    """Print a name in its style and a text after it; the second and later lines are indented by two more."""
    room = " " * (indent + 2)
    for number, line in enumerate(wrap(shown(name + text), console.width - len(room))):
        if number:
            _print_line(Text(room + line), console)
        else:
            shown_name = line[: len(shown(name))]
            _print_line(Text.assemble(" " * indent, (shown_name, style), line[len(shown_name) :]), console)


def print_listing(rows: Mapping[str, str], console: Console) -> None:
    """Print names, each with its text beside it."""
    for head, line in _listing(rows, console.width):
        _print_line(Text.assemble((head.rstrip(), "bold"), " " * (len(head) - len(head.rstrip())), line), console)


def listing_lines(rows: Mapping[str, str], width: int) -> list[str]:
    """What `print_listing` prints, as lines without style."""
    return [f"{head}{line}".rstrip() for head, line in _listing(rows, width)]


def _listing(rows: Mapping[str, str], width: int) -> Iterator[tuple[str, str]]:
    """The lines of a listing: the name, or nothing, with the room after it, and a part of the text."""
    room = max(map(cell_len, rows)) + GAP
    for name, text in rows.items():
        for number, line in enumerate(wrap(shown(text), width - room)):
            head = "" if number else name
            yield head + " " * (room - cell_len(head)), line


def _print_line(line: Text, console: Console) -> None:
    line.rstrip()
    console.print(line, soft_wrap=True)  # it fits; rich would break it again by rules of its own


def _printable(table: TextTable) -> TextTable:
    columns = tuple(replace(each, heading=shown(each.heading), detail=shown(each.detail)) for each in table.columns)
    rows = tuple(tuple(replace(cell, text=shown(cell.text)) for cell in row) for row in table.rows)
    return TextTable(table.caption, columns, rows)


def _lines(table: TextTable, block: Block, console: Console) -> list[Text]:
    """Headings, a rule and the rows; an empty line between rows where a row takes several lines."""
    columns = [table.columns[index] for index in block.columns]
    rows = [[row[index] for index in block.columns] for row in table.rows]
    headings = [
        [*wrap(column.heading, width), *(wrap(column.detail, width) if column.detail else [])]
        for column, width in zip(columns, block.widths, strict=True)
    ]
    bodies = [[wrap(cell.text, width) for cell, width in zip(row, block.widths, strict=True)] for row in rows]
    rule = "─" if console.encoding.lower().startswith("utf") else "-"
    lines = _row(headings, columns, block, [Cell("")] * len(columns), at_bottom=True)
    lines.append(Text(rule * (sum(block.widths) + GAP * (len(columns) - 1))))
    is_open = any(len(texts) > 1 for body in bodies for texts in body)
    for number, (row, body) in enumerate(zip(rows, bodies, strict=True)):
        if number and is_open:
            lines.append(Text())
        lines += _row(body, columns, block, row)
    return lines


def _row(
    texts: Sequence[Sequence[str]],
    columns: Sequence[Column],
    block: Block,
    cells: Sequence[Cell],
    *,
    at_bottom: bool = False,
) -> list[Text]:
    """The lines of one row, from the lines of each of its cells."""
    height = max(map(len, texts))
    lines = []
    for number in range(height):
        line = Text()
        for place, (column, cell, width) in enumerate(zip(columns, cells, block.widths, strict=True)):
            mine = texts[place]
            offset = number - (height - len(mine) if at_bottom else 0)
            text = mine[offset] if 0 <= offset < len(mine) else ""
            room = " " * max(0, width - cell_len(text))
            line.append(" " * GAP if place else "")
            line.append(room + text if column.numeric else text + room, "bold" if cell.bold else "")
        lines.append(line)
    return lines
