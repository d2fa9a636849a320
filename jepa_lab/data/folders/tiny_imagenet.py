"""Tiny ImageNet's `val`: a folder of images, and a file that has the class of each."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from jepa_lab.data.base import ImageFiles
from jepa_lab.data.folders.scan import images_in
from jepa_lab.errors import DataError

ANNOTATIONS = "val_annotations.txt"
UNSORTED = "images"
_REMEDY = f"restore the published file, or sort the images into class folders in val and remove {ANNOTATIONS} and test"


def is_annotated(folder: Path) -> bool:
    """Whether the images of a folder have their classes in a file."""
    return (folder / ANNOTATIONS).is_file() and (folder / UNSORTED).is_dir()


def annotated_images(val: Path, class_folders: tuple[str, ...]) -> ImageFiles:
    """The images of `val`, ordered by class; each line of its file has an image, its class, and a box.

    Raises:
        DataError: the file does not fit the images or the classes.
    """
    annotations = val / ANNOTATIONS
    labels = {name: label for label, name in enumerate(class_folders)}
    folder = val / UNSORTED
    unlabelled = set(images_in(folder))
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
        raise DataError(f"{annotations} must give the class of each image in {folder}, but {what}; {_REMEDY}")
    found.sort()
    return ImageFiles(tuple(path for _, path in found), tuple(label for label, _ in found))


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
    return DataError(f"{path}:{line}: {problem}; {_REMEDY}")
