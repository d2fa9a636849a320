"""A picture of how accuracy grows with the depth at which features are taken."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jepa_lab.figures.png import write_png


def draw_depths(accuracies: Sequence[float], out: Path) -> None:
    """Write a PNG: validation accuracy against depth, the best one marked.

    Args:
        accuracies: of the features after block 1, 2, ...
        out: the PNG to write; appears whole or not at all.
    Raises:
        ConfigError: if `out` cannot be written. RunStopped: if the disk is full.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    depths = range(1, len(accuracies) + 1)
    best = max(depths, key=lambda depth: (accuracies[depth - 1], -depth))
    figure = Figure(figsize=(6.4, 4.0), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    axes.plot(depths, accuracies, marker="o", color="#0072b2")
    axes.plot([best], [accuracies[best - 1]], marker="o", markersize=12, fillstyle="none", color="#d55e00")
    axes.annotate(
        f"{accuracies[best - 1]:.1%} after block {best}",
        (best, accuracies[best - 1]),
        xytext=(0, 12),
        textcoords="offset points",
        ha="center",
    )
    axes.margins(x=0.1, y=0.2)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel("block that the features are taken after")
    axes.set_ylabel("validation accuracy")
    axes.grid(alpha=0.3)
    write_png(figure, out)
