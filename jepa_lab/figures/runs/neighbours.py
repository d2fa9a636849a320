"""What the encoder takes for similar: the nearest neighbours of a few images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from jepa_lab.figures.runs.base import FIGURES, RunFigure, SeenRun, ShownImages
from jepa_lab.figures.runs.tiles import Tiles, to_rgb
from jepa_lab.figures.style import Drawing, Theme, empty_figure

_NEAREST = 5
_GAP, _STEP = 0.25, 1.08
_MOST_LETTERS = 11


class Nearest(NamedTuple):
    """The nearest images of some, the nearest first: [q, k] indices and cosines."""

    indices: Tensor
    similarities: Tensor


@FIGURES.register(
    "neighbours",
    summary="the images whose features are nearest to those of twelve test images",
    source="cosine similarity of features with their mean taken off",
)
class Neighbours(RunFigure):
    """What the encoder takes for similar. Neighbours are looked for among the images that the figure names."""

    place = 60

    def drawings(self, seen: SeenRun) -> Sequence[Drawing] | str:
        images, queries = seen.images, seen.images.examples
        if len(images) < 2:
            return "there is one image, which has no neighbours"
        found = nearest(images.features, queries, min(_NEAREST, len(images) - 1))

        def draw(theme: Theme) -> Any:
            panels = list(zip(queries.chunk(theme.columns), found.indices.chunk(theme.columns), strict=True))
            step = 1.34 if images.labels is not None else _STEP
            across = 1 + _GAP + _STEP * found.indices.shape[1]
            size = (theme.width / len(panels) - 0.1) / across  # inches of a tile
            figure = empty_figure(size * step * len(panels[0][0]) + 0.15, theme.width)
            for axes, (own, others) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
                tiles = Tiles(axes, across, step * len(panels[0][0]))
                for row, (query, neighbours) in enumerate(zip(own.tolist(), others.tolist(), strict=True)):
                    _draw_row(tiles, images, query, neighbours, row * step, theme)
            return figure

        return [Drawing("neighbours", _title(images, len(queries)), _alt(images, queries, found), draw, True)]


def nearest(features: Tensor, queries: Tensor, count: int) -> Nearest:
    """The nearest other images of some, by cosine similarity with the mean over all images taken off.

    Args:
        features: [n, F]. queries: [q] indices.
    """
    units = F.normalize(features.double() - features.double().mean(dim=0), dim=1)
    similarities = units[queries] @ units.T  # [q, n]
    similarities[torch.arange(len(queries)), queries] = -2.0  # nobody is a neighbour of its own
    values, indices = similarities.topk(count, dim=1)
    return Nearest(indices, values)


def _title(images: ShownImages, count: int) -> str:
    framed = "" if images.labels is None else "; a frame: of another class"
    return f"{count} {images.split} images and the nearest of {images.words} to each{framed}"


def _draw_row(tiles: Tiles, images: ShownImages, query: int, neighbours: list[int], y: float, theme: Theme) -> None:
    own = images.label(query)
    tiles.picture(to_rgb(images.pixels[query]), 0, y)
    if own is not None:
        tiles.caption(own, 0, y, _MOST_LETTERS)
    for place, index in enumerate(neighbours):
        x, other = 1 + _GAP + place * _STEP, images.label(index)
        tiles.picture(to_rgb(images.pixels[index]), x, y)
        if other is not None:
            tiles.caption(other, x, y, _MOST_LETTERS)
            if other != own:
                tiles.frame(x, y, theme.colours[1])


def _alt(images: ShownImages, queries: Tensor, found: Nearest) -> str:
    closest = f"The nearest has a similarity of {float(found.similarities[:, 0].mean()):.2f} on average."
    how = f"Each row has an image and, to its right, its {found.indices.shape[1]} nearest by cosine similarity."
    if images.labels is None:
        return f"{how} {closest}"
    same = images.labels[found.indices] == images.labels[queries][:, None]
    return f"{how} Those with a frame are of another class: {int((~same).sum())} of {same.numel()}. {closest}"
