"""ImageNet-1k (ILSVRC 2012): 1,281,167 training and 50,000 validation photographs of 1,000 classes."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from jepa_lab.data.base import DATASETS, ImageData, ImageDataset, ImageFiles, ImageFileSet
from jepa_lab.data.download import NEEDS_NO_FILES, complete_folder
from jepa_lab.data.folders.labels import check_same_classes, labelled_part
from jepa_lab.data.folders.scan import folders_in
from jepa_lab.data.image_files import load_files
from jepa_lab.errors import DataError, Key
from jepa_lab.registry import ComponentParams

DEFAULT_ROOT = Path("data/imagenet")
NUM_CLASSES = 1000
NUM_IMAGES = {"train": 1_281_167, "val": 50_000}
PAGE = "https://image-net.org/challenges/LSVRC/2012/2012-downloads.php"


@DATASETS.register(
    "imagenet",
    summary="ImageNet-1k, 1,000 classes: train/<wnid>/ and val/<wnid>/ in data.root, or the published archives",
    source="Russakovsky et al. 2015, arXiv:1409.0575; the layout of torchvision.datasets.ImageNet",
)
class ImageNet(ImageDataset):
    """All 1,281,167 training images; the 50,000 of the official validation split are the test split.

    That split is the one whose accuracy papers report; the labels of the official test images are secret. Where
    `root/train` or `root/val` is missing it is unpacked from its archive, whose digest torchvision knows and checks
    (minutes for 138 GB); an unpacking that is interrupted starts again. Classes are named by WordNet identifiers.

    Differs: torchvision's cache of class names, `meta.bin`, is not read.
    """

    Params = ComponentParams
    num_channels = 3

    def num_train_images(self) -> int:
        if not (self._root / "train").is_dir():
            self._check_archives("train")
            return NUM_IMAGES["train"]
        return len(self._files.train.files)

    def image_files(self) -> ImageFileSet:
        return self._files

    def load(self) -> ImageData:
        return load_files(self._files, self.image_size)

    @property
    def _root(self) -> Path:
        return DEFAULT_ROOT if self.root is None else self.root

    @cached_property
    def _files(self) -> ImageFileSet:
        for part in ("train", "val"):
            if not (self._root / part).is_dir():
                self._check_archives(part)
                self._unpack(part)
        names = folders_in(self._root / "train")
        check_same_classes(self._root / "val", names)
        train, test = (self._find_split(part, names) for part in ("train", "val"))
        return ImageFileSet(train, test, names, f"{self._root} (image files)", root=self._root)

    def _find_split(self, part: str, names: tuple[str, ...]) -> ImageFiles:
        folder = self._root / part
        found = labelled_part(folder, names).files
        if (len(names), len(found.files)) != (NUM_CLASSES, NUM_IMAGES[part]):
            raise DataError(
                f"{folder} must have {NUM_IMAGES[part]} images of {NUM_CLASSES} classes to be ImageNet-1k, got "
                f"{len(found.files)} of {len(names)}; if it was unpacked by hand unpack it again, and for a part of "
                "ImageNet set ",
                Key("dataset"),
                "=image_folder",
                keys=["root"],
            )
        return found

    def _check_archives(self, part: str) -> None:
        from torchvision.datasets.imagenet import ARCHIVE_META

        for archive in {"train": ("train",), "val": ("val", "devkit")}[part]:
            path = self._root / ARCHIVE_META[archive][0]
            if not path.is_file():
                names = ", ".join(name for name, _ in ARCHIVE_META.values())
                raise DataError(
                    f"ImageNet is not complete: {self._root / part} is missing, and so is {path} to unpack it from. "
                    f"ImageNet cannot be downloaded without an account: get {names} from {PAGE} and put them in "
                    f"{self._root}, or set ",
                    Key("root"),
                    f"=FOLDER to a folder with train/<wnid>/ and val/<wnid>/; {NEEDS_NO_FILES}",
                    keys=["dataset"],
                )

    def _unpack(self, part: str) -> None:
        unpack = {"train": _unpack_train, "val": _unpack_val}[part]
        try:
            complete_folder(unpack, self._root / part)
        except RuntimeError as error:  # torchvision's, and the files are there: another digest
            reason = " ".join(str(error).split())
            raise DataError(
                f"ImageNet is damaged: {reason} Get the archive again from {PAGE}; {NEEDS_NO_FILES}"
            ) from error


def _unpack_train(folder: Path) -> Path:
    from torchvision.datasets.imagenet import parse_train_archive

    parse_train_archive(str(folder.parent), folder=folder.name)
    return folder


def _unpack_val(folder: Path) -> Path:
    """The development kit says which image has which class; torchvision keeps that in `meta.bin`, written here anew."""
    import torch
    from torchvision.datasets.imagenet import META_FILE, parse_devkit_archive, parse_val_archive

    parse_devkit_archive(str(folder.parent))
    _, wnids = torch.load(folder.parent / META_FILE, weights_only=True)
    parse_val_archive(str(folder.parent), wnids=wnids, folder=folder.name)
    return folder
