"""The squares that encoders are measured on: the middle of each picture, cut out of what is stored."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from jepa_lab.data.augmentations.crop import centre_boxes, crop_and_resize, in_stored_pixels, original_sizes
from jepa_lab.data.images import Images, Pictures, has_sizes, split_pictures


class CentreSquares:
    """Images as the shorter side resized and the centre cut out, computed batch by batch.

    Args:
        pictures: what is stored.
        side: height and width of the squares, in pixels.
        fraction: `side` as a share of what the shorter side is resized to: 224 / 256 for the usual 256.
        device: where the squares are computed, and where `split` gives them.
    """

    def __init__(self, pictures: Images, side: int, fraction: float, device: torch.device) -> None:
        self.pictures, self.side, self.fraction, self.device = pictures, side, fraction, device

    @property
    def shape(self) -> torch.Size:
        """n, C, H, W."""
        return torch.Size([*self.pictures.shape[:2], self.side, self.side])

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, indices: Tensor, /) -> CentreSquares:
        return CentreSquares(self.pictures[indices], self.side, self.fraction, self.device)

    def split(self, batch_size: int, /) -> Iterator[Tensor]:
        """One batch after another, [b, C, side, side] uint8 on the device."""
        for pictures in split_pictures(self.pictures, batch_size):
            yield cut_out(pictures.to(self.device), self.side, self.fraction)


def cut_out(pictures: Pictures, side: int, fraction: float) -> Tensor:
    """The square in the middle of each picture, [b, C, side, side] uint8, rounded as files of such squares would be."""
    pixels = pictures.pixels.to(torch.float32)
    sizes = original_sizes(pixels, pictures.sizes)
    boxes = in_stored_pixels(centre_boxes(sizes, round(side / fraction), side), sizes, *pixels.shape[2:])
    return crop_and_resize(pixels, boxes, side).round_().clamp_(0, 255).to(torch.uint8)


def centre_squares(images: Images, side: int, fraction: float, device: torch.device) -> Images:
    """The squares of stored pictures; images that are those squares already stay as they are."""
    if not has_sizes(images) and tuple(images.shape[2:]) == (side, side) and fraction == 1:
        return images
    return CentreSquares(images, side, fraction, device)


def squares_like(images: Images, pictures: Pictures) -> Tensor:
    """Stored pictures as `images.split` would give them."""
    return cut_out(pictures, images.side, images.fraction) if isinstance(images, CentreSquares) else pictures.pixels


def stored_pictures(images: Images) -> Images:
    """What squares are cut out of: the images that random crops are taken from."""
    return images.pictures if isinstance(images, CentreSquares) else images
