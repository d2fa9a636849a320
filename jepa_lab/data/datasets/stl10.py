"""STL-10: 100,000 unlabelled and 13,000 labelled colour photographs, 96 x 96 pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from jepa_lab.data.base import DATASETS, ImageData, ImageDataset, ImageSplit
from jepa_lab.data.download import download_or_explain, missing_files, problem_with_files
from jepa_lab.data.pixels import data_digest, resize_images
from jepa_lab.errors import DataError, Key, Problem
from jepa_lab.registry import ComponentParams

DEFAULT_ROOT = Path("data/stl10")
NATIVE_SIZE = 96
IMAGE_BYTES = 3 * NATIVE_SIZE**2
READ_IMAGES = 4096
CLASS_NAMES = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")
TRAIN_FILES = {
    "unlabeled": ("unlabeled_X.bin",),
    "train": ("train_X.bin",),
    "train_and_unlabeled": ("train_X.bin", "unlabeled_X.bin"),
}
NUM_TRAIN_IMAGES = {"unlabeled": 100_000, "train": 5_000, "train_and_unlabeled": 105_000}
NUM_TEST_IMAGES = 8_000


@DATASETS.register(
    "stl10",
    summary=(
        "STL-10, 96x96: pretraining on 100,000 unlabelled images; to probe set "
        "probe.data={dataset: {name: stl10, pretrain_on: train}}"
    ),
    source="Coates, Lee & Ng 2011, An Analysis of Single-Layer Networks in Unsupervised Feature Learning",
)
class Stl10(ImageDataset):
    """The published binary files, in `root/stl10_binary` (torchvision's layout) or downloaded there.

    With unlabelled images there are no labels, no classes and no test split: pretraining uses them, its validation
    part is cut from them, and a probe is skipped, unless `probe.data` names labelled images. Those are the same data
    set with `pretrain_on: train`: 5,000 labelled training images, of which the probe's validation part is cut, and
    the 8,000 images of the official test split. With `train_and_unlabeled` pretraining has seen the images, though
    not the labels, that the probe validates on; with `unlabeled` it has not.

    Every file that is used must have the digest that torchvision knows.
    """

    class Params(ComponentParams):
        pretrain_on: Literal["unlabeled", "train", "train_and_unlabeled"] = Field(
            "unlabeled",
            description=(
                "Training images: the 100,000 unlabelled ones, the 5,000 labelled ones (these alone can be probed, "
                "with the 8,000 of the test split), or both, without labels."
            ),
        )
        download: bool = Field(
            True, strict=True, description="Download the files into the root folder if they are missing."
        )

    params: Params
    num_channels = 3

    def num_train_images(self) -> int:
        paths = [self._folder / name for name in TRAIN_FILES[self.params.pretrain_on]]
        if all(path.is_file() for path in paths):
            return sum(path.stat().st_size // IMAGE_BYTES for path in paths)
        if not self.params.download:
            raise missing_files(f"STL-10 is not complete: {paths[0]} is missing", self._remedy)
        return NUM_TRAIN_IMAGES[self.params.pretrain_on]

    def num_test_images(self) -> int | None:
        return NUM_TEST_IMAGES if self.has_labels() else None

    def has_labels(self) -> bool:
        return self.params.pretrain_on == "train"

    def load(self) -> ImageData:
        problem = self._problem()
        if problem is not None:
            self._provide(problem)
        images = self._read_images(TRAIN_FILES[self.params.pretrain_on])
        if self.params.pretrain_on != "train":
            train = ImageSplit(images, None)
            return ImageData(train, None, (), data_digest(train, None), str(self._folder))
        train = ImageSplit(images, self._read_labels("train_y.bin"))
        test = ImageSplit(self._read_images(("test_X.bin",)), self._read_labels("test_y.bin"))
        return ImageData(train, test, CLASS_NAMES, data_digest(train, test), str(self._folder))

    @property
    def _root(self) -> Path:
        return DEFAULT_ROOT if self.root is None else self.root

    @property
    def _folder(self) -> Path:
        return self._root / "stl10_binary"

    def _problem(self) -> str | None:
        from torchvision.datasets import STL10

        used = list(TRAIN_FILES[self.params.pretrain_on])
        if self.params.pretrain_on == "train":
            used += ["train_y.bin", "test_X.bin", "test_y.bin"]
        published = [(name, md5) for name, md5 in [*STL10.train_list, *STL10.test_list] if name in used]
        return problem_with_files("STL-10", self._folder, published)

    def _provide(self, problem: str) -> None:
        if not self.params.download:
            raise missing_files(problem, self._remedy)
        from torchvision.datasets import STL10
        from torchvision.datasets.utils import download_and_extract_archive

        download_or_explain(
            lambda: download_and_extract_archive(
                STL10.url, str(self._root), filename=STL10.filename, md5=STL10.tgz_md5
            ),
            problem,
            self._remedy,
        )
        still = self._problem()
        if still is not None:
            raise DataError(f"{still}, even after the download; remove {self._root} and start again")

    @property
    def _remedy(self) -> Problem:
        from torchvision.datasets import STL10

        return Problem(
            f"Unpack {STL10.filename} ({STL10.url}) in {self._root}, so that it holds the folder {STL10.base_folder}, "
            "or set ",
            Key("root"),
            "=FOLDER to the folder that holds it",
        )

    def _read_images(self, names: tuple[str, ...]) -> Tensor:
        """[n, 3, image_size, image_size] uint8; the files hold each channel column by column.

        The files are mapped rather than read, so that memory holds the images once.
        """
        counts = [(self._folder / name).stat().st_size // IMAGE_BYTES for name in names]
        images = torch.empty(sum(counts), 3, self.image_size, self.image_size, dtype=torch.uint8)
        rest = images
        for name, count in zip(names, counts, strict=True):
            mapped = torch.from_file(str(self._folder / name), size=count * IMAGE_BYTES, dtype=torch.uint8)
            pixels = mapped.view(count, 3, NATIVE_SIZE, NATIVE_SIZE).transpose(2, 3)  # [n, C, W, H] -> [n, C, H, W]
            for part in pixels.split(READ_IMAGES):
                rest[: len(part)] = resize_images(part, self.image_size)
                rest = rest[len(part) :]
        return images

    def _read_labels(self, name: str) -> Tensor:
        """[n] int64 from 0; the files count classes from 1."""
        return torch.frombuffer(bytearray((self._folder / name).read_bytes()), dtype=torch.uint8).to(torch.int64) - 1
