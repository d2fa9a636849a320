"""Tests of the monitors against closed forms, and of the collapse rule against histories."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from jepa_lab.probes.monitors import (
    CollapseDetector,
    CollapseSettings,
    feature_std,
    image_variance_ratio,
    rankme,
)


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


def test_feature_std_is_the_mean_over_features() -> None:
    features = torch.tensor([[0.0, 5.0], [2.0, 5.0], [4.0, 5.0]])
    assert feature_std(features) == pytest.approx((math.sqrt(8 / 3) + 0) / 2)


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
    assert feature_std(features[:, 0]) == pytest.approx(exact[:, 0].std(axis=0).mean())


History = list[tuple[float, float, float]]
"""Validation loss, image variance ratio and RankMe of one probe epoch after another."""

# Rounded from runs on 1,100 digits (64x4 encoder, one seed).
HEALTHY: History = [(0.44, 0.0020, 1.080), (0.24, 0.0020, 1.080), (0.10, 0.0019, 1.075), (0.05, 0.0018, 1.075)]
HEALTHY += [(0.038, 0.0018, 1.080), (0.043, 0.0018, 1.083), (0.045, 0.0018, 1.083)]
NO_EMA: History = [(0.44, 0.0020, 1.080), (0.34, 0.00028, 1.030), (0.07, 0.00010, 1.017), (0.007, 0.00009, 1.016)]
TOO_FAST: History = [(0.44, 0.0020, 1.080), (0.04, 0.00143, 1.071), (0.011, 0.00069, 1.051)]
TOO_FAST += [(0.003, 0.00028, 1.031), (0.001, 0.00015, 1.023), (0.0009, 0.00010, 1.018)]


def verdicts(history: History, detector: CollapseDetector | None = None) -> list[str]:
    detector = detector or CollapseDetector(CollapseSettings())
    return [
        detector.observe(validation_loss=loss, image_variance_ratio=ratio, rankme=rank) for loss, ratio, rank in history
    ]


def test_a_healthy_run_stays_unmarked() -> None:
    assert verdicts(HEALTHY) == ["healthy"] * len(HEALTHY)


def test_a_forced_collapse_is_first_warned_of_and_then_marked() -> None:
    assert verdicts(NO_EMA) == ["healthy", "warned", "warned", "collapsed"]


def test_a_slow_collapse_is_marked_when_little_is_left() -> None:
    assert verdicts(TOO_FAST) == ["healthy", "healthy", "healthy", "warned", "warned", "collapsed"]


def test_a_warning_is_cleared_when_the_features_recover() -> None:
    history = [NO_EMA[0], NO_EMA[1], NO_EMA[2], HEALTHY[3], NO_EMA[1], NO_EMA[2], HEALTHY[3]]
    assert verdicts(history) == ["healthy", "warned", "warned", "healthy", "warned", "warned", "healthy"]


def test_a_mark_stays() -> None:
    assert verdicts([*NO_EMA, *HEALTHY])[-1] == "collapsed"


def test_a_collapse_after_the_features_became_good_is_compared_with_their_best() -> None:
    rising = [(0.5, 0.02, 2.0), (0.3, 0.2, 8.0), (0.2, 0.4, 15.0)]
    fallen = [(0.1, 0.05, 3.0)] * 3  # still above epoch 0
    assert verdicts([*rising, *fallen]) == ["healthy"] * 3 + ["warned", "warned", "collapsed"]


def test_a_loss_that_does_not_fall_is_no_collapse() -> None:
    assert set(verdicts([(0.44, 0.002, 1.08)] + [(0.44 + i, 0.0001, 1.01) for i in range(5)])) == {"healthy"}


def test_features_that_keep_their_directions_are_not_collapsed() -> None:
    # Features begin to encode the position: the ratio falls, but images still differ in as many directions.
    assert set(verdicts([(0.4, 0.9, 9.0)] + [(0.1, 0.1, 12.0)] * 5)) == {"healthy"}


def test_patience_is_the_number_of_suspicious_epochs_in_a_row() -> None:
    detector = CollapseDetector(CollapseSettings(patience=1))
    assert verdicts(NO_EMA[:2], detector) == ["healthy", "collapsed"]
    assert detector.collapsed


@pytest.mark.parametrize("split", range(len(NO_EMA) + 1))
def test_a_restored_detector_goes_on_as_if_not_interrupted(split: int) -> None:
    first = CollapseDetector(CollapseSettings())
    before = verdicts(NO_EMA[:split], first)
    second = CollapseDetector(CollapseSettings())
    second.restore(json.loads(json.dumps(first.state(), allow_nan=False)))
    assert second.status == first.status
    assert before + verdicts(NO_EMA[split:], second) == verdicts(NO_EMA)


def test_of_epochs_that_depend_on_the_image_alike_the_first_is_compared_with() -> None:
    history = [(0.4, 0.002, 1.08), (0.1, 0.002, 1.08), (0.2, 0.0001, 1.01)]
    assert verdicts(history) == ["healthy", "healthy", "warned"]


@pytest.mark.parametrize(
    ("ratio", "rank", "verdict"), [(0.25, 3.0, "warned"), (0.26, 3.0, "healthy"), (0.25, 3.1, "healthy")]
)
def test_little_is_left_from_the_given_shares_on(ratio: float, rank: float, verdict: str) -> None:
    detector = CollapseDetector(CollapseSettings(variance_fraction=0.25, rank_fraction=0.5))
    assert verdicts([(0.4, 1.0, 5.0), (0.1, ratio, rank)], detector) == ["healthy", verdict]
