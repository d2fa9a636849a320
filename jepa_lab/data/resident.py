"""Batches of a data set that lives on the device: no decoding and no copying of images in the step."""

from __future__ import annotations

import torch
from torch import Tensor

from jepa_lab.data.images import HeldPictures, Pictures
from jepa_lab.data.order import Batch, BatchOrder, BatchPosition


class ResidentBatches:
    """Batches of images that are on the device, in the order of `BatchOrder`.

    Args:
        images: [n, C, H, W] uint8, or whole pictures with their sizes.
        batch_size: B.
        generator: of the CPU, used for the order alone.
        device: of the training, where the images are held.
        rows: those of each batch that are wanted here; by default all.
    Raises:
        ConfigError: if there are fewer images than one batch.
    """

    def __init__(
        self,
        images: Tensor | HeldPictures,
        batch_size: int,
        generator: torch.Generator,
        device: torch.device,
        rows: slice = slice(None),
    ) -> None:
        held = images.pictures if isinstance(images, HeldPictures) else Pictures(images, None)
        self.pictures, self.rows = held.to(device), rows
        self.order = BatchOrder(len(images), batch_size, generator, device)

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in an epoch."""
        return self.order.steps_per_epoch

    def next(self) -> Batch:
        """The next batch, with its indices on the device."""
        indices = self.order.next()[self.rows]
        pixels, sizes = self.pictures
        return Batch(
            pixels.index_select(0, indices), indices, None if sizes is None else sizes.index_select(0, indices)
        )

    def position(self) -> BatchPosition:
        """Where the order stands now."""
        return self.order.position()

    def restore(self, position: BatchPosition) -> None:
        """Go on from `position`: the following batches are those that followed it."""
        self.order.restore(position)

    def close(self) -> None:
        """Nothing is read ahead."""


def to_float(images: Tensor) -> Tensor:
    """uint8 images [B, C, H, W] as float32 in [0, 1]."""
    return images.to(torch.float32).div_(255)


def normalize(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Subtract the mean and divide by the standard deviation of each channel.

    Args:
        images: [B, C, H, W] float32 in [0, 1].
        mean: [C]. std: [C]; both on the images' device.
    """
    return (images - mean[:, None, None]) / std[:, None, None]


def channel_record(mean: Tensor, std: Tensor) -> dict[str, list[float]]:
    """What everybody who uses the encoder must know to `normalize` images for it, as JSON values.

    Args:
        mean: [C]. std: [C]; both of pixels in [0, 1].
    """
    return {"channel_mean": mean.tolist(), "channel_std": std.tolist()}
