"""The grid of penalties goes on where the best one lies at an end, and nowhere else."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from jepa_lab.probes.penalties import DEFAULT_GRID, Tried, best_of, beyond, edge_of, flat_top_of


def search(accuracy_at: Callable[[float], float]) -> list[Tried]:
    """All values that would be tried; the argument of `accuracy_at` is the logarithm of C to the base 10."""
    tried = [Tried(c, accuracy_at(round(math.log10(c)))) for c in DEFAULT_GRID]
    for end in ("low", "high"):
        while (c := beyond(end, tried)) is not None:
            tried.append(Tried(c, accuracy_at(round(math.log10(c)))))
    return tried


@pytest.mark.parametrize("peak", range(-7, 6))
def test_a_single_peak_within_the_bounds_is_found_and_lies_inside(peak: int) -> None:
    tried = search(lambda power: 0.9 - 0.01 * abs(power - peak))
    assert best_of(tried).c == pytest.approx(10.0**peak)
    assert edge_of(tried) is None
    assert flat_top_of(tried) is None
    assert len(tried) <= len(DEFAULT_GRID) + max(0, -4 - peak + 1) + max(0, peak - 2 + 1)


@pytest.mark.parametrize(("rising", "c", "edge"), [(1, 1e6, "high"), (-1, 1e-8, "low")])
def test_the_search_ends_at_its_bounds_and_says_at_which(rising: int, c: float, edge: str) -> None:
    tried = search(lambda power: 0.5 + 0.01 * rising * power)
    assert best_of(tried).c == c
    assert edge_of(tried) == edge


def test_a_flat_top_is_followed_for_two_values_and_the_first_that_reached_it_is_chosen() -> None:
    tried = search(lambda power: min(0.9, 0.9 + 0.01 * (power - 2)))
    assert best_of(tried).c == 100
    assert max(each.c for each in tried) == 1e4
    assert flat_top_of(tried) == (100, 1e4)
    tried = search(lambda power: min(0.9, 0.9 - 0.01 * (power + 4)))
    assert best_of(tried).c == 1e-4
    assert flat_top_of(tried) == (1e-6, 1e-4)


def test_a_rise_after_a_flat_value_is_still_found() -> None:
    tried = search(lambda power: {2: 0.8, 3: 0.8, 4: 0.9}.get(power, 0.7))
    assert best_of(tried).c == 1e4


def test_one_value_is_no_choice() -> None:
    assert edge_of([Tried(1.0, 0.5)]) is None
    assert flat_top_of([Tried(1.0, 0.5)]) is None
