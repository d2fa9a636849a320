"""Minimal: a random resized crop and a horizontal flip."""

from __future__ import annotations

import torch
from pydantic import Field, model_validator
from torch import Tensor

from jepa_lab.data.augmentations.base import AUGMENTATIONS, Augmentation
from jepa_lab.data.augmentations.crop import (
    crop_and_resize,
    crop_boxes,
    draw_crops,
    in_stored_pixels,
    original_sizes,
)
from jepa_lab.errors import Key
from jepa_lab.registry import ComponentParams, broken_rule


@AUGMENTATIONS.register(
    "minimal",
    summary="a random resized crop, then a horizontal flip",
    source="Assran et al. 2023, arXiv:2301.08243, app. A (crop scale 0.3 to 1; no flip there)",
)
class Minimal(Augmentation):
    """Crops each picture by its own box, chosen in pixels of its file, and mirrors it by its own coin.

    Differs from the released recipe: that has no flip; `flip_probability: 0` is its behaviour.
    """

    class Params(ComponentParams):
        crop_scale: tuple[float, float] = Field(
            (0.3, 1.0),
            description="Range of the crop's share of the picture's area.",
            json_schema_extra={"prefixItems": [{"type": "number", "exclusiveMinimum": 0, "maximum": 1}] * 2},
        )
        crop_aspect_ratio: tuple[float, float] = Field(
            (3 / 4, 4 / 3),
            description="Range of the crop's width / height.",
            json_schema_extra={"prefixItems": [{"type": "number", "exclusiveMinimum": 0}] * 2},
        )
        flip_probability: float = Field(
            0.5,
            ge=0,
            le=1,
            description="Share of images mirrored left to right; 0 for digits and letters.",
        )

        @model_validator(mode="after")
        def _check_ranges(self) -> Minimal.Params:
            scale, ratio = self.crop_scale, self.crop_aspect_ratio
            if not 0 < scale[0] <= scale[1] <= 1:
                raise broken_rule(Key("crop_scale"), f" must satisfy 0 < min <= max <= 1, got {scale}")
            if not 0 < ratio[0] <= ratio[1]:
                raise broken_rule(Key("crop_aspect_ratio"), f" must satisfy 0 < min <= max, got {ratio}")
            return self

    params: Params

    def draw(self, batch_size: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        crops = draw_crops(batch_size, generator)  # [B, 22]
        coins = torch.rand(batch_size, generator=generator, device=generator.device)
        return crops, coins < self.params.flip_probability  # [B, 22], [B]

    def apply(self, images: Tensor, sizes: Tensor | None, draws: tuple[Tensor, ...]) -> Tensor:
        crops, flip = draws
        original = original_sizes(images, sizes)  # [B, 2]
        boxes = crop_boxes(crops, original, self.params.crop_scale, self.params.crop_aspect_ratio)  # [B, 4]
        return crop_and_resize(images, in_stored_pixels(boxes, original, *images.shape[2:]), self.image_size, flip)
