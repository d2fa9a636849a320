"""CelebA: 202,599 photographs of faces with 40 attributes, 178 x 218 pixels."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import Field

from jepa_lab.data.base import DATASETS, ImageData, ImageDataset, ImageFiles, ImageFileSet
from jepa_lab.data.download import complete_folder, download_or_explain, missing_files, problem_with_files
from jepa_lab.data.image_files import load_files
from jepa_lab.errors import DataError, Key, Problem
from jepa_lab.registry import ComponentParams

DEFAULT_ROOT = Path("data/celeba")
PAGE = "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"
IMAGES = "img_align_celeba"
ARCHIVE = "img_align_celeba.zip"
ATTRIBUTES = "list_attr_celeba.txt"
PARTITION = "list_eval_partition.txt"
NUM_TRAIN_IMAGES = 162_770
TRAIN, TEST = "0", "2"

Attribute = Literal[
    "5_o_Clock_Shadow",
    "Arched_Eyebrows",
    "Attractive",
    "Bags_Under_Eyes",
    "Bald",
    "Bangs",
    "Big_Lips",
    "Big_Nose",
    "Black_Hair",
    "Blond_Hair",
    "Blurry",
    "Brown_Hair",
    "Bushy_Eyebrows",
    "Chubby",
    "Double_Chin",
    "Eyeglasses",
    "Goatee",
    "Gray_Hair",
    "Heavy_Makeup",
    "High_Cheekbones",
    "Male",
    "Mouth_Slightly_Open",
    "Mustache",
    "Narrow_Eyes",
    "No_Beard",
    "Oval_Face",
    "Pale_Skin",
    "Pointy_Nose",
    "Receding_Hairline",
    "Rosy_Cheeks",
    "Sideburns",
    "Smiling",
    "Straight_Hair",
    "Wavy_Hair",
    "Wearing_Earrings",
    "Wearing_Hat",
    "Wearing_Lipstick",
    "Wearing_Necklace",
    "Wearing_Necktie",
    "Young",
]


@DATASETS.register(
    "celeba",
    summary="CelebA, faces, 178x218, two classes by one of 40 attributes: downloaded by gdown, or by hand",
    source="Liu, Luo, Wang & Tang 2015, arXiv:1411.7766; the layout of torchvision.datasets.CelebA",
)
class CelebA(ImageDataset):
    """The aligned and cropped images with the official training and test splits; a label says yes or no.

    The official validation images are left alone: validation is cut from the training images, as everywhere. Files
    are in `root/celeba` (torchvision's layout); the images are unpacked from their archive where the folder is
    missing. The archive and both lists must have the digests that torchvision knows.
    """

    class Params(ComponentParams):
        attribute: Attribute = Field("Smiling", description="The attribute that is the label for the probe.")
        download: bool = Field(
            True,
            strict=True,
            description="Download the files into the root folder if they are missing; needs the package gdown.",
        )

    params: Params
    num_channels = 3

    def num_train_images(self) -> int:
        problem = self._problem()
        if problem is None:
            return list(self._read_partition().values()).count(TRAIN)
        if not self.params.download:
            raise missing_files(problem, self._remedy)
        return NUM_TRAIN_IMAGES

    def image_files(self) -> ImageFileSet:
        return self._files

    def load(self) -> ImageData:
        return load_files(self._files, self.image_size)

    @property
    def _folder(self) -> Path:
        return (DEFAULT_ROOT if self.root is None else self.root) / "celeba"

    @cached_property
    def _files(self) -> ImageFileSet:
        self._provide()
        labels = self._read_labels()
        parts = self._read_partition()
        self._check_images(parts)
        train, test = (self._find_split(parts, labels, part) for part in (TRAIN, TEST))
        class_names = (f"not {self.params.attribute}", self.params.attribute)
        return ImageFileSet(train, test, class_names, f"{self._folder} ({self.params.attribute})", root=self._folder)

    def _find_split(self, parts: dict[str, str], labels: dict[str, int], part: str) -> ImageFiles:
        names = [name for name, its_part in parts.items() if its_part == part]
        return ImageFiles(tuple(self._folder / IMAGES / name for name in names), tuple(labels[name] for name in names))

    def _read_labels(self) -> dict[str, int]:
        """1 where the image has the attribute, by image name. Two lines precede: the count, and the attributes."""
        lines = self._lines(ATTRIBUTES)
        next(lines)
        column = 1 + next(lines).index(self.params.attribute)
        return {fields[0]: int(fields[column] == "1") for fields in lines}

    def _read_partition(self) -> dict[str, str]:
        """Part of each image, by image name, in the order of the list."""
        return {fields[0]: fields[1] for fields in self._lines(PARTITION)}

    def _lines(self, name: str) -> Iterator[list[str]]:
        with (self._folder / name).open(encoding="ascii") as file:
            yield from (line.split() for line in file)

    def _check_images(self, parts: dict[str, str]) -> None:
        found = set(os.listdir(self._folder / IMAGES))
        missing = [name for name in parts if name not in found]
        if missing:
            raise DataError(
                f"{self._folder / IMAGES} lacks {len(missing)} of the {len(parts)} images of CelebA (such as "
                f"{missing[0]}); remove the folder, and it is unpacked again from {ARCHIVE}"
            )

    def _published(self) -> dict[str, tuple[str, str]]:
        """Google Drive's number and the MD5 digest of each file."""
        import torchvision.datasets

        used = (ARCHIVE, ATTRIBUTES, PARTITION)
        return {name: (number, md5) for number, md5, name in torchvision.datasets.CelebA.file_list if name in used}

    def _problem(self) -> str | None:
        """What is wrong with the first file that is missing or damaged; images stand for their archive."""
        unpacked = (self._folder / IMAGES).is_dir()
        files = [(name, md5) for name, (_, md5) in self._published().items() if name != ARCHIVE or not unpacked]
        return problem_with_files("CelebA", self._folder, files)

    def _provide(self) -> None:
        problem = self._problem()
        if problem is not None:
            if not self.params.download:
                raise missing_files(problem, self._remedy)
            download_or_explain(self._download, problem, self._remedy, _gdown_errors())
        if not (self._folder / IMAGES).is_dir():
            complete_folder(self._unpack, self._folder / IMAGES)

    def _download(self) -> None:
        from torchvision.datasets.utils import download_file_from_google_drive

        for name, (number, md5) in self._published().items():
            if name != ARCHIVE or not (self._folder / IMAGES).is_dir():
                download_file_from_google_drive(number, str(self._folder), name, md5)

    def _unpack(self, folder: Path) -> Path:
        from torchvision.datasets.utils import extract_archive

        extract_archive(str(self._folder / ARCHIVE), str(folder))
        return folder / IMAGES

    @property
    def _remedy(self) -> Problem:
        return Problem(
            f"Get {ARCHIVE} (Align&Cropped Images), {ATTRIBUTES} and {PARTITION} from {PAGE} and put them in "
            f"{self._folder}, or set ",
            Key("root"),
            "=FOLDER to the folder that holds the folder celeba; for the download install gdown",
        )


def _gdown_errors() -> tuple[type[Exception], ...]:
    """What gdown raises beside OSError, as for a file that too many have asked for today; its versions differ."""
    try:
        from gdown import exceptions
    except ImportError:  # not installed, or so old that it raises nothing of its own
        return ()
    return tuple(kind for kind in vars(exceptions).values() if isinstance(kind, type) and issubclass(kind, Exception))
