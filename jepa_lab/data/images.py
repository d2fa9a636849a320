"""Images in memory or not: what both have in common, and images that are read when they are needed.

Pictures of files are stored whole: resized to a square, with the height and width that they had (`Pictures.sizes`).
Data sets whose images are squares by nature have no such sizes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from jepa_lab.data.workers import Workers, in_order
from jepa_lab.errors import RunStopped

READ_AT_ONCE = 64
"""Images of one block where nobody asks for a batch size."""


class Pictures(NamedTuple):
    """Stored pictures.

    Attributes:
        pixels: [b, C, H, W] uint8.
        sizes: height and width of each picture in its file, [b, 2] int32; None where the images have the shape that
            they are stored in.
    """

    pixels: Tensor
    sizes: Tensor | None

    def to(self, device: torch.device) -> Pictures:
        """On the device. From pinned memory this does not wait; CUDA's allocator keeps the memory until the copy is
        done."""
        move = partial(Tensor.to, device=device, non_blocking=device.type == "cuda")
        return Pictures(move(self.pixels), None if self.sizes is None else move(self.sizes))


class Images(Protocol):
    """Images [n, C, H, W] uint8: a tensor, `HeldPictures`, `LazyImages`, or the `CentreSquares` of one of them."""

    @property
    def shape(self) -> Sequence[int]:
        """n, C, H, W."""

    def __len__(self) -> int: ...

    def __getitem__(self, indices: Tensor, /) -> Images:
        """The images at `indices`, [m] int64."""

    def split(self, batch_size: int, /) -> Iterable[Tensor]:
        """One batch after another, [b, C, H, W] uint8; the last one may be smaller."""


class HeldPictures:
    """Whole pictures in memory.

    Args:
        pictures: all of them, with their sizes.
    """

    def __init__(self, pictures: Pictures) -> None:
        assert pictures.sizes is not None, "squares are held as a tensor"
        self.pictures, self._sizes = pictures, pictures.sizes

    @property
    def shape(self) -> torch.Size:
        """n, C, H, W."""
        return self.pictures.pixels.shape

    def __len__(self) -> int:
        return len(self.pictures.pixels)

    def __getitem__(self, indices: Tensor, /) -> HeldPictures:
        return HeldPictures(Pictures(self.pictures.pixels[indices], self._sizes[indices]))

    def split(self, batch_size: int, /) -> Iterable[Tensor]:
        """One batch after another, [b, C, H, W] uint8."""
        return self.pictures.pixels.split(batch_size)

    def split_pictures(self, batch_size: int) -> Iterator[Pictures]:
        """One batch after another."""
        return map(Pictures, self.split(batch_size), self._sizes.split(batch_size))


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
        sizes: see `Pictures`.
    """

    images: Tensor
    bad: tuple[BadImage, ...]
    sizes: Tensor | None = None


class PixelSource(Protocol):
    """Where images can be read by index, also in another process."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """n, C, H, W."""

    @property
    def has_sizes(self) -> bool:
        """Whether the images are whole pictures, with sizes of their own."""

    def read(self, indices: Tensor, /) -> Block:
        """The images at `indices`, [m] int64."""


class HostPixels:
    """Images in host memory.

    Args:
        images: [n, C, H, W] uint8 on the CPU.
    """

    has_sizes = False

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

    @property
    def has_sizes(self) -> bool:
        """Whether they are whole pictures, with sizes of their own."""
        return self._source.has_sizes

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, indices: Tensor, /) -> LazyImages:
        return LazyImages(self._source, self._workers, self._indices[indices])

    def split(self, batch_size: int, /) -> Iterator[Tensor]:
        """Read all, one batch after another.

        Raises:
            RunStopped: see `read`.
        """
        return (pictures.pixels for pictures in self.split_pictures(batch_size))

    def split_pictures(self, batch_size: int) -> Iterator[Pictures]:
        """`split`, with the sizes."""
        blocks = torch.arange(len(self)).split(batch_size)
        # One block is read at once in any case, and more workers than blocks would have nothing to do.
        count = min(self._workers.count, len(blocks)) if len(blocks) > 1 else 0
        return LazyImages(self._source, replace(self._workers, count=count), self._indices).read(blocks)

    def read(self, blocks: Iterable[Tensor]) -> Iterator[Pictures]:
        """Read the images at each block of indices; the workers read ahead.

        Yields:
            [b, C, H, W] uint8 and their sizes, on the CPU.
        Raises:
            RunStopped: a file can no longer be decoded, or a worker died.
        """
        for block in in_order(self._source.read, (self._indices[block] for block in blocks), self._workers):
            if block.bad:
                raise RunStopped(
                    f"{block.bad[0].problem}, though it could be when the run looked at all images at its start; "
                    "restore the file and resume with --resume"
                )
            yield Pictures(block.images, block.sizes)


def split_pictures(images: Images, batch_size: int) -> Iterator[Pictures]:
    """The batches of `images.split`, with sizes where the images have some."""
    if isinstance(images, HeldPictures | LazyImages):
        return images.split_pictures(batch_size)
    return (Pictures(part, None) for part in images.split(batch_size))


def has_sizes(images: Images) -> bool:
    """Whether the images are whole pictures, with sizes of their own."""
    return isinstance(images, HeldPictures) or (isinstance(images, LazyImages) and images.has_sizes)


def to_memory(images: LazyImages) -> Tensor | HeldPictures:
    """All of them, read now."""
    pixels = torch.empty(*images.shape, dtype=torch.uint8)
    sizes = torch.empty(len(images), 2, dtype=torch.int32)
    start = 0
    for part in images.split_pictures(READ_AT_ONCE):
        rows = slice(start, start + len(part.pixels))
        pixels[rows], start = part.pixels, rows.stop
        if part.sizes is not None:
            sizes[rows] = part.sizes
    return HeldPictures(Pictures(pixels, sizes)) if images.has_sizes else pixels


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
