import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torchvision

from jepa_lab.data.datasets.stl10 import CLASS_NAMES, Stl10
from jepa_lab.errors import DataError
from tests.unit.data.files import publish_stl10
from tests.unit.data.loopback import Served

UNLABELED, LABELED, BOTH = (
    Stl10.Params(pretrain_on=part, download=False) for part in ("unlabeled", "train", "train_and_unlabeled")
)


def publish_archive(server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small files on the server, packed, with digests that torchvision takes for the published ones."""
    import hashlib

    publish_stl10(tmp_path / "elsewhere", monkeypatch)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        archive.add(tmp_path / "elsewhere" / "stl10_binary", "stl10_binary")
    server.files["stl10.tar.gz"] = packed.getvalue()
    monkeypatch.setattr(torchvision.datasets.STL10, "url", f"{server.url}stl10.tar.gz")
    monkeypatch.setattr(torchvision.datasets.STL10, "tgz_md5", hashlib.md5(packed.getvalue()).hexdigest())


@pytest.mark.parametrize(("params", "split"), [(UNLABELED, "unlabeled"), (LABELED, "train"), (BOTH, "train+unlabeled")])
def test_images_and_labels_are_those_that_torchvision_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, params: Stl10.Params, split: str
) -> None:
    publish_stl10(tmp_path, monkeypatch)
    theirs = torchvision.datasets.STL10(tmp_path, split=split)
    ours = Stl10(params, tmp_path, 96).load()
    assert np.array_equal(ours.train.images, theirs.data)
    if split != "train":
        assert (ours.train.labels, ours.test, ours.class_names) == (None, None, ())
        return
    assert ours.train.labels is not None
    assert ours.train.labels.tolist() == theirs.labels.tolist()
    test = torchvision.datasets.STL10(tmp_path, split="test")
    assert ours.test is not None
    assert ours.test.labels is not None
    assert np.array_equal(ours.test.images, test.data)
    assert ours.test.labels.tolist() == test.labels.tolist()
    assert ours.class_names == CLASS_NAMES


def test_images_are_resized_piece_by_piece_to_the_same_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish_stl10(tmp_path, monkeypatch)
    whole = Stl10(BOTH, tmp_path, 32).load().train.images
    monkeypatch.setattr("jepa_lab.data.datasets.stl10.READ_IMAGES", 7)
    assert np.array_equal(Stl10(BOTH, tmp_path, 32).load().train.images, whole)
    assert whole.shape == (32, 3, 32, 32)


def test_the_number_of_images_is_known_without_the_files(tmp_path: Path) -> None:
    counts = {"unlabeled": 100_000, "train": 5_000, "train_and_unlabeled": 105_000}
    for part, count in counts.items():
        assert Stl10(Stl10.Params(pretrain_on=part), tmp_path, 96).num_train_images() == count
    with pytest.raises(DataError, match=r"unlabeled_X.bin is missing, and downloading is turned off"):
        Stl10(UNLABELED, tmp_path, 96).num_train_images()


def test_only_the_files_that_are_used_are_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish_stl10(tmp_path, monkeypatch)
    (tmp_path / "stl10_binary" / "unlabeled_X.bin").unlink()
    assert len(Stl10(LABELED, tmp_path, 8).load().train) == 20
    with pytest.raises(DataError, match=r"not complete: .*unlabeled_X.bin is missing"):
        Stl10(BOTH, tmp_path, 8).load()


def test_a_file_with_another_digest_is_named_and_never_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish_stl10(tmp_path, monkeypatch)
    path = tmp_path / "stl10_binary" / "train_y.bin"
    path.write_bytes(bytes([1]) + path.read_bytes()[1:][::-1])
    with pytest.raises(DataError, match=r"damaged: .*train_y.bin has another MD5 digest.*stl10_binary.tar.gz"):
        Stl10(LABELED, tmp_path, 8).load()


def test_a_download_is_unpacked_and_read(server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish_archive(server, tmp_path, monkeypatch)
    assert len(Stl10(Stl10.Params(), tmp_path / "new", 8).load().train) == 12


@pytest.mark.parametrize("damage", ["cut", "corrupted", "gone"])
def test_a_damaged_download_is_an_error_and_the_next_one_starts_again(
    server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    publish_archive(server, tmp_path, monkeypatch)
    whole = server.files["stl10.tar.gz"]
    server.cut = {"stl10.tar.gz"} if damage == "cut" else set()
    server.files = (
        {} if damage == "gone" else {"stl10.tar.gz": whole[:-9] + b"corrupted" if damage[1] == "o" else whole}
    )
    with pytest.raises(DataError, match=r"unlabeled_X.bin is missing, and the download failed \(.*Unpack stl10_binary"):
        Stl10(Stl10.Params(), tmp_path / "new", 8).load()
    server.files, server.cut = {"stl10.tar.gz": whole}, set()
    assert len(Stl10(Stl10.Params(), tmp_path / "new", 8).load().train) == 12


def test_an_interrupted_unpacking_does_not_pass_for_complete(
    server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_archive(server, tmp_path, monkeypatch)
    Stl10(Stl10.Params(), tmp_path / "new", 8).load()
    path = tmp_path / "new" / "stl10_binary" / "unlabeled_X.bin"
    path.write_bytes(path.read_bytes()[: 5 * 3 * 96 * 96])
    with pytest.raises(DataError, match=r"unlabeled_X.bin has another MD5 digest"):
        Stl10(UNLABELED, tmp_path / "new", 8).load()
    server.files = {}  # the archive is still there
    assert len(Stl10(Stl10.Params(), tmp_path / "new", 8).load().train) == 12
