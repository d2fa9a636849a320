"""A picture of which classes a probe takes for which."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jepa_lab.figures.png import write_png

_MOST_CLASSES_WITH_NUMBERS = 20
_MOST_CLASSES_WITH_NAMES = 100
_LARGEST_SIDE = 13.0  # inches


def draw_confusion(confusion: Sequence[Sequence[int]], class_names: Sequence[str], accuracy: float, out: Path) -> None:
    """Write a PNG: a heat map of what the images of each class were taken for.

    Args:
        confusion: [classes, classes] images of each class (row) that were predicted as each class (column).
        class_names: in the order of the rows.
        accuracy: over all images, for the title.
        out: the PNG to write; appears whole or not at all.
    Raises:
        ConfigError: if `out` cannot be written. RunStopped: if the disk is full.
    """
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    counts = np.asarray(confusion)
    shares = row_shares(counts)
    side = min(2.6 + 0.5 * max(len(counts), 4), _LARGEST_SIDE)  # inches
    figure = Figure(figsize=(side + 1.0, side), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    # By the square root, or a class taken for another in 5% of its images could not be seen beside the diagonal.
    picture = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, vmin=0, vmax=1), interpolation="nearest")
    _name_classes(axes, class_names, points_a_row=72 * (side - 2.2) / len(counts))
    if len(counts) <= _MOST_CLASSES_WITH_NUMBERS:
        _write_percentages(axes, shares, counts.sum(axis=1))
    axes.set_title(f"{accuracy:.1%} of {counts.sum():,} test images classified correctly", fontsize=11)
    bar = figure.colorbar(picture, ax=axes, aspect=40, pad=0.02, ticks=(0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1))
    bar.ax.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    bar.set_label("share of the class's images, in percent")
    write_png(figure, out)


def row_shares(counts: np.ndarray) -> np.ndarray:
    """Each row divided by its sum, so that classes of unequal size compare; a class without images stays zero."""
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def _name_classes(axes: Any, class_names: Sequence[str], points_a_row: float) -> None:
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    if len(class_names) > _MOST_CLASSES_WITH_NAMES:
        return  # matplotlib's own ticks number some of the classes
    short = [name if len(name) <= 24 else name[:23] + "…" for name in class_names]
    size = min(9.0, 0.8 * points_a_row)
    places = range(len(short))
    axes.set_xticks(places, short, fontsize=size, rotation=90 if len(short) > 4 else 0)
    axes.set_yticks(places, short, fontsize=size)


def _write_percentages(axes: Any, shares: np.ndarray, num_images: np.ndarray) -> None:
    for (row, column), share in np.ndenumerate(shares):
        if share > 0:
            colour = "white" if share > 0.3 else "black"
            axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=8, color=colour)
    for row in np.flatnonzero(num_images == 0):
        middle = (shares.shape[1] - 1) / 2
        axes.text(middle, row, "no test images", ha="center", va="center", fontsize=8, style="italic")
