"""A picture of which classes a probe takes for which."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jepa_lab.figures.letters import FONT, in_font, shortened, width_in_inches
from jepa_lab.figures.png import write_png

_MOST_CLASSES_WITH_NUMBERS = 20
_MOST_CLASSES_WITH_NAMES = 100
_LARGEST_MATRIX = 10.8  # inches
_LONGEST_NAME = 30  # letters
_BESIDE = 1.9  # inches for the scale of colours and the name of an axis


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
    import matplotlib

    # A dollar in the name of a class is a dollar.
    with matplotlib.rc_context({"text.parse_math": False, "font.family": [FONT]}):
        write_png(_figure(np.asarray(confusion), class_names, accuracy), out)


def _figure(counts: np.ndarray, class_names: Sequence[str], accuracy: float) -> Any:
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    names = _shown_names(class_names)
    matrix = min(0.5 + 0.5 * max(len(counts), 5), _LARGEST_MATRIX)
    size = min(9.0, 0.8 * 72 * matrix / len(counts))
    longest = max((width_in_inches(name, size) for name in names), default=0.3)
    title = f"{accuracy:.1%} of {counts.sum():,} test images classified correctly"
    is_upright = longest < 0.9 * matrix / len(counts)
    width = max(matrix + longest + _BESIDE, width_in_inches(title, 11) + 0.3)
    figure: Any = Figure(
        figsize=(width, matrix + (0.3 if is_upright else longest) + 1.0), dpi=120, layout="constrained"
    )
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.12)  # it is a few pixels out where a square has long labels
    axes = figure.add_subplot()
    shares = row_shares(counts)
    # By the square root, or a class taken for another in 5% of its images could not be seen beside the diagonal.
    picture = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, vmin=0, vmax=1), interpolation="nearest")
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    if names:  # else matplotlib's own ticks number some of the classes
        axes.set_xticks(range(len(names)), names, fontsize=size, rotation=0 if is_upright else 90)
        axes.set_yticks(range(len(names)), names, fontsize=size)
    if len(counts) <= _MOST_CLASSES_WITH_NUMBERS:
        _write_percentages(axes, shares, counts.sum(axis=1))
    figure.suptitle(title, fontsize=11)
    bar = figure.colorbar(picture, ax=axes, aspect=40, pad=0.02, ticks=(0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1))
    bar.ax.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    bar.set_label("share of the images of the true class")
    return figure


def _shown_names(class_names: Sequence[str]) -> list[str]:
    """The names for the axes; none for so many classes that they could not be read."""
    if len(class_names) > _MOST_CLASSES_WITH_NAMES:
        return []
    return [shortened(in_font(name), _LONGEST_NAME) for name in class_names]


def row_shares(counts: np.ndarray) -> np.ndarray:
    """Each row divided by its sum, so that classes of unequal size compare; a class without images stays zero."""
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def _write_percentages(axes: Any, shares: np.ndarray, num_images: np.ndarray) -> None:
    for (row, column), share in np.ndenumerate(shares):
        if share > 0:
            colour = "white" if share > 0.3 else "black"
            axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=8, color=colour)
    for row in np.flatnonzero(num_images == 0):
        middle = (shares.shape[1] - 1) / 2
        axes.text(middle, row, "no test images", ha="center", va="center", fontsize=8, style="italic")
