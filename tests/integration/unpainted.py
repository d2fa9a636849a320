"""Figures that are made but not painted: laying out and painting takes longer than all else that a tiny run does.

`python -m tests.integration.unpainted ARGUMENTS` is `jepa-lab ARGUMENTS` without the paint.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from PIL import Image

import jepa_lab.reports.html
import jepa_lab.run_figures
from jepa_lab.figures.style import Drawing, Theme, themed

COMMAND = [sys.executable, "-m", "tests.integration.unpainted"]
"""`jepa-lab` in a process of its own, in the repository's folder."""


def _blank() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (1, 1)).save(out, format="png")
    return out.getvalue()


_BLANK = _blank()


def _png(drawing: Drawing, theme: Theme, *, titled: bool = False) -> bytes:
    with themed(theme):
        drawing.draw(theme)
    return _BLANK


@contextmanager
def unpainted() -> Iterator[None]:
    """Within the block."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jepa_lab.run_figures, "png", _png)
        patch.setattr(jepa_lab.reports.html, "png", _png)
        yield


if __name__ == "__main__":
    from jepa_lab.cli import main

    with unpainted():
        main(prog_name="jepa-lab")
