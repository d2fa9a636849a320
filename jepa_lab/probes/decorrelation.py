"""Features turned to their principal components, so that gradient descent is quick in every direction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from jepa_lab.probes.arrays import double_device
from jepa_lab.probes.feature_file import column_statistics

_MOST_ROWS = 1 << 16
"""Images that the directions are computed from: more change nothing that an accuracy could show."""
_CHUNK_ROWS = 1 << 12
_SMALLEST_STD = 1e-12
"""A feature that is the same for all images stays zero rather than becoming rounding errors blown up."""


@dataclass(frozen=True)
class Components:
    """Principal components of standardised features.

    Features of an encoder are so correlated that the variances of their components differ by a factor of a million:
    a step that the largest one allows takes a million steps along the smallest, where classes may differ. So the
    components are scaled by sqrt((1 + ridge) / (variance + ridge)): a small ridge gives all of them the same variance
    (whitening), and a large one leaves the standardised features, turned.

    Attributes:
        mean: [D'] of the features. axes: [D', D'], a column a component; both float32 on the device.
        variances: [D'] of the components, float64 on the CPU; their mean is 1 where no feature is constant.
    """

    mean: Tensor
    axes: Tensor
    variances: Tensor

    def of(self, features: Tensor) -> Tensor:
        """Components of features [..., D'] on the device, unscaled."""
        return (features - self.mean) @ self.axes

    def scales(self, ridges: Sequence[float]) -> Tensor:
        """Factors of the components for each ridge, [len(ridges), D'] float32 on the device."""
        ridge = torch.tensor(ridges, dtype=torch.float64)[:, None]
        return ((1 + ridge) / (self.variances + ridge)).sqrt().to(self.axes.device, torch.float32)


def principal_components(features: np.ndarray, device: torch.device) -> Components:
    """The components of features [n, D'] in memory or mapped; rounding apart the same on every device."""
    mean, std = column_statistics(features)
    scale = np.where(std > _SMALLEST_STD, 1 / np.maximum(std, _SMALLEST_STD), 0.0)
    rows = np.unique(np.linspace(0, len(features) - 1, min(len(features), _MOST_ROWS)).round().astype(np.int64))
    precise = double_device(device)
    covariance = torch.zeros(len(mean), len(mean), dtype=torch.float64, device=precise)
    for start in range(0, len(rows), _CHUNK_ROWS):
        part = torch.from_numpy((features[rows[start : start + _CHUNK_ROWS]] - mean) * scale).to(precise)
        covariance += part.T @ part
    variances, axes = torch.linalg.eigh(covariance / len(rows))  # ascending
    axes = axes * torch.from_numpy(scale).to(precise)[:, None]
    return Components(torch.from_numpy(mean).float().to(device), axes.float().to(device), variances.clamp_min(0).cpu())
