"""The squares that encoders are measured on, against torchvision on the pictures themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

from jepa_lab.data.centre_squares import CentreSquares, centre_squares, squares_like, stored_pictures
from jepa_lab.data.image_files import FilePixels
from jepa_lab.data.images import HeldPictures, LazyImages, Pictures, to_memory, to_tensor
from jepa_lab.data.workers import Workers
from tests.unit.data.files import write_image
from tests.unit.data.photographs import smooth_picture

CPU = torch.device("cpu")


def held(paths: list[Path], side: int) -> HeldPictures:
    found = to_memory(LazyImages(FilePixels(paths, side, None), Workers(0), torch.arange(len(paths))))
    assert isinstance(found, HeldPictures)
    return found


def in_torchvision(path: Path, resized: int, cut: int) -> Tensor:
    """The usual evaluation transform, [3, cut, cut]."""
    transform = Compose([Resize(resized, InterpolationMode.BILINEAR), CenterCrop(cut)])
    return torch.from_numpy(np.array(transform(Image.open(path)))).permute(2, 0, 1)


@pytest.mark.parametrize(("height", "width"), [(375, 500), (500, 333), (224, 224), (120, 300)])
@pytest.mark.parametrize(("resized", "cut"), [(112, 112), (128, 112), (96, 48)])
def test_they_are_the_resized_shorter_side_and_its_centre_as_in_torchvision(
    tmp_path: Path, height: int, width: int, resized: int, cut: int
) -> None:
    write_image(tmp_path / "a.png", smooth_picture(height, width))
    squares = centre_squares(held([tmp_path / "a.png"], 168), cut, cut / resized, CPU)
    difference = (to_tensor(squares)[0].int() - in_torchvision(tmp_path / "a.png", resized, cut).int()).abs()
    assert difference.double().mean() < 1
    assert difference.max() <= 6


def test_squares_of_the_stored_size_stay_as_they_are(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", size=(20, 20))
    pictures = held([tmp_path / "a.png"], 20)
    assert torch.equal(to_tensor(centre_squares(pictures, 20, 1.0, CPU)), to_tensor(pictures))
    images = torch.randint(256, (3, 1, 8, 8), dtype=torch.uint8)
    assert centre_squares(images, 8, 1.0, CPU) is images
    assert centre_squares(images, 8, 0.5, CPU) is not images


def test_a_fraction_of_squares_without_sizes_is_their_middle() -> None:
    images = torch.arange(64, dtype=torch.uint8).reshape(1, 1, 8, 8)
    assert torch.equal(to_tensor(centre_squares(images, 4, 0.5, CPU)), images[:, :, 2:6, 2:6])


def test_they_behave_as_the_images_that_they_stand_for(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(7)]
    for number, path in enumerate(paths):
        write_image(path, size=(9 + number, 12), seed=number)
    pictures = held(paths, 12)
    squares = centre_squares(pictures, 8, 1.0, CPU)
    whole = to_tensor(squares)
    assert squares.shape == whole.shape == (7, 3, 8, 8)
    assert len(squares) == 7
    chosen = torch.tensor([5, 0, 2])
    assert torch.equal(to_tensor(squares[chosen]), whole[chosen])
    assert [len(part) for part in squares.split(3)] == [3, 3, 1]
    lazy = LazyImages(FilePixels(paths, 12, None), Workers(2), torch.arange(7))
    assert torch.equal(torch.cat(list(centre_squares(lazy, 8, 1.0, CPU).split(2))), whole)
    assert stored_pictures(squares) is pictures
    assert torch.equal(squares_like(squares, pictures.pictures), whole)
    plain = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    assert stored_pictures(plain) is plain
    assert squares_like(plain, Pictures(plain, None)) is plain


@pytest.mark.parametrize("size", [(1, 2000), (2000, 1), (3, 500)])
def test_pictures_far_longer_than_wide_have_a_centre_too(tmp_path: Path, size: tuple[int, int]) -> None:
    write_image(tmp_path / "a.png", np.full((size[1], size[0], 3), 77))
    assert (to_tensor(CentreSquares(held([tmp_path / "a.png"], 24), 16, 0.875, CPU)) == 77).all()
