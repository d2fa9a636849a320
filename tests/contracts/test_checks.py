"""The one contract of `check`, which every registered component of every family keeps."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from jepa_lab.errors import Key, Problem
from jepa_lab.grid import Grid
from jepa_lab.positions.base import PositionInputs, PositionsOfEncoder
from jepa_lab.positions.learned import LearnedPosition
from jepa_lab.positions.rope import RotaryPosition
from jepa_lab.registry import FAMILIES, Component, Entry
from jepa_lab.regularizers.base import ImagesAtOnce
from jepa_lab.targets.base import TargetInputs
from tests.contracts.test_components import EVERY, default_params
from tests.unit.probes.fakes import make_splits, splits_with_maps

FITTING: dict[str, Callable[[], Any]] = {
    "masker": lambda: Grid(8, 8),
    "position": lambda: PositionInputs(Grid(8, 8), 48, 4, PositionsOfEncoder("learned", LearnedPosition, Grid(8, 8))),
    "target": lambda: TargetInputs(embed_dim=48, depth=4, patch_size=4, num_channels=3),
    "loss": lambda: 48,
    "regularizer": lambda: ImagesAtOnce(32, 1),
    "dataset": lambda: None,
    "augmentation": lambda: 32,
    "downsampling": lambda: 48,
    "probe": splits_with_maps,
}
"""What a run knows of each family, where everything fits; nothing for the others."""

BREAKING: dict[str, list[Any]] = {
    "masker": [Grid(1, 1), Grid(1, 9)],
    "position": [
        PositionInputs(Grid(3, 3), 6, 3),
        PositionInputs(Grid(3, 3), 24, 4),
        PositionInputs(Grid(4, 4), 24, 3, PositionsOfEncoder("rope", RotaryPosition, Grid(4, 4))),
        PositionInputs(Grid(2, 2), 24, 3, PositionsOfEncoder("learned", LearnedPosition, Grid(4, 4))),
    ],
    "target": [TargetInputs(embed_dim=2, depth=1, patch_size=1, num_channels=1)],
    "loss": [1],
    "regularizer": [ImagesAtOnce(4, 4), ImagesAtOnce(4, 2, 2)],
    "dataset": [Path("somewhere")],
    "augmentation": [1],
    "downsampling": [1],
    "probe": [make_splits()],
}
"""What a run may know where something need not fit."""


def params_of(entry: Entry[Any]) -> Iterator[Any]:
    """Default parameters, and each number of them at 1,000,000 where its bounds allow that."""
    usual = default_params(entry)
    yield usual
    for name, value in usual.model_dump().items():
        field = entry.params_type.model_fields[name]
        if isinstance(value, int) or "int" in str(field.annotation):
            try:
                yield entry.params_type.model_validate({**usual.model_dump(), name: 1_000_000})
            except ValidationError:
                continue


@pytest.mark.parametrize("entry", EVERY)
def test_every_component_is_checked_in_the_same_way(entry: Entry[Any]) -> None:
    assert issubclass(entry.component, Component)
    assert list(inspect.signature(entry.component.check).parameters) == ["params", "known"]


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_default_parameters_fit_a_usual_run(family: str) -> None:
    known = FITTING.get(family, lambda: None)()
    for entry in FAMILIES[family]:
        assert (
            entry.component.check(entry.config_type.model_validate(default_params(entry).model_dump()), known) is None
        )


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_problem_names_parameters_of_the_component_alone_relative_to_it(family: str) -> None:
    for entry in FAMILIES[family]:
        for known in [FITTING.get(family, lambda: None)(), *BREAKING.get(family, [])]:
            for params in params_of(entry):
                named = entry.config_type.model_validate(params.model_dump())
                found = entry.component.check(named, known)
                if found is None:
                    continue
                assert isinstance(found, Problem), f"{entry.name} does not say what it is about"
                assert {key.name for key in found.keys} <= set(entry.params_type.model_fields)
                assert all(key.section is None for key in found.keys)
                assert ";" in found.text(), "a remedy follows the rule"
                first = found.parts[0]
                name = first.name if isinstance(first, Key) else None
                assert found.of("a.b").startswith(f"a.b.{name} " if name else "a.b: ") or f"a.b.{name}=" in found.of(
                    "a.b"
                )


def test_the_rules_that_the_shipped_components_have_are_met_above() -> None:
    """Or the test before this one would say nothing."""
    broken = {
        (family, entry.name)
        for family in FAMILIES
        for entry in FAMILIES[family]
        for known in [FITTING.get(family, lambda: None)(), *BREAKING.get(family, [])]
        for params in params_of(entry)
        if entry.component.check(entry.config_type.model_validate(params.model_dump()), known) is not None
    }
    assert broken >= {
        ("position", "from_encoder"),
        ("position", "rope"),
        ("position", "sincos"),
        ("target", "features"),
        ("target", "normalized_pixels"),
        ("target", "pca"),
        ("loss", "cosine"),
        ("regularizer", "vicreg"),
        ("probe", "knn"),
    }
