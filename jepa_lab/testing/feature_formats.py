"""What every format of features keeps."""

from __future__ import annotations

import json
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from jepa_lab.feature_files.formats.base import FeatureFormat, FeatureTable
from jepa_lab.registry import Entry
from jepa_lab.testing.places import WithoutSettings

PATHS = ("a.png", "deep/b c.jpg", "deep/ü 基準.png", "it's.png", "z.png", "zz.png", "zzz.png")
_ROWS_OF_A_PART = 2


class FeatureFormatContract(WithoutSettings):
    """Tests of a `FeatureFormat`; override `read`, which says how the format is read."""

    def read(self, path: Path) -> tuple[Sequence[str], np.ndarray, str]:
        """Paths, features [n, D] or [n, N, D] and description of a file, by the format's own library."""
        raise NotImplementedError(f"{type(self).__name__} must say in `read` how a file of the format is read")

    @pytest.fixture(params=[(len(PATHS), 5), (len(PATHS), 4, 5), (1, 1)], ids=["pooled", "patches", "one number"])
    def features(self, request: pytest.FixtureRequest) -> np.ndarray:
        """[n, D] or [n, N, D] float32."""
        return np.random.default_rng(0).standard_normal(request.param).astype(np.float32)

    def test_a_file_holds_paths_features_and_description(
        self, entry: Entry[FeatureFormat], features: np.ndarray, tmp_path: Path
    ) -> None:
        file = tmp_path / f"out.{entry.name}"
        given = _table(features)
        _written(entry, given, file)
        paths, found, description = self.read(file)
        assert list(paths) == list(given.paths)
        assert found.dtype == np.float32
        assert np.array_equal(found, features)
        assert json.loads(description) == json.loads(given.description)
        assert list(tmp_path.iterdir()) == [file]

    def test_the_same_table_is_the_same_file(
        self, entry: Entry[FeatureFormat], features: np.ndarray, tmp_path: Path
    ) -> None:
        for name in ("one", "two"):
            _written(entry, _table(features), tmp_path / f"{name}.{entry.name}")
        one, two = (self.read(tmp_path / f"{name}.{entry.name}") for name in ("one", "two"))
        assert list(one[0]) == list(two[0])
        assert np.array_equal(one[1], two[1])

    def test_a_table_is_never_held_as_a_whole(
        self, entry: Entry[FeatureFormat], features: np.ndarray, tmp_path: Path
    ) -> None:
        table = _table(features)
        assert isinstance(table.parts, _Parts)
        _written(entry, table, tmp_path / f"out.{entry.name}")
        assert table.parts.most_at_once <= 2, "parts are kept after they were written"


class _Parts:
    """Two rows at a time; it counts how many parts live at once."""

    def __init__(self, features: np.ndarray) -> None:
        self._features = features
        self._alive: list[weakref.ref[np.ndarray]] = []
        self.most_at_once = 0

    def __iter__(self) -> Iterator[tuple[Sequence[str], np.ndarray]]:
        for start in range(0, len(self._features), _ROWS_OF_A_PART):
            rows = slice(start, start + _ROWS_OF_A_PART)
            part = self._features[rows].copy()
            self._alive.append(weakref.ref(part))
            self.most_at_once = max(self.most_at_once, sum(each() is not None for each in self._alive))
            yield PATHS[: len(self._features)][rows], part


def _table(features: np.ndarray) -> FeatureTable:
    paths = PATHS[: len(features)]
    return FeatureTable(paths, features.shape, json.dumps({"of": "ü", "patch_size": 4}), _Parts(features))


def _written(entry: Entry[FeatureFormat], table: FeatureTable, file: Path) -> None:
    entry.component(entry.params_type()).write(table, file)
