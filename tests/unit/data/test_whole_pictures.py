"""What of a picture reaches the encoder, against torchvision's crops of the picture itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as reference

from jepa_lab.data.augmentations.crop import crop_and_resize, crop_boxes, draw_crops, in_stored_pixels
from jepa_lab.data.augmentations.minimal import Minimal
from jepa_lab.data.base import ImageFiles, ImageFileSet, ImageSplit
from jepa_lab.data.decode import decode_picture, picture_size
from jepa_lab.data.images import HeldPictures, Pictures
from jepa_lab.data.pixels import data_digest
from jepa_lab.data.stored_side import SPARE, stored_side
from tests.unit.data.files import write_image
from tests.unit.data.photographs import photographs, smooth_picture

SCALE, ASPECT = (0.3, 1.0), (3 / 4, 4 / 3)


def boxes_of(height: int, width: int, count: int) -> tuple[Tensor, Tensor]:
    """Boxes in pixels of a picture, and the picture's size as often."""
    sizes = torch.tensor([[height, width]]).expand(count, 2)
    return crop_boxes(draw_crops(count, torch.Generator().manual_seed(0)), sizes, SCALE, ASPECT), sizes


def crops_of_file(path: Path, side: int, image_size: int, count: int) -> tuple[Tensor, Tensor]:
    """Crops out of what is stored of a file, and torchvision's of the file itself, [count, 3, H, W] each."""
    pixels, (height, width) = decode_picture(path, side)
    boxes, sizes = boxes_of(height, width, count)
    stored = pixels[None].float().expand(count, -1, -1, -1)
    ours = crop_and_resize(stored, in_stored_pixels(boxes, sizes, side, side), image_size)
    original = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1).float()
    size = [image_size, image_size]
    theirs = [reference.resized_crop(original, *box, size=size, antialias=True) for box in boxes.tolist()]
    return ours, torch.stack(theirs)


@pytest.mark.parametrize("size", [(20, 20), (40, 20), (7, 50), (1, 2000)])
def test_the_whole_picture_is_resized_to_a_square_and_its_size_is_kept(tmp_path: Path, size: tuple[int, int]) -> None:
    write_image(tmp_path / "a.png", size=size)
    pixels, (height, width) = decode_picture(tmp_path / "a.png", 24)
    assert (width, height) == size
    expected = reference.resize(
        Image.open(tmp_path / "a.png"), [24, 24], interpolation=InterpolationMode.BILINEAR, antialias=True
    )
    assert np.array_equal(pixels.permute(1, 2, 0).numpy(), np.asarray(expected))


def test_the_size_is_that_of_the_picture_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 10)).save(tmp_path / "a.png", exif=exif)
    assert decode_picture(tmp_path / "a.png", 8)[1] == (30, 10)
    assert picture_size(tmp_path / "a.png") == (10, 30)


@pytest.mark.parametrize(("height", "width"), [(375, 500), (500, 375), (120, 700), (96, 96)])
def test_crops_of_a_smooth_picture_are_those_of_the_file(tmp_path: Path, height: int, width: int) -> None:
    write_image(tmp_path / "a.png", smooth_picture(height, width))
    ours, theirs = crops_of_file(tmp_path / "a.png", 96, 64, 40)
    assert (ours - theirs).abs().mean() < 0.5  # of 255
    assert (ours - theirs).abs().max() < 4


def test_crops_of_photographs_come_close_to_those_of_the_file_and_closer_than_out_of_a_store_without_spare(
    tmp_path: Path,
) -> None:
    for number, photograph in enumerate(photographs()):
        path = tmp_path / f"{number}.png"
        write_image(path, photograph)
        errors = []
        for side in (round(SPARE * 64), 64):
            ours, theirs = crops_of_file(path, side, 64, 30)
            errors.append(float((ours - theirs).abs().mean()))
        assert errors[0] < 3  # of 255
        assert errors[0] < 0.6 * errors[1]


def test_a_picture_that_is_stored_at_its_size_is_cropped_exactly(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", size=(48, 48))
    ours, theirs = crops_of_file(tmp_path / "a.png", 48, 32, 40)
    torch.testing.assert_close(ours, theirs, atol=1e-2, rtol=0)


def test_no_part_of_a_photograph_is_never_seen() -> None:
    """Until pictures were stored whole, a quarter of this one was cut off first."""
    boxes, _ = boxes_of(375, 500, 4000)
    seen = torch.zeros(375, 500, dtype=torch.bool)
    for top, left, height, width in boxes.tolist():
        seen[top : top + height, left : left + width] = True
    assert (~seen).double().mean() < 1e-3


def test_the_ends_of_a_wide_file_reach_the_encoder(tmp_path: Path) -> None:
    """A ramp over the columns of a file tells which of them a crop has seen."""
    write_image(tmp_path / "a.png", np.linspace(0, 255, 500)[None, :, None].repeat(375, 0).repeat(3, 2))
    pixels, size = decode_picture(tmp_path / "a.png", 48)
    images = (pixels.float() / 255).expand(1000, -1, -1, -1)
    sizes = torch.tensor([size], dtype=torch.int32).expand(1000, 2)
    result = Minimal(Minimal.Params(), 32)(images, sizes, torch.Generator().manual_seed(0))
    assert result.min() < 0.02
    assert result.max() > 0.98
    widths = (result.amax(dim=(1, 2, 3)) - result.amin(dim=(1, 2, 3))) * 500
    assert widths.min() > 190  # the narrowest crop: 0.3 of the area, 3:4
    assert widths.max() > 440


def test_crops_are_not_enlarged_on_average(tmp_path: Path) -> None:
    """In pixels of the store per pixel of the result, the geometric mean of both axes."""
    write_image(tmp_path / "a.png", size=(500, 375))
    boxes, sizes = boxes_of(375, 500, 20_000)

    def enlargement(side: int) -> float:
        stored = in_stored_pixels(boxes, sizes, side, side)
        return float((224 / (stored[:, 2] * stored[:, 3]).sqrt()).mean())

    default = stored_side(ImageFileSet(ImageFiles((tmp_path / "a.png",), None), None, (), "here"), 224, None)
    assert enlargement(default) < 1
    assert enlargement(224) > 1.3


def test_the_shape_of_a_crop_is_right_though_the_store_is_square(tmp_path: Path) -> None:
    """A disc stays a disc: crops of aspect ratio 1 out of a picture three times as wide as high."""
    y, x = np.mgrid[0:100, 0:300]
    disc = (np.hypot(y - 50, x - 150) < 30) * 255
    write_image(tmp_path / "a.png", disc[..., None].repeat(3, 2))
    pixels, size = decode_picture(tmp_path / "a.png", 150)
    sizes = torch.tensor([size])
    box = in_stored_pixels(torch.tensor([[0, 100, 100, 100]]), sizes, 150, 150)
    crop = crop_and_resize(pixels[None].float(), box, 100)[0, 0] > 127
    assert abs(int(crop.any(0).sum()) - 60) <= 2
    assert abs(int(crop.any(1).sum()) - 60) <= 2


def test_the_digest_tells_pictures_of_another_shape_with_the_same_stored_pixels() -> None:
    pixels = torch.zeros(3, 3, 8, 8, dtype=torch.uint8)

    def digest(*sizes: list[int]) -> str:
        return data_digest(
            ImageSplit(HeldPictures(Pictures(pixels, torch.tensor(sizes, dtype=torch.int32))), None), None
        )

    found = [digest([8, 8], [8, 8], [8, 8]), digest([8, 8], [8, 8], [8, 9]), digest([8, 8], [8, 9], [8, 8])]
    assert len({*found, data_digest(ImageSplit(pixels, None), None)}) == 4
