"""Gaussian blur, a different one for each image, as two matrix products on the device.

Not an augmentation itself: `strong` is made of it.
"""

from __future__ import annotations

import torch
from torch import Tensor


def kernel_radius(size: int) -> int:
    """Pixels on each side of the middle one: the kernel is a tenth of the image high and wide, at least 3 pixels.

    Source: Chen et al. 2020, arXiv:2002.05709 (SimCLR), app. A.
    """
    return min(max(1, size // 20), size - 1)


def gaussian_blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Blur each image by a Gaussian cut off at `kernel_radius`, mirrored at the border: rows @ image @ columns^T.

    Exact to float32 rounding in any autocast region; see `crop_and_resize` about TF32.

    Args:
        images: [B, C, H, W] float32.
        sigma: [B] float32, standard deviations in pixels, above zero.
    Returns:
        [B, C, H, W] float32, within the range of the image.
    Source: torchvision's gaussian_blur, which takes one sigma for the whole batch.
    """
    rows, columns = (_blur_weights(sigma, length) for length in images.shape[2:])  # [B, H, H], [B, W, W]
    with torch.autocast(images.device.type, enabled=False):
        return rows[:, None] @ images @ columns[:, None].transpose(2, 3)


def _blur_weights(sigma: Tensor, size: int) -> Tensor:
    """How much each input pixel contributes to each output pixel along one axis, [B, size, size].

    A pixel contributes by its distance, and once more by that of each of its mirror images within reach.
    """
    pixel = torch.arange(size, device=sigma.device)
    here, there = pixel[:, None], pixel[None, :]
    weights = _tap(there - here, sigma, size)
    weights = weights + _tap(-there - here, sigma, size) * (there > 0)
    weights = weights + _tap(2 * (size - 1) - there - here, sigma, size) * (there < size - 1)
    return weights / weights.sum(dim=2, keepdim=True)


def _tap(distance: Tensor, sigma: Tensor, size: int) -> Tensor:
    """The unnormalised Gaussian at each distance, zero beyond the kernel, [B, size, size]."""
    within = distance.abs() <= kernel_radius(size)
    return torch.exp(-0.5 * (distance / sigma[:, None, None]).square()) * within
