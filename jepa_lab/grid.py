"""The patch grid of an image: how many patches high and wide."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Grid:
    """A grid of `height` x `width` patches, numbered in raster order (index = row * width + column)."""

    height: int
    width: int

    @property
    def num_patches(self) -> int:
        """N, the number of patches."""
        return self.height * self.width

    def coordinates(self, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
        """Row and column of every patch in raster order, each [N] int64."""
        index = torch.arange(self.num_patches, device=device)
        return index // self.width, index % self.width

    def coarser(self) -> Grid:
        """The grid of half as many cells a side, rounded up."""
        return Grid((self.height + 1) // 2, (self.width + 1) // 2)

    def children(self, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
        """The 2 x 2 cells of this grid in every cell of the coarser one, row by row.

        Returns:
            Indices [N', 4] int64 and which of them exist, [N', 4] bool; beyond an odd edge the index is 0.
        """
        row, column = self.coarser().coordinates(device)
        offset = torch.arange(4, device=device)
        rows, columns = 2 * row[:, None] + offset // 2, 2 * column[:, None] + offset % 2  # each [N', 4]
        exists = (rows < self.height) & (columns < self.width)
        return (rows * self.width + columns).masked_fill(~exists, 0), exists

    def parents(self, device: torch.device | None = None) -> Tensor:
        """The cell of the coarser grid that every cell of this one lies in, [N] int64."""
        row, column = self.coordinates(device)
        return (row // 2) * self.coarser().width + column // 2

    def __str__(self) -> str:
        return f"{self.height}x{self.width}"


def patchify(images: Tensor, patch_size: int) -> Tensor:
    """[B, C, H, W] -> [B, N, C * patch_size**2], patches in raster order; a patch by channel, row, column."""
    patches = images.unflatten(2, (-1, patch_size)).unflatten(4, (-1, patch_size))  # [B, C, Gh, p, Gw, p]
    return patches.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def unpatchify(patches: Tensor, patch_size: int, grid: Grid) -> Tensor:
    """[B, N, C * patch_size**2] -> [B, C, H, W]; the inverse of `patchify`."""
    patches = patches.unflatten(1, (grid.height, grid.width)).unflatten(3, (-1, patch_size, patch_size))
    return patches.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)
