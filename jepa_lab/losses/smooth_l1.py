"""Smooth L1 distance between predicted and target representations."""

from __future__ import annotations

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from jepa_lab.losses.base import LOSSES, Loss
from jepa_lab.registry import ComponentParams


class SmoothL1Params(ComponentParams):
    """Parameters of `smooth_l1`."""

    beta: float = Field(1.0, gt=0, description="Quadratic below this absolute difference, linear above it.")


@LOSSES.register(
    "smooth_l1",
    summary="Quadratic for small differences, linear for large ones; mean over features and patches.",
    source="Released I-JEPA code (beta 1); Girshick 2015, arXiv:1504.08083",
)
class SmoothL1Loss(Loss):
    """Mean over the features of the smooth L1 difference."""

    Params = SmoothL1Params
    params: SmoothL1Params

    def per_patch(self, predictions: Tensor, targets: Tensor) -> Tensor:
        return F.smooth_l1_loss(predictions, targets, reduction="none", beta=self.params.beta).mean(dim=-1)
