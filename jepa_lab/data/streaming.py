"""Batches of images that stay off the device: read ahead, copied one batch at a time."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from jepa_lab.data.images import LazyImages, Pictures
from jepa_lab.data.order import Batch, BatchOrder, BatchPosition


class StreamingBatches:
    """Batches in the order of `BatchOrder`; reading ahead goes on across the ends of epochs.

    Two orders run from the same position: one tells the workers what to read, the other counts what was given out.
    So the position does not depend on how far the workers are.

    Args:
        images: [n, C, H, W] uint8, read when they are needed.
        batch_size: B.
        generator: of the CPU, used for the order alone.
        device: of the training.
        rows: those of each batch that are wanted here; by default all. Others are not read.
    Raises:
        ConfigError: if there are fewer images than one batch.
    """

    def __init__(
        self,
        images: LazyImages,
        batch_size: int,
        generator: torch.Generator,
        device: torch.device,
        rows: slice = slice(None),
    ) -> None:
        self.images, self.device, self.rows = images, device, rows
        self.order = BatchOrder(len(images), batch_size, generator)
        self._reader: Iterator[Pictures] | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in an epoch."""
        return self.order.steps_per_epoch

    def next(self) -> Batch:
        """The next batch, with its indices on the CPU.

        Raises:
            RunStopped: a file can no longer be decoded, or a worker died.
        """
        if self._reader is None:  # not before the first batch: a restored order comes first
            self._reader = self.images.read(_endless(self.order.ahead(), self.rows))
        pictures = next(self._reader).to(self.device)
        return Batch(pictures.pixels, self.order.next()[self.rows], pictures.sizes)

    def position(self) -> BatchPosition:
        """Where the order stands: after the batches that were given out."""
        return self.order.position()

    def restore(self, position: BatchPosition) -> None:
        """Go on from `position`: the following batches are those that followed it."""
        self.close()
        self.order.restore(position)

    def close(self) -> None:
        """End the workers; what they had read ahead is forgotten."""
        self._reader = None


def _endless(order: BatchOrder, rows: slice) -> Iterator[Tensor]:
    while True:
        yield order.next()[rows]
