"""An encoder that is a matrix, for the probe tests."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from jepa_lab.testing.subjects import PATCH


class FakeEncoder(nn.Module):
    """Patches times a fixed random matrix; in training mode a dropout would change every feature.

    Attributes:
        seen: images that `last_layers` was given so far.
    """

    def __init__(self, embed_dim: int = 6, num_channels: int = 3) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(4, num_channels * PATCH**2, embed_dim, generator=generator))
        self.dropout = nn.Dropout(0.5)
        self.seen = 0

    def last_layers(self, images: Tensor, num_layers: int) -> Tensor:
        self.seen += len(images)
        patches = images.unfold(2, PATCH, PATCH).unfold(3, PATCH, PATCH)  # [B, C, Gh, Gw, p, p]
        patches = patches.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)  # [B, N, C * p * p]
        layers = [torch.tanh(patches @ weight) for weight in self.weight[-num_layers:]]
        return self.dropout(torch.cat(layers, dim=-1))
