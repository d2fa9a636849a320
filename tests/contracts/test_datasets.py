"""What every registered data set must do."""

from pathlib import Path
from typing import Any

import pytest

import jepa_lab.data.datasets  # noqa: F401
from jepa_lab.data.base import DATASETS, ImageDataset
from jepa_lab.registry import ComponentParams, Entry
from jepa_lab.testing import DatasetContract
from tests.unit.data.files import SMALL_ROOTS

# Settings that change what a data set delivers, beside its defaults.
MORE_SETTINGS: dict[str, list[dict[str, object]]] = {
    "stl10": [{"pretrain_on": "train"}, {"pretrain_on": "train_and_unlabeled"}],
    "celeba": [{"attribute": "Bald"}],
    "synthetic": [{"num_classes": 8, "radius": (0.3, 0.4), "texture": 0.2, "palette": "bright_on_dark"}],
}
WITHOUT_LABELS = ("segmentation_folder", "stl10", "stl10 train_and_unlabeled")


def case(entry: Entry[ImageDataset], settings: dict[str, object]) -> Any:
    name = " ".join([entry.name, *map(str, settings.values())])
    return pytest.param((entry, settings, name not in WITHOUT_LABELS), id=name)


class TestDatasets(DatasetContract):
    @pytest.fixture(
        params=[case(entry, settings) for entry in DATASETS for settings in [{}, *MORE_SETTINGS.get(entry.name, [])]]
    )
    def case(self, request: pytest.FixtureRequest) -> tuple[Entry[ImageDataset], dict[str, object], bool]:
        return request.param

    @pytest.fixture
    def entry(self, case: tuple[Entry[ImageDataset], dict[str, object], bool]) -> Entry[ImageDataset]:
        type(self).has_labels = case[2]
        return case[0]

    @pytest.fixture
    def params(self, case: tuple[Entry[ImageDataset], dict[str, object], bool]) -> ComponentParams:
        entry, settings, _ = case
        return entry.config_type.model_validate({"name": entry.name, **settings})

    @pytest.fixture
    def root(self, entry: Entry[ImageDataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path | None:
        if not entry.component.needs_files:
            return None
        SMALL_ROOTS[entry.name](tmp_path / entry.name, monkeypatch)
        return tmp_path / entry.name
