"""Fashion-MNIST: 70,000 grey pictures of clothes in 10 classes, 28 x 28 pixels."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import torch
from pydantic import Field

from jepa_lab.data.base import DATASETS, ImageData, ImageDataset, ImageSplit
from jepa_lab.data.download import download_or_explain, missing_files
from jepa_lab.data.idx import REMEDY, read_idx, read_idx_shape
from jepa_lab.data.pixels import data_digest, resize_images
from jepa_lab.errors import DataError, Key, Problem
from jepa_lab.registry import ComponentParams

DEFAULT_ROOT = Path("data/fashion_mnist")
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")  # package dataset-fashion-mnist
NUM_IMAGES = {"train": 60_000, "test": 10_000}
NATIVE_SIZE = 28
FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
# MD5 digests of the unpacked files. Published are those of the compressed ones, as the project's page offers them;
# these were taken from files whose compressed form has the published digest. Debian's are compressed anew.
CONTENT_MD5 = {
    "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
    "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
    "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
}
CLASS_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


@DATASETS.register(
    "fashion_mnist",
    summary="Fashion-MNIST, 10 classes, 28x28 grey: IDX files, Debian's package, or downloaded",
    source="Xiao, Rasul & Vollgraf 2017, arXiv:1708.07747",
)
class FashionMnist(ImageDataset):
    """60,000 training and 10,000 test images from four IDX files, gzip-compressed or not.

    They are looked for in `root` and in `root/FashionMNIST/raw` (torchvision's layout); where no `root` is
    given, in the same places under `data/fashion_mnist` and then in the folder of Debian's package
    dataset-fashion-mnist. If they are nowhere, they are downloaded into torchvision's folder.

    The digest of the unpacked content is checked wherever a file comes from, and however it is compressed.
    Differs: torchvision takes any file of the right name.
    """

    class Params(ComponentParams):
        download: bool = Field(
            True, strict=True, description="Download the files into the root folder if they are missing."
        )

    params: Params
    num_channels = 1

    def num_train_images(self) -> int:
        return self._num_images("train")

    def num_test_images(self) -> int:
        return self._num_images("test")

    def _num_images(self, part: str) -> int:
        folder = self._find_folder()
        if folder is not None:
            return read_idx_shape(_idx_file(folder, FILES[part][0]))[0]
        if not self.params.download:
            raise missing_files(self._problem, self._remedy)
        return NUM_IMAGES[part]

    def load(self) -> ImageData:
        folder = self._find_folder()
        if folder is None:
            folder = self._download()
        train, test = (self._read_split(folder, part) for part in ("train", "test"))
        return ImageData(train, test, CLASS_NAMES, data_digest(train, test), str(folder))

    @property
    def _root(self) -> Path:
        return DEFAULT_ROOT if self.root is None else self.root

    @cached_property
    def _places(self) -> tuple[Path, ...]:
        places = (self._root, self._root / "FashionMNIST" / "raw")
        return (*places, DEBIAN_FOLDER) if self.root is None else places

    def _find_folder(self) -> Path | None:
        """The first place that has all four files."""
        for place in self._places:
            if all(_idx_file(place, name).is_file() for names in FILES.values() for name in names):
                return place
        return None

    def _download(self) -> Path:
        if not self.params.download:
            raise missing_files(self._problem, self._remedy)
        folder = self._root / "FashionMNIST" / "raw"
        download_or_explain(lambda: _fetch(folder), self._problem, self._remedy)
        return folder

    @property
    def _problem(self) -> str:
        return f"Fashion-MNIST is not in {' or '.join(str(place) for place in self._places)}"

    @property
    def _remedy(self) -> Problem:
        names = ", ".join(name for names in FILES.values() for name in names)
        return Problem(
            f"Put the four files {names} (with or without .gz) in {self._root}, or set ",
            Key("root"),
            "=FOLDER to the folder that has them, or leave it out and install Debian's package dataset-fashion-mnist",
        )

    def _read_split(self, folder: Path, part: str) -> ImageSplit:
        image_path, label_path = (_idx_file(folder, name) for name in FILES[part])
        images, labels = (
            read_idx(path, CONTENT_MD5[name]) for path, name in zip((image_path, label_path), FILES[part], strict=True)
        )
        if images.ndim != 3 or images.shape[1:] != (NATIVE_SIZE, NATIVE_SIZE) or not len(images):
            raise DataError(
                f"{image_path} must hold images of {NATIVE_SIZE}x{NATIVE_SIZE}, got shape "
                f"{tuple(images.shape)}; {REMEDY}"
            )
        if labels.shape != images.shape[:1] or labels.max() >= len(CLASS_NAMES):
            raise DataError(
                f"{label_path} must hold one label from 0 to 9 for each of the {len(images)} images in "
                f"{image_path.name}; {REMEDY}"
            )
        return ImageSplit(resize_images(images.unsqueeze(1), self.image_size), labels.to(torch.int64))


def _idx_file(folder: Path, name: str) -> Path:
    """The file, plain where there is one, else compressed."""
    plain = folder / name
    return plain if plain.is_file() else folder / f"{name}.gz"


def _fetch(folder: Path) -> None:
    """Download the four compressed files; they stay compressed. A file has its name only once it is complete."""
    from torchvision.datasets import FashionMNIST
    from torchvision.datasets.utils import download_url

    for name, md5 in FashionMNIST.resources:
        download_url(f"{FashionMNIST.mirrors[0]}{name}", str(folder), f"{name}.partial", md5)
        (folder / f"{name}.partial").rename(folder / name)
