"""Tests of the k-NN probe against a brute force in numpy, and against scikit-learn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import normalize

from jepa_lab.probes import neighbors as neighbors_module
from jepa_lab.probes import subject as subject_module
from jepa_lab.probes.arrays import CPU
from jepa_lab.probes.features import Labelled
from jepa_lab.probes.knn import Knn, KnnParams, KnnResult, candidates, count_votes, knn_probe
from jepa_lab.probes.neighbors import NeighbourSearch
from jepa_lab.testing.subjects import make_splits, make_subject
from tests.unit.probes.fakes import FakeEncoder
from tests.unit.probes.samples import digit_splits


def random_features(num_images: int, seed: int, *, mean: float = 0.3, spread: float = 1.0) -> Labelled:
    """Three classes around directions of their own, beside a shared mean, with lengths that say nothing."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(num_images) % 3
    directions = torch.eye(3, 8)[labels] + 0.5 * torch.randn(num_images, 8, generator=generator)
    lengths = torch.rand(num_images, 1, generator=generator) * 5 + 0.1
    return lengths * (mean + spread * directions), labels


def probed(train: Labelled, validation: Labelled, test: Labelled | None = None, **params: Any) -> KnnResult:
    return knn_probe(train, validation, test, KnnParams(**params), num_classes=int(train[1].max()) + 1)


def accuracy_by_hand(bank: Labelled, queries: Labelled, k: int, temperature: float, standardize: bool) -> float:
    """One query after another: all cosines, the k largest, a weight for each."""
    x, y = bank[0].double().numpy(), bank[1].numpy()
    q = queries[0].double().numpy()
    if standardize:
        mean, std = x.mean(axis=0), x.std(axis=0)
        x, q = (x - mean) / std, (q - mean) / std
    correct = 0
    for query, label in zip(q, queries[1].tolist(), strict=True):
        cosines = x @ query / np.linalg.norm(x, axis=1) / np.linalg.norm(query)
        nearest = np.argsort(-cosines)[:k]
        weights = np.exp((cosines[nearest] - cosines.max()) / temperature)
        votes = np.bincount(y[nearest], weights=weights, minlength=3)
        correct += int(votes.argmax() == label)
    return correct / len(q)


@pytest.mark.parametrize("rows", [2048, 17], ids=["one block", "many blocks"])
@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (5, 0.07), (20, 0.5), (90, 0.07)])
def test_accuracies_are_those_of_a_brute_force(
    k: int, temperature: float, standardize: bool, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbors_module, "_ROWS_AT_ONCE", rows)
    train, validation, test = random_features(150, 0), random_features(90, 1), random_features(120, 2)
    result = probed(train, validation, test, neighbors=k, temperature=temperature, standardize=standardize)
    both = torch.cat((train[0], validation[0])), torch.cat((train[1], validation[1]))
    assert result.validation_accuracy == accuracy_by_hand(train, validation, k, temperature, standardize)
    assert result.test_accuracy == accuracy_by_hand(both, test, k, temperature, standardize)
    assert 0.5 < result.validation_accuracy < 1


def test_the_validation_split_chooses_among_the_numbers_that_there_are() -> None:
    train, validation, test = random_features(150, 0), random_features(90, 1), random_features(120, 2)
    result = probed(train, validation, test)
    by_hand = {k: accuracy_by_hand(train, validation, k, 0.07, False) for k in (10, 20, 100)}
    assert dict(result.validation_accuracy_by_neighbors) == by_hand
    assert result.neighbors == max(by_hand, key=lambda k: (by_hand[k], -k))
    assert result.validation_accuracy == by_hand[result.neighbors]
    both = torch.cat((train[0], validation[0])), torch.cat((train[1], validation[1]))
    assert result.test_accuracy == accuracy_by_hand(both, test, result.neighbors, 0.07, False)
    assert [candidates(None, count) for count in (5, 10, 199, 200)] == [(5,), (10,), (10, 20, 100), (10, 20, 100, 200)]
    assert candidates(7, 10) == (7,)


def test_the_chosen_number_is_in_the_outcome_and_shown_where_it_was_chosen() -> None:
    subject = make_subject(FakeEncoder())
    outcome = Knn(KnnParams()).run(subject)
    assert outcome.details["neighbors"] in (10, 20)
    assert outcome.choice == f"{outcome.details['neighbors']} neighbours"
    assert Knn(KnnParams(neighbors=5)).run(subject).choice == ""


def uninformative(num_images: int, seed: int) -> Labelled:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num_images, 16, generator=generator), torch.arange(num_images) % 10


def predicted(bank: Labelled, queries: Labelled, params: KnnParams, k: int) -> np.ndarray:
    """How often each of ten labels is predicted: the accuracy on queries that all bear it."""
    shares = []
    for label in range(10):
        everywhere = queries[0], torch.full_like(queries[1], label)
        result = knn_probe(bank, everywhere, None, params.model_copy(update={"neighbors": k}), 10)
        shares.append(result.validation_accuracy)
    return np.array(shares)


@pytest.mark.parametrize("vote", ["similarity", "equal"])
@pytest.mark.parametrize("kind", ["random", "constant", "zero"])
def test_features_that_say_nothing_predict_no_label_more_often_than_its_share(vote: Any, kind: str) -> None:
    bank, queries = uninformative(2000, 0), uninformative(4000, 1)
    if kind != "random":
        for features, _ in (bank, queries):
            features.fill_(0.3 if kind == "constant" else 0.0)
    shares = predicted(bank, queries, KnnParams(vote=vote), 20)
    assert shares.sum() == pytest.approx(1)
    assert shares.max() < 0.13, shares
    assert shares.min() > 0.07, shares


def test_the_lowest_label_wins_a_tie_only_where_scikit_learn_is_asked_for() -> None:
    shares = predicted(uninformative(2000, 0), uninformative(4000, 1), KnnParams(vote="scikit_learn"), 20)
    assert shares[0] > 0.14
    assert shares[9] < 0.08


def test_a_tie_of_labels_is_drawn() -> None:
    bank = torch.tensor([[1.0, 0.1], [1.0, -0.1], [-1.0, 0.0]]), torch.tensor([4, 2, 0])
    queries = torch.tensor([[1.0, 0.0]]).expand(1000, -1), torch.full((1000,), 4)
    for vote in ("similarity", "equal"):
        share = knn_probe(bank, queries, None, KnnParams(neighbors=2, vote=vote), 5).validation_accuracy
        assert 0.45 < share < 0.55


def test_the_nearer_neighbours_outweigh_more_that_are_farther() -> None:
    bank = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.6, 0.8]]), torch.tensor([1, 0, 0])
    queries = torch.tensor([[1.0, 0.1]]), torch.tensor([1])
    assert knn_probe(bank, queries, None, KnnParams(neighbors=3), 2).validation_accuracy == 1
    assert knn_probe(bank, queries, None, KnnParams(neighbors=3, vote="equal"), 2).validation_accuracy == 0
    assert knn_probe(bank, queries, None, KnnParams(neighbors=3, temperature=1e3), 2).validation_accuracy == 0


def test_votes_are_exponentials_of_similarities_at_any_temperature() -> None:
    train, queries = random_features(60, 0), random_features(30, 1)
    (found,) = NeighbourSearch((train,), False, CPU).of(queries[0], 10)
    votes = count_votes(found, 3, KnnParams())
    weights = (found.similarities / 0.07).exp()
    expected = torch.stack([(weights * (found.labels == label)).sum(dim=1) for label in range(3)], dim=1)
    torch.testing.assert_close(votes / votes.sum(1, keepdim=True), expected / expected.sum(1, keepdim=True))
    cold = count_votes(found, 3, KnnParams(temperature=1e-6))
    assert torch.equal(cold.argmax(dim=1), found.labels[:, 0])


def test_features_that_barely_differ_have_the_neighbours_they_have() -> None:
    # Images that differ by a thousandth of a shared mean: 1 - cosine is below single precision.
    train, validation = (random_features(n, seed, mean=1.0, spread=3e-4) for n, seed in ((300, 0), (200, 1)))
    for temperature in (0.07, 1e-8):
        result = probed(train, validation, neighbors=5, temperature=temperature)
        assert result.validation_accuracy == pytest.approx(
            accuracy_by_hand(train, validation, 5, temperature, False), abs=0.011
        )


@pytest.mark.parametrize("neighbors", [1, 4, 20])
def test_equal_votes_whose_ties_go_to_the_lowest_label_are_those_of_scikit_learn(
    neighbors: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbors_module, "_ROWS_AT_ONCE", 37)  # several blocks, the last one smaller
    for train, queries in (digit_splits()[::2], (random_features(150, 0), random_features(90, 1))):
        classifier = KNeighborsClassifier(neighbors, algorithm="brute", metric="euclidean")
        classifier.fit(normalize(train[0].numpy()), train[1].numpy())
        expected = classifier.score(normalize(queries[0].numpy()), queries[1].numpy())
        found = probed(train, queries, neighbors=neighbors, vote="scikit_learn").validation_accuracy
        assert found == pytest.approx(expected, abs=1e-12)


def test_no_block_is_larger_than_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbors_module, "_VALUES_AT_ONCE", 8 * 10)
    train, queries = random_features(95, 0), random_features(42, 1)
    search = NeighbourSearch((train, queries), False, CPU)
    assert [len(vectors) for vectors, _, _ in search._blocks()] == [*[10] * 9, 5, *[10] * 4, 2]
    assert [len(found.labels) for found in search.of(queries[0], 3)] == [10, 10, 10, 10, 2]


def test_features_too_large_for_memory_are_read_from_a_file_and_give_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for encoder in (None, FakeEncoder()):
        expected = Knn(KnnParams()).run(make_subject(encoder, scratch=tmp_path / "unused"))
        with monkeypatch.context() as patch:
            patch.setattr(subject_module, "_BYTES_IN_MEMORY", 1000)
            subject = make_subject(encoder, scratch=tmp_path / "used")
            assert Knn(KnnParams()).run(subject) == expected
            assert "features" not in vars(subject)
    assert not (tmp_path / "unused").exists()
    assert list((tmp_path / "used").iterdir()) == []


def test_images_of_zeros_are_compared_without_error() -> None:
    train, validation = random_features(60, 0), random_features(30, 1)
    train[0][0] = 0
    validation[0][0] = 0
    assert probed(train, validation, neighbors=3).validation_accuracy > 0.5


@pytest.mark.parametrize("value", [0.1, 1e5, 0.0])
def test_a_feature_that_is_the_same_for_all_images_says_nothing_when_standardised(value: float) -> None:
    train, validation = random_features(90, 0), random_features(60, 1)
    expected = probed(train, validation, neighbors=5, standardize=True)
    with_constant = [
        (torch.cat((x, torch.full((len(x), 1), value)), dim=1), labels) for x, labels in (train, validation)
    ]
    assert probed(with_constant[0], with_constant[1], neighbors=5, standardize=True) == expected


def test_without_a_test_split_there_is_no_test_accuracy() -> None:
    result = probed(random_features(60, 0), random_features(30, 1), neighbors=20)
    assert result.test_accuracy is None


def test_more_neighbours_than_training_images_are_refused() -> None:
    refused = Knn.check(Knn.Params(neighbors=91), make_splits())
    assert refused is not None
    assert str(refused).startswith("neighbors must be at most the number of training images (90), got 91; lower it")
    assert Knn.check(Knn.Params(neighbors=90), make_splits()) is None
    assert Knn.check(Knn.Params(), make_splits()) is None
