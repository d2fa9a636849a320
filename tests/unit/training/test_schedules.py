"""Schedules equal the reference's curves."""

from __future__ import annotations

import json

import pytest

from jepa_lab.training.ema.cosine import CosineEma
from jepa_lab.training.ema.linear import LinearEma, StartEndParams
from jepa_lab.training.schedules import OptimizerSettings, Schedules
from tests.golden.reference import FOLDER

CURVES = json.loads((FOLDER / "schedules.json").read_text())


def build(curve: dict) -> Schedules:
    settings = OptimizerSettings(
        learning_rate=curve["lr"],
        start_learning_rate=curve["start_lr"],
        final_learning_rate=curve["final_lr"],
        warmup_epochs=curve["warmup_epochs"],
        weight_decay=curve["weight_decay"][0],
        final_weight_decay=curve["weight_decay"][1],
        schedule_stretch=curve["ipe_scale"],
    )
    ema = LinearEma(StartEndParams(start=curve["ema"][0], end=curve["ema"][1]))
    return Schedules(settings, ema, curve["epochs"], curve["iterations_per_epoch"])


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize(
    ("key", "method"),
    [("lr_values", "learning_rate"), ("weight_decay_values", "weight_decay"), ("ema_values", "ema_momentum")],
)
def test_schedule_equals_the_reference_at_every_step(curve: dict, key: str, method: str) -> None:
    schedule = getattr(build(curve), method)
    ours = [schedule(step) for step in range(1, len(curve[key]) + 1)]
    assert ours == pytest.approx(curve[key], abs=1e-12, rel=0)


def test_warmup_fraction_equals_the_same_number_of_epochs() -> None:
    by_fraction = Schedules(OptimizerSettings(warmup_fraction=0.25), LinearEma(StartEndParams()), 8, 5)
    by_epochs = Schedules(OptimizerSettings(warmup_epochs=2), LinearEma(StartEndParams()), 8, 5)
    assert by_fraction.warmup_steps == by_epochs.warmup_steps == 10


def test_null_final_weight_decay_keeps_it_constant() -> None:
    schedules = Schedules(OptimizerSettings(weight_decay=0.05), LinearEma(StartEndParams()), 3, 4)
    assert {schedules.weight_decay(step) for step in range(1, 13)} == {0.05}


def test_cosine_ema_starts_at_start_and_passes_the_middle_halfway() -> None:
    ema = CosineEma(StartEndParams(start=0.9, end=1.0))
    assert ema.momentum(0.0) == pytest.approx(0.9)
    assert ema.momentum(0.5) == pytest.approx(0.95)
    assert ema.momentum(1.0) == pytest.approx(1.0)
