"""What the numbers of a probe are: shares of one, all of them, the more the better."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ACCURACY = "accuracy"
MEAN_IOU = "mean_iou"

MEASURES = {ACCURACY: "accuracy", MEAN_IOU: "mean IoU"}
"""Name at the end of a metric's name -> the same in words."""


def is_share(metric: str) -> bool:
    """Whether a metric is a share, to be written in percent, such as `probe/knn_test_accuracy`."""
    return any(measure in metric for measure in MEASURES)


def measure_of(score: Mapping[str, Any]) -> str:
    """What a score in `result.json` measures; those of older runs do not say it and are accuracies."""
    return str(score.get("measure", ACCURACY))


def number_of(score: Mapping[str, Any], split: str) -> float | None:
    """The number of a score in `result.json` on the `validation` or the `test` split."""
    value: float | None = score[f"{split}_{measure_of(score)}"]
    return value


def in_words(measure: str) -> str:
    """Such as "mean IoU"; a measure of somebody else's by its name."""
    return MEASURES.get(measure, measure.replace("_", " "))


def headline(measure: str) -> str:
    """`in_words` at the beginning of a title."""
    words = in_words(measure)
    return words[:1].upper() + words[1:]
