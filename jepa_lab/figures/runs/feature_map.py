"""Where images lie among each other, as seen by the encoder: two principal components of their features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jepa_lab.figures.runs.base import FIGURES, RunFigure, SeenRun, ShownImages
from jepa_lab.figures.runs.components import principal_components
from jepa_lab.figures.style import MARKS, Drawing, Theme, empty_figure, label, lines_of


@FIGURES.register(
    "feature_map",
    summary="features of test images on a plane, by principal components",
    source="principal component analysis",
)
class FeatureMap(RunFigure):
    """Which classes the features keep apart along their widest directions; distances on it are those of the features'
    projection, and classes that overlap here may be apart elsewhere."""

    place = 40

    def drawings(self, seen: SeenRun) -> Sequence[Drawing] | str:
        scores, shares = principal_components(seen.images.features, 2)
        names = [f"principal component {number + 1} ({shares[number]:.0%} of the variance)" for number in range(2)]
        title = f"Features of {seen.images.words}, by two principal components"
        alt = f"Map of {seen.images.words}; the two components hold {float(shares.sum()):.0%} of the variance."
        return [map_drawing("feature_map", title, alt, scores.numpy(), (names[0], names[1]), seen.images)]


def map_drawing(
    name: str, title: str, alt: str, places: np.ndarray, axis_names: tuple[str, str], images: ShownImages
) -> Drawing:
    """Points on a plane, with a colour and a mark for each class where there are labels.

    Args:
        places: [n, 2], of the images.
    """
    num_marks = len(MARKS)
    known = 0 if images.labels is None else len(images.class_names)

    def draw(theme: Theme) -> Any:
        figure = empty_figure(theme.width * 0.75, theme.width)
        axes = figure.subplots()
        size = {"s": 20, "linewidths": 0, "alpha": 0.8}
        if images.labels is None or known > num_marks * len(theme.colours):
            axes.scatter(*places.T, color=theme.colours[0], **size)
        else:
            labels, handles = images.labels.numpy(), []
            for number in range(known):
                colour, mark = theme.colours[number % len(theme.colours)], MARKS[_mark(number, len(theme.colours))]
                handles.append(axes.scatter(*places[labels == number].T, color=colour, marker=mark, **size))
            _add_legend(figure, handles, [label(each, theme.wrap) for each in images.class_names])
        width = 60 if theme.columns > 1 else 24
        axes.set_xlabel(label(axis_names[0], width))
        axes.set_ylabel(label(axis_names[1], width))
        return figure

    words = f" Colours and marks are the {known} classes." if known else ""
    return Drawing(name, title, alt + words, draw)


def _add_legend(figure: Any, handles: list[Any], names: list[str]) -> None:
    """Below the axes, in room of its own."""
    longest = max(len(line) for name in names for line in name.split("\n"))
    columns = max(1, min(len(names), int(figure.get_figwidth() / (0.08 * longest + 0.45))))
    rows = -(-len(names) // columns)
    lines = sum(max(lines_of([name]) for name in names[row::rows]) for row in range(rows))  # it is filled by columns
    figure.set_figheight(figure.get_figheight() + 0.19 * lines + 0.1)
    figure.legend(
        handles, names, loc="outside lower center", ncols=columns, handlelength=1, columnspacing=1.2, markerscale=1.5
    )


def _mark(number: int, num_colours: int) -> int:
    """Of classes of one colour each has another mark, and of neighbouring classes, too."""
    return (number + number // num_colours) % len(MARKS)
