"""A strided convolution that is told which cells are missing."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from jepa_lab.downsampling.base import DOWNSAMPLINGS, Downsampling
from jepa_lab.registry import ComponentParams


@DOWNSAMPLINGS.register(
    "conv",
    summary="A learned 2 x 2 convolution of stride 2; a learned vector stands where a cell is missing.",
    source="H-JEPA notes (conv downsampling); jepa-lab's reading of what is hidden",
)
class Conv(Downsampling):
    """One linear map of the four cells side by side, with the weight of an nn.Conv2d.

    A cell that is hidden, or beyond the edge of an odd grid, is the vector `missing`: with zeros in its place the map
    could not tell a hidden cell from one whose features are zero.
    """

    def __init__(self, params: ComponentParams, embed_dim: int) -> None:
        super().__init__(params, embed_dim)
        self.conv = nn.Conv2d(embed_dim, embed_dim, kernel_size=2, stride=2)
        self.missing = nn.Parameter(torch.zeros(1, embed_dim))

    def flops(self) -> float:
        return 2.0 * 4 * self.embed_dim**2

    def forward(self, children: Tensor, seen: Tensor) -> Tensor:
        given = torch.where(seen.unsqueeze(-1), children, self.missing.to(children.dtype))  # [S, N', 4, D]
        return nn.functional.linear(given.transpose(-1, -2).flatten(-2), self.conv.weight.flatten(1), self.conv.bias)
