"""From the four ways to write an ablation to one list of arms, the baseline first."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jepa_lab.config.fields import expand_bare_name
from jepa_lab.sweeps.ablation import KINDS, Ablation, AblationFile, Kind
from jepa_lab.sweeps.base import Change, change_at
from jepa_lab.sweeps.labels import arm_name

BASE_ARM = "baseline"
"""Name of the base pipeline where it is the baseline."""


@dataclass(frozen=True)
class Draft:
    """An arm before its pipeline is validated.

    Attributes:
        place: where it was written.
    """

    name: str
    changes: tuple[Change, ...]
    place: str


def kinds_of(ablation: Ablation) -> list[Kind]:
    """Which of the four ways are used; a valid ablation uses one."""
    return [kind for kind in KINDS if getattr(ablation, kind)]


def count_arms(ablation: Ablation, kind: Kind) -> int:
    """How many arms `draft_arms` would give, the baseline included."""
    counts: dict[Kind, int] = {
        "arms": len(ablation.arms),
        "grid": math.prod(map(len, ablation.grid.values())),
        "one_at_a_time": 1 + sum(map(len, ablation.one_at_a_time.values())),
        "search": 1,
    }
    return counts[kind]


def draft_arms(file: AblationFile, kind: Kind) -> list[Draft]:
    """Every arm; the baseline comes first where it is found among them."""
    drafts = list(_EXPANSIONS[kind](file))
    baseline = baseline_name(file.ablation, kind)
    return sorted(drafts, key=lambda draft: draft.name != baseline)


def baseline_name(ablation: Ablation, kind: Kind) -> str:
    """The arm that all are compared with; of a valid ablation."""
    given = ablation.baseline
    if isinstance(given, Mapping):
        cell = ((key, matching_value(given.get(key), values)) for key, values in ablation.grid.items())
        return arm_name(cell)
    return BASE_ARM if given is None else str(given)


def matching_value(given: Any, values: list[Any]) -> Any:
    """The value of a list that `given` names; `half` and `{name: half}` are the same. None where there is none."""
    found = (value for value in values if expand_bare_name(value) == expand_bare_name(given))
    return next(found, None)


def swept_sources(ablation: Ablation, kind: Kind) -> Iterator[tuple[tuple[str | int, ...], str, Any]]:
    """Everything that an arm writes: its path in the ablation file, the key of the pipeline, the value."""
    if kind == "arms":
        for name, overrides in ablation.arms.items():
            yield from ((("arms", name, key), key, value) for key, value in (overrides or {}).items())
    elif kind == "search":
        for key, parameter in ablation.search.items():
            choices = parameter.choices or (None,)  # a range is checked by its key alone
            yield from ((("search", key, "choices", index), key, value) for index, value in enumerate(choices))
    else:
        for key, values in getattr(ablation, kind).items():
            yield from (((kind, key, index), key, value) for index, value in enumerate(values))


def _named_arms(file: AblationFile) -> Iterator[Draft]:
    for name, overrides in file.ablation.arms.items():
        changes = [change_at(file, key, value, ("arms", name, key)) for key, value in (overrides or {}).items()]
        yield Draft(name, tuple(changes), file.place("arms", name))


def _grid(file: AblationFile) -> Iterator[Draft]:
    grid = file.ablation.grid
    factors = [[change_at(file, key, value, ("grid", key, i)) for i, value in enumerate(grid[key])] for key in grid]
    for cell in itertools.product(*factors):
        yield Draft(arm_name((change.key, change.value) for change in cell), cell, cell[-1].place)


def _one_at_a_time(file: AblationFile) -> Iterator[Draft]:
    yield Draft(BASE_ARM, (), file.place("one_at_a_time"))
    for key, values in file.ablation.one_at_a_time.items():
        for index, value in enumerate(values):
            change = change_at(file, key, value, ("one_at_a_time", key, index))
            yield Draft(arm_name([(key, value)]), (change,), change.place)


def _search(file: AblationFile) -> Iterator[Draft]:
    yield Draft(BASE_ARM, (), file.place("search"))


_EXPANSIONS: dict[Kind, Callable[[AblationFile], Iterator[Draft]]] = {
    "arms": _named_arms,
    "grid": _grid,
    "one_at_a_time": _one_at_a_time,
    "search": _search,
}
