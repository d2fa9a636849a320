"""What a person must be able to read in a terminal of any width."""

from __future__ import annotations

import io
import re
from collections.abc import Callable

from rich.cells import cell_len
from rich.console import Console

from jepa_lab.tables.cells import TextTable

WIDTHS = (80, 120)
_LONE_JOINT = re.compile(r"(?<!\S)[_.]+(?!\S)")


def printed(width: int, show: Callable[[Console], object]) -> str:
    """What `show` prints to a terminal of this width."""
    console = Console(file=io.StringIO(), width=width, highlight=False)
    show(console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def assert_lines_fit(text: str, width: int) -> None:
    """No line is wider than the terminal, cut off, or a joint that was torn from its name."""
    for line in text.splitlines():
        assert cell_len(line) <= width, line
        assert "…" not in line, line
        assert not _LONE_JOINT.search(line), line


def assert_readable(text: str, table: TextTable, width: int) -> None:
    """Every line fits, every column is there, and no word of a cell is broken that could stand in half a line."""
    assert_lines_fit(text, width)
    squeezed = "".join(text.split())
    for column in table.columns:
        for piece in re.findall(r"[^\W_]+", f"{column.heading} {column.detail}"):
            assert piece in text, column
    tokens = set(text.split())
    for row in table.rows:
        for cell in row[1:]:
            for word in cell.text.split():
                assert word in tokens if len(word) <= width // 2 - 5 else word[:20] in squeezed, word
        for word in row[0].text.split():
            assert word in tokens if len(word) <= width // 4 else word[:10] in squeezed, word
