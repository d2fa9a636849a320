"""The files of a data set as one source of pixels: training images, test images, then its own validation images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from jepa_lab.data.base import ImageData, ImageFiles, ImageFileSet, ImageSplit, SkippedImage
from jepa_lab.data.decode import decode_image, decode_picture, undecodable
from jepa_lab.data.images import READ_AT_ONCE, BadImage, Block, HeldPictures, Images, Pictures
from jepa_lab.data.label_maps import changed_digest, load_maps
from jepa_lab.data.pixels import data_digest, resize_images
from jepa_lab.data.workers import default_worker_count
from jepa_lab.errors import DataError, Key, printable

OnBadImage = Literal["error", "skip"]
CHANNELS = 3


class FilePixels:
    """Decodes files by index to whole pictures; see `decode_picture` for the rules.

    Args:
        files: one an image.
        side: height and width to store pictures at.
        native_size: see `ImageFileSet`; such images are squares, without sizes of their own.
    """

    def __init__(self, files: Sequence[Path], side: int, native_size: int | None) -> None:
        # One text rather than a million objects: reading an object writes its reference count, and with it a copy
        # of its page of memory into every forked worker.
        names = [os.fsencode(file) for file in files]
        self._names = b"".join(names)
        self._ends = np.cumsum([len(name) for name in names], dtype=np.int64)
        self._side, self._native_size = side, native_size
        # The decoder imports them when it is first used: once here rather than once in every forked worker.
        import PIL.Image
        import torchvision.transforms.v2.functional  # noqa: F401

        PIL.Image.init()

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """n, C, H, W."""
        return len(self._ends), CHANNELS, self._side, self._side

    @property
    def has_sizes(self) -> bool:
        """Whether the images are whole pictures, with sizes of their own."""
        return self._native_size is None

    def path(self, index: int) -> Path:
        """The file of an image."""
        start = int(self._ends[index - 1]) if index else 0
        return Path(os.fsdecode(self._names[start : int(self._ends[index])]))

    def read(self, indices: Tensor) -> Block:
        """Decode the files at `indices`, [m] int64."""
        images = torch.empty(len(indices), *self.shape[1:], dtype=torch.uint8)
        sizes = torch.empty(len(indices), 2, dtype=torch.int32)
        good, bad = 0, []
        for index in indices.tolist():
            try:
                images[good], sizes[good] = self._decode(self.path(index))
                good += 1
            except DataError as error:
                bad.append(BadImage(index, error.rule))
        return Block(images[:good], tuple(bad), sizes[:good] if self.has_sizes else None)

    def _decode(self, path: Path) -> tuple[Tensor, Tensor]:
        """Pixels [C, side, side], and height and width [2] int32."""
        if self._native_size is None:
            pixels, size = decode_picture(path, self._side)
        else:
            square = decode_image(path, self._native_size)[None]
            pixels, size = resize_images(square, self._side)[0], (self._side, self._side)
        return pixels, torch.tensor(size, dtype=torch.int32)


def file_pixels(files: ImageFileSet, side: int) -> FilePixels:
    """All files of a data set, in the order of its parts."""
    return FilePixels(_every_file(files), side, files.native_size)


def _every_file(files: ImageFileSet) -> list[Path]:
    return [file for part in files.parts() for file in part.files]


class ImageSplits(NamedTuple):
    """The splits of a data set; test and validation are None where it has none of its own."""

    train: ImageSplit
    test: ImageSplit | None
    validation: ImageSplit | None


def split_images(files: ImageFileSet, images: Images) -> ImageSplits:
    """The splits of images that are in the order of `file_pixels`."""
    start = 0

    def following(part: ImageFiles | None) -> ImageSplit | None:
        nonlocal start
        if part is None:
            return None
        first, start = start, start + len(part.files)
        return ImageSplit(images[torch.arange(first, start)], label_tensor(part))

    train = following(files.train)
    assert train is not None
    return ImageSplits(train, following(files.test), following(files.validation))


def image_data(files: ImageFileSet, images: Images, digest: str, skipped: Sequence[SkippedImage]) -> ImageData:
    """The data set of images that are in the order of `file_pixels`, with their label maps where there are some.

    Raises:
        DataError: see `load_maps`.
    """
    train, test, validation = split_images(files, images)
    if files.train.masks is not None:
        masks = [(part.masks or (), part.files) for part in files.parts()]
        maps = load_maps(masks, files.map_names, images.shape[-1])
        digest, following = changed_digest(digest, maps), iter(maps)
        train = replace(train, maps=next(following))
        test = None if test is None else replace(test, maps=next(following))
        validation = None if validation is None else replace(validation, maps=next(following))
    return ImageData(train, test, files.class_names, digest, files.source, tuple(skipped), validation)


def label_tensor(part: ImageFiles) -> Tensor | None:
    """[n] int64, or None without labels."""
    return None if part.labels is None else torch.tensor(part.labels, dtype=torch.int64)


def load_files(files: ImageFileSet, side: int, on_bad_image: OnBadImage = "error") -> ImageData:
    """Decode all files into memory; Pillow releases the interpreter's lock, so threads help.

    Args:
        side: height and width to store pictures at.
    Raises:
        DataError: a file cannot be decoded (the first one is named), or no image of a class can.
    """
    pixels = file_pixels(files, side)
    images = torch.empty(*pixels.shape, dtype=torch.uint8)
    sizes = torch.empty(len(images), 2, dtype=torch.int32)

    def decode(start: int) -> tuple[BadImage, ...]:
        indices = torch.arange(start, min(start + READ_AT_ONCE, len(images)))
        block = pixels.read(indices)
        raise_first(block.bad, on_bad_image)
        failed = torch.tensor([image.place for image in block.bad], dtype=torch.int64)
        good = indices[~torch.isin(indices, failed)]
        images[good] = block.images
        if block.sizes is not None:
            sizes[good] = block.sizes
        return block.bad

    with ThreadPoolExecutor(max_workers=default_worker_count() + 1) as pool:
        # Results come in order, so that the error that is raised is that of the first file.
        bad = [image for found in pool.map(decode, range(0, len(images), READ_AT_ONCE)) for image in found]
    if bad:
        good = torch.ones(len(images), dtype=torch.bool)
        good[[image.place for image in bad]] = False
        images, sizes = images[good], sizes[good]
    left = without_images(files, bad)
    held = HeldPictures(Pictures(images, sizes)) if pixels.has_sizes else images
    return image_data(left, held, digest_of(left, held), skipped_images(files, bad))


def digest_of(files: ImageFileSet, images: Images) -> str:
    """`data_digest` of images that are in the order of `file_pixels`."""
    train, test, validation = split_images(files, images)
    return data_digest(train, test, files.class_names, validation)


def raise_first(bad: Sequence[BadImage], on_bad_image: OnBadImage) -> None:
    """With `on_bad_image=error` a bad file ends the loading.

    Raises:
        DataError: naming the first one.
    """
    if bad and on_bad_image == "error":
        raise undecodable(bad[0].problem)


def skipped_images(files: ImageFileSet, bad: Sequence[BadImage]) -> tuple[SkippedImage, ...]:
    """Bad files by their relative names."""
    names = relative_names(files)
    return tuple(SkippedImage(names[image.place], image.problem) for image in bad)


def without_images(files: ImageFileSet, bad: Sequence[BadImage]) -> ImageFileSet:
    """The data set as if the bad files were not there.

    Raises:
        DataError: if a class of the training images, or any part without labels, has no other files.
    """
    if not bad:
        return files
    indices, start, left = {image.place for image in bad}, 0, []
    for part in files.parts():
        left.append(_part_without(part, indices, start))
        start += len(part.files)
    rest = iter(left)
    train = next(rest)
    _check_something_is_left(files, train, bad[0].problem)
    test = None if files.test is None else next(rest)
    validation = None if files.validation is None else next(rest)
    for name, other in (("test", test), ("validation", validation)):
        if other is not None and not other.files:
            raise _nothing_left(f"the {name} images", bad[0].problem)
    return replace(files, train=train, test=test, validation=validation)


def _part_without(part: ImageFiles, bad: set[int], offset: int) -> ImageFiles:
    kept = [position for position in range(len(part.files)) if position + offset not in bad]
    files = tuple(part.files[position] for position in kept)
    labels = None if part.labels is None else tuple(part.labels[position] for position in kept)
    masks = None if part.masks is None else tuple(part.masks[position] for position in kept)
    return ImageFiles(files, labels, masks)


def _check_something_is_left(files: ImageFileSet, train: ImageFiles, problem: str) -> None:
    """Training needs images, and images of every class; the other parts may lack some, which is told."""
    lost = {*(files.train.labels or ())} - {*(train.labels or ())}
    if lost:
        raise _nothing_left(f"class {files.class_names[min(lost)]!r} of the training images", problem)
    if not train.files:
        raise _nothing_left("the training images", problem)


def _nothing_left(what: str, problem: str) -> DataError:
    return DataError(
        Key("on_bad_image"),
        f"=skip leaves nothing of {what}: no file can be decoded (such as: {problem}); fix the files, or remove the "
        "class",
        keys=["root"],
    )


def relative_names(files: ImageFileSet) -> list[str]:
    """Names of all files, in the order of the parts, relative to the data set's folder, with slashes."""
    every = _every_file(files)
    root = files.root or Path(os.path.commonpath([file.parent for file in every]))
    return [_as_text(file.relative_to(root).as_posix()) for file in every]


def _as_text(name: str) -> str:
    """Names of files are bytes; what is not UTF-8, or cannot be printed, is spelled out, differently for all names."""
    if name.isascii() and name.isprintable() and "\\" not in name:
        return name
    return printable(os.fsencode(name.replace("\\", r"\\")).decode("utf-8", "backslashreplace"))
