"""Batches of a data set that lives on the device: no decoding and no copying of images in the step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from jepa_lab.errors import ConfigError


@dataclass(frozen=True)
class BatchPosition:
    """Where the data order stands; enough to go on with bitwise the same order.

    Attributes:
        epoch: number of the current epoch, from 0.
        batch: batches of that epoch already given out.
        generator_state: state of the order's generator before the epoch's permutation was drawn, uint8.
    """

    epoch: int
    batch: int
    generator_state: Tensor


class ResidentBatches:
    """An endless sequence of batches; each epoch is a new permutation of all images.

    The last, incomplete batch of an epoch is dropped (as in the released code), so shapes never change.

    Args:
        images: [n, C, H, W] uint8, on the device of the training.
        batch_size: B.
        generator: of the CPU, used for the order alone; one permutation is drawn from it an epoch.
    Raises:
        ConfigError: if there are fewer images than one batch.
    """

    def __init__(self, images: Tensor, batch_size: int, generator: torch.Generator) -> None:
        if batch_size > len(images):
            raise ConfigError(
                "training.batch_size must be at most the number of training images "
                f"({len(images)}), got {batch_size}; lower it or use more images"
            )
        self.images = images
        self.batch_size = batch_size
        self.generator = generator
        self._start_epoch(0)

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in an epoch."""
        return len(self.images) // self.batch_size

    def next(self) -> tuple[Tensor, Tensor]:
        """The next batch: images [B, C, H, W] uint8 and their indices [B] int64, on the images' device."""
        if self._batch == self.steps_per_epoch:
            self._start_epoch(self._epoch + 1)
        start = self._batch * self.batch_size
        indices = self._order[start : start + self.batch_size]
        self._batch += 1
        return self.images.index_select(0, indices), indices

    def position(self) -> BatchPosition:
        """Where the order stands now."""
        return BatchPosition(self._epoch, self._batch, self._epoch_state.clone())

    def restore(self, position: BatchPosition) -> None:
        """Go on from `position`: the following batches are those that followed it."""
        self.generator.set_state(position.generator_state)
        self._start_epoch(position.epoch)
        self._batch = position.batch

    def _start_epoch(self, epoch: int) -> None:
        self._epoch = epoch
        self._batch = 0
        self._epoch_state = self.generator.get_state()
        order = torch.randperm(len(self.images), generator=self.generator)
        if self.images.is_cuda:
            order = order.pin_memory()  # or the copy would wait for the device
        self._order = order.to(self.images.device, non_blocking=True)  # [n]


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
