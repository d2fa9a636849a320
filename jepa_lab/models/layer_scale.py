"""LayerScale: a learned factor for each feature of what a block adds to its tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LayerScale(nn.Module):
    """Multiplies features by `gamma` [D], which starts small, so that a deep network starts as nearly the identity.

    Args:
        value: of every gamma at the start.
    Source: Touvron et al. 2021, arXiv:2103.17239, sec. 2.1.
    """

    def __init__(self, embed_dim: int, value: float) -> None:
        super().__init__()
        self.value = value
        self.gamma = nn.Parameter(torch.full((embed_dim,), value))

    def reset(self) -> None:
        """Give gamma its first value, in place."""
        nn.init.constant_(self.gamma, self.value)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


def build_layer_scale(embed_dim: int, value: float | None) -> nn.Module:
    """A LayerScale that starts at `value`; with None nothing, without parameters."""
    return nn.Identity() if value is None else LayerScale(embed_dim, value)
