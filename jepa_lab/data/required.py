"""What a data set must give, looked at once when it is loaded."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from jepa_lab.contracts import require, require_tensor
from jepa_lab.data.base import ImageData, ImageDataset, ImageFiles, ImageFileSet, ImageSplit
from jepa_lab.data.images import LazyImages


def require_files(dataset: ImageDataset, files: object) -> None:
    """Refuse what `image_files` returned, unless it is a set of files.

    Raises:
        PluginError, AssertionError: see `require`.
    """
    require(dataset, "image_files", isinstance(files, ImageFileSet), files, "an ImageFileSet or None")
    assert isinstance(files, ImageFileSet)
    classes = len(files.class_names)
    for part in files.parts():
        require(dataset, "image_files", isinstance(part, ImageFiles), part, "ImageFiles for each split")
        paths = all(isinstance(file, Path) for file in part.files)
        require(dataset, "image_files (files)", paths, part.files, "a tuple of pathlib.Path")
        if part.labels is None:
            continue
        fits = len(part.labels) == len(part.files) and all(0 <= label < classes for label in part.labels)
        found = f"{len(part.labels)} labels from {min(part.labels, default=0)} to {max(part.labels, default=0)}"
        require(dataset, "image_files (labels)", fits, found, f"a label below {classes} for each of {len(part.files)}")


def require_counts(dataset: ImageDataset, train: object, test: object) -> None:
    """Refuse what `num_train_images` and `num_test_images` returned, unless they are numbers of images.

    Raises:
        PluginError, AssertionError: see `require`.
    """
    require(dataset, "num_train_images", _is_count(train), train, "an int of at least 0")
    require(dataset, "num_test_images", test is None or _is_count(test), test, "an int of at least 0, or None")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def require_data(dataset: ImageDataset, data: object) -> None:
    """Refuse what `load` returned, unless it is images as uint8 with labels that fit.

    Raises:
        PluginError, AssertionError: see `require`.
    """
    require(dataset, "load", isinstance(data, ImageData), data, "an ImageData")
    assert isinstance(data, ImageData)
    names = data.class_names
    texts = isinstance(names, tuple) and all(isinstance(name, str) for name in names)
    require(dataset, "load (class_names)", texts, names, "a tuple of texts")
    digest = isinstance(data.digest, str) and 0 < len(data.digest) <= 36
    require(dataset, "load (digest)", digest, data.digest, "a text of 1 to 36 characters")
    require(dataset, "load (source)", isinstance(data.source, str), data.source, "a text")
    for name, split in (("train", data.train), ("test", data.test), ("validation", data.validation)):
        if split is not None or name == "train":
            _require_split(dataset, f"load ({name})", split, len(names))
    if data.test is not None:
        labelled = data.test.labels is not None
        require(dataset, "load (test).labels", labelled, None, "a label for each image; test is None without labels")


def _require_split(dataset: ImageDataset, call: str, split: object, num_classes: int) -> None:
    require(dataset, call, isinstance(split, ImageSplit), split, "an ImageSplit")
    assert isinstance(split, ImageSplit)
    images, size = split.images, dataset.image_size
    readable = isinstance(images, Tensor | LazyImages)
    require(dataset, f"{call}.images", readable, images, "a tensor [n, C, H, W] uint8, or LazyImages")
    count = len(images)
    require(dataset, f"{call}.images", count > 0, f"{count} images", "at least one image")
    shape = (count, dataset.num_channels, size, size)
    if isinstance(images, Tensor):
        require_tensor(dataset, f"{call}.images", images, shape, "[n, C, H, W]", dtypes=[torch.uint8])
    else:
        require(dataset, f"{call}.images", tuple(images.shape) == shape, list(images.shape), f"the shape {list(shape)}")
    if split.labels is None:
        return
    require_tensor(dataset, f"{call}.labels", split.labels, (count,), "[n]", dtypes=[torch.int64])
    low, high = int(split.labels.min()), int(split.labels.max())
    inside = low >= 0 and high < num_classes
    expected = f"labels from 0, below the {num_classes} class_names"
    require(dataset, f"{call}.labels", inside, f"labels from {low} to {high}", expected)
