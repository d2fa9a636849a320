"""The exponent of spectra that follow a power law, exactly and sampled."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from jepa_lab.monitors.alpha_req import AlphaReQ, decay_exponent
from jepa_lab.monitors.spectrum import singular_values
from jepa_lab.testing.encoders import WIDTH
from jepa_lab.testing.monitors import make_observed, random_images


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.3])
@pytest.mark.parametrize(("first", "last"), [(6, 100), (1, 40), (11, 500)])
def test_the_exponent_of_a_power_law_is_found_whatever_the_range(alpha: float, first: int, last: int) -> None:
    eigenvalues = 7 * torch.arange(1, 201, dtype=torch.float64) ** -alpha
    assert decay_exponent(eigenvalues, first, last) == pytest.approx(alpha, rel=1e-9)


def test_the_fit_is_that_of_numpy_with_weights_of_one_over_the_number() -> None:
    numbers = np.arange(6, 101)
    random = np.random.default_rng(0)
    eigenvalues = np.sort(np.exp(random.normal(0, 1, 120)))[::-1].copy()
    # polyfit takes the roots of the weights of squares.
    slope, _ = np.polyfit(np.log(numbers), np.log(eigenvalues[5:100]), 1, w=numbers**-0.5)
    assert decay_exponent(torch.from_numpy(eigenvalues), 6, 100) == pytest.approx(-slope, rel=1e-9)


@pytest.mark.parametrize("alpha", [0.7, 1.3])
def test_features_with_such_a_covariance_have_the_exponent(alpha: float) -> None:
    generator = torch.Generator().manual_seed(0)
    scales = torch.arange(1, 129, dtype=torch.float64) ** (-alpha / 2)
    turned, _ = torch.linalg.qr(torch.randn(128, 128, generator=generator, dtype=torch.float64))
    features = 3 + (torch.randn(20_000, 128, generator=generator, dtype=torch.float64) * scales) @ turned
    found = singular_values(features.float(), torch.device("cpu"), centred=True).square()
    assert decay_exponent(found, 6, 100) == pytest.approx(alpha, abs=0.03)


def test_eigenvalues_that_are_zero_to_rounding_are_not_fitted() -> None:
    law = torch.arange(1, 31, dtype=torch.float64) ** -1.0
    rounding = torch.full((70,), 1e-17, dtype=torch.float64)
    assert decay_exponent(torch.cat([law, rounding]), 6, 100, 1e-16) == pytest.approx(1)


def test_the_direction_that_a_final_norm_leaves_without_features_is_not_fitted() -> None:
    observed = make_observed(random_images(200))
    observed.encoder.norm.bias.data.fill_(30.0)  # the spread is far below the mean, where rounding shows
    eigenvalues = observed.centred_singular_values.square()
    assert 0 < eigenvalues[-1] < 1e-6 * eigenvalues[-2]
    (found,) = AlphaReQ(AlphaReQ.Params(first=1, last=10)).measure(observed).values()
    (all_but_one,) = AlphaReQ(AlphaReQ.Params(first=1, last=WIDTH)).measure(observed).values()
    assert found is not None
    assert all_but_one == pytest.approx(decay_exponent(eigenvalues[:-1], 1, WIDTH))


@pytest.mark.parametrize("count", [0, 1, 14])
def test_too_few_eigenvalues_have_no_exponent(count: int) -> None:
    eigenvalues = torch.zeros(64, dtype=torch.float64)
    eigenvalues[:count] = 1 / torch.arange(1, count + 1)
    assert decay_exponent(eigenvalues, 6, 100) is None


def test_a_range_of_fewer_than_ten_eigenvalues_is_refused() -> None:
    AlphaReQ.Params(first=6, last=15)
    with pytest.raises(ValidationError, match="last must be at least 9 above first"):
        AlphaReQ.Params(first=6, last=14)
