"""A picture of which patches of images a block attends to: a row an image, a column a head."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jepa_lab.figures.png import write_png
from jepa_lab.grid import Grid

COLOURS = "coolwarm"
"""Grey where attention is even. The image beneath is grey as well, so that whatever has a colour is attention."""
OPACITY = 0.7
"""Of the map over its image."""
LEAST_TOP = 1.1
"""Least end of the scale: even attention must not look like a pattern."""
QUERY_COLOUR = "#00c020"


@dataclass(frozen=True)
class AttentionView:
    """What is to be seen of attention weights.

    Attributes:
        grid: of the patches.
        query: the patch (row, column) whose attention is drawn, marked in the picture; None draws the mean over all
            patches as queries, which is how much attention each patch receives.
        title: above the whole picture.
    """

    grid: Grid
    query: tuple[int, int] | None
    title: str

    def heat(self, weights: Tensor) -> Tensor:
        """The numbers to draw, [B, H, Gh, Gw]: 1 is what even attention over all patches gives each.

        Args:
            weights: [B, H, N, N], query before key.
        """
        if self.query is None:
            shown = weights.mean(dim=2)
        else:
            row, column = self.query
            shown = weights[:, :, row * self.grid.width + column]
        return (shown * self.grid.num_patches).unflatten(-1, (self.grid.height, self.grid.width))


def draw_attention(images: Tensor, weights: Tensor, view: AttentionView, out: Path) -> None:
    """Write a PNG: each image, and over it the heat map of each head and their mean; a row has one scale of colours.

    Args:
        images: [B, C, H, W] uint8 with one or three channels.
        weights: [B, H, N, N], query before key.
        out: the PNG to write; appears whole or not at all.
    Raises:
        ConfigError: if `out` cannot be written.
    """
    from matplotlib.figure import Figure

    heat = view.heat(weights.float().cpu())  # [B, H, Gh, Gw]
    maps = torch.cat([heat, heat.mean(dim=1, keepdim=True)], dim=1)
    rows, columns = len(images), maps.shape[1] + 1
    tile_height = 1.55 * min(1.5, max(0.5, view.grid.height / view.grid.width))  # inches
    figure: Any = Figure(figsize=(1.55 * columns + 0.9, rows * tile_height + 1.2), dpi=130, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    titles = ["image", *(f"head {number}" for number in range(1, columns - 1)), "mean"]
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=10)
    for row, image, image_maps in zip(axes, images.cpu(), maps, strict=True):
        _draw_row(figure, row, image, image_maps, view)
    figure.suptitle(view.title, fontsize=12)
    figure.supxlabel("colour: attention relative to a uniform distribution (1 = uniform)", fontsize=9)
    write_png(figure, out)


def _draw_row(figure: Any, axes: Any, image: Tensor, maps: Tensor, view: AttentionView) -> None:
    """An image and its heat maps [H + 1, Gh, Gw], with a colour bar at the end."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm
    from matplotlib.patches import Rectangle

    pixels = image.float().div(255).expand(3, -1, -1).permute(1, 2, 0)  # [H, W, 3]
    top = max(float(maps.max()), LEAST_TOP)
    scale = LogNorm(vmin=1 / top, vmax=top, clip=True)  # half as much is as blue as twice as much is red
    where = {"extent": (0, view.grid.width, view.grid.height, 0), "interpolation": "nearest"}
    for axis in axes:
        axis.set_axis_off()
    axes[0].imshow(pixels.numpy(), **where)
    for axis, heat in zip(axes[1:], maps, strict=True):
        axis.imshow(pixels.mean(dim=-1).numpy(), cmap="gray", vmin=0, vmax=1, **where)
        axis.imshow(heat.numpy(), cmap=COLOURS, norm=scale, alpha=OPACITY, **where)
    if view.query is not None:
        for axis in axes:
            corner = (view.query[1], view.query[0])
            axis.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=QUERY_COLOUR, linewidth=1.8))
    bar = figure.colorbar(ScalarMappable(scale, COLOURS), ax=axes[-1], alpha=OPACITY, fraction=0.08, pad=0.04)
    bar.set_ticks([1 / top, 1, top], labels=[f"{number:.2g}" for number in (1 / top, 1, top)], minor=False)
    bar.set_ticks([], minor=True)
    bar.ax.tick_params(labelsize=8)
