"""The spread of features against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from jepa_lab.monitors.feature_std import feature_std


def test_feature_std_is_the_mean_over_features() -> None:
    features = torch.tensor([[0.0, 5.0], [2.0, 5.0], [4.0, 5.0]])
    assert feature_std(features) == pytest.approx((math.sqrt(8 / 3) + 0) / 2)


def test_a_spread_far_below_the_mean_is_measured_exactly() -> None:
    spread = 1e-4 * torch.randn(500, 3, generator=torch.Generator().manual_seed(0))
    features = (1 + spread.double()).float()
    assert feature_std(features) == pytest.approx(features.numpy().astype(np.float64).std(axis=0).mean())
