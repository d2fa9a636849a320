"""Endless batches of labelled images to fit on, of one split or of two together, wherever they are held."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from jepa_lab.data.augmentations.base import Augmentation
from jepa_lab.data.base import ImageSplit
from jepa_lab.data.centre_squares import squares_like, stored_pictures
from jepa_lab.data.images import HeldPictures, Images, LazyImages, Pictures
from jepa_lab.data.order import BatchOrder
from jepa_lab.data.resident import to_float
from jepa_lab.probes.subject import Subject
from jepa_lab.randomness import build_generator


class TrainingImages:
    """Whole pictures, augmented; or the squares that are probed on.

    Images of several splits are numbered one after another, and every epoch passes over all of them. Nothing is copied
    to put them together.

    Args:
        batch_size: B; at most all images make a batch.
        augmentation: None gives the squares.
        name: of the probe; with the seed it decides order and augmentation.
    """

    def __init__(
        self,
        splits: Sequence[ImageSplit],
        batch_size: int,
        augmentation: Augmentation | None,
        subject: Subject,
        name: str,
    ) -> None:
        total = sum(map(len, splits))
        self.splits, self.augmentation, self.device = splits, augmentation, subject.device
        self.order = BatchOrder(total, min(batch_size, total), build_generator(subject.seed, f"{name} order"))
        self.generator = build_generator(subject.seed, f"{name} augmentation", subject.device)
        self.starts = [sum(map(len, splits[:number])) for number in range(len(splits))]
        self._readers: list[_Reader] | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in an epoch."""
        return self.order.steps_per_epoch

    def next(self) -> tuple[Tensor, Tensor]:
        """Images [B, C, H, W] float32 in [0, 1] on the device, and their numbers [B] int64 on the CPU.

        Raises:
            RunStopped: the images cannot be read any more.
        """
        if self._readers is None:
            self._readers = [self._reader(number) for number in range(len(self.splits))]
        batch = self.order.next()
        images, numbers = [], []
        for number, (split, reader) in enumerate(zip(self.splits, self._readers, strict=True)):
            rows = self._rows_of(batch, number)
            if len(rows):
                images.append(self._prepared(split.images, reader.take(rows).to(self.device)))
                numbers.append(rows + self.starts[number])
        return torch.cat(images), torch.cat(numbers)

    def close(self) -> None:
        """End what reads ahead."""
        self._readers = None

    def _prepared(self, images: Images, pictures: Pictures) -> Tensor:
        if self.augmentation is None:
            return to_float(squares_like(images, pictures))
        return self.augmentation(to_float(pictures.pixels), pictures.sizes, self.generator)

    def _rows_of(self, batch: Tensor, number: int) -> Tensor:
        """Those images of a batch that are in a split, by their rows in it."""
        start = self.starts[number]
        return batch[(batch >= start) & (batch < start + len(self.splits[number]))] - start

    def _reader(self, number: int) -> _Reader:
        pictures = stored_pictures(self.splits[number].images)
        if isinstance(pictures, LazyImages):
            return _Ahead(pictures.read(self._endless(self.order.ahead(), number)))
        assert isinstance(pictures, Tensor | HeldPictures), type(pictures)
        held = pictures.pictures if isinstance(pictures, HeldPictures) else Pictures(pictures, None)
        return _Held(held.to(self.device))

    def _endless(self, order: BatchOrder, number: int) -> Iterator[Tensor]:
        while True:
            rows = self._rows_of(order.next(), number)
            if len(rows):
                yield rows


class _Reader(Protocol):
    """Where the pictures of one split come from."""

    def take(self, rows: Tensor, /) -> Pictures:
        """Those of the next batch."""


class _Held:
    """Pictures in memory."""

    def __init__(self, pictures: Pictures) -> None:
        self.pictures = pictures

    def take(self, rows: Tensor) -> Pictures:
        pixels, sizes = self.pictures
        rows = rows.to(pixels.device)
        return Pictures(pixels.index_select(0, rows), None if sizes is None else sizes.index_select(0, rows))


class _Ahead:
    """Pictures that are read ahead, in the order of the batches."""

    def __init__(self, batches: Iterator[Pictures]) -> None:
        self.batches = batches

    def take(self, rows: Tensor) -> Pictures:
        pictures = next(self.batches)
        assert len(pictures.pixels) == len(rows), "both follow the same order"
        return pictures
