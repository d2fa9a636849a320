"""What every registered data set must do."""

from pathlib import Path

import pytest
import torch

import jepa_lab.data.datasets  # noqa: F401
from jepa_lab.data.base import DATASETS, ImageData, ImageDataset
from jepa_lab.data.decode import decode_image, decode_picture
from jepa_lab.data.images import has_sizes, split_pictures, to_tensor
from jepa_lab.data.label_maps import IGNORED
from jepa_lab.data.pixels import resize_images
from jepa_lab.errors import ConfigError, JepaLabError
from jepa_lab.registry import Entry
from tests.unit.data.files import SMALL_ROOTS, global_generators

IMAGE_SIZE = 12

# Settings that change what a data set delivers, beside its defaults.
MORE_SETTINGS: dict[str, list[dict[str, object]]] = {
    "stl10": [{"pretrain_on": "train"}, {"pretrain_on": "train_and_unlabeled"}],
    "celeba": [{"attribute": "Bald"}],
    "synthetic": [{"num_classes": 8, "radius": (0.3, 0.4), "texture": 0.2, "palette": "bright_on_dark"}],
}
WITHOUT_LABELS = ("segmentation_folder", "stl10", "stl10 train_and_unlabeled")

every_data_set = pytest.mark.parametrize("entry", list(DATASETS), ids=lambda entry: entry.name)
every_case = pytest.mark.parametrize(
    ("entry", "settings"),
    [
        pytest.param(entry, settings, id=" ".join([entry.name, *map(str, settings.values())]))
        for entry in DATASETS
        for settings in [{}, *MORE_SETTINGS.get(entry.name, [])]
    ],
)


def small(
    entry: Entry[ImageDataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, object]
) -> ImageDataset:
    """The data set on small files of its own layout, or without files."""
    root = None
    if entry.component.needs_files:
        root = tmp_path / entry.name
        if not root.exists():
            SMALL_ROOTS[entry.name](root, monkeypatch)
    return entry.component(entry.config_type.model_validate({"name": entry.name, **settings}), root, IMAGE_SIZE)


@every_case
def test_images_labels_and_classes_fit_together(
    entry: Entry[ImageDataset], settings: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data_set = small(entry, tmp_path, monkeypatch, settings)
    data = data_set.load()
    assert isinstance(data, ImageData)
    assert len(data.train) == data_set.num_train_images()
    assert len(set(data.class_names)) == len(data.class_names) == data.num_classes
    assert data.source
    splits = [data.train] if data.test is None else [data.train, data.test]
    for split in splits:
        ((pixels, sizes),) = split_pictures(split.images, len(split))
        assert pixels.dtype == torch.uint8
        assert pixels.shape == split.images.shape == (len(split), data_set.num_channels, IMAGE_SIZE, IMAGE_SIZE)
        assert pixels.is_contiguous()
        assert pixels.device.type == "cpu"
        assert (sizes is not None) == has_sizes(split.images)
        if split.maps is not None:
            assert len(split.maps) == len(split)
            (labels,) = split.maps.squares(IMAGE_SIZE, 1.0).split(len(split))
            assert labels.dtype == torch.uint8
            assert labels.shape == (len(split), IMAGE_SIZE, IMAGE_SIZE)
            assert set(labels.unique().tolist()) <= {*range(len(split.maps.names)), IGNORED}
        if sizes is not None:
            assert sizes.shape == (len(split), 2)
            assert sizes.dtype == torch.int32
    if " ".join([entry.name, *map(str, settings.values())]) in WITHOUT_LABELS:
        assert (data.train.labels, data.class_names) == (None, ())
        assert data.test is None or data.test.labels is None
        return
    assert data.test is not None
    for split in splits:
        assert split.labels is not None
        assert split.labels.dtype == torch.int64
        assert split.labels.shape == (len(split),)
        assert split.labels.unique().tolist() == list(range(data.num_classes))


@every_case
def test_files_are_listed_in_the_order_of_the_images_or_not_at_all(
    entry: Entry[ImageDataset], settings: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data_set = small(entry, tmp_path, monkeypatch, settings)
    files, data = data_set.image_files(), data_set.load()
    if files is None:
        return
    assert files.class_names == data.class_names
    for part, split in ((files.train, data.train), (files.test, data.test)):
        assert part is not None
        assert split is not None
        assert part.labels == (None if split.labels is None else tuple(split.labels.tolist()))
        ((pixels, sizes),) = split_pictures(split.images, len(split))
        if files.native_size is None:
            decoded, sizes_in_files = zip(*(decode_picture(path, IMAGE_SIZE) for path in part.files), strict=True)
            assert sizes is not None
            assert sizes.tolist() == [list(size) for size in sizes_in_files]
            assert torch.equal(torch.stack(decoded), pixels)
        else:
            squares = torch.stack([decode_image(path, files.native_size) for path in part.files])
            assert torch.equal(resize_images(squares, IMAGE_SIZE), pixels)


@every_case
def test_loading_again_gives_the_same_images_and_digest(
    entry: Entry[ImageDataset], settings: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = global_generators()
    first, second = (small(entry, tmp_path, monkeypatch, settings).load() for _ in range(2))
    assert global_generators() == before
    assert torch.equal(to_tensor(first.train.images), to_tensor(second.train.images))
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
