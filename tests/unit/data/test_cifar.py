from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision

from jepa_lab.data.cifar import Cifar, CifarParams
from jepa_lab.data.datasets.cifar10 import Cifar10
from jepa_lab.data.datasets.cifar100 import Cifar100
from jepa_lab.errors import DataError
from tests.unit.data.files import names, write_cifar_batches, write_image, write_tree

OFFLINE = CifarParams(download=False)


class Layout:
    """One of the two published layouts, in tiny batches that torchvision takes for the published ones."""

    def __init__(self, data_set: type[Cifar], published: Any, num_classes: int) -> None:
        self.data_set = data_set
        self.published = published
        self.class_names = names(num_classes)

    def write(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        meta = f"{self.published.meta['filename']}:{self.published.meta['key']}"
        md5 = write_cifar_batches(root, self.published.base_folder, self.data_set.label_key, self.class_names, meta)
        for attribute in ("train_list", "test_list"):
            files = [[name, md5[name]] for name, _ in getattr(self.published, attribute)]
            monkeypatch.setattr(self.published, attribute, files)
        digest = md5[self.published.meta["filename"]]
        monkeypatch.setattr(self.published, "meta", {**self.published.meta, "md5": digest})


LAYOUTS = {
    "cifar10": Layout(Cifar10, torchvision.datasets.CIFAR10, 10),
    "cifar100": Layout(Cifar100, torchvision.datasets.CIFAR100, 100),
}


@pytest.fixture(params=sorted(LAYOUTS))
def layout(request: pytest.FixtureRequest) -> Layout:
    return LAYOUTS[request.param]


def no_network(*_: object, **__: object) -> None:
    raise URLError("Name or service not known")


def test_python_batches_are_read_as_torchvision_reads_them(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout.write(tmp_path, monkeypatch)
    data = layout.data_set(OFFLINE, tmp_path, 32).load()
    assert data.class_names == tuple(layout.class_names)
    assert data.test is not None
    for split, is_train in ((data.train, True), (data.test, False)):
        theirs = layout.published(tmp_path, train=is_train)
        assert split.labels is not None
        assert np.array_equal(split.images.permute(0, 2, 3, 1).numpy(), theirs.data)
        assert split.labels.tolist() == theirs.targets


def test_batches_are_resized_to_the_image_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    LAYOUTS["cifar10"].write(tmp_path, monkeypatch)
    data = Cifar10(OFFLINE, tmp_path, 48).load()
    assert data.train.images.shape == (20, 3, 48, 48)


def test_the_number_of_images_is_known_without_the_files(layout: Layout, tmp_path: Path) -> None:
    assert layout.data_set(CifarParams(), tmp_path, 32).num_train_images() == 50_000
    with pytest.raises(DataError, match=r"is missing, and downloading is turned off"):
        layout.data_set(OFFLINE, tmp_path, 32).num_train_images()


def test_a_tree_of_images_is_accepted_as_root(tmp_path: Path) -> None:
    write_tree(tmp_path, {"train": 3, "test": 1}, names(10))
    pixels = np.random.RandomState(5).randint(0, 256, (32, 32, 3))
    write_image(tmp_path / "train" / "class_004" / "0.png", pixels)
    data_set = Cifar10(CifarParams(), tmp_path, 32)
    data = data_set.load()
    assert data_set.num_train_images() == len(data.train) == 30
    assert data.train.labels is not None
    assert data.class_names == tuple(names(10))
    assert data.train.labels.tolist() == [label for label in range(10) for _ in range(3)]
    assert np.array_equal(data.train.images[12].permute(1, 2, 0).numpy(), pixels)
    assert data_set.load().digest == data.digest


@pytest.mark.parametrize(
    ("splits", "classes", "words"),
    [
        ({"train": 1, "test": 1}, 9, "train has 9 and test is there with 9"),
        ({"train": 1}, 10, "train has 10 and test is missing"),
    ],
)
def test_a_tree_that_is_not_cifar_is_refused(tmp_path: Path, splits: dict[str, int], classes: int, words: str) -> None:
    write_tree(tmp_path, splits, names(classes))
    with pytest.raises(DataError, match=rf"10 class folders in both .*{words}.*image_folder"):
        Cifar10(CifarParams(), tmp_path, 32).num_train_images()


@pytest.mark.parametrize("error", [URLError("no route"), OSError("timed out"), RuntimeError("File corrupted")])
def test_a_failed_download_says_which_files_to_put_where(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("torchvision.datasets.utils.download_and_extract_archive", fail)
    with pytest.raises(DataError) as caught:
        layout.data_set(CifarParams(), tmp_path, 32).load()
    message = str(caught.value)
    for words in (
        layout.published.filename,
        layout.published.url,
        str(tmp_path),
        "root=FOLDER",
        "train/<class>/",
        "pipelines/digits.yaml needs no files",
        str(error),
    ):
        assert words in message


def test_without_a_root_the_files_belong_into_the_working_directory(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torchvision.datasets.utils.download_and_extract_archive", no_network)
    place = {"CIFAR-10": "data/cifar10", "CIFAR-100": "data/cifar100"}[layout.data_set.title]
    with pytest.raises(DataError, match=rf"in {place}, so that it holds the folder"):
        layout.data_set(CifarParams(), None, 32).load()


def test_a_download_is_asked_for_by_published_address_and_digest_and_then_read(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def download(url: str, root: Path, filename: str, md5: str) -> None:
        calls.append((url, filename, md5))
        layout.write(root, monkeypatch)

    monkeypatch.setattr("torchvision.datasets.utils.download_and_extract_archive", download)
    assert len(layout.data_set(CifarParams(), tmp_path / "new", 32).load().train) > 0
    assert calls == [(layout.published.url, layout.published.filename, layout.published.tgz_md5)]


def test_a_damaged_batch_is_named_and_never_read(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout.write(tmp_path, monkeypatch)
    name = layout.published.test_list[0][0]
    path = tmp_path / layout.published.base_folder / name
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=rf"damaged: .*{name} has another MD5 digest"):
        layout.data_set(OFFLINE, tmp_path, 32).load()


def test_labels_are_int64_and_pixels_uint8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    LAYOUTS["cifar10"].write(tmp_path, monkeypatch)
    split = Cifar10(OFFLINE, tmp_path, 32).load().train
    assert split.labels is not None
    assert split.labels.dtype == torch.int64
    assert split.images.dtype == torch.uint8
