"""Tests of the cheap probe beside the training."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import RidgeClassifier
from sklearn.preprocessing import StandardScaler

from jepa_lab.probes.online import online_probe
from tests.unit.probes.samples import blobs, digit_splits


def test_the_online_probe_does_not_depend_on_the_scale_of_features() -> None:
    train, validation = blobs(120, 0, noise_features=5), blobs(300, 1, noise_features=5)
    scale = torch.tensor([1e-3, 1.0, 50.0, 1.0, 7.0, 1e3, 0.5])
    scaled = [(features * scale + 3, labels) for features, labels in (train, validation)]
    assert online_probe(*scaled) == online_probe(train, validation)


def test_the_online_probe_is_a_ridge_regression_on_standardised_features_with_a_penalty_per_image() -> None:
    # Hardly more images than features, or the penalty would change nothing.
    train, validation = blobs(45, 0, noise_features=45), blobs(600, 1, noise_features=45)
    features, held_out = train[0].double().numpy(), validation[0].double().numpy()
    mean, std = features.mean(axis=0), features.std(axis=0)
    x, targets = (features - mean) / std, np.eye(3)[train[1].numpy()] * 2 - 1

    def accuracy(penalty: float) -> float:
        weights = np.linalg.solve(x.T @ x + penalty * np.eye(47), x.T @ (targets - targets.mean(axis=0)))
        scores = (held_out - mean) / std @ weights + targets.mean(axis=0)
        return (scores.argmax(axis=1) == validation[1].numpy()).mean()

    assert online_probe(train, validation) == pytest.approx(accuracy(1e-3 * 45))
    assert abs(accuracy(1e-3 * 45) - accuracy(1e-3)) > 0.02


def test_the_online_probe_sees_better_features_as_better() -> None:
    train, validation, _ = digit_splits()
    worse = [
        (features + 8 * torch.randn(features.shape, generator=torch.Generator().manual_seed(0)), labels)
        for features, labels in (train, validation)
    ]
    assert online_probe(train, validation) > online_probe(*worse) + 0.1
    assert online_probe(train, validation) > 0.85


def test_features_that_barely_differ_are_probed_as_well_as_any() -> None:
    plain = digit_splits()
    train, validation, _ = ((1 + features * 1e-4, labels) for features, labels in plain)
    assert online_probe(train, validation) == pytest.approx(online_probe(plain[0], plain[1]), abs=0.01)


@pytest.mark.parametrize("data", ["digits", "two classes", "more features than images", "a class left out"])
def test_the_online_probe_finds_what_scikit_learn_finds(data: str) -> None:
    train, validation, _ = digit_splits()  # some pixels are constant
    if data == "two classes":
        train, validation = ((features[labels < 2], labels[labels < 2]) for features, labels in (train, validation))
    elif data == "more features than images":
        train = (train[0][:40], train[1][:40])
    elif data == "a class left out":
        train = (train[0][train[1] != 4], train[1][train[1] != 4])
    scaler = StandardScaler().fit(train[0].numpy())
    ridge = RidgeClassifier(alpha=1e-3 * len(train[1]), solver="cholesky")
    ridge.fit(scaler.transform(train[0].numpy()).astype(np.float64), train[1].numpy())
    expected = ridge.score(scaler.transform(validation[0].numpy()).astype(np.float64), validation[1].numpy())
    assert online_probe(train, validation) == pytest.approx(expected, abs=1e-12)
