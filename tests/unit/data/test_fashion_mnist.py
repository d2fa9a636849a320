import hashlib
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torchvision

from jepa_lab.data.datasets.fashion_mnist import CLASS_NAMES, DEBIAN_FOLDER, FashionMnist
from jepa_lab.errors import DataError
from tests.unit.data.files import idx_bytes, write_fashion
from tests.unit.data.loopback import Served

PARAMS = FashionMnist.Params()
OFFLINE = FashionMnist.Params(download=False)
DIGESTS = "jepa_lab.data.datasets.fashion_mnist.CONTENT_MD5"


@pytest.fixture
def small_digests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The digests of small files are taken for the published ones."""
    monkeypatch.setattr(DIGESTS, write_fashion(tmp_path / "only for digests"))


@pytest.mark.usefixtures("small_digests")
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


@pytest.mark.usefixtures("small_digests")
def test_pixels_and_labels_are_those_that_torchvision_reads(tmp_path: Path) -> None:
    write_fashion(tmp_path / "FashionMNIST/raw", compressed=False)
    theirs = torchvision.datasets.FashionMNIST(tmp_path, train=True)
    ours = FashionMnist(OFFLINE, tmp_path, 28).load()
    assert ours.train.labels is not None
    assert np.array_equal(ours.train.images[:, 0], theirs.data)
    assert ours.train.labels.tolist() == theirs.targets.tolist()
    assert list(CLASS_NAMES) == torchvision.datasets.FashionMNIST.classes


@pytest.mark.usefixtures("small_digests")
def test_images_are_resized(tmp_path: Path) -> None:
    write_fashion(tmp_path)
    assert FashionMnist(OFFLINE, tmp_path, 32).load().train.images.shape == (20, 1, 32, 32)


@pytest.mark.usefixtures("small_digests")
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

    monkeypatch.setattr("torchvision.datasets.utils.download_url", no_network)
    with pytest.raises(DataError) as caught:
        FashionMnist(PARAMS, tmp_path / "mine", 28).load()
    message = str(caught.value)
    for words in (
        "train-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte",
        str(tmp_path / "mine"),
        "root=FOLDER",
        "dataset-fashion-mnist",
        "pipelines/digits.yaml needs no files",
        "Name or service not known",
    ):
        assert words in message
    assert "\n" not in message


def publish(server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small files on the server, with digests that torchvision and we take for the published ones."""
    monkeypatch.setattr(DIGESTS, write_fashion(tmp_path / "elsewhere"))
    server.files = {path.name: path.read_bytes() for path in (tmp_path / "elsewhere").iterdir()}
    resources = [(name, hashlib.md5(content).hexdigest()) for name, content in sorted(server.files.items())]
    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "resources", resources)
    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "mirrors", [server.url])


def test_a_download_is_read_from_torchvisions_folder(
    server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(server, tmp_path, monkeypatch)
    data_set = FashionMnist(PARAMS, tmp_path / "new", 28)
    assert data_set.num_train_images() == 60_000
    assert len(data_set.load().train) == 20
    assert data_set.num_train_images() == 20
    found = sorted(path.name for path in (tmp_path / "new" / "FashionMNIST" / "raw").iterdir())
    assert found == sorted(server.files)
    theirs = torchvision.datasets.FashionMNIST(tmp_path / "new", download=True)  # reads what we have downloaded
    assert len(theirs) == 20


@pytest.mark.parametrize("name", ["t10k-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"])
@pytest.mark.parametrize("damage", ["cut", "corrupted", "gone"])
def test_a_damaged_download_never_passes_for_complete(
    server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, damage: str
) -> None:
    publish(server, tmp_path, monkeypatch)
    whole = dict(server.files)
    server.cut = {name} if damage == "cut" else set()
    if damage == "corrupted":
        server.files[name] = whole[name][:-1] + bytes([whole[name][-1] ^ 1])
    if damage == "gone":
        del server.files[name]
    with pytest.raises(DataError, match=r"is not in .*, and the download failed \(.*Put the four files"):
        FashionMnist(PARAMS, tmp_path / "new", 28).load()
    with pytest.raises(DataError, match=r"is not in .*, and downloading is turned off"):
        FashionMnist(OFFLINE, tmp_path / "new", 28).load()
    server.files, server.cut = whole, set()
    assert len(FashionMnist(PARAMS, tmp_path / "new", 28).load().train) == 20


@pytest.mark.parametrize("compressed", [True, False])
def test_a_file_with_another_content_is_named_however_it_is_compressed(tmp_path: Path, compressed: bool) -> None:
    write_fashion(tmp_path, compressed=compressed)
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte(.gz)? is damaged: .*another MD5 digest.*replace it"):
        FashionMnist(OFFLINE, tmp_path, 28).load()


@pytest.mark.skipif(not DEBIAN_FOLDER.is_dir(), reason="needs Debian's package dataset-fashion-mnist")
def test_debians_files_have_the_published_content() -> None:
    data = FashionMnist(OFFLINE, DEBIAN_FOLDER, 28).load()
    assert data.train.images.shape == (60_000, 1, 28, 28)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("train-images-idx3-ubyte", idx_bytes(np.zeros((20, 28, 28)))[:-5], "must hold 15680 bytes"),
        ("train-images-idx3-ubyte", idx_bytes(np.zeros((20, 32, 32))), "must hold images of 28x28"),
        ("train-images-idx3-ubyte", idx_bytes(np.zeros((0, 28, 28))), "must hold images of 28x28"),
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
def test_a_wrong_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes, words: str
) -> None:
    digests = write_fashion(tmp_path, compressed=False)
    monkeypatch.setattr(DIGESTS, {**digests, name: hashlib.md5(content).hexdigest()})
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        FashionMnist(OFFLINE, tmp_path, 28).load()
    assert str(tmp_path / name) in str(caught.value)
    assert words in str(caught.value)
