"""Strong: moderate's crop, flip and colour jitter, then Gaussian blur and solarisation."""

from __future__ import annotations

import torch
from pydantic import Field, model_validator
from torch import Tensor

from jepa_lab.data.augmentations.base import AUGMENTATIONS, Augmentation
from jepa_lab.data.augmentations.blur import gaussian_blur
from jepa_lab.data.augmentations.moderate import Moderate
from jepa_lab.errors import Key
from jepa_lab.registry import broken_rule


@AUGMENTATIONS.register(
    "strong",
    summary="a random resized crop, a horizontal flip, colour jitter, Gaussian blur, then solarisation",
    source="Chen et al. 2020, arXiv:2002.05709 (SimCLR), app. A (blur of half of the images); Grill et al. 2020, "
    "arXiv:2006.07733 (BYOL), app. B (solarisation of a fifth)",
)
class Strong(Augmentation):
    """`moderate`, then some images are blurred, and of some images bright pixels are inverted.

    Any number of channels. The blur's kernel is a tenth of the image high and wide, as in SimCLR. Differs from BYOL,
    whose two views have different probabilities: here is one view. Compared with torchvision's operations in
    tests/unit/data/test_color_and_blur.py.
    """

    class Params(Moderate.Params):
        blur_probability: float = Field(0.5, ge=0, le=1, description="Share of images that are blurred.")
        blur_sigma: tuple[float, float] = Field(
            (0.1, 2.0),
            description="Range of the blur's standard deviation, in pixels of the result.",
            json_schema_extra={"prefixItems": [{"type": "number", "minimum": 0.01, "maximum": 100}] * 2},
        )
        solarize_probability: float = Field(0.2, ge=0, le=1, description="Share of images that are solarised.")
        solarize_threshold: float = Field(
            0.5, ge=0, le=1, description="A solarised image's values from here on (black 0, white 1) are inverted."
        )

        @model_validator(mode="after")
        def _check_sigma(self) -> Strong.Params:
            if not 0.01 <= self.blur_sigma[0] <= self.blur_sigma[1] <= 100:
                raise broken_rule(Key("blur_sigma"), f" must satisfy 0.01 <= min <= max <= 100, got {self.blur_sigma}")
            return self

    params: Params

    def __init__(self, params: Params, image_size: int) -> None:
        super().__init__(params, image_size)
        self._moderate = Moderate(params, image_size)

    def draw(self, batch_size: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        moderate = self._moderate.draw(batch_size, generator)
        low, high = self.params.blur_sigma
        blur_coins, sigma, solarize_coins = torch.rand(3, batch_size, generator=generator, device=generator.device)
        is_blurred = blur_coins < self.params.blur_probability
        is_solarized = solarize_coins < self.params.solarize_probability
        return *moderate, is_blurred, low + (high - low) * sigma, is_solarized  # four of moderate's, [B], [B], [B]

    def apply(self, images: Tensor, sizes: Tensor | None, draws: tuple[Tensor, ...]) -> Tensor:
        *moderate, is_blurred, sigma, is_solarized = draws
        images = self._moderate.apply(images, sizes, tuple(moderate))
        blurred = gaussian_blur(images, sigma).clamp(0, 1)
        images = torch.where(is_blurred[:, None, None, None], blurred, images)
        return solarize(images, is_solarized, self.params.solarize_threshold)


def solarize(images: Tensor, is_solarized: Tensor, threshold: float) -> Tensor:
    """Invert the values at or above the threshold in the marked images.

    Args:
        images: [B, C, H, W] in [0, 1]. is_solarized: [B] bool.
    """
    inverted = is_solarized[:, None, None, None] & (images >= threshold)
    return torch.where(inverted, 1 - images, images)
