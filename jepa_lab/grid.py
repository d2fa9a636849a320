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

    def __str__(self) -> str:
        return f"{self.height}x{self.width}"
