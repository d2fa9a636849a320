"""LiDAR against a generalised eigenproblem, and on features whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch

from jepa_lab.monitors.lidar import lidar
from jepa_lab.monitors.rankme import centred_rankme

CPU = torch.device("cpu")


def of_eigenproblem(views: np.ndarray, delta: float) -> float:
    """B u = lambda W u, by scipy; views [n, q, D]."""
    num_images, num_views, width = views.shape
    means = views.mean(axis=1)
    between = np.cov(means.T, bias=True)
    rest = (views - means[:, None]).reshape(num_images * num_views, width)
    within = rest.T @ rest / len(rest) + delta * np.eye(width)
    eigenvalues = scipy.linalg.eigh(between, within, eigvals_only=True).clip(0)
    shares = eigenvalues / eigenvalues.sum() + 1e-7
    return float(np.exp(-(shares * np.log(shares)).sum()))


def random_views(num_images: int, num_views: int, signal: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """[n, q, D] float32: images differ by `signal` in each direction, views of an image by `noise`."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(num_images, 1, len(signal), generator=generator) * signal
    return 1 + images + torch.randn(num_images, num_views, len(noise), generator=generator) * noise


@pytest.mark.parametrize("delta", [1e-4, 0.1])
@pytest.mark.parametrize("num_images", [40, 5])
def test_lidar_is_the_effective_rank_of_the_eigenproblem_whatever_the_batches(num_images: int, delta: float) -> None:
    views = random_views(num_images, 6, torch.arange(1, 9) ** -0.5, torch.arange(8, 0, -1) ** -0.5)
    expected = of_eigenproblem(views.double().numpy(), delta)
    assert lidar([views], delta, CPU) == pytest.approx(expected, rel=1e-8)
    assert lidar(views.split(3), delta, CPU) == pytest.approx(expected, rel=1e-8)


def test_directions_that_change_with_the_view_do_not_count() -> None:
    signal = torch.tensor([1.0] * 3 + [0.01] * 13)
    noise = torch.tensor([0.05] * 3 + [1.0] * 13)
    views = random_views(500, 50, signal, noise)
    assert lidar([views], 1e-4, CPU) == pytest.approx(3, abs=0.1)
    assert centred_rankme(views[:, 0]) > 12


def test_without_any_difference_between_images_it_is_one() -> None:
    one = torch.randn(1, 5, 8, generator=torch.Generator().manual_seed(0))
    assert lidar([one.expand(20, -1, -1)], 1e-4, CPU) == pytest.approx(1, abs=1e-4)


def test_views_that_are_all_the_same_leave_delta_to_divide_by() -> None:
    signal = torch.tensor([2.0, 2.0, 0.0, 0.0])
    views = random_views(2000, 1, signal, torch.zeros(4)).expand(-1, 3, -1)
    assert lidar([views], 1e-4, CPU) == pytest.approx(2, abs=0.01)
