"""The spread of features over images."""

from __future__ import annotations

from torch import Tensor

from jepa_lab.monitors.precision import double


def feature_std(features: Tensor) -> float:
    """Standard deviation over images of each feature, averaged over features.

    Args:
        features: [n, D], one row an image.
    """
    return double(features).std(dim=0, correction=0).mean().item()
