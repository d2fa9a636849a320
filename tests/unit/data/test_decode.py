import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

from jepa_lab.data.decode import decode_images
from jepa_lab.errors import DataError
from tests.unit.data.files import write_image


def decode_one(path: Path, size: int) -> np.ndarray:
    """[H, W, 3] uint8."""
    return decode_images([path], size)[0].permute(1, 2, 0).numpy()


def save(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


@pytest.mark.parametrize("size", [(20, 20), (40, 20), (20, 33), (7, 50), (9, 8), (21, 20)])
def test_the_shorter_side_is_resized_and_the_centre_kept_as_in_torchvision(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    write_image(tmp_path / "a.png", size=size)
    transform = Compose([Resize(20, InterpolationMode.BILINEAR), CenterCrop(20)])
    expected = np.asarray(transform(Image.open(tmp_path / "a.png")))
    assert np.array_equal(decode_one(tmp_path / "a.png", 20), expected)


def test_many_files_come_in_their_order(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(200)]
    for number, path in enumerate(paths):
        write_image(path, np.full((4, 4, 3), number))
    images = decode_images(paths, 4)
    assert images.shape == (200, 3, 4, 4)
    assert images.dtype == torch.uint8
    assert images[:, 0, 0, 0].tolist() == list(range(200))


def test_transparent_pixels_are_put_on_white(tmp_path: Path) -> None:
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[..., 0] = 200
    pixels[:2, :, 3] = 255
    result = decode_one(save(tmp_path / "a.png", Image.fromarray(pixels, "RGBA")), 4)
    assert (result[:2] == [200, 0, 0]).all()
    assert (result[2:] == 255).all()


def test_transparent_palette_and_grey_pixels_are_put_on_white(tmp_path: Path) -> None:
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    palette.putpixel((0, 0), 0)
    result = decode_one(save(tmp_path / "a.png", palette, transparency=0), 4)
    assert result[0, 0].tolist() == [255, 255, 255]
    assert result[3, 3].tolist() == [10, 20, 30]
    grey = Image.fromarray(np.dstack([np.full((4, 4), 90), np.eye(4) * 255]).astype(np.uint8), "LA")
    result = decode_one(save(tmp_path / "b.png", grey), 4)
    assert result[1, 1].tolist() == [90, 90, 90]
    assert result[0, 1].tolist() == [255, 255, 255]


@pytest.mark.parametrize(("mode", "value", "expected"), [("L", 77, [77] * 3), ("1", 1, [255] * 3)])
def test_grey_images_become_three_equal_channels(tmp_path: Path, mode: str, value: int, expected: list[int]) -> None:
    result = decode_one(save(tmp_path / "a.png", Image.new(mode, (4, 4), value)), 4)
    assert (result == expected).all()


def test_cmyk_images_become_rgb(tmp_path: Path) -> None:
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    result = decode_one(save(tmp_path / "a.jpg", image, quality=100), 8)
    assert np.abs(result.astype(int) - [255, 0, 0]).max() <= 3


def test_sixteen_bit_grey_is_scaled_rather_than_clipped(tmp_path: Path) -> None:
    pixels = np.array([[0, 257], [128 * 257, 65535]], dtype=np.uint16)
    result = decode_one(save(tmp_path / "a.png", Image.fromarray(pixels)), 2)
    assert result[..., 0].tolist() == [[0, 1], [128, 255]]


def test_floating_point_pixels_are_refused_by_name(tmp_path: Path) -> None:
    path = save(tmp_path / "a.tiff", Image.fromarray(np.zeros((4, 4), np.float32)))
    with pytest.raises(DataError, match=r"a.tiff cannot be decoded .*convert it to 8 bits"):
        decode_images([path], 4)


def test_the_orientation_of_a_camera_is_applied(tmp_path: Path) -> None:
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:, :4] = 255  # left half white
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    result = decode_one(save(tmp_path / "a.png", Image.fromarray(pixels), exif=exif), 8)
    assert (result[:4] == 255).all()
    assert (result[4:] == 0).all()


def test_the_first_frame_of_an_animation_counts(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ((255, 0, 0), (0, 255, 0))]
    path = save(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:])
    assert (decode_one(path, 4) == [255, 0, 0]).all()


def jpeg_bytes() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.RandomState(0).randint(0, 256, (64, 64, 3)).astype(np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def png_bytes() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.RandomState(0).randint(0, 256, (64, 64, 3)).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("cut.jpg", jpeg_bytes()[:1000]),
        ("cut.png", png_bytes()[:1000]),
        ("flipped.png", png_bytes()[:60] + b"\xff\x00\xff" + png_bytes()[63:]),
        ("empty.jpg", b""),
        ("text.png", b"this is not an image"),
    ],
)
def test_a_broken_file_is_named_with_a_remedy(tmp_path: Path, name: str, content: bytes) -> None:
    write_image(tmp_path / "good.png", size=(64, 64))
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        decode_images([tmp_path / "good.png", tmp_path / name], 8)
    assert str(tmp_path / name) in str(caught.value)
    assert "remove it" in str(caught.value)


def test_the_first_of_several_broken_files_is_named(tmp_path: Path) -> None:
    write_image(tmp_path / "good.png")
    paths = [tmp_path / "good.png"] * 300
    for place in (250, 150, 200):
        paths[place] = tmp_path / f"broken_{place}.png"
        paths[place].write_bytes(b"no")
    with pytest.raises(DataError, match=r"broken_150.png"):
        decode_images(paths, 4)


def test_a_file_that_vanished_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone.png cannot be decoded"):
        decode_images([tmp_path / "gone.png"], 4)
