"""How much of the patch features depends on the image."""

from __future__ import annotations

from torch import Tensor

from jepa_lab.monitors.precision import double


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
