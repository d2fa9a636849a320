"""The report as one HTML file: no network, no other files, readable without JavaScript."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from jepa_lab.figures.style import DARK, LIGHT, Drawing, for_phones, png
from jepa_lab.reports.page import SCRIPT, STYLE
from jepa_lab.tables.cells import Cell, Column, TextTable

# Characters that HTML does not allow even as references, and halves of surrogate pairs, which UTF-8 has not.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


_LONG = 24  # characters; a column of longer texts is kept from becoming a column of syllables
_JOINTS = re.compile(r"(?<=[./_=,:-])(?=[^\s./_=,:-])")
_PHONE = "(max-width: 40rem)"


@dataclass(frozen=True)
class Picture:
    """A drawing in both themes and in two widths, as PNGs."""

    drawing: Drawing
    light: bytes
    dark: bytes
    narrow_light: bytes
    narrow_dark: bytes


def picture_of(drawing: Drawing) -> Picture:
    """Draw it for light and dark screens, of desktops and of phones."""
    narrow = (png(drawing, for_phones(theme)) for theme in (LIGHT, DARK))
    return Picture(drawing, png(drawing, LIGHT), png(drawing, DARK), *narrow)


@dataclass(frozen=True)
class Section:
    """A part of the page, under a heading of its own.

    Attributes:
        anchor: its id.
        notes: a list below the table.
        footnotes: a list in small print below the pictures.
        files: beside the page, which have all of the table.
    """

    anchor: str
    heading: str
    table: TextTable | None = None
    notes: Sequence[str] = ()
    pictures: Sequence[Picture] = ()
    footnotes: Sequence[str] = ()
    files: Sequence[str] = ()


def render_html(title: str, summary: Sequence[str], sections: Sequence[Section], verdict: str | None = None) -> str:
    """The page.

    Args:
        summary: sentences under the title.
        verdict: what a reader must know before anything else; it stands above them.
    """
    links = "".join(f'<li><a href="#{each.anchor}">{text(each.heading)}</a></li>' for each in sections)
    paragraphs = "" if verdict is None else f'<p class="verdict">{text(verdict)}</p>'
    paragraphs += "".join(f"<p>{text(sentence)}</p>" for sentence in summary)
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
    if section.files:
        links = ", ".join(f'<a href="{text(name)}">{text(name)}</a>' for name in section.files)
        parts.append(f'<p class="files">As a file beside this page: {links}</p>')
    parts += [_list(section.notes)] if section.notes else []
    parts += [_picture(picture) for picture in section.pictures]
    parts += [_list(section.footnotes, ' class="footnotes"')] if section.footnotes else []
    return "\n".join([*parts, "</section>"])


def _list(notes: Sequence[str], attributes: str = "") -> str:
    return f"<ul{attributes}>{''.join(f'<li>{text(note)}</li>' for note in notes)}</ul>"


def _table(table: TextTable) -> str:
    heads = "".join(_head(column) for column in table.columns)
    rows = "\n".join(f'<tr role="row">{_row(row, table.columns)}</tr>' for row in table.rows)
    caption = text(table.caption)
    # A region that scrolls must be reachable by keyboard, and needs a name then. The roles are those that the tags
    # have anyway, until a phone's layout, which is no table, would take them away.
    return (
        f'<div class="scroll" role="region" aria-label="{caption}" tabindex="0"><table role="table">'
        f'<caption>{caption}</caption>\n<thead role="rowgroup"><tr role="row">{heads}</tr></thead>\n'
        f'<tbody role="rowgroup">\n{rows}\n</tbody></table></div>'
    )


def _head(column: Column) -> str:
    detail = f" <small>{text(column.detail)}</small>" if column.detail else ""
    kind = ' class="number"' if column.numeric else ""
    return f'<th scope="col" role="columnheader"{kind}><span>{_breakable(column.heading)}</span>{detail}</th>'


def _row(row: Sequence[Cell], columns: Sequence[Column]) -> str:
    cells = []
    for index, (cell, column) in enumerate(zip(row, columns, strict=True)):
        kind = ' class="number"' if column.numeric else ' class="long"' if len(cell.text) >= _LONG else ""
        size = "" if cell.sort is None else f' data-sort="{"" if math.isnan(cell.sort) else repr(float(cell.sort))}"'
        shown = _number(cell.text) if column.numeric else _breakable(cell.text)
        shown = f"<strong>{shown}</strong>" if cell.bold else shown
        heading = text(f"{column.heading} {column.detail}".strip())
        shown = f'<span class="heading" aria-hidden="true">{heading}</span><span>{shown}</span>' if cell.text else ""
        tag = ("th", ' scope="row" role="rowheader"') if index == 0 else ("td", ' role="cell"')
        cells.append(f"<{tag[0]}{tag[1]}{kind}{size}>{shown}</{tag[0]}>")
    return "".join(cells)


def _number(value: str) -> str:
    """A number with its interval, which may go into a line of its own but is not torn."""
    mean, bracket, rest = value.partition(" [")
    return f"{text(mean)} <span>[{text(rest)}</span>" if bracket else text(value)


def _picture(picture: Picture) -> str:
    drawing = picture.drawing
    dark = "(prefers-color-scheme: dark)"
    sources = "".join(
        f'<source media="{media}" srcset="{_data(image)}" {_size(image)}>'
        for media, image in (
            (f"{_PHONE} and {dark}", picture.narrow_dark),
            (_PHONE, picture.narrow_light),
            (dark, picture.dark),
        )
    )
    return (
        f"<figure><figcaption>{text(drawing.title)}</figcaption><picture>{sources}"
        f'<img src="{_data(picture.light)}" {_size(picture.light)} alt="{text(drawing.alt)}"></picture>'
        f"<details><summary>In words</summary><p>{text(drawing.alt)}</p></details></figure>"
    )


def _data(image: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(image).decode()}"


def _size(image: bytes) -> str:
    """Half of its pixels: figures have twice what a screen shows."""
    width, height = (int.from_bytes(image[start : start + 4], "big") // 2 for start in (16, 20))
    return f'width="{width}" height="{height}"'
