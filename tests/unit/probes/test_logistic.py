"""Tests of the logistic probe, against scikit-learn used by hand."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from jepa_lab.probes.features import Labelled
from jepa_lab.probes.logistic import C_GRID, LogisticParams, _is_clearly_worse, logistic_probe
from jepa_lab.probes.result import ProbeResult
from tests.unit.probes.samples import blobs, digit_splits, labelled

DIGITS = tuple(str(digit) for digit in range(10))


@pytest.fixture(scope="module")
def digits() -> tuple[Labelled, Labelled, Labelled]:
    return digit_splits()


BLOB_NAMES = ("a", "b", "c")


def fit_by_hand(train: Labelled, c: float) -> Any:
    """Double precision, tight tolerance, no warm start."""
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=c, tol=1e-9, max_iter=20_000))
    return pipeline.fit(train[0].double().numpy(), train[1].numpy())


def accuracy_by_hand(train: Labelled, held_out: Labelled, c: float) -> float:
    return fit_by_hand(train, c).score(held_out[0].double().numpy(), held_out[1].numpy())


def joined(first: Labelled, second: Labelled) -> Labelled:
    return torch.cat((first[0], second[0])), torch.cat((first[1], second[1]))


def test_probe_agrees_with_tight_cold_fits_by_hand(digits: tuple[Labelled, Labelled, Labelled]) -> None:
    train, validation, test = digits
    settings = LogisticParams(c_grid=(1e-3, 1e-2, 1e-1, 1.0))
    result = logistic_probe(train, validation, test, settings, DIGITS)
    accuracies = {c: accuracy_by_hand(train, validation, c) for c in (1e-3, 1e-2, 1e-1, 1.0)}
    assert dict(result.validation_accuracy_by_c) == pytest.approx(accuracies, abs=1e-12)
    assert result.c == max(accuracies, key=lambda c: accuracies[c])
    assert result.validation_accuracy == pytest.approx(accuracies[result.c])
    assert result.test_accuracy == pytest.approx(accuracy_by_hand(joined(train, validation), test, result.c))
    assert result.converged
    assert (result.num_train, result.num_validation, result.num_test) == (400, 300, 1097)


def test_the_scaler_of_the_search_sees_training_images_alone_and_that_of_the_refit_both_splits() -> None:
    train, test = blobs(120, 0), blobs(300, 2)
    features, labels = blobs(90, 1)
    validation = (
        3 * features + torch.tensor([4.0, -2.0]),
        labels,
    )  # on another scale, so that it matters who standardises
    result = logistic_probe(train, validation, test, LogisticParams(c_grid=(0.01,)), BLOB_NAMES)
    assert result.validation_accuracy == pytest.approx(accuracy_by_hand(train, validation, 0.01))
    assert result.test_accuracy == pytest.approx(accuracy_by_hand(joined(train, validation), test, 0.01))
    leaky = StandardScaler().fit(joined(train, validation)[0].numpy())
    wrong = LogisticRegression(C=0.01).fit(leaky.transform(train[0].numpy()), train[1].numpy())
    assert result.validation_accuracy != wrong.score(leaky.transform(validation[0].numpy()), labels.numpy())


def test_test_labels_change_nothing_but_the_test_scores() -> None:
    train, validation, (features, labels) = blobs(120, 0), blobs(90, 1), blobs(90, 2)
    permuted = labels[torch.randperm(90, generator=torch.Generator().manual_seed(0))]
    honest = logistic_probe(train, validation, (features, labels), LogisticParams(), BLOB_NAMES)
    blind = logistic_probe(train, validation, (features, permuted), LogisticParams(), BLOB_NAMES)
    without = logistic_probe(train, validation, None, LogisticParams(), BLOB_NAMES)
    test_fields = ("test_accuracy", "test_interval", "per_class_accuracy", "confusion")
    assert replace(honest, **{name: getattr(blind, name) for name in test_fields}) == blind
    assert honest.test_accuracy is not None
    assert blind.test_accuracy is not None
    assert blind.test_accuracy < honest.test_accuracy - 0.2
    nothing = dict.fromkeys((*test_fields, "num_test", "refit_converged"))
    unpredicted = replace(honest.predictions, test=None)
    assert replace(honest, predictions=unpredicted, **nothing) == without  # type: ignore[arg-type]


def test_without_a_test_split_there_are_no_test_scores() -> None:
    result = logistic_probe(blobs(60, 0), blobs(60, 1), None, LogisticParams(), BLOB_NAMES)
    assert result.test_accuracy is result.test_interval is result.confusion is result.per_class_accuracy is None
    assert result.validation_accuracy > 0.5


def test_test_scores_belong_together() -> None:
    result = logistic_probe(blobs(60, 0), blobs(60, 1), blobs(90, 2), LogisticParams(), BLOB_NAMES)
    assert result.confusion is not None
    assert result.test_interval is not None
    assert result.per_class_accuracy is not None
    assert result.test_accuracy is not None
    confusion = np.array(result.confusion)
    assert confusion.sum(axis=1).tolist() == [30, 30, 30]
    assert result.test_accuracy == pytest.approx(np.trace(confusion) / 90)
    assert list(result.per_class_accuracy.values()) == pytest.approx(list(np.diag(confusion) / 30))
    assert result.test_interval[0] < result.test_accuracy < result.test_interval[1]


def test_two_probes_of_the_same_features_are_identical(digits: tuple[Labelled, Labelled, Labelled]) -> None:
    results = [logistic_probe(*digits, LogisticParams(), DIGITS) for _ in range(2)]
    assert results[0] == results[1]


def test_features_are_left_as_they_were() -> None:
    splits = blobs(60, 0), blobs(60, 1), blobs(60, 2)
    before = [features.clone() for features, _ in splits]
    logistic_probe(*splits, LogisticParams(), BLOB_NAMES)
    assert all(torch.equal(features, old) for (features, _), old in zip(splits, before, strict=True))


def test_fits_that_do_not_converge_are_reported_without_a_warning() -> None:
    settings = LogisticParams(c_grid=(0.1, 1.0), max_iterations=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        result = logistic_probe(blobs(90, 0), blobs(90, 1), blobs(90, 2), settings, BLOB_NAMES)
    assert not result.converged
    assert result.unconverged_c == (0.1, 1.0)
    assert any("no convergence" in note and "C=0.1" in note for note in result.notes())
    assert logistic_probe(blobs(90, 0), blobs(90, 1), None, LogisticParams(), BLOB_NAMES).unconverged_c == ()


OVERFITTING = blobs(120, 0, noise_features=40), blobs(2000, 1, noise_features=40)
"""C = 0.1 is best, and 1 is worse by 3 points."""


@pytest.mark.parametrize(("grid", "edge"), [((1e-2, 1e-1), "high"), ((1e-1, 1e3), "low"), ((1e-1,), None)])
def test_a_c_on_the_edge_of_the_grid_is_reported(grid: tuple[float, ...], edge: str | None) -> None:
    result = logistic_probe(*OVERFITTING, None, LogisticParams(c_grid=grid), BLOB_NAMES)
    assert result.c == 1e-1
    assert result.c_at_edge == edge
    assert [("C=0.1" in note) for note in result.notes()] == [True] * (edge is not None)


def test_the_search_ends_where_weaker_penalties_only_overfit_and_finds_the_same_c() -> None:
    settings = LogisticParams()
    result = logistic_probe(*OVERFITTING, None, settings, BLOB_NAMES)
    accuracies = {c: accuracy_by_hand(*OVERFITTING, c) for c in C_GRID.values}
    assert [c for c, _ in result.validation_accuracy_by_c] == [1e-4, 1e-3, 1e-2, 1e-1, 1.0]
    assert result.c == max(accuracies, key=lambda c: accuracies[c])
    assert result.c_at_edge is None
    assert result.notes() == []


def scaled_away(num_images: int, seed: int) -> Labelled:
    """Two features that differ by a hundredth of their size, and the class is in the difference: it takes a large C."""
    generator = np.random.default_rng(seed)
    labels = np.arange(num_images) % 2
    common = generator.standard_normal(num_images)
    features = np.stack([common, common + 1e-2 * (labels - 0.5 + 0.2 * generator.standard_normal(num_images))], axis=1)
    return labelled(features, labels)


def test_the_default_grid_goes_on_until_the_best_c_is_inside_and_an_explicit_one_does_not() -> None:
    train, validation, test = (scaled_away(400, seed) for seed in range(3))
    old = logistic_probe(train, validation, test, LogisticParams(c_grid=C_GRID.values), ("a", "b"))
    assert (old.c, old.c_at_edge, old.c_grid_is_default) == (100.0, "high", False)
    assert old.notes() == ["C=100 is the largest of c_grid; extend the grid there, or leave it out"]
    new = logistic_probe(train, validation, test, LogisticParams(), ("a", "b"))
    tried = [c for c, _ in new.validation_accuracy_by_c]
    assert tried == sorted(tried)
    assert tried[: len(C_GRID.values)] == list(C_GRID.values)
    assert new.c > 100
    assert new.c_at_edge is None
    assert "is the largest" not in str(new.notes())
    assert new.validation_accuracy > old.validation_accuracy
    assert new.test_accuracy is not None
    assert old.test_accuracy is not None
    assert new.test_accuracy > old.test_accuracy
    assert dict(new.validation_accuracy_by_c)[tried[-1]] <= new.validation_accuracy


def test_the_same_grid_given_gives_what_the_default_found_where_it_had_not_to_go_on() -> None:
    default = logistic_probe(*OVERFITTING, None, LogisticParams(), BLOB_NAMES)
    given = logistic_probe(*OVERFITTING, None, LogisticParams(c_grid=C_GRID.values), BLOB_NAMES)
    assert replace(default, c_grid_is_default=False) == given


def test_a_flat_top_ends_the_search_and_is_stated() -> None:
    train, validation = blobs(90, 0, spread=0.05), blobs(90, 1, spread=0.05)
    result = logistic_probe(train, validation, None, LogisticParams(), BLOB_NAMES)
    assert {accuracy for _, accuracy in result.validation_accuracy_by_c} == {1.0}
    assert result.c == 1e-4
    assert result.flat_top == (1e-4, 100.0)
    assert [c for c, _ in result.validation_accuracy_by_c] == [1e-6, 1e-5, *C_GRID.values]
    assert result.notes() == [
        "C=0.0001 is as good as every one from 0.0001 to 100 on validation, and the search ended there"
    ]


def test_equal_accuracies_choose_the_smallest_c() -> None:
    train, validation = blobs(90, 0, spread=0.05), blobs(90, 1, spread=0.05)
    result = logistic_probe(train, validation, None, LogisticParams(c_grid=(0.1, 1.0, 10.0)), BLOB_NAMES)
    assert [accuracy for _, accuracy in result.validation_accuracy_by_c] == [1.0, 1.0, 1.0]
    assert result.c == 0.1


def test_two_classes_are_enough() -> None:
    keep = [
        (features[labels < 2], labels[labels < 2]) for features, labels in (blobs(90, 0), blobs(90, 1), blobs(90, 2))
    ]
    result = logistic_probe(keep[0], keep[1], keep[2], LogisticParams(), ("a", "b"))
    assert result.test_accuracy == pytest.approx(accuracy_by_hand(joined(keep[0], keep[1]), keep[2], result.c))


def test_a_result_is_json(digits: tuple[Labelled, Labelled, Labelled]) -> None:
    result = logistic_probe(*digits, LogisticParams(c_grid=(0.01, 0.1)), DIGITS)
    read = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert read["test_accuracy"] == result.test_accuracy
    assert read["confusion"] == np.array(result.confusion).tolist()
    assert set(read) == set(ProbeResult.__dataclass_fields__) - {"predictions"}


def test_features_that_barely_differ_are_probed_as_well_as_any(digits: tuple[Labelled, Labelled, Labelled]) -> None:
    # An encoder whose features share a large mean: single precision must not cost accuracy.
    train, validation, test = ((1 + features * 1e-4, labels) for features, labels in digits)
    shrunk = logistic_probe(train, validation, test, LogisticParams(c_grid=(0.1,)), DIGITS)
    plain = logistic_probe(*digits, LogisticParams(c_grid=(0.1,)), DIGITS)
    assert shrunk.test_accuracy == pytest.approx(plain.test_accuracy, abs=0.01)


@pytest.mark.parametrize("grid", [(), (1.0, 1.0), (1.0, 0.1), (0.0, 1.0), (-1.0,), (float("nan"),), (float("inf"),)])
def test_grids_that_are_not_positive_finite_and_increasing_are_refused(grid: tuple[float, ...]) -> None:
    with pytest.raises(ValidationError, match="c_grid"):
        LogisticParams(c_grid=grid)


def test_a_c_is_clearly_worse_only_beyond_two_standard_errors() -> None:
    best = np.ones(20, dtype=bool)

    def worse(lost: int) -> bool:
        correct = best.copy()
        correct[:lost] = False
        return _is_clearly_worse(correct, best)

    assert [worse(lost) for lost in (0, 3, 4, 5)] == [False, False, False, True]  # 4 images are 2 standard errors
