"""At which size pictures are stored."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import jepa_lab.data.stored_side as stored_side_module
from jepa_lab.data.base import ImageFiles, ImageFileSet
from jepa_lab.data.stored_side import LOOKED_AT, stored_side


def files(folder: Path, *sizes: tuple[int, int], native_size: int | None = None) -> ImageFileSet:
    """Grey files of these widths and heights."""
    paths = tuple(folder / f"{number}.png" for number in range(len(sizes)))
    for path, size in zip(paths, sizes, strict=True):
        Image.new("L", size).save(path)
    return ImageFileSet(ImageFiles(paths, None), None, (), "here", native_size)


@pytest.mark.parametrize(
    ("sizes", "side"),
    [
        ([(500, 375)], 96),  # one and a half times the image size
        ([(375, 500), (20, 20)], 96),
        ([(80, 70)], 80),  # no more than the pictures have
        ([(64, 64)] * 3, 64),
        ([(32, 32)] * 3, 64),  # no less than the image size
        ([(2000, 1)], 96),
    ],
)
def test_the_default_leaves_room_for_crops_but_not_more_than_the_pictures_fill(
    tmp_path: Path, sizes: list[tuple[int, int]], side: int
) -> None:
    assert stored_side(files(tmp_path, *sizes), 64, None) == side


def test_a_size_that_is_asked_for_is_taken(tmp_path: Path) -> None:
    assert stored_side(files(tmp_path, (500, 375)), 64, 70) == 70
    assert stored_side(None, 64, 70) == 70


def test_squares_by_nature_are_stored_at_the_image_size(tmp_path: Path) -> None:
    assert stored_side(None, 64, None) == 64
    assert stored_side(files(tmp_path, (32, 32), native_size=32), 64, None) == 64


def test_broken_files_are_passed_over(tmp_path: Path) -> None:
    found = files(tmp_path, (500, 375), (70, 70))
    found.train.files[0].write_bytes(b"no image")
    assert stored_side(found, 64, None) == 70
    found.train.files[1].unlink()
    assert stored_side(found, 64, None) == 96


def test_few_of_many_files_are_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []

    def note(path: Path) -> tuple[int, int]:
        opened.append(path)
        return 10, 10

    monkeypatch.setattr(stored_side_module, "picture_size", note)
    paths = tuple(Path(f"{number}.png") for number in range(100_000))
    assert stored_side(ImageFileSet(ImageFiles(paths, None), None, (), "here"), 64, None) == 64
    assert len(set(opened)) == len(opened) == LOOKED_AT
    places = np.array([int(path.stem) for path in opened])
    assert (places[0], places[-1]) == (0, 99_999)
    assert np.diff(places).max() < 2 * 100_000 / LOOKED_AT
