"""From a pipeline to the data of a run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from jepa_lab.build import prepare_data, prepare_probe_data
from jepa_lab.errors import ConfigError, DataError
from tests.integration.pipelines import load_tiny


def test_a_class_with_one_image_is_told_by_its_name(tmp_path: Path) -> None:
    for name, count in (("bee", 2), ("wasp", 1)):
        (tmp_path / "images" / "train" / name).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / "images" / "train" / name / f"{number}.png")
    overrides = ["data={dataset: image_folder, image_size: 8}", f"data.root={tmp_path / 'images'}"]
    with pytest.raises(DataError, match=r"class 'wasp' has 1 image, but with data.test_fraction=0.2 .* at least 3"):
        prepare_data(load_tiny(tmp_path, *overrides).pipeline)
    with pytest.raises(DataError, match="class 'wasp' has 1 training image"):
        prepare_data(load_tiny(tmp_path, *overrides, "data.test_fraction=0").pipeline)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{dataset: image_folder}", "probe.data.root is required for probe.data.dataset=image_folder"),
        ("{dataset: image_folder, root: /no/data.root}", "probe.data.root must be a folder, got '/no/data.root'"),
        ("{dataset: image_folder, root: ~nobody-of-this-name/x}", "probe.data.root begins with a home folder that"),
        ("{dataset: digits, max_images: 5}", "probe.data.max_images must be at least the number of classes"),
        ("{dataset: synthetic}", "probe.data.dataset='synthetic' has 3 channel"),
    ],
)
def test_errors_of_the_probe_s_own_data_name_its_own_keys(tmp_path: Path, source: str, expected: str) -> None:
    pipeline = load_tiny(tmp_path, f"probe.data={source}").pipeline
    with pytest.raises((ConfigError, DataError)) as caught:
        prepare_probe_data(pipeline, prepare_data(pipeline))
    assert str(caught.value).startswith(expected)


def test_given_channel_statistics_are_used(tmp_path: Path) -> None:
    data = prepare_data(load_tiny(tmp_path, "data.channel_mean=[0.25]", "data.channel_std=[0.5]").pipeline)
    assert torch.equal(data.mean, torch.tensor([0.25]))
    assert torch.equal(data.std, torch.tensor([0.5]))
