"""A picture of which classes a probe takes for which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jepa_lab.figures.letters import in_font, shortened, width_in_inches
from jepa_lab.figures.style import Drawing, Theme, shades

_MOST_CLASSES_WITH_NAMES = 100


class _Room:
    """What fits on a desktop, and on a phone.

    Attributes:
        matrix: inches of the largest matrix. letters: of the longest name. numbers: most classes with numbers.
        beside, below: inches for the scale of colours and the name of an axis. bar: where that scale is.
    """

    def __init__(self, theme: Theme) -> None:
        self.matrix, self.letters, self.numbers = (10.8, 30, 20) if theme.columns > 1 else (2.5, 9, 10)
        self.beside, self.below, self.bar = (1.9, 1.0, "right") if theme.columns > 1 else (0.7, 1.8, "bottom")


def confusion_drawing(name: str, title: str, counts: np.ndarray, class_names: Sequence[str], images: str) -> Drawing:
    """A heat map of what the images of each class were taken for.

    Args:
        counts: [classes, classes] images of each class (row) that were predicted as each class (column); fractions
            where several fits are averaged.
        class_names: in the order of the rows.
        images: which ones they are, such as "test images".
    """
    total, correct = counts.sum(), np.trace(counts)
    mistakes = counts - np.diag(np.diag(counts))
    worst = np.unravel_index(mistakes.argmax(), mistakes.shape)
    most = (
        f" The most frequent mistake: {class_names[worst[0]]} taken for {class_names[worst[1]]}, {mistakes[worst]:.4g} "
        f"of {counts[worst[0]].sum():.4g}."
        if mistakes.any()
        else ""
    )
    sentence = f"{correct / max(total, 1):.1%} of {total:,.0f} {images} classified correctly"
    return Drawing(
        name, title, f"{sentence}.{most}", lambda theme: _figure(counts, class_names, sentence, images, theme)
    )


def _figure(counts: np.ndarray, class_names: Sequence[str], title: str, images: str, theme: Theme) -> Any:
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    room = _Room(theme)
    names = _shown_names(class_names, room)
    matrix = min(0.5 + 0.5 * max(len(counts), 5), room.matrix)
    size = min(9.0, 0.8 * 72 * matrix / len(counts))
    longest = max((width_in_inches(name, size) for name in names), default=0.3)
    is_upright = longest < 0.9 * matrix / len(counts)
    title = title if theme.columns > 1 else title.replace(" classified", "\nclassified")
    width = max(matrix + longest + room.beside, max(width_in_inches(line, 11) for line in title.split("\n")) + 0.3)
    figure: Any = Figure(figsize=(width, matrix + (0.3 if is_upright else longest) + room.below), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.12)  # it is a few pixels out where a square has long labels
    axes = figure.add_subplot()
    axes.grid(False)
    axes.spines[:].set_visible(True)
    shares = row_shares(counts)
    # By the square root, or a class taken for another in 5% of its images could not be seen beside the diagonal.
    picture = axes.imshow(shares, cmap=shades(theme), norm=PowerNorm(0.5, vmin=0, vmax=1), interpolation="nearest")
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    if names:  # else matplotlib's own ticks number some of the classes
        axes.set_xticks(range(len(names)), names, fontsize=size, rotation=0 if is_upright else 90)
        axes.set_yticks(range(len(names)), names, fontsize=size)
    if len(counts) <= room.numbers:
        _write_percentages(axes, shares, theme)
        _name_empty_rows(axes, counts, images)
    figure.suptitle(title, fontsize=11)
    ticks = (0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1) if room.bar == "right" else (0, 0.05, 0.25, 0.5, 1)
    bar = figure.colorbar(picture, ax=axes, aspect=40, pad=0.02, location=room.bar, ticks=ticks)
    bar.formatter = lambda share, _: f"{share:.0%}"
    bar.update_ticks()
    bar.set_label("share of the images of the true class")
    bar.outline.set_edgecolor(theme.muted)
    return figure


def _shown_names(class_names: Sequence[str], room: _Room) -> list[str]:
    """The names for the axes; none for so many classes that they could not be read."""
    if len(class_names) > _MOST_CLASSES_WITH_NAMES:
        return []
    return [shortened(in_font(name), room.letters) for name in class_names]


def row_shares(counts: np.ndarray) -> np.ndarray:
    """Each row divided by its sum, so that classes of unequal size compare; a class without images stays zero."""
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1e-9)


def _write_percentages(axes: Any, shares: np.ndarray, theme: Theme) -> None:
    for (row, column), share in np.ndenumerate(shares):
        if share > 0:
            colour = theme.paper if share > 0.3 else theme.ink
            axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=8, color=colour)


def _name_empty_rows(axes: Any, counts: np.ndarray, images: str) -> None:
    middle = (counts.shape[1] - 1) / 2
    for row in np.flatnonzero(counts.sum(axis=1) == 0):
        axes.text(middle, row, f"no {images}", ha="center", va="center", fontsize=8, style="italic")
