"""The spread of features over images."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from jepa_lab.monitors.base import MONITORS, Monitor, Reading
from jepa_lab.monitors.observed import Observed
from jepa_lab.monitors.precision import double


@MONITORS.register(
    "feature_std",
    summary="Standard deviation over images of each feature, averaged over features.",
    source="usual, such as in Chen and He 2021, arXiv:2011.10566, sec. 4.1",
)
class FeatureStd(Monitor):
    """The spread of features; 0 where all images have the same."""

    readings: ClassVar = {"feature_std": Reading("feature standard deviation", "maximize")}

    def measure(self, observed: Observed) -> dict[str, float | None]:
        return {"feature_std": feature_std(observed.features)}


def feature_std(features: Tensor) -> float:
    """Standard deviation over images of each feature, averaged over features.

    Args:
        features: [n, D], one row an image.
    """
    return double(features).std(dim=0, correction=0).mean().item()
