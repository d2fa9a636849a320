"""Accuracy of a probe: its interval for a test set of that size, by class, and who is taken for whom."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

_Z_95 = 1.959963984540054
"""The 97.5% quantile of the standard normal distribution."""


@dataclass(frozen=True)
class SplitScores:
    """What one prediction of the test split gives; None everywhere where there is no test split.

    Attributes:
        test_interval: 95% Wilson interval of `test_accuracy` for the size of the test split.
        per_class_accuracy: class name -> accuracy; None for a class without test images.
        confusion: images of each class (row) that were predicted as each class (column).
    """

    test_accuracy: float | None
    test_interval: tuple[float, float] | None
    per_class_accuracy: dict[str, float | None] | None
    confusion: tuple[tuple[int, ...], ...] | None
    num_test: int | None


NO_TEST = SplitScores(None, None, None, None, None)


def score_predictions(labels: np.ndarray, predictions: np.ndarray, class_names: tuple[str, ...]) -> SplitScores:
    """The scores of predicted classes, [n] both."""
    confusion = confusion_counts(labels, predictions, len(class_names))
    num_correct = int(np.trace(confusion))
    return SplitScores(
        test_accuracy=num_correct / len(labels),
        test_interval=wilson_interval(num_correct, len(labels)),
        per_class_accuracy=accuracy_by_class(confusion, class_names),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        num_test=len(labels),
    )


def wilson_interval(num_correct: int, num_images: int) -> tuple[float, float]:
    """95% Wilson score interval of an accuracy: what the size of the test set leaves open.

    It says nothing about the spread between training seeds.

    Returns:
        Lower and upper end, within [0, 1].
    Source: Wilson 1927, J. Am. Stat. Assoc. 22, 209-212.
    """
    share, z2 = num_correct / num_images, _Z_95**2
    centre = (share + z2 / (2 * num_images)) / (1 + z2 / num_images)
    half = _Z_95 * math.sqrt(share * (1 - share) / num_images + z2 / (4 * num_images**2)) / (1 + z2 / num_images)
    return max(0.0, centre - half), min(1.0, centre + half)


def confusion_counts(labels: np.ndarray, predictions: np.ndarray, num_classes: int) -> np.ndarray:
    """How many images of each class (row) were predicted as each class (column), [num_classes, num_classes]."""
    pairs = labels.astype(np.int64) * num_classes + predictions.astype(np.int64)
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def accuracy_by_class(confusion: np.ndarray, class_names: tuple[str, ...]) -> dict[str, float | None]:
    """Share of each class's images that were predicted right; None where there is no image of the class."""
    totals = confusion.sum(axis=1)
    return {
        name: float(confusion[index, index] / totals[index]) if totals[index] else None
        for index, name in enumerate(class_names)
    }
