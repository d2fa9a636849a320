"""How loss, probe accuracy and rank went on during training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from jepa_lab.figures.runs.base import FIGURES, RunFigure, SeenRun
from jepa_lab.figures.style import Drawing, Theme, empty_figure
from jepa_lab.tracking.metrics import MetricsRow


class _Panel(NamedTuple):
    title: str
    names: dict[str, str]
    factor: float = 1.0


_PANELS = (
    _Panel("loss", {"train/loss": "training", "validation/loss": "validation images"}),
    _Panel("validation accuracy of the online probe, %", {"probe/online_validation_accuracy": "accuracy"}, 100.0),
    _Panel("RankMe of validation images", {"monitor/rankme": "RankMe"}),
)
_STYLES: tuple[dict[str, Any], ...] = ({"linestyle": "-"}, {"linestyle": "--", "marker": "o", "markersize": 3})

Curve = list[tuple[float, float]]
"""Epoch and value of each row that has one."""


@FIGURES.register(
    "learning_curves", summary="loss, accuracy of the online probe and RankMe by epoch", source="metrics.jsonl"
)
class LearningCurves(RunFigure):
    """Whether training went on improving, and whether loss and accuracy agree about it."""

    place = 10

    def drawings(self, seen: SeenRun) -> Sequence[Drawing] | str:
        found = [(panel, {name: curve_of(seen.rows, name) for name in panel.names}) for panel in _PANELS]
        panels = [(panel, {name: curve for name, curve in curves.items() if curve}) for panel, curves in found]
        panels = [(panel, curves) for panel, curves in panels if curves]
        if not panels:
            return "nothing has been logged yet"

        def draw(theme: Theme) -> Any:
            columns = len(panels) if theme.columns > 1 else 1
            figure = empty_figure(2.7 * len(panels) / columns + 0.2, theme.width)
            grid = figure.subplots(len(panels) // columns, columns, squeeze=False).flatten()
            for axes, (panel, curves) in zip(grid, panels, strict=True):
                _draw_panel(axes, panel, curves, theme)
            return figure

        parts = [
            f"{panel.title}: {panel.names[name]} from {panel.factor * curve[0][1]:.4g} at epoch {curve[0][0]:.3g} to "
            f"{panel.factor * curve[-1][1]:.4g} at epoch {curve[-1][0]:.3g}"
            for panel, curves in panels
            for name, curve in curves.items()
        ]
        return [Drawing("learning_curves", "Learning curves", f"Learning curves; {'; '.join(parts)}.", draw)]


def curve_of(rows: Sequence[MetricsRow], name: str) -> Curve:
    """A metric by epoch."""
    values = ((row.epoch, row.metrics.get(name)) for row in rows)
    return [(epoch, value) for epoch, value in values if value is not None]


def _draw_panel(axes: Any, panel: _Panel, curves: dict[str, Curve], theme: Theme) -> None:
    from matplotlib.ticker import MaxNLocator

    styles = _STYLES if len(panel.names) > 1 else _STYLES[1:]
    for (name, label), colour, style in zip(panel.names.items(), theme.colours, styles, strict=False):
        if name in curves:
            epochs, values = zip(*curves[name], strict=True)
            axes.plot(epochs, [panel.factor * value for value in values], color=colour, label=label, **style)
    axes.set_title(panel.title.replace(" of ", "\nof ", 1) if theme.columns > 1 else panel.title)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.ticklabel_format(axis="y", useOffset=False)
    if len(curves) > 1:
        axes.legend()
