import csv
import hashlib
import sys
import types
import urllib.request
import zipfile
from pathlib import Path
from typing import get_args

import pytest
import torch
from torchvision.datasets import CelebA as Published

from jepa_lab.data.datasets.celeba import Attribute, CelebA
from jepa_lab.data.images import to_tensor
from jepa_lab.errors import DataError, RunStopped
from tests.unit.data.files import CELEBA_PARTS, publish_celeba
from tests.unit.data.loopback import Served

OFFLINE = CelebA.Params(download=False)


class TooManyRequests(Exception):
    """As gdown.exceptions.FileURLRetrievalError: no OSError, no RuntimeError."""


def install_gdown(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that downloads from the server by number, as gdown does from Google Drive."""

    def download(*, id: str, output: str, **_: object) -> None:
        if id not in server.files:
            raise TooManyRequests("Too many users have viewed or downloaded this file recently")
        with urllib.request.urlopen(server.url + id) as response:
            Path(output).write_bytes(response.read())

    module, exceptions = types.ModuleType("gdown"), types.ModuleType("gdown.exceptions")
    module.download, module.exceptions = download, exceptions  # type: ignore[attr-defined]
    exceptions.FileURLRetrievalError = TooManyRequests  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gdown", module)
    monkeypatch.setitem(sys.modules, "gdown.exceptions", exceptions)


def publish_archive(server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Small files on the server, with digests that torchvision takes for the published ones; returns a new root."""
    publish_celeba(tmp_path / "elsewhere", monkeypatch)
    folder = tmp_path / "elsewhere" / "celeba"
    with zipfile.ZipFile(folder / "img_align_celeba.zip", "w") as archive:
        for path in sorted((folder / "img_align_celeba").iterdir()):
            archive.write(path, f"img_align_celeba/{path.name}")
    files = []
    for number, _, name in Published.file_list:
        server.files[number] = (folder / name).read_bytes()
        files.append((number, hashlib.md5(server.files[number]).hexdigest(), name))
    monkeypatch.setattr(Published, "file_list", files)
    install_gdown(server, monkeypatch)
    return tmp_path / "new"


@pytest.mark.parametrize("attribute", ["Smiling", "Bald"])
def test_splits_and_labels_are_those_of_the_lists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attribute: str
) -> None:
    publish_celeba(tmp_path, monkeypatch)
    with (tmp_path / "celeba" / "list_attr_celeba.txt").open() as file:
        _, header, *rows = csv.reader(file, delimiter=" ", skipinitialspace=True)
    expected = [int(row[1 + header.index(attribute)]) == 1 for row in rows]
    data_set = CelebA(CelebA.Params(attribute=attribute, download=False), tmp_path, 12)
    files, data = data_set.image_files(), data_set.load()
    assert data.class_names == (f"not {attribute}", attribute)
    assert files.test is not None
    for part, split, number in ((files.train, data.train, 0), (files.test, data.test, 2)):
        assert split is not None
        assert split.labels is not None
        chosen = [place for place, its_part in enumerate(CELEBA_PARTS) if its_part == number]
        assert [path.name for path in part.files] == [f"{place + 1:06d}.jpg" for place in chosen]
        assert split.labels.tolist() == [int(expected[place]) for place in chosen]
    assert data_set.num_train_images() == 4


def test_the_attributes_are_the_forty_of_the_paper() -> None:
    assert len(set(get_args(Attribute))) == 40
    assert list(get_args(Attribute)) == sorted(get_args(Attribute))


def test_a_list_with_another_digest_is_named_and_never_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish_celeba(tmp_path, monkeypatch)
    path = tmp_path / "celeba" / "list_attr_celeba.txt"
    path.write_text(path.read_text().replace("-1", " 1"))
    with pytest.raises(
        DataError, match=r"damaged: .*list_attr_celeba.txt has another MD5 digest.*img_align_celeba.zip"
    ):
        CelebA(OFFLINE, tmp_path, 8).load()


def test_a_missing_image_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish_celeba(tmp_path, monkeypatch)
    (tmp_path / "celeba" / "img_align_celeba" / "000003.jpg").unlink()
    with pytest.raises(DataError, match=r"lacks 1 of the 7 images of CelebA \(such as 000003.jpg\); remove the folder"):
        CelebA(OFFLINE, tmp_path, 8).load()


def test_the_number_of_images_is_known_without_the_files(tmp_path: Path) -> None:
    assert CelebA(CelebA.Params(), tmp_path, 8).num_train_images() == 162_770
    with pytest.raises(DataError, match=r"img_align_celeba.zip is missing, and downloading is turned off"):
        CelebA(OFFLINE, tmp_path, 8).num_train_images()


def test_without_gdown_the_message_says_what_to_get_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gdown", None)
    with pytest.raises(DataError) as caught:
        CelebA(CelebA.Params(), tmp_path, 8).load()
    for words in ("'gdown' is required", "img_align_celeba.zip", "list_eval_partition.txt", "mmlab.ie.cuhk.edu.hk"):
        assert words in str(caught.value)
    assert str(tmp_path / "celeba") in str(caught.value)


def test_a_download_is_unpacked_and_read(server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = publish_archive(server, tmp_path, monkeypatch)
    data = CelebA(CelebA.Params(), root, 12).load()
    expected = CelebA(OFFLINE, tmp_path / "elsewhere", 12).load()
    assert torch.equal(to_tensor(data.train.images), to_tensor(expected.train.images))
    assert sorted(path.name for path in (root / "celeba").iterdir()) == [
        "img_align_celeba",
        "img_align_celeba.zip",
        "list_attr_celeba.txt",
        "list_eval_partition.txt",
    ]


def test_a_refusal_of_google_drive_is_passed_on(
    server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = publish_archive(server, tmp_path, monkeypatch)
    server.files.clear()
    with pytest.raises(DataError, match=r"download failed \(Too many users .*Get img_align_celeba.zip"):
        CelebA(CelebA.Params(), root, 12).load()


def test_a_corrupted_archive_is_never_unpacked(server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = publish_archive(server, tmp_path, monkeypatch)
    (archive,) = (number for number, _, name in Published.file_list if name == "img_align_celeba.zip")
    whole = server.files[archive]
    server.files[archive] = whole[:100] + b"corrupt" + whole[107:]
    with pytest.raises(DataError, match=r"download failed \(File not found or corrupted"):
        CelebA(CelebA.Params(), root, 12).load()
    assert not (root / "celeba" / "img_align_celeba").exists()
    server.files[archive] = whole
    assert len(CelebA(CelebA.Params(), root, 12).load().train) == 4


def test_an_interrupted_unpacking_starts_again(server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = publish_archive(server, tmp_path, monkeypatch)

    def full_disk(archive: str, folder: str) -> None:
        (Path(folder) / "img_align_celeba").mkdir()
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as context:
        context.setattr("torchvision.datasets.utils.extract_archive", full_disk)
        with pytest.raises(RunStopped, match=r"unpacking into .*img_align_celeba ended early \(No space left"):
            CelebA(CelebA.Params(), root, 12).load()
    assert not (root / "celeba" / "img_align_celeba").exists()
    assert len(CelebA(OFFLINE, root, 12).load().train) == 4
