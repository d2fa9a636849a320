"""Tests of what probes get: splits with every class, and features that are extracted once."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from jepa_lab.data.base import ImageSplit
from jepa_lab.errors import ConfigError, DataError
from jepa_lab.probes.features import extract_features
from jepa_lab.probes.knn import Knn
from jepa_lab.probes.logistic import Logistic
from jepa_lab.testing.subjects import labelled_images, make_splits, make_subject
from tests.unit.probes.fakes import FakeEncoder

CPU = torch.device("cpu")
LOGISTIC, KNN = Logistic(Logistic.Params(c_grid=(0.1, 1.0))), Knn(Knn.Params(neighbors=5))


def without_class(split: ImageSplit, label: int) -> ImageSplit:
    assert split.labels is not None
    return split.subset((split.labels != label).nonzero().flatten())


@pytest.mark.parametrize("num_layers", [1, 4])
def test_features_are_those_of_the_last_layers_averaged_over_patches(num_layers: int) -> None:
    splits = make_splits()
    features = make_subject(FakeEncoder(), splits, num_layers=num_layers).features
    for split, found in zip((splits.train, splits.validation, splits.test), vars(features).values(), strict=True):
        expected = extract_features(FakeEncoder(), split.images, splits.mean, splits.std, num_layers, 16, CPU)
        assert torch.equal(found[0], expected)
        assert torch.equal(found[1], split.labels)


def test_every_image_is_encoded_once_for_all_probes() -> None:
    encoder = FakeEncoder()
    subject = make_subject(encoder)
    for probe in (LOGISTIC, KNN):
        probe.run(subject)
    assert encoder.seen == 90 + 45 + 60


def test_raw_pixels_are_features_of_no_encoder() -> None:
    splits = make_splits()
    features = make_subject(None, splits).features
    assert torch.equal(features.train[0], splits.train.images.flatten(1).float() / 255)


@pytest.mark.parametrize("encoder", [FakeEncoder(), None], ids=["encoder", "raw pixels"])
def test_features_in_batches_are_the_same_features(encoder: FakeEncoder | None) -> None:
    subject = make_subject(encoder)
    batches = list(subject.feature_batches(subject.splits.train.images))
    assert [len(batch) for batch in batches] == [16, 16, 16, 16, 16, 10]
    assert torch.equal(torch.cat(batches), subject.features.train[0])


def test_a_class_missing_from_training_is_named_with_the_remedy() -> None:
    splits = make_splits()
    with pytest.raises(DataError, match=r"training split \(60 images\).*class 'class1'; lower data.validation"):
        replace(splits, train=without_class(splits.train, 1))


def test_many_missing_classes_are_counted() -> None:
    splits = make_splits(num_classes=10)
    with pytest.raises(DataError, match="'class1', 'class2', 'class3', 'class4', 'class5' and 4 more"):
        replace(splits, train=labelled_images(1, 10, seed=0))


def test_a_class_missing_from_the_test_split_has_no_accuracy() -> None:
    splits = make_splits()
    assert splits.test is not None
    outcome = LOGISTIC.run(make_subject(None, replace(splits, test=without_class(splits.test, 1))))
    assert outcome.details["per_class_accuracy"]["class1"] is None


def test_images_without_labels_and_single_classes_are_refused() -> None:
    splits = make_splits()
    with pytest.raises(DataError, match=r"set probe\.data"):
        replace(splits, train=ImageSplit(splits.train.images, None))
    with pytest.raises(DataError, match="have 1"):
        replace(splits, class_names=("only",))


def test_the_cheap_probe_trains_on_a_fixed_stratified_subset() -> None:
    splits = make_splits()
    subset = splits.online_train(30)
    again = make_splits().online_train(30)
    assert subset.labels is not None
    assert subset.labels.bincount().tolist() == [10, 10, 10]
    assert torch.equal(subset.images, again.images)
    assert splits.online_train(90) is splits.train


def test_fewer_images_for_the_cheap_probe_than_classes_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"probe.online_max_images .* \(3\), got 2"):
        make_splits().online_train(2)
