"""Draws docs/method.png, one training step of pipelines/shapes.yaml with patches of 4 pixels and 4 targets.

python docs/draw_method.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jepa_lab.build import build_dataset, build_sampler
from jepa_lab.config.loading import load_pipeline
from jepa_lab.data.images import to_tensor
from jepa_lab.figures.masks import CONTEXT_COLOUR, TARGET_COLOUR, outline
from jepa_lab.figures.png import write_png
from jepa_lab.grid import Grid
from jepa_lab.randomness import build_generator

DOCS = Path(__file__).parent
_IMAGE = 6

_INK = "#1b1f24"
_MUTED = "#6a737d"
_BOX = "#f1f3f5"
_FROZEN = "#e7eef7"
_HIDDEN = 0.93
"""Grey of a patch that an encoder does not see."""


def main() -> None:
    """Draw with the pipeline's own image and masks."""
    pipeline = load_pipeline(
        DOCS.parent / "pipelines" / "shapes.yaml", ["encoder.patch_size=4", "masker.num_targets=4"]
    ).pipeline
    images = to_tensor(build_dataset(pipeline.data, pipeline.data.image_size).load().train.images)
    sampler = build_sampler(pipeline)
    masks = sampler.sample(1, build_generator(pipeline.seed, "masks"))
    grid = sampler.masker.grid
    is_context = masks.context.coverage(grid.num_patches)[0].any(dim=0)
    is_target = masks.target.coverage(grid.num_patches)[0].any(dim=0)
    draw_method(images[_IMAGE], is_context, is_target, grid, DOCS / "method.png")


def draw_method(image: Tensor, is_context: Tensor, is_target: Tensor, grid: Grid, out: Path) -> None:
    """Write a PNG of the step for one image with its own masks.

    Args:
        image: [C, H, W] uint8, one or three channels.
        is_context, is_target: [N] bool.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.6), dpi=130, facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, 11)
    axes.set_ylim(0, 4.6)
    axes.set_axis_off()
    drawing = _Canvas(axes, grid)
    pixels = image.cpu().float().div(255).expand(3, -1, -1).permute(1, 2, 0)  # [H, W, 3]
    drawing.picture((0.3, 2.65), drawing.seen(pixels, is_context), is_context, CONTEXT_COLOUR, "context")
    drawing.picture((0.3, 0.3), pixels, is_target, TARGET_COLOUR, "whole image, targets outlined")
    drawing.box((2.85, 2.95), "context encoder", "sees the context alone", _BOX)
    drawing.box((2.85, 0.6), "target encoder", "sees every patch", _FROZEN)
    drawing.box((5.55, 2.95), "predictor", "fills the targets in", _BOX)
    drawing.tokens((8.15, 2.65), is_target, "predicted representations")
    drawing.tokens((5.85, 0.3), is_target, "target representations")
    drawing.box((8.15, 0.6), "loss", "smooth L1", _BOX)
    for start, end in (((1.95, 3.4), (2.85, 3.4)), ((1.95, 1.05), (2.85, 1.05)), ((4.65, 3.4), (5.55, 3.4))):
        drawing.arrow(start, end)
    drawing.arrow((7.35, 3.4), (8.1, 3.4))
    drawing.arrow((4.65, 1.05), (5.75, 1.05))
    drawing.arrow((7.55, 1.05), (8.15, 1.05))
    drawing.arrow((9.05, 2.6), (9.05, 1.5))
    drawing.arrow((3.75, 2.95), (3.75, 1.5), dashed=True)
    axes.text(3.87, 2.22, "moving average\nof the weights", fontsize=8.5, color=_MUTED, va="center")
    axes.text(6.45, 2.78, "asked for the positions\nof the targets", fontsize=8.5, color=_MUTED, ha="center", va="top")
    note = "gradients reach the context encoder\nand the predictor, never the target encoder"
    axes.text(9.05, 0.5, note, fontsize=8.5, color=_MUTED, ha="center", va="top")
    write_png(figure, out)


class _Canvas:
    """Pictures of 1.6 x 1.6, boxes of 1.8 x 0.9, and arrows."""

    def __init__(self, axes: Any, grid: Grid) -> None:
        self.axes, self.grid = axes, grid

    def patches_of(self, pixels: Tensor) -> Tensor:
        """The number of the patch that each pixel lies in, [H, W]."""
        height, width = pixels.shape[:2]
        rows = torch.arange(height) * self.grid.height // height
        columns = torch.arange(width) * self.grid.width // width
        return rows[:, None] * self.grid.width + columns

    def seen(self, pixels: Tensor, visible: Tensor) -> Tensor:
        """The image with grey in place of the patches that are not visible."""
        return torch.where(visible.cpu()[self.patches_of(pixels)][..., None], pixels, torch.tensor(_HIDDEN))

    def picture(self, corner: tuple[float, float], pixels: Tensor, outlined: Tensor, colour: Any, title: str) -> None:
        x, y = corner
        self.axes.imshow(pixels.numpy(), extent=(x, x + 1.6, y, y + 1.6), interpolation="nearest", zorder=1)
        self._outlines(corner, outlined, colour)
        self.axes.text(x + 0.8, y + 1.68, title, fontsize=8.5, color=_INK, ha="center", va="bottom")

    def tokens(self, corner: tuple[float, float], is_target: Tensor, title: str) -> None:
        """The grid of patches with the predicted ones filled."""
        from matplotlib.patches import Rectangle

        x, y = corner
        for number in range(self.grid.num_patches):
            place = self._corner_of(corner, number)
            filled = bool(is_target[number])
            face = (*TARGET_COLOUR, 0.55) if filled else (1, 1, 1, 0)
            self.axes.add_patch(Rectangle(place, *self._patch_size, facecolor=face, edgecolor="#c5cbd1", linewidth=0.6))
        self.axes.text(x + 0.8, y + 1.68, title, fontsize=8.5, color=_INK, ha="center", va="bottom")

    def box(self, corner: tuple[float, float], title: str, text: str, colour: str) -> None:
        from matplotlib.patches import FancyBboxPatch

        x, y = corner
        style = "round,pad=0,rounding_size=0.12"
        self.axes.add_patch(FancyBboxPatch(corner, 1.8, 0.9, style, facecolor=colour, edgecolor=_MUTED, linewidth=1.0))
        self.axes.text(x + 0.9, y + 0.58, title, fontsize=10.5, color=_INK, ha="center", va="center", weight="bold")
        self.axes.text(x + 0.9, y + 0.26, text, fontsize=8.5, color=_MUTED, ha="center", va="center")

    def arrow(self, start: tuple[float, float], end: tuple[float, float], dashed: bool = False) -> None:
        line = {"arrowstyle": "-|>", "color": _MUTED, "linewidth": 1.3, "linestyle": "--" if dashed else "-"}
        self.axes.annotate("", xy=end, xytext=start, arrowprops=line)

    @property
    def _patch_size(self) -> tuple[float, float]:
        return 1.6 / self.grid.width, 1.6 / self.grid.height

    def _corner_of(self, corner: tuple[float, float], number: int) -> tuple[float, float]:
        """Lower left; rows of patches run downwards."""
        row, column = divmod(number, self.grid.width)
        width, height = self._patch_size
        return corner[0] + column * width, corner[1] + 1.6 - (row + 1) * height

    def _outlines(self, corner: tuple[float, float], outlined: Tensor, colour: Any) -> None:
        from matplotlib.collections import LineCollection

        width, height = self._patch_size
        edges = outline(outlined.cpu().reshape(self.grid.height, self.grid.width))
        lines = [[(corner[0] + x * width, corner[1] + 1.6 - y * height) for x, y in edge] for edge in edges]
        self.axes.add_collection(
            LineCollection(lines, colors=[colour], linewidths=2.0, capstyle="projecting", zorder=2)
        )


if __name__ == "__main__":
    main()
