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
from jepa_lab.probes.base import ProbeOutcome
from jepa_lab.probes.decorrelation import principal_components
from jepa_lab.probes.feature_file import column_statistics, stored_features
from jepa_lab.probes.linear_sgd import RATES, LinearSgd
from jepa_lab.probes.logistic import Logistic
from jepa_lab.probes.splits import ProbeSplits
from jepa_lab.testing.subjects import labelled_images, make_splits, make_subject
from tests.unit.probes.fakes import FakeEncoder


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
    assert by_sgd.validation == pytest.approx(exact.validation, abs=0.015)
    assert by_sgd.test == pytest.approx(exact.test, abs=0.015)


def by_setting(outcome: ProbeOutcome) -> dict[tuple[float, float], float]:
    return {(rate, ridge): value for rate, ridge, value in outcome.details["validation_accuracy_by_setting"]}


class Correlated(FakeEncoder):
    """Features of one large direction that says nothing and small ones that tell all, as an encoder's are."""

    def last_layers(self, images: torch.Tensor, num_layers: int) -> torch.Tensor:
        tokens = super().last_layers(images, num_layers)
        shared = tokens.mean(dim=2, keepdim=True)
        return 100 * shared + tokens


def test_it_agrees_with_logistic_regression_on_features_that_are_almost_all_the_same() -> None:
    splits = make_splits()
    splits = replace(splits, train=labelled_images(600, 3, seed=1), validation=labelled_images(600, 3, seed=2))
    subject = make_subject(Correlated(), splits)
    exact = Logistic(Logistic.Params()).run(subject).scores[0]
    assert exact.validation is not None
    assert linear_sgd().run(subject).scores[0].validation == pytest.approx(exact.validation, abs=0.02)
    standardised_alone = linear_sgd(ridges=(1e6,), learning_rates=(0.003, 0.01, 0.03, 0.1, 0.3)).run(subject).scores[0]
    assert standardised_alone.validation is not None
    assert standardised_alone.validation < exact.validation - 0.05


def test_settings_do_not_disturb_each_other_even_where_one_explodes() -> None:
    subject = make_subject(FakeEncoder())
    alone = linear_sgd(learning_rates=(0.1,), ridges=(0.1,), epochs=5).run(subject)
    together = linear_sgd(learning_rates=(0.01, 0.1, 1e38), ridges=(0.1, 1.0), epochs=5).run(subject)
    assert by_setting(together)[0.1, 0.1] == alone.scores[0].validation


def test_the_validation_split_chooses_and_equal_ones_are_the_largest_ridge_and_the_smallest_rate() -> None:
    outcome = linear_sgd(learning_rates=(1e-9, 2e-9, 0.05), epochs=10).run(make_subject(FakeEncoder()))
    assert outcome.scores[0].validation == max(by_setting(outcome).values())
    assert outcome.notes == (
        "learning rate 0.05 is the largest of learning_rates; extend the grid there, or leave it out",
    )
    assert outcome.choice == f"learning rate 0.05, ridge {outcome.details['ridge']:g}"
    flat = linear_sgd(learning_rates=(1e-30, 2e-30), ridges=(0.1, 1.0), epochs=1).run(make_subject(FakeEncoder()))
    assert (flat.details["learning_rate"], flat.details["ridge"]) == (1e-30, 1.0)


def test_the_default_rates_go_on_beyond_their_ends_and_a_given_grid_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []

    def predict(self: Any, settings: Any, held_out: np.ndarray) -> torch.Tensor:
        """The larger the rate, the more of the 45 images are right; the classes take turns."""
        asked.extend(setting.rate for setting in settings)
        right = torch.arange(45) % 3
        rows = [
            right.where(torch.arange(45) < 20 + 2 * np.log10(setting.rate), (right + 1) % 3) for setting in settings
        ]
        return torch.stack(rows)

    monkeypatch.setattr("jepa_lab.probes.linear_sgd._Descent.fit_and_predict", predict)
    splits = replace(make_splits(), test=None)
    outcome = linear_sgd(ridges=(1.0,)).run(make_subject(FakeEncoder(), splits))
    assert asked == [*RATES.values, *RATES.higher]
    assert outcome.details["learning_rate"] == 1000
    assert outcome.notes == (
        "learning rate 1000 is the largest that is tried by default, and a better one may lie beyond it",
    )
    asked.clear()
    linear_sgd(ridges=(1.0,), learning_rates=(0.1, 0.2)).run(make_subject(FakeEncoder(), splits))
    assert asked == [0.1, 0.2]


def test_the_first_step_is_that_of_gradient_descent_on_decorrelated_features() -> None:
    subject = make_subject(None)
    outcome = linear_sgd(learning_rates=(0.5,), ridges=(0.3,), epochs=1, batch_size=90).run(replace_test(subject))
    x, labels = (part.double() for part in subject.features.train)
    mean, std = x.mean(dim=0), x.std(dim=0, correction=0)
    error = torch.nn.functional.one_hot(labels.long(), 3).double() - 1 / 3
    standard = (x - mean) / std
    # A descent on components scaled so is one on standardised features, preconditioned by a ridge of their covariance.
    covariance = standard.T @ standard / 90
    precondition = 1.3 * torch.linalg.inv(covariance + 0.3 * torch.eye(len(covariance)))
    weights, bias = 0.5 * precondition @ standard.T @ error / 90, 0.5 * error.mean(dim=0)
    held_out, truth = subject.features.validation
    predicted = ((held_out.double() - mean) / std @ weights + bias).argmax(dim=1)
    assert outcome.scores[0].validation == pytest.approx((predicted == truth).double().mean().item())


def test_components_are_uncorrelated_and_scaled_by_the_formula() -> None:
    generator = np.random.default_rng(0)
    features = (generator.standard_normal((500, 6)) @ generator.standard_normal((6, 6)) + 50).astype(np.float32)
    features[:, 5] = 7.0
    components = principal_components(features, torch.device("cpu"))
    turned = components.of(torch.from_numpy(features)).double()
    assert torch.cov(turned.T, correction=0).numpy() == pytest.approx(np.diag(components.variances), abs=1e-4)
    assert components.variances.sum().item() == pytest.approx(5), "standardised, and one feature is constant"
    scaled = turned * components.scales([1e-9, 1e9])[:, None]
    assert torch.var(scaled[0], dim=0, correction=0)[1:].numpy() == pytest.approx(np.ones(5), rel=1e-3)
    assert scaled[1].numpy() == pytest.approx(turned.numpy(), rel=1e-5, abs=1e-5)


def replace_test(subject: Any) -> Any:
    return replace(subject, splits=replace(subject.splits, test=None))


def test_more_epochs_fit_more_and_larger_batches_take_fewer_steps() -> None:
    subject = make_subject(FakeEncoder())
    short, long = (
        linear_sgd(learning_rates=(1e-4,), ridges=(1.0,), epochs=epochs, batch_size=10) for epochs in (1, 40)
    )
    large = linear_sgd(learning_rates=(1e-4,), ridges=(1.0,), epochs=1, batch_size=90)
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
    assert outcome.scores[0].validation == pytest.approx(1 / 3)


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


@pytest.mark.parametrize("values", [(), (0.0,), (-0.1,), (0.1, 0.1), (0.2, 0.1), (float("inf"),)])
@pytest.mark.parametrize("name", ["learning_rates", "ridges"])
def test_grids_that_are_not_positive_finite_and_increasing_are_refused(name: str, values: tuple[float, ...]) -> None:
    with pytest.raises(ValidationError, match=name):
        LinearSgd.Params(**{name: values})
