"""The files of a data set as one source of pixels: training images first, then test images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from jepa_lab.data.base import ImageData, ImageFiles, ImageFileSet, ImageSplit, SkippedImage
from jepa_lab.data.decode import decode_image
from jepa_lab.data.images import READ_AT_ONCE, BadImage, Block, Images
from jepa_lab.data.pixels import data_digest, resize_images
from jepa_lab.data.workers import default_worker_count
from jepa_lab.errors import DataError, printable

OnBadImage = Literal["error", "skip"]
CHANNELS = 3


class FilePixels:
    """Decodes files by index; see `decode_image` for the rules.

    Args:
        files: one an image.
        image_size: height and width to deliver.
        native_size: see `ImageFileSet`.
    """

    def __init__(self, files: Sequence[Path], image_size: int, native_size: int | None) -> None:
        # One text rather than a million objects: reading an object writes its reference count, and with it a copy
        # of its page of memory into every forked worker.
        names = [os.fsencode(file) for file in files]
        self._names = b"".join(names)
        self._ends = np.cumsum([len(name) for name in names], dtype=np.int64)
        self._image_size, self._native_size = image_size, native_size
        # The decoder imports them when it is first used: once here rather than once in every forked worker.
        import PIL.Image
        import torchvision.transforms.v2.functional  # noqa: F401

        PIL.Image.init()

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """n, C, H, W."""
        return len(self._ends), CHANNELS, self._image_size, self._image_size

    def path(self, index: int) -> Path:
        """The file of an image."""
        start = int(self._ends[index - 1]) if index else 0
        return Path(os.fsdecode(self._names[start : int(self._ends[index])]))

    def read(self, indices: Tensor) -> Block:
        """Decode the files at `indices`, [m] int64."""
        images = torch.empty(len(indices), *self.shape[1:], dtype=torch.uint8)
        good, bad = 0, []
        for index in indices.tolist():
            try:
                images[good] = self._decode(self.path(index))
                good += 1
            except DataError as error:
                problem, _, remedy = str(error).rpartition("; ")
                bad.append(BadImage(index, problem, remedy))
        return Block(images[:good], tuple(bad))

    def _decode(self, path: Path) -> Tensor:
        if self._native_size is None:
            return decode_image(path, self._image_size)
        return resize_images(decode_image(path, self._native_size)[None], self._image_size)[0]


def file_pixels(files: ImageFileSet, image_size: int) -> FilePixels:
    """All files of a data set: the training images, then the test images."""
    return FilePixels((*files.train.files, *_test_files(files)), image_size, files.native_size)


def split_images(files: ImageFileSet, images: Images) -> tuple[ImageSplit, ImageSplit | None]:
    """The two splits of images that are in the order of `file_pixels`."""
    num_train, num_test = len(files.train.files), len(_test_files(files))
    train = ImageSplit(images[torch.arange(num_train)], label_tensor(files.train))
    if files.test is None:
        return train, None
    return train, ImageSplit(images[torch.arange(num_train, num_train + num_test)], label_tensor(files.test))


def label_tensor(part: ImageFiles) -> Tensor | None:
    """[n] int64, or None without labels."""
    return None if part.labels is None else torch.tensor(part.labels, dtype=torch.int64)


def load_files(files: ImageFileSet, image_size: int, on_bad_image: OnBadImage = "error") -> ImageData:
    """Decode all files into memory; Pillow releases the interpreter's lock, so threads help.

    Raises:
        DataError: a file cannot be decoded (the first one is named), or no image of a class can.
    """
    pixels = file_pixels(files, image_size)
    images = torch.empty(*pixels.shape, dtype=torch.uint8)

    def decode(start: int) -> tuple[BadImage, ...]:
        indices = torch.arange(start, min(start + READ_AT_ONCE, len(images)))
        block = pixels.read(indices)
        raise_first(block.bad, on_bad_image)
        failed = torch.tensor([image.place for image in block.bad], dtype=torch.int64)
        images[indices[~torch.isin(indices, failed)]] = block.images
        return block.bad

    with ThreadPoolExecutor(max_workers=default_worker_count() + 1) as pool:
        # Results come in order, so that the error that is raised is that of the first file.
        bad = [image for found in pool.map(decode, range(0, len(images), READ_AT_ONCE)) for image in found]
    if bad:
        good = torch.ones(len(images), dtype=torch.bool)
        good[[image.place for image in bad]] = False
        images = images[good]
    left = without_images(files, bad)
    train, test = split_images(left, images)
    digest = data_digest(train, test, files.class_names)
    return ImageData(train, test, files.class_names, digest, files.source, skipped_images(files, bad))


def raise_first(bad: Sequence[BadImage], on_bad_image: OnBadImage) -> None:
    """With `on_bad_image=error` a bad file ends the loading.

    Raises:
        DataError: naming the first one.
    """
    if bad and on_bad_image == "error":
        raise DataError(f"{bad[0].problem}; {bad[0].remedy}")


def skipped_images(files: ImageFileSet, bad: Sequence[BadImage]) -> tuple[SkippedImage, ...]:
    """Bad files by their relative names."""
    names = relative_names(files)
    return tuple(SkippedImage(names[image.place], image.problem) for image in bad)


def without_images(files: ImageFileSet, bad: Sequence[BadImage]) -> ImageFileSet:
    """The data set as if the bad files were not there.

    Raises:
        DataError: if a class of a split, or a split without labels, has no other files.
    """
    if not bad:
        return files
    indices, num_train = {image.place for image in bad}, len(files.train.files)
    train = _part_without(files.train, indices, 0, ("training", bad[0].problem), files.class_names)
    if files.test is None:
        return replace(files, train=train)
    test = _part_without(files.test, indices, num_train, ("test", bad[0].problem), files.class_names)
    return replace(files, train=train, test=test)


def _part_without(
    part: ImageFiles, bad: set[int], offset: int, words: tuple[str, str], class_names: tuple[str, ...]
) -> ImageFiles:
    kept = [position for position in range(len(part.files)) if position + offset not in bad]
    files = tuple(part.files[position] for position in kept)
    labels = None if part.labels is None else tuple(part.labels[position] for position in kept)
    lost = {*(part.labels or ())} - {*(labels or ())}
    if lost or not files:
        what = f"class {class_names[min(lost)]!r} of the {words[0]} images" if lost else f"the {words[0]} images"
        raise DataError(
            f"data.on_bad_image=skip leaves nothing of {what}: no file can be decoded (such as: {words[1]}); "
            "mend the files, or remove the class"
        )
    return ImageFiles(files, labels)


def relative_names(files: ImageFileSet) -> list[str]:
    """Names of all files, training images first, relative to the data set's folder, with slashes."""
    every = (*files.train.files, *_test_files(files))
    root = files.root or Path(os.path.commonpath([file.parent for file in every]))
    return [_as_text(file.relative_to(root).as_posix()) for file in every]


def _as_text(name: str) -> str:
    """Names of files are bytes; what is not UTF-8, or cannot be printed, is spelled out, differently for all names."""
    if name.isascii() and name.isprintable() and "\\" not in name:
        return name
    return printable(os.fsencode(name.replace("\\", r"\\")).decode("utf-8", "backslashreplace"))


def _test_files(files: ImageFileSet) -> tuple[Path, ...]:
    return () if files.test is None else files.test.files
