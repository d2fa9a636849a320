"""What tells the patches of images apart: three principal components of their features, as colours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jepa_lab.figures.runs.base import FIGURES, RunFigure, SeenRun, ShownImages
from jepa_lab.figures.runs.components import principal_components
from jepa_lab.figures.runs.tiles import Tiles, to_rgb
from jepa_lab.figures.style import Drawing, Theme, empty_figure

_PAIRS_ACROSS = {2: 6, 1: 3}
"""By panels that a theme has side by side."""
_GAP, _STEP = 0.22, 1.12
_LIGHTNESS, _CHROMA = (0.25, 0.95), 0.13
_ENDS = (2, 98)
"""Percentiles of a component that get the ends of the colours."""


@FIGURES.register(
    "patch_components",
    summary="three principal components of patch features over twelve images, as colours",
    source="Oquab et al. 2023, arXiv:2304.07193, fig. 1. Differs: the background is not cut off, and the components "
    "are brightness, blue to yellow and green to red instead of red, green and blue",
)
class PatchComponents(RunFigure):
    """Which patches the encoder holds for alike: those of one colour.

    Brightness and blue-yellow are what everybody sees, so they hold the first two components.
    """

    place = 70

    def drawings(self, seen: SeenRun) -> Sequence[Drawing] | str:
        images = seen.images
        count, num_patches = images.patches.shape[:2]
        scores, shares = principal_components(images.patches.flatten(0, 1), 3)
        colours = as_colours(scores.numpy()).reshape(count, images.grid.height, images.grid.width, 3)

        def draw(theme: Theme) -> Any:
            return _figure(images, colours, theme)

        title = f"Patches of {count} {images.split} images, coloured by three principal components of their features"
        parts = zip(("brightness", "blue to yellow", "green to red"), shares.tolist(), strict=True)
        told = ", ".join(f"{share:.0%} ({what})" for what, share in parts)
        alt = (
            f"Each image beside its {num_patches} patches, which are coloured by the first three principal components "
            f"over all patches shown. They hold {told} of the variance."
        )
        return [Drawing("patch_components", title, alt, draw, True)]


def _figure(images: ShownImages, colours: np.ndarray, theme: Theme) -> Any:
    across = min(_PAIRS_ACROSS[theme.columns], len(colours))
    down = -(-len(colours) // across)
    width = across * (2 + _GAP) - _GAP
    figure = empty_figure((theme.width - 0.1) / width * down * _STEP + 0.1, theme.width)
    tiles = Tiles(figure.subplots(), width, down * _STEP)
    for number, (index, patches) in enumerate(zip(images.examples.tolist(), colours, strict=True)):
        x, y = number % across * (2 + _GAP), number // across * _STEP
        tiles.picture(to_rgb(images.pixels[index]), x, y)
        tiles.picture(patches, x + 1.03, y)
    return figure


def as_colours(scores: np.ndarray) -> np.ndarray:
    """Three scores as a colour, [n, 3] -> [n, 3] sRGB in [0, 1], by Oklab: lightness, blue-yellow, green-red."""
    low, high = np.percentile(scores, _ENDS, axis=0)
    unit = np.clip((scores - low) / np.maximum(high - low, 1e-12), 0, 1)
    lightness = _LIGHTNESS[0] + (_LIGHTNESS[1] - _LIGHTNESS[0]) * unit[:, 0]
    yellow, red = (_CHROMA * (2 * unit[:, place] - 1) for place in (1, 2))
    return _srgb(lightness, red, yellow)


def _srgb(lightness: np.ndarray, red: np.ndarray, yellow: np.ndarray) -> np.ndarray:
    """Oklab to sRGB. Source: Ottosson 2020, "A perceptual color space for image processing"."""
    long = (lightness + 0.3963377774 * red + 0.2158037573 * yellow) ** 3
    medium = (lightness - 0.1055613458 * red - 0.0638541728 * yellow) ** 3
    short = (lightness - 0.0894841775 * red - 1.2914855480 * yellow) ** 3
    linear = np.stack(
        [
            4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
            -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
            -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
        ],
        axis=-1,
    ).clip(0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
