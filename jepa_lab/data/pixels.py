"""What data sets share about pixels: resizing whole splits, and the digest that names their content."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor
from torch.nn import functional as F

from jepa_lab.data.base import ImageSplit

RESIZE_CHUNK_PIXELS = 1 << 24
DIGEST_DIGITS = 32  # MLflow stores at most 36


def resize_images(images: Tensor, size: int) -> Tensor:
    """Resize to `size` x `size` by antialiased bilinear interpolation; images of that size stay as they are.

    Computed in float32 and rounded to the nearest integer, in chunks, so that memory stays bounded.

    Args:
        images: [n, C, H, W] uint8.
    Returns:
        [n, C, size, size] uint8.
    """
    height, width = images.shape[-2:]
    if (height, width) == (size, size):
        return images
    resized = torch.empty(*images.shape[:2], size, size, dtype=torch.uint8)
    chunk = max(1, RESIZE_CHUNK_PIXELS // (images.shape[1] * max(height * width, size * size)))
    for start in range(0, len(images), chunk):
        pixels = images[start : start + chunk].to(torch.float32)
        smooth = F.interpolate(pixels, size=(size, size), mode="bilinear", antialias=True)
        resized[start : start + chunk] = smooth.round_().clamp_(0, 255).to(torch.uint8)
    return resized


def data_digest(train: ImageSplit, test: ImageSplit | None) -> str:
    """Name the content: SHA-256 over shapes, pixels and labels as delivered, cut to 32 hexadecimal digits."""
    sha = hashlib.sha256()
    for split in (train, test):
        if split is None:
            continue
        sha.update(f"{tuple(split.images.shape)}".encode())
        sha.update(split.images.contiguous().numpy().data)
        if split.labels is not None:
            sha.update(split.labels.contiguous().numpy().data)
    return sha.hexdigest()[:DIGEST_DIGITS]
