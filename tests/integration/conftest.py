"""What all tests of whole runs and sweeps share."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
from PIL import Image

import jepa_lab.reports.html
import jepa_lab.run_figures
from jepa_lab.figures.style import Drawing, Theme, themed


def _blank() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (1, 1)).save(out, format="png")
    return out.getvalue()


_BLANK = _blank()


def _unpainted(drawing: Drawing, theme: Theme, *, titled: bool = False) -> bytes:
    """Make the figure, as ever, and leave out what takes longest: laying it out and painting it."""
    with themed(theme):
        drawing.draw(theme)
    return _BLANK


@pytest.fixture(scope="module", autouse=True)
def figures_are_not_painted(request: pytest.FixtureRequest) -> Iterator[None]:
    """In this process, figures are made but not painted, which takes longer than all else that a tiny run does.

    Modules whose tests look at figures are marked `painted`.
    """
    if request.node.get_closest_marker("painted") is not None:
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jepa_lab.run_figures, "png", _unpainted)
        patch.setattr(jepa_lab.reports.html, "png", _unpainted)
        yield
