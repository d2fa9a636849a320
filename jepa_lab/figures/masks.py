"""A picture of masks on real images, and of how often each patch is context and target."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jepa_lab.figures.png import write_png
from jepa_lab.grid import Grid
from jepa_lab.maskers.base import Masks
from jepa_lab.maskers.statistics import MaskStatistics

CONTEXT_COLOUR = (0.10, 0.62, 0.25)
TARGET_COLOUR = (0.86, 0.15, 0.15)
UNUSED_COLOUR = (0.80, 0.80, 0.80)
OUTLINE_COLOUR = (0.45, 0.0, 0.05)
TINT = 0.5
"""Share of the colour in a context or target patch; the rest is the image, made paler."""
WASH = 0.75
"""Share of grey in a patch that is neither; the rest is the image without its colours."""


def draw_masks(images: Tensor, masks: Masks, grid: Grid, statistics: MaskStatistics, out: Path) -> None:
    """Write a PNG: each image with its context in green and its targets in red, and two heat maps below.

    A patch that is both, as `reference_multi_block` allows, is shown as a target. Where there are several
    target blocks each has an outline, so that overlapping ones can be told apart.

    Args:
        images: [B, C, H, W] uint8 with one or three channels; about eight fit well.
        masks: of the same B images, after `context_batching`.
        statistics: of the same masker and batching.
        out: the PNG to write; appears whole or not at all.
    Raises:
        ConfigError: if `out` cannot be written.
    """
    from matplotlib.figure import Figure

    columns = min(4, len(masks))
    rows = math.ceil(len(masks) / columns)
    tile_height = 2.5 * min(1.5, max(0.5, grid.height / grid.width))  # inches
    figure = Figure(figsize=(10.4, rows * tile_height + 5.3), dpi=130, layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=[rows * tile_height + 0.9, 4.4])
    tiles, maps = parts
    _draw_tiles(tiles, images.cpu(), masks, grid, (rows, columns))
    _draw_frequencies(maps, grid, statistics)
    write_png(figure, out)


def _draw_tiles(subfigure: Any, images: Tensor, masks: Masks, grid: Grid, layout: tuple[int, int]) -> None:
    from matplotlib.collections import LineCollection
    from matplotlib.patches import Patch

    context = masks.context.coverage(grid.num_patches).any(dim=1).cpu()  # [B, N]
    blocks = masks.target.coverage(grid.num_patches).cpu()  # [B, M, N]
    axes = subfigure.subplots(*layout, squeeze=False).flatten()
    for axis in axes:
        axis.set_axis_off()
    for axis, image, is_context, image_blocks in zip(axes, images, context, blocks, strict=False):
        is_target = image_blocks.any(dim=0)
        picture = tinted(image, is_context, is_target, grid)
        axis.imshow(picture.numpy(), extent=(0, grid.width, grid.height, 0), interpolation="nearest")
        axis.add_collection(LineCollection(_grid_lines(grid), colors=[(1, 1, 1, 0.45)], linewidths=0.5))
        for block in image_blocks if len(image_blocks) > 1 else ():
            edges = outline(block.reshape(grid.height, grid.width))
            axis.add_collection(LineCollection(edges, colors=[OUTLINE_COLOUR], linewidths=1.3, capstyle="projecting"))
        axis.set_xlim(-0.05, grid.width + 0.05)
        axis.set_ylim(grid.height + 0.05, -0.05)
        axis.set_title(f"{int(is_context.sum())} context, {int(is_target.sum())} target", fontsize=9)
    subfigure.suptitle(f"Masks on a grid of {grid.height} x {grid.width} patches", fontsize=13)
    legend = {"context": CONTEXT_COLOUR, "target": TARGET_COLOUR, "neither": UNUSED_COLOUR}
    subfigure.legend(
        handles=[Patch(facecolor=colour, label=label) for label, colour in legend.items()],
        loc="outside lower center",
        ncols=len(legend),
        frameon=False,
    )


def tinted(image: Tensor, is_context: Tensor, is_target: Tensor, grid: Grid) -> Tensor:
    """The image with its patches coloured by their role.

    Args:
        image: [C, H, W] uint8, one or three channels.
        is_context, is_target: [N] bool.
    Returns:
        [H, W, 3] float32 in [0, 1].
    """
    pixels = image.float().div(255).expand(3, -1, -1).permute(1, 2, 0)  # [H, W, 3]
    height, width = pixels.shape[:2]
    rows = torch.arange(height) * grid.height // height
    columns = torch.arange(width) * grid.width // width
    patch = rows[:, None] * grid.width + columns  # [H, W]: the patch of each pixel
    grey = pixels.mean(dim=-1, keepdim=True)
    # Half the image's own colour and no black, or it would hide whether a patch is green or red.
    pale = 0.25 + 0.75 * (pixels + grey) / 2
    washed = (1 - WASH) * grey + WASH * torch.tensor(UNUSED_COLOUR)
    green = (1 - TINT) * pale + TINT * torch.tensor(CONTEXT_COLOUR)
    red = (1 - TINT) * pale + TINT * torch.tensor(TARGET_COLOUR)
    picture = torch.where(is_context[patch][..., None], green, washed)
    return torch.where(is_target[patch][..., None], red, picture)


def _grid_lines(grid: Grid) -> list[list[tuple[int, int]]]:
    """Lines between patches, as (x, y) pairs in patch units."""
    across = [[(0, y), (grid.width, y)] for y in range(1, grid.height)]
    down = [[(x, 0), (x, grid.height)] for x in range(1, grid.width)]
    return across + down


def outline(block: Tensor) -> list[list[tuple[int, int]]]:
    """Edges between a block [Gh, Gw] bool and what is not in it, as (x, y) pairs in patch units."""
    padded = torch.nn.functional.pad(block, (1, 1, 1, 1))
    above_differs = padded[1:, 1:-1] != padded[:-1, 1:-1]  # [Gh + 1, Gw]
    left_differs = padded[1:-1, 1:] != padded[1:-1, :-1]  # [Gh, Gw + 1]
    across = [[(x, y), (x + 1, y)] for y, x in above_differs.nonzero().tolist()]
    down = [[(x, y), (x, y + 1)] for y, x in left_differs.nonzero().tolist()]
    return across + down


def _draw_frequencies(subfigure: Any, grid: Grid, statistics: MaskStatistics) -> None:
    context, target = statistics.context, statistics.target
    panels = (
        (
            f"How often a patch is context\n{context.mean:.1f} of {grid.num_patches} patches on average, "
            f"{context.minimum} to {context.maximum}",
            statistics.context_frequency,
            "Greens",
        ),
        (
            f"How often a patch is target\nblocks of {target.minimum} to {target.maximum} patches, "
            f"{statistics.target_union_mean:.1f} in all",
            statistics.target_frequency,
            "Reds",
        ),
    )
    for axis, (title, frequency, colours) in zip(subfigure.subplots(1, 2), panels, strict=True):
        top = max(0.01, float(frequency.max()))
        picture = axis.imshow(frequency.numpy(), cmap=colours, vmin=0, vmax=top, interpolation="nearest")
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("column of patches")
        axis.set_ylabel("row of patches")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.yaxis.get_major_locator().set_params(integer=True)
        bar = subfigure.colorbar(picture, cax=axis.inset_axes((1.04, 0.0, 0.05, 1.0)))
        bar.ax.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    never = f"{statistics.never_used:.1%} of patches are never used" if statistics.never_used else "every patch is used"
    subfigure.supxlabel(f"{statistics.num_images} images; {never} as context or target", fontsize=10)
