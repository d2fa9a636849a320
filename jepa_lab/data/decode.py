"""Decodes image files to uint8 tensors."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from jepa_lab.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

FILES_A_TASK = 64


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


def decode_image(path: Path, image_size: int) -> Tensor:
    """Decode one file to a square RGB image.

    Rules: the EXIF orientation is applied; transparent pixels are put on white; 16-bit grey is scaled to
    8 bits; palette, grey and CMYK become RGB; of an animation the first frame counts. The shorter side is
    resized to `image_size` (bilinear, antialiased), then the centre is cut out.

    Returns:
        [3, image_size, image_size] uint8.
    Raises:
        DataError: if the file cannot be decoded; names it.
    """
    from PIL import Image, ImageOps

    # What Pillow's readers raise for broken files; UnidentifiedImageError is an OSError.
    broken = (
        OSError,
        EOFError,
        SyntaxError,
        ValueError,
        struct.error,
        zlib.error,
        Image.DecompressionBombError,
    )
    try:
        with Image.open(path) as opened:
            image = _shorter_side_and_centre(_to_rgb(ImageOps.exif_transpose(opened)), image_size)
    except broken as error:
        raise DataError(
            f"{path} cannot be decoded as an image ({error}); replace the file or remove it from the folder"
        ) from error
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)  # [3, H, W]


def _to_rgb(image: Image.Image) -> Image.Image:
    """RGB by the rules of `decode_image`.

    Raises:
        ValueError: for pixels without a known range (32-bit integers, floats).
    """
    from PIL import Image

    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16"):
        grey = (np.asarray(image).astype(np.float64) / 257).round().astype(np.uint8)  # 65535 / 257 = 255
        return Image.fromarray(grey).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError(f"pixel format {image.mode} has no known range; convert it to 8 bits a channel")
    if image.has_transparency_data:
        colours = image.convert("RGBA")
        white = Image.new("RGBA", colours.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, colours).convert("RGB")
    return image.convert("RGB")


def _shorter_side_and_centre(image: Image.Image, size: int) -> Image.Image:
    """Resize the shorter side to `size` and cut out the centre, as torchvision's Resize and CenterCrop do."""
    from PIL import Image

    width, height = image.size
    shorter = min(width, height)
    if shorter != size:
        width, height = width * size // shorter, height * size // shorter
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    if (width, height) == (size, size):
        return image
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image.crop((left, top, left + size, top + size))
