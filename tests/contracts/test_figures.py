"""What every registered figure of a run must keep."""

import jepa_lab.figures.runs  # noqa: F401  (registers them)
from jepa_lab.figures.runs.base import FIGURES
from jepa_lab.testing import FigureContract
from tests.contracts.registered import each_of


class TestFigures(FigureContract):
    """Those that need a package that may be missing are drawn by `jepa-lab report` alone, and tested elsewhere."""

    entry = each_of(entry for entry in FIGURES if entry.component.after_run)
