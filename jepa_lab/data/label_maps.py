"""Label maps: the class of every pixel, for probes that look at places rather than at whole images."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from jepa_lab.data.augmentations.crop import centre_boxes, in_stored_pixels
from jepa_lab.data.decode import BROKEN_FILE, EXIF_ORIENTATION, QUIET_PILLOW
from jepa_lab.data.workers import default_worker_count
from jepa_lab.errors import DataError

IGNORED = 255
"""Pixels of this label are neither fitted nor scored."""

_MASK_MODES = ("1", "L", "P")
_QUARTER_TURNS = (5, 6, 7, 8)  # of EXIF's orientations


@dataclass(frozen=True, eq=False)
class LabelMaps:
    """One label map an image, in memory: a byte a pixel.

    Attributes:
        pixels: [n, H, W] uint8, the class of each pixel, or `IGNORED`; as stored.
        names: of the classes, in their order.
        sizes: height and width of each map in its file where whole pictures were resized to squares, [n, 2] int32;
            None where the maps have the shape that they are stored in.
        side, fraction: of the squares that are measured on, see `centre_squares`; None for what is stored.
    """

    pixels: Tensor
    names: tuple[str, ...]
    sizes: Tensor | None = None
    side: int | None = None
    fraction: float = 1.0

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, indices: Tensor) -> LabelMaps:
        """The maps at `indices`, [m] int64."""
        return replace(self, pixels=self.pixels[indices], sizes=None if self.sizes is None else self.sizes[indices])

    def squares(self, side: int, fraction: float) -> LabelMaps:
        """The maps of the squares that `centre_squares` cuts out of the images."""
        return replace(self, side=side, fraction=fraction)

    def split(self, batch_size: int) -> Iterator[Tensor]:
        """One batch after another, [b, side, side] uint8: the label at the centre of each pixel of the square."""
        sizes = self.sizes
        if sizes is None:
            sizes = torch.tensor([self.pixels.shape[1:]], dtype=torch.int32).expand(len(self), 2)
        for pixels, own in zip(self.pixels.split(batch_size), sizes.long().split(batch_size), strict=True):
            yield pixels if self._are_squares else self._cut_out(pixels, own)

    @property
    def _are_squares(self) -> bool:
        """Whether what is stored is what is measured on."""
        height, width = self.pixels.shape[1:]
        return self.side is None or (self.sizes is None and height == width == self.side and self.fraction == 1)

    def _cut_out(self, pixels: Tensor, sizes: Tensor) -> Tensor:
        assert self.side is not None
        cut = centre_boxes(sizes, round(self.side / self.fraction), self.side)
        return _nearest(pixels, in_stored_pixels(cut, sizes, *pixels.shape[1:]), self.side)

    def digest(self) -> str:
        """SHA-256 of the labels as stored, the names and the sizes."""
        sha = hashlib.sha256(repr((self.names, tuple(self.pixels.shape))).encode())
        for values in (self.pixels, self.sizes):
            if values is not None:
                sha.update(values.contiguous().numpy().data)
        return sha.hexdigest()


def _nearest(maps: Tensor, boxes: Tensor, side: int) -> Tensor:
    """The label at the centre of each pixel of a box that is cut into side x side pixels.

    Args:
        maps: [b, H, W]. boxes: top, left, height and width, [b, 4].
    Returns:
        [b, side, side].
    """
    top, left, height, width = boxes.double().unbind(dim=1)
    middle = (torch.arange(side, dtype=torch.float64) + 0.5) / side
    rows, columns = (
        (start[:, None] + middle * length[:, None]).floor().long().clamp(0, limit - 1)  # [b, side]
        for start, length, limit in ((top, height, maps.shape[1]), (left, width, maps.shape[2]))
    )
    return maps[torch.arange(len(maps))[:, None, None], rows[:, :, None], columns[:, None, :]]


def load_maps(
    parts: Sequence[tuple[Sequence[Path], Sequence[Path]]], names: tuple[str, ...], side: int
) -> list[LabelMaps]:
    """Read the masks of each split, each resized to a square as its picture is, by the nearest pixel.

    Args:
        parts: for each split the files of the masks, whose pixels are class numbers, and of their pictures.
        names: of the classes; none calls them by the numbers that occur in any mask, and those between.
        side: height and width to store maps at.
    Raises:
        DataError: a mask cannot be read, has another size than its picture, or a number that has no name.
    """
    loaded = [_load_part(masks, images, names, side) for masks, images in parts]
    if not names:
        largest = max(int(each.pixels.masked_fill(each.pixels == IGNORED, 0).max()) for each in loaded)
        loaded = [replace(each, names=tuple(map(str, range(largest + 1)))) for each in loaded]
    return loaded


def _load_part(masks: Sequence[Path], images: Sequence[Path], names: tuple[str, ...], side: int) -> LabelMaps:
    pixels = torch.empty(len(masks), side, side, dtype=torch.uint8)
    sizes = torch.empty(len(masks), 2, dtype=torch.int32)

    def read(index: int) -> None:
        whole = read_mask(masks[index])
        _check(masks[index], whole, images[index], names)
        height, width = whole.shape
        box = torch.tensor([[0.0, 0.0, height, width]])
        pixels[index] = _nearest(torch.from_numpy(whole)[None], box, side)[0]
        sizes[index] = torch.tensor([height, width], dtype=torch.int32)

    with ThreadPoolExecutor(max_workers=default_worker_count() + 1) as pool:
        for _ in pool.map(read, range(len(masks))):
            pass  # results are in place; iterating raises the error of the first file that has one
    return LabelMaps(pixels, names, sizes)


def changed_digest(digest: str, maps: Sequence[LabelMaps]) -> str:
    """The digest of images, changed by that of their label maps."""
    return hashlib.sha256("".join([digest, *(each.digest() for each in maps)]).encode()).hexdigest()[: len(digest)]


def read_mask(path: Path) -> np.ndarray:
    """The class numbers of a mask, [H, W] uint8.

    Raises:
        DataError: it cannot be read, or is a picture rather than a mask.
    """
    from PIL import Image

    try:
        with QUIET_PILLOW, Image.open(path) as image:
            if image.mode not in _MASK_MODES:
                raise DataError(
                    f"the mask {path} is a picture of mode {image.mode}, and a mask has one class number per pixel; "
                    "save it as an 8-bit grey or palette PNG",
                    keys=["root"],
                )
            return np.array(image, dtype=np.uint8)
    except BROKEN_FILE as error:
        raise DataError(f"the mask {path} cannot be read ({error}); replace it", keys=["root"]) from error


def _check(path: Path, mask: np.ndarray, image: Path, names: tuple[str, ...]) -> None:
    own = mask.shape
    its = picture_size(image)
    if its is not None and own != its:
        raise DataError(
            f"the mask {path} is {own[1]} x {own[0]} pixels, and its image {image} {its[1]} x {its[0]}; make them "
            "equal",
            keys=["root"],
        )
    wrong = mask[(mask >= len(names)) & (mask != IGNORED)]
    if names and wrong.size:
        raise DataError(
            f"the mask {path} holds the class number {int(wrong[0])}, but there are {len(names)} classes (0 to "
            f"{len(names) - 1}; {IGNORED} is left out); name every class under classes, or correct the mask",
            keys=["root", "dataset"],
        )


def picture_size(path: Path) -> tuple[int, int] | None:
    """Height and width of a picture as it is seen, from its header; None where that cannot be read.

    Whoever decodes it says what is wrong.
    """
    from PIL import Image

    try:
        with QUIET_PILLOW, Image.open(path) as image:
            turned = image.getexif().get(EXIF_ORIENTATION, 1) in _QUARTER_TURNS
            return (image.width, image.height) if turned else (image.height, image.width)
    except BROKEN_FILE:
        return None
