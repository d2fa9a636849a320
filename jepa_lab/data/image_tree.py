"""Finds the image files of a folder: `train/<class>/` and `test|val/<class>/`, or flat without labels."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jepa_lab.data.base import ImageFiles
from jepa_lab.errors import DataError

IMAGE_EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
LAYOUT = "expected ROOT/train/<class>/IMAGES and ROOT/test/<class>/IMAGES, or images directly in ROOT"
ANNOTATIONS = "val_annotations.txt"
UNSORTED = "images"


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
    left alone, since validation is cut from the training images. Hidden files and folders are skipped; links are
    followed.

    This reads Imagenette (`val` is the test split) and ImageNet, where its test images are elsewhere. Tiny ImageNet
    is told by `val/val_annotations.txt` beside `val/images`: that file labels the test split, and the images in
    `test`, which have no labels, are left alone.

    Raises:
        DataError: no such folder, no images, images beside class folders, a class without images, a test split
            whose classes are not those of the training split, annotations that do not fit the images, a folder
            that cannot be listed, or links that lead in a circle.
    """
    _check_root(root)
    train_folder = root / "train"
    if not os.path.isdir(train_folder):
        return ImageTree(ImageFiles(_flat_images(root), None), None, ())
    folder_names = class_folders(train_folder)
    if not folder_names:
        return ImageTree(ImageFiles(_flat_images(train_folder), None), None, ())
    if len(folder_names) == 1:
        raise DataError(
            f"{train_folder} has the single class folder {folder_names[0]!r}, and one class cannot be probed; "
            "put the images directly into it to train without labels, or add the other classes"
        )
    train = labelled_images(train_folder, folder_names)
    return ImageTree(train, _find_test_split(root, folder_names), class_names_of(folder_names))


def labelled_images(folder: Path, folder_names: tuple[str, ...]) -> ImageFiles:
    """The images of class folders, ordered by class and path.

    Raises:
        DataError: images beside the class folders, or a class without images.
    """
    stray = next((entry.name for entry in _entries(folder) if _is_image(entry.name)), None)
    if stray is not None:
        raise DataError(
            f"{folder} holds class folders and images beside them (such as {stray!r}), which have no label; "
            "move the images into class folders or elsewhere"
        )
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(folder_names):
        found = sorted(_images_below(folder / name))
        if not found:
            raise DataError(
                f"the class folder {folder / name} holds no images ({', '.join(IMAGE_EXTENSIONS)}); "
                "add some or remove the folder"
            )
        files += found
        labels += [label] * len(found)
    return ImageFiles(tuple(files), tuple(labels))


def class_names_of(folder_names: tuple[str, ...]) -> tuple[str, ...]:
    r"""Names that can be printed and stored: bytes of a folder's name that are not UTF-8 are written as `\xe9`."""
    return tuple(os.fsencode(name).decode("utf-8", "backslashreplace") for name in folder_names)


def _find_test_split(root: Path, folder_names: tuple[str, ...]) -> ImageFiles | None:
    annotations = root / "val" / ANNOTATIONS
    if annotations.is_file() and os.path.isdir(root / "val" / UNSORTED):
        return _annotated_images(annotations, folder_names)
    for name in ("test", "val"):
        folder = root / name
        if os.path.isdir(folder) and not _is_unlabelled_test(folder, annotations):
            check_same_classes(folder, folder_names)
            return labelled_images(folder, folder_names)
    return None


def _is_unlabelled_test(folder: Path, annotations: Path) -> bool:
    """Tiny ImageNet's `test/images`, where the user has sorted `val` into class folders."""
    return folder.name == "test" and annotations.is_file() and class_folders(folder) == (UNSORTED,)


def _annotated_images(annotations: Path, folder_names: tuple[str, ...]) -> ImageFiles:
    """Tiny ImageNet's test split: each line has a file of `val/images`, its class, and a box; ordered by class."""
    labels = {name: label for label, name in enumerate(folder_names)}
    folder = annotations.parent / UNSORTED
    unlabelled = {entry.name for entry in _entries(folder) if _is_image(entry.name)}
    found: list[tuple[int, Path]] = []
    for number, (name, class_name) in _read_annotations(annotations):
        if class_name not in labels:
            raise _broken_annotation(annotations, number, f"the class {class_name!r} has no folder in train")
        if name not in unlabelled:
            raise _broken_annotation(annotations, number, f"{name!r} is not in {folder}, or is named twice")
        unlabelled.remove(name)
        found.append((labels[class_name], folder / name))
    if unlabelled or not found:
        what = f"does not name {len(unlabelled)} of them (such as {min(unlabelled)!r})" if unlabelled else "is empty"
        raise DataError(
            f"{annotations} must give the class of each image in {folder}, but {what}; {_ANNOTATION_REMEDY}"
        )
    found.sort()
    return ImageFiles(tuple(path for _, path in found), tuple(label for label, _ in found))


_ANNOTATION_REMEDY = (
    f"restore the published file, or sort the images into class folders in val and remove {ANNOTATIONS} and test"
)


def _read_annotations(path: Path) -> Iterator[tuple[int, tuple[str, str]]]:
    """Line number, file name and class of each line."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); make it readable") from error
    for number, line in enumerate(text.splitlines(), start=1):
        fields = os.fsdecode(line).split("\t")
        if len(fields) < 2:
            raise _broken_annotation(path, number, f"{os.fsdecode(line)[:80]!r} is not FILE, tab, CLASS")
        yield number, (fields[0], fields[1])


def _broken_annotation(path: Path, line: int, problem: str) -> DataError:
    return DataError(f"{path}:{line}: {problem}; {_ANNOTATION_REMEDY}")


def _check_root(root: Path) -> None:
    problem = "which is not"
    try:
        if os.path.isdir(root):
            return
        root.stat()
    except (OSError, ValueError) as error:  # ValueError: a null character
        problem = f"which cannot be opened ({getattr(error, 'strerror', None) or error})"
    raise DataError(f"data.root must be a folder, got {str(root)!r}, {problem}; {LAYOUT}")


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What is in a folder, sorted by name.

    Raises:
        DataError: if it cannot be listed.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(
            f"the folder {folder} cannot be listed ({error.strerror}); make it readable, or move it elsewhere"
        ) from error


def class_folders(folder: Path) -> tuple[str, ...]:
    """Names of the folders in a folder, sorted, without hidden ones.

    Raises:
        DataError: if it cannot be listed.
    """
    return tuple(entry.name for entry in _entries(folder) if _is_folder(entry) and not entry.name.startswith("."))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or into a place that may not be entered
        return False


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_EXTENSIONS) and not name.startswith(".")


def _check_is_file(entry: os.DirEntry[str]) -> None:
    """Anything else could block the reader forever; a link to nothing would be an image lost without a word."""
    if not os.path.isfile(entry.path) if entry.is_symlink() else not entry.is_file():
        what = "a link to nothing" if entry.is_symlink() else "neither a file nor a folder"
        raise DataError(f"{entry.path} has the name of an image, but is {what}; remove it")


def _flat_images(folder: Path) -> tuple[Path, ...]:
    found = [entry for entry in _entries(folder) if _is_image(entry.name) and not _is_folder(entry)]
    for entry in found:
        _check_is_file(entry)
    if not found:
        raise DataError(f"{folder} holds no images ({', '.join(IMAGE_EXTENSIONS)}); {LAYOUT}")
    return tuple(folder / entry.name for entry in found)


def _images_below(folder: Path) -> Iterator[Path]:
    """Image files at any depth; links are followed, since subsets are often made of them.

    Raises:
        DataError: if a folder contains itself through a link.
    """
    waiting: list[tuple[Path, frozenset[tuple[int, int]]]] = [(folder, frozenset())]
    while waiting:
        current, above = waiting.pop()
        entries = _entries(current)
        status = current.stat()
        identity = (status.st_dev, status.st_ino)
        if identity in above:
            raise DataError(f"the folder {current} leads back to a folder that it is in, by a link; remove the link")
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if _is_folder(entry):
                waiting.append((current / entry.name, above | {identity}))
            elif _is_image(entry.name):
                _check_is_file(entry)
                yield current / entry.name


def check_same_classes(test_folder: Path, folder_names: tuple[str, ...]) -> None:
    """Raise DataError, naming the differences, unless a test split has the class folders of the training images."""
    test_names = class_folders(test_folder)
    unknown = sorted(set(test_names) - set(folder_names))
    if unknown:
        raise DataError(
            f"{test_folder} has classes that the training images lack: {', '.join(unknown)}; "
            "the class folders of both must have the same names"
        )
    missing = [name for name in folder_names if name not in test_names]
    if missing:
        raise DataError(
            f"{test_folder} lacks classes of the training images: {', '.join(missing)}; "
            "add their folders, or rename the test folder to train without a test split"
        )
