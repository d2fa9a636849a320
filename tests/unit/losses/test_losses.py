"""Losses against hand-computed values, and the mean over valid patches."""

from __future__ import annotations

import pytest
import torch

from jepa_lab.losses.base import mean_over_valid
from jepa_lab.losses.cosine import CosineLoss
from jepa_lab.losses.l2 import L2Loss, L2Params
from jepa_lab.losses.smooth_l1 import SmoothL1Loss, SmoothL1Params
from jepa_lab.registry import ComponentParams

PREDICTIONS = torch.tensor([[0.0, 3.0], [1.0, 1.0]])
TARGETS = torch.tensor([[0.5, 0.0], [1.0, 1.0]])


def test_l2_sums_or_averages_the_squares_over_features() -> None:
    assert L2Loss(L2Params()).per_patch(PREDICTIONS, TARGETS).tolist() == [9.25, 0.0]
    assert L2Loss(L2Params(over_features="mean")).per_patch(PREDICTIONS, TARGETS).tolist() == [4.625, 0.0]


@pytest.mark.parametrize(("beta", "expected"), [(1.0, (0.125 + 2.5) / 2), (0.25, (0.375 + 2.875) / 2)])
def test_smooth_l1_is_quadratic_below_beta_and_linear_above(beta: float, expected: float) -> None:
    per_patch = SmoothL1Loss(SmoothL1Params(beta=beta)).per_patch(PREDICTIONS, TARGETS)
    assert per_patch.tolist() == pytest.approx([expected, 0.0])


def test_mean_over_valid_ignores_padding_even_if_it_is_not_finite() -> None:
    per_patch = torch.tensor([[[[1.0, 2.0, float("inf")]]], [[[3.0, float("nan"), 5.0]]]])
    valid = torch.tensor([[[True, True, False]], [[True, False, False]]])
    assert mean_over_valid(per_patch, valid, count=3).item() == 2.0
    assert mean_over_valid(per_patch, valid, count=6).item() == 1.0  # of a batch of which this is a part


def test_mean_over_valid_takes_every_context_view_and_every_patch_where_all_are_valid() -> None:
    per_patch = torch.tensor([[[[1.0, 9.0]], [[3.0, 9.0]]]])  # [B, E, M, T] = [1, 2, 1, 2]
    assert mean_over_valid(per_patch, torch.tensor([[[True, False]]]), count=2).item() == 2.0
    assert mean_over_valid(per_patch, None, count=4).item() == 5.5


def test_cosine_is_one_minus_the_cosine_and_ignores_lengths() -> None:
    loss = CosineLoss(ComponentParams())
    predictions = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]])
    targets = torch.tensor([[4.0, 0.0], [5.0, 0.0], [1.0, 0.0]])
    assert loss.per_patch(predictions, targets).tolist() == [0.0, 1.0, 2.0]
    assert torch.allclose(loss.per_patch(7 * predictions, targets), loss.per_patch(predictions, targets))
