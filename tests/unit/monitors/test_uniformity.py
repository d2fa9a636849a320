"""Uniformity against a loop over pairs, and against the sphere's closed form."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from scipy.special import hyp0f1

from jepa_lab.monitors import uniformity as module
from jepa_lab.monitors.uniformity import uniformity

CPU = torch.device("cpu")


def naive(features: torch.Tensor, t: float) -> float:
    unit = F.normalize(features.double(), dim=1)
    pairs = [(i, j) for i in range(len(unit)) for j in range(i)]
    return math.log(sum(math.exp(-t * (unit[i] - unit[j]).square().sum().item()) for i, j in pairs) / len(pairs))


@pytest.mark.parametrize("t", [0.5, 2.0])
@pytest.mark.parametrize("count", [2, 7, 23])
def test_uniformity_is_the_mean_over_pairs_whatever_the_blocks(
    count: int, t: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_AT_ONCE", 5)
    features = 3 + torch.randn(count, 6, generator=torch.Generator().manual_seed(count))
    assert uniformity(features, t, CPU) == pytest.approx(naive(features, t), rel=1e-10)


@pytest.mark.parametrize("width", [3, 16])
def test_points_spread_evenly_over_the_sphere_have_the_value_of_the_closed_form(width: int) -> None:
    """E exp(-t |x - y|^2) = e^-2t E e^(2t cos), which is a hypergeometric function of the dimension."""
    features = torch.randn(6000, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = -2 * 2.0 + math.log(hyp0f1(width / 2, 2.0**2))
    assert uniformity(features, 2.0, CPU) == pytest.approx(expected, abs=0.01)


def test_uniformity_of_features_that_are_all_the_same_is_zero() -> None:
    assert uniformity(torch.full((9, 4), 0.3), 2.0, CPU) == pytest.approx(0, abs=1e-12)


def test_uniformity_depends_on_directions_alone() -> None:
    features = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
    lengths = torch.rand(40, 1, generator=torch.Generator().manual_seed(1)) + 0.1
    assert uniformity(features * lengths, 2.0, CPU) == pytest.approx(uniformity(features, 2.0, CPU), rel=1e-5)


def test_one_image_has_no_pairs() -> None:
    assert uniformity(torch.ones(1, 4), 2.0, CPU) is None
