"""How much of the patch features depends on the image."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from jepa_lab.monitors.base import MONITORS, Monitor, Reading
from jepa_lab.monitors.observed import Observed
from jepa_lab.monitors.precision import double

_MOST_IMAGES = 512
"""Whose patches are held in memory."""


@MONITORS.register(
    "image_variance_ratio",
    summary="Share of the patch features' mean square that is variance over images at a fixed position.",
    source="of our own",
)
class ImageVarianceRatio(Monitor):
    """How much of the patch features depends on the image rather than on the position alone; of at most 512 images."""

    readings: ClassVar = {"image_variance_ratio": Reading("image variance ratio", "maximize")}

    def num_images(self, available: int) -> int:
        return min(available, _MOST_IMAGES)

    def measure(self, observed: Observed) -> dict[str, float | None]:
        return {"image_variance_ratio": image_variance_ratio(observed.patches)}


def image_variance_ratio(patch_features: Tensor) -> float:
    """How much of the patch features depends on the image rather than on the position alone.

    Variance over images at a fixed position, averaged over positions and features, divided by the mean square over
    everything. 0 when every image has the same features; about 1 for independent ones of zero mean.

    Args:
        patch_features: [n, N, D].
    """
    features = double(patch_features)
    mean_square = features.square().mean()
    if mean_square == 0:
        return 0.0  # all zeros are the same for every image
    return (features.var(dim=0, correction=0).mean() / mean_square).item()
