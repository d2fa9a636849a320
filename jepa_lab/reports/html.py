"""The report as one HTML file: no network, no other files, readable without JavaScript."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from jepa_lab.reports.cells import Cell, Column, TextTable
from jepa_lab.reports.page import SCRIPT, STYLE
from jepa_lab.reports.style import Drawing

# Characters that HTML does not allow even as references, and halves of surrogate pairs, which UTF-8 has not.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


_LONG = 24  # characters; a column of longer texts is kept from becoming a column of syllables
_JOINTS = re.compile(r"(?<=[./_=,:-])(?=[^\s./_=,:-])")


@dataclass(frozen=True)
class Picture:
    """A drawing in both themes, as PNGs."""

    drawing: Drawing
    light: bytes
    dark: bytes


@dataclass(frozen=True)
class Section:
    """A part of the page, under a heading of its own.

    Attributes:
        anchor: its id.
        notes: a list below the table.
    """

    anchor: str
    heading: str
    table: TextTable | None = None
    notes: Sequence[str] = ()
    pictures: Sequence[Picture] = ()


def render_html(title: str, summary: Sequence[str], sections: Sequence[Section]) -> str:
    """The page.

    Args:
        summary: sentences under the title.
    """
    links = "".join(f'<li><a href="#{each.anchor}">{text(each.heading)}</a></li>' for each in sections)
    paragraphs = "".join(f"<p>{text(sentence)}</p>" for sentence in summary)
    body = "\n".join(_section(each) for each in sections)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; \
script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'">
<link rel="icon" href="data:,">
<title>{text(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<a class="skip" href="#main">Skip to the content</a>
<header>
<h1>{text(title)}</h1>
{paragraphs}
<nav aria-label="Contents"><ul>{links}</ul></nav>
</header>
<main id="main" tabindex="-1">
{body}
</main>
<p class="said" role="status" aria-live="polite"></p>
<script>{SCRIPT}</script>
</body>
</html>
"""


def text(value: str) -> str:
    """The text as HTML that shows it, also within an attribute."""
    return escape(_FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", value), quote=True)


def _breakable(value: str) -> str:
    """The text, with places where a line may end within a long key or path."""
    return "<wbr>".join(text(piece) for piece in _JOINTS.split(value))


def _section(section: Section) -> str:
    parts = [f'<section id="{section.anchor}" aria-labelledby="{section.anchor}-heading">']
    parts.append(f'<h2 id="{section.anchor}-heading">{text(section.heading)}</h2>')
    if section.table is not None:
        parts.append(_table(section.table))
    if section.notes:
        parts.append(f"<ul>{''.join(f'<li>{text(note)}</li>' for note in section.notes)}</ul>")
    parts += [_picture(picture) for picture in section.pictures]
    return "\n".join([*parts, "</section>"])


def _table(table: TextTable) -> str:
    heads = "".join(_head(column) for column in table.columns)
    rows = "\n".join(f"<tr>{_row(row, table.columns)}</tr>" for row in table.rows)
    caption = text(table.caption)
    # A region that scrolls must be reachable by keyboard, and needs a name then.
    return (
        f'<div class="scroll" role="region" aria-label="{caption}" tabindex="0"><table>'
        f"<caption>{caption}</caption>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>"
    )


def _head(column: Column) -> str:
    detail = f" <small>{text(column.detail)}</small>" if column.detail else ""
    kind = ' class="number"' if column.numeric else ""
    return f'<th scope="col"{kind}><span>{_breakable(column.heading)}</span>{detail}</th>'


def _row(row: Sequence[Cell], columns: Sequence[Column]) -> str:
    cells = []
    for index, (cell, column) in enumerate(zip(row, columns, strict=True)):
        kind = ' class="number"' if column.numeric else ' class="long"' if len(cell.text) >= _LONG else ""
        size = "" if cell.sort is None else f' data-sort="{"" if math.isnan(cell.sort) else repr(float(cell.sort))}"'
        shown = text(cell.text) if column.numeric else _breakable(cell.text)
        shown = f"<strong>{shown}</strong>" if cell.bold else shown
        tag = ("th", ' scope="row"') if index == 0 else ("td", "")
        cells.append(f"<{tag[0]}{tag[1]}{kind}{size}>{shown}</{tag[0]}>")
    return "".join(cells)


def _picture(picture: Picture) -> str:
    drawing = picture.drawing
    light, dark = (f"data:image/png;base64,{base64.b64encode(png).decode()}" for png in (picture.light, picture.dark))
    width, height = (int.from_bytes(picture.light[start : start + 4], "big") // 2 for start in (16, 20))
    return (
        f'<figure><figcaption>{text(drawing.title)}</figcaption><div class="scroll" role="region" tabindex="0" '
        f'aria-label="{text(drawing.title)}"><picture><source media="(prefers-color-scheme: dark)" srcset="{dark}">'
        f'<img src="{light}" width="{width}" height="{height}" alt="{text(drawing.alt)}"></picture></div>'
        f"<details><summary>In words</summary><p>{text(drawing.alt)}</p></details></figure>"
    )
