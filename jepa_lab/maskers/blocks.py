"""Rectangular blocks of patches: where they lie, and what they cover; `shapes.py` says which sizes occur."""

from __future__ import annotations

import torch
from torch import Tensor

from jepa_lab.grid import Grid
from jepa_lab.maskers.shapes import Size


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
