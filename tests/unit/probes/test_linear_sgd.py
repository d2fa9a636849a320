"""Tests of the linear probe by SGD, against logistic regression and closed forms."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from sklearn.datasets import load_digits

from jepa_lab.data.base import ImageSplit
from jepa_lab.errors import RunStopped
from jepa_lab.probes.feature_file import column_statistics, stored_features
from jepa_lab.probes.linear_sgd import LinearSgd
from jepa_lab.probes.logistic import Logistic
from jepa_lab.probes.splits import ProbeSplits
from tests.unit.probes.fakes import FakeEncoder, make_splits, make_subject


def linear_sgd(**params: Any) -> LinearSgd:
    return LinearSgd(LinearSgd.Params(**params))


def digit_images() -> ProbeSplits:
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    pixels = torch.from_numpy(images[order]).mul(15).to(torch.uint8).reshape(-1, 1, 8, 8)
    truth = torch.from_numpy(labels[order]).long()
    parts = [ImageSplit(pixels[a:b], truth[a:b]) for a, b in ((0, 900), (900, 1200), (1200, len(labels)))]
    return ProbeSplits(*parts, tuple("0123456789"), torch.tensor([0.3]), torch.tensor([0.3]))


def test_it_agrees_with_logistic_regression_on_digits(tmp_path: Path) -> None:
    subject = make_subject(None, digit_images(), scratch=tmp_path)
    by_sgd = linear_sgd().run(subject).scores[0]
    exact = Logistic(Logistic.Params()).run(subject).scores[0]
    assert by_sgd.validation_accuracy == pytest.approx(exact.validation_accuracy, abs=0.015)
    assert by_sgd.test_accuracy == pytest.approx(exact.test_accuracy, abs=0.015)


def test_learning_rates_do_not_disturb_each_other_even_where_one_diverges() -> None:
    subject = make_subject(FakeEncoder())
    alone = linear_sgd(learning_rates=(0.1,), epochs=5).run(subject)
    together = linear_sgd(learning_rates=(0.01, 0.1, 1e30), epochs=5).run(subject)
    tried = dict(together.details["validation_accuracy_by_learning_rate"])
    assert tried[0.1] == alone.scores[0].validation_accuracy
    assert together.details["learning_rate"] in (0.01, 0.1)


def test_the_validation_split_chooses_the_learning_rate_and_equal_ones_the_smallest() -> None:
    outcome = linear_sgd(learning_rates=(1e-9, 2e-9, 0.05), epochs=10).run(make_subject(FakeEncoder()))
    tried = outcome.details["validation_accuracy_by_learning_rate"]
    assert outcome.scores[0].validation_accuracy == max(accuracy for _, accuracy in tried)
    assert outcome.notes == ("learning rate 0.05 is the largest of learning_rates; extend the grid there",)
    flat = linear_sgd(learning_rates=(1e-30, 2e-30), epochs=1).run(make_subject(FakeEncoder()))
    assert flat.details["learning_rate"] == 1e-30


def test_the_first_step_is_that_of_gradient_descent_on_standardised_features() -> None:
    subject = make_subject(None)
    outcome = linear_sgd(learning_rates=(0.5,), epochs=1, batch_size=90).run(replace_test(subject))
    x, labels = (part.double() for part in subject.features.train)
    mean, std = x.mean(dim=0), x.std(dim=0, correction=0)
    error = torch.nn.functional.one_hot(labels.long(), 3).double() - 1 / 3
    standard = (x - mean) / std
    weights, bias = 0.5 * standard.T @ error / 90, 0.5 * error.mean(dim=0)
    held_out, truth = subject.features.validation
    predicted = ((held_out.double() - mean) / std @ weights + bias).argmax(dim=1)
    assert outcome.scores[0].validation_accuracy == pytest.approx((predicted == truth).double().mean().item())


def replace_test(subject: Any) -> Any:
    return replace(subject, splits=replace(subject.splits, test=None))


def test_more_epochs_fit_more_and_larger_batches_take_fewer_steps() -> None:
    subject = make_subject(FakeEncoder())
    short, long = (linear_sgd(learning_rates=(1e-4,), epochs=epochs, batch_size=10) for epochs in (1, 40))
    large = linear_sgd(learning_rates=(1e-4,), epochs=1, batch_size=90)
    found = [probe.run(subject).to_dict() for probe in (short, long, large)]
    assert found[0]["confusion"] != found[1]["confusion"]
    assert found[0]["confusion"] != found[2]["confusion"]


def test_an_encoder_is_run_once_over_every_image_and_nothing_is_left_on_the_disk(tmp_path: Path) -> None:
    encoder = FakeEncoder()
    linear_sgd(learning_rates=(0.1,), epochs=3).run(make_subject(encoder, scratch=tmp_path / "new"))
    assert encoder.seen == 90 + 45 + 60
    assert list((tmp_path / "new").iterdir()) == []


def test_constant_features_say_nothing_and_break_nothing() -> None:
    class Constant(FakeEncoder):
        def last_layers(self, images: torch.Tensor, num_layers: int) -> torch.Tensor:
            return torch.full((len(images), 4, 6), 3.0)

    outcome = linear_sgd(learning_rates=(0.1,), epochs=1).run(make_subject(Constant()))
    assert outcome.scores[0].validation_accuracy == pytest.approx(1 / 3)


def test_stored_features_are_the_features_and_have_no_name(tmp_path: Path) -> None:
    features = torch.randn(70, 5, generator=torch.Generator().manual_seed(0)) * 1e-4 + 1
    with stored_features(iter(features.split(16)), tmp_path) as stored:
        assert np.array_equal(stored, features.numpy())
        assert list(tmp_path.iterdir()) == []
        with pytest.raises(ValueError, match="read-only"):
            stored[0] = 0
        mean, std = column_statistics(stored)
    assert mean == pytest.approx(features.double().mean(dim=0).numpy(), rel=1e-12)
    assert std == pytest.approx(features.double().std(dim=0, correction=0).numpy(), rel=1e-9)


def test_statistics_do_not_depend_on_how_rows_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    features = np.random.default_rng(0).standard_normal((50, 3)).astype(np.float32)
    whole = column_statistics(features)
    monkeypatch.setattr("jepa_lab.probes.feature_file._CHUNK_ROWS", 7)
    parts = column_statistics(features)
    assert parts[0] == pytest.approx(whole[0])
    assert parts[1] == pytest.approx(whole[1])


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    with pytest.raises(RunStopped, match="no space left"):
        linear_sgd().run(make_subject(None, make_splits(), scratch=tmp_path))


@pytest.mark.parametrize("rates", [(), (0.0,), (-0.1,), (0.1, 0.1), (0.2, 0.1), (float("inf"),)])
def test_grids_that_are_not_positive_finite_and_increasing_are_refused(rates: tuple[float, ...]) -> None:
    with pytest.raises(ValidationError, match="learning_rates"):
        LinearSgd.Params(learning_rates=rates)
