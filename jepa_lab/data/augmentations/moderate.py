"""Moderate: minimal's crop and flip, then colour jitter."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from jepa_lab.data.augmentations.base import AUGMENTATIONS, Augmentation
from jepa_lab.data.augmentations.color import JitterStrength, jitter, sample_jitter
from jepa_lab.data.augmentations.minimal import Minimal


@AUGMENTATIONS.register(
    "moderate",
    summary="a random resized crop, a horizontal flip, then colour jitter",
    source="Chen et al. 2020, arXiv:2002.05709 (SimCLR), app. A; strengths of Grill et al. 2020, arXiv:2006.07733 "
    "(BYOL), app. B",
)
class Moderate(Augmentation):
    """`minimal`, then brightness, contrast, saturation and hue of each image in a random order of its own.

    Images that do not have three channels, such as digits, get brightness and contrast alone. Differs from the
    papers: no random greyscale. Every operation is compared with torchvision's in
    tests/unit/data/test_color_and_blur.py.
    """

    class Params(Minimal.Params):
        jitter_probability: float = Field(0.8, ge=0, le=1, description="Share of images whose colours are jittered.")
        brightness: float = Field(
            0.4, ge=0, le=1, description="x: an image is multiplied by a number between 1 - x and 1 + x."
        )
        contrast: float = Field(
            0.4, ge=0, le=1, description="x: differences from the image's mean grey, by 1 - x to 1 + x."
        )
        saturation: float = Field(
            0.2,
            ge=0,
            le=1,
            description="x: differences from the image in grey, by 1 - x to 1 + x; images of three channels alone.",
        )
        hue: float = Field(
            0.1,
            ge=0,
            le=0.5,
            description="x: hues turn by -x to x of the colour circle; images of three channels alone.",
        )

    params: Params

    def __init__(self, params: Params, image_size: int) -> None:
        super().__init__(params, image_size)
        self._minimal = Minimal(params, image_size)
        self._strength = JitterStrength(params.brightness, params.contrast, params.saturation, params.hue)

    def draw(self, batch_size: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        crop_and_flip = self._minimal.draw(batch_size, generator)
        jitters = sample_jitter(batch_size, self._strength, self.params.jitter_probability, generator)
        return *crop_and_flip, *jitters  # [B, 22], [B], [B, 4], [B, 4]

    def apply(self, images: Tensor, sizes: Tensor | None, draws: tuple[Tensor, ...]) -> Tensor:
        *crop_and_flip, amounts, order = draws
        return jitter(self._minimal.apply(images, sizes, tuple(crop_and_flip)), amounts, order)
