"""The time left is told by steps and by evaluations, each timed by itself."""

from __future__ import annotations

import pytest

from jepa_lab.training.pace import Pace


def test_nothing_is_said_before_the_second_step() -> None:
    pace = Pace(total_steps=100, evaluate_every_steps=10)
    assert pace.seconds_left() is None
    pace.stepped(1, 60.0)
    assert pace.seconds_left() is None


def test_neither_the_first_step_nor_what_came_before_counts_as_the_time_of_a_step() -> None:
    pace = Pace(total_steps=100, evaluate_every_steps=100)
    pace.stepped(1, 60.0)  # it has compiled
    pace.stepped(2, 62.0)
    assert pace.seconds_left() == pytest.approx(2.0 * 98)
    pace.stepped(3, 63.0)
    assert pace.seconds_left() == pytest.approx(1.5 * 97)


def test_a_resumed_run_is_told_by_its_own_steps() -> None:
    pace = Pace(total_steps=100, evaluate_every_steps=100)
    for step, seconds in ((51, 5000.0), (52, 5001.0)):
        pace.stepped(step, seconds)
    assert pace.seconds_left() == pytest.approx(48.0)


@pytest.mark.parametrize(("step", "evaluations"), [(2, 4), (9, 4), (10, 3), (29, 2), (30, 1), (34, 1), (35, 0)])
def test_evaluations_to_come_are_added_with_that_of_the_last_step(step: int, evaluations: int) -> None:
    pace = Pace(total_steps=35, evaluate_every_steps=10)
    pace.evaluated(5.0)
    pace.stepped(step - 1, 0.0)
    pace.stepped(step, 1.0)
    assert pace.seconds_left() == pytest.approx(35 - step + 5 * evaluations)


def test_a_machine_that_becomes_faster_is_noticed() -> None:
    pace = Pace(total_steps=10_000, evaluate_every_steps=10_000)
    for step in range(1, 1001):
        pace.stepped(step, 10.0 * step)
    for step in range(1001, 2100):
        pace.stepped(step, 10_000.0 + step)
    assert pace.seconds_left() == pytest.approx(10_000 - 2099)
