"""Synthetic: coloured shapes of any size, drawn from a seed; for tests and first trials."""

from __future__ import annotations

from collections.abc import Callable

import torch
from pydantic import Field
from torch import Tensor

from jepa_lab.data.base import DATASETS, ImageData, ImageDataset, ImageSplit
from jepa_lab.data.pixels import data_digest
from jepa_lab.registry import ComponentParams

CHUNK_PIXELS = 1 << 22

# Each gives the signed distance (about; negative inside) from the outline of a shape of radius 1 at (x, y).
SHAPES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "disc": lambda x, y: torch.hypot(x, y) - 1,
    "square": lambda x, y: torch.maximum(x.abs(), y.abs()) - 0.85,
    "triangle": lambda x, y: torch.maximum(0.866 * x.abs() - 0.5 * y, y) - 0.5,
    "cross": lambda x, y: torch.minimum(
        torch.maximum(x.abs() - 1, y.abs() - 0.3), torch.maximum(x.abs() - 0.3, y.abs() - 1)
    ),
    "ring": lambda x, y: (torch.hypot(x, y) - 0.75).abs() - 0.25,
    "diamond": lambda x, y: (x.abs() + y.abs() - 1) * 0.707,
}


@DATASETS.register(
    "synthetic",
    summary="coloured shapes on a coloured background, any image size, drawn from a seed; needs no files",
    source="this project",
)
class Synthetic(ImageDataset):
    """The class is the shape; position, size and both colours are random, and the classes are balanced."""

    class Params(ComponentParams):
        num_train: int = Field(1024, ge=1, strict=True, description="Number of training images.")
        num_test: int = Field(256, ge=1, strict=True, description="Number of test images.")
        num_classes: int = Field(4, ge=2, le=len(SHAPES), strict=True, description="How many of the shapes are used.")
        seed: int = Field(0, ge=0, lt=2**31, strict=True, description="Seed of the drawing; not the seed of the run.")

    params: Params
    num_channels = 3
    needs_files = False

    def num_train_images(self) -> int:
        return self.params.num_train

    def num_test_images(self) -> int:
        return self.params.num_test

    def load(self) -> ImageData:
        params = self.params
        # torch's CPU generator uses the low 32 bits of a seed: an even and an odd one stay apart.
        train = self._draw_split(params.num_train, torch.Generator().manual_seed(2 * params.seed))
        test = self._draw_split(params.num_test, torch.Generator().manual_seed(2 * params.seed + 1))
        class_names = tuple(SHAPES)[: params.num_classes]
        return ImageData(train, test, class_names, data_digest(train, test), f"synthetic, seed {params.seed}")

    def _draw_split(self, num_images: int, generator: torch.Generator) -> ImageSplit:
        labels = torch.arange(num_images) % self.params.num_classes
        radius = 0.18 + 0.17 * torch.rand(num_images, generator=generator)  # of the image's side
        # Farther from the border than the radius: the whole shape is visible.
        centre = radius + (1 - 2 * radius) * torch.rand(2, num_images, generator=generator)
        background = torch.rand(num_images, 3, generator=generator)
        # At least 0.3 from the background in every channel, counted around the circle.
        colour = (background + 0.3 + 0.4 * torch.rand(num_images, 3, generator=generator)) % 1
        images = torch.empty(num_images, 3, self.image_size, self.image_size, dtype=torch.uint8)
        chunk = max(1, CHUNK_PIXELS // self.image_size**2)
        for start in range(0, num_images, chunk):
            part = slice(start, start + chunk)
            inside = self._coverage(labels[part], centre[:, part], radius[part])[:, None]  # [m, 1, H, W]
            shape_colour, ground = colour[part, :, None, None], background[part, :, None, None]
            images[part] = ((ground + inside * (shape_colour - ground)) * 255).round().to(torch.uint8)
        return ImageSplit(images, labels)

    def _coverage(self, labels: Tensor, centre: Tensor, radius: Tensor) -> Tensor:
        """How much of each pixel the shape covers, in [0, 1].

        Args:
            labels: [m]. centre: [2, m] and radius: [m], as fractions of the image's side.
        Returns:
            [m, H, W] float32.
        """
        size = self.image_size
        pixel = (torch.arange(size) + 0.5) / size
        y = ((pixel - centre[0][:, None]) / radius[:, None])[:, :, None]  # [m, H, 1]
        x = ((pixel - centre[1][:, None]) / radius[:, None])[:, None, :]  # [m, 1, W]
        distance = torch.empty(len(labels), size, size)
        for label, outline in enumerate(list(SHAPES.values())[: self.params.num_classes]):
            chosen = labels == label
            distance[chosen] = outline(x[chosen], y[chosen])
        return (0.5 - distance * radius[:, None, None] * size).clamp(0, 1)  # one pixel of soft edge
