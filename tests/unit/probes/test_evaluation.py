"""Tests of the evaluation of encoders and of raw pixels."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from jepa_lab.data.base import ImageSplit
from jepa_lab.errors import ConfigError, DataError
from jepa_lab.probes.evaluation import evaluate_encoder, evaluate_raw_pixels
from jepa_lab.probes.features import extract_features
from jepa_lab.probes.knn import knn_probe
from jepa_lab.probes.logistic import logistic_probe
from jepa_lab.probes.settings import ProbeSettings
from tests.unit.probes.fakes import FakeEncoder, labelled_images, make_splits

CPU = torch.device("cpu")
SETTINGS = ProbeSettings(knn_neighbors=5, batch_size=16)


def without_class(split: ImageSplit, label: int) -> ImageSplit:
    assert split.labels is not None
    return split.subset((split.labels != label).nonzero().flatten())


@pytest.mark.parametrize("layers", ["last", "last_four"])
def test_an_encoder_is_probed_on_its_pooled_features(layers: str) -> None:
    splits, settings = make_splits(), SETTINGS.model_copy(update={"layers": layers})
    labelled = []
    for split in (splits.train, splits.validation, splits.test):
        assert split is not None
        assert split.labels is not None
        features = extract_features(FakeEncoder(), split.images, splits.mean, splits.std, settings.num_layers, 16, CPU)
        labelled.append((features, split.labels))
    evaluation = evaluate_encoder(FakeEncoder(), splits, settings, CPU)
    assert evaluation.logistic == logistic_probe(labelled[0], labelled[1], labelled[2], settings, splits.class_names)
    assert evaluation.knn == knn_probe(labelled[0], labelled[1], labelled[2], settings)


def test_every_image_is_encoded_once() -> None:
    encoder = FakeEncoder()
    evaluate_encoder(encoder, make_splits(), SETTINGS, CPU)
    assert encoder.seen == 90 + 45 + 60


def test_raw_pixels_are_probed_by_the_same_code_on_the_same_splits() -> None:
    splits = make_splits()
    evaluation = evaluate_raw_pixels(splits, SETTINGS)
    labelled = [
        (split.images.flatten(1).float() / 255, split.labels)
        for split in (splits.train, splits.validation, splits.test)
        if split is not None and split.labels is not None
    ]
    expected = logistic_probe(labelled[0], labelled[1], labelled[2], SETTINGS, splits.class_names)
    assert evaluation.logistic.c == expected.c
    assert evaluation.logistic.test_accuracy == expected.test_accuracy
    assert evaluation.knn == knn_probe(labelled[0], labelled[1], labelled[2], SETTINGS)


def test_an_evaluation_is_repeated_exactly() -> None:
    first, second = (evaluate_encoder(FakeEncoder(), make_splits(), SETTINGS, CPU) for _ in range(2))
    assert first == second
    assert json.loads(json.dumps(first.to_dict(), allow_nan=False))["knn"] == first.knn.to_dict()


def test_the_test_split_changes_no_choice() -> None:
    splits = make_splits()
    other = replace(splits, test=labelled_images(60, 3, seed=77))
    none = replace(splits, test=None)
    chosen = [evaluate_raw_pixels(which, SETTINGS) for which in (splits, other, none)]
    assert len({(evaluation.logistic.c, evaluation.logistic.validation_accuracy_by_c) for evaluation in chosen}) == 1
    assert len({evaluation.knn.validation_accuracy for evaluation in chosen}) == 1
    assert chosen[2].logistic.test_accuracy is None
    assert chosen[2].knn.test_accuracy is None


def test_a_class_missing_from_a_split_is_named_with_the_remedy() -> None:
    splits = make_splits()
    with pytest.raises(DataError, match=r"training split \(60 images\).*class 'class1'; lower data.validation"):
        replace(splits, train=without_class(splits.train, 1))
    with pytest.raises(DataError, match=r"validation split .*class 'class2'; raise data.validation_fraction"):
        replace(splits, validation=without_class(splits.validation, 2))


def test_many_missing_classes_are_counted() -> None:
    splits = make_splits(num_classes=10)
    with pytest.raises(DataError, match="'class1', 'class2', 'class3', 'class4', 'class5' and 4 more"):
        replace(splits, validation=labelled_images(1, 10, seed=0))


def test_a_class_missing_from_the_test_split_has_no_accuracy() -> None:
    splits = make_splits()
    assert splits.test is not None
    evaluation = evaluate_raw_pixels(replace(splits, test=without_class(splits.test, 1)), SETTINGS)
    assert evaluation.logistic.per_class_accuracy is not None
    assert evaluation.logistic.per_class_accuracy["class1"] is None


def test_images_without_labels_and_single_classes_are_refused() -> None:
    splits = make_splits()
    with pytest.raises(DataError, match=r"set probe\.data"):
        replace(splits, train=ImageSplit(splits.train.images, None))
    with pytest.raises(DataError, match="have 1"):
        replace(splits, class_names=("only",))


def test_the_cheap_probe_trains_on_a_fixed_stratified_subset() -> None:
    splits = make_splits()
    subset = splits.online_train(SETTINGS.model_copy(update={"online_max_images": 30}))
    again = make_splits().online_train(SETTINGS.model_copy(update={"online_max_images": 30}))
    assert subset.labels is not None
    assert subset.labels.bincount().tolist() == [10, 10, 10]
    assert torch.equal(subset.images, again.images)
    assert splits.online_train(SETTINGS) is splits.train


def test_fewer_images_for_the_cheap_probe_than_classes_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"probe.online_max_images .* \(3\), got 2"):
        make_splits().online_train(SETTINGS.model_copy(update={"online_max_images": 2}))
