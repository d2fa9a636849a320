"""Colour jitter: brightness, contrast, saturation and hue of each image, in an order of its own.

Not an augmentation itself: `moderate` and `strong` are made of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
LUMINANCE = (0.2989, 0.587, 0.114)
"""Weights of red, green and blue in grey (ITU-R BT.601)."""


@dataclass(frozen=True)
class JitterStrength:
    """How far each operation may go: factors from 1 - x to 1 + x, hue from -x to x turns of the colour circle."""

    brightness: float
    contrast: float
    saturation: float
    hue: float


def sample_jitter(
    batch_size: int, strength: JitterStrength, probability: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw the jitter of each image: uniform amounts, a uniform order; some images are left alone.

    Args:
        probability: share of the images that are jittered.
        generator: its device is the device of the result.
    Returns:
        Amounts [B, 4] float32 of brightness, contrast, saturation (factors, 1 changes nothing) and hue (a shift, 0
        changes nothing), and the order [B, 4] int64 in which these four are applied.
    Source: torchvision's ColorJitter inside RandomApply, whose distribution this is.
    """
    draws = torch.rand(9, batch_size, generator=generator, device=generator.device)
    spread = 2 * draws[:4] - 1  # [4, B], uniform from -1 to 1
    left_alone = draws[4] >= probability
    factors = [
        1 + strength.brightness * spread[BRIGHTNESS],
        1 + strength.contrast * spread[CONTRAST],
        1 + strength.saturation * spread[SATURATION],
    ]
    amounts = torch.stack([*(f.masked_fill(left_alone, 1) for f in factors), strength.hue * spread[HUE]], dim=1)
    amounts[:, HUE].masked_fill_(left_alone, 0)
    return amounts, draws[5:].T.argsort(dim=1)


def jitter(images: Tensor, amounts: Tensor, order: Tensor) -> Tensor:
    """Apply the four operations to each image in its own order.

    Saturation and hue are left out where images do not have three channels, as torchvision does for grey ones.

    The first three are one formula with different references, so every image can do another one at a time. Hue
    costs more and is not: it is shifted once, between what comes before it and what comes after it.

    Args:
        images: [B, C, H, W] float32 in [0, 1].
        amounts, order: of `sample_jitter`.
    Returns:
        [B, C, H, W] float32 in [0, 1].
    """
    place_of_hue = (order == HUE).int().argmax(dim=1)  # [B]
    for place in range(3):
        images = _blend_in_turn(images, amounts, order[:, place], place < place_of_hue)
    if images.shape[1] == 3:
        images = shift_hue(images, amounts[:, HUE])
    for place in range(1, 4):
        images = _blend_in_turn(images, amounts, order[:, place], place > place_of_hue)
    return images


def _blend_in_turn(images: Tensor, amounts: Tensor, operation: Tensor, is_active: Tensor) -> Tensor:
    """Brightness, contrast or saturation, whichever is each image's `operation` [B], where it is active [B]."""
    if images.shape[1] != 3:
        is_active = is_active & (operation != SATURATION)
    factor = amounts.gather(1, operation[:, None])[:, 0]  # [B]
    grey = luminance(images)  # [B, 1, H, W]
    flat = grey.mean(dim=(1, 2, 3), keepdim=True) * _per_image(operation == CONTRAST)  # [B, 1, 1, 1]
    reference = torch.where(_per_image(operation == SATURATION), grey, flat)
    return blend(images, reference, torch.where(is_active, factor, 1))


def blend(images: Tensor, reference: Tensor, factor: Tensor) -> Tensor:
    """Move each image away from a reference (factor > 1) or towards it (< 1), within [0, 1].

    Brightness is this with black, contrast with the image's mean grey, saturation with the image in grey.

    Args:
        images: [B, C, H, W]. reference: broadcasts with it. factor: [B].
    """
    return torch.lerp(reference, images, _per_image(factor)).clamp_(0, 1)


def luminance(images: Tensor) -> Tensor:
    """Grey images [B, 1, H, W]: the weighted sum of red, green and blue; of other channels the mean."""
    if images.shape[1] != 3:
        return images.mean(dim=1, keepdim=True)
    red, green, blue = images.split(1, dim=1)
    return LUMINANCE[0] * red + LUMINANCE[1] * green + LUMINANCE[2] * blue


def shift_hue(images: Tensor, shift: Tensor) -> Tensor:
    """Turn the colours of each image around the colour circle; an image whose shift is 0 stays as it is.

    Args:
        images: [B, 3, H, W] in [0, 1]. shift: [B], in turns.
    Source: the conversion between RGB and HSV as in torchvision's adjust_hue; back by one formula a channel,
        value - chroma * clamp(min(k, 4 - k), 0, 1) with k = (n + 6 hue) mod 6 and n = 5, 3, 1.
    """
    red, green, blue = images.unbind(dim=1)
    value = images.amax(dim=1)  # [B, H, W]
    chroma = value - images.amin(dim=1)
    divisor = torch.where(chroma > 0, chroma, 1)  # the hue of grey is any
    sixths = torch.where(
        value == red,
        (green - blue) / divisor,
        torch.where(value == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    sixths = sixths + 6 * shift[:, None, None]
    channels = []
    for offset in (5, 3, 1):
        k = (offset + sixths).remainder(6)
        channels.append(value - chroma * torch.minimum(k, 4 - k).clamp(0, 1))
    return torch.where(_per_image(shift == 0), images, torch.stack(channels, dim=1))


def _per_image(values: Tensor) -> Tensor:
    return values[:, None, None, None]
