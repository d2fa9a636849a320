"""A file that was uploaded counts as stored only where the tracker lists it, with its size if it tells sizes."""

from __future__ import annotations

import posixpath
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jepa_lab.tracking.mlflow_calls import TrackerAway
from jepa_lab.tracking.mlflow_records import check_stored


def listed(*entries: tuple[str, int | None]) -> list[Any]:
    return [SimpleNamespace(path=posixpath.join("figures", name), file_size=size) for name, size in entries]


@pytest.mark.parametrize("size", [5, None])
def test_a_listed_file_of_its_size_or_of_unknown_size_is_stored(tmp_path: Path, size: int | None) -> None:
    (tmp_path / "a.png").write_bytes(b"12345")
    check_stored(listed(("b.png", 1), ("a.png", size)), tmp_path / "a.png")


@pytest.mark.parametrize("entries", [[], [("b.png", 5)], [("a.png", 4)], [("a.png", 0)]])
def test_a_file_that_is_not_listed_or_has_another_size_is_not_stored(
    tmp_path: Path, entries: list[tuple[str, int | None]]
) -> None:
    (tmp_path / "a.png").write_bytes(b"12345")
    with pytest.raises(TrackerAway, match=r"acknowledged a\.png and does not have it"):
        check_stored(listed(*entries), tmp_path / "a.png")
