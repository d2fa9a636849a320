"""Finds images and their masks: two folders with the same names inside."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jepa_lab.data.base import ImageFiles
from jepa_lab.data.folders.roles import find_split_folders
from jepa_lab.data.folders.scan import contents_below, folders_in
from jepa_lab.errors import DataError

IMAGES, MASKS = "images", "masks"
_ENDING = ".png"


@dataclass(frozen=True)
class MaskedImages:
    """The files of a data set with label maps; test and validation images are None where there are none."""

    train: ImageFiles
    test: ImageFiles | None
    validation: ImageFiles | None


def find_masked_images(root: Path, use_validation: bool) -> MaskedImages:
    """Images below `images/`, and for each a PNG of the same name at the same place below `masks/`.

    `images/train` and `images/test` (or `images/val` where there is no test folder) are the splits; without a train
    folder all images are training images, whatever folders they are in, and there is no test split.

    Args:
        use_validation: whether a folder of validation images beside the test folder is the validation split.
    Raises:
        DataError: there are no such folders, or no images in them, or an image has no mask.
    """
    missing = [name for name in (IMAGES, MASKS) if not (root / name).is_dir()]
    if missing:
        there = ", ".join(folders_in(root)) if root.is_dir() else "no such folder"
        raise DataError(
            f"{root} has no folder {' and '.join(f'{name}/' for name in missing)} ({there or 'no folders in it'}); put "
            f"pictures into {root / IMAGES} and a PNG of the same name for each into {root / MASKS}",
            keys=["root"],
        )
    folders = find_split_folders(root / IMAGES)
    if folders.train is None:
        return MaskedImages(_files(root, root / IMAGES), None, None)
    test = folders.test or folders.validation
    validation = folders.validation if use_validation and folders.test is not None else None
    return MaskedImages(
        _files(root, folders.train),
        None if test is None else _files(root, test),
        None if validation is None else _files(root, validation),
    )


def _files(root: Path, folder: Path) -> ImageFiles:
    images = contents_below(folder).images
    if not images:
        raise DataError(f"{folder} holds no images; put some in, or remove it", keys=["root"])
    masks = tuple(root / MASKS / image.relative_to(root / IMAGES).with_suffix(_ENDING) for image in images)
    lost = [(image, mask) for image, mask in zip(images, masks, strict=True) if not mask.is_file()]
    if lost:
        image, mask = lost[0]
        more = f" (and {len(lost) - 1:,} others have none either)" if len(lost) > 1 else ""
        raise DataError(f"the image {image} has no mask {mask}{more}; add it, or remove the image", keys=["root"])
    return ImageFiles(images, None, masks)
