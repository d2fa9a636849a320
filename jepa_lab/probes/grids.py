"""Grids of values that a probe chooses one from on the validation split, and where the default ones go on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

End = Literal["low", "high"]

_FLAT_STEPS = 2
"""So many values in a row that are as good as the best, and no better, are a flat top."""


@dataclass(frozen=True)
class OpenGrid:
    """Values that are tried by default.

    Attributes:
        values: tried in any case, increasing.
        lower, higher: with which the grid goes on beyond its ends, outwards; the last ones are its bounds.
    """

    values: tuple[float, ...]
    lower: tuple[float, ...]
    higher: tuple[float, ...]


@dataclass(frozen=True)
class Tried:
    """A value, and the accuracy (or another measure of which more is better) on the validation split with it."""

    value: float
    accuracy: float


def beyond(end: End, tried: Sequence[Tried], grid: OpenGrid, at_once: int = 1) -> tuple[float, ...]:
    """The values with which the default grid goes on at one end; none where it need not, or may not.

    It goes on while the outermost value is as good as any, so that the best one comes to lie inside, but neither
    along a flat top nor beyond its bounds.

    Args:
        tried: in the order of the search; of equal accuracies the first counts as the best.
        at_once: how many further values are tried together.
    """
    by_value = sorted(tried, key=lambda each: each.value)
    outwards = by_value if end == "high" else by_value[::-1]
    best = best_of(tried)
    if outwards[-1].accuracy < best.accuracy or len(outwards) - 1 - outwards.index(best) >= _FLAT_STEPS:
        return ()
    known = {each.value for each in tried}
    further = grid.lower if end == "low" else grid.higher
    return tuple(value for value in further if value not in known)[:at_once]


def widen(
    grid: OpenGrid, tried: Callable[[], Sequence[Tried]], attempt: Callable[[Sequence[float]], None], at_once: int = 1
) -> None:
    """Attempt further values beyond either end of the default grid until the best one lies inside; see `beyond`.

    Args:
        tried: what there is so far. attempt: adds to it.
    """
    for end in get_args(End):
        while further := beyond(end, tried(), grid, at_once):
            attempt(further)


def best_of(tried: Sequence[Tried]) -> Tried:
    """The highest accuracy; of equal ones the first that was tried."""
    return max(tried, key=lambda each: each.accuracy)


def edge_of(tried: Sequence[Tried]) -> End | None:
    """The end of what was tried that the best value is; None for a single value, which was not chosen."""
    values = [each.value for each in tried]
    best = best_of(tried).value
    if len(values) == 1:
        return None
    if best == min(values):
        return "low"
    return "high" if best == max(values) else None


def flat_top_of(tried: Sequence[Tried]) -> tuple[float, float] | None:
    """From the best value to an end of what was tried, smaller first, where all between are as good; else None."""
    best = best_of(tried)
    by_value = sorted(tried, key=lambda each: each.value)
    place = by_value.index(best)
    for part in (by_value[place:], by_value[: place + 1]):
        if len(part) > 1 and all(each.accuracy == best.accuracy for each in part):
            return part[0].value, part[-1].value
    return None


def notes_on_choice(
    chosen: str, parameter: str, edge: End | None, flat_top: tuple[float, float] | None, *, is_default: bool
) -> list[str]:
    """Sentences about a value that was chosen at an end of what was tried, or on a flat top; usually none.

    Args:
        chosen: the value with its name, such as "C=10". parameter: of the grid.
        edge: of `edge_of`. flat_top: of `flat_top_of`.
        is_default: whether the grid went on beyond its ends, as far as it may.
    """
    notes = []
    if edge is not None:
        where = {"low": "smallest", "high": "largest"}[edge]
        if is_default:
            notes.append(f"{chosen} is the {where} that is tried by default, and a better one may lie beyond it")
        else:
            notes.append(f"{chosen} is the {where} of {parameter}; extend the grid there, or leave it out")
    if flat_top is not None:
        low, high = flat_top
        notes.append(
            f"{chosen} is as good as every one from {low:g} to {high:g} on validation, and the search ended there"
        )
    return notes
