"""EMA momentum: its curves at points computed by hand, its warm-up, and what it does to the target encoder."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from pydantic import ValidationError

from jepa_lab.training.ema.constant import ConstantEma, ConstantParams
from jepa_lab.training.ema.cosine import CosineEma
from jepa_lab.training.ema.linear import LinearEma
from jepa_lab.training.ema.start_end import StartEndEma, StartEndParams
from jepa_lab.training.schedules import OptimizerSettings, Schedules

each_way = pytest.mark.parametrize("schedule", [LinearEma, CosineEma])


def momenta(schedule: type[StartEndEma], points: list[float], **params: float) -> list[float]:
    ema = schedule(StartEndParams(**params))
    return [ema.momentum(point) for point in points]


def test_constant_is_its_value_everywhere() -> None:
    ema = ConstantEma(ConstantParams(value=0.99))
    assert {ema.momentum(point) for point in (0.0, 0.3, 1.0)} == {0.99}


def test_cosine_starts_at_start_and_passes_the_middle_halfway() -> None:
    points = [0.0, 0.25, 0.5, 1.0]
    quarter = 1.0 - 0.1 * (1 + math.sqrt(0.5)) / 2
    assert momenta(CosineEma, points, start=0.9, end=1.0) == pytest.approx([0.9, quarter, 0.95, 1.0])


def test_linear_covers_a_quarter_of_the_way_in_a_quarter_of_the_time() -> None:
    assert momenta(LinearEma, [0.0, 0.25, 1.0], start=0.9, end=1.0) == pytest.approx([0.9, 0.925, 1.0])


@each_way
def test_a_warmup_holds_the_momentum_at_start_and_the_rest_is_the_whole_way(schedule: type[StartEndEma]) -> None:
    warm = momenta(schedule, [0.0, 0.1, 0.2, 0.4, 0.6, 1.0], start=0.9, end=1.0, warmup_fraction=0.2)
    cold = momenta(schedule, [0.0, 0.0, 0.0, 0.25, 0.5, 1.0], start=0.9, end=1.0)
    assert warm == pytest.approx(cold)
    assert warm[3] > 0.9


@each_way
def test_a_warmup_from_below_rises_linearly_to_start(schedule: type[StartEndEma]) -> None:
    params = {"start": 0.9, "end": 1.0, "warmup_fraction": 0.2, "warmup_start": 0.5}
    assert momenta(schedule, [0.0, 0.05, 0.1, 0.2, 0.6, 1.0], **params) == pytest.approx(
        [0.5, 0.6, 0.7, 0.9, 0.95, 1.0]
    )


@each_way
@pytest.mark.parametrize("warmup_start", [None, 0.0, 0.99])
@pytest.mark.parametrize("warmup_fraction", [0.01, 0.5, 0.99])
def test_momentum_never_falls_and_stays_a_share(
    schedule: type[StartEndEma], warmup_start: float | None, warmup_fraction: float
) -> None:
    params = {"start": 0.996, "end": 1.0, "warmup_fraction": warmup_fraction, "warmup_start": warmup_start}
    values = momenta(schedule, [step / 1000 for step in range(1001)], **params)
    assert values == sorted(values)
    assert values[0] == (0.996 if warmup_start is None else warmup_start)
    assert values[-1] == 1.0
    # No jump where the warm-up ends: even from 0 to 0.996 within 1% of training there are ten of these points.
    assert max(after - before for before, after in pairwise(values)) < 0.11


def test_ten_warmup_epochs_of_a_hundred_are_a_tenth_of_the_schedule() -> None:
    ema = CosineEma(StartEndParams(start=0.9, end=1.0, warmup_fraction=0.1))
    schedules = Schedules(OptimizerSettings(), ema, epochs=100, steps_per_epoch=4)
    assert {schedules.ema_momentum(step) for step in range(1, 42)} == {0.9}
    assert schedules.ema_momentum(42) > 0.9
    assert schedules.ema_momentum(1 + 220) == pytest.approx(0.95)  # half of the remaining 360 steps


@pytest.mark.parametrize(
    ("params", "rule"),
    [
        ({"warmup_start": 0.5}, "warmup_start needs a warm-up"),
        ({"warmup_start": 0.95, "start": 0.9, "warmup_fraction": 0.1}, "must be at most start, got 0.95 and 0.9"),
        ({"warmup_fraction": 1.0}, "less than 1"),
    ],
)
def test_a_warmup_that_cannot_be_is_refused(params: dict[str, float], rule: str) -> None:
    with pytest.raises(ValidationError, match=rule):
        StartEndParams(**params)
