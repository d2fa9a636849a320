"""Synthetic: coloured shapes of any size, drawn from a seed; for tests, first trials and a first ablation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from jepa_lab.data.base import DATASETS, ImageData, ImageDataset, ImageSplit
from jepa_lab.data.label_maps import LabelMaps
from jepa_lab.data.outlines import OUTLINES
from jepa_lab.data.pixels import data_digest
from jepa_lab.errors import Key
from jepa_lab.registry import ComponentParams, broken_rule

CHUNK_PIXELS = 1 << 22
STONES = 8  # of the mosaic, side by side across the image
MAX_ROTATION_WITH_DIAMOND = 20  # degrees; a square turned by 45 is a diamond

Palette = Literal["any", "bright_on_dark"]

# Colours of a background and a shape, [..., 3] in [0, 1], from two that were drawn at random.
PALETTES: dict[Palette, Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    # At least 0.3 apart in every channel, counted around the circle.
    "any": lambda ground, shape: (ground, (ground + 0.3 + 0.4 * shape) % 1),
    "bright_on_dark": lambda ground, shape: (0.4 * ground, 0.6 + 0.4 * shape),
}


@dataclass(frozen=True)
class _Drawn:
    """What was drawn for m images of S shapes each; lengths are fractions of the image's side.

    Attributes:
        labels: [m].
        centre: [m, S, 2], row and column. radius, angle: [m, S], the angle in radians.
        ground: [m, 3] in [0, 1], the colour of the background. colour: [m, S, 3], those of the shapes.
        stones: [m, 3, g, g] in [-1, 1], how each departs from the colour of the background.
    """

    labels: Tensor
    centre: Tensor
    radius: Tensor
    angle: Tensor
    ground: Tensor
    colour: Tensor
    stones: Tensor

    def __getitem__(self, part: slice) -> _Drawn:
        return _Drawn(**{name: value[part] for name, value in vars(self).items()})


@DATASETS.register(
    "synthetic",
    summary="coloured shapes on a plain or textured background, any image size, drawn from a seed; needs no files",
    source="this project",
)
class Synthetic(ImageDataset):
    """The class is the shape; position, size and colours are random, and the classes are balanced.

    By choice an image has several shapes of its class, they are turned, and the background is a mosaic of random
    stones. What can then be predicted about one place from the others is the class, and not place, colour or texture.
    """

    class Params(ComponentParams):
        num_train: int = Field(1024, ge=1, strict=True, description="Number of training images.")
        num_test: int = Field(256, ge=1, strict=True, description="Number of test images.")
        num_classes: int = Field(
            4,
            ge=2,
            le=len(OUTLINES),
            strict=True,
            description=f"How many of the shapes are used, in the order {', '.join(OUTLINES)}.",
        )
        shapes_per_side: int = Field(
            1,
            ge=1,
            le=8,
            strict=True,
            description="Shapes beside and below one another in an image, all of its class, each at a random place in "
            "a cell of its own and with a size, angle and colour of its own.",
        )
        radius: tuple[float, float] = Field(
            (0.18, 0.35),
            description="Range of the radius of a shape as a share of its cell's side (one cell is the image); its "
            "centre is at least as far from the border of the cell.",
            json_schema_extra={"prefixItems": [{"type": "number", "exclusiveMinimum": 0, "maximum": 0.5}] * 2},
        )
        max_rotation_degrees: float = Field(
            0.0, ge=0, le=180, description="Shapes are turned by up to this angle in either direction."
        )
        palette: Palette = Field(
            "any",
            description="Colours of background and shape: any two that are at least 0.3 apart in each channel (from 0 "
            "to 1), or a background below 0.4 and a shape above 0.6.",
        )
        texture: float = Field(
            0.0,
            ge=0,
            le=0.25,
            description="The background is a mosaic of 8 x 8 stones, each of which departs from its colour by up to "
            "this in each channel; 0 is a plain background.",
        )
        seed: int = Field(0, ge=0, lt=2**31, strict=True, description="Seed of the drawing; not the seed of the run.")

        @model_validator(mode="after")
        def _check(self) -> Synthetic.Params:
            low, high = self.radius
            if not 0 < low <= high <= 0.5:
                raise broken_rule(Key("radius"), f" must satisfy 0 < min <= max <= 0.5, got {self.radius}")
            has_diamond = self.num_classes > list(OUTLINES).index("diamond")
            if has_diamond and self.max_rotation_degrees > MAX_ROTATION_WITH_DIAMOND:
                raise broken_rule(
                    Key("max_rotation_degrees"),
                    f" must be at most {MAX_ROTATION_WITH_DIAMOND} where ",
                    Key("num_classes"),
                    f" is above 5, got {self.max_rotation_degrees:g} and {self.num_classes}: a turned square is a "
                    "diamond; lower one of them",
                )
            return self

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
        class_names = tuple(OUTLINES)[: params.num_classes]
        return ImageData(train, test, class_names, data_digest(train, test), f"synthetic, seed {params.seed}")

    def _draw_split(self, num_images: int, generator: torch.Generator) -> ImageSplit:
        drawn = self._draw(num_images, generator)
        side = (self.image_size, self.image_size)
        images = torch.empty(num_images, 3, *side, dtype=torch.uint8)
        maps = torch.empty(num_images, *side, dtype=torch.uint8)
        chunk = max(1, CHUNK_PIXELS // self.image_size**2)
        for start in range(0, num_images, chunk):
            part = slice(start, start + chunk)
            painted, covered = self._paint(drawn[part])
            images[part] = (painted * 255).round().to(torch.uint8)
            maps[part] = covered * (drawn.labels[part, None, None] + 1)
        names = ("background", *tuple(OUTLINES)[: self.params.num_classes])
        return ImageSplit(images, drawn.labels, maps=LabelMaps(maps, names))

    def _draw(self, num_images: int, generator: torch.Generator) -> _Drawn:
        """All random numbers of a split. New ones come last, or the images of every seed would change."""
        params, side = self.params, self.params.shapes_per_side
        shapes, cells = (num_images, side**2), torch.arange(side**2)
        low, high = params.radius
        radius = low + (high - low) * torch.rand(shapes, generator=generator)  # of the cell's side
        # Farther from the border of the cell than the radius: the whole shape is visible.
        place = radius + (1 - 2 * radius) * torch.rand(2, *shapes, generator=generator)
        ground = torch.rand(num_images, 3, generator=generator)
        colour = torch.rand(*shapes, 3, generator=generator)
        turn = 2 * torch.rand(shapes, generator=generator) - 1
        stones = 2 * torch.rand(num_images, 3, STONES, STONES, generator=generator) - 1
        ground_of_each, colour = PALETTES[params.palette](ground[:, None], colour)
        return _Drawn(
            labels=torch.arange(num_images) % params.num_classes,
            centre=torch.stack([place[0] + cells // side, place[1] + cells % side], dim=-1) / side,
            radius=radius / side,
            angle=turn * math.radians(params.max_rotation_degrees),
            ground=ground_of_each[:, 0],
            colour=colour,
            stones=stones,
        )

    def _paint(self, drawn: _Drawn) -> tuple[Tensor, Tensor]:
        """Images [m, 3, H, W] in [0, 1], and where a shape covers half of a pixel or more, [m, H, W] bool."""
        stones = F.interpolate(drawn.stones, (self.image_size, self.image_size))
        images = (drawn.ground[..., None, None] + self.params.texture * stones).clamp(0, 1)
        covered = torch.zeros(len(images), *images.shape[2:], dtype=torch.bool)
        for shape in range(drawn.radius.shape[1]):
            inside = self._coverage(drawn, shape)  # [m, H, W]
            images = images + inside[:, None] * (drawn.colour[:, shape, :, None, None] - images)
            covered |= inside >= 0.5
        return images, covered

    def _coverage(self, drawn: _Drawn, shape: int) -> Tensor:
        """How much of each pixel a shape covers, [m, H, W] in [0, 1]."""
        centre, radius = drawn.centre[:, shape], drawn.radius[:, shape, None]  # [m, 2], [m, 1]
        pixel = (torch.arange(self.image_size) + 0.5) / self.image_size
        down = ((pixel - centre[:, :1]) / radius)[:, :, None]  # [m, H, 1]
        right = ((pixel - centre[:, 1:]) / radius)[:, None, :]  # [m, 1, W]
        angle = drawn.angle[:, shape, None, None]
        y, x = down * angle.cos() - right * angle.sin(), right * angle.cos() + down * angle.sin()  # [m, H, W]
        distance = torch.empty_like(x)
        for label, outline in enumerate(list(OUTLINES.values())[: self.params.num_classes]):
            chosen = drawn.labels == label
            distance[chosen] = outline(x[chosen], y[chosen])
        # One pixel of soft edge.
        return (0.5 - distance * radius[..., None] * self.image_size).clamp(0, 1)
