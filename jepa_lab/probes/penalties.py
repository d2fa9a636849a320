"""Which penalties a logistic regression is fitted with: a grid, and where it goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

End = Literal["low", "high"]

DEFAULT_GRID = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
_BEYOND: dict[End, tuple[float, ...]] = {"low": (1e-5, 1e-6, 1e-7, 1e-8), "high": (1e3, 1e4, 1e5, 1e6)}
_FLAT_STEPS = 2
"""So many values in a row that are as good as the best, and no better, are a flat top."""


@dataclass(frozen=True)
class Tried:
    """A value of C, and the accuracy on the validation split with it."""

    c: float
    accuracy: float


def beyond(end: End, tried: Sequence[Tried]) -> float | None:
    """The value at which the default grid goes on at one end; None where it need not, or may not.

    It goes on while the outermost value is as good as any, so that the best one comes to lie inside, but neither
    along a flat top nor beyond its bounds.

    Args:
        tried: in the order of the search; of equal accuracies the first counts as the best.
    """
    by_c = sorted(tried, key=lambda each: each.c)
    outwards = by_c if end == "high" else by_c[::-1]
    best = best_of(tried)
    if outwards[-1].accuracy < best.accuracy or len(outwards) - 1 - outwards.index(best) >= _FLAT_STEPS:
        return None
    return next((c for c in _BEYOND[end] if c not in {each.c for each in tried}), None)


def best_of(tried: Sequence[Tried]) -> Tried:
    """The highest accuracy; of equal ones the first that was tried."""
    return max(tried, key=lambda each: each.accuracy)


def edge_of(tried: Sequence[Tried]) -> End | None:
    """The end of what was tried that the best value is; None for a single value, which was not chosen."""
    values = [each.c for each in tried]
    best = best_of(tried).c
    if len(values) == 1:
        return None
    if best == min(values):
        return "low"
    return "high" if best == max(values) else None


def flat_top_of(tried: Sequence[Tried]) -> tuple[float, float] | None:
    """From the best value to an end of what was tried, smaller first, where all between are as good; else None."""
    best = best_of(tried)
    by_c = sorted(tried, key=lambda each: each.c)
    place = by_c.index(best)
    for part in (by_c[place:], by_c[: place + 1]):
        if len(part) > 1 and all(each.accuracy == best.accuracy for each in part):
            return part[0].c, part[-1].c
    return None
