"""Schedules equal the reference's curves."""

from __future__ import annotations

import json
import math

import pytest
from pydantic import ValidationError

from jepa_lab.training.ema.constant import ConstantEma, ConstantParams
from jepa_lab.training.ema.linear import LinearEma
from jepa_lab.training.ema.start_end import StartEndParams
from jepa_lab.training.schedules import OptimizerSettings, Schedules
from tests.golden.reference import FOLDER, build_reference_model, build_reference_step, load_reference

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


def test_six_steps_of_the_reference_follow_its_stretched_curves() -> None:
    recorded = json.loads((FOLDER / "reference_small.json").read_text())
    schedules = build_reference_step(build_reference_model(load_reference())).numbers.schedules
    assert schedules.settings.schedule_stretch == 1.25
    steps = range(1, 7)
    assert [schedules.learning_rate(step) for step in steps] == pytest.approx(recorded["lrs"], abs=1e-12)
    assert [schedules.weight_decay(step) for step in steps] == pytest.approx(recorded["weight_decays"], abs=1e-12)
    assert [schedules.ema_momentum(step) for step in steps] == pytest.approx(recorded["momenta"], abs=1e-12)


def test_stretched_schedules_are_cut_off_before_their_end() -> None:
    settings = OptimizerSettings(
        learning_rate=1.0,
        final_learning_rate=0.0,
        warmup_epochs=0,
        weight_decay=0.0,
        final_weight_decay=1.0,
        predictor_weight_decay=2.0,
        predictor_final_weight_decay=0.0,
        schedule_stretch=2.0,
    )
    schedules = Schedules(settings, LinearEma(StartEndParams(start=0.5, end=1.0)), 5, 2)
    # The last of 10 steps is half way through 20: half a cosine is at its middle there.
    assert schedules.learning_rate(10) == pytest.approx(0.5)
    assert schedules.weight_decay(10) == pytest.approx(0.5)
    assert schedules.predictor_weight_decay(10) == pytest.approx(1.0)
    assert schedules.ema_momentum(10) == pytest.approx(0.5 + 0.5 * 9 / 20)


def test_the_predictor_s_weight_decay_follows_the_encoder_s_unless_it_has_its_own() -> None:
    def curve(**settings: float) -> list[float]:
        schedules = Schedules(
            OptimizerSettings(weight_decay=0.04, final_weight_decay=0.4, **settings), LinearEma(StartEndParams()), 2, 2
        )
        assert schedules.weight_decay(4) == pytest.approx(0.4)
        return [schedules.predictor_weight_decay(step) for step in range(1, 5)]

    quarter = (1 + math.cos(math.pi / 4)) / 2
    expected = [0.4 - 0.36 * share for share in (quarter, 0.5, 1 - quarter, 0.0)]
    assert curve() == pytest.approx(expected)
    assert curve(predictor_weight_decay=0.05) == [0.05] * 4
    own = curve(predictor_weight_decay=0.2, predictor_final_weight_decay=0.1)
    assert own == pytest.approx([0.1 + 0.1 * share for share in (quarter, 0.5, 1 - quarter, 0.0)])


def test_a_final_weight_decay_of_the_predictor_needs_its_start() -> None:
    with pytest.raises(ValidationError, match="predictor_final_weight_decay needs predictor_weight_decay"):
        OptimizerSettings(predictor_final_weight_decay=0.1)


def test_moments_decay_rates_beyond_one_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"betas must lie in \[0, 1\)"):
        OptimizerSettings(betas=(0.9, 1.0))


def test_a_warmup_that_takes_the_whole_training_ends_at_the_peak() -> None:
    settings = OptimizerSettings(learning_rate=0.4, start_learning_rate=0.0, warmup_fraction=1.0)
    schedules = Schedules(settings, ConstantEma(ConstantParams()), epochs=2, steps_per_epoch=5)
    assert [schedules.learning_rate(step) for step in (5, 10)] == [0.2, 0.4]


def test_weight_decay_stays_at_its_end_after_the_last_step() -> None:
    settings = OptimizerSettings(weight_decay=0.1, final_weight_decay=0.4)
    schedules = Schedules(settings, ConstantEma(ConstantParams()), epochs=2, steps_per_epoch=5)
    assert [schedules.weight_decay(step) for step in (10, 11, 20)] == pytest.approx([0.4] * 3)
