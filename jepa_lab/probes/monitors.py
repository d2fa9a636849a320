"""Label-free monitors of features, and the rule that judges a run collapsed."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from jepa_lab.registry import ComponentParams

_RANKME_EPSILON = 1e-7
"""The paper's value for single precision."""


def rankme(features: Tensor) -> float:
    """Effective rank of a feature matrix: the exponential of the entropy of its normalised singular values.

    p_k = sigma_k / sum_j sigma_j + 1e-7, RankMe = exp(-sum_k p_k log p_k). As in the paper the features are not
    centred: a mean that all images share counts as one direction, and where it dominates RankMe is near 1.

    Args:
        features: [n, D], one row an image.
    Returns:
        Between 1 and min(n, D).
    Source: Garrido et al. 2023, arXiv:2210.02885, eq. 1.
    """
    singular_values = torch.linalg.svdvals(_double(features))  # [min(n, D)]
    total = singular_values.sum().clamp_min(torch.finfo(torch.float64).tiny)  # zeros have no direction: rank 1
    shares = singular_values / total + _RANKME_EPSILON
    return math.exp(-(shares * shares.log()).sum().item())


def feature_std(features: Tensor) -> float:
    """Standard deviation over images of each feature, averaged over features.

    Args:
        features: [n, D], one row an image.
    """
    return _double(features).std(dim=0, correction=0).mean().item()


def image_variance_ratio(patch_features: Tensor) -> float:
    """How much of the patch features depends on the image rather than on the position alone.

    Variance over images at a fixed position, averaged over positions and features, divided by the mean square over
    everything. 0 when every image has the same features; about 1 for independent ones of zero mean.

    Args:
        patch_features: [n, N, D].
    """
    features = _double(patch_features)
    mean_square = features.square().mean()
    if mean_square == 0:
        return 0.0  # all zeros are the same for every image
    return (features.var(dim=0, correction=0).mean() / mean_square).item()


def _double(features: Tensor) -> Tensor:
    """In double precision (on the CPU, as not every accelerator has it): the spread can be tiny beside the mean."""
    return features.detach().cpu().double()


class CollapseSettings(ComponentParams):
    """When features count as having stopped depending on the image."""

    variance_fraction: float = Field(
        0.2,
        gt=0,
        lt=1,
        description="Suspicious: the variance of the features over images is at most this share of its highest so far.",
    )
    patience: int = Field(
        3, ge=1, strict=True, description="Suspicious probe epochs in a row after which a run is marked collapsed."
    )


@dataclass(frozen=True)
class _Monitors:
    """What the rule looks at, at one probe epoch."""

    validation_loss: float
    image_variance_ratio: float
    feature_std: float


CollapseStatus = Literal["healthy", "warned", "collapsed"]


class CollapseDetector:
    """Judges from the monitors of each probe epoch whether features stop depending on the image.

    The rule, in `_is_suspicious`: compared with the probe epoch at which the features depended on the image most (epoch
    0 is one of them), the loss is lower although little is left of that dependence. One suspicious epoch is a
    warning, which the next unsuspicious one clears; `patience` in a row mark the run as collapsed for good.
    RankMe is no part of it: a mean that all images share can keep it near 1 in healthy and collapsed runs alike.
    """

    def __init__(self, settings: CollapseSettings) -> None:
        self.settings = settings
        self._reference: _Monitors | None = None
        self._suspicious_epochs = 0
        self._collapsed = False

    def observe(self, validation_loss: float, image_variance_ratio: float, feature_std: float) -> CollapseStatus:
        """Take in the monitors of a probe epoch; the first call is epoch 0.

        Args:
            validation_loss: on fixed images and masks.
            image_variance_ratio: of the patch features. feature_std: of the pooled features.
        """
        now = _Monitors(validation_loss, image_variance_ratio, feature_std)
        if self._reference is None or now.image_variance_ratio > self._reference.image_variance_ratio:
            self._reference = now
        self._suspicious_epochs = self._suspicious_epochs + 1 if self._is_suspicious(now, self._reference) else 0
        self._collapsed = self._collapsed or self._suspicious_epochs >= self.settings.patience
        return self.status

    def _is_suspicious(self, now: _Monitors, reference: _Monitors) -> bool:
        left = self.settings.variance_fraction
        return (
            now.validation_loss < reference.validation_loss
            and now.image_variance_ratio <= left * reference.image_variance_ratio
            # A constant part that grows lowers the ratio and does no harm to a probe, so the pooled features' own
            # variance, the square of their standard deviation, must have gone too.
            and now.feature_std**2 <= left * reference.feature_std**2
        )

    @property
    def status(self) -> CollapseStatus:
        """After the last probe epoch."""
        if self._collapsed:
            return "collapsed"
        return "warned" if self._suspicious_epochs else "healthy"

    @property
    def collapsed(self) -> bool:
        """Whether the run is marked."""
        return self._collapsed

    def state(self) -> dict[str, Any]:
        """Memory for a checkpoint, as JSON values."""
        return {
            "reference": None if self._reference is None else asdict(self._reference),
            "suspicious_epochs": self._suspicious_epochs,
            "collapsed": self._collapsed,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a `state`."""
        self._reference = None if state["reference"] is None else _Monitors(**state["reference"])
        self._suspicious_epochs = state["suspicious_epochs"]
        self._collapsed = state["collapsed"]
