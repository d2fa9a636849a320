"""A run as figures see it, made up in an instant."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from jepa_lab.figures.runs.base import SeenRun, ShownImages, examples_of
from jepa_lab.grid import Grid
from jepa_lab.maskers.statistics import MaskStatistics, PatchCounts
from jepa_lab.runs.predictions import RunPredictions, SplitImages
from jepa_lab.testing.randomness import seeded
from jepa_lab.tracking.metrics import MetricsRow

NAMES = ("cat", "$x_1$ ship", "基準", "an automobile with a rather long name", "bird")


def make_images(num_images: int = 60, channels: int = 3) -> ShownImages:
    """Noise, whose features are those of their class and a little more."""
    grid, width = Grid(3, 3), 8
    labels = torch.arange(num_images) % len(NAMES)
    centres = 3 * torch.randn(len(NAMES), width, generator=seeded(1))
    features = centres[labels] + 0.3 * torch.randn(num_images, width, generator=seeded(2))
    num_examples = len(examples_of(num_images))
    return ShownImages(
        split="test",
        available=10_000,
        pixels=torch.randint(256, (num_images, channels, 9, 9), dtype=torch.uint8, generator=seeded(3)),
        labels=labels,
        class_names=NAMES,
        features=features,
        patches=torch.randn(num_examples, grid.num_patches, width, generator=seeded(4)),
        grid=grid,
    )


def make_predictions(num_images: int = 40, *, has_test: bool = True) -> RunPredictions:
    """Of three probes, one of which is right but once, and another the mean of two fits."""
    labels = np.arange(num_images) % len(NAMES)
    splits = ("validation", "test") if has_test else ("validation",)
    tensors: dict[str, np.ndarray] = {}
    for split in splits:
        tensors |= {
            f"{split}/labels": labels,
            f"{split}/trained/logistic": np.where(np.arange(num_images) == 0, 1, labels),
            f"{split}/trained/low_shot/10": labels,
            f"{split}/trained/mean_of_fits": np.stack([labels, np.zeros_like(labels)]),
            f"{split}/random_encoder/logistic": labels,
        }
    return RunPredictions(NAMES, {split: SplitImages("a", "b", 8) for split in splits}, {}, tensors)


def make_rows() -> list[MetricsRow]:
    """Eight steps of two epochs, of which two are evaluated."""
    rows = [MetricsRow(0, 0.0, 0.0, {"validation/loss": 0.5, "monitor/rankme": 4.0, "validation/nothing": None})]
    for step in range(1, 9):
        metrics: dict[str, float | None] = {"train/loss": 0.5 / step}
        if step % 4 == 0:
            metrics |= {"validation/loss": 0.6 / step, "monitor/rankme": 4.0 + step}
            metrics |= {"probe/online_validation_accuracy": 0.1 * step}
        rows.append(MetricsRow(step, step / 4, 0.0, metrics))
    return rows


def make_seen(**changes: Any) -> SeenRun:
    """A finished run with a test split; anything can be replaced."""
    counts = PatchCounts(4.0, 2, 6)
    frequency = torch.rand(3, 3, generator=seeded(5))
    seen = SeenRun(
        rows=make_rows(),
        masks=MaskStatistics(100, counts, counts, counts, 3.0, 0.0, frequency, 1 - frequency),
        spectrum_start=torch.logspace(1, -9, 8, dtype=torch.float64),
        spectrum_end=torch.logspace(1, -1, 8, dtype=torch.float64),
        num_monitored=512,
        images=make_images(),
        predictions=make_predictions(),
        probe_titles={"logistic": "a logistic regression", "mean_of_fits": "a mean", "low_shot": "few labels"},
    )
    return replace(seen, **changes)


def without_labels(images: ShownImages) -> ShownImages:
    """The same pictures, of which no class is known."""
    return replace(images, labels=None, class_names=())
