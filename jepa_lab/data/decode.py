"""Decodes image files to uint8 tensors."""

from __future__ import annotations

import os
import struct
import sys
import threading
import warnings
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from jepa_lab.errors import DataError, Key, Problem

if TYPE_CHECKING:
    from PIL import Image

FILES_A_TASK = 64
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
CONVERTIBLE_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")
EXIF_ORIENTATION = 0x0112
MAX_ASPECT = 32
TIFF_BITS_PER_SAMPLE = 258

# What Pillow's readers raise for broken files; fuzzing finds them all.
BROKEN_FILE = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    RuntimeError,
    struct.error,
    zlib.error,
)


class _QuietPillow:
    """While at least one thread decodes, Pillow's warnings are neither printed nor raised.

    `warnings.catch_warnings` alone is not safe in threads: two that overlap may leave each other's filters behind.
    Here the first to come sets the filter, and the last to go restores what was before.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._before = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            self._users += 1
            if self._users == 1:
                self._before = warnings.catch_warnings()
                self._before.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\.")

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._before.__exit__(None, None, None)


QUIET_PILLOW = _QuietPillow()
if sys.platform != "win32":
    # A thread may hold the lock at the moment of a fork, and does not exist in the child to let it go.
    os.register_at_fork(after_in_child=QUIET_PILLOW.__init__)  # type: ignore[misc]


def decode_images(files: Sequence[Path], image_size: int) -> Tensor:
    """Decode files by the rules of `decode_image`; Pillow releases the interpreter's lock, so threads help.

    Returns:
        [n, 3, image_size, image_size] uint8, in the order of the files.
    Raises:
        DataError: if a file cannot be decoded: the first such file.
    """
    images = torch.empty(len(files), 3, image_size, image_size, dtype=torch.uint8)

    def decode_task(start: int) -> None:
        for index in range(start, min(start + FILES_A_TASK, len(files))):
            images[index] = decode_image(files[index], image_size)

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        for _ in pool.map(decode_task, range(0, len(files), FILES_A_TASK)):
            pass  # results are already in place; iterating raises what a task raised, the first file first
    return images


def decode_picture(path: Path, side: int) -> tuple[Tensor, tuple[int, int]]:
    """Decode one file to an RGB image of the whole picture, resized to a square whatever its shape.

    The content decides the format, not the file's extension: BMP, GIF, JPEG (and MPO), PNG, PPM (PGM, PBM), TIFF
    or WebP. Nothing else is tried: Pillow would run Ghostscript for EPS. The first image of a file counts:
    of an animation the first frame (of an APNG its default image, which may stand outside the animation), of a
    TIFF the first page, of an MPO the main picture. The rules for pixels, each pinned by a test:

    ======================================  ==========================================================================
    in the file                             becomes
    ======================================  ==========================================================================
    RGB, 8 bits                             itself
    grey and 1-bit; palette                 three equal channels; the palette's colours
    transparency (alpha, palette, colour)   put on white in proportion to alpha
    CMYK, YCbCr                             RGB by Pillow's formulas, (255 - C) (255 - K) / 255 and JPEG's; JPEG stores
                                            CMYK inverted, as Adobe does, and is read so
    16-bit grey (PNG, TIFF, PGM)            divided by 257 and rounded: 65535 is 255
    16-bit colour, 16-bit grey with alpha   the higher 8 bits (PNG, TIFF), scaled to 8 bits (PPM), by Pillow; the one
                                            transparent colour that such a PNG may name is left out of account
    32-bit integers, floats, signed or      refused by name: the range of the values is unknown, or Pillow has no
    12-bit grey, LAB                        formula
    EXIF orientation                        applied, all eight; EXIF that cannot be read counts as none
    colour profile (ICC), gamma             left out of account: the numbers are taken as sRGB
    over 2 x `PIL.Image.MAX_IMAGE_PIXELS`   refused (a decompression bomb, about 179 million pixels); smaller images
                                            are decoded, without Pillow's warning at half of that
    truncated, empty, no image              refused
    ======================================  ==========================================================================

    The whole picture is resized to `side` x `side` (bilinear, antialiased), each axis by its own factor. Warnings of
    Pillow are about metadata, or covered by these rules: none is shown, nor becomes an error.

    Returns:
        [3, side, side] uint8, and height and width of the picture in the file (turned upright).
    Raises:
        DataError: if the file cannot be decoded; names it, the reason and the remedy.
    """
    size = (0, 0)

    def squeeze(image: Image.Image) -> Image.Image:
        nonlocal size
        size = (image.height, image.width)
        return _resized(image, [side, side])

    return _decoded(path, squeeze), size


def decode_image(path: Path, image_size: int, fraction: float = 1.0) -> Tensor:
    """Decode one file to the square in the middle of the picture, by the rules of `decode_picture` for pixels.

    The shorter side is resized to `image_size / fraction` (bilinear, antialiased), then the centre is cut out; of an
    image that is over 32 times as long as wide, the ends are cut off before that, or it would be enlarged to gigabytes.

    Returns:
        [3, image_size, image_size] uint8.
    Raises:
        DataError: if the file cannot be decoded; names it, the reason and the remedy.
    """
    return _decoded(path, lambda image: _shorter_side_and_centre(image, image_size, fraction))


def square_of_picture(image: Image.Image, name: str, image_size: int, fraction: float = 1.0) -> Tensor:
    """`decode_image` of a picture that Pillow has opened already.

    Args:
        name: of the picture, for messages.
    Raises:
        DataError: its pixels cannot be read, or have no known range or formula.
    """
    try:
        with QUIET_PILLOW:
            image.load()
            fitted = _shorter_side_and_centre(_to_rgb(_upright(image)), image_size, fraction)
    except BROKEN_FILE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{name} cannot be read as an image ({reason}); leave it out, or convert it") from error
    return torch.from_numpy(np.array(fitted)).permute(2, 0, 1)  # [3, H, W]


def picture_size(path: Path) -> tuple[int, int] | None:
    """Height and width that a file's header tells, before any turning; None for a file that has none."""
    from PIL import Image

    try:
        with QUIET_PILLOW, path.open("rb") as file, Image.open(file, formats=FORMATS) as opened:
            return opened.height, opened.width
    except (*BROKEN_FILE, Image.DecompressionBombError):  # decoding it is what fails, and says why
        return None


def _decoded(path: Path, fit: Callable[[Image.Image], Image.Image]) -> Tensor:
    """A file's RGB pixels, brought to their size by `fit`, [3, H, W] uint8."""
    from PIL import Image, UnidentifiedImageError

    try:
        with QUIET_PILLOW, path.open("rb") as file, Image.open(file, formats=FORMATS) as opened:
            opened.load()
            image = fit(_to_rgb(_upright(opened)))
    except UnidentifiedImageError as error:
        reason = f"it is not one of {', '.join(FORMATS)}" if path.stat().st_size else "it is empty"
        raise undecodable(_problem(path, reason)) from error
    except (*BROKEN_FILE, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise undecodable(_problem(path, reason)) from error
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)  # [3, H, W]


def undecodable(problem: str) -> DataError:
    """The error for a file that cannot be decoded.

    Args:
        problem: which file, and why not.
    """
    remedy = Problem("replace the file or remove it from the folder, or set ", Key("on_bad_image"), "=skip")
    return DataError(problem, remedy=remedy)


def _problem(path: Path, reason: str) -> str:
    return f"{path} cannot be decoded as an image ({reason})"


def _upright(image: Image.Image) -> Image.Image:
    """A decoded image, turned and mirrored as its EXIF orientation says.

    `ImageOps.exif_transpose` would also rewrite the metadata, and fails on some that are broken.
    """
    from PIL import Image

    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    try:
        orientation = image.getexif().get(EXIF_ORIENTATION)
    except BROKEN_FILE:  # the pixels are decoded already: broken metadata are no reason to lose them
        return image
    if not isinstance(orientation, int) or orientation not in turns:
        return image
    turned = image.transpose(turns[orientation])
    turned.format = image.format
    return turned


def _to_rgb(image: Image.Image) -> Image.Image:
    """RGB by the rules of `decode_picture`.

    Raises:
        ValueError: for pixels without a known range or formula.
    """
    from PIL import Image

    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if _is_sixteen_bit_grey(image):
        values = np.asarray(image)
        grey = (values / 257).round().astype(np.uint8)  # 65535 / 257 = 255
        if "transparency" in image.info:  # one grey value
            grey[values == image.info["transparency"]] = 255
        return Image.fromarray(grey).convert("RGB")
    if image.mode not in CONVERTIBLE_MODES:
        raise ValueError(
            f"pixel format {image.mode} has no known range or no formula; convert it to 8 bits a channel, grey or RGB"
        )
    if image.has_transparency_data:
        colours = image.convert("RGBA")
        white = Image.new("RGBA", colours.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, colours).convert("RGB")
    return image.convert("RGB")


def _is_sixteen_bit_grey(image: Image.Image) -> bool:
    """Whether the values range from 0 to 65535.

    Pillow has its own mode for this, but reads PGM and, before version 11, PNG into 32-bit integers. TIFF with
    12 bits shares the mode, with another range.
    """
    if image.mode == "I":
        return image.format in ("PNG", "PPM")
    bits = getattr(image, "tag_v2", {}).get(TIFF_BITS_PER_SAMPLE, (16,))
    return image.mode.startswith("I;16") and bits == (16,)


def _shorter_side_and_centre(image: Image.Image, size: int, fraction: float) -> Image.Image:
    """Resize the shorter side to `size / fraction` and cut out the centre by torchvision's transforms."""
    from torchvision.transforms.v2 import functional

    return functional.center_crop(_resized(_without_far_ends(image), [round(size / fraction)]), [size, size])


def _resized(image: Image.Image, size: list[int]) -> Image.Image:
    """Resized as torchvision does it; one number is that of the shorter side."""
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional

    return functional.resize(image, size, interpolation=InterpolationMode.BILINEAR, antialias=True)


def _without_far_ends(image: Image.Image) -> Image.Image:
    """The middle of an image that is far longer than wide, around the same centre."""
    longest = MAX_ASPECT * min(image.size)
    width, height = (min(side, longest + (side - longest) % 2) for side in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image if (width, height) == image.size else image.crop((left, top, left + width, top + height))
