"""How long a sweep still takes."""

from __future__ import annotations

import pytest

from jepa_lab.sweeps.time_left import TimeLeft


def test_nothing_is_said_before_a_trial_has_finished() -> None:
    assert TimeLeft().seconds([3.0], 5, 2) is None


@pytest.mark.parametrize(
    ("elapsed", "waiting", "slots", "seconds"),
    [
        ([], 4, 2, 20.0),
        ([], 5, 2, 30.0),  # the last trial has a slot of its own
        ([4.0, 9.0], 0, 2, 6.0),
        ([4.0, 9.0], 1, 2, 11.0),  # it begins where one ends in a second
        ([99.0], 0, 2, 0.0),  # longer than the others took
        ([], 0, 2, 0.0),
    ],
)
def test_trials_follow_each_other_on_the_slots(elapsed: list[float], waiting: int, slots: int, seconds: float) -> None:
    assert TimeLeft(others=[8.0, 12.0]).seconds(elapsed, waiting, slots) == seconds


def test_the_first_trial_of_a_worker_counts_only_while_there_is_no_other() -> None:
    assert TimeLeft(first=[40.0]).seconds([], 1, 1) == 40.0
    assert TimeLeft(first=[40.0], others=[6.0]).seconds([], 1, 1) == 6.0


@pytest.mark.parametrize("waiting", [0, 1, 7, 8, 23, 401])
def test_many_trials_take_as_long_as_if_each_were_put_on_the_slot_that_is_free_first(waiting: int) -> None:
    elapsed, slots = [0.0, 3.0, 9.5, 12.0], 7
    ends = [max(0.0, 10.0 - each) for each in elapsed] + [0.0] * (slots - len(elapsed))
    for _ in range(waiting):
        ends[ends.index(min(ends))] += 10.0
    assert TimeLeft(others=[8.0, 12.0]).seconds(elapsed, waiting, slots) == pytest.approx(max(ends))
