from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torchvision

from jepa_lab.data.datasets.fashion_mnist import CLASS_NAMES, FashionMnist
from jepa_lab.errors import DataError
from tests.unit.data.files import idx_bytes, write_fashion

PARAMS = FashionMnist.Params()
OFFLINE = FashionMnist.Params(download=False)


@pytest.mark.parametrize("place", ["", "FashionMNIST/raw"])
@pytest.mark.parametrize("compressed", [True, False])
def test_files_in_the_root_or_in_torchvisions_folder_are_read(tmp_path: Path, place: str, compressed: bool) -> None:
    write_fashion(tmp_path / place, compressed=compressed)
    data_set = FashionMnist(OFFLINE, tmp_path, 28)
    data = data_set.load()
    assert data.test is not None
    assert data.train.labels is not None
    assert data.train.images.shape == (20, 1, 28, 28)
    assert data.test.images.shape == (10, 1, 28, 28)
    assert data.train.labels.tolist() == list(range(10)) * 2
    assert data.source == str(tmp_path / place)
    assert data_set.num_train_images() == 20


def test_pixels_and_labels_are_those_that_torchvision_reads(tmp_path: Path) -> None:
    write_fashion(tmp_path / "FashionMNIST/raw", compressed=False)
    theirs = torchvision.datasets.FashionMNIST(tmp_path, train=True)
    ours = FashionMnist(OFFLINE, tmp_path, 28).load()
    assert ours.train.labels is not None
    assert np.array_equal(ours.train.images[:, 0], theirs.data)
    assert ours.train.labels.tolist() == theirs.targets.tolist()
    assert list(CLASS_NAMES) == torchvision.datasets.FashionMNIST.classes


def test_images_are_resized(tmp_path: Path) -> None:
    write_fashion(tmp_path)
    assert FashionMnist(OFFLINE, tmp_path, 32).load().train.images.shape == (20, 1, 32, 32)


def test_debians_folder_is_used_where_no_root_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("jepa_lab.data.datasets.fashion_mnist.DEBIAN_FOLDER", tmp_path / "debian")
    write_fashion(tmp_path / "debian")
    assert FashionMnist(OFFLINE, None, 28).load().source == str(tmp_path / "debian")
    write_fashion(tmp_path / "data/fashion_mnist")
    assert FashionMnist(OFFLINE, None, 28).load().source == "data/fashion_mnist"


def test_a_given_root_without_files_is_never_replaced_by_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jepa_lab.data.datasets.fashion_mnist.DEBIAN_FOLDER", tmp_path / "debian")
    write_fashion(tmp_path / "debian")
    with pytest.raises(DataError, match=r"is not in .*mine or .*mine/FashionMNIST/raw, and downloading"):
        FashionMnist(OFFLINE, tmp_path / "mine", 28).load()


def test_a_failed_download_says_which_files_to_put_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", no_network)
    with pytest.raises(DataError) as caught:
        FashionMnist(PARAMS, tmp_path / "mine", 28).load()
    message = str(caught.value)
    for words in (
        "train-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte",
        str(tmp_path / "mine"),
        "data.root=FOLDER",
        "dataset-fashion-mnist",
        "pipelines/digits.yaml needs no files",
        "Name or service not known",
    ):
        assert words in message
    assert "\n" not in message


def test_a_download_is_read_from_torchvisions_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(self: torchvision.datasets.FashionMNIST) -> None:
        write_fashion(Path(self.raw_folder), compressed=False)

    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "download", download)
    data_set = FashionMnist(PARAMS, tmp_path, 28)
    assert data_set.num_train_images() == 60_000
    assert len(data_set.load().train) == 20


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("train-images-idx3-ubyte", idx_bytes(np.zeros((20, 28, 28)))[:-5], "must hold 15680 bytes"),
        ("train-images-idx3-ubyte", idx_bytes(np.zeros((20, 32, 32))), "must hold images of 28x28"),
        (
            "train-labels-idx1-ubyte",
            idx_bytes(np.zeros(19)),
            "one label from 0 to 9 for each of the 20 images",
        ),
        (
            "t10k-labels-idx1-ubyte",
            idx_bytes(np.arange(1, 11)),
            "one label from 0 to 9 for each of the 10 images",
        ),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    write_fashion(tmp_path, compressed=False)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        FashionMnist(OFFLINE, tmp_path, 28).load()
    assert str(tmp_path / name) in str(caught.value)
    assert words in str(caught.value)
