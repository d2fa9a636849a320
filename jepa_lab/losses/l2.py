"""Squared distance between predicted and target representations."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from jepa_lab.losses.base import LOSSES, Loss
from jepa_lab.registry import ComponentParams


class L2Params(ComponentParams):
    """Parameters of `l2`."""

    over_features: Literal["sum", "mean"] = Field(
        "sum",
        description="Sum (the paper's squared distance of a patch) or mean of the squares over the features.",
    )


@LOSSES.register(
    "l2",
    summary="Squared distance of each patch, averaged over patches.",
    source="Assran et al. 2023, arXiv:2301.08243, sec. 3 (the paper's loss)",
)
class L2Loss(Loss):
    """Sum or mean over the features of the squared difference."""

    Params = L2Params
    params: L2Params

    def per_patch(self, predictions: Tensor, targets: Tensor) -> Tensor:
        squares = (predictions - targets).square()  # [..., D]
        return squares.sum(dim=-1) if self.params.over_features == "sum" else squares.mean(dim=-1)
