"""None: images as they are, resized if their size differs."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from jepa_lab.data.augmentations.base import AUGMENTATIONS, Augmentation
from jepa_lab.registry import ComponentParams


@AUGMENTATIONS.register("none", summary="no augmentation", source="the identity")
class NoAugmentation(Augmentation):
    """Returns the images themselves where they have the right size; draws nothing."""

    Params = ComponentParams

    def draw(self, batch_size: int, height: int, width: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        return ()

    def apply(self, images: Tensor, draws: tuple[Tensor, ...]) -> Tensor:
        size = (self.image_size, self.image_size)
        if images.shape[2:] == size:
            return images
        return F.interpolate(images, size=size, mode="bilinear", antialias=True)
