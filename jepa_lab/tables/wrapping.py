"""Breaking text into lines of a terminal: between words, and a long word at the joints of its name."""

from __future__ import annotations

import re

from rich.cells import cell_len, set_cell_size

# An interval or a list in brackets is read as one word.
_WORD = re.compile(r"(?:\[[^\[\]]*\]|\S)+")
_LIST = re.compile(r"(\[[^\[\]]*\][^\w\s]*)")
# After a joint of a name or a key, never before a number's digits (1e-05, 0.15) and never leaving a joint alone.
_JOINT = re.compile(r"(?<=[^\W_][/_.=,(:-])(?=[^\W\d_])|(?<=[=,])(?=[\[\d])|(?<=, )(?=\S)")


def shown(text: str) -> str:
    """The text with nothing in it that moves the cursor or changes colours: such characters are written as escapes."""
    spaced = text.replace("\t", " ")
    return "".join(
        each if each.isprintable() or each == "\n" else each.encode("unicode_escape").decode() for each in spaced
    )


def words_of(text: str) -> list[str]:
    """The words that are kept whole where there is room for them."""
    return _WORD.findall(text)


def pieces_of(word: str) -> list[str]:
    """A word cut at its joints: `probe/validation_accuracy` is `probe/`, `validation_`, `accuracy`. Lists are whole."""
    parts = _LIST.split(word)  # every second one is a list
    return [
        piece for place, part in enumerate(parts) for piece in ([part] if place % 2 else _JOINT.split(part)) if piece
    ]


def longest(parts: list[str]) -> int:
    """Columns of a terminal that the longest part takes; letters of some scripts take two."""
    return max(map(cell_len, parts), default=0)


def wrap(text: str, width: int) -> list[str]:
    """Lines of at most `width` columns, at least one. Line ends of the text stay.

    A word longer than a line is broken at its joints, and letter by letter only where a piece is still too long.
    """
    return [line for paragraph in text.split("\n") for line in _wrap_paragraph(paragraph, width)]


def _wrap_paragraph(text: str, width: int) -> list[str]:
    if cell_len(text) <= width:
        return [text]
    lines = [""]
    for word in words_of(text):
        together = f"{lines[-1]} {word}" if lines[-1] else word
        if cell_len(together) <= width:
            lines[-1] = together
        else:
            lines += _broken(word, width)
    return lines if lines[0] or len(lines) == 1 else lines[1:]


def _broken(word: str, width: int) -> list[str]:
    """A word that begins a line, on as many lines as it needs."""
    if cell_len(word) <= width:
        return [word]
    lines = [""]
    pieces = [
        part for piece in pieces_of(word) for part in ([piece] if cell_len(piece) <= width else _JOINT.split(piece))
    ]
    for piece in pieces:
        if lines[-1] and cell_len(lines[-1] + piece.rstrip()) > width:
            lines.append("")
        lines[-1] += piece
        while cell_len(lines[-1].rstrip()) > width:
            head = set_cell_size(lines[-1], width).rstrip()
            lines[-1:] = [head, lines[-1][len(head) :]]
    return [line.rstrip() for line in lines]
