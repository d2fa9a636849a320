"""Tests of the fine-tuning probe."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from jepa_lab.data.augmentations.minimal import Minimal
from jepa_lab.grid import Grid
from jepa_lab.models.sizes import ModelSize
from jepa_lab.models.vit import VisionTransformer, initialize_weights
from jepa_lab.positions.base import POSITIONS
from jepa_lab.probes.finetune import Finetune, parameter_groups, warmup_cosine
from jepa_lab.probes.subject import Subject
from jepa_lab.testing.subjects import labelled_images, make_splits, make_subject
from tests.unit.probes.fakes import FakeEncoder

PLAIN: dict[str, Any] = {"augmentation": None, "warmup_fraction": 0.0, "layer_decay": 1.0, "weight_decay": 0.0}


def finetune(**params: Any) -> Finetune:
    return Finetune(Finetune.Params(**{"epochs": 3, "batch_size": 30, **params}))


def vit(position: str = "sincos") -> VisionTransformer:
    size, grid, entry = ModelSize(12, 2, 2), Grid(2, 2), POSITIONS.get(position)
    encoder = VisionTransformer(grid, 4, 3, size, entry.component(entry.params_type(), grid, 12, 2))
    initialize_weights(encoder, torch.Generator().manual_seed(0))
    return encoder.requires_grad_(False)


class Head(nn.Module):
    """What is fine-tuned, by the names of its parts."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(12, 3)


def test_training_end_to_end_learns_and_begins_with_a_head_that_knows_nothing() -> None:
    splits = make_splits()
    splits = replace(splits, train=labelled_images(300, 3, seed=1))
    outcome = finetune(epochs=20, learning_rate=1e-2, **PLAIN).run(make_subject(FakeEncoder(), splits))
    by_epoch = outcome.details["validation_accuracy_by_epoch"]
    assert len(by_epoch) == 21
    assert by_epoch[0] == pytest.approx(1 / 3), "a head of zeros says the first class"
    assert outcome.scores[0].validation == max(by_epoch[1:])
    assert max(by_epoch) > 0.6


class WithoutDropout(FakeEncoder):
    def __init__(self) -> None:
        super().__init__()
        self.dropout.p = 0.0


def test_one_epoch_of_one_batch_is_a_step_of_adamw() -> None:
    splits = make_splits()
    # Classes of unequal size: else the gradient of the biases is rounding errors, which AdamW blows up.
    unequal = torch.cat([torch.arange(0, 30, 3), torch.arange(1, 70, 3), torch.arange(2, 90, 3)])
    splits = replace(splits, train=splits.train.subset(unequal))
    subject = make_subject(WithoutDropout(), splits)
    outcome = finetune(epochs=1, batch_size=90, learning_rate=0.01, epoch="last", **PLAIN).run(subject)
    encoder, head = WithoutDropout(), nn.Linear(6, 3)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    optimizer = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=0.01 * 0.5, weight_decay=0.0)
    splits = subject.splits
    assert splits.train.labels is not None
    assert splits.validation.labels is not None

    def logits(images: Tensor) -> Tensor:
        pixels = (images.float() / 255 - splits.mean[:, None, None]) / splits.std[:, None, None]
        return head(encoder.last_layers(pixels, 1).mean(dim=1))

    nn.functional.cross_entropy(logits(splits.train.images), splits.train.labels).backward()
    optimizer.step()
    right = (logits(splits.validation.images).argmax(dim=1) == splits.validation.labels).double().mean().item()
    assert outcome.scores[0].validation == pytest.approx(right)


def test_the_encoder_that_was_given_is_copied() -> None:
    encoder = FakeEncoder()
    before = encoder.weight.clone()
    finetune(learning_rate=0.1).run(make_subject(encoder))
    assert torch.equal(encoder.weight, before)


def test_a_run_of_another_seed_takes_other_batches() -> None:
    found = [finetune(learning_rate=0.03).run(make_subject(vit(), depth=2, seed=seed)).to_dict() for seed in (0, 0, 1)]
    assert found[0] == found[1]
    assert found[0]["confusion"] != found[2]["confusion"]


@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": 6},
        {"batch_size": 90},
        {"learning_rate": 1e-3},
        {"layer_decay": 0.1},
        {"weight_decay": 20.0},
        {"warmup_fraction": 1.0},
        {"augmentation": None},
        {"augmentation": Minimal.Params(crop_scale=(1.0, 1.0))},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_every_parameter_changes_what_is_trained(changes: dict[str, Any]) -> None:
    base: dict[str, Any] = {"learning_rate": 0.03, "epoch": "last"}
    splits = replace(make_splits(), validation=labelled_images(600, 3, seed=9))
    subject = make_subject(vit(), splits, depth=2)
    found = [finetune(**{**base, **params}).run(subject).details for params in ({}, changes)]
    assert found[0]["validation_accuracy_by_epoch"] != found[1]["validation_accuracy_by_epoch"]


def test_the_best_epoch_on_validation_or_the_last_is_scored() -> None:
    subject = make_subject(FakeEncoder(), depth=2)
    best = finetune(epochs=12, learning_rate=0.05).run(subject)
    last = finetune(epochs=12, learning_rate=0.05, epoch="last").run(subject)
    by_epoch = best.details["validation_accuracy_by_epoch"]
    assert last.details["validation_accuracy_by_epoch"] == by_epoch
    assert best.details["epoch"] == by_epoch.index(max(by_epoch[1:]), 1)
    assert last.details["epoch"] == 12
    assert last.scores[0].validation == by_epoch[12]
    assert best.details["epoch"] < 12, "or the two were the same"
    shorter = finetune(epochs=12, learning_rate=0.05, epoch="best").run(subject)
    assert shorter.scores[0].test == best.scores[0].test


def test_a_loss_that_is_not_finite_ends_it_with_the_last_good_weights_and_a_note() -> None:
    class Overflowing(FakeEncoder):
        steps = 0

        def last_layers(self, images: Tensor, num_layers: int) -> Tensor:
            if self.training:
                Overflowing.steps += 1
            return super().last_layers(images, num_layers) * (float("nan") if Overflowing.steps > 6 else 1.0)

    outcome = finetune(epochs=9).run(make_subject(Overflowing()))
    assert outcome.notes == ("the loss was not finite in epoch 3, which ended it; lower learning_rate",)
    assert len(outcome.details["validation_accuracy_by_epoch"]) == 4
    assert outcome.details["epoch"] in (1, 2)


def test_the_last_layers_that_are_probed_are_those_that_are_fine_tuned() -> None:
    one, four = (finetune().run(make_subject(FakeEncoder(), num_layers=number)) for number in (1, 4))
    assert one.to_dict() != four.to_dict()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_trains_too(dtype: torch.dtype) -> None:
    def autocast() -> contextlib.AbstractContextManager[object]:
        return torch.autocast("cpu", dtype=dtype)

    subject: Subject = make_subject(vit(), depth=2, autocast=autocast)
    full = finetune(epochs=5, learning_rate=0.03).run(replace(subject, autocast=contextlib.nullcontext))
    half = finetune(epochs=5, learning_rate=0.03).run(subject)
    assert not any("finite" in note for note in half.notes)
    assert half.scores[0].validation == pytest.approx(full.scores[0].validation, abs=0.3)


@pytest.mark.parametrize("position", ["sincos", "learned"])
def test_learning_rates_fall_from_block_to_block_and_matrices_alone_decay(position: str) -> None:
    model = Head(vit(position))
    groups = parameter_groups(model, depth=2, layer_decay=0.5, weight_decay=0.1)
    where = {id(parameter): group for group in groups for parameter in group["params"]}
    assert len(where) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        group = where[id(parameter)]
        scale = {"blocks.0": 0.25, "blocks.1": 0.5, "patch_embed": 0.125, "position": 0.125}
        expected = next((value for part, value in scale.items() if f"encoder.{part}" in name), 1.0)
        assert group["scale"] == expected, name
        decays = name.endswith("weight") and "norm" not in name
        assert group["weight_decay"] == (0.1 if decays else 0.0), name


def test_the_schedule_rises_in_a_line_and_falls_by_half_a_cosine() -> None:
    assert [warmup_cosine(progress, 0.2) for progress in (0.0, 0.05, 0.1)] == pytest.approx([0, 0.25, 0.5])
    assert warmup_cosine(0.2, 0.2) == 1.0
    assert warmup_cosine(0.6, 0.2) == pytest.approx(0.5)
    assert warmup_cosine(1.0, 0.2) == pytest.approx(0.0)
    assert warmup_cosine(0.5, 1.0) == 0.5
    assert warmup_cosine(0.5, 0.0) == pytest.approx(0.5)


def test_of_equally_good_epochs_the_first_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    accuracies = iter([0.9, 0.4, 0.6, 0.6, 0.5])  # that before the first epoch does not count
    monkeypatch.setattr("jepa_lab.probes.finetune._Training._accuracy", lambda self, split: next(accuracies))
    outcome = finetune(epochs=4).run(make_subject(FakeEncoder()))
    assert outcome.details["epoch"] == 2
    assert outcome.scores[0].validation == 0.6
