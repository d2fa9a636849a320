"""Singular values summed up over batches, against numpy's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from jepa_lab.monitors import spectrum
from jepa_lab.monitors.spectrum import effective_rank, singular_values

CPU = torch.device("cpu")


def decaying(num_images: int, width: int) -> torch.Tensor:
    """Float32 features around a common point, of a spectrum that decays."""
    generator = torch.Generator().manual_seed(num_images)
    spread = torch.randn(num_images, width, generator=generator, dtype=torch.float64)
    return (1 + spread * torch.arange(1, width + 1, dtype=torch.float64) ** -1.5).float()


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize(("num_images", "width"), [(100, 8), (7, 20), (20, 20), (1, 5)])
def test_singular_values_are_those_of_a_decomposition_whatever_the_batches(
    num_images: int, width: int, centred: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spectrum, "_AT_ONCE", 13)
    features = decaying(num_images, width)
    exact = features.double().numpy()
    expected = np.linalg.svd(exact - exact.mean(axis=0) * centred, compute_uv=False)
    found = singular_values(features, CPU, centred=centred)
    assert found.shape == (min(num_images, width),)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=2e-8 * max(expected[0], 1))


def test_a_spread_far_below_the_mean_is_measured_exactly() -> None:
    generator = torch.Generator().manual_seed(0)
    features = (1 + 1e-4 * torch.randn(500, 6, generator=generator, dtype=torch.float64)).float()
    exact = features.double().numpy()
    expected = np.linalg.svd(exact - exact.mean(axis=0), compute_uv=False)
    np.testing.assert_allclose(singular_values(features, CPU, centred=True).numpy(), expected, rtol=1e-9)


@pytest.mark.parametrize("count", [1, 3, 10])
def test_the_effective_rank_of_equal_directions_is_their_number(count: int) -> None:
    sizes = torch.cat([torch.full((count,), 0.3, dtype=torch.float64), torch.zeros(20, dtype=torch.float64)])
    assert effective_rank(sizes) == pytest.approx(count, rel=1e-4)
    assert effective_rank(1e6 * sizes) == pytest.approx(effective_rank(sizes))


def test_the_effective_rank_of_nothing_is_one() -> None:
    assert effective_rank(torch.zeros(20, dtype=torch.float64)) == pytest.approx(1, abs=1e-4)
