"""Fixed sine-cosine embedding of the column and the row of a patch."""

from __future__ import annotations

import torch
from torch import Tensor

from jepa_lab.errors import Problem
from jepa_lab.grid import Grid
from jepa_lab.positions.base import POSITIONS, PositionEmbedding, PositionInputs
from jepa_lab.registry import ComponentParams


def sincos_1d(coordinates: Tensor, dim: int) -> Tensor:
    """Sines, then cosines, of coordinates at frequencies 10000^(-i / (dim / 2)).

    Args:
        coordinates: [N], any real numbers.
        dim: even number of features.
    Returns:
        [N, dim] float64.
    """
    exponent = torch.arange(dim // 2, dtype=torch.float64) / (dim / 2)
    angles = coordinates.to(torch.float64)[:, None] / 10000**exponent  # [N, dim / 2]
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def sincos_2d(grid: Grid, embed_dim: int) -> Tensor:
    """Embedding of every patch: the column in the first half of the features, the row in the second.

    Returns:
        [N, embed_dim] float64.
    Source: Assran et al. 2023 and the released code (column first).
    """
    row, column = grid.coordinates()
    half = embed_dim // 2
    return torch.cat([sincos_1d(column, half), sincos_1d(row, half)], dim=1)


@POSITIONS.register(
    "sincos",
    summary="Fixed 2-D sine-cosine embedding added to the tokens, column first.",
    source="Assran et al. 2023, arXiv:2301.08243 (released code); Vaswani et al. 2017, sec. 3.5",
)
class SinCosPosition(PositionEmbedding):
    """Adds the fixed embedding of `sincos_2d`."""

    table: Tensor

    def __init__(self, params: ComponentParams, grid: Grid, embed_dim: int, num_heads: int) -> None:
        super().__init__(params, grid, embed_dim, num_heads)
        table = sincos_2d(grid, embed_dim).to(torch.get_default_dtype())
        # Not persistent: it is computed from the grid, so a checkpoint need not hold it.
        self.register_buffer("table", table, persistent=False)

    @classmethod
    def check(cls, params: ComponentParams, known: PositionInputs) -> Problem | None:
        if known.embed_dim % 4:
            return Problem(
                f"sincos needs a width that is a multiple of 4, got {known.embed_dim}; choose such a width or `learned`"
            )
        return None

    def add(self, tokens: Tensor, indices: Tensor) -> Tensor:
        return tokens + self.table[indices]
