"""The rules of `decode_image` for pixel formats, each against pixels computed without Pillow."""

import os
import signal
import struct
import sys
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile
from torchvision.transforms.v2 import functional

from jepa_lab.data.decode import QUIET_PILLOW, decode_image
from jepa_lab.errors import DataError

SIZE = 8
RANDOM = np.random.RandomState(0)
COLOURS = RANDOM.randint(0, 256, (SIZE, SIZE, 3)).astype(np.uint8)
ALPHA = RANDOM.randint(0, 256, (SIZE, SIZE)).astype(np.uint8)
SIXTEEN = RANDOM.randint(0, 65536, (SIZE, SIZE)).astype(np.uint16)


def decoded(path: Path, size: int = SIZE) -> np.ndarray:
    """[H, W, 3] uint8."""
    return decode_image(path, size).permute(1, 2, 0).numpy()


def on_white(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Colours [H, W, C] over white, alpha [H, W] in 0 to 255; [H, W, C] float64."""
    opacity = alpha[..., None] / 255
    return colours * opacity + 255 * (1 - opacity)


def grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[..., None], 3, axis=2)


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(rows: np.ndarray, depth: int, colour_type: int, width: int, *extra: bytes) -> bytes:
    """A PNG from its packed rows [H, bytes a row]."""
    header = struct.pack(">IIBBBBB", width, len(rows), depth, colour_type, 0, 0, 0)
    content = b"".join(b"\0" + row.tobytes() for row in rows)
    chunks = [png_chunk(b"IHDR", header), *extra, png_chunk(b"IDAT", zlib.compress(content)), png_chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def tiff(pixels: np.ndarray, order: str, photometric: int = 1, sample_format: int = 1, bits: int = 0) -> bytes:
    """An uncompressed TIFF of one sample a pixel (or three); `order` is '<' or '>'."""
    samples = 1 if pixels.ndim == 2 else pixels.shape[2]
    raw = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    bits = bits or pixels.dtype.itemsize * 8
    entries = [
        (256, 4, 1, pixels.shape[1]),
        (257, 4, 1, pixels.shape[0]),
        (258, 3, 1, bits),
        (259, 3, 1, 1),
        (262, 3, 1, photometric),
        (273, 4, 1, 8),
        (277, 3, 1, samples),
        (278, 4, 1, pixels.shape[0]),
        (279, 4, 1, len(raw)),
        (339, 3, 1, sample_format),
    ]
    table_at = 8 + len(raw)
    extra = b""
    if samples == 3:
        after = table_at + 2 + 12 * len(entries) + 4
        entries[2] = (258, 3, 3, after)
        extra = struct.pack(f"{order}3H", bits, bits, bits)
    table = struct.pack(f"{order}H", len(entries))
    for tag, kind, count, value in entries:
        short = kind == 3 and count == 1
        table += struct.pack(f"{order}HHI", tag, kind, count)
        table += struct.pack(f"{order}HH" if short else f"{order}I", *((value, 0) if short else (value,)))
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", table_at)
    return start + raw + table + struct.pack(f"{order}I", 0) + extra


def test_alpha_is_put_on_white_in_proportion(tmp_path: Path) -> None:
    Image.fromarray(np.dstack([COLOURS, ALPHA])).save(tmp_path / "a.png")
    assert np.abs(decoded(tmp_path / "a.png") - on_white(COLOURS, ALPHA)).max() <= 1
    Image.fromarray(np.dstack([COLOURS[..., 0], ALPHA])).save(tmp_path / "b.png")
    assert np.abs(decoded(tmp_path / "b.png") - grey(on_white(COLOURS[..., :1], ALPHA)[..., 0])).max() <= 1
    Image.fromarray(np.dstack([COLOURS, ALPHA])).save(tmp_path / "c.webp", lossless=True, exact=True)
    assert np.abs(decoded(tmp_path / "c.webp") - on_white(COLOURS, ALPHA)).max() <= 1
    Image.fromarray(np.dstack([COLOURS, ALPHA])).save(tmp_path / "d.tif")
    assert np.abs(decoded(tmp_path / "d.tif") - on_white(COLOURS, ALPHA)).max() <= 1


@pytest.mark.parametrize("extension", ["png", "gif", "bmp", "tif"])
def test_palette_indices_become_the_colours_of_the_palette(tmp_path: Path, extension: str) -> None:
    palette, indices = RANDOM.randint(0, 256, (16, 3)), RANDOM.randint(0, 16, (SIZE, SIZE)).astype(np.uint8)
    image = Image.fromarray(indices, "L")
    image.putpalette(palette.astype(np.uint8).tobytes())
    image.save(tmp_path / f"a.{extension}")
    assert np.array_equal(decoded(tmp_path / f"a.{extension}"), palette[indices])


def test_partly_transparent_palette_entries_are_put_on_white(tmp_path: Path) -> None:
    palette = RANDOM.randint(0, 256, (4, 3)).astype(np.uint8)
    alpha, indices = np.array([0, 90, 200, 255], np.uint8), RANDOM.randint(0, 4, (SIZE, SIZE)).astype(np.uint8)
    chunks = (png_chunk(b"PLTE", palette.tobytes()), png_chunk(b"tRNS", alpha.tobytes()))
    (tmp_path / "a.png").write_bytes(png(indices, 8, 3, SIZE, *chunks))
    assert np.abs(decoded(tmp_path / "a.png") - on_white(palette[indices], alpha[indices])).max() <= 1


def test_the_transparent_colour_of_an_image_without_alpha_becomes_white(tmp_path: Path) -> None:
    colours, chosen = COLOURS.copy(), COLOURS[2, 3]
    chunk = png_chunk(b"tRNS", struct.pack(">3H", *map(int, chosen)))
    (tmp_path / "a.png").write_bytes(png(colours.reshape(SIZE, -1), 8, 2, SIZE, chunk))
    colours[2, 3] = 255
    assert np.array_equal(decoded(tmp_path / "a.png"), colours)
    values = SIXTEEN.astype(">u2")
    chunk = png_chunk(b"tRNS", struct.pack(">H", int(SIXTEEN[4, 5])))
    (tmp_path / "b.png").write_bytes(png(values, 16, 0, SIZE, chunk))
    expected = (SIXTEEN / 257).round()
    expected[4, 5] = 255
    assert np.array_equal(decoded(tmp_path / "b.png"), grey(expected))


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_grey_of_few_bits_spans_black_to_white(tmp_path: Path, depth: int) -> None:
    levels = 2**depth
    values = RANDOM.randint(0, levels, (SIZE, SIZE))
    bits = (values[..., None] >> np.arange(depth)[::-1]) & 1
    (tmp_path / "a.png").write_bytes(png(np.packbits(bits.reshape(SIZE, -1), axis=1), depth, 0, SIZE))
    assert np.array_equal(decoded(tmp_path / "a.png"), grey(values * 255 // (levels - 1)))


def sixteen_bit_files() -> dict[str, bytes]:
    pgm = b"P5\n%d %d\n65535\n" % (SIZE, SIZE) + SIXTEEN.astype(">u2").tobytes()
    return {
        "a.png": png(SIXTEEN.astype(">u2"), 16, 0, SIZE),
        "little.tif": tiff(SIXTEEN, "<"),
        "big.tif": tiff(SIXTEEN, ">"),
        "a.pgm": pgm,
    }


@pytest.mark.parametrize("name", sorted(sixteen_bit_files()))
def test_sixteen_bit_grey_is_divided_by_257(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(sixteen_bit_files()[name])
    assert np.array_equal(decoded(tmp_path / name), grey((SIXTEEN / 257).round()))


def test_sixteen_bit_colour_keeps_the_higher_eight_bits(tmp_path: Path) -> None:
    values = RANDOM.randint(0, 65536, (SIZE, SIZE, 3)).astype(np.uint16)
    (tmp_path / "a.png").write_bytes(png(values.astype(">u2").reshape(SIZE, -1), 16, 2, SIZE))
    assert np.array_equal(decoded(tmp_path / "a.png"), values >> 8)
    (tmp_path / "a.tif").write_bytes(tiff(values, ">", photometric=2))
    assert np.array_equal(decoded(tmp_path / "a.tif"), values >> 8)


@pytest.mark.parametrize(
    ("content", "mode"),
    [
        (tiff(np.zeros((SIZE, SIZE), np.uint32), "<"), "I"),
        (tiff(np.zeros((SIZE, SIZE), np.int32), ">", sample_format=2), "I"),
        (tiff(np.zeros((SIZE, SIZE), np.int16), "<", sample_format=2), "I"),
        (tiff(np.zeros((SIZE, SIZE), np.float32), "<", sample_format=3), "F"),
        (tiff(np.zeros((SIZE, SIZE, 3), np.uint8), "<", photometric=8), "LAB"),
        (tiff(np.zeros((SIZE, SIZE * 3 // 4), np.uint16), "<", bits=12), "I;16"),
    ],
    ids=["uint32", "int32", "int16", "float32", "LAB", "12 bits"],
)
def test_pixels_without_a_rule_are_refused_by_name(tmp_path: Path, content: bytes, mode: str) -> None:
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(
        DataError, match=rf"a.tif cannot .*pixel format {mode} .*convert it.*remove it.*on_bad_image=skip"
    ):
        decode_image(tmp_path / "a.tif", SIZE)


def test_inverted_cmyk_of_adobe_is_read_as_ink(tmp_path: Path) -> None:
    inks = np.zeros((SIZE * 4, SIZE * 4, 4), np.uint8)
    inks[:16, :, 0], inks[:, :16, 1], inks[16:, 16:, 2], inks[8:24, 8:24, 3] = 200, 120, 255, 60
    Image.fromarray(inks, "CMYK").save(tmp_path / "a.jpg", quality=100, subsampling=0)
    assert b"Adobe" in (tmp_path / "a.jpg").read_bytes()
    expected = (255 - inks[..., :3].astype(float)) * (255 - inks[..., 3:].astype(float)) / 255
    assert np.abs(decoded(tmp_path / "a.jpg", SIZE * 4) - expected).max() <= 6


def test_cmyk_and_ycbcr_of_a_tiff_become_rgb_by_their_formulas(tmp_path: Path) -> None:
    inks = np.dstack([COLOURS, ALPHA]).astype(float)
    Image.fromarray(inks.astype(np.uint8), "CMYK").save(tmp_path / "a.tif")
    expected = (255 - inks[..., :3]) * (255 - inks[..., 3:]) / 255
    assert np.abs(decoded(tmp_path / "a.tif") - expected).max() <= 1
    Image.fromarray(COLOURS, "YCbCr").save(tmp_path / "b.tif")
    luma, blue, red = (COLOURS[..., channel].astype(float) for channel in range(3))
    blue, red = blue - 128, red - 128
    expected = np.dstack([luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue])
    assert np.abs(decoded(tmp_path / "b.tif") - expected.clip(0, 255)).max() <= 1


# What the stored picture must go through to stand upright: EXIF 2.3, tag 0x0112.
UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: np.rot90(pixels, 1),
}


@pytest.mark.parametrize("extension", ["png", "tif", "webp", "jpg"])
@pytest.mark.parametrize("orientation", sorted(UPRIGHT))
def test_every_orientation_of_a_camera_is_applied_once(tmp_path: Path, orientation: int, extension: str) -> None:
    pixels = np.zeros((SIZE * 2, SIZE * 2, 3), np.uint8)
    pixels[:SIZE, :SIZE], pixels[:SIZE, SIZE:], pixels[SIZE:, :SIZE] = 255, 160, 80
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"webp": {"lossless": True}, "jpg": {"quality": 100, "subsampling": 0}}.get(extension, {})
    Image.fromarray(pixels).save(tmp_path / f"a.{extension}", exif=exif, **options)
    result = decoded(tmp_path / f"a.{extension}", SIZE * 2).astype(int)
    assert np.abs(result - UPRIGHT[orientation](pixels)).max() <= 2


def test_sixteen_bit_grey_may_be_turned(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(SIXTEEN).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(decoded(tmp_path / "a.png"), grey(np.rot90((SIXTEEN / 257).round(), -1)))


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0",
        b"Exif\0\0garbage!",
        b"Exif\0\0II*\0\xff\xff\xff\x7f",
        b"Exif\0\0MM\0*\0\0\0\x08\x00\x02\x01\x12\x00\x03\x00\x00\x00\x01",
        b"Exif\0\0MM\0*\0\0\0\x08\x00\x01\x01\x12\x00\x02\x00\x00\x00\x04six\0\0\0\0\0",
        b"Exif\0\0MM\0*\0\0\0\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x63\x00\x00\x00\x00\x00\x00",
    ],
    ids=["empty", "garbage", "far offset", "cut", "text", "99"],
)
def test_broken_exif_does_not_cost_a_good_image(tmp_path: Path, exif: bytes) -> None:
    Image.fromarray(COLOURS).save(tmp_path / "good.jpg")
    Image.fromarray(COLOURS).save(tmp_path / "a.jpg", exif=exif)
    assert np.array_equal(decoded(tmp_path / "a.jpg"), decoded(tmp_path / "good.jpg"))
    Image.fromarray(COLOURS).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(decoded(tmp_path / "a.png"), COLOURS)


@pytest.mark.parametrize(
    ("extension", "options"), [("gif", {}), ("webp", {"lossless": True}), ("png", {}), ("tif", {})]
)
def test_the_first_of_several_pictures_counts(tmp_path: Path, extension: str, options: dict[str, bool]) -> None:
    frames = [Image.new("RGB", (SIZE, SIZE), colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    frames[0].save(tmp_path / f"a.{extension}", save_all=True, append_images=frames[1:], **options)
    assert (decoded(tmp_path / f"a.{extension}") == [255, 0, 0]).all()


def test_the_main_picture_of_an_mpo_counts(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (SIZE, SIZE), colour) for colour in ((250, 0, 0), (0, 250, 0))]
    frames[0].save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=frames[1:], quality=100)
    assert np.abs(decoded(tmp_path / "a.jpg").astype(int) - [250, 0, 0]).max() <= 3


def test_the_content_decides_the_format_and_not_the_extension(tmp_path: Path) -> None:
    Image.fromarray(COLOURS).save(tmp_path / "a.jpg", "PNG")
    assert np.array_equal(decoded(tmp_path / "a.jpg"), COLOURS)


def test_formats_that_need_other_programs_are_never_opened(tmp_path: Path) -> None:
    Image.fromarray(COLOURS).save(tmp_path / "a.png", "EPS")
    with pytest.raises(DataError, match=r"a.png cannot be decoded as an image \(it is not one of BMP, "):
        decode_image(tmp_path / "a.png", SIZE)


def test_an_empty_file_is_called_empty(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    with pytest.raises(DataError, match=r"a.jpg cannot be decoded as an image \(it is empty\); .*on_bad_image=skip"):
        decode_image(tmp_path / "a.jpg", SIZE)


def test_colour_profiles_are_left_out_of_account(tmp_path: Path) -> None:
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    Image.fromarray(COLOURS).save(tmp_path / "a.png", icc_profile=profile)
    assert np.array_equal(decoded(tmp_path / "a.png"), COLOURS)


@pytest.mark.parametrize(("width", "height"), [(1, 5000), (4999, 1), (1, 1), (3, 1)])
def test_any_shape_of_image_becomes_a_square_from_its_centre(tmp_path: Path, width: int, height: int) -> None:
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[[(height - 1) // 2, height // 2], [(width - 1) // 2, width // 2]] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = decode_image(tmp_path / "a.png", SIZE)
    assert image.shape == (3, SIZE, SIZE)
    assert image[:, SIZE // 2 - 1 : SIZE // 2 + 1, SIZE // 2 - 1 : SIZE // 2 + 1].min() > 100


@pytest.mark.parametrize("shape", [(2_000_000, 1), (1, 2_000_001)], ids=["high", "wide"])
def test_a_line_of_pixels_is_cut_before_it_is_enlarged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int]
) -> None:
    """Enlarged whole it would take gigabytes, from a file of a few kilobytes."""
    pixels = np.zeros(shape, np.uint8)
    pixels[[(shape[0] - 1) // 2, shape[0] // 2], [(shape[1] - 1) // 2, shape[1] // 2]] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    resize = functional.resize

    def bounded_resize(image: Image.Image, *arguments: Any, **keywords: Any) -> Any:
        assert max(image.size) < 100 * min(image.size)
        return resize(image, *arguments, **keywords)

    monkeypatch.setattr(functional, "resize", bounded_resize)
    image = decode_image(tmp_path / "a.png", SIZE)
    assert image[:, SIZE // 2 - 1 : SIZE // 2 + 1, SIZE // 2 - 1 : SIZE // 2 + 1].min() > 100


def test_a_decompression_bomb_is_refused_and_half_of_one_is_not_warned_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)
    Image.fromarray(COLOURS).save(tmp_path / "a.png")  # 64 pixels
    assert np.array_equal(decoded(tmp_path / "a.png"), COLOURS)  # every warning is an error in tests
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 31)
    with pytest.raises(DataError, match=r"a.png cannot be decoded .*64 pixels\) exceeds limit of 62 pixels"):
        decode_image(tmp_path / "a.png", SIZE)


def test_decoding_leaves_the_filters_of_warnings_as_they_were(tmp_path: Path) -> None:
    Image.fromarray(COLOURS).save(tmp_path / "a.png")
    before = list(warnings.filters)
    decode_image(tmp_path / "a.png", SIZE)
    (tmp_path / "b.png").touch()
    with pytest.raises(DataError):
        decode_image(tmp_path / "b.png", SIZE)
    assert warnings.filters == before


def test_decoding_in_threads_leaves_the_filters_of_warnings_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)  # each image would warn
    Image.fromarray(COLOURS).save(tmp_path / "a.png")
    before, interval = list(warnings.filters), sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: decode_image(tmp_path / "a.png", SIZE), range(300)))
    finally:
        sys.setswitchinterval(interval)
    assert warnings.filters == before


def small_files(folder: Path) -> list[Path]:
    """One small file of every format and of every kind of compression."""
    image = Image.fromarray(RANDOM.randint(0, 256, (12, 12, 3)).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    second = [Image.new("RGB", (12, 12), "red")]
    options: dict[str, dict[str, object]] = {
        "rgb.png": {"exif": exif},
        "animated.png": {"save_all": True, "append_images": second},
        "a.jpg": {"exif": exif},
        "progressive.jpg": {"progressive": True},
        "a.gif": {},
        "animated.gif": {"save_all": True, "append_images": second},
        "a.bmp": {},
        "a.ppm": {},
        "a.tif": {},
        "lzw.tif": {"compression": "tiff_lzw"},
        "deflate.tif": {"compression": "tiff_adobe_deflate"},
        "jpeg.tif": {"compression": "jpeg"},
        "a.webp": {"exif": exif},
        "lossless.webp": {"lossless": True},
        "animated.webp": {"save_all": True, "append_images": second},
    }
    for name, keywords in options.items():
        image.save(folder / name, **keywords)
    image.quantize(8).save(folder / "palette.png", transparency=bytes([0, 100, 255]))
    image.convert("CMYK").save(folder / "cmyk.jpg")
    image.convert("1").save(folder / "fax.tif", compression="group4")
    Image.fromarray(SIXTEEN).save(folder / "grey.png")
    Image.fromarray(SIXTEEN).save(folder / "grey.tif")
    return sorted(folder.iterdir())


def test_half_a_file_is_refused_in_every_format(tmp_path: Path) -> None:
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
    for path in small_files(tmp_path):
        decode_image(path, SIZE)
        content = path.read_bytes()
        size = len(content) // (4 if "animated" in path.name else 2)  # the first picture is what must be there
        path.write_bytes(content[:size])
        with pytest.raises(DataError, match=path.name):
            decode_image(path, SIZE)


@pytest.mark.parametrize("times", [40, pytest.param(1000, marks=pytest.mark.slow)])
def test_damaged_files_give_an_image_or_a_data_error_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1 << 16)  # or flipped bits of a size cost seconds
    random = np.random.RandomState(1)
    refused = 0
    for path in small_files(tmp_path):
        whole = np.frombuffer(path.read_bytes(), np.uint8)
        for _ in range(times):
            content = whole.copy()
            places = random.randint(0, len(content), random.choice([1, 1, 2, 8]))
            content[places] = random.randint(0, 256, len(places))
            path.write_bytes(content[: random.choice([len(content), random.randint(0, len(content))])].tobytes())
            try:
                image = decode_image(path, SIZE)
            except DataError as error:
                assert str(path) in str(error)  # noqa: PT017
                refused += 1
            else:
                assert image.shape == (3, SIZE, SIZE)
                assert image.dtype == torch.uint8
    assert refused > times


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_process_forked_while_another_thread_begins_to_decode_can_decode(tmp_path: Path) -> None:
    Image.fromarray(COLOURS).save(tmp_path / "a.png")
    decode_image(tmp_path / "a.png", SIZE)
    with QUIET_PILLOW._lock:  # where another thread may stand at the moment of the fork
        child = os.fork()
        if child == 0:
            signal.alarm(20)  # ends the child where it waits forever
            decode_image(tmp_path / "a.png", SIZE)
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
