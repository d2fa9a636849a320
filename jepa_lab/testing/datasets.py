"""What every data set keeps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from jepa_lab.data.base import ImageData, ImageDataset
from jepa_lab.data.decode import decode_image, decode_picture
from jepa_lab.data.images import has_sizes, split_pictures, to_tensor
from jepa_lab.data.label_maps import IGNORED
from jepa_lab.data.pixels import resize_images
from jepa_lab.errors import ConfigError, JepaLabError
from jepa_lab.registry import ComponentParams, Entry
from jepa_lab.testing.components import ComponentContract
from jepa_lab.testing.randomness import global_generators

IMAGE_SIZE = 12


class DatasetContract(ComponentContract):
    """Tests of an `ImageDataset`; one that needs files overrides `root`.

    Attributes:
        has_labels: whether its images have classes, with the settings under test.
    """

    breaking: ClassVar[Sequence[Any]] = (Path("somewhere"),)
    has_labels: ClassVar[bool] = True

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path | None:
        """A folder with few small files in the data set's own layout; None for one that needs no files."""
        return None

    @pytest.fixture
    def data_set(self, entry: Entry[ImageDataset], params: ComponentParams, root: Path | None) -> ImageDataset:
        """The data set at 12 px."""
        return entry.component(params, root, IMAGE_SIZE)

    def test_images_labels_and_classes_fit_together(self, data_set: ImageDataset) -> None:
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
        if not self.has_labels:
            assert (data.train.labels, data.class_names) == (None, ())
            assert data.test is None or data.test.labels is None
            return
        assert data.test is not None
        for split in splits:
            assert split.labels is not None
            assert split.labels.dtype == torch.int64
            assert split.labels.shape == (len(split),)
            assert split.labels.unique().tolist() == list(range(data.num_classes))

    def test_files_are_listed_in_the_order_of_the_images_or_not_at_all(self, data_set: ImageDataset) -> None:
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

    def test_loading_again_gives_the_same_images_and_digest(
        self, entry: Entry[ImageDataset], params: ComponentParams, root: Path | None
    ) -> None:
        before = global_generators()
        first, second = (entry.component(params, root, IMAGE_SIZE).load() for _ in range(2))
        assert global_generators() == before
        assert torch.equal(to_tensor(first.train.images), to_tensor(second.train.images))
        assert first.digest == second.digest
        assert 16 <= len(first.digest) <= 36
        assert int(first.digest, 16) >= 0

    def test_a_folder_without_files_is_an_error_that_names_it(
        self, entry: Entry[ImageDataset], params: ComponentParams, tmp_path: Path
    ) -> None:
        given = params.model_dump() | ({"download": False} if "download" in entry.params_type.model_fields else {})
        data_set = entry.component
        with pytest.raises(JepaLabError) as caught:
            data_set(entry.config_type.model_validate(given), tmp_path / "empty", IMAGE_SIZE).load()
        assert str(tmp_path / "empty") in str(caught.value)
        if not data_set.needs_files:
            assert isinstance(caught.value, ConfigError)
