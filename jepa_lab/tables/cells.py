"""A table as texts: what Markdown, LaTeX, HTML and the terminal have in common."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cell:
    """A text, not escaped for any format.

    Attributes:
        sort: what the column is sorted by; None for the text itself. NaN comes last.
    """

    text: str
    sort: float | None = None
    bold: bool = False


@dataclass(frozen=True)
class Column:
    """A heading, more words about it, and what the column holds.

    Attributes:
        group: columns of a group belong side by side. A terminal too narrow for all groups shows some of them below
            the others, each with the first column.
    """

    heading: str
    detail: str = ""
    numeric: bool = True
    group: int = 0


@dataclass(frozen=True)
class TextTable:
    """A table to be written down. The first column tells the rows apart."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]


def text_columns(*headings: str) -> tuple[Column, ...]:
    """Columns of words."""
    return tuple(Column(heading, numeric=False) for heading in headings)
