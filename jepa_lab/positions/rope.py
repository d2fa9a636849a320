"""Rotary position embedding over the two axes of the patch grid."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from jepa_lab.errors import Problem
from jepa_lab.grid import Grid
from jepa_lab.positions.base import POSITIONS, PositionEmbedding, PositionInputs, Rotation
from jepa_lab.registry import ComponentParams


class RopeParams(ComponentParams):
    """Parameters of `rope`."""

    base: float = Field(
        100.0,
        gt=1,
        description="Frequencies fall from 1 to about 1/base; 100 suits grids of 8 to 32 patches a side.",
    )


@POSITIONS.register(
    "rope",
    summary="2-D axial rotation of queries and keys; attention depends on relative position; nothing is added.",
    source="Su et al. 2021, arXiv:2104.09864; axial form: Heo et al. 2024, arXiv:2403.13298",
)
class RotaryPosition(PositionEmbedding):
    """Rotates the first half of each head by the column and the second half by the row."""

    Params = RopeParams
    cosine: Tensor
    sine: Tensor

    def __init__(self, params: RopeParams, grid: Grid, embed_dim: int, num_heads: int) -> None:
        super().__init__(params, grid, embed_dim, num_heads)
        quarter = embed_dim // num_heads // 4
        frequencies = params.base ** (-torch.arange(quarter, dtype=torch.float64) / quarter)
        row, column = grid.coordinates()
        angles = torch.cat([column[:, None] * frequencies, row[:, None] * frequencies], dim=1)  # [N, head_dim / 2]
        angles = angles.repeat_interleave(2, dim=1)  # one angle for both features of a pair
        dtype = torch.get_default_dtype()
        self.register_buffer("cosine", angles.cos().to(dtype), persistent=False)
        self.register_buffer("sine", angles.sin().to(dtype), persistent=False)

    @classmethod
    def check(cls, params: RopeParams, known: PositionInputs) -> Problem | None:
        head_dim = known.embed_dim // known.num_heads
        if head_dim % 4:
            return Problem(
                f"rope needs a head width that is a multiple of 4, got {known.embed_dim} / {known.num_heads} = "
                f"{head_dim}; change the width or the number of heads"
            )
        return None

    def rotation(self, indices: Tensor) -> Rotation:
        return self.cosine[indices].unsqueeze(1), self.sine[indices].unsqueeze(1)  # [B, 1, K, head_dim]
