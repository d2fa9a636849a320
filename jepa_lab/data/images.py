"""Images in memory or not: what both have in common, and images that are read when they are needed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from jepa_lab.data.workers import Workers, in_order
from jepa_lab.errors import RunStopped

READ_AT_ONCE = 64
"""Images of one block where nobody asks for a batch size."""


class Images(Protocol):
    """Images [n, C, H, W] uint8: a tensor, or `LazyImages`."""

    @property
    def shape(self) -> Sequence[int]:
        """n, C, H, W."""

    def __len__(self) -> int: ...

    def __getitem__(self, indices: Tensor, /) -> Images:
        """The images at `indices`, [m] int64."""

    def split(self, batch_size: int, /) -> Iterable[Tensor]:
        """One batch after another, [b, C, H, W] uint8; the last one may be smaller."""


class BadImage(NamedTuple):
    """A file that cannot be decoded.

    Attributes:
        place: its index in the source.
        problem: which file, and what the decoder said.
    """

    place: int
    problem: str


class Block(NamedTuple):
    """What was read at some indices.

    Attributes:
        images: those that could be read, in order, [m, C, H, W] uint8.
        bad: the others.
    """

    images: Tensor
    bad: tuple[BadImage, ...]


class PixelSource(Protocol):
    """Where images can be read by index, also in another process."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """n, C, H, W."""

    def read(self, indices: Tensor, /) -> Block:
        """The images at `indices`, [m] int64."""


class HostPixels:
    """Images in host memory.

    Args:
        images: [n, C, H, W] uint8 on the CPU.
    """

    def __init__(self, images: Tensor) -> None:
        self.images = images

    @property
    def shape(self) -> tuple[int, int, int, int]:
        num_images, channels, height, width = self.images.shape
        return num_images, channels, height, width

    def read(self, indices: Tensor) -> Block:
        return Block(self.images.index_select(0, indices), ())


class LazyImages:
    """Images that stay where they are until a batch of them is needed.

    Args:
        source: where they are.
        workers: who reads them.
        indices: which of the source's images these are, [n] int64.
    """

    def __init__(self, source: PixelSource, workers: Workers, indices: Tensor) -> None:
        self._source, self._workers, self._indices = source, workers, indices

    @property
    def shape(self) -> torch.Size:
        """n, C, H, W."""
        return torch.Size([len(self._indices), *self._source.shape[1:]])

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, indices: Tensor, /) -> LazyImages:
        return LazyImages(self._source, self._workers, self._indices[indices])

    def split(self, batch_size: int, /) -> Iterator[Tensor]:
        """Read all, one batch after another.

        Raises:
            RunStopped: see `read`.
        """
        blocks = torch.arange(len(self)).split(batch_size)
        # One block is read at once in any case, and more workers than blocks would have nothing to do.
        count = min(self._workers.count, len(blocks)) if len(blocks) > 1 else 0
        return LazyImages(self._source, replace(self._workers, count=count), self._indices).read(blocks)

    def read(self, blocks: Iterable[Tensor]) -> Iterator[Tensor]:
        """Read the images at each block of indices; the workers read ahead.

        Yields:
            [b, C, H, W] uint8, on the CPU.
        Raises:
            RunStopped: a file can no longer be decoded, or a worker died.
        """
        for block in in_order(self._source.read, (self._indices[block] for block in blocks), self._workers):
            if block.bad:
                raise RunStopped(
                    f"{block.bad[0].problem}, though it could be when the run looked at all images at its start; "
                    "restore the file and go on with --resume"
                )
            yield block.images


def to_tensor(images: Images) -> Tensor:
    """All the images in memory, [n, C, H, W] uint8; for few of them, or where they are known to fit."""
    if isinstance(images, Tensor):
        return images
    whole = torch.empty(*images.shape, dtype=torch.uint8)
    start = 0
    for part in images.split(READ_AT_ONCE):
        whole[start : start + len(part)] = part
        start += len(part)
    return whole
