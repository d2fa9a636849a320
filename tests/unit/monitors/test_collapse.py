"""The collapse rule against histories."""

from __future__ import annotations

import json

import pytest

from jepa_lab.monitors.collapse import CollapseDetector, CollapseSettings

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
