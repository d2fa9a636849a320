from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from jepa_lab.data.base import ImageData
from jepa_lab.data.datasets.digits import Digits
from jepa_lab.errors import ConfigError
from jepa_lab.registry import ComponentParams


@pytest.fixture(scope="module")
def native() -> ImageData:
    return Digits(ComponentParams(), None, 8).load()


def test_the_parts_hold_every_scan_once_with_its_label(native: ImageData) -> None:
    assert native.test is not None
    assert (len(native.train), len(native.test)) == (1437, 360)
    scans = load_digits()

    def rows(images: np.ndarray, labels: np.ndarray) -> list[tuple[int, ...]]:
        return sorted((int(label), *image.ravel().astype(int)) for label, image in zip(labels, images, strict=True))

    parts = [native.train, native.test]
    images = np.concatenate([part.images.numpy() for part in parts]).astype(float) * 16 / 255
    labels = np.concatenate([np.asarray(part.labels) for part in parts])
    assert rows(images.round(), labels) == rows(scans.images, scans.target)


def test_brightness_spans_the_whole_range(native: ImageData) -> None:
    assert native.train.images.min() == 0
    assert native.train.images.max() == 255


def test_each_digit_is_a_fifth_of_the_test_split(native: ImageData) -> None:
    assert native.test is not None
    assert native.train.labels is not None
    assert native.test.labels is not None
    in_test, in_train = torch.bincount(native.test.labels), torch.bincount(native.train.labels)
    share = in_test / (in_test + in_train)
    assert (share - 0.2).abs().max() < 0.005


def test_the_division_is_the_one_of_all_earlier_results(native: ImageData) -> None:
    assert native.digest == "17169358a2fe018a53316116d10ee437"


def test_the_test_images_are_the_same_at_every_size(native: ImageData) -> None:
    larger = Digits(ComponentParams(), None, 16).load()
    assert larger.test is not None
    assert native.test is not None
    assert larger.test.labels is not None
    assert larger.test.images.shape == (360, 1, 16, 16)
    assert torch.equal(larger.test.labels, torch.as_tensor(native.test.labels))
    smaller = larger.test.images.float().unflatten(2, (8, 2)).unflatten(4, (8, 2)).mean((3, 5))
    correlation = np.corrcoef(smaller.flatten(), native.test.images.flatten())[0, 1]
    assert correlation > 0.95


def test_a_root_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"root must be left out for Digits.*image_folder"):
        Digits(ComponentParams(), tmp_path, 8)
