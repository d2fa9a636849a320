"""A learned vector for each position."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from jepa_lab.grid import Grid
from jepa_lab.positions.base import POSITIONS, PositionEmbedding
from jepa_lab.registry import ComponentParams


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
        return tokens + self.position_embedding[indices]
