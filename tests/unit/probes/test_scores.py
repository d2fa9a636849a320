"""Tests of accuracies and intervals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix

from jepa_lab.probes.scores import accuracy_by_class, confusion_counts, wilson_interval


@pytest.mark.parametrize(("correct", "total"), [(0, 10), (10, 10), (1, 2), (81, 100), (7812, 10_000), (359, 360)])
def test_wilson_interval_is_scipys(correct: int, total: int) -> None:
    expected = binomtest(correct, total).proportion_ci(0.95, method="wilson")
    assert wilson_interval(correct, total) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_interval_of_a_textbook_example() -> None:
    # Newcombe 1998, Stat. Med. 17, 857-872, table I: 81 of 263.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)


def test_wilson_interval_stays_within_zero_and_one_and_is_not_a_point() -> None:
    low, high = wilson_interval(0, 7)
    assert low == pytest.approx(0, abs=1e-15)
    assert low >= 0
    assert 0.2 < high < 0.5
    low, high = wilson_interval(7, 7)
    assert high == pytest.approx(1)
    assert high <= 1
    assert 0.5 < low < 0.8


def test_confusion_has_true_classes_in_rows() -> None:
    generator = np.random.default_rng(0)
    labels, predictions = generator.integers(0, 5, 200), generator.integers(0, 5, 200)
    np.testing.assert_array_equal(
        confusion_counts(labels, predictions, 5), confusion_matrix(labels, predictions, labels=range(5))
    )


def test_confusion_has_rows_for_classes_that_do_not_occur() -> None:
    assert confusion_counts(np.array([0]), np.array([1]), 3).tolist() == [[0, 1, 0], [0, 0, 0], [0, 0, 0]]


def test_accuracy_of_a_class_without_images_is_unknown() -> None:
    confusion = np.array([[3, 1, 0], [0, 0, 0], [2, 0, 6]])
    assert accuracy_by_class(confusion, ("a", "b", "c")) == {"a": 0.75, "b": None, "c": 0.75}
