"""The space of a search, and the pipeline at a point of it; knows nothing of Optuna."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from jepa_lab.config.loading import LoadedPipeline
from jepa_lab.sweeps.ablation import AblationFile, Budget, PrunerName, SamplerName
from jepa_lab.sweeps.base import Base, Change, change_at, with_seed
from jepa_lab.sweeps.labels import Scalar, scalar

Point = Mapping[str, Scalar]
"""Key -> value as Optuna holds it: a list or component is its label."""


@dataclass(frozen=True)
class SearchParameter:
    """One key of the search.

    Attributes:
        low, high, step: of a float or int; step is None for any value (float), or 1 (int).
        choices: of a categorical, as Optuna holds them. changes: the same as changes of the pipeline.
        when: the parameter exists only where these earlier keys have these values.
        place: where it was written.
    """

    key: str
    kind: Literal["float", "int", "categorical"]
    low: float | None
    high: float | None
    log: bool
    step: float | None
    choices: tuple[Scalar, ...]
    changes: tuple[Change, ...]
    when: Mapping[str, Scalar]
    place: str

    def applies(self, point: Point) -> bool:
        """Whether the parameter exists at a point, of which the earlier keys are known."""
        return all(key in point and point[key] == value for key, value in self.when.items())

    def change(self, value: Scalar) -> Change:
        """The change of the pipeline that a value of the parameter stands for."""
        if self.kind == "categorical":
            return self.changes[self.choices.index(value)]
        assert isinstance(value, int | float), f"{self.key} is a number, got {value!r}"
        return Change(self.key, value, self.place, {})

    def extremes(self) -> tuple[Scalar, ...]:
        """Every choice, or the lowest and highest value."""
        if self.kind == "categorical":
            return self.choices
        assert self.low is not None, "checked by the schema"
        assert self.high is not None, "checked by the schema"
        whole = self.kind == "int"
        return (int(self.low), int(self.high)) if whole else (self.low, self.high)

    def to_record(self) -> dict[str, Any]:
        """All that can change a result, as JSON values."""
        numbers = {"low": self.low, "high": self.high, "log": self.log, "step": self.step}
        ranges = {} if self.kind == "categorical" else numbers
        choices = {"choices": [change.value for change in self.changes]} if self.kind == "categorical" else {}
        return {"type": self.kind, **ranges, **choices, "when": dict(self.when)}


@dataclass(frozen=True)
class Search:
    """What is searched, by whom, for how long.

    Attributes:
        parameters: in an order in which each comes after those that its `when` names.
        pruner: name, or None; it looks at `objectives.PRUNING_METRIC`.
    """

    parameters: tuple[SearchParameter, ...]
    sampler: SamplerName
    sampler_seed: int
    budget: Budget
    pruner: PrunerName | None
    base: Base

    def pipeline_of(self, point: Point, seed: int) -> LoadedPipeline:
        """The pipeline at a point, checked as before a run.

        Args:
            point: every key that exists there, and no other.
        Raises:
            ConfigError, DeviceError: these values do not go together.
        """
        present = [parameter for parameter in self.parameters if parameter.applies(point)]
        assert {parameter.key for parameter in present} == set(point), "a point of another space"
        changes = [parameter.change(point[parameter.key]) for parameter in present]
        return with_seed(self.base.changed(changes), seed)

    def variations(self) -> Iterator[tuple[SearchParameter, dict[str, Scalar], list[Change]]]:
        """Every extreme value alone beside the baseline, with what it needs: parameter, point, changes."""
        known = {parameter.key: parameter for parameter in self.parameters}
        for parameter in self.parameters:
            for value in parameter.extremes():
                point = {**_needed(parameter, known), parameter.key: value}
                yield parameter, point, [known[key].change(held) for key, held in point.items()]

    def to_record(self) -> dict[str, Any]:
        """All that can change a result, as JSON values."""
        return {
            "parameters": {parameter.key: parameter.to_record() for parameter in self.parameters},
            "sampler": self.sampler,
            "sampler_seed": self.sampler_seed,
            "pruner": self.pruner,
        }


def build_search(file: AblationFile, base: Base) -> Search:
    """The search of an ablation that has one and keeps the rules."""
    ablation = file.ablation
    assert ablation.budget is not None, "a rule of rules.py"
    return Search(
        parameters=tuple(_parameter(file, key) for key in ablation.search),
        sampler=ablation.sampler,
        sampler_seed=ablation.sampler_seed,
        budget=ablation.budget,
        pruner=ablation.pruner,
        base=base,
    )


def _parameter(file: AblationFile, key: str) -> SearchParameter:
    given = file.ablation.search[key]
    choices = given.choices or ()
    return SearchParameter(
        key=key,
        kind=given.type,
        low=given.low,
        high=given.high,
        log=given.log,
        step=1 if given.type == "int" and given.step is None else given.step,
        choices=tuple(map(scalar, choices)),
        changes=tuple(
            change_at(file, key, value, ("search", key, "choices", index)) for index, value in enumerate(choices)
        ),
        when={other: scalar(value) for other, value in given.when.items()},
        place=file.place("search", key),
    )


def _needed(parameter: SearchParameter, known: Mapping[str, SearchParameter]) -> dict[str, Scalar]:
    """The values of other keys that a parameter exists with, outermost first."""
    point: dict[str, Scalar] = {}
    for key, value in parameter.when.items():
        point |= {**_needed(known[key], known), key: value}
    return point
