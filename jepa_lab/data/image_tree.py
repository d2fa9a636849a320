"""Finds the image files of a folder: `train/<class>/` and `test|val/<class>/`, or flat without labels."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from jepa_lab.data.base import ImageFiles
from jepa_lab.errors import DataError

IMAGE_EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
LAYOUT = "expected ROOT/train/<class>/IMAGES and ROOT/test/<class>/IMAGES, or images directly in ROOT"


@dataclass(frozen=True)
class ImageTree:
    """What a folder holds; `test` is None where there is no labelled test split."""

    train: ImageFiles
    test: ImageFiles | None
    class_names: tuple[str, ...]


def find_image_tree(root: Path) -> ImageTree:
    """Find the images under `root`, without opening them.

    Training images are in `root/train`, or in `root` itself if there is no such folder. Class folders there
    make the labels: sorted by name, each searched to any depth. Without class folders it is a flat data set:
    no labels, no classes, no test split. The test split is `root/test`, else `root/val`; with both, `val` is
    left alone, since validation is cut from the training images. Hidden files and folders are skipped.

    Raises:
        DataError: no such folder, no images, images beside class folders, a class without images, or a test
            split whose classes are not those of the training split.
    """
    if not root.is_dir():
        raise DataError(f"data.root must be a folder, got {str(root)!r}, which is not; {LAYOUT}")
    train_folder = root / "train"
    if not train_folder.is_dir():
        return ImageTree(ImageFiles(_flat_images(root), None), None, ())
    if not _class_folders(train_folder):
        return ImageTree(ImageFiles(_flat_images(train_folder), None), None, ())
    class_names = tuple(folder.name for folder in _class_folders(train_folder))
    if len(class_names) == 1:
        raise DataError(
            f"{train_folder} has the single class folder {class_names[0]!r}, and one class cannot be probed; "
            "put the images directly into it to train without labels, or add the other classes"
        )
    train = _labelled_images(train_folder, class_names)
    test_folder = next((root / name for name in ("test", "val") if (root / name).is_dir()), None)
    if test_folder is None:
        return ImageTree(train, None, class_names)
    _check_same_classes(test_folder, class_names)
    return ImageTree(train, _labelled_images(test_folder, class_names), class_names)


def _class_folders(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_EXTENSIONS) and not name.startswith(".")


def _flat_images(folder: Path) -> tuple[Path, ...]:
    files = tuple(sorted(entry for entry in folder.iterdir() if _is_image(entry.name) and entry.is_file()))
    if not files:
        raise DataError(f"{folder} holds no images ({', '.join(IMAGE_EXTENSIONS)}); {LAYOUT}")
    return files


def _labelled_images(folder: Path, class_names: tuple[str, ...]) -> ImageFiles:
    stray = next((entry.name for entry in sorted(folder.iterdir()) if _is_image(entry.name)), None)
    if stray is not None:
        raise DataError(
            f"{folder} holds class folders and images beside them (such as {stray!r}), which have no label; "
            "move the images into class folders or elsewhere"
        )
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(class_names):
        found = _images_below(folder / name)
        if not found:
            raise DataError(
                f"the class folder {folder / name} holds no images ({', '.join(IMAGE_EXTENSIONS)}); "
                "add some or remove the folder"
            )
        files += found
        labels += [label] * len(found)
    return ImageFiles(tuple(files), tuple(labels))


def _images_below(folder: Path) -> list[Path]:
    """Image files at any depth; links are followed, since subsets are often made of them."""
    found: list[Path] = []
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(parent, name) for name in names if _is_image(name)]
    return sorted(found)


def _check_same_classes(test_folder: Path, class_names: tuple[str, ...]) -> None:
    test_names = {folder.name for folder in _class_folders(test_folder)}
    unknown = sorted(test_names - set(class_names))
    if unknown:
        raise DataError(
            f"{test_folder} has classes that the training images lack: {', '.join(unknown)}; "
            "the class folders of both must have the same names"
        )
    missing = [name for name in class_names if name not in test_names]
    if missing:
        raise DataError(
            f"{test_folder} lacks classes of the training images: {', '.join(missing)}; "
            "add their folders, or rename the test folder to train without a test split"
        )
