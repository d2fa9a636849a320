import hashlib
import io
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import torch
from torchvision.datasets import imagenet as published

from jepa_lab.data.datasets.imagenet import ImageNet
from jepa_lab.errors import DataError
from jepa_lab.registry import ComponentParams
from tests.unit.data.files import publish_imagenet, write_image

WNIDS = ["n01440764", "n01443537", "n01484850"]
# Class of each validation image, as the development kit numbers classes; its numbers are not in the order of names.
GROUND_TRUTH = [2, 1, 3]
NUMBERS = {1: WNIDS[2], 2: WNIDS[0], 3: WNIDS[1]}


def load(root: Path, size: int = 8) -> Any:
    return ImageNet(ComponentParams(), root, size).load()


def image_bytes(tmp_path: Path, seed: int) -> bytes:
    write_image(tmp_path / "one.png", seed=seed)
    return (tmp_path / "one.png").read_bytes()


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def tar(members: dict[str, bytes], mode: Any = "w") -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=mode) as archive:
        for name, content in members.items():
            add(archive, name, content)
    return packed.getvalue()


def devkit() -> bytes:
    """Classes with their numbers, and one group of classes that is none itself."""
    rows = [(number, wnid, f"fish {wnid}, swimmer", "gloss", 0) for number, wnid in NUMBERS.items()]
    rows.append((4, "n00000000", "group", "gloss", 3))
    kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("gloss", "O"), ("num_children", "O")]
    table = io.BytesIO()
    scipy.io.savemat(table, {"synsets": np.array(rows, dtype=kinds)})
    return tar(
        {
            "ILSVRC2012_devkit_t12/data/meta.mat": table.getvalue(),
            "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt": "".join(
                f"{number}\n" for number in GROUND_TRUTH
            ).encode(),
        },
        "w:gz",
    )


@pytest.fixture
def archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the three archives of a tiny ImageNet, whose digests torchvision takes for the published ones."""
    train = {
        f"{wnid}.tar": tar({f"{wnid}_{n}.JPEG": image_bytes(tmp_path, 2 * label + n) for n in range(2)})
        for label, wnid in enumerate(WNIDS)
    }
    val = {f"ILSVRC2012_val_{n:08d}.JPEG": image_bytes(tmp_path, 10 + n) for n in range(3)}
    contents = {"train": tar(train), "val": tar(val), "devkit": devkit()}
    meta = {}
    root = tmp_path / "archives"
    root.mkdir()
    for part, content in contents.items():
        name = published.ARCHIVE_META[part][0]
        (root / name).write_bytes(content)
        meta[part] = (name, hashlib.md5(content).hexdigest())
    monkeypatch.setattr(published, "ARCHIVE_META", meta)
    monkeypatch.setattr("jepa_lab.data.datasets.imagenet.NUM_CLASSES", 3)
    monkeypatch.setattr("jepa_lab.data.datasets.imagenet.NUM_IMAGES", {"train": 6, "val": 3})
    return root


def test_archives_are_unpacked_into_torchvisions_layout(archives: Path) -> None:
    data = load(archives)
    assert data.class_names == tuple(WNIDS)
    assert data.train.labels.tolist() == [0, 0, 1, 1, 2, 2]
    for part, split in (("train", data.train), ("val", data.test)):
        theirs = published.ImageNet(str(archives), split=part)
        assert split.labels.tolist() == theirs.targets
    assert data.test.labels.tolist() == [0, 1, 2]
    # The file's number says its class: GROUND_TRUTH, then NUMBERS.
    assert [path.name[-6] for path in ImageNet(ComponentParams(), archives, 8).image_files().test.files] == list("021")


def test_folders_without_archives_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish_imagenet(tmp_path, monkeypatch)
    write_image(tmp_path / "test" / "ILSVRC2012_test_00000001.JPEG")  # without labels, and left alone
    data_set = ImageNet(ComponentParams(), tmp_path, 8)
    data = data_set.load()
    assert data_set.num_train_images() == len(data.train) == 6
    assert data.test is not None
    assert len(data.test) == 3


def test_nothing_in_a_cache_of_torchvision_is_executed(archives: Path) -> None:
    class Attack:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return exec, ("raise SystemExit('executed')",)

    (archives / "meta.bin").write_bytes(pickle.dumps(Attack()))
    assert len(load(archives).train) == 6
    assert torch.load(archives / "meta.bin", weights_only=True)[1] == [NUMBERS[number] for number in GROUND_TRUTH]


@pytest.mark.parametrize(
    "missing", ["ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz"]
)
def test_a_missing_archive_is_named_with_the_place_to_get_it(archives: Path, missing: str) -> None:
    (archives / missing).unlink()
    with pytest.raises(DataError) as caught:
        load(archives)
    for words in (str(archives / missing), "image-net.org", "cannot be downloaded without an account"):
        assert words in str(caught.value)


def test_a_damaged_archive_is_named_and_leaves_nothing_behind(archives: Path) -> None:
    path = archives / "ILSVRC2012_img_train.tar"
    path.write_bytes(path.read_bytes()[:-600])
    with pytest.raises(DataError, match=r"damaged: .*ILSVRC2012_img_train.tar is not present .* or is corrupted"):
        load(archives)
    assert not (archives / "train").exists()


def test_an_interrupted_unpacking_starts_again(archives: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(root: str, folder: str) -> None:
        (Path(root) / folder / WNIDS[0]).mkdir()
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr(published, "parse_train_archive", interrupted)
        with pytest.raises(KeyboardInterrupt):
            load(archives)
    assert not (archives / "train").exists()
    assert len(load(archives).train) == 6


@pytest.mark.parametrize("lost", ["train/n01440764/0.png", "val/n01484850/0.png"])
def test_a_tree_that_is_not_complete_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: str) -> None:
    publish_imagenet(tmp_path, monkeypatch)
    (tmp_path / lost).unlink()
    with pytest.raises(
        DataError, match=r"(must have 6 images of 3 classes .*got 5 of 3.*image_folder|holds no images)"
    ):
        load(tmp_path)


def test_the_number_of_images_is_known_from_the_archive(archives: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ImageNet(ComponentParams(), archives, 8).num_train_images() == 6
    assert not (archives / "train").exists()
