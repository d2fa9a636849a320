"""The loss `charbonnier`: quadratic near zero, linear far from it, and smooth everywhere."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from jepa_lab.losses.base import LOSSES, Loss
from jepa_lab.registry import ComponentParams


class CharbonnierParams(ComponentParams):
    """What a user chooses."""

    width: float = Field(1.0, gt=0, description="Difference at which the loss turns from quadratic to linear.")


@LOSSES.register(
    "charbonnier",
    summary="sqrt(d^2 + width^2) - width of each difference d, averaged over features.",
    source="Charbonnier et al. 1994, Two deterministic half-quadratic regularization algorithms for computed imaging",
)
class Charbonnier(Loss):
    """A smooth relative of smooth L1."""

    Params = CharbonnierParams

    def __init__(self, params: CharbonnierParams) -> None:
        super().__init__(params)
        self.width = params.width

    def per_patch(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """[..., D] twice -> [...], averaged over the features."""
        difference = predictions - targets
        return ((difference.square() + self.width**2).sqrt() - self.width).mean(dim=-1)
