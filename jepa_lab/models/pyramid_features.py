"""Features of a pyramid's levels for whole images, where a probe looks for an encoder's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from jepa_lab.models.hierarchy import Pyramid
from jepa_lab.models.vit import VisionTransformer
from jepa_lab.targets.normalization import normalize_features


class PyramidFeatures(nn.Module):
    """An encoder with a pyramid on top; each patch has the features of the cells that it lies in, side by side.

    Cells are normalised one by one (layer norm without learned scale and shift), as the targets are. Without that,
    coarse features would say nothing new on average over an image: the average of averages is the average of the
    patches. A cell counts as often as it has patches.

    Args:
        encoder: of the images' grid. pyramid: on that grid.
        levels: those that are read, ascending, 1 for the patches.
    """

    def __init__(self, encoder: VisionTransformer, pyramid: Pyramid, levels: Sequence[int]) -> None:
        super().__init__()
        assert pyramid.grids[0] == encoder.grid, "of one grid"
        self.encoder = encoder
        self.pyramid = pyramid
        self.levels = tuple(levels)

    @property
    def num_patches(self) -> int:
        """N, tokens of an image."""
        return self.encoder.num_patches

    def last_layers(self, images: Tensor, num_layers: int) -> Tensor:
        """The levels of the pyramid on each of the last `num_layers` blocks, side by side.

        Args:
            images: [B, C, H, W] float, channel-normalised.
        Returns:
            [B, N, num_layers * levels * D], the last block's features at the end, of each block the finest level first.
        """
        blocks = self.encoder.last_layers(images, num_layers).unflatten(-1, (num_layers, -1)).unbind(dim=2)
        return torch.cat([features for block in blocks for features in self._of_levels(block)], dim=-1)

    def _of_levels(self, features: Tensor) -> list[Tensor]:
        """Features [B, N, D] of the patches -> for each level that is read, those of every patch's cell."""
        everything = torch.ones_like(features[..., 0], dtype=torch.bool)
        of_levels = self.pyramid(features, everything)
        cells = list(self._cells_of_patches(features.device))
        normalised = [normalize_features(of_levels[level - 1], None, "layer_norm") for level in self.levels]
        return [found[:, cells[level - 1]] for found, level in zip(normalised, self.levels, strict=True)]

    def _cells_of_patches(self, device: torch.device) -> Iterator[Tensor]:
        """For each level of the pyramid the cell that every patch lies in, [N] int64."""
        cell = torch.arange(self.num_patches, device=device)
        yield cell
        for finer, _ in pairwise(self.pyramid.grids):
            cell = finer.parents(device)[cell]
            yield cell
