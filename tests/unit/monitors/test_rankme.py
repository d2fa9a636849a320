"""RankMe against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from jepa_lab.monitors.rankme import centred_rankme, rankme


@pytest.mark.parametrize("rank", [1, 2, 7, 16])
def test_rankme_of_equal_singular_values_is_their_number(rank: int) -> None:
    generator = np.random.default_rng(rank)
    left, _ = np.linalg.qr(generator.standard_normal((40, rank)))
    right, _ = np.linalg.qr(generator.standard_normal((16, rank)))
    features = torch.as_tensor(5 * left @ right.T)
    assert rankme(features) == pytest.approx(rank, rel=1e-4)


def test_rankme_of_unequal_singular_values_is_the_exponential_of_their_entropy() -> None:
    features = torch.diag(torch.tensor([3.0, 1.0]))
    assert rankme(features) == pytest.approx(math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25)), rel=1e-5)


def test_rankme_does_not_depend_on_scale_and_does_not_centre() -> None:
    features = torch.randn(100, 8, generator=torch.Generator().manual_seed(0))
    assert rankme(1000 * features) == pytest.approx(rankme(features))
    assert rankme(features) > 7
    assert rankme(features + 1000) < 1.1


def test_rankme_of_features_that_are_all_zero_is_one() -> None:
    assert rankme(torch.zeros(10, 4)) == pytest.approx(1, abs=1e-4)


def test_centred_rankme_does_not_see_the_point_around_which_features_lie() -> None:
    features = torch.randn(100, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    centred = features - features.mean(dim=0)
    assert centred_rankme(features + 1000) == pytest.approx(rankme(centred), rel=1e-6)
    assert centred_rankme(features + 1000) > 7


@pytest.mark.parametrize("directions", [1, 3])
def test_centred_rankme_counts_the_directions_in_which_images_differ(directions: int) -> None:
    generator = torch.Generator().manual_seed(directions)
    square, _ = torch.linalg.qr(torch.randn(40, directions, generator=generator, dtype=torch.float64))
    spread = torch.cat([square, -square])  # of zero mean, equal in every direction
    axes, _ = torch.linalg.qr(torch.randn(16, directions, generator=generator, dtype=torch.float64))
    assert centred_rankme(5 + spread @ axes.T) == pytest.approx(directions, rel=1e-4)


def test_centred_rankme_of_features_that_are_the_same_for_every_image_is_one() -> None:
    constant = torch.randn(1, 16, generator=torch.Generator().manual_seed(0)).expand(50, -1)
    assert centred_rankme(constant) == pytest.approx(1, abs=1e-4)


def test_rankme_is_the_formula_of_the_paper_on_singular_values_of_a_decomposition() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(300, 24, generator=generator) * torch.arange(1, 25) ** -1.0
    singular_values = np.linalg.svd(features.double().numpy(), compute_uv=False)
    shares = singular_values / singular_values.sum() + 1e-7
    assert rankme(features) == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-7)


def test_more_images_show_more_directions_of_the_same_features() -> None:
    """Why a RankMe says of how many images it is: 512 of width 768 with a power-law spectrum read far too low."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(4000, 256, generator=generator) * torch.arange(1, 257) ** -0.2
    few, many = rankme(features[:128]), rankme(features)
    assert few < 0.6 * many
