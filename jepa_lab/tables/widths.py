"""Which columns of a table stand side by side in a terminal, and how wide each is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jepa_lab.tables.cells import TextTable
from jepa_lab.tables.wrapping import longest, pieces_of, words_of

GAP = 2
"""Spaces between columns."""


@dataclass(frozen=True)
class Block:
    """Columns side by side.

    Attributes:
        columns: indices into the table's columns, the first column among them.
        widths: of each, in columns of the terminal.
    """

    columns: tuple[int, ...]
    widths: tuple[int, ...]


def blocks_of(table: TextTable, width: int) -> list[Block]:
    """All columns of the table, in as few blocks as fit into `width`, the first column in each.

    Groups stay together and fill the first block that has room for them; a group wider than the terminal is divided.
    """
    least = [_least_width(table, index, width) for index in range(len(table.columns))]

    def fits(columns: Sequence[int]) -> bool:
        return _total([least[index] for index in columns]) <= width

    blocks: list[list[int]] = [[0]]
    for group in _groups(table):
        roomy = next((block for block in blocks if fits([*block, *group])), None)
        if roomy is not None:
            roomy += group
            continue
        for index in group:
            alone = blocks[-1] == [0]  # a column that does not fit even so is shown all the same
            if alone or (index != group[0] and fits([*blocks[-1], index])):
                blocks[-1].append(index)
            else:
                blocks.append([0, index])
    return [Block(tuple(block), _widened(table, block, least, width)) for block in blocks]


def natural_width(table: TextTable) -> int:
    """Columns of the terminal in which every cell and heading is one line."""
    return _total([_natural(table, index) for index in range(len(table.columns))])


def _groups(table: TextTable) -> list[list[int]]:
    """Indices of the columns after the first, by group, in the order in which the groups begin."""
    found: dict[int, list[int]] = {}
    for index, column in enumerate(table.columns[1:], start=1):
        found.setdefault(column.group, []).append(index)
    return list(found.values())


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + GAP * (len(widths) - 1)


def _least_width(table: TextTable, index: int, width: int) -> int:
    """Room for the longest word of the cells and the longest piece of the heading.

    Words of a name that would take more than their share of the terminal are broken at their joints.
    """
    column = table.columns[index]
    heading = longest([piece for word in words_of(column.heading) for piece in pieces_of(word)])
    heading = max(heading, longest(words_of(column.detail)))
    cells = longest([word for row in table.rows for word in words_of(row[index].text)])
    most = max(8, width // 4 if index == 0 else width // 2)
    return max(heading, cells if column.numeric else min(cells, most))


def _cells_width(table: TextTable, index: int) -> int:
    return longest([line for row in table.rows for line in row[index].text.split("\n")])


def _natural(table: TextTable, index: int) -> int:
    column = table.columns[index]
    return max(_cells_width(table, index), longest([column.heading, column.detail]))


def _widened(table: TextTable, block: Sequence[int], least: Sequence[int], width: int) -> tuple[int, ...]:
    """The least widths, and the room that is left given away so that cells, then headings, are one line.

    Names come first. Any room helps words; intervals are made one line all together or not at all.
    """
    widths = {index: least[index] for index in block}
    spare = width - _total(list(widths.values()))

    def need(index: int) -> int:
        return max(0, _cells_width(table, index) - widths[index])

    for index in sorted(
        (each for each in block if not table.columns[each].numeric), key=lambda each: (each > 0, need(each))
    ):
        given = max(0, min(need(index), spare))
        widths[index] += given
        spare -= given
    numeric = [index for index in block if table.columns[index].numeric]
    if sum(map(need, numeric)) <= spare:
        spare -= sum(map(need, numeric))
        widths |= {index: widths[index] + need(index) for index in numeric}
    for index in sorted(block, key=lambda each: _natural(table, each) - widths[each]):
        missing = _natural(table, index) - widths[index]
        is_torn = table.columns[index].numeric and need(index) > 0
        if 0 < missing <= spare and not is_torn:
            widths[index] += missing
            spare -= missing
    return tuple(widths.values())
