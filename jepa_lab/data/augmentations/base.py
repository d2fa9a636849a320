"""What an augmentation is: a random change of every image of a batch, on the images' device."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from jepa_lab.registry import ComponentParams, Registry


class Augmentation(ABC):
    """Changes each image of a batch by its own random draw.

    Args:
        params: the augmentation's own `Params`.
        image_size: height and width of the result, in pixels.
    """

    Params: type[ComponentParams] = ComponentParams

    def __init__(self, params: ComponentParams, image_size: int) -> None:
        self.params = params
        self.image_size = image_size

    @abstractmethod
    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Augment a batch.

        Args:
            images: [B, C, H, W] float32 in [0, 1].
            generator: on the images' device; the only source of randomness.
        Returns:
            [B, C, image_size, image_size] float32 in [0, 1].
        """


AUGMENTATIONS: Registry[Augmentation] = Registry("augmentation", Augmentation)
