"""What every registered data set must do."""

from pathlib import Path

import pytest
import torch

import jepa_lab.data.datasets  # noqa: F401
from jepa_lab.data.base import DATASETS, ImageData, ImageDataset
from jepa_lab.errors import ConfigError, JepaLabError
from jepa_lab.registry import Entry
from tests.unit.data.files import SMALL_ROOTS, global_generators

IMAGE_SIZE = 12

every_data_set = pytest.mark.parametrize("entry", list(DATASETS), ids=lambda entry: entry.name)


def small(entry: Entry[ImageDataset], tmp_path: Path) -> ImageDataset:
    """The data set on small files of its own layout, or without files."""
    root = None
    if entry.component.needs_files:
        root = tmp_path / entry.name
        if not root.exists():
            SMALL_ROOTS[entry.name](root)
    return entry.component(entry.config_type.model_validate({"name": entry.name}), root, IMAGE_SIZE)


@every_data_set
def test_images_labels_and_classes_fit_together(entry: Entry[ImageDataset], tmp_path: Path) -> None:
    data_set = small(entry, tmp_path)
    data = data_set.load()
    assert isinstance(data, ImageData)
    assert len(data.train) == data_set.num_train_images()
    assert len(set(data.class_names)) == len(data.class_names) == data.num_classes
    for split in (data.train, data.test):
        assert split is not None
        assert split.images.dtype == torch.uint8
        assert split.images.shape == (len(split), data_set.num_channels, IMAGE_SIZE, IMAGE_SIZE)
        assert split.images.is_contiguous()
        assert split.images.device.type == "cpu"
        assert split.labels is not None
        assert split.labels.dtype == torch.int64
        assert split.labels.shape == (len(split),)
        assert split.labels.unique().tolist() == list(range(data.num_classes))
    assert data.source


@every_data_set
def test_loading_again_gives_the_same_images_and_digest(entry: Entry[ImageDataset], tmp_path: Path) -> None:
    before = global_generators()
    first, second = small(entry, tmp_path).load(), small(entry, tmp_path).load()
    assert global_generators() == before
    assert torch.equal(first.train.images, second.train.images)
    assert first.digest == second.digest
    assert 16 <= len(first.digest) <= 36
    assert int(first.digest, 16) >= 0


@every_data_set
def test_a_folder_without_files_is_an_error_that_names_it(entry: Entry[ImageDataset], tmp_path: Path) -> None:
    settings = {"name": entry.name} | ({"download": False} if "download" in entry.params_type.model_fields else {})
    with pytest.raises(JepaLabError) as caught:
        entry.component(entry.config_type.model_validate(settings), tmp_path / "empty", IMAGE_SIZE).load()
    assert str(tmp_path / "empty") in str(caught.value)
    if not entry.component.needs_files:
        assert isinstance(caught.value, ConfigError)


@every_data_set
def test_every_setting_is_described(entry: Entry[ImageDataset]) -> None:
    assert all(field.description for field in entry.params_type.model_fields.values())
    assert entry.summary
    assert entry.source
