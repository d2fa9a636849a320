"""What a prediction target is: the representations that the predictor is trained to produce."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from jepa_lab.maskers.base import Masks
from jepa_lab.registry import ComponentParams, Registry


class Target(ABC):
    """Computes the targets of a batch, without gradients.

    Args:
        params: the target's own `Params`.
    """

    Params: type[ComponentParams] = ComponentParams

    def __init__(self, params: ComponentParams) -> None:
        self.params = params

    @abstractmethod
    def compute(self, target_encoder: nn.Module, images: Tensor, masks: Masks) -> Tensor:
        """Targets at the masks' target positions.

        Args:
            target_encoder: maps [B, C, H, W] images to [B, N, D] features.
            images: [B, C, H, W] float32, channel-normalised.
        Returns:
            [B, M, T, D].
        """


TARGETS: Registry[Target] = Registry("target", Target)
