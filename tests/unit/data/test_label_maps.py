from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from jepa_lab.data.base import ImageData
from jepa_lab.data.centre_squares import centre_squares
from jepa_lab.data.datasets.segmentation_folder import SegmentationFolder
from jepa_lab.data.datasets.synthetic import Synthetic
from jepa_lab.data.images import to_tensor
from jepa_lab.data.label_maps import IGNORED, LabelMaps
from jepa_lab.errors import DataError
from tests.unit.data.files import write_masked

CPU = torch.device("cpu")


def load(root: Path, side: int = 12, **params: Any) -> ImageData:
    return SegmentationFolder(SegmentationFolder.Params(**params), root, side).load()


def maps_of(data: ImageData) -> LabelMaps:
    assert data.train.maps is not None
    return data.train.maps


def test_masks_go_with_the_images_of_their_split_and_name(tmp_path: Path) -> None:
    write_masked(tmp_path, {"train": 5, "test": 3}, size=(10, 10))
    data = load(tmp_path, side=10)
    assert (len(data.train), data.train.labels, data.class_names) == (5, None, ())
    assert data.test is not None
    assert data.test.maps is not None
    assert len(data.test.maps) == 3
    assert maps_of(data).names == ("0", "1", "2")
    for number in range(5):
        mask = np.array(Image.open(tmp_path / "masks" / "train" / f"{number:03d}.png"))
        assert np.array_equal(maps_of(data).pixels[number].numpy(), mask)


@pytest.mark.parametrize(
    ("folders", "train", "test", "validation"),
    [
        ({"": 4}, 4, None, None),
        ({"city/day": 2, "city/night": 3}, 5, None, None),
        ({"train": 4, "val": 2}, 4, 2, None),
        ({"train": 4, "val": 2, "test": 3}, 4, 3, None),
    ],
)
def test_the_folders_are_the_splits(
    tmp_path: Path, folders: dict[str, int], train: int, test: int | None, validation: int | None
) -> None:
    write_masked(tmp_path, folders)
    data = load(tmp_path)
    assert len(data.train) == train
    assert (None if data.test is None else len(data.test)) == test
    assert (None if data.validation is None else len(data.validation)) == validation


def test_a_map_of_the_centre_square_is_the_nearest_label_where_the_picture_is_cut_out() -> None:
    """Each pixel of a map is the label of a picture that shows its labels, cut out in the same way."""
    generator = np.random.default_rng(0)
    height, width, side = 24, 40, 24
    classes = generator.integers(0, 3, (5, 6, 10)).repeat(4, 1).repeat(4, 2).astype(np.uint8)  # flat blocks of 4 x 4
    maps = LabelMaps(torch.from_numpy(classes), ("a", "b", "c"))
    pictures = torch.from_numpy(classes)[:, None] * 100
    for fraction in (1.0, 0.5):
        (found,) = maps.squares(side, fraction).split(5)
        ((squares),) = centre_squares(pictures, side, fraction, CPU).split(5)
        inside = (squares[:, 0] % 100 == 0) & (found >= 0)  # where no two labels are mixed
        assert inside.float().mean() > 0.4
        assert torch.equal(found[inside], squares[:, 0][inside] // 100)
    assert (height, width) == classes.shape[1:]


def test_whole_pictures_and_their_maps_are_cut_out_alike(tmp_path: Path) -> None:
    """A picture that is as bright as its class says, not square, stored as a square, and cut out again."""
    generator = np.random.default_rng(1)
    for number in range(3):
        blocks = generator.integers(0, 2, (5, 8)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
        for kind, pixels in (("images", np.stack([blocks * 255] * 3, axis=-1)), ("masks", blocks)):
            (tmp_path / kind).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / kind / f"{number}.png")
    data = load(tmp_path, side=40)
    squares = to_tensor(centre_squares(data.train.images, 20, 1.0, CPU))[:, 0]
    (found,) = maps_of(data).squares(20, 1.0).split(3)
    certain = (squares < 20) | (squares > 235)
    assert certain.float().mean() > 0.6
    assert torch.equal(found[certain] == 1, squares[certain] > 127)


def test_another_mask_is_other_data(tmp_path: Path) -> None:
    write_masked(tmp_path, {"": 3}, size=(10, 10))
    before = load(tmp_path).digest
    assert load(tmp_path).digest == before
    mask = tmp_path / "masks" / "001.png"
    pixels = np.array(Image.open(mask))
    pixels[0, 0] = 2
    Image.fromarray(pixels).save(mask)
    after = load(tmp_path).digest
    assert after != before
    assert len(after) == len(before)
    assert load(tmp_path, classes=("ground", "cat", "dog")).digest != after


def test_palette_masks_are_read_by_their_numbers(tmp_path: Path) -> None:
    write_masked(tmp_path, {"": 1}, size=(10, 10))
    mask = tmp_path / "masks" / "000.png"
    grey = load(tmp_path, side=10)
    image = Image.open(mask).convert("L")
    palette = Image.fromarray(np.array(image))
    palette.putpalette([value for number in range(256) for value in (255 - number, number, 7)])
    palette.save(mask)
    assert torch.equal(maps_of(load(tmp_path, side=10)).pixels, maps_of(grey).pixels)


def picture_as_mask(mask: Path) -> None:
    Image.new("RGB", (20, 14)).save(mask)


def of_another_size(mask: Path) -> None:
    Image.new("L", (14, 20)).save(mask)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (picture_as_mask, "is a picture of mode RGB, and a mask has one class number per pixel; save it as an 8-bit"),
        (of_another_size, r"is 14 x 20 pixels, and its image .*001.png 20 x 14; make them equal"),
        (lambda mask: mask.write_bytes(b"no picture"), r"masks/001.png cannot be read"),
        (Path.unlink, r"001.png has no mask .*masks/001.png; add it, or remove the image"),
    ],
)
def test_a_mask_that_does_not_fit_is_named_with_what_to_do(tmp_path: Path, spoil: Any, message: str) -> None:
    write_masked(tmp_path, {"": 3})
    spoil(tmp_path / "masks" / "001.png")
    with pytest.raises(DataError, match=message):
        load(tmp_path)


def test_a_number_without_a_name_is_refused(tmp_path: Path) -> None:
    write_masked(tmp_path, {"": 3})
    with pytest.raises(DataError, match="holds the class number 2, but there are 2 classes"):
        load(tmp_path, classes=("ground", "cat"))


def test_a_folder_without_masks_says_where_they_belong(tmp_path: Path) -> None:
    write_masked(tmp_path, {"": 3})
    (tmp_path / "masks").rename(tmp_path / "annotations")
    with pytest.raises(DataError, match=r"has no folder masks/ \(annotations, images\); put pictures into"):
        load(tmp_path)


def test_synthetic_maps_are_the_shape_and_every_other_pixel_is_background() -> None:
    data = Synthetic(Synthetic.Params(num_train=24, num_test=6, num_classes=3), None, 40).load()
    maps, labels = maps_of(data), data.train.labels
    assert labels is not None
    assert maps.names == ("background", "disc", "square", "triangle")
    images = to_tensor(data.train.images).int()
    shape = (images - images[:, :, :1, :1]).abs() * 2 > (images - images[:, :, :1, :1]).abs().amax((2, 3), keepdim=True)
    assert ((maps.pixels > 0) == shape[:, 0]).float().mean() > 0.99
    for pixels, label in zip(maps.pixels, labels, strict=True):
        assert set(pixels.unique().tolist()) == {0, int(label) + 1}


def test_maps_follow_a_subset() -> None:
    data = Synthetic(Synthetic.Params(num_train=10, num_test=2), None, 16).load()
    chosen = torch.tensor([7, 2])
    part = data.train.subset(chosen)
    assert part.maps is not None
    assert torch.equal(part.maps.pixels, maps_of(data).pixels[chosen])
    assert IGNORED not in part.maps.pixels
