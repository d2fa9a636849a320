from pathlib import Path

import numpy as np
import pytest
import torch

from jepa_lab.data.base import FolderChoice
from jepa_lab.data.datasets.image_folder import ImageFolder
from jepa_lab.data.images import to_tensor
from jepa_lab.errors import ConfigError, DataError
from jepa_lab.registry import ComponentParams
from tests.unit.data.files import write_image, write_tree


def test_labels_follow_the_images(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for value, name in ((40, "dark"), (220, "bright")):
            for number in range(3):
                write_image(tmp_path / split / name / f"{number}.png", np.full((6, 8, 3), value))
    data = ImageFolder(ComponentParams(), tmp_path, 6).load()
    assert data.class_names == ("bright", "dark")
    assert data.test is not None
    for split in (data.train, data.test):
        assert split.labels is not None
        assert torch.equal(split.labels, (to_tensor(split.images)[:, 0, 0, 0] == 40).long())


def test_a_flat_folder_is_loaded_without_labels(tmp_path: Path) -> None:
    for number in range(4):
        write_image(tmp_path / f"{number}.jpg", size=(20, 12))
    data = ImageFolder(ComponentParams(), tmp_path, 8).load()
    assert data.train.images.shape == (4, 3, 8, 8)
    assert data.train.labels is None
    assert data.test is None
    assert data.num_classes == 0


def test_images_are_counted_without_decoding(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "train" / name).mkdir(parents=True)
        (tmp_path / "train" / name / "1.png").write_bytes(b"broken")
    data_set = ImageFolder(ComponentParams(), tmp_path, 8)
    assert data_set.num_train_images() == 2
    with pytest.raises(DataError, match=r"train/a/1.png cannot be decoded"):
        data_set.load()


def test_a_changed_image_changes_the_digest(tmp_path: Path) -> None:
    write_tree(tmp_path, {"train": 2}, ["a", "b"])
    before = ImageFolder(ComponentParams(), tmp_path, 7).load().digest
    assert ImageFolder(ComponentParams(), tmp_path, 7).load().digest == before
    write_image(tmp_path / "train" / "a" / "0.png", seed=1000)
    assert ImageFolder(ComponentParams(), tmp_path, 7).load().digest != before


def test_a_folder_is_understood_in_another_way_by_a_copy(tmp_path: Path) -> None:
    write_tree(tmp_path, {"train": 2, "val": 1}, ["a", "b"])
    usual = ImageFolder(ComponentParams(), tmp_path, 7)
    files = usual.image_files()
    assert (files.validation, usual.num_test_images(), usual.has_labels()) == (None, 2, True)
    chosen = usual.with_folders(FolderChoice(validation_split="folder"))
    assert chosen.image_files().validation == files.test
    assert chosen.num_test_images() is None
    unlabelled = chosen.with_folders(FolderChoice(labels="none"))
    assert (unlabelled.has_labels(), unlabelled.image_files().class_names) == (False, ())
    assert usual.image_files() == files
    assert len({usual.describe(), chosen.describe(), unlabelled.describe()}) == 3


def test_own_validation_images_are_loaded_and_named_by_the_digest(tmp_path: Path) -> None:
    write_tree(tmp_path, {"train": 2, "val": 1}, ["a", "b"])
    usual = ImageFolder(ComponentParams(), tmp_path, 7)
    as_test, data = usual.load(), usual.with_folders(FolderChoice(validation_split="folder")).load()
    assert data.test is None
    assert data.validation is not None
    assert as_test.test is not None
    assert torch.equal(to_tensor(data.validation.images), to_tensor(as_test.test.images))
    assert data.digest != as_test.digest


def test_a_missing_root_is_refused_with_the_remedy() -> None:
    with pytest.raises(ConfigError, match=r"root is required for .*image_folder.*root=FOLDER"):
        ImageFolder(ComponentParams(), None, 8)
