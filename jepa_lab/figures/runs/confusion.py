"""Which classes a run's probes take for which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from jepa_lab.figures.confusion import confusion_drawing
from jepa_lab.figures.runs.base import FIGURES, RunFigure, SeenRun
from jepa_lab.figures.style import Drawing
from jepa_lab.runs.predictions import RunPredictions

_ROW = "trained"


@FIGURES.register(
    "confusion",
    summary="which classes each probe takes for which, on the test split where the run has scored it",
    source="the predictions that the run has kept: nothing is scored for it",
)
class Confusion(RunFigure):
    """One matrix for each probe that has one prediction for each image."""

    place = 80

    def drawings(self, seen: SeenRun) -> Sequence[Drawing] | str:
        if isinstance(seen.predictions, str):
            return seen.predictions
        found = confusion_drawings(seen.predictions, seen.probe_titles)
        return found or "no probe of this run predicts the class of an image"


def confusion_drawings(predictions: RunPredictions, titles: Mapping[str, str]) -> list[Drawing]:
    """A matrix for each probe with one score, of test images where these were scored, else of validation images.

    The first is called `confusion`, the others after their probe.

    Args:
        titles: of the probes by name, `probe.method` first.
    """
    split = next((each for each in ("test", "validation") if f"{each}/labels" in predictions.tensors), None)
    names = [name for name in titles if f"{split}/{_ROW}/{name}" in predictions.tensors]
    return [
        confusion_drawing(
            "confusion" if name == next(iter(titles)) else f"{name}_confusion",
            f"What {titles[name]} takes {split} images for",
            _counts(predictions, split, f"{split}/{_ROW}/{name}"),
            predictions.class_names,
            f"{split} images",
        )
        for name in names
    ]


def _counts(predictions: RunPredictions, split: str | None, tensor: str) -> np.ndarray:
    """[classes, classes] images of each class that were predicted as each class, averaged over fits."""
    num_classes = len(predictions.class_names)
    labels = predictions.tensors[f"{split}/labels"].astype(np.int64)
    fits = np.atleast_2d(predictions.tensors[tensor]).astype(np.int64)  # [R, n]
    flat = np.concatenate([labels * num_classes + predicted for predicted in fits])
    counts = np.bincount(flat, minlength=num_classes**2).reshape(num_classes, num_classes)
    return counts / len(fits) if len(fits) > 1 else counts
