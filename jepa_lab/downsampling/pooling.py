"""The average of the fine cells that are seen."""

from __future__ import annotations

import torch
from torch import Tensor

from jepa_lab.downsampling.base import DOWNSAMPLINGS, Downsampling


@DOWNSAMPLINGS.register(
    "pooling",
    summary="The average of the fine cells that are seen; nothing to learn.",
    source="H-JEPA notes (progressive pooling); jepa-lab's reading of what is hidden",
)
class Pooling(Downsampling):
    """Sum over the seen cells divided by their number."""

    def forward(self, children: Tensor, seen: Tensor) -> Tensor:
        dtype = torch.promote_types(children.dtype, torch.float32)
        total = children.to(dtype).masked_fill(~seen.unsqueeze(-1), 0.0).sum(dim=2)  # [S, N', D]
        return (total / seen.sum(dim=2).clamp(min=1).unsqueeze(-1)).to(children.dtype)
