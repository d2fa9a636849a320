"""The order of batches: endless, a new permutation of all images an epoch, the same wherever the images are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

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


class Batch(NamedTuple):
    """Images of a step.

    Attributes:
        images: [B, C, H, W] uint8 on the device.
        indices: which images these are, [B] int64.
        sizes: see `Pictures`; on the device.
    """

    images: Tensor
    indices: Tensor
    sizes: Tensor | None

    def clone(self) -> Batch:
        """A copy with memory of its own."""
        return Batch(self.images.clone(), self.indices.clone(), None if self.sizes is None else self.sizes.clone())

    def copy_(self, other: Batch) -> None:
        """Take over the images of another batch of the same shape, in place."""
        self.images.copy_(other.images)
        self.indices.copy_(other.indices)
        if self.sizes is not None:
            assert other.sizes is not None, "all batches of a data set have sizes, or none"
            self.sizes.copy_(other.sizes)


class Batches(Protocol):
    """An endless sequence of batches on the device of the training."""

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in an epoch."""

    def next(self) -> Batch:
        """The next batch.

        Raises:
            RunStopped: the images cannot be read any more.
        """

    def position(self) -> BatchPosition:
        """Where the order stands: after the batches that were given out, whatever was read ahead."""

    def restore(self, position: BatchPosition) -> None:
        """Go on from `position`: the following batches are those that followed it."""

    def close(self) -> None:
        """End what reads ahead; `next` starts it again."""


class BatchOrder:
    """The indices of an endless sequence of batches.

    The last, incomplete batch of an epoch is dropped (as in the released code), so shapes never change.

    Args:
        num_images: n.
        batch_size: B.
        generator: of the CPU, used for the order alone; one permutation is drawn from it an epoch.
        device: where the indices are wanted.
    Raises:
        ConfigError: if there are fewer images than one batch.
    """

    def __init__(
        self,
        num_images: int,
        batch_size: int,
        generator: torch.Generator,
        device: torch.device | None = None,
    ) -> None:
        if batch_size > num_images:
            raise ConfigError(
                "training.batch_size must be at most the number of training images "
                f"({num_images}), got {batch_size}; lower it or use more images"
            )
        self.num_images = num_images
        self.batch_size = batch_size
        self.generator = generator
        self.device = device or torch.device("cpu")
        self._start_epoch(0)

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in an epoch."""
        return self.num_images // self.batch_size

    def next(self) -> Tensor:
        """The indices of the next batch, [B] int64 on the device."""
        if self._batch == self.steps_per_epoch:
            self._start_epoch(self._epoch + 1)
        start = self._batch * self.batch_size
        self._batch += 1
        return self._order[start : start + self.batch_size]

    def position(self) -> BatchPosition:
        """Where the order stands now."""
        return BatchPosition(self._epoch, self._batch, self._epoch_state.clone())

    def restore(self, position: BatchPosition) -> None:
        """Go on from `position`: the following batches are those that followed it."""
        self.generator.set_state(position.generator_state)
        self._start_epoch(position.epoch)
        self._batch = position.batch

    def ahead(self) -> BatchOrder:
        """A second order from the present position, with a generator of its own, to read ahead by."""
        order = BatchOrder(self.num_images, self.batch_size, torch.Generator())
        order.restore(self.position())
        return order

    def _start_epoch(self, epoch: int) -> None:
        self._epoch = epoch
        self._batch = 0
        self._epoch_state = self.generator.get_state()
        order = torch.randperm(self.num_images, generator=self.generator)
        cuda = self.device.type == "cuda"
        if cuda:
            order = order.pin_memory()  # or the copy would wait for the device
        self._order = order.to(self.device, non_blocking=cuda)  # [n]; MPS would read memory that is no longer held
