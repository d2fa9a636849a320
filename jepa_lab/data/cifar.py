"""What CIFAR-10 and CIFAR-100 share: the published python batches, or a folder of images."""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from jepa_lab.data.base import ImageData, ImageDataset, ImageFileSet, ImageSplit
from jepa_lab.data.batch_pickles import read_image_batch, read_names
from jepa_lab.data.download import download_or_explain, has_md5, missing_files
from jepa_lab.data.folders.roles import find_split_folders
from jepa_lab.data.folders.tree import ImageTree, find_image_tree
from jepa_lab.data.image_files import load_files
from jepa_lab.data.pixels import data_digest, resize_images
from jepa_lab.errors import DataError, Key, Problem
from jepa_lab.registry import ComponentParams

NATIVE_SIZE = 32
NUM_TRAIN_IMAGES = 50_000
NUM_TEST_IMAGES = 10_000


class CifarParams(ComponentParams):
    """What both CIFAR data sets let the user choose."""

    download: bool = Field(
        True, strict=True, description="Download the files into the root folder if they are missing."
    )


class Cifar(ImageDataset):
    """Reads `ROOT/train/<class>/` and `ROOT/test/<class>/` if they exist, else the published python batches.

    The batches are pickles. torchvision knows their address and MD5 digests and downloads them; we check the
    digests and read with an unpickler that knows arrays only, so that nothing read from a file executes code.
    Differs: torchvision unpickles without limits.

    Args:
        root: `data/<name>` in the working directory where none is given.
    """

    Params: type[ComponentParams] = CifarParams
    params: CifarParams
    num_channels = 3
    title: ClassVar[str]
    num_classes: ClassVar[int]
    default_root: ClassVar[Path]
    label_key: ClassVar[str]

    @staticmethod
    @abstractmethod
    def published() -> Any:
        """torchvision's class: names, addresses and digests of the published files."""

    @property
    def folder(self) -> Path:
        """Where the files are, or go."""
        return self.default_root if self.root is None else self.root

    def num_train_images(self) -> int:
        if self._tree is not None:
            return len(self._tree.train.files)
        if not self.params.download:
            problem = self._problem_with_batches(check_digests=False)
            if problem is not None:
                raise missing_files(problem, self._remedy())
        return NUM_TRAIN_IMAGES

    def num_test_images(self) -> int | None:
        return NUM_TEST_IMAGES if self._tree is None else super().num_test_images()

    def image_files(self) -> ImageFileSet | None:
        tree = self._tree
        if tree is None:
            return None
        source = f"{self.folder} (image files)"
        return ImageFileSet(
            tree.train, tree.test, tree.class_names, source, NATIVE_SIZE, self.folder, findings=tree.findings
        )

    def load(self) -> ImageData:
        files = self.image_files()
        if files is not None:
            return load_files(files, self.image_size)
        problem = self._problem_with_batches()
        if problem is not None:
            self._provide_batches(problem)
        return self._load_batches()

    @cached_property
    def _tree(self) -> ImageTree | None:
        """The image files, where the folder is a `train/<class>/` tree."""
        if not self.folder.is_dir() or find_split_folders(self.folder).train is None:
            return None
        tree = find_image_tree(self.folder)
        tested = 0 if tree.test is None else len(set(tree.test.labels or ()))
        if (len(tree.class_names), tested) != (self.num_classes, self.num_classes):
            test = "missing" if tree.test is None else f"there with {tested}"
            raise DataError(
                f"{self.folder} must have {self.num_classes} class folders in both train and test to be "
                f"{self.title}, but train has {len(tree.class_names)} and test is {test}; "
                "for other images set ",
                Key("dataset"),
                "=image_folder",
                keys=["root"],
            )
        return tree

    def _load_batches(self) -> ImageData:
        published, folder = self.published(), self.folder / self.published().base_folder
        train = self._read_split([folder / name for name, _ in published.train_list])
        test = self._read_split([folder / name for name, _ in published.test_list])
        class_names = read_names(folder / published.meta["filename"], published.meta["key"], self.num_classes)
        return self._image_data(train, test, class_names, f"{folder} (python batches)")

    def _read_split(self, paths: list[Path]) -> ImageSplit:
        images: list[Tensor] = []
        labels: list[int] = []
        for path in paths:
            # [n, 3072]: the red, the green, then the blue plane
            pixels, batch_labels = read_image_batch(path, self.label_key, 3 * NATIVE_SIZE**2, self.num_classes)
            images.append(torch.from_numpy(pixels.reshape(-1, 3, NATIVE_SIZE, NATIVE_SIZE)))
            labels += batch_labels
        return ImageSplit(resize_images(torch.cat(images), self.image_size), torch.tensor(labels))

    def _image_data(self, train: ImageSplit, test: ImageSplit, class_names: tuple[str, ...], source: str) -> ImageData:
        return ImageData(train, test, class_names, data_digest(train, test), source)

    def _problem_with_batches(self, check_digests: bool = True) -> str | None:
        """What is wrong with the python batches, or None."""
        published = self.published()
        meta = [published.meta["filename"], published.meta["md5"]]
        for name, md5 in [*published.train_list, *published.test_list, meta]:
            path = self.folder / published.base_folder / name
            if not path.is_file():
                return f"{self.title} is not complete: {path} is missing"
            if check_digests and not has_md5(path, md5):
                return f"{self.title} is damaged: {path} has another MD5 digest than the published file"
        return None

    def _provide_batches(self, problem: str) -> None:
        if not self.params.download:
            raise missing_files(problem, self._remedy())
        from torchvision.datasets.utils import download_and_extract_archive

        published = self.published()
        download_or_explain(
            lambda: download_and_extract_archive(
                published.url, self.folder, filename=published.filename, md5=published.tgz_md5
            ),
            problem,
            self._remedy(),
        )
        still = self._problem_with_batches()
        if still is not None:
            raise DataError(f"{still}, even after the download; remove {self.folder} and start again")

    def _remedy(self) -> Problem:
        published = self.published()
        return Problem(
            f"Unpack {published.filename} ({published.url}) in {self.folder}, so that it holds the folder "
            f"{published.base_folder}, or set ",
            Key("root"),
            "=FOLDER to the folder that holds it or to one with train/<class>/ and test/<class>/ images",
        )
