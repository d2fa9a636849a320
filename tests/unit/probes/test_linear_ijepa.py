"""Tests of the linear probe by the I-JEPA paper's protocol."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from jepa_lab.data.augmentations.minimal import Minimal
from jepa_lab.data.centre_squares import CentreSquares
from jepa_lab.probes.batch_norm import BatchNorm
from jepa_lab.probes.linear_ijepa import LinearIjepa, _Setting, _Training
from jepa_lab.testing.subjects import labelled_images, make_splits, make_subject
from tests.unit.probes.fakes import FakeEncoder

ONE: dict[str, Any] = {
    "layers": ("last",), "heads": ("linear",), "learning_rates": (0.05,), "weight_decays": (0.0,)
}  # fmt: skip
"""A single setting."""
LINEAR = _Setting("last", "linear", 0.05, 0.0)
PLAIN: dict[str, Any] = {"augmentation": None, "resize": 224, "optimizer": "sgd"}


def linear_ijepa(**params: Any) -> LinearIjepa:
    return LinearIjepa(LinearIjepa.Params(**{"epochs": 3, "batch_size": 30, **params}))


def test_the_defaults_are_the_paper_s() -> None:
    params = LinearIjepa.Params()
    assert (params.optimizer, params.batch_size, params.epochs) == ("lars", 16_384, 50)
    assert params.decay_every_epochs == 15
    assert params.learning_rates == (0.001, 0.01, 0.05)
    assert params.weight_decays == (0.0, 0.0005)
    assert (params.layers, params.heads) == (("last", "last_four"), ("linear", "batch_norm"))
    assert (params.resize, params.crop) == (256, 224)
    assert params.augmentation is not None
    assert (params.augmentation.crop_scale, params.augmentation.flip_probability) == ((0.08, 1.0), 0.5)


def test_all_combinations_are_tried_and_the_validation_split_chooses() -> None:
    outcome = linear_ijepa(batch_size=15, optimizer="sgd", epochs=5).run(make_subject(FakeEncoder()))
    tried = outcome.details["validation_accuracy_by_setting"]
    assert len(tried) == len({tuple(each[:4]) for each in tried}) == 2 * 2 * 3 * 2
    assert outcome.scores[0].validation == max(each[4] for each in tried)
    chosen = [outcome.details[name] for name in ("layers", "head", "rate", "weight_decay")]
    assert [*chosen, outcome.scores[0].validation] in tried
    assert "learning rate" in outcome.choice
    assert linear_ijepa(**ONE).run(make_subject(FakeEncoder())).choice == ""
    assert "block" in outcome.choice
    pixels = linear_ijepa().run(make_subject(None))
    assert len(pixels.details["validation_accuracy_by_setting"]) == 2 * 3 * 2, "raw pixels have one kind of features"
    assert "block" not in pixels.choice


def test_settings_do_not_disturb_each_other() -> None:
    subject = make_subject(FakeEncoder())
    alone = linear_ijepa(**{**ONE, "layers": ("last_four",), "heads": ("batch_norm",)}).run(subject)
    together = linear_ijepa(learning_rates=(0.05, 1e30), weight_decays=(0.0, 0.1)).run(subject)
    found = {tuple(each[:4]): each[4] for each in together.details["validation_accuracy_by_setting"]}
    assert found["last_four", "batch_norm", 0.05, 0.0] == alone.scores[0].validation


def test_a_step_of_sgd_is_that_of_torch_with_the_rate_scaled_to_the_batch() -> None:
    subject = make_subject(FakeEncoder())
    training = _Training(linear_ijepa(**ONE, **PLAIN, epochs=2, batch_size=90).params, subject, [subject.splits.train])
    own = training.fit_and_predict([LINEAR], subject.splits.validation)[0]
    (group,) = training._groups([LINEAR], {"last": 6, "last_four": 24})
    begins = (group.classifiers.weights, group.classifiers.biases)
    weight, bias = (begin.detach().clone()[0].requires_grad_() for begin in begins)
    optimizer = torch.optim.SGD([weight, bias], lr=0.05 * 90 / 256, momentum=0.9)
    x, labels = subject.features.train
    for _ in range(2):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(x @ weight + bias, labels).backward()
        optimizer.step()
    assert torch.equal(own, (subject.features.validation[0] @ weight + bias).argmax(dim=1))


def test_the_rate_falls_to_a_tenth_after_every_so_many_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = []

    def step(self: Any, gradients: Any, taken: Tensor) -> None:
        rates.append(taken.item())

    monkeypatch.setattr("jepa_lab.probes.lars.StackedLars.step", step)
    splits = replace(make_splits(), test=None)
    linear_ijepa(**ONE, epochs=5, decay_every_epochs=2, batch_size=45).run(make_subject(FakeEncoder(), splits))
    top = 0.05 * 45 / 256
    assert rates == pytest.approx([top] * 4 + [top / 10] * 4 + [top / 100] * 2)


def test_a_step_is_computed_in_parts_and_an_epoch_of_a_single_step_is_noted() -> None:
    subject = make_subject(FakeEncoder())  # 16 images at once
    training = _Training(linear_ijepa(batch_size=45).params, subject, [subject.splits.train])
    assert (training.parts, training.part_size, training.step_size, training.steps) == (3, 15, 45, 6)
    assert list(training.notes()) == []
    whole = linear_ijepa(batch_size=1000, **ONE).run(subject)
    assert whole.details["images_in_a_step"] == 90
    assert whole.notes == ("an epoch is a single step, of 90 images, so there were 3; lower batch_size",)


def test_images_are_evaluated_as_the_centre_of_a_resized_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def feature_batches(self: Any, images: Any) -> Any:
        seen.append(images)
        return original(self, images)

    original = type(make_subject(None)).feature_batches
    monkeypatch.setattr("jepa_lab.probes.subject.Subject.feature_batches", feature_batches)
    subject = make_subject(FakeEncoder(), replace(make_splits(), test=None))
    linear_ijepa(**ONE).run(subject)
    cut = [images for images in seen if isinstance(images, CentreSquares)]
    assert [(images.side, images.fraction, len(images)) for images in cut] == [(8, 224 / 256, 45)]
    seen.clear()
    linear_ijepa(**ONE, resize=224).run(subject)
    assert not [images for images in seen if isinstance(images, CentreSquares)], "nothing is cut off"


def test_training_images_are_augmented_and_every_crop_is_another_one() -> None:
    class Watching(FakeEncoder):
        batches: list[Tensor]

        def last_layers(self, images: Tensor, num_layers: int) -> Tensor:
            self.batches.append(images.clone())
            return super().last_layers(images, num_layers)

    def trained_on(**params: Any) -> list[Tensor]:
        encoder = Watching()
        encoder.batches = []
        splits = replace(make_splits(), test=None)
        linear_ijepa(**{**ONE, "epochs": 2, "batch_size": 90, **params}).run(
            make_subject(encoder, splits, batch_size=90)
        )
        epochs = [batch for batch in encoder.batches if len(batch) == 90]
        return [batch.flatten(1).sum(dim=1).sort().values for batch in epochs]

    first, second = trained_on()
    assert not torch.allclose(first, second)
    first, second = trained_on(augmentation=None)
    assert torch.allclose(first, second), "the same images in another order"
    first, second = trained_on(augmentation=Minimal.Params(crop_scale=(1.0, 1.0), crop_aspect_ratio=(1.0, 1.0)))
    assert torch.allclose(first, second, atol=1e-2), "a flip moves pixels alone"


def test_the_test_split_is_scored_after_a_training_on_training_and_validation() -> None:
    encoder = FakeEncoder()
    linear_ijepa(**ONE, epochs=1, batch_size=90).run(make_subject(encoder))
    without = FakeEncoder()
    linear_ijepa(**ONE, epochs=1, batch_size=90).run(make_subject(without, replace(make_splits(), test=None)))
    assert encoder.seen - without.seen == 90 + 60 + 1, (
        "a step of training and validation images, test, one for the width"
    )


def test_batch_norm_is_torch_s_without_affine_parameters_once_many_steps_are_behind() -> None:
    generator = torch.Generator().manual_seed(0)
    own, theirs = BatchNorm(4, torch.device("cpu")), torch.nn.BatchNorm1d(4, eps=1e-6, affine=False)
    for step in range(200):
        x = 3 * torch.randn(20, 4, generator=generator) + 5
        assert torch.allclose(own(x, training=True), theirs(x), atol=1e-5)
        if step == 0:
            assert torch.allclose(own.mean, x.mean(dim=0), atol=1e-5), "not yet drawn to 0"
    x = torch.randn(20, 4, generator=generator)
    assert torch.allclose(own(x, training=False), theirs.eval()(x), atol=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {"layers": ("last_four",)},
        {"heads": ("batch_norm",)},
        {"learning_rates": (5.0,)},
        {"weight_decays": (5.0,)},
        {"optimizer": "lars"},
        {"batch_size": 10},
        {"epochs": 6},
        {"decay_every_epochs": 1},
        {"augmentation": None},
        {"resize": 400},
        {"crop": 100},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_every_parameter_changes_what_is_found(changes: dict[str, Any]) -> None:
    splits = replace(make_splits(), validation=labelled_images(900, 3, seed=9), test=None)
    base: dict[str, Any] = {**ONE, "learning_rates": (1.0,), "optimizer": "sgd"}
    found = [linear_ijepa(**{**base, **each}).run(make_subject(FakeEncoder(), splits)) for each in ({}, changes)]
    assert found[0].predictions != found[1].predictions


def test_a_rate_at_an_end_is_noted(tmp_path: Path) -> None:
    outcome = linear_ijepa(**{**ONE, "learning_rates": (1e-12, 3.0)}, optimizer="sgd", epochs=10).run(
        make_subject(FakeEncoder(), scratch=tmp_path)
    )
    where = {1e-12: "smallest", 3.0: "largest"}[outcome.details["rate"]]
    rate = f"{outcome.details['rate']:g}"
    assert outcome.notes == (f"learning rate {rate} is the {where} of learning_rates; a better one may lie beyond it",)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"learning_rates": (0.1, 0.1)}, "learning_rates"),
        ({"learning_rates": ()}, "learning_rates"),
        ({"weight_decays": (0.1, 0.0)}, "weight_decays"),
        ({"layers": ("last", "last")}, "layers"),
        ({"heads": ("linear", "linear")}, "heads"),
        ({"resize": 200}, "crop"),
        ({"batch_size": 1}, "batch_size"),
    ],
)
def test_what_makes_no_sense_is_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        LinearIjepa.Params(**params)
