"""What data sets share about pixels: resizing whole splits, and the digest that names their content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from jepa_lab.data.base import ImageSplit
from jepa_lab.data.images import Pictures, split_pictures

RESIZE_CHUNK_PIXELS = 1 << 24
DIGEST_DIGITS = 32  # MLflow stores at most 36
DIGEST_IMAGES = 1024
VALIDATION = "validation"


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


def data_digest(
    train: ImageSplit,
    test: ImageSplit | None,
    class_names: tuple[str, ...] = (),
    validation: ImageSplit | None = None,
) -> str:
    """Name the content: SHA-256 over shapes, pixels, labels and sizes as stored, cut to 32 hexadecimal digits.

    Args:
        class_names: where they come from the user's files, too; renaming a class is a change.
        validation: the data set's own, where it is used.
    """
    digest = ContentDigest()
    for name, split in (("", train), ("", test), (VALIDATION, validation)):
        if split is None:
            continue
        digest.begin(split.images.shape, name)
        for part in split_pictures(split.images, DIGEST_IMAGES):
            digest.pictures(part)
        digest.labels(split.labels)
    return digest.hex(class_names)


class ContentDigest:
    """`data_digest` of images that come one after another: `begin`, `pictures`..., `labels` for each split."""

    def __init__(self) -> None:
        self._sha = hashlib.sha256()
        self._sizes = hashlib.sha256()  # apart, or the digest would depend on how many come at once
        self._has_sizes = False

    def begin(self, shape: Sequence[int], name: str = "") -> None:
        """A split of this shape follows, [n, C, H, W]; `VALIDATION` tells one from a test split of the same images."""
        self._sha.update(f"{name}{tuple(shape)}".encode())

    def pictures(self, pictures: Pictures) -> None:
        """The next images of the split, on the CPU."""
        self._sha.update(pictures.pixels.contiguous().numpy().data)
        if pictures.sizes is not None:
            self._has_sizes = True
            self._sizes.update(pictures.sizes.contiguous().numpy().data)

    def labels(self, labels: Tensor | None) -> None:
        """The labels of the split, [n] int64."""
        if labels is not None:
            self._sha.update(labels.contiguous().numpy().data)

    def hex(self, class_names: tuple[str, ...] = ()) -> str:
        """The digest of all so far, 32 hexadecimal digits."""
        sha = self._sha.copy()
        if self._has_sizes:
            sha.update(self._sizes.digest())
        if class_names:
            sha.update(json.dumps(class_names).encode())
        return sha.hexdigest()[:DIGEST_DIGITS]
