"""Names as a figure can show them: only with letters that its font has, and how much room they take."""

from __future__ import annotations

import functools

FONT = "DejaVu Sans"
"""It comes with matplotlib, so that a figure looks the same everywhere."""


def in_font(text: str) -> str:
    """The text on one line; a letter that the font lacks is its code point, so that two names stay two names."""
    known = _characters()
    return "".join(each if ord(each) in known else f"(U+{ord(each):04X})" for each in " ".join(text.split()))


def shortened(text: str, most: int) -> str:
    """At most so many letters: the middle is left out, since names differ at their beginning or at their end."""
    if len(text) <= most:
        return text
    tail = (most - 1) // 2
    return f"{text[: most - 1 - tail]}…{text[len(text) - tail :]}"


def width_in_inches(text: str, points: float) -> float:
    """Room that one line takes in letters of this size."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextToPath

    font = FontProperties(family=FONT, size=points)
    width, _, _ = TextToPath().get_text_width_height_descent(text, font, ismath=False)
    return float(width) / 72


@functools.cache
def _characters() -> frozenset[int]:
    from matplotlib.font_manager import FontProperties, findfont, get_font

    return frozenset(get_font(findfont(FontProperties(family=FONT))).get_charmap())
