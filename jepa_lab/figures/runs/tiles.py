"""Small pictures side by side on one pair of axes, which draws faster than many axes do."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from jepa_lab.figures.letters import in_font, shortened


def to_rgb(image: Tensor) -> np.ndarray:
    """[C, H, W] uint8 with one or three channels as [H, W, 3] float32 in [0, 1]."""
    return image.float().div(255).expand(3, -1, -1).permute(1, 2, 0).cpu().numpy()


class Tiles:
    """Unit squares on axes without ticks; x grows to the right and y downwards.

    Args:
        width, height: of the whole, in tiles.
    """

    def __init__(self, axes: Any, width: float, height: float) -> None:
        self.axes = axes
        axes.set_axis_off()
        axes.set_aspect("equal")
        axes.set_xlim(-0.06, width + 0.06)
        axes.set_ylim(height + 0.06, -0.06)

    def picture(self, pixels: np.ndarray, x: float, y: float) -> None:
        """Draw [h, w, 3] in [0, 1] on a unit square whose upper left corner is (x, y)."""
        limits = self.axes.get_xlim(), self.axes.get_ylim()
        self.axes.imshow(pixels, extent=(x, x + 1, y + 1, y), interpolation="nearest")
        self.axes.set_xlim(limits[0])
        self.axes.set_ylim(limits[1])

    def frame(self, x: float, y: float, colour: str) -> None:
        """Draw a line around a unit square."""
        from matplotlib.patches import Rectangle

        self.axes.add_patch(Rectangle((x, y), 1, 1, fill=False, edgecolor=colour, linewidth=2.0))

    def caption(self, text: str, x: float, y: float, most: int, colour: str | None = None) -> None:
        """Write at most `most` letters below a unit square."""
        words = shortened(in_font(text), most)
        more = {} if colour is None else {"color": colour}
        self.axes.text(x + 0.5, y + 1.05, words, ha="center", va="top", fontsize=6.5, **more)
