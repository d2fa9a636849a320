"""Angle between predicted and target representations."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from jepa_lab.losses.base import LOSSES, Loss


@LOSSES.register(
    "cosine",
    summary="1 - cosine similarity of each patch: the direction counts, the length does not.",
    source="Grill et al. 2020, arXiv:2006.07733 (BYOL), eq. 2 up to a factor of 2; Chen and He 2021, arXiv:2011.10566",
)
class CosineLoss(Loss):
    """1 - <p, t> / (|p| |t|), between 0 and 2; of single numbers it would be the sign alone, without a gradient."""

    min_features = 2

    def per_patch(self, predictions: Tensor, targets: Tensor) -> Tensor:
        return 1 - F.cosine_similarity(predictions, targets, dim=-1)
