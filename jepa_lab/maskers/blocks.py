"""Rectangular blocks of patches: which sizes occur, where they lie, what they cover.

A scale (area as a share of the grid) and an aspect ratio (height / width) become a size as in the paper's
released code: keep = int(N * scale), height = round(sqrt(keep * aspect)), width = round(sqrt(keep / aspect)).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import pairwise

import torch
from torch import Tensor

from jepa_lab.grid import Grid
from jepa_lab.maskers.discrete import Discrete, floor_probabilities

Range = tuple[float, float]
Size = tuple[int, ...]
"""Height and width of a block, in patches: an outcome of a `Discrete`."""


def block_sizes(num_patches: int, scale: Range, aspect_ratio: Range, limit: Grid) -> Discrete:
    """The exact distribution of (height, width) for independent uniform draws of scale and aspect ratio.

    Args:
        num_patches: N of the grid that `scale` refers to.
        limit: no block is higher or wider than this; every block has at least one patch.
    """
    keeps = floor_probabilities(num_patches * scale[0], num_patches * scale[1])
    pieces = ((keep, share, aspect_ratio) for keep, share in keeps.items())
    return _distribution(pieces, Grid(1, 1), limit)


def block_sizes_from_one_draw(num_patches: int, scale: Range, aspect_ratio: Range, limit: Grid) -> Discrete:
    """The same where one uniform number sets both scale and aspect ratio (the released code).

    A block may come out empty here: nothing keeps it at one patch.
    """
    low, high = num_patches * scale[0], num_patches * scale[1]

    def aspect_at(area: float) -> float:
        position = (area - low) / (high - low)
        return aspect_ratio[0] + position * (aspect_ratio[1] - aspect_ratio[0])

    keeps = floor_probabilities(low, high)
    if low == high:  # the area says nothing about the number that was drawn
        return _distribution([(keep, 1.0, aspect_ratio) for keep in keeps], Grid(0, 0), limit)
    pieces = (
        (keep, share, (aspect_at(max(low, keep)), aspect_at(min(high, keep + 1)))) for keep, share in keeps.items()
    )
    return _distribution(pieces, Grid(0, 0), limit)


def _distribution(pieces: Iterable[tuple[int, float, Range]], smallest: Grid, largest: Grid) -> Discrete:
    """Sum over pieces (keep, probability, range of aspect ratios), with sizes clipped to the two bounds."""
    total: dict[tuple[int, ...], float] = {}
    for keep, probability, aspect_ratio in pieces:
        for (height, width), share in _shapes(keep, aspect_ratio, max(largest.height, largest.width)):
            size = (
                max(smallest.height, min(height, largest.height)),
                max(smallest.width, min(width, largest.width)),
            )
            total[size] = total.get(size, 0.0) + probability * share
    return Discrete(total)


def _shapes(keep: int, aspect_ratio: Range, limit: int) -> Iterator[tuple[tuple[int, int], float]]:
    """The roundings that occur for `keep` patches, each with its share of the range of aspect ratios.

    Sizes above `limit` are not told apart: the caller clips them.
    """
    low, high = aspect_ratio
    if keep == 0 or low == high:
        yield _rounded(keep, low), 1.0
        return
    halves = [(k + 0.5) ** 2 for k in range(limit)]
    # The aspect ratios at which height or width changes.
    turns = {half / keep for half in halves} | {keep / half for half in halves}
    edges = [low, *sorted(turn for turn in turns if low < turn < high), high]
    for start, end in pairwise(edges):
        yield _rounded(keep, (start + end) / 2), (end - start) / (high - low)


def _rounded(keep: int, aspect_ratio: float) -> tuple[int, int]:
    return round(math.sqrt(keep * aspect_ratio)), round(math.sqrt(keep / aspect_ratio))


def draw_positions(height: Tensor, width: Tensor, grid: Grid, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """First row and first column of blocks, uniform over all positions inside the grid, from one draw.

    Args:
        height, width: [...] int64, at most those of the grid.
    Returns:
        Two tensors [...] int64.
    """
    uniform = torch.rand((2, *height.shape), generator=generator, device=height.device)
    return positions_at(uniform, height, width, grid)


def positions_at(uniform: Tensor, height: Tensor, width: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """First row and first column of blocks, for uniform numbers in [0, 1), [2, ...]; see `draw_positions`."""
    room = torch.stack([grid.height + 1 - height, grid.width + 1 - width])  # [2, ...]: positions that there are
    top, left = (uniform * room).long()
    return top, left


def cover(top: Tensor, left: Tensor, height: Tensor, width: Tensor, grid: Grid) -> Tensor:
    """The patches inside blocks.

    Args:
        top, left, height, width: int64 tensors of shapes that broadcast to [...].
    Returns:
        [..., N] bool.
    """
    rows = torch.arange(grid.height, device=top.device)
    columns = torch.arange(grid.width, device=top.device)
    top, left, height, width = (x.unsqueeze(-1) for x in (top, left, height, width))
    in_rows = (rows >= top) & (rows < top + height)  # [..., Gh]
    in_columns = (columns >= left) & (columns < left + width)  # [..., Gw]
    return (in_rows.unsqueeze(-1) & in_columns.unsqueeze(-2)).flatten(-2)


def marked_inside(marked: Tensor, height: Tensor, width: Tensor, grid: Grid) -> Tensor:
    """How many marked patches a block holds at each position of its top-left corner, by a summed-area table.

    Args:
        marked: [..., N] bool.
        height, width: int64 tensors that broadcast with [...].
    Returns:
        [..., N] int32, of the shape to which the arguments broadcast; meaningless where the block leaves the grid.
    """
    gh, gw = grid.height, grid.width
    table = torch.zeros(*marked.shape[:-1], gh + 1, gw + 1, dtype=torch.int32, device=marked.device)
    rows = marked.unflatten(-1, (gh, gw)).cumsum(dim=-1, dtype=torch.int32)
    table[..., 1:, 1:] = rows.cumsum(dim=-2, dtype=torch.int32)
    table = table.flatten(-2)
    row, column = grid.coordinates(marked.device)
    corner = row * (gw + 1) + column  # [N]: where the table holds the sum above and left of each patch

    def shifted(down: Tensor, right: Tensor) -> Tensor:
        index = (corner + (down * (gw + 1) + right).unsqueeze(-1)).clamp_(max=table.shape[-1] - 1)
        shape = torch.broadcast_shapes(index.shape[:-1], table.shape[:-1])
        return table.expand(*shape, -1).gather(-1, index.expand(*shape, -1))

    none = torch.zeros_like(height)
    inside = shifted(height, width) - shifted(height, none)
    return inside.sub_(shifted(none, width)).add_(table[..., corner])


def largest_remainder(context: Size, target: Size, room: Grid) -> int:
    """Most patches of a context block that one target block can leave, over all positions in `room`.

    That is with the two in opposite corners. More targets of this size can all lie at that same position.
    """
    rows = max(0, context[0] + target[0] - room.height)
    columns = max(0, context[1] + target[1] - room.width)
    return context[0] * context[1] - rows * columns


def smallest_remainder(context: Size, target: Size) -> int:
    """Fewest patches of a context block that one target block can leave: both in the same corner."""
    return context[0] * context[1] - min(context[0], target[0]) * min(context[1], target[1])
