"""The image variance ratio against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from jepa_lab.monitors.image_variance_ratio import image_variance_ratio


def test_image_variance_ratio_by_hand() -> None:
    # Two images, two positions, one feature: variances 1 and 4, squares 1, 9, 0, 16.
    patches = torch.tensor([[[1.0], [0.0]], [[3.0], [4.0]]])
    assert image_variance_ratio(patches) == pytest.approx(2.5 / 6.5)


def test_image_variance_ratio_is_zero_where_features_depend_on_the_position_alone() -> None:
    positions = torch.randn(1, 9, 5, generator=torch.Generator().manual_seed(0))
    assert image_variance_ratio(positions.expand(20, -1, -1)) == pytest.approx(0, abs=1e-12)
    assert image_variance_ratio(torch.zeros(3, 4, 5)) == 0


def test_image_variance_ratio_of_independent_features_is_nearly_one() -> None:
    features = torch.randn(500, 9, 5, generator=torch.Generator().manual_seed(0))
    assert image_variance_ratio(features) == pytest.approx(1, abs=0.01)
    assert image_variance_ratio(features + 1) == pytest.approx(0.5, abs=0.02)


def test_a_spread_far_below_the_mean_is_measured_exactly() -> None:
    spread = 1e-4 * torch.randn(500, 4, 3, generator=torch.Generator().manual_seed(0))
    features = (1 + spread.double()).float()
    exact = features.numpy().astype(np.float64)
    assert image_variance_ratio(features) == pytest.approx(exact.var(axis=0).mean() / np.square(exact).mean())
