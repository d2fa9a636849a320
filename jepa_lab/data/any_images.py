"""Images as users hold them (files, Pillow's pictures, arrays, tensors) as squares of one size."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from jepa_lab.data.centre_squares import cut_out
from jepa_lab.data.decode import decode_image, square_of_picture
from jepa_lab.data.images import Pictures
from jepa_lab.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

    OneImage: TypeAlias = str | os.PathLike[str] | Image.Image | np.ndarray | Tensor
    AnyImages: TypeAlias = OneImage | Sequence[OneImage]

_LUMA = (0.299, 0.587, 0.114)  # ITU-R 601-2, as Pillow converts to grey


@dataclass(frozen=True)
class SquareForm:
    """What an encoder sees of a picture.

    Attributes:
        size: height and width in pixels. channels: 3 for RGB, 1 for grey.
        fraction: `size` over what the shorter side of a picture is resized to.
    """

    size: int
    channels: int
    fraction: float = 1.0

    def squares(self, images: AnyImages) -> Tensor:
        """The middle of each picture, as the encoder's probe saw pictures.

        Args:
            images: one image, or a sequence of images: the path of a file; a picture of Pillow; an array of numpy,
                uint8, [H, W], [H, W, C] or [B, H, W, C]; a tensor, uint8, [C, H, W] or [B, C, H, W].
        Returns:
            [B, C, size, size] uint8; B is 1 for one image.
        Raises:
            DataError: something is none of these, or cannot be decoded; which one, and why.
        """
        if not isinstance(images, list | tuple):
            return self._square(images, "the image")
        squares = [self._square(image, f"image {place}") for place, image in enumerate(images)]
        return torch.cat(squares) if squares else torch.zeros(0, self.channels, self.size, self.size, dtype=torch.uint8)

    def square_of_file(self, path: Path) -> Tensor:
        """[C, size, size] uint8.

        Raises:
            DataError: the file cannot be decoded.
        """
        try:
            pixels = decode_image(path, self.size, self.fraction)
        except DataError as error:  # its remedy is a setting of data sets
            raise DataError(error.rule, remedy="give the path of an image file") from error
        return self._with_channels(pixels[None])[0]

    def _square(self, image: Any, name: str) -> Tensor:
        """[b, C, size, size] uint8."""
        from PIL import Image

        if isinstance(image, str | os.PathLike):
            return self.square_of_file(Path(image))[None]
        if isinstance(image, Image.Image):
            return self._with_channels(square_of_picture(image, name, self.size, self.fraction)[None])
        if isinstance(image, np.ndarray):
            return self._of_tensor(_channels_first(image, name), name)
        if isinstance(image, Tensor):
            return self._of_tensor(image, name)
        raise DataError(
            f"{name} is a {type(image).__name__}; give the path of a file, a picture of Pillow, an array or a tensor"
        )

    def _of_tensor(self, pixels: Tensor, name: str) -> Tensor:
        batch = pixels[None] if pixels.ndim == 3 else pixels
        if pixels.dtype != torch.uint8 or batch.ndim != 4 or batch.shape[1] not in (1, 3):
            raise DataError(
                f"{name} is {str(pixels.dtype).removeprefix('torch.')} {list(pixels.shape)}; give uint8 pixels from 0 "
                "to 255, [B, C, H, W] or [C, H, W] with 1 or 3 channels (in arrays the channels come last)"
            )
        batch = self._with_channels(batch)
        if tuple(batch.shape[2:]) == (self.size, self.size) and self.fraction == 1:
            return batch
        return cut_out(Pictures(batch, None), self.size, self.fraction)

    def _with_channels(self, images: Tensor) -> Tensor:
        """Grey of RGB, or RGB of grey, [b, C, H, W]."""
        channels = images.shape[1]
        if channels == self.channels:
            return images
        if channels == 1:
            return images.expand(-1, self.channels, -1, -1)
        weights = torch.tensor(_LUMA, device=images.device)[:, None, None]
        return (images * weights).sum(dim=1, keepdim=True).round().to(torch.uint8)


def _channels_first(array: np.ndarray, name: str) -> Tensor:
    """[H, W], [H, W, C] or [B, H, W, C] with the channels first."""
    try:
        tensor = torch.from_numpy(np.ascontiguousarray(array))
    except TypeError:
        raise DataError(f"{name} is an array of {array.dtype}; give uint8 pixels from 0 to 255") from None
    if tensor.ndim == 2:
        return tensor[None]
    return tensor.movedim(-1, -3) if tensor.ndim in (3, 4) else tensor
