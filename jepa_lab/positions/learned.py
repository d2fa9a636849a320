"""A learned vector for each position."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepa_lab.grid import Grid
from jepa_lab.positions.base import POSITIONS, PositionEmbedding
from jepa_lab.registry import ComponentParams


class TakeRows(torch.autograd.Function):
    """table[indices], whose gradient is one matrix product with one-hot rows.

    The gradient of plain indexing adds up rows one after another wherever an index recurs, and here each of the N
    positions recurs in every image: on a GPU it took 38% of a step's time, the product takes next to none. It is
    deterministic, and needs no number from the device, so that it can be captured.
    """

    @staticmethod
    def forward(ctx: Any, table: Tensor, indices: Tensor) -> Tensor:
        """Args: table [N, D]; indices [...] int64. Returns: [..., D]."""
        ctx.save_for_backward(indices)
        ctx.num_rows = table.shape[0]
        return table[indices]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """[..., D] -> [N, D]."""
        (gradient,), (indices,) = gradients, ctx.saved_tensors
        rows = torch.arange(ctx.num_rows, device=indices.device)
        with torch.autocast(gradient.device.type, enabled=False):
            taken = (rows[:, None] == indices.flatten()).to(gradient.dtype)  # [N, n]
            return taken @ gradient.flatten(0, -2), None


def take_rows(table: Tensor, indices: Tensor) -> Tensor:
    """Rows of a trained table, with a gradient that is fast where many indices recur.

    Args:
        table: [N, D]. indices: [...] int64.
    Returns:
        [..., D].
    """
    if table.device.type == "cpu":  # where adding up rows costs little
        return table[indices]
    rows: Tensor = TakeRows.apply(table, indices)
    return rows


def resample(table: Tensor, grid: Grid, to: Grid) -> Tensor:
    """A vector for each position of another grid: bicubic, antialiased where it shrinks.

    Args:
        table: [N, D], a vector for each position of `grid`.
    Returns:
        [N of `to`, D]; the same numbers where the grids are equal.
    """
    if grid == to:
        return table
    image = table.unflatten(0, (grid.height, grid.width)).permute(2, 0, 1)[None]  # [1, D, Gh, Gw]
    size = (to.height, to.width)
    # With antialias the kernel also keeps a linear ramp linear when it enlarges, which without it it does not.
    image = F.interpolate(image, size, mode="bicubic", align_corners=False, antialias=True)
    return image[0].flatten(1).T.contiguous()


@POSITIONS.register(
    "learned",
    summary="One learned vector a position, added to the tokens.",
    source="Dosovitskiy et al. 2021, arXiv:2010.11929, sec. 3.1",
)
class LearnedPosition(PositionEmbedding):
    """Adds a learned vector; initialised by the model with the same truncated normal as its weights."""

    def __init__(self, params: ComponentParams, grid: Grid, embed_dim: int, num_heads: int) -> None:
        super().__init__(params, grid, embed_dim, num_heads)
        self.position_embedding = nn.Parameter(torch.zeros(grid.num_patches, embed_dim))

    def add(self, tokens: Tensor, indices: Tensor) -> Tensor:
        return tokens + take_rows(self.position_embedding, indices)

    def at_grid(self, grid: Grid) -> LearnedPosition:
        """The vectors of this grid, resampled."""
        other = LearnedPosition(self.params, grid, self.embed_dim, self.num_heads)
        table = resample(self.position_embedding.detach(), self.grid, grid).clone()
        other.position_embedding = nn.Parameter(table, requires_grad=self.position_embedding.requires_grad)
        return other
