"""None: images as they are; of a picture that is not square, the centre."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from jepa_lab.data.augmentations.base import AUGMENTATIONS, Augmentation
from jepa_lab.data.augmentations.crop import centre_boxes, crop_and_resize, in_stored_pixels, original_sizes
from jepa_lab.registry import ComponentParams


@AUGMENTATIONS.register("none", summary="no augmentation", source="the identity")
class NoAugmentation(Augmentation):
    """Returns the images themselves where they have the right size, else the largest centre square; draws nothing.

    Images without sizes of their own, and of another height and width than is asked for, are resized.
    """

    Params = ComponentParams

    def draw(self, batch_size: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        return ()

    def apply(self, images: Tensor, sizes: Tensor | None, draws: tuple[Tensor, ...]) -> Tensor:
        if sizes is not None:
            original = original_sizes(images, sizes)
            boxes = in_stored_pixels(
                centre_boxes(original, self.image_size, self.image_size), original, *images.shape[2:]
            )
            return crop_and_resize(images, boxes, self.image_size)
        size = (self.image_size, self.image_size)
        if images.shape[2:] == size:
            return images
        return F.interpolate(images, size=size, mode="bilinear", antialias=True)
