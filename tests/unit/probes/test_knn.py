"""Tests of the k-NN probe against cosine similarities computed by hand."""

from __future__ import annotations

import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import normalize
from torch import Tensor

from jepa_lab.probes.features import Labelled
from jepa_lab.probes.knn import Knn, knn_probe
from tests.unit.probes.fakes import make_splits
from tests.unit.probes.samples import digit_splits


def random_features(num_images: int, seed: int, *, mean: float = 0.3, spread: float = 1.0) -> Labelled:
    """Three classes around directions of their own, beside a shared mean, with lengths that say nothing."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(num_images) % 3
    directions = torch.eye(3, 8)[labels] + 0.5 * torch.randn(num_images, 8, generator=generator)
    lengths = torch.rand(num_images, 1, generator=generator) * 5 + 0.1
    return lengths * (mean + spread * directions), labels


def accuracy_by_hand(bank: Labelled, queries: Labelled, neighbors: int) -> float:
    """Double precision cosine similarities, and a count of votes; the lowest class wins a tie."""
    unit: list[Tensor] = [
        features.double() / features.double().norm(dim=1, keepdim=True) for features, _ in (bank, queries)
    ]
    nearest = (unit[1] @ unit[0].T).topk(neighbors, dim=1).indices  # [q, k]
    votes = torch.nn.functional.one_hot(bank[1][nearest], 3).sum(dim=1)  # [q, 3]
    return (votes.argmax(dim=1) == queries[1]).double().mean().item()


@pytest.mark.parametrize("neighbors", [1, 5, 20])
def test_accuracies_are_those_of_cosine_neighbours(neighbors: int) -> None:
    train, validation, test = random_features(150, 0), random_features(90, 1), random_features(120, 2)
    result = knn_probe(train, validation, test, neighbors)
    both = torch.cat((train[0], validation[0])), torch.cat((train[1], validation[1]))
    assert result.validation_accuracy == pytest.approx(accuracy_by_hand(train, validation, neighbors))
    assert result.test_accuracy == pytest.approx(accuracy_by_hand(both, test, neighbors))
    assert 0.5 < result.validation_accuracy < 1


def test_features_that_barely_differ_have_the_neighbours_they_have() -> None:
    # Images that differ by a thousandth of a shared mean: 1 - cosine is below single precision.
    train, validation = (random_features(n, seed, mean=1.0, spread=3e-4) for n, seed in ((300, 0), (200, 1)))
    result = knn_probe(train, validation, None, 5)
    assert result.validation_accuracy == pytest.approx(accuracy_by_hand(train, validation, 5), abs=0.011)


@pytest.mark.parametrize("neighbors", [1, 4, 20])
def test_accuracies_are_those_of_scikit_learn(neighbors: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jepa_lab.probes.knn._DISTANCES_AT_ONCE", 7 * 400)  # several parts, the last one smaller
    for train, queries in (digit_splits()[::2], (random_features(150, 0), random_features(90, 1))):
        classifier = KNeighborsClassifier(neighbors, algorithm="brute", metric="euclidean")
        classifier.fit(normalize(train[0].numpy()), train[1].numpy())
        expected = classifier.score(normalize(queries[0].numpy()), queries[1].numpy())
        assert knn_probe(train, queries, None, neighbors).validation_accuracy == pytest.approx(expected, abs=1e-12)


def test_images_of_zeros_are_compared_without_error() -> None:
    train, validation = random_features(60, 0), random_features(30, 1)
    train[0][0] = 0
    validation[0][0] = 0
    assert knn_probe(train, validation, None, 3).validation_accuracy > 0.5


def test_without_a_test_split_there_is_no_test_accuracy() -> None:
    result = knn_probe(random_features(60, 0), random_features(30, 1), None, 20)
    assert result.test_accuracy is None


def test_more_neighbours_than_training_images_are_refused() -> None:
    refused = Knn.check(Knn.Params(neighbors=91), make_splits())
    assert refused is not None
    assert str(refused).startswith("neighbors must be at most the number of training images (90), got 91; lower it")
    assert Knn.check(Knn.Params(neighbors=90), make_splits()) is None
