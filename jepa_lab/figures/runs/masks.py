"""How often each patch is context, and how often it is target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from jepa_lab.figures.runs.base import FIGURES, RunFigure, SeenRun
from jepa_lab.figures.style import Drawing, Theme, empty_figure, shades


@FIGURES.register(
    "masks",
    summary="how often each patch is context and how often it is target, as heat maps",
    source="the run's masker and context_batching",
)
class MaskHeatMap(RunFigure):
    """What the masker does to each place of the grid; a place that is never used is seen at once."""

    place = 20

    def drawings(self, seen: SeenRun) -> Sequence[Drawing] | str:
        masks = seen.masks
        panels = {"context": masks.context_frequency, "target": masks.target_frequency}

        def draw(theme: Theme) -> Any:
            height, width = masks.context_frequency.shape
            panel_width = theme.width / 2
            figure = empty_figure(min(2.2 * panel_width, (panel_width - 0.9) * height / width) + 0.9, theme.width)
            for axes, (role, frequency) in zip(figure.subplots(1, 2), panels.items(), strict=True):
                _draw_map(figure, axes, f"share of images in\nwhich a patch is {role}", frequency, theme)
            return figure

        alt = (
            f"Masks over {masks.num_images:,} images: {masks.context.mean:.1f} patches are context on average "
            f"({masks.context.minimum} to {masks.context.maximum}), {masks.target_union_mean:.1f} are target; "
            f"{masks.never_used:.1%} of the grid is never used. A place is context in "
            f"{_range(masks.context_frequency)} of the images, and target in {_range(masks.target_frequency)}."
        )
        return [Drawing("masks", "How often each patch is context and target", alt, draw)]


def _range(frequency: Tensor) -> str:
    return f"{float(frequency.min()):.1%} to {float(frequency.max()):.1%}"


def _draw_map(figure: Any, axes: Any, title: str, frequency: Tensor, theme: Theme) -> None:
    top = max(0.01, float(frequency.max()))
    values: np.ndarray = frequency.numpy()
    picture = axes.imshow(values, cmap=shades(theme), vmin=0, vmax=top, interpolation="nearest")
    axes.set_title(title)
    axes.grid(False)
    axes.set_xlabel("column of patches")
    axes.set_ylabel("row of patches")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.yaxis.get_major_locator().set_params(integer=True)
    bar = figure.colorbar(picture, ax=axes, fraction=0.05, pad=0.03)
    bar.ax.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    bar.outline.set_edgecolor(theme.muted)
