"""The masks of coarser levels: which cells are context, which are targets, and how much of the targets is seen."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from jepa_lab.grid import Grid
from jepa_lab.maskers.base import Masks
from jepa_lab.maskers.patches import patches_of

CountTargetsOn = Literal["patches", "level_below"]
"""What at least half of a coarse cell must be targets of: the patches in it, or the cells of the level below."""


def level_grids(grid: Grid, num_levels: int) -> list[Grid]:
    """The grids of all levels, finest first."""
    grids = [grid]
    while len(grids) < num_levels:
        grids.append(grids[-1].coarser())
    return grids


def level_masks(masks: Masks, grids: Sequence[Grid], counted: CountTargetsOn) -> list[Masks]:
    """The masks of every level, finest first.

    A coarse cell is a target of a block when at least half of what is `counted` in it is a target of that block; it is
    context when at least one patch in it is. It may be both. Where patches are counted and targets are no context, at
    most half of what is predicted of a cell is seen. Where the cells of the level below are counted, half a cell of
    half a cell may do: on level 3 a quarter of the patches, and three quarters may be seen.

    A small block may have no target cell; its validity is then all False.

    Args:
        masks: of the patches. grids: of all levels, finest first.
    """
    found = [masks]
    context = masks.context.coverage(grids[0].num_patches)  # [B, E, N]
    targets = masks.target.coverage(grids[0].num_patches).int()  # [B, M, N]: of what is counted in a cell
    counted_in_cell = torch.ones_like(targets[0, 0])  # [N]
    for grid, coarser in itertools.pairwise(grids):
        context = _sums(context.int(), grid) > 0
        targets, counted_in_cell = _sums(targets, grid), _sums(counted_in_cell, grid)
        is_target = 2 * targets >= counted_in_cell
        # A coarse cell takes at least one finer one, so none of the two can have more than there are below.
        finer, cells = found[-1], coarser.num_patches
        found.append(
            Masks(
                patches_of(context, min(cells, finer.context.shape[-1])),
                patches_of(is_target, min(cells, finer.target.shape[-1])),
            )
        )
        if counted == "level_below":
            targets, counted_in_cell = is_target.int(), torch.ones_like(counted_in_cell)
    return found


def visible_target_shares(of_levels: Sequence[Masks], grids: Sequence[Grid]) -> Tensor:
    """How much of the targets is seen: the share of context patches in a target cell, averaged over target cells.

    Over pairs of a context view and a target cell of the whole batch; 0 for a level without targets. At the patches
    it is 0 unless targets are context.

    Args:
        of_levels: of `level_masks`, for these grids.
    Returns:
        [levels] float32.
    """
    seen = of_levels[0].context.coverage(grids[0].num_patches).float().mean(dim=1)  # [B, N]: of a cell's patches
    patches = torch.ones_like(seen[0])  # [N] in a cell
    shares = []
    for level, (masks, grid) in enumerate(zip(of_levels, grids, strict=True)):
        if level > 0:
            seen, patches = _sums(seen, grids[level - 1]), _sums(patches, grids[level - 1])
        blocks = masks.target.coverage(grid.num_patches).sum(dim=1)  # [B, N]: blocks of which a cell is a target
        shares.append((blocks * seen / patches).sum() / blocks.sum().clamp(min=1))
    return torch.stack(shares)


def _sums(values: Tensor, grid: Grid) -> Tensor:
    """Sums over the cells of `grid` in every coarser one, [..., N] -> [..., N']."""
    children, exists = grid.children(values.device)  # each [N', 4]
    return (values[..., children] * exists).sum(dim=-1, dtype=values.dtype)
