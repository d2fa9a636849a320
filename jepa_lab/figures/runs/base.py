"""What a figure of a run is: it draws what a run has logged, and what its encoder makes of a few images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from jepa_lab.figures.style import Drawing
from jepa_lab.grid import Grid
from jepa_lab.maskers.statistics import MaskStatistics
from jepa_lab.registry import Component, ComponentParams, Registry
from jepa_lab.runs.predictions import RunPredictions
from jepa_lab.tracking.metrics import MetricsRow

EXAMPLES = 12
"""Images that are shown one by one."""


@dataclass(frozen=True)
class ShownImages:
    """Images that no encoder was trained on, and what the probed encoder makes of them.

    Attributes:
        split: which images these are. available: how many the split has.
        pixels: [n, C, H, W] uint8.
        labels: [n] int64 on the CPU; None without labels. class_names: in the order of the labels.
        features: [n, F] float32, those that the probes read.
        patches: [m, N, D] float32, last-block features of each patch of the examples. grid: of these patches.
    """

    split: Literal["test", "validation"]
    available: int
    pixels: Tensor
    labels: Tensor | None
    class_names: tuple[str, ...]
    features: Tensor
    patches: Tensor
    grid: Grid

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def words(self) -> str:
        """Such as "360 test images"."""
        count = f"{len(self):,}" if len(self) == self.available else f"{len(self):,} of {self.available:,}"
        return f"{count} {self.split} images"

    @property
    def examples(self) -> Tensor:
        """Indices [m] of those that are shown one by one: evenly spread, as files often come sorted by class."""
        return examples_of(len(self))

    def label(self, index: int) -> str | None:
        """The name of an image's class; None without labels."""
        return None if self.labels is None else self.class_names[int(self.labels[index])]


def examples_of(num_images: int) -> Tensor:
    """Indices [m] of at most `EXAMPLES` of so many images, evenly spread."""
    count = min(EXAMPLES, num_images)
    return torch.arange(count) * num_images // max(count, 1)


@dataclass(frozen=True)
class SeenRun:
    """A run as its figures see it.

    Attributes:
        rows: of `metrics.jsonl`.
        masks: of the run's masker and batching.
        spectrum_start, spectrum_end: singular values, largest first, of the centred features of the same validation
            images before training and at the last evaluation, [k]; None where they were not kept.
        num_monitored: how many images these are.
        images: what the encoder makes of some.
        predictions: of the probes; or in words why there are none.
        probe_titles: of the run's probes, `probe.method` first; empty before they have measured.
    """

    rows: Sequence[MetricsRow]
    masks: MaskStatistics
    spectrum_start: Tensor | None
    spectrum_end: Tensor | None
    num_monitored: int
    images: ShownImages
    predictions: RunPredictions | str
    probe_titles: Mapping[str, str]


class RunFigure(Component[None], ABC):
    """A figure of a run, drawn at its end and in its report.

    Nothing is measured again for it and no image is scored: it shows what the run has kept, and features of images.
    """

    place: ClassVar[int] = 1000
    """Figures are shown in this order; those of jepa-lab have places from 10 to 90."""
    after_run: ClassVar[bool] = True
    """Whether it is drawn at the end of a run, too; if not, because it takes long, by `jepa-lab report RUN` alone."""

    def __init__(self, params: ComponentParams) -> None:
        self.params = params

    @abstractmethod
    def drawings(self, seen: SeenRun) -> Sequence[Drawing] | str:
        """What there is to draw, or a sentence that says why there is nothing."""


FIGURES: Registry[RunFigure] = Registry("figure", RunFigure)
