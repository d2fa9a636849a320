"""The average of the target encoder's features over a target block."""

from __future__ import annotations

import torch
from torch import Tensor

from jepa_lab.maskers.base import Masks
from jepa_lab.maskers.patches import mean_of_valid
from jepa_lab.targets.base import TARGETS, at_targets
from jepa_lab.targets.features import EncodedTarget
from jepa_lab.targets.normalization import normalize_features


@TARGETS.register(
    "pooled_features",
    summary="The average of a target block's features, which every patch of the block has to predict.",
    source="the row 'average pool features' of an ablation of prediction targets; jepa-lab's reading of it",
)
class PooledFeaturesTarget(EncodedTarget):
    """Encodes the whole image, normalises each patch, averages over the valid patches of each block.

    Each patch of a block predicts the block's average: what is left to predict is what the block shows, not where in
    it. The average is taken after the normalisation, so no patch counts more by its scale.
    """

    @torch.no_grad()
    def of_features(self, features: Tensor, masks: Masks) -> Tensor:
        targets = at_targets(normalize_features(features, None, self.params.normalization), masks)  # [B, M, T, D]
        return mean_of_valid(targets, masks.target.valid).unsqueeze(2).expand_as(targets)
