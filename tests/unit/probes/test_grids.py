"""A default grid goes on where the best one lies at an end, and nowhere else."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from jepa_lab.probes.grids import OpenGrid, Tried, best_of, beyond, edge_of, flat_top_of, notes_on_choice
from jepa_lab.probes.logistic import C_GRID


def search(accuracy_at: Callable[[float], float]) -> list[Tried]:
    """All values that would be tried; the argument of `accuracy_at` is the logarithm of C to the base 10."""
    tried = [Tried(c, accuracy_at(round(math.log10(c)))) for c in C_GRID.values]
    for end in ("low", "high"):
        while further := beyond(end, tried, C_GRID):
            tried += [Tried(c, accuracy_at(round(math.log10(c)))) for c in further]
    return tried


@pytest.mark.parametrize("peak", range(-7, 6))
def test_a_single_peak_within_the_bounds_is_found_and_lies_inside(peak: int) -> None:
    tried = search(lambda power: 0.9 - 0.01 * abs(power - peak))
    assert best_of(tried).value == pytest.approx(10.0**peak)
    assert edge_of(tried) is None
    assert flat_top_of(tried) is None
    assert len(tried) <= len(C_GRID.values) + max(0, -4 - peak + 1) + max(0, peak - 2 + 1)


@pytest.mark.parametrize(("rising", "c", "edge"), [(1, 1e6, "high"), (-1, 1e-8, "low")])
def test_the_search_ends_at_its_bounds_and_says_at_which(rising: int, c: float, edge: str) -> None:
    tried = search(lambda power: 0.5 + 0.01 * rising * power)
    assert best_of(tried).value == c
    assert edge_of(tried) == edge


def test_a_flat_top_is_followed_for_two_values_and_the_first_that_reached_it_is_chosen() -> None:
    tried = search(lambda power: min(0.9, 0.9 + 0.01 * (power - 2)))
    assert best_of(tried).value == 100
    assert max(each.value for each in tried) == 1e4
    assert flat_top_of(tried) == (100, 1e4)
    tried = search(lambda power: min(0.9, 0.9 - 0.01 * (power + 4)))
    assert best_of(tried).value == 1e-4
    assert flat_top_of(tried) == (1e-6, 1e-4)


def test_a_rise_after_a_flat_value_is_still_found() -> None:
    tried = search(lambda power: {2: 0.8, 3: 0.8, 4: 0.9}.get(power, 0.7))
    assert best_of(tried).value == 1e4


def test_one_value_is_no_choice() -> None:
    assert edge_of([Tried(1.0, 0.5)]) is None
    assert flat_top_of([Tried(1.0, 0.5)]) is None


def test_several_values_can_be_tried_together() -> None:
    grid = OpenGrid((1.0, 2.0), lower=(0.5,), higher=(4.0, 8.0, 16.0))
    rising, falling = [Tried(1.0, 0.1), Tried(2.0, 0.2)], [Tried(1.0, 0.2), Tried(2.0, 0.1)]
    assert beyond("high", rising, grid, at_once=2) == (4.0, 8.0)
    assert beyond("high", [*rising, Tried(4.0, 0.3), Tried(8.0, 0.4)], grid, at_once=2) == (16.0,)
    assert beyond("low", rising, grid, at_once=2) == ()
    assert beyond("low", falling, grid, at_once=2) == (0.5,)


def test_an_end_and_a_flat_top_are_said_in_words() -> None:
    assert notes_on_choice("rate 2", "rates", "high", None, is_default=True) == [
        "rate 2 is the largest that is tried by default, and a better one may lie beyond it"
    ]
    assert notes_on_choice("rate 2", "rates", "low", None, is_default=False) == [
        "rate 2 is the smallest of rates; extend the grid there, or leave it out"
    ]
    assert notes_on_choice("rate 2", "rates", None, (2.0, 4.0), is_default=True) == [
        "rate 2 is as good as every one from 2 to 4 on validation, and the search ended there"
    ]
    assert notes_on_choice("rate 2", "rates", None, None, is_default=True) == []
