"""In how many directions features extend, before and after training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from jepa_lab.figures.runs.base import FIGURES, RunFigure, SeenRun
from jepa_lab.figures.style import Drawing, Theme, empty_figure

_ROUNDING = 1e-6
"""Of the largest singular value: what is smaller is rounding of single precision."""


@FIGURES.register(
    "spectrum",
    summary="spread of the features along each principal direction, at the start and at the end",
    source="the singular values of which Garrido et al. 2023, arXiv:2210.02885, take the entropy; centred here",
)
class Spectrum(RunFigure):
    """A spectrum that falls off after a few directions shows a collapse that no single number does."""

    place = 30

    def drawings(self, seen: SeenRun) -> Sequence[Drawing] | str:
        if seen.spectrum_end is None:
            return "the spectrum of the features was not kept with the run (by an earlier jepa-lab)"
        found = {"before training": seen.spectrum_start, "at the last evaluation": seen.spectrum_end}
        curves = {name: _deviations(each, seen.num_monitored) for name, each in found.items() if each is not None}

        def draw(theme: Theme) -> Any:
            figure = empty_figure(3.4, theme.width)
            axes = figure.subplots()
            styles = {"before training": "--", "at the last evaluation": "-"}
            colours = {"before training": theme.colours[1], "at the last evaluation": theme.colours[0]}
            for name, values in curves.items():
                places = np.arange(1, len(values) + 1)
                axes.plot(places, values, linestyle=styles[name], color=colours[name], label=name)
            axes.set_yscale("log")
            _write_plain_ticks(axes)
            axes.set_xlabel("principal direction, the widest first")
            axes.set_ylabel("standard deviation of the features")
            axes.legend()
            return figure

        parts = [
            f"{name} {values[0]:.3g} along the widest direction and {values[len(values) // 2]:.3g} along number "
            f"{len(values) // 2 + 1} of {len(values)}"
            for name, values in curves.items()
        ]
        alt = f"Standard deviation of the features of {seen.num_monitored:,} validation images: {'; '.join(parts)}."
        return [Drawing("spectrum", "Spectrum of the features of validation images", alt, draw)]


def _deviations(values: Tensor, num_images: int) -> np.ndarray:
    """Standard deviations along the directions that are more than rounding; at least one."""
    kept = values[values > _ROUNDING * values[0]] if len(values) and float(values[0]) > 0 else values[:1] + 1e-12
    return (kept / num_images**0.5).numpy()


def _write_plain_ticks(axes: Any) -> None:
    """Ticks as plain numbers: matplotlib's own are mathematics, which figures switch off for the sake of names."""
    from matplotlib.ticker import LogLocator, NullFormatter

    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0,) if high / low > 100 else (1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
